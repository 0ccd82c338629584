"""Pruning keeps the largest weights of every neuron, says what it dropped, and touches nothing else."""

from itertools import pairwise

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Flatten, Input, Linear, Output
from neurodeploy.graph.pruning import fan_in_mask


def test_the_mask_keeps_the_largest_and_the_first_of_equal_ones():
    weight = np.array([[1, -3, 2, 0], [1, -1, 1, 1], [0, 0, 0, 5]], np.float32)
    wanted = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    assert np.array_equal(fan_in_mask(weight, 2), wanted)
    assert np.array_equal(fan_in_mask(weight, 9), weight != 0)
    with pytest.raises(GraphError, match="at least one"):
        fan_in_mask(weight, 0)


def test_a_graph_is_pruned_layer_by_layer():
    rng = np.random.default_rng(0)
    conv = Conv2d(rng.normal(size=(3, 2, 3, 3)).astype(np.float32))
    linear = Linear(rng.normal(size=(4, 48)), np.ones(4))
    nodes = {"input": Input((2, 6, 6)), "conv": conv, "flatten": Flatten(), "linear": linear, "output": Output()}
    graph = Graph(nodes, tuple(pairwise(nodes)))
    pruned = nd.prune_fan_in(graph, 20)
    assert pruned.nodes["conv"] == conv
    kept = pruned.nodes["linear"].weight
    assert kept.dtype == np.float64
    assert (np.count_nonzero(kept, axis=1) == 20).all()
    assert np.array_equal(kept[kept != 0], linear.weight[kept != 0])
    assert np.array_equal(pruned.nodes["linear"].bias, linear.bias)
    share = np.square(kept).sum() / np.square(linear.weight).sum()
    note = f"linear: 112 of 192 weights were pruned, so that no neuron has more than 20; {share:.1%} of the squared"
    assert len(pruned.notes) == 1
    assert pruned.notes[0].startswith(note)
    fewer = nd.prune_fan_in(graph, 5).nodes["conv"].weight
    assert (np.count_nonzero(fewer.reshape(3, -1), axis=1) == 5).all()
    assert nd.prune_fan_in(graph, 48) == graph
