import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import (
    LI,
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv1d,
    Conv2d,
    Delay,
    Feedback,
    Flatten,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Scale,
    SumPool2d,
    Threshold,
)

ONE = np.array(1, np.float32)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def small() -> Graph:
    nodes = {"out": Output(), "n": Neuron(ONE), "c": Conv2d(zeros(3, 2, 3, 3)), "in": Input((2, 8, 8))}
    return Graph(nodes, (("in", "c"), ("c", "n"), ("n", "out")), ("first",))


def refusal(code, nodes, edges):
    with pytest.raises(GraphError) as info:
        Graph(nodes, edges)
    assert info.value.code == code, str(info.value)
    assert info.value.remedy
    return str(info.value)


def test_nodes_are_in_topological_order_with_their_shapes():
    graph = small()
    assert list(graph.nodes) == ["in", "c", "n", "out"]
    assert dict(graph.shapes) == {"in": (2, 8, 8), "c": (3, 6, 6), "n": (3, 6, 6), "out": (3, 6, 6)}
    assert graph.input_shape() == (2, 8, 8)
    assert graph.predecessors("n") == ("c",)
    assert graph.successors("n") == ("out",)


def test_changed_copies():
    graph = small()
    pooled = graph.with_nodes({"n": SumPool2d((2, 2), (2, 2))}, notes=["second"])
    assert pooled.shapes["out"] == (3, 3, 3)
    assert pooled.notes == ("first", "second")
    assert graph.nodes["n"] == Neuron(ONE)
    assert list(graph.without("n").nodes) == ["in", "c", "out"]
    assert graph.without("n").edges == (("in", "c"), ("c", "out"))
    with pytest.raises(TypeError):
        graph.nodes["n"] = Neuron(ONE)  # type: ignore[index]


def test_equality_is_by_value_and_type():
    assert small() == small()
    assert small() != small().with_nodes({"n": Neuron(np.array(2, np.float32))})
    assert Neuron(ONE) != Neuron(np.array(1, np.float64))
    assert Neuron(ONE) != Neuron(ONE, v_min=ONE)
    assert SumPool2d((2, 2), (2, 2)) != AvgPool2d((2, 2), (2, 2))
    assert Conv2d(zeros(1, 1, 1, 1)) == Conv2d(zeros(1, 1, 1, 1))


def test_malformed_graphs_are_refused():
    middle: dict[str, Node] = {"in": Input((4,)), "n": Neuron(ONE), "out": Output()}
    good = (("in", "n"), ("n", "out"))
    assert "missing" in refusal("edge", middle, (*good, ("n", "missing")))
    assert "a, b" in refusal("cycle", {**middle, "a": Neuron(ONE), "b": Neuron(ONE)}, (*good, ("a", "b"), ("b", "a")))
    assert "alone (Neuron)" in refusal("unconnected", {**middle, "alone": Neuron(ONE)}, (*good, ("in", "alone")))
    refusal("no-output", {"in": Input((4,))}, ())
    assert "Add" in refusal("fan-in", {**middle, "m": Input((4,))}, (*good, ("m", "n")))
    refusal("fan-in", {**middle, "m": Input((4,))}, (*good, ("m", "in")))


@pytest.mark.parametrize(
    ("shape", "node", "word"),
    [
        ((4,), Conv2d(zeros(1, 2, 1, 1)), "map"),
        ((3, 8, 8), Conv2d(zeros(1, 2, 1, 1)), "takes 2 channels"),
        ((2, 8, 8), Conv2d(zeros(1, 2, 9, 9)), "larger than its input"),
        ((2, 8, 8), Conv2d(zeros(3, 2, 1, 1), zeros(2)), "bias"),
        ((2, 8, 8), Conv2d(zeros(3, 1, 1, 1), groups=2), "groups"),
        ((2, 8, 8), Linear(zeros(4, 8)), "Flatten"),
        ((4,), Linear(zeros(2, 4), zeros(3)), "bias"),
        ((4,), SumPool2d((2, 2), (2, 2)), "map"),
        ((2, 1, 8), SumPool2d((2, 2), (2, 2)), "larger than its input"),
        ((2, 8, 8), BatchNorm2d(zeros(3), zeros(3), zeros(3), zeros(3)), "3 channels"),
        ((2, 8, 8), Neuron(zeros(2, 8)), "threshold has shape (2, 8)"),
        ((2, 8, 8), Neuron(ONE, decay=zeros(3)), "decay"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, node, word):
    message = refusal("shape", {"in": Input(shape), "x": node, "out": Output()}, (("in", "x"), ("x", "out")))
    assert message.startswith("x: ")
    assert word in message


def test_branches_of_different_shapes_are_refused():
    nodes = {"in": Input((2, 4, 4)), "p": SumPool2d((2, 2), (2, 2)), "add": Add(), "out": Output()}
    refusal("shape", nodes, (("in", "p"), ("in", "add"), ("p", "add"), ("add", "out")))


def test_branches_are_joined_by_channel():
    nodes = {"a": Input((2, 4, 4)), "b": Input((3, 4, 4)), "c": Input((1, 4, 5)), "join": Concat(), "out": Output()}
    pair = {name: node for name, node in nodes.items() if name != "c"}
    assert Graph(pair, (("b", "join"), ("a", "join"), ("join", "out"))).shapes["join"] == (5, 4, 4)
    refusal("shape", nodes, (("a", "join"), ("b", "join"), ("c", "join"), ("join", "out")))
    refusal("shape", pair, (("a", "join"), ("join", "out"), ("b", "out")))


def test_several_inputs():
    nodes = {"a": Input((4,)), "b": Input((4,)), "add": Add(), "out": Output()}
    graph = Graph(nodes, (("a", "add"), ("b", "add"), ("add", "out")))
    with pytest.raises(GraphError, match="a, b"):
        graph.input_shape()


size = st.integers(1, 3)
pair = st.tuples(size, size)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.sampled_from([2, 4]), st.integers(1, 9), st.integers(1, 9)),
    kernel=pair,
    stride=pair,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pair,
    groups=st.sampled_from([1, 2]),
)
def test_shapes_are_those_of_torch(shape, kernel, stride, padding, dilation, groups):
    torch = pytest.importorskip("torch")
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= r for n, p, r in zip(shape[1:], padding, reach, strict=True)))
    weight = zeros(6, shape[0] // groups, *kernel)
    x = torch.zeros(1, *shape)
    conv = Conv2d(weight, zeros(6), stride, padding, dilation, groups)
    expected = torch.nn.functional.conv2d(x, torch.tensor(weight), None, stride, padding, dilation, groups)
    assert conv.output_shape("c", [shape]) == tuple(expected.shape[1:])
    if all(2 * p <= k for p, k in zip(padding, kernel, strict=True)):
        window = tuple(map(int, kernel))
        if all(n + 2 * p >= k for n, p, k in zip(shape[1:], padding, kernel, strict=True)):
            pooled = torch.nn.functional.avg_pool2d(x, window, stride, padding)
            assert AvgPool2d(window, stride, padding).output_shape("p", [shape]) == tuple(pooled.shape[1:])
    assert Flatten().output_shape("f", [shape]) == (int(np.prod(shape)),)


BAD_NODES = {
    "weight of 3 axes": Conv2d(zeros(3, 2, 3)),
    "weight without outputs": Conv2d(zeros(0, 2, 3, 3)),
    "kernel without width": Conv2d(zeros(3, 2, 3, 0)),
    "no groups": Conv2d(zeros(3, 2, 3, 3), groups=0),
    "stride 0": Conv2d(zeros(3, 2, 3, 3), stride=(1, 0)),
    "dilation 0": Conv2d(zeros(3, 2, 3, 3), dilation=(0, 1)),
    "negative padding": Conv2d(zeros(3, 2, 3, 3), padding=(-1, 0)),
    "pool of stride 0": SumPool2d((2, 2), (0, 2)),
    "linear of 1 axis": Linear(zeros(3)),
    "unequal normalisation": BatchNorm2d(zeros(2), zeros(2), zeros(2), zeros(3)),
}


@pytest.mark.parametrize("node", BAD_NODES.values(), ids=BAD_NODES)
def test_malformed_nodes_are_refused_by_name(node):
    with pytest.raises(GraphError, match=r"^bad: ") as info:
        Graph({"in": Input((2, 8, 8)), "bad": node, "out": Output()}, (("in", "bad"), ("bad", "out")))
    assert info.value.remedy


@pytest.mark.parametrize("shape", [(), (2, 0, 8)])
def test_empty_inputs_are_refused(shape):
    refusal("input-shape", {"in": Input(shape), "out": Output()}, (("in", "out"),))


def lif(**changes):
    """A LIF that states where its factors come from: tau 10 ms, steps of 1 ms, forward Euler."""
    fields = {"decay": np.array(0.9, np.float32), "input_gain": np.array(0.1, np.float32), "scheme": "euler"}
    fields |= {"dt_us": 1000.0, "tau": np.array(0.01), "r": np.array(1.0)}
    return Neuron(ONE, **{**fields, **changes})


@pytest.mark.parametrize(
    ("shape", "node", "expected"),
    [
        ((2, 9), Conv1d(zeros(4, 1, 3), stride=2, padding=1, dilation=2, groups=2), (4, 4)),
        ((2, 3, 4), Scale(zeros(2, 3, 4)), (2, 3, 4)),
        ((5,), Threshold(ONE, compare=">"), (5,)),
        ((5,), Delay(np.arange(5)), (5,)),
        ((5,), LI(decay=zeros(5)), (5,)),
        ((5,), lif(), (5,)),
        ((5,), lif(decay=np.exp(np.float32(-0.1)), scheme="exp_delta"), (5,)),
        ((5,), Neuron(ONE, reset="value", v_reset=zeros(5), compare=">"), (5,)),
    ],
)
def test_shapes_of_the_other_nodes(shape, node, expected):
    graph = Graph({"in": Input(shape), "n": node, "out": Output()}, (("in", "n"), ("n", "out")))
    assert graph.shapes["n"] == expected


@pytest.mark.parametrize(
    ("code", "shape", "node"),
    [
        ("shape", (2, 9, 9), Conv1d(zeros(4, 2, 3))),
        ("shape", (3, 9), Conv1d(zeros(4, 2, 3))),
        ("shape", (2, 2), Conv1d(zeros(4, 2, 3))),
        ("shape", (2, 3), Scale(zeros(3))),
        ("shape", (5,), Threshold(zeros(4))),
        ("option", (5,), Threshold(ONE, compare="<")),
        ("delay", (5,), Delay(np.array(1.5))),
        ("delay", (5,), Delay(np.array(-1))),
        ("shape", (5,), LI(v_leak=zeros(4))),
        ("option", (5,), Neuron(ONE, compare="=")),
        ("option", (5,), Neuron(ONE, reset="soft")),
        ("reset", (5,), Neuron(ONE, reset="value")),
        ("reset", (5,), Neuron(ONE, v_reset=ONE)),
        ("integration", (5,), lif(decay=np.array(0.8, np.float32))),
        ("integration", (5,), lif(input_gain=np.array(1, np.float32))),
        ("integration", (5,), lif(tau=None)),
        ("integration", (5,), lif(tau=np.array(-0.01))),
        ("option", (5,), lif(scheme="runge")),
    ],
)
def test_nodes_that_do_not_fit_are_refused(code, shape, node):
    assert "n" in refusal(code, {"in": Input(shape), "n": node, "out": Output()}, (("in", "n"), ("n", "out")))


def recurrent(loop):
    nodes = {"in": Input((4,)), "sum": Add(), "n": Neuron(ONE), "loop": loop, "w": Linear(zeros(4, 4)), "out": Output()}
    return nodes, (("in", "sum"), ("w", "sum"), ("sum", "n"), ("n", "loop"), ("loop", "w"), ("n", "out"))


def test_a_loop_is_closed_by_a_feedback():
    graph = Graph(*recurrent(Feedback((4,))))
    assert graph.shapes["w"] == (4,)
    order = list(graph.nodes)
    assert order.index("loop") < order.index("w") < order.index("sum") < order.index("n")
    assert graph.predecessors("loop") == ("n",)


def recurrent_with_wrong_shape():
    nodes, edges = recurrent(Feedback((5,)))
    return {**nodes, "w": Linear(zeros(4, 5))}, edges


def test_a_loop_without_feedback_is_refused():
    assert "Feedback" in refusal("cycle", *recurrent(Scale(ONE)))
    assert "declared" in refusal("shape", *recurrent_with_wrong_shape())


def test_concatenated_channels():
    nodes = {"in": Input((2, 3, 4)), "a": Conv2d(zeros(5, 2, 1, 1)), "c": Concat(), "out": Output()}
    edges = (("in", "a"), ("in", "c"), ("a", "c"), ("c", "out"))
    assert Graph(nodes, edges).shapes["c"] == (7, 3, 4)
    assert "Concat" in refusal("shape", {**nodes, "a": Conv2d(zeros(5, 2, 2, 2))}, edges)
