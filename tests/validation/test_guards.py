"""A compiled network that will be silent, saturated or behind on the chip says so, with the layer and a remedy."""

from dataclasses import replace

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import EmulationError
from neurodeploy.events import EventDataset, make_events, save_npz
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.nodes import Neuron
from tests.cli.command_line import CommandLine
from tests.targets.networks import as_float, chain

SIZE = (1, 6, 6)


def network(weight: float, threshold: float, second: float = 1.0):
    """Two layers whose weights are all ``weight`` and 1."""
    graph = as_float(chain(SIZE, [(2, 3, 1, 0, 1), (2, 1, 1, 0, 1)]))
    changed = {}
    for conv, neuron, value, limit in (("conv0", "spike0", weight, threshold), ("conv1", "spike1", 1.0, second)):
        changed[conv] = replace(graph.nodes[conv], weight=np.full_like(graph.nodes[conv].weight, value))
        changed[neuron] = replace(graph.nodes[neuron], threshold=np.array(limit, np.float32), v_min=None)
        assert isinstance(graph.nodes[neuron], Neuron)
    return graph.with_nodes(changed)


def recordings(n_events: int = 40) -> EventDataset:
    rng = np.random.default_rng(0)
    t = np.arange(n_events)
    events = make_events(t, rng.integers(0, 6, n_events), rng.integers(0, 6, n_events), np.zeros(n_events, np.int64))
    return EventDataset.from_recordings([events, events[:0]], np.array([0, 1]), sensor_size=SIZE, duration_us=10_000)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (network(0.5, 1.0, 4.0), []),
        (network(0.5, 0.2, 8.0), [("conv0", "weight-above-threshold"), ("conv0", "saturated")]),
        (network(0.5, 0.5, 4.0), [("conv0", "saturated")]),
        (network(0.5, 100.0), [("conv0", "silent"), ("conv1", "silent")]),
    ],
)
def test_layers_are_named(graph, expected):
    deployment = nd.compile(graph)
    guards = nd.activity_guards(deployment, recordings())
    assert [(guard.layer, guard.code) for guard in guards] == expected
    assert all("Remedy: " in str(guard) and str(guard).startswith(guard.layer) for guard in guards)
    without = [(layer, code) for layer, code in expected if code == "weight-above-threshold"]
    assert [(guard.layer, guard.code) for guard in nd.activity_guards(deployment)] == without


def test_the_ratio_is_that_of_the_integers():
    (guard,) = nd.activity_guards(nd.compile(network(0.5, 0.2)))
    assert guard.value == pytest.approx(2.5, abs=0.05)
    assert guard.limit == 2
    assert "127 is 2.49 times the threshold 51" in guard.message


def test_words_that_overflow_are_a_saturation():
    graph = network(0.5, 0.004)  # 127 against a threshold of 1: the potential climbs and is never worked off
    (weights, saturated) = nd.activity_guards(nd.compile(graph), recordings(8000))[:2]
    assert (weights.code, saturated.code) == ("weight-above-threshold", "saturated")
    assert "times a potential met the largest number of its word" in saturated.message


def test_no_recordings_are_refused():
    with pytest.raises(EmulationError, match="cannot run 0 recordings"):
        nd.activity_guards(nd.compile(network(0.5, 1.0)), recordings()[:0])


def test_compile_prints_them(tmp_path, monkeypatch, capsys):
    command_line = CommandLine(monkeypatch, capsys)
    save_graph(network(0.5, 100.0), tmp_path / "g.onnx")
    save_npz(tmp_path / "data.npz", recordings())
    arguments = ("compile", tmp_path / "g.onnx", "--out", tmp_path / "build")
    assert command_line(*arguments, "--json").json["guards"] == []
    arguments += ("--check-on", tmp_path / "data.npz", "--samples", 1)
    guards = command_line(*arguments, "--json").json["guards"]
    assert [(guard["layer"], guard["code"]) for guard in guards] == [("conv0", "silent"), ("conv1", "silent")]
    assert "because no event reached the layer" in guards[1]["message"]
    said = command_line(*arguments)
    assert said.code == 0
    assert "warning: conv0: no neuron fired in any recording. Remedy: lower its threshold" in said.out
