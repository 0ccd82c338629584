"""An oracle that knows no program: the quantized graph, run event by event with torch's convolution, against the chip.

It takes node by node what the graph says (stride, padding, pooling, reset, bounds), so that a swapped axis, a lost
pooling or a wrong destination on the way through layers, placement and lowering shows.
"""

import numpy as np
import pytest

from neurodeploy.events import make_events
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Input, Neuron, Node, Output, SumPool2d
from neurodeploy.target import load_target

torch = pytest.importorskip("torch")
SPECK = load_target("speck2f")


class GraphExecutor:
    """Counts the spikes of every neuron node of an integer graph, one input event at a time."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        neurons = [name for name, node in graph.nodes.items() if isinstance(node, Neuron)]
        self.v = {name: np.zeros(graph.shapes[name], np.int64) for name in neurons}
        self.changes: dict[tuple, np.ndarray] = {}
        self.counts = {name: np.zeros(graph.shapes[name], np.int64) for name in neurons}

    def run(self, events):
        (entry,) = [name for name, node in self.graph.nodes.items() if isinstance(node, Input)]
        for _, x, y, p in events.tolist():
            waiting = {name: [] for name in self.graph.nodes}
            waiting[entry].append((p, y, x))
            for name, node in self.graph.nodes.items():
                for event in waiting[name]:
                    for c, y, x in self.step(name, node, event):
                        for after in self.graph.successors(name):
                            waiting[after].append((c + self.first_channel(name, after), y, x))
        return self.counts

    def first_channel(self, name, after):
        """Where the channels of ``name`` begin in the map that ``after`` takes."""
        if not isinstance(self.graph.nodes[after], Concat):
            return 0
        before = self.graph.predecessors(after)
        return sum(self.graph.shapes[other][0] for other in before[: before.index(name)])

    def change(self, name, event):
        """What one event at ``event`` adds to every neuron behind the convolution ``name``."""
        conv = self.graph.nodes[name]
        assert isinstance(conv, Conv2d)
        frame = np.zeros(self.graph.shapes[self.graph.predecessors(name)[0]])
        frame[event] = 1
        weight = torch.tensor(conv.weight.astype(np.float64))
        change = torch.nn.functional.conv2d(torch.tensor(frame), weight, None, conv.stride, conv.padding)
        return change.numpy().astype(np.int64)

    def step(self, name: str, node: Node, event):
        """What leaves a node when ``event`` enters; a convolution passes the event on to its neurons unchanged."""
        if isinstance(node, SumPool2d):
            c, y, x = event
            pooled = (c, y // node.stride[0], x // node.stride[1])
            _, h, w = self.graph.shapes[name]
            return [pooled] if pooled[1] < h and pooled[2] < w else []
        if not isinstance(node, Neuron):
            return [event]
        if (name, event) not in self.changes:
            self.changes[name, event] = self.change(self.graph.predecessors(name)[0], event)
        change = self.changes[name, event]
        touched = change != 0
        v = self.v[name]
        v[touched] = np.maximum(v[touched] + change[touched], int(node.v_min))
        fired = touched & (v >= int(node.threshold))
        v[fired] = 0 if node.reset == "zero" else v[fired] - int(node.threshold)
        self.counts[name] += fired
        # Kernel order: the kernel's rows and columns ascend, so the neurons' descend.
        return sorted((tuple(map(int, at)) for at in np.argwhere(fired)), key=lambda at: (-at[1], -at[2], at[0]))


def random_graph(rng, join):
    """Convolutions with unequal strides and paddings, pooling, both resets; two branches that ``join``, or none."""
    h, w = int(rng.integers(9, 15)), int(rng.integers(9, 15))
    nodes: dict[str, Node] = {"input": Input((2, h, w))}
    edges: list[tuple[str, str]] = []

    def layer(name, before, c, f, kernel, stride=(1, 1), padding=(0, 0)):
        weight = rng.integers(-60, 80, (f, c, kernel, kernel)).astype(np.int8)
        threshold, v_min = np.array(rng.integers(40, 140), np.int16), np.array(rng.integers(-200, -1), np.int16)
        nodes[name] = Conv2d(weight, None, stride, padding)
        nodes[f"{name}_spike"] = Neuron(threshold, v_min, reset=str(rng.choice(["subtract", "zero"])))
        edges.extend([(before, name), (name, f"{name}_spike")])
        return f"{name}_spike"

    def pool(name, before, size):
        nodes[name] = SumPool2d((size, size), (size, size))
        edges.append((before, name))
        return name

    stride, padding = tuple(map(int, rng.choice([1, 2], 2))), tuple(map(int, rng.integers(0, 3, 2)))
    first = layer("a", "input", 2, 3, int(rng.integers(2, 4)), stride, padding)
    if join:
        left = layer("b", pool("pool_b", first, 2), 3, 2, 1)
        right = layer("c", first, 3, 2 if join is Add else 3, 3, (2, 2), (1, 1))
        ends = {"end_b": Output(), "end_c": Output()}
        shapes = Graph({**nodes, **ends}, (*edges, (left, "end_b"), (right, "end_c"))).shapes
        if shapes[left][1:] != shapes[right][1:]:
            return random_graph(rng, join)
        nodes["join"] = join()
        edges.extend([(left, "join"), (right, "join")])
        last = layer("d", "join", 2 if join is Add else 5, 3, 2, (1, 1), (1, 0))
    else:
        middle = layer("b", pool("pool_a", first, 2), 3, 4, 2, (1, 1), (0, 1))
        last = layer("c", middle, 4, 2, 2, (1, 2), (1, 1))
    nodes["output"] = Output()
    edges.append((last, "output"))
    return Graph(nodes, tuple(edges))


@pytest.mark.parametrize("join", [None, Add, Concat])
@pytest.mark.parametrize("seed", range(4))
def test_the_chip_does_what_the_graph_says(seed, join):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, join)
    _, h, w = graph.input_shape()
    count = 150
    events = make_events(
        np.arange(count) * 10, rng.integers(0, w, count), rng.integers(0, h, count), rng.integers(0, 2, count)
    )
    expected = GraphExecutor(graph).run(events)
    program = SPECK.family.lower(SPECK.family.map(graph, SPECK.chip))
    counts = SPECK.family.executor(program).run(events).counts
    for name in program.layers:
        assert np.array_equal(counts[name], expected[f"{name}_spike"]), name
    assert counts[program.layers[-1]].sum() > 0
