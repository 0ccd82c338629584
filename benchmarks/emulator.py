"""Speed of the event-driven emulator on one thread, beside sinabs' time-stepped simulation of the same network.

Run from the repository's root: ``python benchmarks/emulator.py``. Rewrites ``benchmarks/results/emulator.md`` and
``.json``; ``--rounds 1 --out FOLDER`` is a quick look. The networks and the recordings are those of ``../shared/data``;
without them, or without sinabs, the parts that need them are left out and the page says so. Times are CPU seconds of
the process, so that other work on the machine matters little; what is compared is measured in turns. Only the line on
two threads is wall time.
"""

import argparse
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import neurodeploy as nd
from neurodeploy import _ext
from neurodeploy.emulate.dataset import execute_dataset
from neurodeploy.events import EventDataset, load_npz, make_events, rate_encode
from neurodeploy.events.array import EventArray
from neurodeploy.files import write_json, write_text
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.program import CoreProgram, DynapcnnProgram

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
NETWORK = DATA / "speck-reference" / "cnn_sinabs.nir"
RECORDINGS = DATA / "nmnist-small" / "nmnist_test.npz"
MNIST = DATA / "mnist-20k"
ROUNDS = 11

#: Layers of the published networks: (features, kernel or 0 for a linear layer, stride, padding, pooling after it).
GESTURE = [(16, 2, 2, 0, 1), (16, 3, 1, 1, 2), (32, 3, 1, 1, 2), (32, 3, 1, 1, 2), (64, 3, 1, 1, 2), (64, 3, 1, 1, 2)]
GESTURE += [(256, 2, 1, 0, 1), (128, 0, 1, 0, 1), (11, 0, 1, 0, 1)]
DIGITS = [(20, 5, 1, 0, 2), (32, 5, 1, 0, 2), (128, 3, 1, 0, 2), (500, 0, 1, 0, 1), (10, 0, 1, 0, 1)]


def seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def run_all(emulator: Emulator, recordings: list[EventArray], record: tuple[str, ...] | None = ()) -> dict[str, int]:
    """Every recording from the initial state; the counters, summed over layers and recordings."""
    total = {"events": 0, "synops": 0, "spikes": 0}
    for events in recordings:
        emulator.reset()
        for counter in emulator.run(events, record=record).counters.values():
            for name in total:
                total[name] += counter[name]
    return total


def measure(name: str, emulator: Emulator, recordings: list[EventArray], **options: Any) -> dict[str, Any]:
    total = run_all(emulator, recordings, **options)
    took = statistics.median(seconds(lambda: run_all(emulator, recordings, **options)) for _ in range(ROUNDS))
    return {
        "case": name,
        "ms_per_recording": 1e3 * took / len(recordings),
        "recordings_per_s": len(recordings) / took,
        "events_per_s": total["events"] / took,
        "synops_per_s": total["synops"] / took,
        "events_per_recording": total["events"] / len(recordings),
        "synops_per_recording": total["synops"] / len(recordings),
    }


def one_core(features: int, side: int, threshold: int, n_events: int) -> tuple[DynapcnnProgram, list[EventArray]]:
    """One 3x3 core with ``features`` inputs and outputs, and random events."""
    rng = np.random.default_rng(0)
    shape = (features, side, side)
    core = CoreProgram(
        layer="conv",
        core=0,
        input_shape=shape,
        output_shape=shape,
        kernel_size=3,
        stride=(1, 1),
        padding=(1, 1),
        weights=np.clip(rng.normal(0, 30, (features, features, 3, 3)).round(), -128, 127).astype(np.int8),
        biases=np.zeros(features, np.int16),
        threshold_high=threshold,
        threshold_low=-threshold,
        return_to_zero=False,
        leak_enable=False,
        monitor_enable=True,
        destinations=(),
    )
    place = [rng.integers(0, size, n_events) for size in (side, side, features)]
    return DynapcnnProgram("speck2f", (core,), 0), [make_events(np.arange(n_events), *place)]


def published_network(file: str, channels: int, layers: Sequence[tuple[int, int, int, int, int]]) -> Any:
    """The ReLU network whose weights are in ``file`` as sinabs would run it: IAF, threshold 1, v_min -1."""
    import torch
    from sinabs.layers import IAFSqueeze
    from torch import nn

    weights = iter(torch.load(DATA / "speck-reference" / file, map_location="cpu", weights_only=True).values())
    modules: list[nn.Module] = []
    for features, kernel, stride, padding, pooling in layers:
        weight = next(weights)
        if kernel:
            modules.append(nn.Conv2d(channels, features, kernel, stride, padding, bias=False))
        else:
            if not any(isinstance(module, nn.Flatten) for module in modules):
                modules.append(nn.Flatten())
            modules.append(nn.Linear(weight.shape[1], features, bias=False))
        modules[-1].weight.data = weight
        modules.append(IAFSqueeze(batch_size=1, spike_threshold=1.0, min_v_mem=-1.0))
        if pooling > 1:
            modules.append(nn.AvgPool2d(pooling))
        channels = features
    return nn.Sequential(*modules)


def digits_as_spikes(count: int) -> list[EventArray]:
    """MNIST test images as random spikes, 200 ms, 1 kHz at full brightness."""
    import gzip

    rng = np.random.default_rng(0)
    with gzip.open(MNIST / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + 784 * count), np.uint8)[16:].reshape(count, 1, 28, 28)
    return [rate_encode(image / 255, duration_us=200_000, dt_us=1000, rng=rng, max_rate_hz=1000) for image in pixels]


def moving_ring(count: int) -> list[EventArray]:
    """Recordings of 300 ms, 128 x 128 pixels: the edge of a circling disc, ON before and OFF behind, 200 events/ms."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        t = np.sort(rng.integers(0, 300_000, 60_000))
        turn, phase = 2 * np.pi * t / 300_000, rng.uniform(0, 2 * np.pi)
        angle = rng.uniform(0, 2 * np.pi, t.size)
        x = 64 + 30 * np.cos(turn + phase) + (18 + rng.normal(0, 1.5, t.size)) * np.cos(angle)
        y = 64 + 30 * np.sin(turn + phase) + (18 + rng.normal(0, 1.5, t.size)) * np.sin(angle)
        ahead = np.cos(angle - (turn + phase + np.pi / 2)) > 0
        found.append(make_events(t, x.astype(int).clip(0, 127), y.astype(int).clip(0, 127), ahead.astype(np.uint8)))
    return found


def beside_sinabs(name: str, emulator: Emulator, recordings: list[EventArray], network: Any) -> dict[str, Any]:
    """The same recordings through both, in turns; sinabs in steps of 1 ms, without gradients, on one thread."""
    import torch

    torch.set_num_threads(1)
    rasters = []
    for events in recordings:
        raster = np.zeros((int(events["t"][-1]) // 1000 + 1, *emulator.program.input_shape), np.float32)
        np.add.at(raster, (events["t"] // 1000, events["p"], events["y"], events["x"]), 1)
        rasters.append(torch.from_numpy(raster))

    def time_stepped() -> None:
        with torch.no_grad():
            for raster in rasters:
                for module in network.modules():
                    if hasattr(module, "reset_states"):
                        module.reset_states()
                network(raster)

    repeats = 10
    time_stepped()
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: [run_all(emulator, recordings) for _ in range(repeats)]) / repeats)
        theirs.append(seconds(time_stepped))
    n = len(recordings)
    return {
        "network": name,
        "recordings": n,
        "time_steps": [len(raster) for raster in rasters],
        "emulator_ms_per_recording": 1e3 * statistics.median(ours) / n,
        "sinabs_ms_per_recording": 1e3 * statistics.median(theirs) / n,
        "ratio": statistics.median(theirs) / statistics.median(ours),
    }


def over_threads(program: DynapcnnProgram, dataset: EventDataset) -> dict[str, Any]:
    """A data set on one and two threads, wall time, and whether every count of every neuron is the same."""
    counts: dict[int, dict[int, bytes]] = {1: {}, 2: {}}
    took: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for threads, seen in counts.items():
            start = time.perf_counter()
            execute_dataset(
                lambda: Emulator(program),
                dataset,
                lambda index, run, seen=seen: seen.__setitem__(
                    index, b"".join(layer.tobytes() for layer in run.counts.values())
                ),
                threads=threads,
            )
            took[threads].append(time.perf_counter() - start)
    return {
        "recordings": len(dataset),
        "equal": counts[1] == counts[2],
        "recordings_per_s": {threads: len(dataset) / statistics.median(times) for threads, times in took.items()},
    }


def environment() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in ("numpy", "torch", "sinabs", "nir"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    try:
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        commit = git.stdout.strip()
    except OSError:  # no git on this machine
        commit = ""
    return {
        "commit": commit or "unknown",
        "cpu": cpu,
        "instruction_sets": _ext.dynapcnn.instruction_sets(),
        "threads": 1,
        "rounds": ROUNDS,
        "versions": versions,
    }


def on_published_networks(
    rows: list[dict[str, Any]], notes: list[str], comparisons: list[dict[str, Any]], missing: list[str]
) -> dict[str, Any] | None:
    """The networks and recordings of ``../shared/data``; returns the figures on two threads."""
    if not (NETWORK.exists() and RECORDINGS.exists()):
        missing.append("the published networks and the recordings are not here: only synthetic cores are measured")
        return None
    dataset = load_npz(RECORDINGS, sensor_size=(2, 34, 34))
    recordings = [events for events, _ in dataset]
    notes.append(f"N-MNIST: {len(recordings)} recordings, {len(dataset.t) / len(recordings):.0f} input events each.")
    bounded = nd.compile(NETWORK, target="speck2f", v_min="-threshold").program
    free = nd.compile(NETWORK, target="speck2f").program
    shapes = " -> ".join("x".join(map(str, bounded.layer_shape(layer))) for layer in bounded.layers)
    notes.append(f"N-MNIST network cnn_sinabs.nir, neurons per layer: {shapes}.")
    rows.append(measure("N-MNIST network, v_min = -threshold", Emulator(bounded), recordings))
    rows.append(measure("N-MNIST network, no v_min (default)", Emulator(free), recordings))
    rows.append(measure("the same, all spikes recorded", Emulator(free), recordings, record=None))
    for isa in _ext.dynapcnn.instruction_sets()[1:]:
        part = recordings[: 20 if isa == "portable" else None]
        rows.append(measure(f"the same, {isa} code", Emulator(free, _isa=isa), part))
    two_threads = over_threads(free, dataset)
    try:
        import nir
        from sinabs.nir import from_nir
    except ImportError as error:
        missing.append(f"not compared with sinabs, nor run on its MNIST and gesture networks: {error}")
        return two_threads
    network = from_nir(nir.read(str(NETWORK)), batch_size=1)
    comparisons.append(beside_sinabs("N-MNIST", Emulator(bounded), recordings[:10], network))
    for name, file, layers, size, others, of in (
        ("MNIST", "mnist_params.pt", DIGITS, (1, 28, 28), digits_as_spikes(20), "rate-coded digits of 200 ms"),
        ("gesture", "dvs_gesture_params.pt", GESTURE, (2, 128, 128), moving_ring(3), "a circling disc, 300 ms"),
    ):
        import torch

        network = published_network(file, size[0], layers)
        program = nd.compile(nd.trace(network, torch.zeros(1, *size)), target="speck2f").program
        events = sum(map(len, others)) / len(others)
        notes.append(f"{name} network {file} (v_min = -threshold): {of}, {events:.0f} input events each.")
        rows.append(measure(f"{name} network", Emulator(program), others))
        comparisons.append(beside_sinabs(name, Emulator(program), others[:3], network))
    return two_threads


def main() -> None:
    global ROUNDS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    ROUNDS = options.rounds
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    comparisons: list[dict[str, Any]] = []
    missing: list[str] = []
    two_threads = on_published_networks(rows, notes, comparisons, missing)
    for features, threshold, text in ((64, 300, "weights below threshold"), (64, 60, "weights above threshold")):
        program, events = one_core(features, 16, threshold, 20000)
        rows.append(measure(f"one core, {features} -> {features}, 3x3, 16x16, {text}", Emulator(program), events))

    where = environment()
    lines = [
        "# Event-driven emulator, one thread",
        "",
        f"Commit {where['commit']}; {where['cpu']} ({where['instruction_sets'][0]}); "
        + ", ".join(f"{name} {number}" for name, number in where["versions"].items())
        + f". CPU time, median of {ROUNDS}, through `Emulator.run` on structured arrays, checks of the input included.",
        "A SynOp is one update of a neuron inside the map, zero weights included; events are those entering any core.",
        *notes,
        "",
        "| case | ms per recording | recordings/s | events/s | SynOps/s | SynOps per recording |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            row["case"],
            f"{row['ms_per_recording']:.2f}",
            f"{row['recordings_per_s']:.0f}",
            f"{row['events_per_s'] / 1e6:.1f} M",
            f"{row['synops_per_s'] / 1e9:.2f} G",
            f"{row['synops_per_recording'] / 1e6:.2f} M",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"{text[0].upper()}{text[1:]}." for text in missing]
    if comparisons:
        lines += [
            "Beside sinabs' time-stepped simulation of the same network (v_min = -threshold, 1 ms steps, no gradients, "
            "one thread), in turns, ms per recording:",
            "",
            "| network | recordings | time steps | emulator | sinabs | times faster |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
    for row in comparisons:
        steps = f"{min(row['time_steps'])} to {max(row['time_steps'])}"
        ours, theirs = row["emulator_ms_per_recording"], row["sinabs_ms_per_recording"]
        lines.append(
            f"| {row['network']} | {row['recordings']} | {steps} | {ours:.2f} | {theirs:.0f} | {row['ratio']:.0f} |"
        )
    if two_threads is not None:
        one, two = (two_threads["recordings_per_s"][threads] for threads in (1, 2))
        same = "the same counts in every neuron" if two_threads["equal"] else "DIFFERENT COUNTS"
        lines += [
            "",
            f"Data set of {two_threads['recordings']} recordings, wall time: {one:.0f} recordings/s on one thread, "
            f"{two:.0f} on two ({two / one:.2f} times), {same}.",
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    figures = {"rows": rows, "sinabs": comparisons, "two_threads": two_threads, "notes": notes, "missing": missing}
    write_text(options.out / "emulator.md", text)
    write_json(options.out / "emulator.json", {"environment": where, **figures})


if __name__ == "__main__":
    main()
