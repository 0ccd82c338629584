"""Every rule has a network that breaks it, an error that says where and what to do, and a network at its limit."""

import dataclasses
import itertools

import numpy as np
import pytest

from neurodeploy.errors import ConstraintError, MappingError, NeurodeployError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, Neuron, Output, SumPool2d
from neurodeploy.target import load_target
from neurodeploy.targets.dynapcnn.memory import kernel_words, neuron_words
from tests.targets.networks import chain, weights

SPECK = load_target("speck2f")


def int16(value):
    return np.array(value, np.int16)


def spiking(**changes):
    return Neuron(**{"threshold": int16(150), "v_min": int16(-150), **changes})


def sequence(*nodes, names=None):
    """A chain; the names are the kinds in small letters, numbered where they repeat."""
    named, order = {}, []
    for node in nodes:
        name = node.kind.lower()
        name = name if name not in named else f"{name}_{sum(key.startswith(name) for key in named)}"
        named[name] = node
        order.append(name)
    return Graph(named, tuple(itertools.pairwise(order)))


def conv_layer(shape=(1, 8, 8), weight=(2, 1, 3, 3), bias=None, neuron=None, pools=(), values=None, **conv):
    """One layer, then ``pools`` and a second layer when there are any."""
    values = weights(weight) if values is None else values
    nodes = [Input(shape), Conv2d(values, bias, **conv), neuron or spiking()]
    if pools:
        nodes += [*pools, Conv2d(weights((1, weight[0], 1, 1))), spiking()]
    return sequence(*nodes, Output())


def inputs(shapes, pools, joined=Add, branches=1, kernel=1):
    """Inputs of these shapes, each pooled (None: not), joined, and read by ``branches`` layers."""
    nodes, edges, ends = {}, [], []
    for i, (shape, pooling) in enumerate(zip(shapes, pools, strict=True)):
        nodes[f"in{i}"] = Input(shape)
        ends.append(f"in{i}")
        if pooling is not None:
            nodes[f"pool{i}"] = pooling
            edges.append((f"in{i}", f"pool{i}"))
            ends[-1] = f"pool{i}"
    if len(ends) > 1:
        nodes["join"] = joined()
        edges += [(end, "join") for end in ends]
        ends = ["join"]
    features = sum(shape[0] for shape in shapes) if joined is Concat else shapes[0][0]
    for b in range(branches):
        nodes |= {f"conv{b}": Conv2d(weights((1, features, kernel, kernel))), f"spike{b}": spiking()}
        nodes[f"out{b}"] = Output()
        edges += [(ends[0], f"conv{b}"), (f"conv{b}", f"spike{b}"), (f"spike{b}", f"out{b}")]
    return Graph(nodes, tuple(edges))


def two_poolings():
    nodes = {"in": Input((1, 8, 8)), "pool": SumPool2d((2, 2), (2, 2)), "out": Output(), "out1": Output()}
    nodes |= {"conv": Conv2d(weights((1, 1, 1, 1))), "spike": spiking()}
    nodes |= {"conv1": Conv2d(weights((1, 1, 1, 1))), "spike1": spiking()}
    edges = [("in", "pool"), ("pool", "conv"), ("conv", "spike"), ("spike", "out")]
    return Graph(nodes, (*edges, ("in", "conv1"), ("conv1", "spike1"), ("spike1", "out1")))


def fan(branches):
    """One layer that feeds ``branches`` others."""
    nodes = {"in": Input((1, 4, 4)), "conv": Conv2d(weights((1, 1, 1, 1))), "spike": spiking()}
    edges = [("in", "conv"), ("conv", "spike")]
    for i in range(branches):
        nodes |= {f"conv{i}": Conv2d(weights((1, 1, 1, 1))), f"spike{i}": spiking(), f"out{i}": Output()}
        edges += [("spike", f"conv{i}"), (f"conv{i}", f"spike{i}"), (f"spike{i}", f"out{i}")]
    return Graph(nodes, tuple(edges))


def pool(kernel, stride=None, padding=(0, 0)):
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return SumPool2d(kernel, stride or kernel, padding)


#: The largest weight of ``conv_layer``.
LARGEST = int(weights((2, 1, 3, 3)).max())
ONE = np.ones((1, 1, 1, 1), np.int8)

#: code -> graph that breaks the rule, layer that the error names, part of the remedy.
BROKEN = {
    "unsupported-node": (
        sequence(Input((1, 8, 8)), Conv2d(ONE), spiking(), Flatten(), Output()),
        "flatten",
        "replace it by layers that a core has",
    ),
    "map-input": (sequence(Input((4,)), Output()), "input", "give the input the shape (4, 1, 1)"),
    "weight-without-neuron": (
        sequence(Input((1, 8, 8)), Conv2d(ONE), Output()),
        "conv2d",
        "put a spiking layer directly after it",
    ),
    "neuron-without-weight": (
        sequence(Input((1, 8, 8)), Conv2d(ONE), spiking(), spiking(), Output()),
        "neuron_1",
        "put a convolution directly before it",
    ),
    "several-inputs": (inputs([(1, 4, 4), (2, 4, 4)], [None, None], Concat), "in1", "give its events p = 1 and up"),
    "sensor-inputs": (inputs([(1, 8, 8)] * 2, [pool(2), pool(2)]), "in1", "pool its events before they enter"),
    "sensor-events": (inputs([(3, 8, 8)], [pool(2)]), "in0", "give the first layer a stride"),
    "sensor-destinations": (inputs([(1, 8, 8)], [pool(2)], branches=3), "in0", "branch behind the first layer"),
    "sensor-pooling": (two_poolings(), "in", "the same way for every layer"),
    "pool-after-last-layer": (
        sequence(Input((1, 8, 8)), Conv2d(ONE), spiking(), pool(2), Output()),
        "sumpool2d",
        "sum the output spikes on the host",
    ),
    "kernel-square": (conv_layer(weight=(2, 1, 3, 2)), "conv2d", "pad the kernel with zeros to 3 x 3"),
    "kernel-size": (conv_layer((1, 17, 17), (2, 1, 17, 17)), "conv2d", "a kernel of at most 16"),
    "stride": (conv_layer(stride=(3, 1)), "conv2d", "use stride 2"),
    "padding": (conv_layer(padding=(0, 8)), "conv2d", "a padding of at most 7"),
    "dilation": (conv_layer(dilation=(2, 2)), "conv2d", "write the kernel out with zeros as 5 x 5"),
    "groups": (conv_layer((2, 8, 8), (2, 1, 3, 3), groups=2), "conv2d", "write the weights out as one group"),
    "input-size": (conv_layer((1, 8, 129), (1, 1, 2, 2), stride=(1, 4)), "conv2d", "crop or pool the input"),
    "neuron-size": (conv_layer((1, 65, 65), (1, 1, 1, 1)), "conv2d", "use a larger stride in this layer"),
    "input-features": (conv_layer((1025, 1, 1), (1, 1025, 1, 1)), "conv2d", "at most 1024 features in the layer"),
    "output-features": (conv_layer((1, 1, 1), (1025, 1, 1, 1)), "conv2d", "at most 1024 features in this layer"),
    "fan-out": (fan(3), "conv", "keep 2 branches"),
    "pool-shape": (conv_layer((1, 10, 10), pools=[pool(2, (1, 1))]), "conv2d", "a pooling of 2 with stride 2"),
    "pool-size": (conv_layer((1, 11, 11), pools=[pool(3)]), "conv2d", "pool by 2, or use the stride of conv2d_1"),
    "threshold-shared": (
        conv_layer(neuron=spiking(threshold=np.arange(150, 222, dtype=np.int16).reshape(2, 6, 6))),
        "conv2d",
        "train with one value per layer",
    ),
    "threshold-range": (conv_layer(neuron=spiking(threshold=int16(0))), "conv2d", "scale the weights down"),
    "v-min-range": (conv_layer(neuron=spiking(v_min=int16(0))), "conv2d", "use v_min=None"),
    "decay": (conv_layer(neuron=spiking(decay=np.float32(0.9))), "conv2d", "train with IAF neurons"),
    "input-gain": (conv_layer(neuron=spiking(input_gain=np.float32(0.5))), "conv2d", "by the gain"),
    "compare": (conv_layer(neuron=spiking(compare=">")), "conv2d", 'train with ">="'),
    "reset": (conv_layer(neuron=spiking(reset="none")), "conv2d", 'use reset="subtract" or "zero"'),
    "initial-v": (conv_layer(neuron=spiking(initial_v=np.array(40000))), "conv2d", "start from potentials between"),
    "weight-range": (
        conv_layer(values=np.full((1, 1, 1, 1), 128, np.int16), weight=(1, 1, 1, 1)),
        "conv2d",
        "quantize with a smaller scale",
    ),
    "bias-range": (conv_layer(bias=np.array([-32769, 0])), "conv2d", "quantize with a smaller scale"),
    "one-spike-per-event": (conv_layer(neuron=spiking(threshold=int16(LARGEST - 1))), "conv2d", "validate"),
    "bias-on-clock": (conv_layer(bias=int16([-1, 0])), "conv2d", "train without bias"),
    "positive-bias": (conv_layer(bias=int16([1, 0])), "conv2d", "train with biases <= 0"),
    "pool-remainder": (conv_layer((1, 9, 9), pools=[pool(2)]), "conv2d", "a multiple of the pooling"),
    "v-min-per-event": (conv_layer(), "conv2d", "use v_min=None"),
    "placement": (chain((2, 34, 34), [(16, 3, 1, 1, 1), (512, 3, 1, 1, 1)]), "", "give conv1 at most 16 output"),
    "split": (chain((2, 34, 34), [(32, 3, 1, 0, 1), (64, 3, 1, 1, 1)]), "conv1", "fewer features"),
}

#: Networks at the limit of a rule; nothing but notes is found.
ALLOWED = {
    "kernel 16": conv_layer((1, 16, 16), (2, 1, 16, 16)),
    "stride 8 and 1": conv_layer((1, 16, 16), (2, 1, 8, 8), stride=(8, 1)),
    "padding 7": conv_layer((1, 8, 8), (2, 1, 8, 8), padding=(7, 0)),
    "input 128 x 128, neurons 64 x 64": conv_layer((1, 128, 128), (1, 1, 2, 2), stride=(2, 2)),
    "1024 features in": conv_layer((1024, 1, 1), (1, 1024, 1, 1)),
    "1024 features out": conv_layer((1, 1, 1), (1024, 1, 1, 1)),
    "two destinations": fan(2),
    "three branches from the host": inputs([(1, 4, 4)], [None], branches=3),
    "two branches from the sensor": inputs([(2, 8, 8)], [pool((2, 4))], branches=2),
    "a pooled input beside another one": inputs([(1, 4, 4), (1, 16, 16)], [None, pool(4)]),
    "a pooled input, the first of two that are joined": inputs([(2, 8, 8), (3, 4, 4)], [pool(2), None], Concat),
    "a pooled input with a remainder": inputs([(1, 9, 11)], [pool(2)]),
    "pooling 4": conv_layer((1, 10, 10), pools=[pool(4)]),
    "pooling 2 and 2": conv_layer((1, 10, 10), pools=[pool(2), pool(2)]),
    "threshold 32767": conv_layer(neuron=spiking(threshold=int16(32767))),
    "threshold 1": conv_layer(neuron=spiking(threshold=int16(1))),
    "v_min -1": conv_layer(neuron=spiking(v_min=int16(-1))),
    "v_min -32768": conv_layer(neuron=spiking(v_min=int16(-32768))),
    "no v_min": conv_layer(neuron=spiking(v_min=None)),
    "reset to zero": conv_layer(neuron=spiking(reset="zero")),
    "equal threshold per neuron": conv_layer(neuron=spiking(threshold=np.full((2, 6, 6), 150, np.int16))),
    "weights -128 to 127": conv_layer(values=np.array([[[[-128, 127], [0, 1]]]], np.int8), weight=(1, 1, 2, 2)),
}


def errors(graph):
    return [finding for finding in SPECK.family.check(graph, SPECK.chip) if finding.rule.severity == "error"]


def test_every_rule_is_tested():
    codes = {rule.code for rule in SPECK.family.rules(SPECK.chip)}
    # What needs settings to be broken is tested in test_settings.py, loops in test_recurrent_networks.py.
    elsewhere = {"link-shape", "sensor-region", "sensor-live", "decimator", "readout", "recurrence"}
    assert codes - elsewhere == set(BROKEN)


@pytest.mark.parametrize("code", BROKEN)
def test_check_finds_every_broken_rule(code):
    graph, place, remedy = BROKEN[code]
    # Passes remove what the chip need not have (Flatten) and fold what it can take into weights (the gain).
    if code not in ("unsupported-node", "map-input", "input-gain"):
        found = [finding for finding in SPECK.family.check(graph, SPECK.chip) if finding.rule.code == code]
        assert [finding.layer for finding in found][:1] == [place]
        assert remedy in found[0].remedy
        assert found[0].value
        assert found[0].value in found[0].message


@pytest.mark.parametrize("code", BROKEN)
def test_map_refuses_or_notes_every_broken_rule(code):
    graph, place, remedy = BROKEN[code]
    rule = next(rule for rule in SPECK.family.rules(SPECK.chip) if rule.code == code)
    if rule.severity == "note":
        notes = SPECK.family.map(graph, SPECK.chip).notes
        assert [note.layer for note in notes if note.rule.code == code] == [place]
        return
    with pytest.raises(NeurodeployError) as caught:
        SPECK.family.map(graph, SPECK.chip)
    assert type(caught.value) is (MappingError if code == "placement" else ConstraintError)
    text = str(caught.value)
    assert remedy in text
    assert place in text
    if code != "placement":
        assert rule.text in text


@pytest.mark.parametrize("name", ALLOWED)
def test_the_limit_itself_is_allowed(name):
    assert errors(ALLOWED[name]) == []
    SPECK.family.lower(SPECK.family.map(ALLOWED[name], SPECK.chip))


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (Conv2d(np.full((1, 1, 1, 1), np.nan, np.float32)), "weight-range"),
        (Conv2d(np.ones((1, 1, 1, 1), np.float32), np.array([np.inf], np.float32)), "bias-range"),
        (Neuron(np.float32(0)), "threshold-range"),
        (Neuron(np.float32(-1)), "threshold-range"),
        (Neuron(np.float32(np.nan)), "threshold-range"),
        (Neuron(np.float32(1), v_min=np.float32(0)), "v-min-range"),
        (Neuron(np.float32(1), v_min=np.float32(0.5)), "v-min-range"),
        (Neuron(np.float32(1), initial_v=np.float32(np.inf)), "initial-v"),
        (Neuron(np.float32(1), v_min=np.float32(-1), initial_v=np.float32(-2)), "initial-v"),
    ],
)
def test_float_networks_are_checked_before_quantization(node, code):
    conv = node if isinstance(node, Conv2d) else Conv2d(np.ones((1, 1, 1, 1), np.float32))
    neuron = node if isinstance(node, Neuron) else Neuron(np.float32(1))
    found = errors(sequence(Input((1, 4, 4)), conv, neuron, Output()))
    assert [finding.rule.code for finding in found] == [code]


@pytest.mark.parametrize(
    ("graph", "value"),
    [
        (inputs([(1, 12, 12)], [pool(3)]), "(3, 3)"),
        (inputs([(1, 12, 12)], [pool(2, (1, 1))]), "windows that overlap"),
        (inputs([(1, 129, 12)], [pool(2)]), "input shape (1, 129, 12)"),
        (inputs([(2, 4, 4), (1, 8, 8)], [None, pool(2)], Concat), "in1 is not the first"),
    ],
)
def test_what_the_sensor_cannot_do_is_refused(graph, value):
    (finding,) = errors(graph)
    assert value in finding.value
    assert finding.rule.code.startswith("sensor-")


def test_check_runs_the_passes():
    float_net = sequence(
        Input((1, 8, 8)),
        Conv2d(np.ones((2, 1, 1, 1), np.float32)),
        Neuron(np.float32(1)),
        AvgPool2d((2, 2), (2, 2)),
        Flatten(),
        Linear(np.ones((3, 32), np.float32)),
        Neuron(np.float32(1)),
        Output(),
    )
    assert errors(float_net) == []


def test_a_pass_that_cannot_run_is_a_finding_and_the_rest_is_still_checked():
    graph = sequence(
        Input((1, 8, 8)),
        AvgPool2d((2, 2), (2, 2)),
        Neuron(np.float32(1)),
        Conv2d(np.ones((2, 1, 3, 3), np.float32), dilation=(1, 1), stride=(1, 3)),
        Neuron(np.float32(1)),
        Output(),
    )
    codes = [finding.rule.code for finding in errors(graph)]
    assert "stride" in codes
    assert len(codes) > 1


def test_all_breaches_are_reported_at_once():
    graph = conv_layer((2, 40, 40), (2, 1, 17, 17), stride=(3, 5), dilation=(2, 2), groups=2)
    expected = ["kernel-size", "stride", "stride", "dilation", "groups"]
    assert [finding.rule.code for finding in errors(graph)] == expected
    with pytest.raises(ConstraintError, match="5 rules of speck2f are broken") as caught:
        SPECK.family.map(graph, SPECK.chip)
    for part in ("17", "y stride 3", "x stride 5", "dilation (2, 2)", "2 groups"):
        assert part in str(caught.value)


def test_findings_are_plain_data():
    (finding,) = errors(BROKEN["stride"][0])
    assert finding.to_dict() == {
        "layer": "conv2d",
        "code": "stride",
        "severity": "error",
        "rule": "A stride is one of 1, 2, 4, 8, in y and x independently.",
        "value": "y stride 3",
        "limit": "1, 2, 4, 8",
        "remedy": "use stride 2.",
    }
    assert finding.message == (
        "conv2d: A stride is one of 1, 2, 4, 8, in y and x independently. Found: y stride 3 (limit: 1, 2, 4, 8)."
    )


def test_a_limit_comes_from_the_chip():
    limits = SPECK.chip.limits
    smaller = limits.model_copy(update={"kernel_size": limits.kernel_size.model_copy(update={"value": 2})})
    chip = SPECK.chip.model_copy(update={"limits": smaller})
    found = [finding for finding in SPECK.family.check(conv_layer(), chip) if finding.rule.severity == "error"]
    assert [finding.limit for finding in found] == ["2"]
    assert "1 to 2" in found[0].message


@pytest.mark.parametrize(
    ("c", "f", "kernel", "shape", "kernel_need", "neuron_need"),
    [
        (1, 20, 5, (20, 24, 24), 1024, 20480),
        (20, 32, 5, (32, 8, 8), 20480, 2048),
        (32, 128, 3, (128, 2, 2), 65536, 512),
        (128, 500, 1, (500, 1, 1), 65536, 500),
        (500, 10, 1, (10, 1, 1), 8000, 10),
        (2, 8, 3, (8, 17, 17), 256, 8192),
        (16, 32, 3, (32, 64, 64), 8 * 1024, 128 * 1024),
        (32, 100, 12, (100, 1, 1), 32 * 2**15, 100),
        (1, 129, 9, (129, 1, 1), 2**15, 129),
    ],
)
def test_memory_table(c, f, kernel, shape, kernel_need, neuron_need):
    assert kernel_words(c, f, (kernel, kernel)) == kernel_need
    assert neuron_words(shape) == neuron_need


def test_bias_takes_a_word_per_feature():
    graph = conv_layer((2, 34, 34), (8, 2, 3, 3), int16([-1] * 8), stride=(2, 2), padding=(1, 1))
    mapped = SPECK.family.map(graph, SPECK.chip)
    assert mapped.layers["conv2d"].needs == {"kernel": 256, "neuron": 8192, "bias": 8}


def test_notes_leave_the_network_as_it_is():
    quiet = conv_layer(neuron=spiking(threshold=int16(LARGEST), v_min=int16(-32768)))
    assert SPECK.family.map(quiet, SPECK.chip).notes == ()
    changed = quiet.with_nodes({"neuron": dataclasses.replace(quiet.nodes["neuron"], threshold=int16(LARGEST - 1))})
    assert [note.rule.code for note in SPECK.family.map(changed, SPECK.chip).notes] == ["one-spike-per-event"]
