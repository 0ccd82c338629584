from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    SumPool2d,
)
from neurodeploy.quantize.folding import fold_average_pool, fold_batch_norm, fold_input_gain
from neurodeploy.quantize.linear_to_conv import linear_to_conv

rng = np.random.default_rng(1)
IAF = Neuron(np.array(1, np.float32))
POOL = AvgPool2d((2, 2), (2, 2))


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def chain(*nodes: Node, shape=(2, 8, 8)) -> Graph:
    named = {"input": Input(shape)} | {f"n{i}": node for i, node in enumerate(nodes)} | {"output": Output()}
    return Graph(named, tuple(pairwise(named)))


def refusal(step, graph, code):
    with pytest.raises(QuantizeError) as info:
        step(graph)
    assert info.value.code == code
    assert info.value.remedy
    return str(info.value)


@pytest.mark.parametrize("with_bias", [False, True])
def test_batch_norm_goes_into_the_layer_before_it(with_bias):
    weight, bias = normal(3, 2, 3, 3), normal(3) if with_bias else None
    norm = BatchNorm2d(normal(3), normal(3) ** 2, normal(3), normal(3), 1e-3)
    graph = fold_batch_norm(chain(Conv2d(weight, bias), norm, IAF))
    assert list(graph.nodes) == ["input", "n0", "n2", "output"]
    patch = normal(2, 3, 3)
    before = np.einsum("oiyx,iyx->o", weight, patch) + (0 if bias is None else bias)
    expected = norm.scale * (before - norm.mean) / np.sqrt(norm.variance + norm.epsilon) + norm.shift
    folded = graph.nodes["n0"]
    assert np.allclose(np.einsum("oiyx,iyx->o", folded.weight, patch) + folded.bias, expected, atol=1e-5)
    assert folded.weight.dtype == folded.bias.dtype == np.float32
    assert "n1" in graph.notes[-1]


def test_batch_norm_after_a_linear_layer():
    norm = BatchNorm2d(normal(3), normal(3) ** 2, normal(3), normal(3))
    graph = fold_batch_norm(chain(Linear(normal(3, 5)), norm, IAF, shape=(5,)))
    assert graph.nodes["n0"].bias.shape == (3,)


def test_batch_norm_elsewhere_is_refused():
    norm = BatchNorm2d(normal(2), normal(2) ** 2, normal(2), normal(2))
    assert "n0" in refusal(fold_batch_norm, chain(norm, IAF), "batch-norm")
    nodes = {"input": Input((2, 8, 8)), "c": Conv2d(normal(2, 2, 1, 1)), "b": norm, "a": Add(), "output": Output()}
    edges = (("input", "c"), ("c", "b"), ("c", "a"), ("b", "a"), ("a", "output"))
    assert "feeds other layers" in refusal(fold_batch_norm, Graph(nodes, edges), "batch-norm")


def test_average_pools_multiply_into_the_next_weights():
    weight, bias = normal(3, 2, 1, 1), normal(3)
    graph = fold_average_pool(
        chain(POOL, SumPool2d((2, 2), (1, 1)), AvgPool2d((1, 3), (1, 1)), Conv2d(weight, bias), IAF)
    )
    assert graph.nodes["n0"] == SumPool2d((2, 2), (2, 2))
    assert graph.nodes["n2"] == SumPool2d((1, 3), (1, 1))
    assert np.array_equal(graph.nodes["n3"].weight, weight * np.float32(0.25 * (1 / 3)))
    assert np.array_equal(graph.nodes["n3"].bias, bias)


def test_an_average_pool_scales_every_layer_it_feeds():
    nodes = {
        "input": Input((2, 8, 8)),
        "pool": POOL,
        "a": Conv2d(normal(3, 2, 1, 1)),
        "b": Conv2d(normal(3, 2, 1, 1)),
        "na": IAF,
        "nb": IAF,
        "add": Add(),
        "output": Output(),
    }
    edges = (
        ("input", "pool"),
        ("pool", "a"),
        ("pool", "b"),
        ("a", "na"),
        ("b", "nb"),
        ("na", "add"),
        ("nb", "add"),
        ("add", "output"),
    )
    graph = fold_average_pool(Graph(nodes, edges))
    for name in "ab":
        assert np.array_equal(graph.nodes[name].weight, nodes[name].weight / 4)


def test_average_pools_without_weights_behind_them_are_refused():
    assert "n0" in refusal(fold_average_pool, chain(POOL, IAF), "average-pool")
    assert "n1" in refusal(fold_average_pool, chain(IAF, POOL), "average-pool")


def test_branches_with_different_averages_are_refused():
    nodes = {
        "input": Input((2, 8, 8)),
        "mean": POOL,
        "sum": SumPool2d((2, 2), (2, 2)),
        "add": Add(),
        "output": Output(),
    }
    edges = (("input", "mean"), ("input", "sum"), ("mean", "add"), ("sum", "add"), ("add", "output"))
    message = refusal(fold_average_pool, Graph(nodes, edges), "average-pool")
    assert "add" in message
    assert "mean 0.25" in message


def test_linear_layers_read_the_map():
    weight = normal(5, 2 * 4 * 3)
    threshold = np.arange(1, 25, dtype=np.float32)
    graph = linear_to_conv(
        chain(Flatten(), Neuron(threshold), Linear(weight), IAF, Linear(normal(2, 5)), shape=(2, 4, 3))
    )
    assert list(graph.nodes) == ["input", "n1", "n2", "n3", "n4", "output"]
    assert np.array_equal(graph.nodes["n1"].threshold, threshold.reshape(2, 4, 3))
    assert graph.nodes["n2"] == Conv2d(weight.reshape(5, 2, 4, 3))
    assert [graph.shapes[name] for name in ("n2", "n4", "output")] == [(5, 1, 1), (2, 1, 1), (2, 1, 1)]
    patch = normal(2, 4, 3)
    assert np.allclose(np.einsum("oiyx,iyx->o", graph.nodes["n2"].weight, patch), weight @ patch.ravel(), atol=1e-5)


def test_a_vector_input_becomes_a_map():
    graph = linear_to_conv(chain(Linear(normal(3, 7)), IAF, shape=(7,)))
    assert graph.shapes["input"] == (7, 1, 1)
    assert graph.nodes["n0"].weight.shape == (3, 7, 1, 1)


def test_an_add_of_differently_flattened_maps_is_refused():
    nodes = {
        "input": Input((2, 4, 4)),
        "flat": Flatten(),
        "linear": Linear(normal(32, 32)),
        "neuron": IAF,
        "add": Add(),
        "output": Output(),
    }
    edges = (
        ("input", "flat"),
        ("flat", "linear"),
        ("linear", "neuron"),
        ("flat", "add"),
        ("neuron", "add"),
        ("add", "output"),
    )
    assert "add" in refusal(linear_to_conv, Graph(nodes, edges), "flatten-add")


def concat_of_flattened(sides, shape=(3, 8, 8)):
    """Two convolutions whose maps have these sides, flattened, joined, and read by a Linear."""
    nodes: dict[str, Node] = {"input": Input(shape)}
    edges = []
    for name, side in zip("ab", sides, strict=True):
        kernel = shape[1] + 1 - side
        nodes |= {name: Conv2d(normal(2, 3, kernel, kernel)), f"{name}_spike": IAF, f"{name}_flat": Flatten()}
        edges += [("input", name), (name, f"{name}_spike"), (f"{name}_spike", f"{name}_flat")]
    size = 2 * sides[0] ** 2 + 2 * sides[1] ** 2
    nodes |= {"join": Concat(), "linear": Linear(normal(5, size)), "spike": IAF, "output": Output()}
    edges += [("a_flat", "join"), ("b_flat", "join"), ("join", "linear"), ("linear", "spike"), ("spike", "output")]
    return Graph(nodes, tuple(edges))


def test_flattened_maps_of_one_size_are_joined_by_channel():
    graph = concat_of_flattened((4, 4))
    result = linear_to_conv(graph)
    assert result.shapes["join"] == (4, 4, 4)
    assert result.nodes["linear"].weight.shape == (5, 4, 4, 4)
    torch = pytest.importorskip("torch")
    from neurodeploy.graph.torch_writer import to_torch

    events = torch.from_numpy((rng.random((2, 6, 3, 8, 8)) < 0.3).astype(np.float32))
    expected, found = to_torch(graph)(events), to_torch(result)(events)
    assert torch.equal(expected, found.reshape(expected.shape))
    assert expected.sum() > 0


def test_flattened_maps_of_different_size_cannot_be_joined():
    assert "join" in refusal(linear_to_conv, concat_of_flattened((4, 3)), "flatten-concat")


def test_input_gain_goes_into_weights_and_bias():
    weight, bias = normal(3, 2, 3, 3), normal(3)
    graph = fold_input_gain(
        chain(Conv2d(weight, bias), Neuron(np.array(1, np.float32), input_gain=np.array(0.5, np.float32)))
    )
    assert np.array_equal(graph.nodes["n0"].weight, weight / 2)
    assert np.array_equal(graph.nodes["n0"].bias, bias / 2)
    assert graph.nodes["n1"] == IAF


def test_an_input_gain_that_cannot_be_folded_is_refused():
    gain = np.full((2, 8, 8), 0.5, np.float32)
    assert "n0" in refusal(fold_input_gain, chain(Neuron(np.array(1, np.float32), input_gain=gain)), "input-gain")
    conv = Conv2d(normal(2, 2, 1, 1))
    assert "n1" in refusal(fold_input_gain, chain(conv, Neuron(np.array(1, np.float32), input_gain=gain)), "input-gain")
