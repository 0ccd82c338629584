from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import (
    LI,
    Add,
    BatchNorm2d,
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
    Threshold,
)
from neurodeploy.graph.simulate import simulate
from neurodeploy.quantize import quantize
from tests.sinabs_oracle import needs_sinabs

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
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


def test_several_outputs_are_refused():
    graph = integer_graph()
    nodes = {**graph.nodes, "second": Output()}
    with pytest.raises(GraphError, match="2 outputs"):
        to_torch(Graph(nodes, (*graph.edges, ("n1", "second"))))


def plain_run(node: Neuron, x):
    """The step as ``neuron.py`` and ``nodes.py`` state it, in float64, one neuron layer."""
    value = {key: None if (v := getattr(node, key)) is None else v.astype(np.float64) for key in ARRAYS}
    v = np.broadcast_to(value["initial_v"] if value["initial_v"] is not None else 0.0, x[0].shape).copy()
    leak = 0.0 if value["v_leak"] is None else value["v_leak"]
    spikes = []
    for drive in x:
        v = value["decay"] * v + (value["input_gain"] * drive + (1 - value["decay"]) * leak)
        if value["v_min"] is not None and node.v_min_position == "before_threshold":
            v = np.maximum(v, value["v_min"])
        ratio = v / value["threshold"]
        times = np.floor(ratio) if node.compare == ">=" else np.ceil(ratio) - 1
        most = {"single": 1, "multi": np.inf}.get(node.spikes, node.spikes)
        s = np.clip(times, 0, most)
        match node.reset:
            case "subtract":
                v = v - value["threshold"] * s
            case "zero":
                v = np.where(s > 0, 0.0, v)
            case "value":
                v = np.where(s > 0, value["v_reset"], v)
        if value["v_min"] is not None and node.v_min_position == "after_reset":
            v = np.maximum(v, value["v_min"])
        spikes.append(s)
    return np.stack(spikes)


ARRAYS = ("threshold", "v_min", "v_reset", "decay", "input_gain", "v_leak", "initial_v")


@pytest.mark.parametrize("seed", range(40))
def test_every_kind_of_neuron_takes_the_step_it_states(seed):
    # Parameters are multiples of 1/64 and inputs of 1/16, so that potentials meet thresholds exactly, where >= and >
    # part; decays are powers of two, so that sums of 20 steps are exact in float64 on both sides.
    rng = np.random.default_rng(seed)

    def values(low, high):
        return (rng.integers(low, high, (3,) if rng.random() < 0.5 else ()) / 8).astype(np.float32)

    reset = str(rng.choice(["subtract", "zero", "none", "value"]))
    node = Neuron(
        values(4, 12),
        -values(4, 12) if rng.random() < 0.5 else None,
        reset=reset,
        v_reset=values(-4, 3) if reset == "value" else None,
        spikes=["single", "multi", 2][rng.integers(3)],
        v_min_position=str(rng.choice(["after_reset", "before_threshold"])),
        compare=str(rng.choice([">=", ">"])),
        decay=np.float32(rng.choice([1.0, 0.5])) * np.ones((), np.float32),
        input_gain=values(4, 16),
        v_leak=values(-2, 3) if rng.random() < 0.5 else None,
        initial_v=values(-4, 4) if rng.random() < 0.5 else None,
    )
    raster = torch.from_numpy(rng.integers(-16, 24, (2, 20, 3)) / 16)
    found = to_torch(chain(node, shape=(3,)), torch.float64)(raster)
    for sample in range(2):
        assert np.array_equal(found[sample].numpy(), plain_run(node, raster[sample].numpy()))


def test_nodes_without_state():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 1, 3)).astype(np.float32)
    scale = rng.normal(size=(4, 5)).astype(np.float32)
    threshold = np.array(0.25, np.float32)
    x = torch.from_numpy(rng.normal(size=(2, 6, 2, 9)).astype(np.float32))
    conv = Conv1d(weight, np.ones(4, np.float32), stride=2, padding=1, groups=2)
    found = to_torch(chain(conv, Scale(scale), Threshold(threshold, compare=">"), shape=(2, 9)))(x)
    expected = F.conv1d(x.flatten(0, 1), torch.from_numpy(weight), torch.ones(4), 2, 1, groups=2).reshape(2, 6, 4, 5)
    assert torch.equal(found, (expected * torch.from_numpy(scale) > 0.25).float())
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("steps", [np.array(0), np.array(3), np.array([0, 1, 2, 7])])
def test_delays(steps):
    x = raster(2, 5, 4)
    found = to_torch(chain(Delay(steps), shape=(4,)))(x)
    for neuron, delay in enumerate(np.broadcast_to(steps, (4,))):
        assert not found[:, :delay, neuron].any()
        assert torch.equal(found[:, delay:, neuron], x[:, : max(5 - delay, 0), neuron])


def test_integrators():
    decay, gain = np.float32([0.5, 1.0]), np.float32(2)
    node = LI(
        decay=decay, input_gain=gain * np.ones((), np.float32), v_leak=np.float32([1, 3]), initial_v=np.float32([4, 0])
    )
    found = to_torch(chain(node, shape=(2,)))(torch.ones(1, 3, 2))
    # v = v/2 + 2 + 0.5 and v + 2
    assert found[0].tolist() == [[4.5, 2.0], [4.75, 4.0], [4.875, 6.0]]


def recurrent(weight, bias):
    nodes: dict[str, Node] = {"in": Input((3,)), "sum": Add(), "spike": Neuron(np.float32(1), spikes="single")}
    nodes |= {"loop": Feedback((3,)), "rec": Linear(weight, bias), "after": Delay(np.array(2)), "out": Output()}
    edges = [("in", "sum"), ("rec", "sum"), ("sum", "spike"), ("spike", "loop"), ("loop", "rec"), ("spike", "after")]
    return Graph(nodes, (*edges, ("after", "out")))


def test_a_loop_has_one_step_of_delay():
    rng = np.random.default_rng(1)
    weight, bias = (rng.integers(-8, 9, size=shape).astype(np.float32) / 16 for shape in ((3, 3), 3))
    x = rng.integers(0, 3, (2, 30, 3)) / 4
    v, before = np.zeros((2, 3)), np.zeros((2, 3))
    expected = []
    for t in range(30):
        v = v + x[:, t] + before @ weight.T + bias
        before = (v >= 1).astype(float)
        v = v - before
        expected.append(before)
    graph = recurrent(weight, bias)
    module = to_torch(graph)
    found = module.record(torch.from_numpy(x).float())["spike"].numpy()
    assert np.array_equal(found, np.stack(expected, 1))
    assert found.any()
    assert not (found == 1).all()
    out = module(torch.from_numpy(x).float()).numpy()
    assert np.array_equal(out[:, 2:], found[:, :-2])


def test_loops_inside_loops():
    """Two populations that excite each other, one of them itself too: one unit, every Feedback one step."""
    nodes: dict[str, Node] = {"in": Input((1,)), "s1": Add(), "n1": Neuron(np.float32(1)), "f1": Feedback((1,))}
    nodes |= {"s2": Add(), "n2": Neuron(np.float32(2)), "f2": Feedback((1,)), "half": Scale(np.float32(0.5))}
    nodes["out"] = Output()
    edges = [("in", "s1"), ("f2", "half"), ("half", "s1"), ("s1", "n1"), ("n1", "f1"), ("n1", "s2"), ("f1", "s2")]
    graph = Graph(nodes, (*edges, ("s2", "n2"), ("n2", "f2"), ("n2", "out")))
    x = raster(1, 40, 1, density=0.5)
    a = b = v1 = v2 = 0.0
    expected = []
    for value in x[0, :, 0].tolist():
        v1 += value + 0.5 * b
        spike1 = v1 // 1
        v1 -= spike1
        v2 += spike1 + a
        spike2 = v2 // 2
        v2 -= 2 * spike2
        a, b = spike1, spike2
        expected.append(spike2)
    assert to_torch(graph)(x)[0, :, 0].tolist() == expected
    assert sum(expected) > 3


def test_integer_networks_beyond_the_proof_need_a_type():
    graph = integer_graph()
    nodes = {**graph.nodes, "delay": Delay(np.array(1))}
    edges = [(("delay" if a == "input" else a), b) for a, b in graph.edges]
    changed = Graph(nodes, (("input", "delay"), *edges))
    with pytest.raises(GraphError, match="delay: a Delay"):
        to_torch(changed)
    x = raster(1, 6, 2, 8, 8)
    later = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    assert torch.equal(to_torch(changed, torch.float64)(x), to_torch(graph, torch.float64)(later))


def test_simulate_takes_arrays():
    graph = chain(Delay(np.array(1)), Neuron(np.float32(1)), shape=(3,))
    x = (np.arange(12).reshape(4, 3) % 2).astype(bool)
    found = simulate(graph, x)
    assert found.dtype == np.float32
    assert np.array_equal(found[1:], x[:-1])
    assert np.array_equal(simulate(graph, x[None], record=True)["n1"][0], found)
    assert simulate(graph, x, dtype="float64").dtype == np.float64
    with pytest.raises(GraphError, match="raster has shape"):
        simulate(graph, x[0])
    with pytest.raises(GraphError, match="dtype is 'float16'"):
        simulate(graph, x, dtype="float16")
