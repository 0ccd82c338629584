from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import AvgPool2d, Conv2d, Flatten, Input, Linear, Neuron, Node, Output, SumPool2d
from neurodeploy.quantize import quantize
from neurodeploy.quantize.layer import scale_to_bits
from tests.sinabs_oracle import discretize_module, dynapcnn_network, needs_sinabs

torch = pytest.importorskip("torch")
pytestmark = needs_sinabs


@settings(max_examples=200, deadline=None)
@given(
    values=arrays(np.float32, st.integers(1, 6), elements=st.floats(-1e3, 1e3, width=32)),
    bits=st.sampled_from([8, 16]),
)
def test_scale_is_that_of_sinabs_to_the_last_bit(values, bits):
    expected = discretize_module().determine_discretization_scale(torch.tensor(values), bits)
    assert scale_to_bits(values, bits) == expected.numpy()


def random_pair(rng: np.random.Generator) -> tuple[Graph, "torch.nn.Sequential", tuple[int, int, int]]:
    """The same random network as a graph and as a sinabs model."""
    import sinabs.layers as sl
    from sinabs.activation import MembraneReset, MembraneSubtract

    channels, size = int(rng.integers(1, 4)), int(rng.integers(22, 27))
    shape = (channels, size, size)
    nodes: dict[str, Node] = {"input": Input(shape)}
    modules: list[torch.nn.Module] = []
    soft = bool(rng.integers(2))
    spread = 10.0 ** rng.uniform(-2, 2)

    def add(node: Node, module: "torch.nn.Module") -> None:
        nodes[str(len(modules))] = node
        modules.append(module)

    def weights(module: "torch.nn.Module") -> tuple[np.ndarray, np.ndarray | None]:
        weight = (rng.normal(size=tuple(module.weight.shape)) * spread).astype(np.float32)
        module.weight.data = torch.tensor(weight)
        if module.bias is None:
            return weight, None
        bias = (rng.normal(size=tuple(module.bias.shape)) * spread * 10 ** rng.uniform(-2, 1)).astype(np.float32)
        module.bias.data = torch.tensor(bias)
        return weight, bias

    def spiking() -> None:
        threshold, v_min = (np.float32(spread * rng.uniform(0.5, 5)), -np.float32(spread * rng.uniform(0.5, 5)))
        add(
            Neuron(np.array(threshold), np.array(v_min), reset="subtract" if soft else "zero"),
            sl.IAFSqueeze(
                batch_size=1,
                spike_threshold=torch.tensor(threshold),
                min_v_mem=torch.tensor(v_min),
                reset_fn=MembraneSubtract() if soft else MembraneReset(),
            ),
        )

    def pool(kernel: int) -> None:
        if rng.integers(2):
            add(AvgPool2d((kernel, kernel), (kernel, kernel)), torch.nn.AvgPool2d(kernel))
        else:
            add(SumPool2d((kernel, kernel), (kernel, kernel)), sl.SumPool2d(kernel))

    for _ in range(int(rng.integers(1, 3))):
        kernel, padding = int(rng.integers(1, 4)), int(rng.integers(0, 2))
        module = torch.nn.Conv2d(channels, int(rng.integers(2, 6)), kernel, padding=padding, bias=bool(rng.integers(2)))
        channels = module.out_channels
        weight, bias = weights(module)
        add(Conv2d(weight, bias, padding=(padding, padding)), module)
        spiking()
        if rng.integers(2):
            pool(2)
            if rng.integers(2):
                pool(2)
    names = list(nodes)
    size_now = Graph({**nodes, "output": Output()}, tuple(pairwise([*names, "output"]))).shapes["output"]
    add(Flatten(), torch.nn.Flatten())
    for features in (int(np.prod(size_now)), 6):
        module = torch.nn.Linear(features, 6, bias=bool(rng.integers(2)))
        add(Linear(*weights(module)), module)
        spiking()
    nodes["output"] = Output()
    names = list(nodes)
    return Graph(nodes, tuple(pairwise(names))), torch.nn.Sequential(*modules), shape


@pytest.mark.parametrize("seed", range(30))
def test_integers_of_random_networks_are_those_of_sinabs(seed):
    graph, module, shape = random_pair(np.random.default_rng(seed))
    expected = dynapcnn_network(module, input_shape=shape, batch_size=1, discretize=True).dynapcnn_layers
    result = quantize(graph)
    assert len(result.layers) == len(expected)
    for index, row in enumerate(result.layers.values()):
        layer, neuron, theirs = result.graph.nodes[row.layer], result.graph.nodes[row.neuron], expected[index]
        assert np.array_equal(layer.weight, theirs.conv.weight.detach().numpy())
        assert (layer.bias is None) == (theirs.conv.bias is None)
        if layer.bias is not None:
            assert np.array_equal(layer.bias, theirs.conv.bias.detach().numpy())
        assert int(neuron.threshold) == int(theirs.spk.spike_threshold)
        assert int(neuron.v_min) == int(theirs.spk.min_v_mem)
