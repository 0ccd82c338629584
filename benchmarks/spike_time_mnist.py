"""Event-based training on MNIST: 784-800-10 neurons that may fire often, and neurons that fire once at most.

    python benchmarks/spike_time_mnist.py            # hours; writes benchmarks/results/spike_time_mnist.jsonl and .md
    python benchmarks/spike_time_mnist.py --report   # the table again, of what has been trained

Pixels are latencies, one spike each; the network is that of Bacho and Chu (2022), whose pixels have 256 levels and ours
16. The 10,000 training images are shifted, turned and scaled anew in every epoch. All figures are those of the last
epoch. Settings were chosen on the last 1,000 training images (``--validate``), but for the learning rates of "first
spike": higher ones were given up when their accuracy on the test images collapsed. Every epoch is written when it ends.
"""

import argparse
import gzip
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine

from neurodeploy import files, nn
from neurodeploy.kernels.spike_time import SpikeOverflowError

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mnist-20k"
RESULTS = Path(__file__).parent / "results"
SIDE, HIDDEN, CLASSES, BATCH = 28, 800, 10, 50
TAU_SYN_S, WINDOW_S = 0.130, 0.100
"""Synaptic time constant; the brightest pixels fire at 0, the darkest just before the window's end."""
LEVELS = 16
"""Of grey: inputs that fire together cost less than inputs that fire one by one."""
VALIDATION = 1000


@dataclass(frozen=True)
class Contender:
    """One kind of network; thresholds are 1, and weights start normally distributed, see ``reset_parameters``.

    ``often``: hidden neurons fire as often as they reach the threshold; else once at most. ``start``: mean and
    deviation of each layer's weights. ``learning_rates``: of each layer, in the unit of its weights. ``revive``: see
    ``SpikeTimeLinear``.
    """

    name: str
    often: bool
    loss: Literal["count", "first"]
    start: tuple[tuple[float, float], tuple[float, float]]
    learning_rates: tuple[float, float]
    revive: tuple[float, float]


COUNTS: dict[str, Any] = {"loss": "count", "start": ((0.0, 5.2), (0.0, 0.8)), "learning_rates": (0.015, 0.0075)}
FIRST: dict[str, Any] = {"loss": "first", "start": ((5.0, 0.8), (15.0, 6.0)), "learning_rates": (0.006, 0.02)}
CONTENDERS = (
    Contender("multi-spike, counts", True, revive=(0.0, 0.0), **COUNTS),
    Contender("multi-spike, first spike", True, revive=(1e-5, 0.02), **FIRST),
    Contender("single spike, first spike", False, revive=(1e-5, 0.02), **FIRST),
)
TARGETS = (3.0, 15.0)
"""Output spikes of a wrong class and of the right one (Bacho and Chu's code)."""
TEMPERATURE_S, T_MAX_S = 0.005, 0.2
READ_S = tuple(0.01 * k for k in range(1, 21))


def network(contender: Contender, seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers = []
    once: dict[str, Any] = {"reset": "value", "t_ref": math.inf}
    for k, (inputs, outputs) in enumerate(((SIDE * SIDE, HIDDEN), (HIDDEN, CLASSES))):
        often = contender.loss == "count" if outputs == CLASSES else contender.often
        neuron = nn.SpikeTimeNeuron(2 * TAU_SYN_S, TAU_SYN_S, **({} if often else once))
        layer = nn.SpikeTimeLinear(
            inputs, outputs, neuron, max_spikes=16 if often else 1, t_max=T_MAX_S, revive=contender.revive[k]
        )
        layer.reset_parameters(*contender.start[k])
        layers.append(layer)
    return torch.nn.Sequential(*layers)


def fire(layer: torch.nn.Module, times: torch.Tensor) -> torch.Tensor:
    """Run a layer, which gets more room for spikes when it needs it."""
    assert isinstance(layer, nn.SpikeTimeLinear)
    while True:
        try:
            fired: torch.Tensor = layer(times)
            return fired
        except SpikeOverflowError:
            layer.max_spikes *= 2


def load(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [count, 28, 28] in 0..1 and labels."""
    images, labels = (
        np.frombuffer(gzip.decompress((DATA / f"{split}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for kind, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    x = torch.from_numpy(images.reshape(-1, SIDE, SIDE).astype(np.float32) / 255)
    return x, torch.from_numpy(labels.astype(np.int64))


def latencies(images: torch.Tensor) -> torch.Tensor:
    """Spike times (B, 784, 1) of images in 0..1, rounded to grey levels; black pixels do not fire."""
    levels = ((LEVELS - 1) * images.flatten(1)).round()
    return torch.where(levels > 0, WINDOW_S * (1 - levels / (LEVELS - 1)), torch.inf)[..., None]


def bent(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images turned and sheared by up to 0.1 rad, scaled by 7.5 % and shifted by a pixel."""
    count = len(images)

    def draw(limit: float) -> torch.Tensor:
        return limit * (2 * torch.rand(count, generator=generator) - 1)

    angle, shear, shift = draw(0.1), draw(0.1), 2 / SIDE  # a side is 2 long
    scale = torch.stack([1 + draw(0.075), 1 + draw(0.075)], 1)
    turn = torch.stack([angle.cos(), -angle.sin() + shear, angle.sin(), angle.cos()], 1).reshape(count, 2, 2)
    move = torch.stack([draw(shift), draw(shift)], 1)[..., None]
    grid = F.affine_grid(torch.cat([turn * scale[:, None], move], 2), [count, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def loss_of(contender: Contender, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if contender.loss == "first":
        return nn.first_spike_loss(times, labels, temperature=TEMPERATURE_S, t_silent=T_MAX_S)
    wrong, right = TARGETS
    return nn.spike_count_loss(times, wrong + (right - wrong) * F.one_hot(labels, CLASSES))


def answers(contender: Contender, times: torch.Tensor) -> torch.Tensor:
    """The class that fires first; or that which fires most, and of these the one whose last spike came first."""
    if contender.loss == "first":
        return times[..., 0].argmin(1)
    fired = times < torch.inf
    last = torch.where(fired, times, 0.0).amax(-1)
    return (fired.sum(-1) - last / (2 * T_MAX_S)).argmax(1)


@torch.no_grad()
def evaluate(
    contender: Contender, net: torch.nn.Sequential, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Any]:
    """Accuracy; who fires how often; accuracy and hidden spikes if the network is read at each of ``READ_S``.

    ``spikes_to_answer``: hidden spikes up to the network's first output spike, where the first one answers.
    """
    read = torch.tensor(READ_S)
    right, silent, silent_right, hidden_total, output_total, until_answer = 0, 0, 0, 0, 0, 0
    ever = torch.zeros(HIDDEN, dtype=torch.bool)
    early, spikes_by = torch.zeros(len(read)), torch.zeros(len(read))
    latencies_s = 0.0
    for batch, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        hidden = fire(net[0], latencies(batch))
        output = fire(net[1], hidden)
        right += int((answers(contender, output) == wanted).sum())
        counts = (hidden < torch.inf).sum(-1)
        hidden_total += int(counts.sum())
        silent += int((counts == 0).sum())
        ever |= (counts > 0).any(0)
        output_total += int((output < torch.inf).sum())
        silent_right += int((output[torch.arange(len(wanted)), wanted, 0] == torch.inf).sum())
        first = output[..., 0].amin(1).clamp(max=T_MAX_S)
        latencies_s += float(first.sum())
        until_answer += int((hidden <= first[:, None, None]).sum())
        for k, until in enumerate(READ_S):
            seen = torch.where(output <= until, output, torch.inf)
            answered = (seen < torch.inf).flatten(1).any(1)
            early[k] += ((answers(contender, seen) == wanted) & answered).sum()
            spikes_by[k] += (hidden <= until).sum()
    count = len(images)
    return {
        "accuracy": right / count,
        "hidden_spikes": hidden_total / count,
        "hidden_spikes_to_first_output": until_answer / count,
        "first_output_ms": 1e3 * latencies_s / count,
        "hidden_silent": silent / (count * HIDDEN),
        "hidden_dead": int((~ever).sum()),
        "output_spikes": output_total / count,
        "right_output_silent": silent_right / count,
        "accuracy_by_time": (early / count).tolist(),
        "hidden_spikes_by_time": (spikes_by / count).tolist(),
    }


def train(contender: Contender, seed: int, epochs: int, *, validate: bool) -> Iterator[dict[str, Any]]:
    """Train; yield figures after every epoch, those of the test images after the first three and every fifth."""
    images, labels = load("train10k")
    if validate:
        test = images[-VALIDATION:], labels[-VALIDATION:]
        images, labels = images[:-VALIDATION], labels[:-VALIDATION]
    else:
        test = load("t10k")
    net = network(contender, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(
        [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(net, contender.learning_rates, strict=True)],
        fused=True,
    )
    steps = epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(1, epochs + 1):
        start, losses, right, grazing = time.process_time(), [], 0, 0
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            times = fire(net[1], fire(net[0], latencies(bent(images[batch], generator))))
            loss = loss_of(contender, times, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            right += int((answers(contender, times.detach()) == labels[batch]).sum())
            grazing += sum(layer.grazing for layer in net)
        row = {
            "contender": contender.name,
            "seed": seed,
            "epoch": epoch,
            "epochs": epochs,
            "loss": statistics.mean(losses),
            "train_accuracy": right / len(images),
            "grazing": grazing,
            "cpu_s": time.process_time() - start,
        }
        if epoch <= 3 or epoch % 5 == 0 or epoch == epochs:
            row |= evaluate(contender, net, *test)
        yield row


def rows_of(path: Path) -> list[list[dict[str, Any]]]:
    """The epochs of every run, in order of contenders and seeds; of a run that was begun anew, the last attempt."""
    runs: dict[tuple[int, int], list[dict[str, Any]]] = {}
    names = [contender.name for contender in CONTENDERS]
    for line in path.read_text().splitlines():
        row = json.loads(line)
        key = names.index(row["contender"]), row["seed"]
        runs[key] = [row] if row["epoch"] == 1 else [*runs[key], row]
    return [runs[key] for key in sorted(runs)]


def first_epoch(run: list[dict[str, Any]], accuracy: float) -> str:
    return next((str(row["epoch"]) for row in run if row.get("accuracy", 0) >= accuracy), "-")


def report(runs: list[list[dict[str, Any]]], info: dict[str, Any]) -> str:
    lines = [
        "# MNIST by spike times",
        "",
        "Made by `python benchmarks/spike_time_mnist.py`. 784-800-10 neurons, tau_mem = 2 tau_syn, tau_syn = 130 ms, "
        "pixels "
        f"as latencies in 100 ms ({LEVELS} grey levels), run for 200 ms; batch {BATCH}, Adam, cosine schedule, 10,000 "
        'training images bent anew in every epoch, all 10,000 test images, figures of the last epoch. "first spike": '
        "the "
        'output that fires first answers, cross-entropy of the times (exact gradient); "counts": the output that fires '
        "most answers, the loss of the paper's code with targets of 3 and 15 spikes (not a gradient). Both networks of "
        "the first kind differ in one thing, how often hidden neurons may fire.",
        "",
        f"Commit {runs[0][-1]['commit']}; {info['cpu']}; one thread.",
        "",
        "| network | seed | epochs | test accuracy | of bent training images | epochs to 95 % | to 97 % | hidden "
        "spikes per "
        "image | up to the first output spike | first output spike, ms | hidden neurons silent, of all images | in "
        "every "
        "image | CPU s per epoch |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        last = next(row for row in reversed(run) if "accuracy" in row)
        epochs = (
            f"{last['epoch']}" if last["epoch"] == last["epochs"] else f"{last['epoch']} of {last['epochs']}, stopped"
        )
        lines.append(
            f"| {last['contender']} | {last['seed']} | {epochs} | {100 * last['accuracy']:.2f} % | "
            f"{100 * last['train_accuracy']:.1f} % | {first_epoch(run, 0.95)} | {first_epoch(run, 0.97)} | "
            f"{last['hidden_spikes']:.0f} | {last['hidden_spikes_to_first_output']:.0f} | "
            f"{last['first_output_ms']:.1f} | "
            f"{100 * last['hidden_silent']:.1f} % | {last['hidden_dead']} of {HIDDEN} | "
            f"{statistics.median(row['cpu_s'] for row in run):.1f} |"
        )
    lines += ["", "## Convergence: test accuracy in % after an epoch", ""]
    epochs = sorted({row["epoch"] for run in runs for row in run if "accuracy" in row})
    lines += ["| network | seed | " + " | ".join(map(str, epochs)) + " |", "|---" * (2 + len(epochs)) + "|"]
    for run in runs:
        by_epoch = {row["epoch"]: f"{100 * row['accuracy']:.1f}" for row in run if "accuracy" in row}
        cells = " | ".join(by_epoch.get(epoch, "") for epoch in epochs)
        lines.append(f"| {run[0]['contender']} | {run[0]['seed']} | {cells} |")
    shown = range(5, len(READ_S), 2)
    lines += [
        "",
        "## Latency: test accuracy in % (hidden spikes so far) if the answer is read at a time",
        "",
        "| network | seed | " + " | ".join(f"{1e3 * READ_S[k]:.0f} ms" for k in shown) + " |",
        "|---" * (2 + len(shown)) + "|",
    ]
    for run in runs:
        last = next(row for row in reversed(run) if "accuracy" in row)
        cells = " | ".join(
            f"{100 * last['accuracy_by_time'][k]:.1f} ({last['hidden_spikes_by_time'][k]:.0f})" for k in shown
        )
        lines.append(f"| {last['contender']} | {last['seed']} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", type=int, nargs="+", default=range(len(CONTENDERS)), help="indices of contenders")
    parser.add_argument("--validate", action="store_true", help="hold out training images, leave the test images alone")
    parser.add_argument("--report", action="store_true", help="write the table of what has been trained")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path, info = options.output / "spike_time_mnist.jsonl", machine()
    if not options.report:
        if not DATA.is_dir():
            print(f"{DATA} is not there: nothing to train on.")
            return
        for seed in options.seeds:
            for contender in (CONTENDERS[k] for k in options.only):
                for row in train(contender, seed, options.epochs, validate=options.validate):
                    with path.open("a") as file:
                        file.write(json.dumps(row | {"commit": info["commit"]}) + "\n")
                    print(row, flush=True)
    text = report(rows_of(path), info)
    files.write_text(options.output / "spike_time_mnist.md", text)
    print(text)


if __name__ == "__main__":
    main()
