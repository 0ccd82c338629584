"""Speed of the event-driven emulator on one thread, beside sinabs' time-stepped simulation of the same network.

Run from the repository's root: ``python benchmarks/emulator.py``. Rewrites ``benchmarks/results/emulator.md`` and
``.json``. The network and the recordings are those of ``../shared/data``; without them, or without sinabs, the parts
that need them are left out and the page says so. Times are CPU seconds of the process, so that other work on the
machine matters little; what is compared is measured in turns.
"""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import neurodeploy as nd
from neurodeploy import _ext
from neurodeploy.events import load_npz, make_events
from neurodeploy.events.array import EventArray
from neurodeploy.files import write_json, write_text
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.program import CoreProgram, DynapcnnProgram

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
NETWORK = DATA / "speck-reference" / "cnn_sinabs.nir"
RECORDINGS = DATA / "nmnist-small" / "nmnist_test.npz"
ROUNDS = 11


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


def beside_sinabs(emulator: Emulator, recordings: list[EventArray]) -> dict[str, Any] | str:
    """The same recordings through both, in turns; or why not."""
    try:
        import nir
        import torch
        from sinabs.nir import from_nir
    except ImportError as error:
        return f"not compared with sinabs: {error}"
    torch.set_num_threads(1)
    network = from_nir(nir.read(str(NETWORK)), batch_size=1)
    rasters = []
    for events in recordings:
        raster = np.zeros((int(events["t"][-1]) // 1000 + 1, 2, 34, 34), np.float32)
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
        "recordings": n,
        "time_steps": [len(raster) for raster in rasters],
        "emulator_ms_per_recording": 1e3 * statistics.median(ours) / n,
        "sinabs_ms_per_recording": 1e3 * statistics.median(theirs) / n,
        "ratio": statistics.median(theirs) / statistics.median(ours),
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


def main() -> None:
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    comparison: dict[str, Any] | str = "not compared with sinabs: the network and the recordings are not here"
    if NETWORK.exists() and RECORDINGS.exists():
        dataset = load_npz(RECORDINGS, sensor_size=(2, 34, 34))
        recordings = [events for events, _ in dataset]
        notes.append(
            f"N-MNIST: {len(recordings)} recordings, {len(dataset.t) / len(recordings):.0f} input events each."
        )
        bounded = nd.compile(NETWORK, target="speck2f", v_min="-threshold").program
        free = nd.compile(NETWORK, target="speck2f").program
        shapes = " -> ".join("x".join(map(str, bounded.layer_shape(layer))) for layer in bounded.layers)
        notes.append(f"Network cnn_sinabs.nir, neurons per layer: {shapes}.")
        rows.append(measure("network, v_min = -threshold", Emulator(bounded), recordings))
        rows.append(measure("network, no v_min (default)", Emulator(free), recordings))
        rows.append(measure("network, no v_min, all spikes recorded", Emulator(free), recordings, record=None))
        for isa in _ext.dynapcnn.instruction_sets()[1:]:
            part = recordings[: 20 if isa == "portable" else None]
            rows.append(measure(f"network, no v_min, {isa} code", Emulator(free, _isa=isa), part))
        comparison = beside_sinabs(Emulator(bounded), recordings[:10])
    else:
        print(f"{NETWORK} and {RECORDINGS} are not here: only synthetic cores are measured")
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
    if isinstance(comparison, str):
        lines.append(comparison[0].upper() + comparison[1:] + ".")
    else:
        steps = f"{min(comparison['time_steps'])} to {max(comparison['time_steps'])}"
        ours, theirs = comparison["emulator_ms_per_recording"], comparison["sinabs_ms_per_recording"]
        lines.append(
            "Beside sinabs' time-stepped simulation of the same network (v_min = -threshold, 1 ms bins, "
            f"{steps} steps, no gradients, one thread) on {comparison['recordings']} recordings, in turns: "
            f"{ours:.2f} ms against {theirs:.0f} ms per recording, **{comparison['ratio']:.0f} times faster**."
        )
    text = "\n".join(lines) + "\n"
    print(text)
    results = ROOT / "benchmarks" / "results"
    write_text(results / "emulator.md", text)
    write_json(results / "emulator.json", {"environment": where, "rows": rows, "sinabs": comparison, "notes": notes})


if __name__ == "__main__":
    main()
