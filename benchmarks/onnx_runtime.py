"""Our graph, ONNX Runtime on our file, and sinabs: the same spikes in every time bin, and the time of each.

Run from the repository's root: ``python benchmarks/onnx_runtime.py [RECORDINGS]``. Rewrites
``benchmarks/results/onnx_runtime.md`` and ``.json``. The network (that of the NIR paper) and the recordings (N-MNIST)
are those of ``../shared/data``. Every recording goes through all of them in turns, one thread each; times are CPU
seconds of the process. A difference in any bin of any recording ends the run with an error.
"""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnxruntime
import torch
from sinabs.nir import from_nir

from neurodeploy.events import load_npz
from neurodeploy.events.raster import events_to_raster
from neurodeploy.files import write_json, write_text
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.graph.torch_writer import to_torch
from neurodeploy.quantize import quantize

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
NETWORK = DATA / "speck-reference" / "cnn_sinabs.nir"
RECORDINGS = DATA / "nmnist-small" / "nmnist_test.npz"

#: ``raster [T, C, H, W]`` (uint8) to output spikes ``[T, N]``.
Run = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def ours(graph: Graph) -> Run:
    module = to_torch(graph)
    return lambda raster: module(torch.from_numpy(raster).float()[None]).numpy()[0]


def onnx_runtime(graph: Graph, path: Path, dtype: type) -> Run:
    save_graph(graph, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda raster: session.run(["output"], {"input": raster.astype(dtype)[None]})[0][0]


def sinabs() -> Run:
    network = from_nir(nir.read(str(NETWORK)), batch_size=1)
    layers = [module for module in network.modules() if hasattr(module, "min_v_mem")]
    for layer in layers:
        layer.min_v_mem = None  # the file has no lower bound; from_nir sets minus the threshold

    def run(raster: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        for layer in layers:
            layer.reset_states()
        with torch.no_grad():
            spikes: np.ndarray[Any, Any] = network(torch.from_numpy(raster).float())[0].numpy()
        return spikes

    return run


def main() -> None:
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    dataset = load_npz(RECORDINGS, sensor_size=(2, 34, 34))
    rasters = [events_to_raster(dataset[row][0], (2, 34, 34), dt_us=1000) for row in range(min(count, len(dataset)))]
    graph = load(NETWORK)
    integers = quantize(graph).graph
    with tempfile.TemporaryDirectory() as folder:
        groups: dict[str, dict[str, Run]] = {
            "float32": {
                "our graph (`to_torch`)": ours(graph),
                "ONNX Runtime on `graph.onnx`": onnx_runtime(graph, Path(folder) / "graph.onnx", np.float32),
                "sinabs": sinabs(),
            },
            "8-bit weights": {
                "our graph (`to_torch`)": ours(integers),
                "ONNX Runtime on `quantized.onnx`": onnx_runtime(integers, Path(folder) / "quantized.onnx", np.uint8),
            },
        }
        took: dict[str, dict[str, list[float]]] = {g: {name: [] for name in runs} for g, runs in groups.items()}
        spikes = dict.fromkeys(groups, 0)
        for run in (run for runs in groups.values() for run in runs.values()):
            run(rasters[0])
        for raster in rasters:
            for group, runs in groups.items():
                outputs = []
                for name, run in runs.items():
                    start = time.process_time()
                    outputs.append(run(raster))
                    took[group][name].append(time.process_time() - start)
                if not all(np.array_equal(outputs[0], output) for output in outputs[1:]):
                    raise SystemExit(f"{group}: the outputs differ")
                spikes[group] += int(outputs[0].sum())

    rows = [
        {"numbers": group, "case": name, "ms": 1e3 * statistics.mean(times), "output_spikes": spikes[group]}
        for group, runs in took.items()
        for name, times in runs.items()
    ]
    packages = ("numpy", "torch", "onnx", "onnxruntime", "sinabs", "nir")
    versions = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in info if "model name" in line), platform.processor())
    steps = [len(raster) for raster in rasters]
    lines = [
        "# One network in our graph, ONNX Runtime and sinabs",
        "",
        f"Commit {git.stdout.strip() or 'unknown'}; {cpu}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ".",
        f"Network cnn_sinabs.nir, {len(rasters)} N-MNIST recordings in bins of 1 ms ({min(steps)} to {max(steps)} "
        "steps), one thread, CPU time, each recording through all in turns.",
        f"**Output spikes are equal in every time bin of every recording** ({spikes['float32']} spikes in float32, "
        f"{spikes['8-bit weights']} with 8-bit weights).",
        "",
        "| numbers | run by | ms per recording |",
        "| --- | --- | --- |",
        *(f"| {row['numbers']} | {row['case']} | {row['ms']:.1f} |" for row in rows),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    results = ROOT / "benchmarks" / "results"
    write_text(results / "onnx_runtime.md", text)
    write_json(
        results / "onnx_runtime.json",
        {"commit": git.stdout.strip(), "cpu": cpu, "versions": versions, "recordings": len(rasters), "rows": rows},
    )


if __name__ == "__main__":
    main()
