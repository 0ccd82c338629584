"""The README's Python runs as it stands there, given the names that a reader is expected to have."""

import itertools
import re
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch

import neurodeploy as nd
from neurodeploy.events import EventDataset, SpikeTimes, make_events, save_spike_times

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"), re.S)


def write_network(path: Path, rng: np.random.Generator) -> None:
    weight = rng.normal(0, 0.3, (4, 2, 3, 3)).astype(np.float32)
    nodes = {
        "input": nir.Input(np.array([2, 12, 12])),
        "conv1": nir.Conv2d((12, 12), weight, 1, padding=0, dilation=1, groups=1, bias=np.zeros(4, np.float32)),
        "neurons": nir.IF(np.ones((4, 10, 10)), np.ones((4, 10, 10))),
        "flatten": nir.Flatten({"input": np.array([4, 10, 10])}, start_dim=0, end_dim=-1),
        "linear": nir.Linear(rng.normal(0, 0.1, (10, 400)).astype(np.float32)),
        "readout": nir.IF(np.ones(10), np.ones(10)),
        "output": nir.Output(np.array([10])),
    }
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=list(itertools.pairwise(names))))


def recording(rng: np.random.Generator) -> Any:
    n = 200
    sides = [rng.integers(0, 12, n) for _ in "xy"]
    return make_events(np.sort(rng.integers(0, 9000, n)), *sides, rng.integers(0, 2, n))


@pytest.mark.filterwarnings("ignore")
def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("sinabs.layers")
    assert len(BLOCKS) >= 3
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "cnn.nir", rng)
    recordings = [recording(rng) for _ in range(3)]
    names: dict[str, Any] = {
        "torch": torch,
        "events": recordings[0],
        "dataset": EventDataset.from_recordings(recordings, np.arange(3), sensor_size=(2, 12, 12)),
        "neuron": nd.nn.SpikeTimeNeuron(tau_mem=2.0, tau_syn=1.0, reset="value", t_ref=torch.inf),
        "times": rng.uniform(0, 0.01, (30, 5, 1)),
        "sinabs_net": torch.nn.Sequential(torch.nn.Linear(3, 2), layers.IAF()),
    }
    save_spike_times("patterns.npz", SpikeTimes(names["times"], np.arange(30) % 3))
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert set(names["result"].accuracy) == {"float", "quantized", "time_stepped", "event_driven"}
    assert names["spikes"].shape == (4 * 30, 10)
    assert isinstance(names["sinabs_net"][1], nd.nn.IAF)
    assert (tmp_path / "build_bss2" / "files" / "pynn_network.py").is_file()
