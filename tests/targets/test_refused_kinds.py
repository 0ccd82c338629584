"""What the graph can say and a core cannot: refused by name, with a remedy, before anything is built."""

import itertools

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import NeurodeployError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import (
    LI,
    Add,
    Conv1d,
    Conv2d,
    Delay,
    Feedback,
    Input,
    Linear,
    Neuron,
    Output,
    Scale,
    Threshold,
)
from neurodeploy.target import load_target
from tests.targets.networks import weights

ONE = np.array(1, np.float32)


def chain(*nodes, shape=(1, 8, 8)):
    named = {"in": Input(shape)} | {f"n{i}": node for i, node in enumerate(nodes)} | {"out": Output()}
    return Graph(named, tuple(itertools.pairwise(named)))


def conv(channels=1):
    return Conv2d(weights((2, channels, 3, 3)).astype(np.float32))


@pytest.mark.parametrize(
    "node",
    [Scale(ONE), Threshold(ONE), Delay(np.array(2)), LI(decay=np.array(0.9, np.float32)), LI()],
    ids=lambda node: node.kind,
)
def test_kinds_that_a_core_does_not_have(node):
    graph = chain(conv(), Neuron(ONE), node, conv(2), Neuron(ONE))
    with pytest.raises(NeurodeployError) as info:
        nd.compile(graph, target="speck2f")
    assert "n2" in info.value.message
    assert info.value.remedy
    assert info.value.code == "unsupported-node"


def test_one_dimensional_convolutions():
    graph = chain(Conv1d(np.ones((2, 1, 3), np.float32)), Neuron(ONE), shape=(1, 8))
    with pytest.raises(NeurodeployError) as info:
        nd.compile(graph, target="speck2f")
    assert "n0: a Conv1d" in info.value.message
    assert info.value.code == "unsupported-node"


def test_findings_from_passes_end_with_one_full_stop():
    graph = chain(Conv1d(np.ones((2, 1, 3), np.float32)), Neuron(ONE), shape=(1, 8))
    target = load_target("speck2f")
    (finding,) = target.family.check(graph, target.chip)
    assert finding.message.endswith("expressed in integers.")


def test_recurrent_networks():
    linear = Linear(np.eye(4, dtype=np.float32))
    nodes = {"in": Input((4,)), "fc": linear, "sum": Add(), "spike": Neuron(ONE), "loop": Feedback((4,)), "rec": linear}
    nodes["out"] = Output()
    edges = [("in", "fc"), ("fc", "sum"), ("rec", "sum"), ("sum", "spike"), ("spike", "loop"), ("loop", "rec")]
    with pytest.raises(NeurodeployError) as info:
        nd.compile(Graph(nodes, (*edges, ("spike", "out"))), target="speck2f")
    assert "loop" in info.value.message, str(info.value)
    assert info.value.code == "recurrence"
    assert "allow_recurrence" in info.value.remedy
    target = load_target("speck2f")
    findings = target.family.check(Graph(nodes, (*edges, ("spike", "out"))), target.chip)
    assert [finding.rule.code for finding in findings] == ["recurrence"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"compare": ">"}, "compare"),
        ({"reset": "value", "v_reset": np.array(-0.5, np.float32)}, "reset"),
        ({"decay": np.array(0.9, np.float32), "v_leak": np.array(0.1, np.float32)}, "decay"),
    ],
)
def test_neurons_that_a_core_does_not_have(fields, code):
    with pytest.raises(NeurodeployError) as info:
        nd.compile(chain(conv(), Neuron(ONE, **fields)), target="speck2f")
    assert info.value.code == code, str(info.value)
