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
from tests.shared_data import SHARED, needs_shared
from tests.sinabs_oracle import discretize_module, dynapcnn_network, needs_sinabs

torch = pytest.importorskip("torch")
pytestmark = needs_sinabs

from neurodeploy.graph.torch_reader import trace  # noqa: E402
from neurodeploy.graph.torch_writer import to_torch  # noqa: E402


@settings(max_examples=200, deadline=None)
@given(
    values=arrays(np.float32, st.integers(1, 6), elements=st.floats(-1e3, 1e3, width=32)),
    bits=st.sampled_from([8, 16]),
)
def test_scale_is_that_of_sinabs_to_the_last_bit(values, bits):
    expected = discretize_module().determine_discretization_scale(torch.tensor(values), bits)
    assert scale_to_bits(values, bits) == expected.numpy()


def random_pair(
    rng: np.random.Generator, positive_bias: bool = False
) -> tuple[Graph, "torch.nn.Sequential", tuple[int, int, int]]:
    """The same random network as a graph and as a sinabs model."""
    import sinabs.layers as sl
    from sinabs.activation import MembraneReset, MembraneSubtract

    channels, size = int(rng.integers(1, 4)), int(rng.integers(24, 29))
    shape = (channels, size, size)
    nodes: dict[str, Node] = {"input": Input(shape)}
    modules: list[torch.nn.Module] = []
    soft = bool(rng.integers(2))
    spread = 10.0 ** rng.uniform(-2, 2)

    def add(node: Node, module: "torch.nn.Module") -> None:
        nodes[str(len(modules))] = node
        modules.append(module)

    def weights(module: "torch.nn.Module") -> tuple[np.ndarray, np.ndarray | None]:
        weight = (rng.normal(0.2, 1, size=tuple(module.weight.shape)) * spread).astype(np.float32)
        module.weight.data = torch.tensor(weight)
        if module.bias is None:
            return weight, None
        bias = (rng.normal(size=tuple(module.bias.shape)) * spread * 10 ** rng.uniform(-2, 0.5)).astype(np.float32)
        if positive_bias:
            bias = np.abs(bias)
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
        module = torch.nn.Conv2d(channels, int(rng.integers(4, 8)), kernel, padding=padding, bias=bool(rng.integers(2)))
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


@pytest.mark.parametrize("seed", range(30, 50))
def test_time_stepped_integer_networks_run_as_in_sinabs(seed):
    graph, module, shape = random_pair(np.random.default_rng(seed), positive_bias=True)  # else some fall silent
    theirs = dynapcnn_network(module, input_shape=shape, batch_size=1, discretize=True)
    raster = torch.poisson(torch.full((25, *shape), 1.0), generator=torch.Generator().manual_seed(seed))
    spikes = {}
    for index, layer in theirs.dynapcnn_layers.items():
        layer.spk.register_forward_hook(lambda _module, _inputs, out, index=index: spikes.update({index: out}))
    with torch.no_grad():
        expected = theirs(raster)
    result = quantize(graph)
    network = to_torch(result.graph)
    assert torch.equal(network(raster[None])[0].to(expected.dtype), expected)
    recorded = network.record(raster[None])
    for index, row in enumerate(result.layers.values()):
        assert torch.equal(recorded[row.neuron][0].float(), spikes[index])
    assert spikes[0].sum() > 0


def spiking(layers: list["torch.nn.Module"]) -> "torch.nn.Sequential":
    """As in sinabs' examples: spiking layers with threshold 1 and lower bound -1 after every weight layer."""
    import sinabs.layers as sl

    modules: list[torch.nn.Module] = []
    for layer in layers:
        modules.append(layer)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            modules.append(sl.IAFSqueeze(batch_size=1, min_v_mem=-1.0))
    return torch.nn.Sequential(*modules)


def published_network(name: str) -> tuple["torch.nn.Sequential", tuple[int, int, int]]:
    from torch.nn import AvgPool2d, Conv2d, Dropout2d, Flatten, Linear

    def conv(*arguments: int, **options: int) -> "torch.nn.Conv2d":
        return Conv2d(*arguments, **options, bias=False)

    if name == "mnist_params.pt":
        shape = (1, 28, 28)
        layers = [conv(1, 20, 5), AvgPool2d(2), conv(20, 32, 5), AvgPool2d(2), conv(32, 128, 3), AvgPool2d(2)]
        layers += [Flatten(), Linear(128, 500, bias=False), Linear(500, 10, bias=False)]
    else:
        shape = (2, 128, 128)
        layers = [conv(2, 16, 2, stride=2)]
        for before, after in ((16, 16), (16, 32), (32, 32), (32, 64), (64, 64)):
            layers += [conv(before, after, 3, padding=1), AvgPool2d(2)]
        layers += [Dropout2d(0.5), conv(64, 256, 2), Dropout2d(0.5), Flatten()]
        layers += [Linear(256, 128, bias=False), Linear(128, 11, bias=False)]
    module = spiking(layers)
    stored = torch.load(SHARED / "speck-reference" / name, map_location="cpu", weights_only=True)
    weights = [layer for layer in layers if isinstance(layer, Conv2d | Linear)]
    for layer, weight in zip(weights, stored.values(), strict=True):
        assert layer.weight.shape == weight.shape
        layer.weight.data = weight
    return module.eval(), shape


@needs_shared
@pytest.mark.parametrize("name", ["mnist_params.pt", "dvs_gesture_params.pt"])
def test_published_networks(name):
    module, shape = published_network(name)
    raster = torch.poisson(torch.full((3, *shape), 0.3), generator=torch.Generator().manual_seed(0))
    result = quantize(trace(module, raster))
    network = dynapcnn_network(module, input_shape=shape, batch_size=1, discretize=True)
    for index, row in enumerate(result.layers.values()):
        theirs = network.dynapcnn_layers[index]
        assert np.array_equal(result.graph.nodes[row.layer].weight, theirs.conv.weight.detach().numpy())
        assert (row.threshold_integer, row.v_min_integer) == (
            int(theirs.spk.spike_threshold),
            int(theirs.spk.min_v_mem),
        )
    with torch.no_grad():
        expected = network(raster)
    assert torch.equal(to_torch(result.graph)(raster[None])[0].float(), expected)
