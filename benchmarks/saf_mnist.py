"""SAF-E and SAF-F against OTTT on MNIST: accuracy over seeds, operations, time and memory of one training batch.

    python benchmarks/saf_mnist.py                  # writes benchmarks/results/saf_mnist.md and .json
    python benchmarks/saf_mnist.py --only cost      # times and memory again, accuracies kept from the last run

A small VGG-style network of LIF neurons, T = 6 steps of direct coding. All methods run through ``nd.nn.SAF`` on
the same compiled neurons; OTTT as published, with spikes and traces through the weights in two passes. After training
the plain spiking network is evaluated.
"""

import argparse
import gzip
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from neurodeploy import files, nn

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mnist-20k"
STEPS, BATCH, DECAY, SIDE, CLASSES = 6, 64, 0.5, 28, 10
LEARNING_RATE, MOMENTUM, GAIN = 0.1, 0.9, 2.74


@dataclass(frozen=True)
class Contender:
    """One way of training; ``rival`` is the contender the paper compares it with, and its figures there."""

    name: str
    options: dict[str, Any]
    rival: str = ""
    paper_memory: str = ""
    paper_time: str = ""


CONTENDERS = (
    Contender("OTTT_A", {"method": "ottt"}),
    Contender("OTTT_O", {"method": "ottt", "online": True}),
    Contender("SAF-E, one update", {"method": "saf_e"}, "OTTT_A"),
    Contender("SAF-E, update each step", {"method": "saf_e", "online": True}, "OTTT_O", "-28 %", "-30 %"),
    Contender("SAF-F, clamp", {"method": "saf_f", "slope": "clamp"}, "OTTT_A", "-30 %", "-63 %"),
    Contender("SAF-F, surrogate", {"method": "saf_f", "slope": "surrogate"}, "OTTT_A", "-30 %", "-63 %"),
)

EXODUS = Contender("EXODUS, all steps at once", {})
"""Exact back-propagation through time: what the others save memory against. Not trained here."""


def network(seed: int) -> torch.nn.Sequential:
    """conv8 - LIF - pool - conv16 - LIF - pool - linear, for folded input [B * T, 1, 28, 28]."""
    torch.manual_seed(seed)

    def lif() -> nn.LIF:
        return nn.LIF(-1 / log(DECAY), norm_input=False, spikes="single", surrogate=nn.Sigmoid(), num_timesteps=STEPS)

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        lif(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1),
        lif(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 7 * 7, CLASSES),
    )
    for module in net:
        if isinstance(module, torch.nn.Conv2d):  # torch's own start leaves the second layer silent
            torch.nn.init.normal_(module.weight, 0.0, GAIN / (module.weight[0].numel() ** 0.5))
    return net


def load(split: str, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [count, 1, 28, 28] in 0..1 and labels."""
    images, labels = (
        np.frombuffer(gzip.decompress((DATA / f"{split}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for kind, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    x = torch.from_numpy(images.reshape(-1, 1, SIDE, SIDE).astype(np.float32) / 255)
    return x[:count], torch.from_numpy(labels.astype(np.int64))[:count]


def in_time(x: torch.Tensor) -> torch.Tensor:
    return x.unsqueeze(1).expand(-1, STEPS, *x.shape[1:])


def train(contender: Contender, seed: int, epochs: int, count: int | None) -> dict[str, Any]:
    x, y = load("train10k", count)
    net = network(seed)
    trained = nn.SAF(net, **contender.options)
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = torch.Generator().manual_seed(seed)
    start, losses = time.perf_counter(), []
    for _ in range(epochs):
        batches = torch.randperm(len(x), generator=order).split(BATCH)
        losses = [trained.train_batch(in_time(x[b]), y[b], F.cross_entropy, optimizer).loss for b in batches]
        schedule.step()
    seconds = time.perf_counter() - start
    return {"seed": seed, "loss": statistics.mean(losses), "seconds": seconds, **evaluate(net, contender, count)}


def evaluate(net: torch.nn.Sequential, contender: Contender, count: int | None) -> dict[str, float]:
    """Accuracy of the plain network (mean over steps), and of the method's own output in accumulations."""
    x, y = load("t10k", count)
    accumulating = nn.SAF(net, **contender.options)
    plain, own, differ = 0, 0, 0
    with torch.no_grad():
        for images, labels in zip(in_time(x).split(500), y.split(500), strict=True):
            spikes = net(images.flatten(0, 1)).unflatten(0, (-1, STEPS))
            output = accumulating(images)
            weights = DECAY ** torch.arange(STEPS - 1, -1.0, -1)
            as_output = spikes
            if contender.options["method"] == "saf_f":
                as_output = (spikes * weights[:, None] / weights.sum()).sum(1, keepdim=True)
                output = output.unsqueeze(1)
            differ += int((output.mean(1).argmax(1) != as_output.mean(1).argmax(1)).sum())
            own += int((output.mean(1).argmax(1) == labels).sum())
            plain += int((spikes.mean(1).argmax(1) == labels).sum())
    return {"plain_accuracy": plain / len(y), "own_accuracy": own / len(y), "answers_that_differ": differ}


def accuracies(seeds: int, epochs: int, count: int | None) -> Iterator[dict[str, Any]]:
    """What has been trained, after every seed."""
    runs: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in CONTENDERS}
    info = machine()
    for seed in range(seeds):
        for contender in CONTENDERS:
            runs[contender.name].append(train(contender, seed, epochs, count))
            print(contender.name, runs[contender.name][-1], flush=True)
        yield {"seeds": seed + 1, "epochs": epochs, "images": count or 10000, "machine": info, "runs": runs}


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operators have made and that are still alive, and the largest sum seen.

    Workspaces inside an operator are not seen, tensors made before are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count what it made."""
        known = {
            value.untyped_storage()._cdata
            for value in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(value, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in known:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


class SavedBytes:
    """Bytes that autograd holds for backward passes, weights aside, and the largest sum seen."""

    def __init__(self, net: torch.nn.Module) -> None:
        self.peak = 0
        self._weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self._holders: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> "_Held":
        """Count a tensor that autograd keeps."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in self._weights:
            self._holders[key] = self._holders.get(key, 0) + 1
            self._sizes[key] = storage.nbytes()
            self.peak = max(self.peak, sum(self._sizes.values()))
        return _Held(tensor, key, self)

    def drop(self, key: int) -> None:
        """Take a holder of a storage away."""
        if key in self._holders:
            self._holders[key] -= 1
            if self._holders[key] == 0:
                del self._holders[key], self._sizes[key]


class _Held:
    def __init__(self, tensor: torch.Tensor, key: int, counter: SavedBytes) -> None:
        self.tensor, self.key, self.counter = tensor, key, counter

    def __del__(self) -> None:
        self.counter.drop(self.key)


def one_batch(contender: Contender) -> tuple[torch.nn.Sequential, Callable[[], Any]]:
    net = network(0)
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
    generator = torch.Generator().manual_seed(0)
    x = in_time(torch.rand(BATCH, 1, SIDE, SIDE, generator=generator))
    y = torch.randint(CLASSES, (BATCH,), generator=generator)

    def exodus() -> None:
        optimizer.zero_grad()
        output = net(x.flatten(0, 1))
        F.cross_entropy(output, y.repeat_interleave(STEPS)).backward()
        optimizer.step()

    if contender is EXODUS:
        return net, exodus
    trained = nn.SAF(net, **contender.options)
    return net, lambda: trained.train_batch(x, y, F.cross_entropy, optimizer)


def multiply_accumulates(contender: Contender, layers: list[tuple[int, bool]]) -> tuple[int, int]:
    """Of the weights, per sample and window: (forward, forward + backward).

    ``layers``: multiply-accumulates of one pass, and whether the layer's input needs a gradient.
    """
    one_pass = sum(macs for macs, _ in layers)
    backward = sum(macs * (2 if needs else 1) for macs, needs in layers)
    forward = STEPS * one_pass * (2 if contender.options.get("method") == "ottt" else 1)
    return forward, forward + backward * (1 if contender.options.get("method") == "saf_f" else STEPS)


def layer_sizes() -> list[tuple[int, bool]]:
    net, sizes = network(0), []

    def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        sizes.append((output[0].numel() * weight[0].numel(), bool(sizes)))

    for module in net:
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(hook)
    net(torch.zeros(STEPS, 1, SIDE, SIDE))
    return sizes


def cost(rounds: int) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    layers, rows, runs = layer_sizes(), {}, {}
    for contender in (*CONTENDERS, EXODUS):
        net, run = one_batch(contender)
        run()
        saved = SavedBytes(net)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda held: held.tensor):
            run()
        with LiveBytes() as live:
            run()
        with FlopCounterMode(display=False) as flops:
            run()
        forward, total = multiply_accumulates(contender, layers)
        if flops.get_total_flops() != 2 * BATCH * total:
            raise SystemExit(
                f"{contender.name}: counted {flops.get_total_flops()} operations, expected {2 * BATCH * total}"
            )
        rows[contender.name] = {
            "forward_macs": forward,
            "total_macs": total,
            "saved_bytes": saved.peak,
            "live_bytes": live.peak,
        }
        runs[contender.name] = run
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time(), time.perf_counter()
            run()
            times[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    for name, row in rows.items():
        cpu, wall = zip(*times[name], strict=True)
        row |= {"cpu_ms": statistics.median(cpu) * 1e3, "wall_ms": statistics.median(wall) * 1e3}
    return {
        "machine": machine(),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "rounds": rounds,
        "rows": rows,
    }


def percent(value: float, against: float) -> str:
    return f"{value / against - 1:+.0%}".replace("%", " %")


def report(result: dict[str, Any]) -> str:
    lines = [
        "# SAF against OTTT on MNIST",
        "",
        "conv8 - LIF - average pool - conv16 - LIF - average pool - linear (readout), 3 x 3 kernels, "
        f"T = {STEPS} steps of the same image, decay {DECAY}, threshold 1, sigmoid surrogate; SGD {LEARNING_RATE}, "
        f"momentum {MOMENTUM}, batch {BATCH}, cross entropy per step. Made by `python benchmarks/saf_mnist.py`.",
        "",
    ]
    if "accuracy" in result:
        lines += accuracy_report(result["accuracy"])
    if "cost" in result:
        lines += cost_report(result["cost"])
    return "\n".join([*lines, "", *NOTES]) + "\n"


def accuracy_report(training: dict[str, Any]) -> list[str]:
    lines = [
        f"## Accuracy: {training['images']} training images, {training['epochs']} epochs",
        "",
        f"Commit {training['machine']['commit']}. Test images: 10,000, or as many as training images if fewer. Every "
        "network is evaluated as the plain LIF network that a chip would get, and in the method's own output.",
        "",
        "| | plain LIF network | sd | own output | sd | of each seed | answers that differ from the plain network's |",
        "|---|---|---|---|---|---|---|",
    ]
    for contender in CONTENDERS:
        name, runs = contender.name, training["runs"][contender.name]
        plain = [100 * run["plain_accuracy"] for run in runs]
        own = [100 * run["own_accuracy"] for run in runs]
        differ = sum(run["answers_that_differ"] for run in runs)
        lines.append(
            f"| {name} | {statistics.mean(plain):.2f} % | {deviation(plain)} | {statistics.mean(own):.2f} % | "
            f"{deviation(own)} | {', '.join(f'{value:.2f}' for value in plain)} | {differ} |"
        )
    return [*lines, ""]


def cost_report(costs: dict[str, Any]) -> list[str]:
    info = costs["machine"]
    lines = [
        "## One training batch",
        "",
        f"Commit {info['commit']}; {info['cpu']}, {info['cores']} cores, {info['threads_used']} thread used; Python "
        f"{info['python']}, torch {info['versions']['torch']}. Medians of {costs['rounds']} interleaved rounds, "
        "processor time of one thread beside the time that passed; "
        f"load average before and after: {costs['load_before']:.1f}, {costs['load_after']:.1f} (1.0: nothing else).",
        "",
        "| | forward MMAC | all MMAC | CPU ms | wall ms | saved MB | live MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for contender in (*CONTENDERS, EXODUS):
        row = costs["rows"][contender.name]
        lines.append(
            f"| {contender.name} | {row['forward_macs'] / 1e6:.2f} | {row['total_macs'] / 1e6:.2f} | "
            f"{row['cpu_ms']:.0f} | {row['wall_ms']:.0f} | "
            f"{row['saved_bytes'] / 1e6:.1f} | {row['live_bytes'] / 1e6:.1f} |"
        )
    lines += [
        "",
        "MMAC: million multiply-accumulates of the weights per image and window, counted from the shapes and checked "
        "against what torch counted. Saved: largest sum of what autograd held for a backward pass, weights aside. "
        "Live: largest sum of all tensors made in the batch (workspaces inside an operator are not seen).",
        "",
        "## Ratios, beside the paper's",
        "",
        "The paper's figures are those of its conference submission: VGG-11 on CIFAR-10, T = 6, on a GPU, memory of "
        "the whole process.",
        "",
        "| | against | forward operations | CPU time | paper | saved | live | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for contender in CONTENDERS:
        if contender.rival:
            row, rival = costs["rows"][contender.name], costs["rows"][contender.rival]
            parts = [percent(row[key], rival[key]) for key in ("forward_macs", "cpu_ms", "saved_bytes", "live_bytes")]
            lines.append(
                f"| {contender.name} | {contender.rival} | {parts[0]} | {parts[1]} | {contender.paper_time} | "
                f"{parts[2]} | {parts[3]} | {contender.paper_memory} |"
            )
    return lines


NOTES = (
    "What the figures do and do not say:",
    "",
    "- OTTT runs as published, with spikes and traces through the weights in two passes. They are not inherent: the "
    "recurrent form of SAF-E is OTTT's computation in one pass.",
    "- One step at a time, OTTT and SAF-E keep the same for a backward pass: the accumulation (trace) that enters each "
    "layer of weights, and the potentials. OTTT's spikes are constants here and not kept; the published code keeps "
    "them beside the traces. What SAF-E saves here is the spikes and the second pass's output beside the traces.",
    "- SAF-F with the clamp keeps a byte per neuron in the place of a potential, once per window. No method's memory "
    "grows with T (a test holds it) but that of EXODUS.",
    "- SAF-E and OTTT have equal gradients (tests/kernels/test_saf.py, to 1e-12 in float64); in float32 they part by "
    "rounding, which training amplifies.",
)


def deviation(values: list[float]) -> str:
    return f"{statistics.stdev(values):.2f}" if len(values) > 1 else "one seed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=("accuracy", "cost"), help="measure one part, keep the other from the last run"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, help="training and test images (default: all)")
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds of the timing (default 8)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.output / "saf_mnist.json"
    result: dict[str, Any] = json.loads(path.read_text()) if options.only and path.exists() else {}
    if options.only != "cost":
        if not DATA.is_dir():
            print(f"{DATA} is not there: nothing to train on. The costs alone need no data: --only cost.")
            return
        for result["accuracy"] in accuracies(options.seeds, options.epochs, options.images):
            files.write_json(path, result)
    if options.only != "accuracy":
        result["cost"] = cost(options.rounds)
    files.write_json(path, result)
    text = report(result)
    files.write_text(options.output / "saf_mnist.md", text)
    print(text)


if __name__ == "__main__":
    main()
