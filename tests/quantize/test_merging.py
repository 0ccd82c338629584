"""Sums of layers in front of neurons as one layer: equal to the network before, step by step."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Feedback, Flatten, Input, Linear, Neuron, Node, Output
from neurodeploy.quantize import check_kinds, quantize
from neurodeploy.quantize.linear_to_conv import linear_to_conv
from neurodeploy.quantize.merging import merge_sums

pytest.importorskip("torch")

IAF = Neuron(np.array(8, np.float32), np.array(-8, np.float32))


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Whole numbers, whose sums are exact in every order."""
    return rng.integers(-4, 6, shape).astype(np.float32)


def graph(nodes: dict[str, Node], edges: str) -> Graph:
    """Edges as ``"a b c, d e"``: a to b to c, d to e."""
    chains = [chain.split() for chain in edges.split(",")]
    return Graph(nodes, tuple((a, b) for chain in chains for a, b in pairwise(chain)))


def spikes(network: Graph, raster: np.ndarray, neurons: Sequence[str]) -> list[np.ndarray]:
    import torch

    from neurodeploy.graph.torch_writer import to_torch

    found = to_torch(network).record(torch.from_numpy(raster))
    return [found[name].numpy().reshape(*raster.shape[:2], -1) for name in neurons]


def assert_same_spikes(before: Graph, after: Graph, neurons: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    raster = rng.integers(0, 3, (2, 12, *before.input_shape())).astype(np.float32)
    one = spikes(before, raster, neurons)
    other = spikes(after, raster.reshape(2, 12, *after.input_shape()), neurons)
    for a, b in zip(one, other, strict=True):
        assert a.any()
        assert np.array_equal(a, b)


def recurrent_dense(rng: np.random.Generator) -> Graph:
    nodes: dict[str, Node] = {
        "in": Input((5,)),
        "fc": Linear(whole(rng, 6, 5), whole(rng, 6)),
        "rec": Linear(whole(rng, 6, 6) - 2, whole(rng, 6)),
        "sum": Add(),
        "spike": IAF,
        "loop": Feedback((6,)),
        "out": Output(),
    }
    return graph(nodes, "in fc sum spike out, spike loop rec sum")


def test_a_recurrent_dense_layer() -> None:
    before = recurrent_dense(np.random.default_rng(1))
    after = merge_sums(linear_to_conv(before))
    assert not {"rec", "sum"} & set(after.nodes)
    layer = after.nodes["fc"]
    assert isinstance(layer, Conv2d)
    first, second = before.nodes["fc"], before.nodes["rec"]
    assert isinstance(first, Linear)
    assert isinstance(second, Linear)
    assert np.array_equal(layer.weight[:, :, 0, 0], np.concatenate([first.weight, second.weight], 1))
    assert layer.bias is not None
    assert layer.bias.tolist() == np.add(first.bias, second.bias).tolist()  # type: ignore[arg-type]
    assert any("rec merged into fc" in note for note in after.notes)
    assert_same_spikes(before, after, ["spike"])


@pytest.mark.parametrize("seed", range(6))
def test_kernels_of_different_size_are_laid_over_each_other(seed: int) -> None:
    """Recurrent kernels, two inputs through layers of their own, and spikes that are added without weights."""
    rng = np.random.default_rng(seed)
    k, back = (int(side) for side in rng.choice([1, 3, 5], 2))
    nodes: dict[str, Node] = {
        "in": Input((2, 6, 7)),
        "conv": Conv2d(whole(rng, 3, 2, k, k), None, (1, 1), (k // 2, k // 2)),
        "other": Conv2d(whole(rng, 3, 2, 3, 3), whole(rng, 3), (1, 1), (1, 1)),
        "rec": Conv2d(whole(rng, 3, 3, back, back) - 2, None, (1, 1), (back // 2, back // 2)),
        "inner": Add(),
        "sum": Add(),
        "spike": IAF,
        "loop": Feedback((3, 6, 7)),
        "out": Output(),
    }
    plain = " , loop inner" if seed % 2 else ""
    before = graph(nodes, f"in conv inner sum spike out, in other sum, spike loop rec inner{plain}")
    after = merge_sums(before)
    assert sum(isinstance(node, Conv2d) for node in after.nodes.values()) == 1
    assert not any(isinstance(node, Add) for node in after.nodes.values())
    assert_same_spikes(before, after, ["spike"])


def test_strided_branches() -> None:
    rng = np.random.default_rng(3)
    nodes: dict[str, Node] = {
        "in": Input((2, 9, 9)),
        "a": Conv2d(whole(rng, 4, 2, 3, 3), None, (2, 2), (1, 1)),
        "b": Conv2d(whole(rng, 4, 2, 1, 1), None, (2, 2), (0, 0)),
        "sum": Add(),
        "spike": IAF,
        "out": Output(),
    }
    before = graph(nodes, "in a sum spike out, in b sum")
    after = merge_sums(before)
    assert isinstance(after.nodes["a.inputs"], Concat)
    assert_same_spikes(before, after, ["spike"])


@pytest.mark.parametrize(
    ("changed", "edges", "text"),
    [
        ({"b": Conv2d(np.ones((4, 2, 3, 3), np.float32), None, (2, 2), (5, 5))}, "", "differ in their stride"),
        (
            {"b": Conv2d(np.ones((4, 1, 3, 3), np.float32), None, (1, 1), (1, 1), groups=2)},
            "",
            "differ in their groups",
        ),
        ({}, ", a tail", "feeds something else"),
    ],
)
def test_what_is_no_single_layer_is_refused(changed: dict[str, Node], edges: str, text: str) -> None:
    layer = Conv2d(np.ones((4, 2, 3, 3), np.float32), None, (1, 1), (1, 1))
    nodes: dict[str, Node] = {"in": Input((2, 8, 8)), "a": layer, "b": layer, "sum": Add(), "spike": IAF}
    nodes |= {"out": Output(), **changed}
    if edges:
        nodes |= {"tail": IAF, "second": Output()}
        edges += " second"
    with pytest.raises(QuantizeError, match=text) as refused:
        merge_sums(graph(nodes, f"in a sum spike out, in b sum{edges}"))
    assert refused.value.code == "merge"
    assert refused.value.remedy


def test_a_recurrent_layer_on_a_flattened_map_is_refused_with_a_remedy() -> None:
    rng = np.random.default_rng(0)
    nodes: dict[str, Node] = {"in": Input((2, 3, 3)), "flat": Flatten(), "fc": Linear(whole(rng, 4, 18))}
    nodes |= {"rec": Linear(whole(rng, 4, 4)), "sum": Add(), "spike": IAF, "loop": Feedback((4,)), "out": Output()}
    with pytest.raises(QuantizeError, match="maps of different size") as refused:
        quantize(graph(nodes, "in flat fc sum spike out, spike loop rec sum"), allow_recurrence=True)
    assert "layer of neurons between" in refused.value.remedy


def test_a_feedback_that_only_delays_is_refused() -> None:
    nodes: dict[str, Node] = {"in": Input((1, 2, 2)), "a": Conv2d(np.ones((1, 1, 1, 1), np.float32)), "s": IAF}
    nodes |= {"late": Feedback((1, 2, 2)), "b": Conv2d(np.ones((1, 1, 1, 1), np.float32)), "t": IAF, "out": Output()}
    with pytest.raises(QuantizeError, match="delay of one step") as refused:
        check_kinds(graph(nodes, "in a s late b t out"), allow_recurrence=True)
    assert refused.value.code == "feedback-delay"


def test_loops_are_refused_unless_they_are_allowed() -> None:
    before = recurrent_dense(np.random.default_rng(1))
    with pytest.raises(QuantizeError) as refused:
        quantize(before)
    assert refused.value.code == "recurrence"
    assert "allow_recurrence=True" in refused.value.remedy
    assert list(quantize(before, allow_recurrence=True).layers) == ["fc"]
