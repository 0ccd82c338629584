"""sinabs as oracle: the same memory and the same core for every layer, and failure on the same networks."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import MappingError
from neurodeploy.mapping.matching import match
from neurodeploy.target import load_target
from tests.sinabs_oracle import dynapcnn_network, needs_sinabs, placeholder_for_samna
from tests.targets.networks import GESTURE, GESTURE_INPUT, MNIST, MNIST_INPUT, chain

pytestmark = needs_sinabs
SPECK = load_target("speck2f")


def sinabs_module(name):
    with placeholder_for_samna():
        return importlib.import_module(f"sinabs.backend.dynapcnn.{name}")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sets(st.integers(0, 8)).map(sorted), min_size=1, max_size=9))
def test_the_matching_is_that_of_sinabs(choices):
    mapping = sinabs_module("mapping")
    graph = mapping.make_flow_graph(choices, 9)
    try:
        expected = mapping.recover_mapping(mapping.edmonds(graph, 0, len(graph) - 1), len(choices))
    except ValueError:
        assert None in match(choices)
    else:
        assert match(choices) == expected


def test_the_cores_are_those_of_sinabs():
    expected = sinabs_module("chips.dynapcnn").DynapcnnConfigBuilder.get_constraints()
    found = [memory.model_dump() for memory in SPECK.chip.cores.memories]
    assert found == [
        {"kernel": core.kernel_memory, "neuron": core.neuron_memory, "bias": core.bias_memory} for core in expected
    ]


def sinabs_layers(input_shape, spec):
    """The same network as ``chain`` makes, as sinabs' layers."""
    torch = pytest.importorskip("torch")
    import sinabs.layers as sl

    modules, channels = [], input_shape[0]
    for out, kernel, stride, padding, pooling in spec:
        modules.append(torch.nn.Conv2d(channels, out, kernel, stride, padding, bias=False))
        modules.append(sl.IAFSqueeze(batch_size=1, min_v_mem=-1.0))
        if pooling > 1:
            modules.append(sl.SumPool2d(pooling))
        channels = out
    network = dynapcnn_network(torch.nn.Sequential(*modules), input_shape=input_shape, discretize=False)
    return network.dynapcnn_layers


def random_network(rng):
    size = int(rng.integers(12, 100))
    input_shape, spec = (int(rng.integers(1, 3)), size, size), []
    for _ in range(int(rng.integers(1, 10))):
        kernel = int(rng.integers(1, 6))
        stride, padding, pooling = int(rng.choice([1, 1, 2])), int(rng.integers(0, 3)), int(rng.choice([1, 1, 2]))
        size = (size + 2 * padding - kernel) // stride + 1
        if size // pooling < 6 or size > 64:
            size, stride, padding, kernel, pooling = (size - 1) * stride + kernel - 2 * padding, 1, 0, 1, 1
        if size > 64:
            size, stride = (size - 1) // 2 + 1, 2
        spec.append((int(2 ** rng.uniform(1, 7)), kernel, stride, padding, pooling))
        size //= pooling
    return input_shape, [*spec[:-1], (*spec[-1][:4], 1)]


def compare(input_shape, spec):
    """Whether both place the network, after checking that both say the same."""
    layers = sinabs_layers(input_shape, spec)
    get_valid_mapping = sinabs_module("mapping").get_valid_mapping
    constraints = sinabs_module("chips.dynapcnn").DynapcnnConfigBuilder.get_constraints()
    try:
        expected = get_valid_mapping(layers, constraints)
    except ValueError:
        with pytest.raises(MappingError):
            SPECK.family.map(chain(input_shape, spec), SPECK.chip, split="never")
        return False
    mapped = SPECK.family.map(chain(input_shape, spec), SPECK.chip, split="never")
    assert [layer.core for layer in mapped.layers.values()] == [expected[i] for i in sorted(expected)]
    for index, layer in enumerate(mapped.layers.values()):
        assert dict(layer.needs) == layers[index].memory_summary()
    return True


def test_random_networks_go_where_sinabs_puts_them():
    rng = np.random.default_rng(11)
    placed = [compare(*random_network(rng)) for _ in range(12)]
    # The comparison means something only when both answers occur.
    assert 3 <= sum(placed) <= 11


@pytest.mark.parametrize(("input_shape", "spec"), [(MNIST_INPUT, MNIST), (GESTURE_INPUT, GESTURE)])
def test_known_networks_go_where_sinabs_puts_them(input_shape, spec):
    assert compare(input_shape, spec)
