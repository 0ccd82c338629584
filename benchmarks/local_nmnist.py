"""Local training of a small convolutional network on N-MNIST recordings, beside ordinary training.

    python benchmarks/local_nmnist.py          # writes benchmarks/results/local_nmnist.md and .json

The recordings are ../shared/data/nmnist-small (1,000 + 100); without them nothing is run. Each seed trains on 800 of
the 1,000 and keeps another 200 for testing, so that five seeds test on every recording once; the 100 official test
recordings are tested too. Every method has the same data, order, initial weights and number of epochs, but for a
last row with more.
"""

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from local_counts import compared, count
from machine import machine
from numpy.typing import NDArray

from neurodeploy import files, nn
from neurodeploy.events import EventDataset, dataset_to_raster, load_npz
from neurodeploy.kernels.local import LocalTraining, SavedBytes

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nmnist-small"
SENSOR = (2, 34, 34)
STEPS, DT_US = 100, 3000
BATCH, GAIN, HELD_OUT = 16, 10.0, 200
TAU = 10.0
CLASSES = 10


@dataclass(frozen=True)
class Method:
    """How a network is trained: K steps per segment, S spiking layers per block (None: no cut), Adam's learning rate.

    Updates after every segment are T / K times as many, and take a smaller rate. ``longer`` multiplies the epochs.
    """

    length: int | None
    size: int | None
    rate: float
    longer: int = 1

    @property
    def name(self) -> str:
        """What the table calls it."""
        name = f"K = {self.length or 'T'}, S = {self.size or 'all'}"
        return name if self.longer == 1 else f"{name}, {self.longer} x the epochs"


METHODS = (
    Method(None, None, 5e-3),
    Method(20, 1, 2e-3),
    Method(10, 2, 2e-3),
    Method(10, 1, 2e-3),
    Method(None, None, 5e-3, longer=3),
)
PAPER = "-89.94 % GPU memory, -99.64 % MACs, -10.79 % memory access, +7.26 points (AlexNet, CIFAR10-DVS)"


def network() -> torch.nn.Sequential:
    """Return sinabs' N-MNIST example with a strided first convolution (a quarter of the work) and leaky neurons."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 5, stride=2, padding=1, bias=False),
        neurons(),
        nn.SumPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1, bias=False),
        neurons(),
        nn.SumPool2d(2),
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=False),
        neurons(),
        torch.nn.Flatten(),
        torch.nn.Linear(256, CLASSES, bias=False),
        neurons(),
    )


def neurons() -> nn.LIF:
    surrogate = nn.SingleExponential(1.0)
    return nn.LIF(TAU, norm_input=False, spikes="single", surrogate=surrogate, num_timesteps=STEPS)


def training(net: torch.nn.Sequential, sample: torch.Tensor, method: Method) -> LocalTraining:
    return LocalTraining(
        net,
        sample,
        truncation=method.length,
        block=method.size,
        head=lambda mean: GAIN * mean,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=method.rate),
    )


def load(name: str) -> EventDataset:
    return load_npz(DATA / f"nmnist_{name}.npz", sensor_size=SENSOR).until(STEPS * DT_US)


def batch(data: EventDataset, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    raster = dataset_to_raster(data, chosen, dt_us=DT_US, n_time_steps=STEPS)
    return torch.from_numpy(raster).flatten(0, 1), torch.from_numpy(data.labels[chosen])


def accuracy(net: torch.nn.Sequential, data: EventDataset, chosen: NDArray[np.int64]) -> float:
    correct = 0
    with torch.no_grad():
        for part in np.array_split(chosen, max(1, chosen.size // 25)):
            x, labels = batch(data, part)
            counts = net(x).reshape(part.size, STEPS, CLASSES).sum(1)
            correct += int((counts.argmax(1) == labels).sum())
    return correct / chosen.size


def train(method: Method, seed: int, epochs: int, data: EventDataset, test: EventDataset) -> dict[str, Any]:
    torch.manual_seed(seed)
    epochs *= method.longer
    order = np.random.default_rng(0).permutation(len(data))
    first = seed * HELD_OUT % len(data)
    held_out = order[first : first + HELD_OUT]
    chosen = np.setdiff1d(order, held_out)
    net = network()
    local = training(net, batch(data, chosen[:1])[0], method)
    steps_per_epoch = math.ceil(chosen.size / BATCH)
    began = time.process_time()
    losses: list[float] = []
    for epoch in range(epochs):
        shuffled = np.random.default_rng([seed, epoch]).permutation(chosen)
        losses.clear()
        for i in range(steps_per_epoch):
            progress = (epoch * steps_per_epoch + i) / (epochs * steps_per_epoch)
            for optimizer in local.optimizers:
                if optimizer is not None:
                    optimizer.param_groups[0]["lr"] = method.rate * 0.5 * (1 + math.cos(math.pi * progress))
            x, labels = batch(data, shuffled[i * BATCH : (i + 1) * BATCH])
            losses.append(float(local.step(x, labels).losses[-1]))
    seconds = time.process_time() - began
    return {
        "seed": seed,
        "held_out": accuracy(net, data, held_out),
        "test": accuracy(net, test, np.arange(len(test))),
        "last_loss": statistics.fmean(losses),
        "cpu_seconds_per_epoch": seconds / epochs,
    }


def saved_mib(method: Method) -> float:
    """Most memory that autograd keeps for a backward pass of one batch, weights not counted."""
    torch.manual_seed(0)
    x, labels = batch(load("train"), np.arange(BATCH))
    local = training(network(), x, method)
    with SavedBytes(one for part in (*local.blocks, *local.heads) for one in part.parameters()) as saved:
        local.step(x, labels)
    return saved.peak / 2**20


def measure(methods: tuple[Method, ...], seeds: int, epochs: int) -> list[dict[str, Any]]:
    data, test = load("train"), load("test")
    x, _ = batch(data, np.arange(1))
    rows: list[dict[str, Any]] = []
    for method in methods:
        row: dict[str, Any] = {"name": method.name, "K": method.length, "S": method.size, "rate": method.rate}
        row["saved_mib"] = saved_mib(method)
        row["counts"] = count(training(network(), x, method), x, STEPS, BATCH)
        row["runs"] = []
        rows.append(row)
    for seed in range(seeds):  # seeds outside: a run that is cut short has compared all methods
        for method, row in zip(methods, rows, strict=True):
            row["runs"].append(train(method, seed, epochs, data, test))
            print(method.name, row["runs"][-1], flush=True)
    for row in rows:
        row["change"] = compared(row["counts"], rows[0]["counts"])
        row["change"]["saved"] = row["saved_mib"] / rows[0]["saved_mib"] - 1
        for name in ("held_out", "test"):
            row[f"{name}_difference"] = [
                ours[name] - whole[name] for ours, whole in zip(row["runs"], rows[0]["runs"], strict=True)
            ]
    for row in rows:
        row["counts"] = vars(row["counts"])
    return rows


def spread(values: list[float]) -> str:
    """Mean and standard deviation in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.fmean(values):.1f} ± {100 * deviation:.1f}"


def report(result: dict[str, Any]) -> str:
    info, rows = result["machine"], result["rows"]
    seeds = len(rows[0]["runs"])
    lines = [
        "# Local training on N-MNIST recordings",
        "",
        "sinabs' N-MNIST example with a strided first convolution (8c5s2-p2-16c3-p2-16c3-10), LIF neurons",
        f"(tau {TAU:g} steps, single spikes, EXODUS), T = {STEPS} steps of {DT_US / 1000:g} ms, batch {BATCH},",
        f"{result['epochs']} epochs of Adam (from the given rate, half a cosine to 0), made by",
        "`python benchmarks/local_nmnist.py`.",
        f"Each of {seeds} seeds trains on 800 recordings and tests on another {HELD_OUT} (held out, others for each",
        "seed) and on the 100 official test recordings; mean ± standard deviation over seeds.",
        "K steps per segment, S spiking layers per block. Differences are to the first row, seed by seed.",
        "",
        f"Commit {info['commit']}; {info['cpu']}, {info['cores']} cores, {info['threads_used']} thread used; "
        f"Python {info['python']}, torch {info['versions']['torch']}.",
        "",
        "| | rate | seeds | held out % | difference, points | test % | difference | saved for backward MiB | change | "
        "CPU s per epoch |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        whole = row is rows[0]
        held, test = ([run[name] for run in row["runs"]] for name in ("held_out", "test"))
        cells = [
            row["name"],
            f"{row['rate']:g}",
            f"{len(row['runs'])}",
            spread(held),
            "" if whole else spread(row["held_out_difference"]),
            spread(test),
            "" if whole else spread(row["test_difference"]),
            f"{row['saved_mib']:.1f}",
            "" if whole else f"{row['change']['saved']:+.1%}",
            f"{statistics.fmean(run['cpu_seconds_per_epoch'] for run in row['runs']):.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| | MACs | change | with the neurons' | additions | memory traffic |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        change = row["change"]
        cells = [row["name"], f"{row['counts']['macs'] / 1e6:.2f} M"]
        cells += (
            [""] * 4
            if row is rows[0]
            else [
                f"{change['macs']:+.2%}",
                f"{change['macs_with_neurons']:+.2%}",
                f"{change['additions']:+.1%}",
                f"{change['traffic']:+.1%}",
            ]
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"The paper's abstract reports {PAPER}.",
        "",
        "Saved: most bytes that autograd kept for a backward pass at one time, weights not counted. MACs, additions",
        "and traffic are counted per recording from the shapes (`benchmarks/local_counts.py` says how): a product",
        "with a spike is an addition, so what stays a MAC is the error on its way to a layer's input, the classifiers",
        "and (third column) the neurons' own arithmetic.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="at most 5 (default 3)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run (default 6)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the report")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA} is not there: nothing to train on.")
        return
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "epochs": options.epochs}
    result["rows"] = measure(METHODS, options.seeds, options.epochs)
    files.write_json(options.output / "local_nmnist.json", result)
    text = report(result)
    files.write_text(options.output / "local_nmnist.md", text)
    print(text)


if __name__ == "__main__":
    main()
