"""From a quantized graph to the chip's configuration."""

import numpy as np
import pytest

from neurodeploy.errors import ConfigError, MappingError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Conv2d, Input, Neuron, Output, SumPool2d
from neurodeploy.program_file import program_hash
from neurodeploy.target import load_target
from neurodeploy.targets.dynapcnn.program import Destination
from tests.targets.networks import GESTURE, GESTURE_INPUT, MNIST, MNIST_INPUT, chain, weights

SPECK = load_target("speck2f")


def compiled(graph, **options):
    return SPECK.family.lower(SPECK.family.map(graph, SPECK.chip, **options))


def test_every_field_of_a_small_network():
    graph = chain((2, 8, 6), [(3, 3, 1, 1, 2), (4, 1, 1, 0, 1)], threshold=200, v_min=-7)
    program = compiled(graph)
    first, last = program.cores
    assert program.target == "speck2f"
    assert program.layers == ("conv0", "conv1")
    assert program.input_shape == (2, 8, 6)
    assert (first.core, last.core, program.entry_core) == (0, 1, 0)
    assert (first.input_shape, first.output_shape) == ((2, 8, 6), (3, 8, 6))
    assert (last.input_shape, last.output_shape) == ((3, 4, 3), (4, 4, 3))
    assert (first.kernel_size, first.stride, first.padding) == (3, (1, 1), (1, 1))
    assert first.weights.dtype == np.int8
    assert np.array_equal(first.weights, graph.nodes["conv0"].weight)
    assert first.biases.dtype == np.int16
    assert not first.biases.any()
    assert (first.threshold_high, first.threshold_low) == (200, -7)
    assert not first.return_to_zero
    assert not first.leak_enable
    assert (first.monitor_enable, last.monitor_enable) == (False, True)
    assert first.destinations == (Destination(1, 2, 0),)
    assert last.destinations == ()
    assert first.neurons_initial_value is None


def test_bias_reset_initial_potential_and_missing_bound():
    nodes = {
        "in": Input((1, 3, 3)),
        "conv": Conv2d(weights((2, 1, 2, 2)), np.array([-3, 0], np.int16), (1, 1), (0, 0)),
        "spike": Neuron(np.array(130, np.int16), None, reset="zero", initial_v=np.array(-5, np.int16)),
        "out": Output(),
    }
    (core,) = compiled(Graph(nodes, (("in", "conv"), ("conv", "spike"), ("spike", "out")))).cores
    assert core.leak_enable
    assert core.biases.tolist() == [-3, 0]
    assert core.return_to_zero
    assert core.threshold_low == -32768
    assert core.neurons_initial_value.tolist() == [[[-5, -5], [-5, -5]]] * 2


def test_biases_that_are_all_zero_are_left_out():
    nodes = {
        "in": Input((1, 3, 3)),
        "conv": Conv2d(weights((2, 1, 2, 2)), np.zeros(2, np.int16)),
        "spike": Neuron(np.array(130, np.int16), np.array(-1, np.int16), initial_v=np.zeros((2, 2, 2), np.int16)),
        "out": Output(),
    }
    mapped = SPECK.family.map(Graph(nodes, (("in", "conv"), ("conv", "spike"), ("spike", "out"))), SPECK.chip)
    (core,) = SPECK.family.lower(mapped).cores
    assert mapped.layers["conv"].needs["bias"] == 0
    assert not core.leak_enable
    assert core.neurons_initial_value is None


def branching():
    """a -> (pool 2 -> b, pool 2 pool 2 -> c); b -> d -> add <- e <- c; add -> f: two branches, a merge."""

    def spike():
        return Neuron(np.array(140, np.int16), np.array(-140, np.int16))

    nodes = {
        "in": Input((1, 16, 16)),
        "a": Conv2d(weights((2, 1, 1, 1))),
        "a_spike": spike(),
        "p1": SumPool2d((2, 2), (2, 2)),
        "p2": SumPool2d((2, 2), (2, 2)),
        "b": Conv2d(weights((4, 2, 1, 1))),
        "b_spike": spike(),
        "p3": SumPool2d((2, 2), (2, 2)),
        "c": Conv2d(weights((4, 2, 3, 3)), None, (1, 1), (1, 1)),
        "c_spike": spike(),
        "add": Add(),
        "p4": SumPool2d((2, 2), (2, 2)),
        "f": Conv2d(weights((3, 4, 2, 2))),
        "f_spike": spike(),
        "out": Output(),
    }
    edges = (
        ("in", "a"),
        ("a", "a_spike"),
        ("a_spike", "p1"),
        ("p1", "b"),
        ("p1", "p2"),
        ("p2", "c"),
        ("b", "b_spike"),
        ("b_spike", "p3"),
        ("c", "c_spike"),
        ("p3", "add"),
        ("c_spike", "add"),
        ("add", "p4"),
        ("p4", "f"),
        ("f", "f_spike"),
        ("f_spike", "out"),
    )
    return Graph(nodes, edges)


def test_branches_and_merges():
    program = compiled(branching())
    core = {core.layer: core for core in program.cores}
    number = {name: entry.core for name, entry in core.items()}
    assert core["a"].destinations == (Destination(number["b"], 2), Destination(number["c"], 4))
    assert core["b"].destinations == (Destination(number["f"], 4),)
    assert core["c"].destinations == (Destination(number["f"], 2),)
    assert core["f"].input_shape == (4, 2, 2)
    order = {name: i for i, name in enumerate(program.layers)}
    assert order["a"] < min(order["b"], order["c"])
    assert order["f"] == 3


def test_monitored_layers_can_be_chosen():
    mapped = SPECK.family.map(branching(), SPECK.chip)
    program = SPECK.family.lower(mapped, monitor_layers=["a", "c"])
    assert {core.layer for core in program.cores if core.monitor_enable} == {"a", "c"}
    assert SPECK.family.lower(mapped, monitor_layers="a").cores[0].monitor_enable
    with pytest.raises(ConfigError, match=r"monitor_layers names 'x'.*the layers are: a, b, c, f"):
        SPECK.family.lower(mapped, monitor_layers=["x"])


@pytest.mark.parametrize("name", ["speck2e", "speck2f"])
def test_mnist_goes_where_sinabs_puts_it(name):
    target = load_target(name)
    mapped = target.family.map(chain(MNIST_INPUT, MNIST), target.chip)
    assert [layer.core for layer in mapped.layers.values()] == [0, 3, 5, 6, 1]


@pytest.mark.parametrize("name", ["speck2e", "speck2f"])
def test_the_gesture_network_fills_all_nine_cores(name):
    target = load_target(name)
    mapped = target.family.map(chain(GESTURE_INPUT, GESTURE), target.chip)
    assert sorted(layer.core for layer in mapped.layers.values()) == list(range(9))
    report = mapped.report()
    assert [core["core"] for core in report["cores"]] == list(range(9))
    assert [layer["name"] for layer in report["layers"]] == [f"conv{i}" for i in range(9)]
    assert len(target.family.lower(mapped).cores) == 9


def test_the_choice_of_cores_is_kept():
    graph = chain((2, 8, 8), [(3, 3, 1, 1, 2), (4, 1, 1, 0, 1)])
    assert [core.core for core in compiled(graph, layer2core_map={"conv0": 7}).cores] == [7, 0]


def test_lowering_is_deterministic():
    # The hash changes only when the file format or the meaning of the network does.
    golden = "9366bbcbddcef7275bbccc89bc7c617a7f320190d743c8dc7fb69c8e580f74a6"
    assert program_hash(compiled(branching())) == golden


def test_a_network_that_is_too_big_is_explained():
    graph = chain((2, 34, 34), [(16, 3, 1, 1, 1), (512, 3, 1, 1, 1), (10, 1, 1, 0, 1)])
    with pytest.raises(MappingError) as caught:
        compiled(graph, split="never")
    text = str(caught.value)
    assert "conv1 fits none of the 9 cores" in text
    assert "core 5, 6: kernel 131072 > 65536 words (100 % too big), neuron 2097152 > 16384 words" in text
    # The remedy is tried, not guessed: it fits with 16 features and not with 17.
    assert "Remedy: give conv1 at most 16 output features (it has 512)" in text
    compiled(chain((2, 34, 34), [(16, 3, 1, 1, 1), (16, 3, 1, 1, 1), (10, 1, 1, 0, 1)]))
    with pytest.raises(MappingError):
        compiled(chain((2, 34, 34), [(16, 3, 1, 1, 1), (17, 3, 1, 1, 1), (10, 1, 1, 0, 1)]), split="never")


def test_layers_that_compete_are_explained():
    wide = [*MNIST[:4], (128, 1, 1, 0, 1), (10, 1, 1, 0, 1)]
    with pytest.raises(MappingError) as caught:
        compiled(chain(MNIST_INPUT, wide), split="never")
    text = str(caught.value)
    assert "3 layers (conv2, conv3, conv4) need a core each, and only 2 (5, 6) can hold any of them" in text
    assert "give conv3 at most 256 output features (it has 500)" in text
    assert "Each of these alone is enough" in text


def test_too_many_layers_are_explained():
    with pytest.raises(MappingError, match=r"10 layers, the chip has 9 cores.\n Remedy: remove conv8; or remove conv7"):
        compiled(chain((1, 4, 4), [(2, 1, 1, 0, 1)] * 10))


def remedy_of(graph):
    with pytest.raises(MappingError) as caught:
        compiled(graph, split="never")
    return caught.value.remedy


def test_a_remedy_is_followed_to_the_last_layer():
    # A stride of 2 in conv0 would fit there, and leave conv2 a map smaller than its kernel.
    spec = [(64, 3, 1, 1, 1), (8, 1, 1, 0, 4), (8, 7, 1, 0, 1)]
    remedy = remedy_of(chain((2, 48, 48), spec))
    assert "stride" not in remedy
    assert remedy == "give conv0 at most 16 output features (it has 64)."
    compiled(chain((2, 48, 48), [(16, 3, 1, 1, 1), *spec[1:]]))
    # With a smaller kernel at the end the stride is a remedy, and a true one.
    spec = [*spec[:2], (8, 5, 1, 0, 1)]
    assert "give conv0 a stride of 2 (it has 1)" in remedy_of(chain((2, 48, 48), spec))
    compiled(chain((2, 48, 48), [(64, 3, 2, 1, 1), *spec[1:]]))


def test_no_remedy_pools_by_more_than_a_core_can():
    spec = [(4, 1, 1, 0, 4), (1024, 1, 1, 0, 1), (4, 1, 1, 0, 1)]
    assert "pool the input" not in remedy_of(chain((1, 64, 64), spec))
    spec[0] = (4, 1, 2, 0, 2)
    assert "pool the input of conv1 by a further factor of 2" in remedy_of(chain((1, 64, 64), spec))
    compiled(chain((1, 64, 64), [(4, 1, 2, 0, 4), *spec[1:]]))


def test_no_remedy_makes_added_branches_unequal():
    def convolution(out, inputs, kernel):
        return Conv2d(weights((out, inputs, kernel, kernel)))

    nodes = {"input": Input((2, 34, 34))}
    edges = [("add", "last"), ("last", "last_spikes"), ("last_spikes", "output"), ("input", "stem")]
    for name, conv in {
        "stem": convolution(4, 2, 3),
        "left": convolution(128, 4, 1),  # 131072 words of neurons: on no core
        "right": convolution(128, 4, 1),
        "last": convolution(2, 128, 1),
    }.items():
        nodes |= {name: conv, f"{name}_spikes": Neuron(np.array(150, np.int16), np.array(-150, np.int16))}
    nodes |= {"add": Add(), "output": Output()}
    for side in ("left", "right"):
        edges += [("stem", "stem_spikes"), ("stem_spikes", side), (side, f"{side}_spikes"), (f"{side}_spikes", "add")]
    remedy = remedy_of(Graph(nodes, tuple(dict.fromkeys(edges))))
    # One branch alone cannot change its shape; the layer before both can.
    assert remedy == "give stem a stride of 2 (it has 1)."
