from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, BatchNorm2d, Conv2d, Flatten, Input, Linear, Neuron, Node, Output
from neurodeploy.quantize import quantize
from tests.sinabs_oracle import needs_sinabs

torch = pytest.importorskip("torch")
nn = torch.nn
from neurodeploy import nn as ndnn  # noqa: E402
from neurodeploy.graph.torch_reader import trace  # noqa: E402
from neurodeploy.graph.torch_writer import to_torch  # noqa: E402


def chain(*nodes: Node, shape=(2, 8, 8)) -> Graph:
    named = {"input": Input(shape)} | {f"n{i}": node for i, node in enumerate(nodes)} | {"output": Output()}
    return Graph(named, tuple(pairwise(named)))


def raster(*shape, density=0.3, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < density).float()


def conv_net(**options):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        ndnn.IAF(num_timesteps=6, **options),
        nn.AvgPool2d(2),
        nn.Dropout2d(0.5),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        ndnn.LIF(10.0, num_timesteps=6, **options),
        ndnn.SumPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
        ndnn.IAF(num_timesteps=6, threshold=0.2, **options),
    ).eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"v_min": -0.5},
        {"reset": "zero", "spikes": "single"},
        {"spikes": 2, "v_min": -0.5, "v_min_position": "before_threshold"},
    ],
)
def test_a_traced_network_written_back_gives_the_same_spikes(options):
    net = conv_net(**options)
    events = raster(4, 6, 2, 8, 8)
    expected = net(events.flatten(0, 1)).unflatten(0, (4, 6))
    written = to_torch(trace(net, events.flatten(0, 1)))
    output, spikes = written(events), written.record(events)
    assert torch.equal(output, expected)
    assert output.sum() > 0
    assert list(spikes) == ["1", "6", "10"]
    assert spikes["1"].shape == (4, 6, 8, 8, 8)
    assert torch.equal(spikes["10"], output)


def test_own_layers_over_time_trace():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = ndnn.OverTime(nn.Conv2d(2, 4, 3))
            self.spike1 = ndnn.IAF(threshold=torch.linspace(1, 2, 4).reshape(4, 1, 1), v_min=-1.0)
            self.conv2 = ndnn.OverTime(nn.Conv2d(2, 4, 3))
            self.spike2 = ndnn.LIF(torch.tensor(5.0), norm_input=False, v_min_position="before_threshold", reset="zero")
            self.merge = ndnn.Merge()
            self.pool = ndnn.SumPool2d(2, 1)

        def forward(self, x):
            return self.pool(self.merge(self.spike1(self.conv1(x)), self.spike2(self.conv2(x))))

    torch.manual_seed(1)
    net = Net()
    graph = trace(net, raster(2, 3, 2, 8, 8))
    decay = torch.exp(-1 / torch.tensor(5.0)).numpy()
    assert list(graph.nodes) == [
        "input", "conv1.module", "spike1", "conv2.module", "spike2", "merge", "pool", "output",
    ]  # fmt: skip
    assert graph.nodes["spike1"].threshold.shape == (4, 6, 6)
    assert graph.nodes["spike1"].v_min == -1
    assert graph.nodes["spike2"] == Neuron(np.float32(1), decay=decay, v_min_position="before_threshold", reset="zero")
    assert graph.nodes["merge"] == Add()
    events = raster(2, 7, 2, 8, 8, density=0.8)
    assert torch.equal(to_torch(graph)(events), net(events))
    assert to_torch(graph)(events).sum() > 0


def test_time_major_layers_trace():
    net = nn.Sequential(nn.Linear(6, 4), ndnn.IAF(layout="TB"))
    assert trace(net, torch.zeros(3, 2, 6)).shapes["output"] == (4,)


@needs_sinabs
def test_accelerated_sinabs_layers_trace():
    import sinabs.layers as sl

    net = nn.Sequential(nn.Linear(6, 4), sl.IAFSqueeze(batch_size=2, min_v_mem=-1.0))
    expected = trace(net, torch.zeros(6, 6))
    assert trace(ndnn.accelerate(net), torch.zeros(6, 6)) == expected


def test_every_node_with_an_initial_potential():
    rng = np.random.default_rng(0)
    initial = rng.uniform(-1, 2, (3, 8, 8)).astype(np.float32)
    norm = BatchNorm2d(*(rng.uniform(0.5, 1, 3).astype(np.float32) for _ in range(4)))
    weight = rng.normal(size=(3, 2, 1, 1)).astype(np.float32)
    graph = chain(Conv2d(weight), norm, Neuron(np.float32(1), initial_v=initial), Flatten())
    events = raster(1, 1, 2, 8, 8)
    current = nn.functional.conv2d(events[0], torch.tensor(weight))
    v = nn.functional.batch_norm(current, *map(torch.tensor, (norm.mean, norm.variance, norm.scale, norm.shift)))[0]
    expected = torch.clamp((v + torch.tensor(initial)).trunc(), min=0)
    output = to_torch(graph)(events)
    assert output.shape == (1, 1, 192)
    assert torch.equal(output.reshape(3, 8, 8), expected)


def integer_graph(threshold=1.0, v_min=None, **fields):
    rng = np.random.default_rng(3)
    neuron = Neuron(np.float32(threshold), None if v_min is None else np.float32(v_min), **fields)
    graph = chain(
        Conv2d(rng.normal(size=(4, 2, 3, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32)),
        neuron,
        Flatten(),
        Linear(rng.normal(size=(3, 144)).astype(np.float32)),
        neuron,
    )
    return quantize(graph).graph


def reference(graph: Graph, events: np.ndarray) -> np.ndarray:
    """The integer network in plain NumPy int64, one step after the other; (B, T, C, H, W)."""
    state: dict[str, np.ndarray] = {}
    steps = []
    for step in np.moveaxis(events.astype(np.int64), 1, 0):
        values: dict[str, np.ndarray] = {}
        for name, node in graph.nodes.items():
            x = step if isinstance(node, Input) else values[graph.predecessors(name)[0]]
            if isinstance(node, Conv2d):
                _, _, ky, kx = node.weight.shape
                windows = np.lib.stride_tricks.sliding_window_view(x, (ky, kx), (2, 3))
                x = np.einsum("bcyxij,ocij->boyx", windows, node.weight.astype(np.int64))
                x = x + (0 if node.bias is None else node.bias.astype(np.int64)[:, None, None])
            elif isinstance(node, Neuron):
                v = state.get(name, 0) + x
                spikes = np.maximum(v // node.threshold.astype(np.int64), 0)
                if node.spikes != "multi":
                    spikes = np.minimum(spikes, 1 if node.spikes == "single" else node.spikes)
                v = v - spikes * node.threshold.astype(np.int64) if node.reset == "subtract" else v * (spikes == 0)
                state[name] = np.maximum(v, node.v_min.astype(np.int64))
                x = spikes
            values[name] = x
        steps.append(values["output"])
    return np.stack(steps, 1)


@pytest.mark.parametrize("fields", [{}, {"reset": "zero"}, {"spikes": 2}, {"spikes": "single", "v_min": -1}])
def test_integer_networks_run_exactly(fields):
    graph = integer_graph(**fields)
    events = torch.poisson(torch.full((3, 9, 2, 8, 8), 2.0), generator=torch.Generator().manual_seed(0))
    output = to_torch(graph)(events)
    assert np.array_equal(output.numpy(), reference(graph, events.numpy()))
    assert output.dtype == torch.float32
    assert output.sum() > 0


def test_sums_too_large_for_float32_are_computed_in_float64():
    graph = integer_graph(threshold=500, spikes=3)
    events = torch.poisson(torch.full((1, 4, 2, 8, 8), 40000.0), generator=torch.Generator().manual_seed(0))
    output = to_torch(graph)(events)
    assert output.dtype == torch.float64
    assert np.array_equal(output.numpy(), reference(graph, events.numpy()))
    with pytest.raises(GraphError, match="too large to be exact in float64"):
        to_torch(graph)(events * 1e12)


def test_the_type_can_be_chosen():
    assert to_torch(integer_graph(), torch.float64)(raster(1, 2, 2, 8, 8)).dtype == torch.float64


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 2, 8, 8), (1, 1, 2, 8, 9), (1, 1, 3, 8, 8)])
def test_rasters_of_another_shape_are_refused(shape):
    with pytest.raises(GraphError, match="2, 8, 8"):
        to_torch(integer_graph())(torch.zeros(shape))


def test_fractions_are_refused_by_integer_networks():
    with pytest.raises(GraphError, match="fractions"):
        to_torch(integer_graph())(torch.full((1, 1, 2, 8, 8), 0.5))


def test_several_outputs_and_v_min_per_neuron_are_refused():
    graph = integer_graph()
    nodes = {**graph.nodes, "second": Output()}
    with pytest.raises(GraphError, match="2 outputs"):
        to_torch(Graph(nodes, (*graph.edges, ("n1", "second"))))
    neuron = replace(graph.nodes["n1"], v_min=-np.arange(1, 145, dtype=np.int16).reshape(4, 6, 6))
    with pytest.raises(GraphError, match="n1: v_min differs"):
        to_torch(graph.with_nodes({"n1": neuron}))
