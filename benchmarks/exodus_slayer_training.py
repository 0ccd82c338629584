"""Training curves of EXODUS and SLAYER on tasks with temporal structure: spoken digits and N-MNIST recordings.

    python benchmarks/exodus_slayer_training.py      # writes benchmarks/results/exodus_slayer_training.md, .json, .svg

The data are those of ../shared/data; without them nothing is run. Both algorithms have the same data, order, initial
weights and hyper-parameters, and the same spikes for the same weights: they differ in the gradient alone. Accuracies
do not depend on the machine's load; they are repeatable for one number of threads, which is 1.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

import neurodeploy as nd
from neurodeploy import files
from neurodeploy.events import dataset_to_raster, load_npz

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results"
ALGORITHMS = ("exodus", "slayer")
COLOURS = {"exodus": "#1f6fb2", "slayer": "#e07b1a"}
CLASSES, BATCH = 10, 32

#: Factor on torch's default initial weights, with which every layer fires from the start.
GAIN = 3.0
PAPER = "87.8 +- 3.0 % (SLAYER) and 92.8 +- 2.2 % (EXODUS) on one task, 70.58 % and 78.01 % on another"

#: Spoken digits: log energies in mel bands, one on-off event per so many nepers of change.
BANDS, HOP, WINDOW, STEPS, STEP_OF_ENERGY = 32, 40, 200, 120, 0.5


@dataclass(frozen=True)
class Task:
    """Spike trains in memory, and the network they are learnt with.

    Attributes:
        name: for the table.
        train, test: (spikes ``[recordings, T, ...]`` uint8, labels).
        network: makes a network of an algorithm.
        rate: Adam's learning rate.
        epochs: how long.
    """

    name: str
    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]
    network: Callable[[str], torch.nn.Module]
    rate: float
    epochs: int


def mel_filters(rate_hz: int) -> NDArray[np.float64]:
    """Triangles on the mel scale (O'Shaughnessy 1987), ``[bands, WINDOW // 2 + 1]``, from 60 Hz to half the rate."""
    mels = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + rate_hz / 2 / 700), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / rate_hz)
    up = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(up, down), 0, None)


def delta_events(audio: NDArray[np.int16], filters: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Send-on-delta code of the log energies: ``[STEPS, 2 * BANDS]``, rises then falls, counts per step."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio / 32768, (0, WINDOW)), WINDOW)[::HOP][: 2 * STEPS]
    energy = np.log(1e-4 + np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2 @ filters.T)
    level = np.floor(energy[::2] / STEP_OF_ENERGY)
    change = np.diff(level, axis=0, prepend=level[:1])
    events = np.concatenate([np.clip(change, 0, 5), np.clip(-change, 0, 5)], axis=1).astype(np.uint8)[:STEPS]
    return np.pad(events, ((0, STEPS - len(events)), (0, 0)))


def spoken_digits() -> Task:
    stored = np.load(DATA / "fsdd-1500" / "fsdd_1500.npz")
    filters = mel_filters(int(stored["sample_rate"]))
    spans = zip(stored["offsets"][:-1], stored["offsets"][1:], strict=True)
    spikes = np.stack([delta_events(stored["audio"][a:b], filters) for a, b in spans])
    labels, test = stored["labels"].astype(np.int64), stored["take"] < 5

    def network(algorithm: str) -> torch.nn.Module:
        def block(inputs: int, outputs: int) -> list[torch.nn.Module]:
            return [torch.nn.Linear(inputs, outputs, bias=False), neurons(algorithm, 20.0)]

        return torch.nn.Sequential(*block(2 * BANDS, 128), *block(128, 128), *block(128, 128), *block(128, CLASSES))

    return Task("spoken digits", (spikes[~test], labels[~test]), (spikes[test], labels[test]), network, 3e-3, 40)


def nmnist() -> Task:
    steps, dt_us = 60, 5000
    parts = []
    for name in ("train", "test"):
        data = load_npz(DATA / "nmnist-small" / f"nmnist_{name}.npz", sensor_size=(2, 34, 34)).until(steps * dt_us)
        raster = dataset_to_raster(data, np.arange(len(data)), dt_us=dt_us, n_time_steps=steps, dtype=np.uint8)
        parts.append((raster, np.asarray(data.labels)))

    def network(algorithm: str) -> torch.nn.Module:
        def conv(inputs: int, outputs: int) -> list[torch.nn.Module]:
            layer = torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            return [layer, neurons(algorithm, 10.0, steps)]

        return torch.nn.Sequential(
            torch.nn.Flatten(0, 1),
            *conv(2, 8),
            *conv(8, 16),
            *conv(16, 16),
            torch.nn.Flatten(),
            torch.nn.Linear(400, CLASSES, bias=False),
            neurons(algorithm, 10.0, steps),
            torch.nn.Unflatten(0, (-1, steps)),
        )

    return Task("N-MNIST", parts[0], parts[1], network, 3e-3, 12)


def neurons(algorithm: str, tau: float, num_timesteps: int | None = None) -> torch.nn.Module:
    """LIF neurons with the surrogate of the EXODUS paper: width 1, scale 1."""
    return nd.nn.LIF(
        tau,
        norm_input=False,
        spikes="single",
        surrogate=nd.nn.SingleExponential(1.0, 1.0),
        algorithm=algorithm,
        num_timesteps=num_timesteps,
    )


def accuracy(net: torch.nn.Module, spikes: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    with torch.no_grad():
        parts = [net(torch.from_numpy(part).float()).sum(1).argmax(1) for part in np.array_split(spikes, 8)]
    return float(np.mean(torch.cat(parts).numpy() == labels))


def train(task: Task, algorithm: str, seed: int, epochs: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    net = task.network(algorithm)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(GAIN)
    optimizer = torch.optim.Adam(net.parameters(), lr=task.rate)
    spikes, labels = task.train
    test, losses = [], []
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(labels))
        total = 0.0
        for chosen in np.array_split(order, -(-len(order) // BATCH)):
            counts = net(torch.from_numpy(spikes[chosen]).float()).sum(1)
            loss = torch.nn.functional.cross_entropy(counts, torch.from_numpy(labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
        losses.append(total / len(labels))
        test.append(accuracy(net, *task.test))
        print(f"{task.name}, {algorithm}, seed {seed}, epoch {epoch + 1}: loss {losses[-1]:.3f}, test {test[-1]:.1%}")
    return {"task": task.name, "algorithm": algorithm, "seed": seed, "losses": losses, "test": test}


def page(report: dict[str, Any]) -> str:
    lines = [
        "# EXODUS and SLAYER: training curves",
        "",
        f"Written by `python benchmarks/exodus_slayer_training.py`. Commit {report['machine']['commit']}, 1 thread. "
        f"{report['seeds']} seeds; mean and standard deviation of the test accuracy. LIF neurons, at most one spike a "
        "step, threshold 1, surrogate of width 1 and scale 1, Adam 3e-3, cross-entropy of the spike counts. The same "
        "weights give the same spikes with both; the gradient alone differs.",
        "",
        "| task | T | algorithm | after 1 epoch | after half | at the end | best |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for task in report["tasks"]:
        for algorithm in ALGORITHMS:
            runs = [
                run["test"] for run in report["runs"] if (run["task"], run["algorithm"]) == (task["name"], algorithm)
            ]
            columns = [
                [run[0] for run in runs],
                [run[len(run) // 2 - 1] for run in runs],
                [run[-1] for run in runs],
                [max(run) for run in runs],
            ]
            shown = " | ".join(f"{statistics.mean(c):.1%} ± {statistics.stdev(c):.1%}" for c in columns)
            lines.append(f"| {task['name']} | {task['steps']} | {algorithm.upper()} | {shown} |")
    lines += [
        "",
        f"The paper (Bauer et al. 2023) has {PAPER}, with larger networks and data sets.",
        "",
        *(f"- {task['name']}: {task['what']}" for task in report["tasks"]),
        "",
        "![test accuracy over epochs](exodus_slayer_training.svg)",
        "",
    ]
    return "\n".join(lines)


def picture(report: dict[str, Any], path: Path) -> None:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("The picture needs matplotlib: pip install matplotlib")
        return
    mpl.rcParams["svg.hashsalt"] = "neurodeploy"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(report["tasks"]), squeeze=False)[0], report["tasks"], strict=True):
        for run in report["runs"]:
            if run["task"] == task["name"]:
                label = run["algorithm"].upper() if run["seed"] == 0 else None
                epochs = range(1, len(run["test"]) + 1)
                axes.plot(epochs, [100 * a for a in run["test"]], color=COLOURS[run["algorithm"]], label=label)
        axes.set(title=f"{task['name']} (T = {task['steps']})", xlabel="epoch", ylabel="test accuracy (%)")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="of every task; 0: as the tasks say")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not there: nothing is trained.")
    torch.set_num_threads(1)
    tasks = [spoken_digits(), nmnist()]
    report = {
        "machine": machine(),
        "seeds": options.seeds,
        "tasks": [
            {
                "name": task.name,
                "steps": task.train[0].shape[1],
                "epochs": options.epochs or task.epochs,
                "what": f"{len(task.train[1]):,} training and {len(task.test[1])} test recordings, "
                f"{task.train[0].mean():.3f} events per input and step.",
            }
            for task in tasks
        ],
        "runs": [
            train(task, algorithm, seed, options.epochs or task.epochs)
            for task in tasks
            for seed in range(options.seeds)
            for algorithm in ALGORITHMS
        ],
    }
    files.write_json(options.output / "exodus_slayer_training.json", report)
    files.write_text(options.output / "exodus_slayer_training.md", page(report))
    picture(report, options.output / "exodus_slayer_training.svg")


if __name__ == "__main__":
    main()
