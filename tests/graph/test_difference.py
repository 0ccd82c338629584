from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Conv2d, Flatten, Input, Linear, Neuron, Output, SumPool2d
from tests.graph.random_graphs import random_graph


def weight(*shape):
    return np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)


@pytest.fixture
def graph():
    nodes = {
        "input": Input((2, 6, 6)),
        "conv": Conv2d(weight(3, 2, 3, 3)),
        "spike": Neuron(np.float32(1)),
        "pool": SumPool2d((2, 2), (2, 2)),
        "flatten": Flatten(),
        "fc": Linear(weight(5, 12)),
        "last": Neuron(np.float32(2)),
        "output": Output(),
    }
    names = list(nodes)
    return Graph(nodes, tuple(pairwise(names)))


def texts(first, second):
    return [str(change) for change in nd.difference(first, second).changes]


def test_equal_graphs_have_no_difference(graph):
    again = Graph(dict(graph.nodes), graph.edges, notes=("a note is no part of the network",))
    found = nd.difference(graph, again)
    assert (found.equal, found.equal_up_to_names, found.changes) == (True, True, ())
    assert found.to_dict() == {"equal": True, "equal_up_to_names": True, "changes": []}


def test_a_changed_weight_is_counted_and_placed(graph):
    moved = graph.nodes["conv"].weight.copy()
    moved[1, 0, 2, 2] += 0.5
    moved[0, 0, 0, 0] -= 0.25
    other = graph.with_nodes({"conv": replace(graph.nodes["conv"], weight=moved)})
    (change,) = nd.difference(graph, other).changes
    assert (change.what, change.layer, change.field, change.changed, change.of) == ("field", "conv", "weight", 2, 54)
    assert change.largest == pytest.approx(0.5)
    assert change.text.startswith("weight 2 of 54 changed, by at most 0.5 (at [1, 0, 2, 2]: ")


def test_fields_in_words(graph):
    other = graph.with_nodes(
        {
            "spike": replace(graph.nodes["spike"], threshold=np.float32(1.5), reset="zero", v_min=np.float32(-1)),
            "conv": replace(graph.nodes["conv"], bias=np.zeros(3, np.float32)),
            "fc": Linear(graph.nodes["fc"].weight.astype(np.float64)),
        }
    )
    assert texts(graph, other) == [
        "conv: bias none -> 3 values",
        "spike: threshold 1 -> 1.5",
        "spike: v_min none -> -1",
        "spike: reset subtract -> zero",
        "fc: weight float32 -> float64",
    ]


def test_renamed_layers_are_found_and_their_changes_too(graph):
    new = {name: f"{name}_new" for name in ("conv", "fc", "last")}
    nodes = {new.get(name, name): node for name, node in graph.nodes.items()}
    edges = tuple((new.get(a, a), new.get(b, b)) for a, b in graph.edges)
    found = nd.difference(graph, Graph(nodes, edges))
    assert [(change.what, str(change)) for change in found.changes] == [
        ("renamed", f"{name}_new: called {name} before") for name in ("conv", "fc", "last")
    ]
    assert found.equal_up_to_names
    assert not found.equal
    nodes["last_new"] = replace(nodes["last_new"], threshold=np.float32(3))
    found = nd.difference(graph, Graph(nodes, edges))
    assert "last_new: threshold 2 -> 3" in map(str, found.changes)
    assert not found.equal_up_to_names


def test_added_removed_and_reconnected_layers(graph):
    nodes = {**graph.nodes, "side": Conv2d(weight(3, 2, 3, 3) * 2), "sum": Add()}
    edges = [edge for edge in graph.edges if edge != ("conv", "spike")]
    edges += [("input", "side"), ("conv", "sum"), ("side", "sum"), ("sum", "spike")]
    wider = Graph(nodes, tuple(edges))
    assert texts(graph, wider) == [
        "side: added: Conv2d (3, 4, 4)",
        "sum: added: Add (3, 4, 4)",
        "spike: fed by sum (before: conv)",
    ]
    assert texts(wider, graph) == [
        "spike: fed by conv (before: sum)",
        "side: removed: Conv2d (3, 4, 4)",
        "sum: removed: Add (3, 4, 4)",
    ]


def test_another_kind_under_the_same_name_and_another_shape(graph):
    other = graph.with_nodes({"pool": Conv2d(weight(3, 3, 2, 2), stride=(2, 2)), "fc": Linear(weight(4, 12))})
    assert texts(graph, other) == ["pool: SumPool2d -> Conv2d", "fc: weight shape (5, 12) -> (4, 12)"]


@pytest.mark.parametrize("seed", range(8))
def test_no_difference_means_equal(seed):
    """Over random graphs: equal to itself; equal up to names under other names; not equal to another one."""
    one, two = (random_graph(100 + seed + 50 * side, 6) for side in range(2))
    assert nd.difference(one, one).equal
    assert nd.difference(one, two).equal == (one == two)
    renamed = Graph(
        {f"x{name}": node for name, node in one.nodes.items()}, tuple((f"x{a}", f"x{b}") for a, b in one.edges)
    )
    found = nd.difference(one, renamed)
    assert found.equal_up_to_names
    assert not found.equal
