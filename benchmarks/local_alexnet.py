"""Memory and multiplications of local training for a network of AlexNet's size, beside ordinary training.

    python benchmarks/local_alexnet.py         # writes benchmarks/results/local_alexnet.md and .json

One step of SGD on a batch of synthetic event frames in the shape of CIFAR10-DVS scaled to 48 x 48; nothing is trained
to convergence. Each case runs in its own process, so that peaks of resident memory do not mix.
"""

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from local_counts import compared, count
from machine import machine

from neurodeploy import files, nn
from neurodeploy.kernels.local import LocalTraining, SavedBytes

SHAPE = (2, 48, 48)
CLASSES = 10
TAU = 2.0
COUNTED_BATCH = 16
"""Batch over which a weight's own traffic is shared in the counts."""
CASES: tuple[tuple[int | None, int | None], ...] = (
    (None, None),
    (None, 1),
    (5, None),
    (5, 2),
    (5, 1),
    (2, 2),
    (2, 1),
    (1, 1),
)
"""(K, S): steps per segment and neuron layers per block; None for all."""
PAPER = {"memory": -0.8994, "macs": -0.9964, "traffic": -0.1079}
"""Abstract of Guo et al. 2023 for AlexNet on CIFAR10-DVS; K, S, T and the shape are not stated there."""


def network(batch: int) -> torch.nn.Sequential:
    """Return the AlexNet of the spiking literature: 96C3-256C3-P2-384C3-P2-384C3-256C3-1024-1024-10."""
    layers: list[torch.nn.Module] = []
    channels, height, width = SHAPE
    for features, pooled in ((96, False), (256, True), (384, True), (384, False), (256, False)):
        layers += [torch.nn.Conv2d(channels, features, 3, padding=1, bias=False), neurons(batch)]
        channels = features
        if pooled:
            layers.append(nn.SumPool2d(2))
            height, width = height // 2, width // 2
    layers.append(torch.nn.Flatten())
    numbers = channels * height * width
    for features in (1024, 1024, CLASSES):
        layers += [torch.nn.Linear(numbers, features, bias=False), neurons(batch)]
        numbers = features
    return torch.nn.Sequential(*layers)


def neurons(batch: int) -> nn.LIF:
    return nn.LIF(TAU, norm_input=False, spikes="single", threshold=0.5, batch_size=batch)


def sgd(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3)


def measure(steps: int, batch: int, length: int | None, size: int | None) -> dict[str, Any]:
    """One step in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = network(batch)
    x = torch.poisson(torch.full((batch * steps, *SHAPE), 0.1))
    labels = torch.randint(CLASSES, (batch,))
    local = LocalTraining(net, x, truncation=length, block=size, optimizer=sgd)
    resident = peak_mib()
    parameters = [one for part in (*local.blocks, *local.heads) for one in part.parameters()]
    began = time.perf_counter()
    with SavedBytes(parameters) as saved:
        local.step(x, labels)
    seconds = time.perf_counter() - began
    grown = peak_mib() - resident
    for layer in net:
        if isinstance(layer, nn.LIF):
            layer.batch_size = 1  # counted for one recording
    counts = count(local, x[:steps], steps, COUNTED_BATCH)
    return {
        "K": length,
        "S": size,
        "blocks": len(local.blocks),
        "parameters": sum(one.numel() for one in parameters),
        "saved_mib": saved.peak / 2**20,
        "resident_mib": grown,
        "seconds": seconds,
        "counts": counts,
    }


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(*arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def report(result: dict[str, Any]) -> str:
    info, rows = result["machine"], result["rows"]
    whole = rows[0]
    lines = [
        "# Local training of a network of AlexNet's size",
        "",
        "96C3-256C3-P2-384C3-P2-384C3-256C3-1024-1024-10 with LIF neurons (EXODUS, float32), "
        f"{whole['parameters'] / 1e6:.0f} M weights;",
        f"one step of SGD on a batch of {result['batch']} synthetic recordings of T = {result['steps']} frames",
        f"of {' x '.join(map(str, SHAPE))} (CIFAR10-DVS scaled to 48 x 48), made by",
        "`python benchmarks/local_alexnet.py`. K steps per segment, S spiking layers per block.",
        "",
        f"Commit {info['commit']}; {info['cpu']}, {info['cores']} cores, {info['threads_used']} thread used; "
        f"Python {info['python']}, torch {info['versions']['torch']}.",
        "",
        "| K | S | saved for backward MiB | change | resident memory MiB | change | MACs | with the neurons' | "
        "additions | memory traffic |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"| {row['K'] or 'T'} | {row['S'] or 'all'} | {row['saved_mib']:.0f} | "
        if row is whole:
            lines.append(f"{name}| {row['resident_mib']:.0f} | | {row['counts']['macs'] / 1e9:.1f} G | | | |")
            continue
        change = row["change"]
        lines.append(
            f"{name}{change['saved']:+.1%} | {row['resident_mib']:.0f} | {change['resident']:+.1%} | "
            f"{change['macs']:+.2%} | {change['macs_with_neurons']:+.2%} | {change['additions']:+.1%} | "
            f"{change['traffic']:+.1%} |"
        )
    lines += [
        f"| paper | | | {PAPER['memory']:+.2%} (GPU memory) | | | {PAPER['macs']:+.2%} | | | {PAPER['traffic']:+.2%} |",
        "",
        "Saved: most bytes that autograd kept for a backward pass at one time, weights not counted. Resident: growth",
        "of the process's peak during the step; it holds the gradients of the weights and the workspace of single",
        "operations too. MACs, additions and traffic are counted from the shapes (`benchmarks/local_counts.py` says",
        f"how), per recording of a batch of {COUNTED_BATCH}: a product with a spike is an addition, so what stays",
        "a MAC is an error on its way to a layer's input, the classifiers, and (second column) neurons.",
        "The paper's K, S, T, shape and way of counting are not in its abstract; its row is its abstract's.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="T (default 10)")
    parser.add_argument("--batch", type=int, default=4, help="recordings in the batch (default 4)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "steps": options.steps, "batch": options.batch, "rows": []}
    for length, size in CASES:
        row = in_own_process(options.steps, options.batch, length, size)
        whole = result["rows"][0] if result["rows"] else row
        row["change"] = {
            "saved": row["saved_mib"] / whole["saved_mib"] - 1,
            "resident": row["resident_mib"] / whole["resident_mib"] - 1,
            **compared(row["counts"], whole["counts"]),
        }
        result["rows"].append(row)
        print(row, flush=True)
    for row in result["rows"]:
        row["counts"] = vars(row["counts"])
    files.write_json(options.output / "local_alexnet.json", result)
    text = report(result)
    files.write_text(options.output / "local_alexnet.md", text)
    print(text)


if __name__ == "__main__":
    main()
