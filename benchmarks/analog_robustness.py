"""What analog chips do to networks of spike times, and what training for them brings back.

Yin-Yang (5-120-3) and MNIST at 16 x 16 (256-128-10), one spike per neuron, answered by the first. For each seed a
network is trained plainly, on four-current levels (fine-tuned from the plain one), and mismatch-aware: every batch on a
fresh chip whose spread grows from 0 to 20 %, or to that of a calibrated BrainScaleS-2, with its levels. Then it is run

- without mismatch, in float, with 6-bit and with four-current weights,
- on chips with log-normal deviations of one coefficient of variation on all weights, time constants and thresholds,
- on emulated BrainScaleS-2 chips as compiled, uncalibrated and calibrated, with the noise of trials,
- on a 20 % chip with four-current weights and noise, before and after four epochs with that chip in the loop.

Chips that are tested on are never trained on (but in the loop). Finished pieces are kept as lines of ``records.jsonl``
in the work folder and not done again.

    python benchmarks/analog_robustness.py --work runs/analog [--tasks yin_yang] [--seeds 1] [--workers 1]
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neurodeploy as nd
from neurodeploy import files
from neurodeploy.events import yin_yang, yin_yang_times
from neurodeploy.executor import InProcess, ProcessPool
from neurodeploy.targets.analog.emulator import TrialNoise
from neurodeploy.train.analog import AnalogTraining
from neurodeploy.train.analog_levels import FourCurrentLevels, Levels, SignedLevels
from neurodeploy.train.analog_loop import ChipInTheLoop, EmulatedChip
from neurodeploy.train.analog_spread import ChipSpread, Spread, UniformSpread

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist-20k"
UNIT = 0.005  # tau_syn in seconds; all times of a network are multiples of it
T_EARLY, T_LATE, T_MAX = 0.15 * UNIT, 2.0 * UNIT, 6.0 * UNIT
SPREADS = (0.05, 0.1, 0.2, 0.3)
TRAINED_FOR = 0.2
JITTER = 0.01 * UNIT
MARGIN = {"aware of bss2": 1.5}
"""Times the spread that is trained for: emulated chips have trial noise and two synaptic time constants besides. Chosen
from 1 and 1.5 by the result."""
KINDS = ("plain", "four currents", "aware", "aware of bss2")


@dataclass(frozen=True)
class Task:
    """A data set, a network for it, and its training; learning rates are in units of ``1 / UNIT``."""

    sizes: tuple[int, int, int]
    means: tuple[float, float]  # of the peaks that initial weights give, in thresholds; see reset_parameters
    stds: tuple[float, float]
    epochs: dict[str, int]
    rates: dict[str, float]
    batches: dict[str, int]
    temperature: float = 0.2  # of the loss, in units of tau_syn
    revive: tuple[float, float] = (0.01, 0.3)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(inputs, neurons) of each layer."""
        return [self.sizes[:2], self.sizes[1:]]


TASKS = {
    "yin_yang": Task(
        (5, 120, 3),
        (2.8, 22.0),
        (0.7, 3.2),
        {"plain": 30, "four currents": 30, "aware": 40, "aware of bss2": 40, "loop": 4},
        {"plain": 5e-3, "four currents": 5e-3, "aware": 8e-2, "aware of bss2": 8e-2, "loop": 5e-3},
        {"plain": 100, "four currents": 100, "aware": 40, "aware of bss2": 40, "loop": 40},
    ),
    "mnist16": Task(
        (256, 128, 10),
        (5.0, 15.0),
        (0.8, 6.0),
        {"plain": 8, "four currents": 4, "aware": 8, "aware of bss2": 8, "loop": 2},
        {"plain": 5e-3, "four currents": 2e-3, "aware": 5e-3, "aware of bss2": 5e-3, "loop": 2e-3},
        {"plain": 50, "four currents": 50, "aware": 50, "aware of bss2": 50, "loop": 50},
        temperature=0.05,
        revive=(1e-3, 1e-3),
    ),
}


def data(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spike times and labels to train on, and to test on."""
    parts: list[torch.Tensor] = []
    if name == "yin_yang":
        for count, seed in ((5000, 0), (1000, 1)):
            points, labels = yin_yang(count, seed=seed)
            times = yin_yang_times(points, t_early=T_EARLY, t_late=T_LATE)
            parts += [torch.from_numpy(times).float(), torch.from_numpy(labels)]
    else:
        for part in ("train10k", "t10k"):
            found = nd.load_images(MNIST / f"{part}-images-idx3-ubyte.gz", MNIST / f"{part}-labels-idx1-ubyte.gz")
            labels = found.labels
            padded = np.pad(found.images.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
            small = padded.reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(-1, 256, 1)
            times = torch.from_numpy(T_EARLY + (1 - small) * (T_LATE - T_EARLY))
            parts += [torch.where(torch.from_numpy(small) < 0.1, torch.inf, times), torch.from_numpy(labels).long()]
        parts[2], parts[3] = parts[2][:1000], parts[3][:1000]
    return parts[0], parts[1], parts[2], parts[3]


def build(task: Task) -> torch.nn.Sequential:
    """The network."""
    neuron = nd.nn.SpikeTimeNeuron(tau_mem=2 * UNIT, tau_syn=UNIT, reset="value", t_ref=torch.inf)
    layers = [
        nd.nn.SpikeTimeLinear(*shape, neuron, max_spikes=1, t_max=T_MAX, revive=revive * UNIT)
        for shape, revive in zip(task.shapes, task.revive, strict=True)
    ]
    for layer, mean, std in zip(layers, task.means, task.stds, strict=True):
        layer.reset_parameters(mean=mean, std=std)
    return torch.nn.Sequential(*layers)


def fit(
    module: torch.nn.Module, task: Task, kind: str, times: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int
) -> None:
    """Train."""
    batch = task.batches[kind]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=task.rates[kind] / UNIT)
    steps = epochs * -(-len(times) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    module.train()
    done = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(times), generator=generator).split(batch):
            if isinstance(module, AnalogTraining):
                module.anneal(done / steps, full=MARGIN.get(kind, 1.0))
            fired = module(times[rows])
            right = fired[torch.arange(len(rows)), labels[rows], 0].clamp(max=T_MAX)
            loss = nd.nn.first_spike_loss(fired, labels[rows], temperature=task.temperature * UNIT, t_silent=T_MAX)
            optimizer.zero_grad()
            (loss + 0.01 / UNIT * right.mean()).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0 * UNIT)
            optimizer.step()
            schedule.step()
            done += 1


def accuracy(times: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of samples where the right neuron fires first."""
    return float((times[..., 0].clamp(max=T_MAX).argmin(1) == labels).double().mean())


def trained(work: Path, name: str, kind: str, seed: int, quick: bool) -> torch.nn.Sequential:
    """The network of a kind, from the work folder or trained now."""
    task, path = TASKS[name], work / f"{name}-{kind.replace(' ', '-')}-{seed}.npz"
    torch.manual_seed(seed)
    net = build(task)
    if not path.exists():
        levels: Levels | None = None
        spread: Spread | None = UniformSpread(task.shapes, TRAINED_FOR) if kind == "aware" else None
        if kind == "four currents":
            levels = FourCurrentLevels()
            net = trained(work, name, "plain", seed, quick)
        times, labels, _, _ = data(name)
        if kind == "aware of bss2":
            deployment = nd.compile(nd.trace(net, times[:1], time_unit_s=1.0), target="bss2")
            levels = SignedLevels.of_program(deployment.program)
            spread = ChipSpread(deployment.chip, deployment.program, calibrated=True)
        epochs = 1 if quick else task.epochs[kind]
        times, labels = (times[:200], labels[:200]) if quick else (times, labels)
        module = AnalogTraining(net, levels=levels, spread=spread, refresh=1, seed=seed)
        fit(module, task, kind, times, labels, seed, epochs)
        with files.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, *(layer.weight.detach().numpy() for layer in net))
    with np.load(path) as kept, torch.no_grad():
        for layer, weight in zip(net, kept.values(), strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
    return net


def piece(job: tuple[Path, str, str, int, str, int, bool]) -> dict[str, Any]:
    """One line of the records: ``values`` are accuracies of what is tested."""
    work, name, kind, seed, what, serials, quick = job
    torch.set_num_threads(1)
    task = TASKS[name]
    net = trained(work, name, kind, seed, quick)
    times, labels, test_times, test_labels = data(name)
    if quick:
        times, labels, test_times, test_labels = times[:200], labels[:200], test_times[:100], test_labels[:100]
    values: list[float] = []
    with torch.no_grad():
        if what in ("float", "6 bits", "four currents"):
            levels = {"float": None, "6 bits": SignedLevels(6), "four currents": FourCurrentLevels()}[what]
            values = [accuracy(AnalogTraining(net, levels=levels).eval()(test_times), test_labels)]
        elif what.startswith("cv "):
            spread = UniformSpread(task.shapes, float(what.split()[1]))
            levels = FourCurrentLevels() if "four currents" in what else None
            chips = AnalogTraining(net, spread=spread, levels=levels).eval()
            values = [accuracy(chips.on_chip(test_times, serial), test_labels) for serial in range(serials)]
        elif what.startswith("bss2"):
            deployment = nd.compile(nd.trace(net, test_times[:1], time_unit_s=1.0), target="bss2")
            layers = [layer.nominal for layer in deployment.program.layers]
            chips_of = ChipSpread(deployment.chip, deployment.program, calibrated="uncalibrated" not in what)
            for serial in range(serials):
                chip = EmulatedChip(
                    layers,
                    chips_of.draw(serial),
                    max_spikes=[1] * len(layers),
                    t_max=T_MAX,
                    noise=deployment.trial_noise(),
                    timestamp_lsb_s=deployment.program.timestamp_lsb_s,
                )
                fired = chip.run([layer.weight for layer in layers], test_times.double().numpy())
                values.append(accuracy(torch.from_numpy(fired[-1]), test_labels))
    if what.startswith("loop"):
        serial = int(what.split()[1])
        circuits = UniformSpread(task.shapes, TRAINED_FOR).draw(serial)
        noise = TrialNoise(jitter_s=JITTER)
        loop = ChipInTheLoop(net, EmulatedChip.of_network(net, circuits, noise=noise), levels=FourCurrentLevels())

        def tested() -> float:
            with torch.no_grad():
                return accuracy(loop(test_times), test_labels)

        values = [tested()]
        fit(loop, task, "loop", times, labels, seed, 1 if quick else task.epochs["loop"])
        values.append(tested())
    return {"task": name, "kind": kind, "seed": seed, "what": what, "values": values}


def plan(tasks: Sequence[str], seeds: int, serials: int, loops: int) -> Iterator[tuple[str, str, int, str]]:
    """All pieces, the important ones first."""
    for name in tasks:
        for seed in range(seeds):
            for kind in ("plain", "aware"):
                for what in ("float", "cv 0.2", "6 bits", "four currents", "bss2 calibrated", "bss2 uncalibrated"):
                    yield name, kind, seed, what
            yield name, "four currents", seed, "four currents"
            for what in ("float", "6 bits", "bss2 calibrated", "bss2 uncalibrated"):
                yield name, "aware of bss2", seed, what
            for serial in range(min(loops, serials)):
                yield name, "aware", seed, f"loop {serial}"
            for what in [f"cv {cv}" for cv in SPREADS if cv != TRAINED_FOR] + ["cv 0.2 four currents"]:
                for kind in ("plain", "aware"):
                    yield name, kind, seed, what


def page(records: list[dict[str, Any]]) -> str:
    """The tables."""
    lines = [
        "# Analog robustness",
        "",
        "Made by `benchmarks/analog_robustness.py`. Accuracy in %: mean (5th percentile).",
    ]
    for name in sorted({record["task"] for record in records}):
        rows = [record for record in records if record["task"] == name]
        seeds = sorted({record["seed"] for record in rows})
        columns = [(kind, seed) for kind in KINDS for seed in seeds]
        found = {(row["kind"], row["seed"], row["what"]): row["values"] for row in rows}
        lines += ["", f"## {name}", "", "| run | " + " | ".join(f"{k}, seed {s}" for k, s in columns) + " |"]
        lines += ["| --- |" + " ---: |" * len(columns)]
        whats = list(dict.fromkeys(row["what"] for row in rows if not row["what"].startswith("loop")))
        for what in whats:
            cells = [_cell(found.get((kind, seed, what))) for kind, seed in columns]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
        for kind, seed in columns:
            loops = [v for (k, s, what), v in found.items() if (k, s) == (kind, seed) and what.startswith("loop")]
            if loops:
                before, after = np.array(loops).T
                ideal = found[kind, seed, "float"][0]
                near = float((after >= ideal - 0.02).mean())
                lines += [
                    "",
                    f"In the loop ({kind}, seed {seed}, {len(loops)} chips of 20 %, four-current weights, jitter): "
                    f"{_cell(before.tolist())} before, {_cell(after.tolist())} after {TASKS[name].epochs['loop']} "
                    f"epochs; within 2 points of its {100 * ideal:.1f} without mismatch: {100 * near:.0f} % of them.",
                ]
    return "\n".join(lines) + "\n"


def _cell(values: list[float] | None) -> str:
    if not values:
        return ""
    mean = f"{100 * float(np.mean(values)):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * float(np.quantile(values, 0.05)):.1f})"


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/analog"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--serials", type=int, default=32)
    parser.add_argument("--loops", type=int, default=32, help="chips to train on in the loop")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a try of every part: one epoch, few samples")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "records.jsonl"
    records = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["task"], row["kind"], row["seed"], row["what"]) for row in records}
    wanted = [job for job in plan(options.tasks, options.seeds, options.serials, options.loops) if job not in done]
    # What others start from is trained once, before processes ask for it at the same time.
    for name in options.tasks:
        for seed in range(options.seeds):
            if any(job[0] == name and job[2] == seed for job in wanted):
                for kind in KINDS if options.workers > 1 else ():
                    trained(options.work, name, kind, seed, options.quick)
    jobs = [(options.work, *job, options.serials, options.quick) for job in wanted]
    pool = ProcessPool(options.workers) if options.workers > 1 else InProcess()
    for record in pool.map(piece, jobs):
        records.append(record)
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record["task"], record["kind"], record["seed"], record["what"], _cell(record["values"]), flush=True)
    files.write_text(options.output / "analog_robustness.md", page(records))


if __name__ == "__main__":
    main()
