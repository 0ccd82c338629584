"""What a mapping error names as its remedy is enough: the changed network maps."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import GraphError, MappingError, NeurodeployError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Input, Neuron, Output, SumPool2d
from neurodeploy.target import load_target
from neurodeploy.targets.dynapcnn.chip import Cores, Memory
from neurodeploy.targets.dynapcnn.repair import Change, repaired

SPECK = load_target("speck2f")
FAMILY = SPECK.family


@st.composite
def networks(draw):
    """Layers of any size, with biases, poolings, branches that are added or joined, and linear ends; mostly too big."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    side = draw(st.integers(4, 60))
    nodes, edges = {"in": Input((draw(st.integers(1, 4)), side, side))}, []
    shape, before, count = (nodes["in"].shape), "in", 0

    def layer(before, shape, f, k, stride=1, padding=0):
        nonlocal count
        name, count = f"conv{count}", count + 1
        bias = rng.integers(-9, -1, f).astype(np.int16) if draw(st.integers(0, 3)) == 0 else None
        weight = rng.integers(-99, 99, (f, shape[0], k, k)).astype(np.int8)
        nodes[name] = Conv2d(weight, bias, (stride, stride), (padding, padding))
        nodes[f"{name}_spike"] = Neuron(np.array(100, np.int16), np.array(-100, np.int16))
        edges.extend([(before, name), (name, f"{name}_spike")])
        out = (shape[1] + 2 * padding - k) // stride + 1
        return f"{name}_spike", (f, out, out)

    features = st.sampled_from([2, 8, 24, 64, 130, 260, 500])
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["plain", "plain", "pool", "add", "concat"]))
        if kind == "pool" and shape[1] >= 4 and before != "in":
            nodes[f"pool{count}"] = SumPool2d((2, 2), (2, 2))
            edges.append((before, f"pool{count}"))
            before, shape = f"pool{count}", (shape[0], shape[1] // 2, shape[2] // 2)
        if kind in ("add", "concat") and before != "in":
            f = draw(features)
            left, left_shape = layer(before, shape, f, 1)
            right, _ = layer(before, shape, f if kind == "add" else draw(features), 1)
            join = f"join{count}"
            nodes[join] = Add() if kind == "add" else Concat()
            edges.extend([(left, join), (right, join)])
            other = nodes[right.removesuffix("_spike")].weight.shape[0]
            shape = (f if kind == "add" else f + other, *left_shape[1:])
            before = join
            continue
        k = draw(st.sampled_from([k for k in (1, 2, 3, 5) if k <= shape[1]]))
        before, shape = layer(
            before, shape, draw(features), k, draw(st.sampled_from([1, 1, 2])), draw(st.integers(0, 1))
        )
    k = shape[1] if shape[1] <= 16 and draw(st.booleans()) else 1
    before, shape = layer(before, shape, draw(st.sampled_from([4, 10, 300])), k)
    nodes["out"] = Output()
    return Graph(nodes, (*edges, (before, "out")))


chips = st.sampled_from(
    [
        SPECK.chip,
        load_target("speck2cmini").chip,
        SPECK.chip.model_copy(
            update={"cores": Cores(source="made up", memories=(Memory(kernel=4096, neuron=8192, bias=64),) * 6)}
        ),
    ]
)


def refusal(graph, chip, split="auto"):
    try:
        FAMILY.map(graph, chip, split=split)
    except NeurodeployError as error:
        return error
    return None


#: Without shrinking: a smaller network says no more, and takes minutes.
QUICK = {"deadline": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}


@settings(max_examples=60, **QUICK)
@given(networks(), chips, st.sampled_from(["auto", "never"]))
def test_every_repair_maps(graph, chip, split):
    caught = refusal(graph, chip, split)
    if not isinstance(caught, MappingError):
        return  # it maps, or breaks a rule that has a remedy of its own
    assert caught.repairs, str(caught)
    for repair in caught.repairs:
        FAMILY.map(repaired(graph, repair), chip, split=split)
        assert all(str(change) in caught.remedy for change in repair)


def test_the_strategy_makes_networks_that_do_not_map():
    found = []

    @settings(max_examples=30, database=None, derandomize=True, **QUICK)
    @given(networks(), chips)
    def count(graph, chip):
        error = refusal(graph, chip)
        if isinstance(error, MappingError):
            found.append((error.code, len(error.repairs[0])))

    count()
    assert sum(code == "placement" for code, _ in found) >= 5
    assert any(changes > 1 for _, changes in found)


def chain(*specs, shape=(2, 34, 34)):
    nodes, edges, before, c = {"in": Input(shape)}, [], "in", shape[0]
    for i, (f, k) in enumerate(specs):
        nodes[f"conv{i}"] = Conv2d(np.ones((f, c, k, k), np.int8))
        nodes[f"spike{i}"] = Neuron(np.array(9, np.int16), np.array(-9, np.int16))
        edges += [(before, f"conv{i}"), (f"conv{i}", f"spike{i}")]
        before, c = f"spike{i}", f
    nodes["out"] = Output()
    return Graph(nodes, (*edges, (before, "out")))


def test_several_changes_where_one_is_not_enough():
    graph = chain((512, 3), (512, 3), (512, 3))
    with pytest.raises(MappingError) as caught:
        FAMILY.map(graph, SPECK.chip)
    (repair,) = caught.value.repairs
    assert len(repair) > 1
    assert FAMILY.map(repaired(graph, repair), SPECK.chip)
    # No feature more in the first layer that the repair changes.
    more = (Change(repair[0].layer, repair[0].what, repair[0].to + 1, repair[0].was), *repair[1:])
    with pytest.raises(MappingError):
        FAMILY.map(repaired(graph, more), SPECK.chip, split="never")


def test_the_cores_that_the_user_fixed_stay_fixed():
    # conv1 needs one of the cores 0 to 2.
    graph = chain((4, 3), (60, 3), (4, 1), (4, 1))
    with pytest.raises(MappingError) as caught:
        FAMILY.map(chain((80, 3), (400, 3), (4, 1)), SPECK.chip, {"conv0": 0}, "never")
    for repair in caught.value.repairs:
        changed = repaired(chain((80, 3), (400, 3), (4, 1)), repair)
        assert FAMILY.map(changed, SPECK.chip, {"conv0": 0}, "never").layers["conv0"].core == 0
    with pytest.raises(MappingError, match='use layer2core_map="auto"'):
        FAMILY.map(graph, SPECK.chip, {"conv0": 0, "conv2": 1, "conv3": 2}, "never")


def test_changes_that_make_no_network_are_refused():
    graph = chain((4, 3), (4, 3), shape=(2, 6, 6))
    with pytest.raises(GraphError):
        repaired(graph, (Change("conv0", "stride", 8, 1),))
