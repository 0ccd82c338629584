"""Random graphs: branches that meet in Add and Concat, all options, parameters per layer and per neuron."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import (
    Add,
    Array,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Shape,
    SumPool2d,
)

Draw = Any


class Drawn:
    """Builds a graph from drawn choices. Numbers are multiples of 1/8, so that float32 sums are exact in any order."""

    def __init__(self, draw: Draw, integer: bool) -> None:
        self.draw = draw
        self.integer = integer
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.shapes: dict[str, Shape] = {}

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def weights(self, *shape: int) -> Array:
        eighths = self.rng.integers(-24, 25, shape)
        return eighths.astype(np.int8) if self.integer else (eighths / 8).astype(np.float32)

    def parameter(self, shape: Shape, low: int, high: int) -> Array:
        """``low`` to ``high`` eighths, one per layer or per neuron."""
        eighths = self.rng.integers(low, high + 1, self.pick((), shape))
        return np.asarray(eighths, np.int16) if self.integer else np.asarray(eighths / 8, np.float32)

    def add(self, node: Node, *sources: str) -> str:
        name = self.draw(st.text("ab./ü", min_size=1, max_size=3)) + str(len(self.nodes))
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        self.shapes[name] = node.output_shape(name, [self.shapes[source] for source in sources])
        return name

    def neuron(self, source: str) -> str:
        shape = self.shapes[source]
        powers = (np.float32(1), np.float32(0.5), (0.5 ** self.rng.integers(0, 3, shape)).astype(np.float32))
        factors = {} if self.integer else {"decay": self.pick(*powers), "input_gain": self.pick(*powers)}
        bounded = self.integer or self.draw(st.booleans())
        node = Neuron(
            self.parameter(shape, 8, 40),
            self.parameter(shape, -64, -1) if bounded else None,
            reset=self.pick("subtract", "zero", "none"),
            spikes=self.pick("multi", "single", 3),
            v_min_position=self.pick("after_reset", "before_threshold"),
            initial_v=self.pick(None, self.parameter(shape, -16, 16)),
            **factors,
        )
        return self.add(node, source)

    def weighted(self, source: str) -> str:
        shape = self.shapes[source]
        out = self.pick(2, 3)
        bias = self.pick(None, self.weights(out))
        bias = bias.astype(np.int16) if self.integer and bias is not None else bias
        if len(shape) == 1:
            return self.add(Linear(self.weights(out, *shape), bias), source)
        channels, groups = shape[0], self.pick(1, shape[0])
        kernel = (self.pick(1, 2, 3), self.pick(1, 2))
        conv = Conv2d(
            self.weights(out * groups, channels // groups, *kernel),
            None if bias is None else np.tile(bias, groups),
            (self.pick(1, 2), self.pick(1, 2)),
            (1, self.pick(0, 1)),
            (self.pick(1, 2), 1),
            groups,
        )
        return self.add(conv, source)

    def layer(self, source: str) -> str:
        """One more layer behind ``source``, with neurons where it has weights."""
        is_map = len(self.shapes[source]) == 3 and min(self.shapes[source][1:]) >= 2
        match self.pick("weights", "weights", "pool", "flatten", "norm"):
            case "pool" if is_map:
                kind = SumPool2d if self.integer else self.pick(SumPool2d, AvgPool2d)
                padding = self.pick((0, 0), (1, 1))
                return self.add(kind((2, 2), (2, self.pick(1, 2)), padding), source)
            case "flatten" if is_map:
                return self.add(Flatten(), source)
            case "norm" if is_map and not self.integer:
                channels = self.shapes[source][0]
                arrays = [self.weights(channels) for _ in range(3)]
                return self.add(BatchNorm2d(arrays[0], np.ones(channels, np.float32), *arrays[1:]), source)
        return self.neuron(self.weighted(source))

    def block(self, source: str) -> str:
        """A layer, or two branches that meet."""
        join = self.pick(None, None, Add, Concat)
        if join is None:
            return self.layer(source)
        left, right = self.neuron(source), self.neuron(source)
        return self.add(join(), *self.pick((left, right), (right, left)))


@st.composite
def random_graphs(draw: Draw, *, integer: bool = False) -> Graph:
    """A float or an integer network of up to four blocks, one or two outputs."""
    build = Drawn(draw, integer)
    shape = build.pick((4,), (2, 5, 6))
    name = build.add(Input(shape))
    for _ in range(draw(st.integers(1, 4))):
        name = build.block(name)
    if integer:
        name = build.neuron(build.weighted(name))
    build.add(Output(), name)
    edges = (
        draw(st.permutations(build.edges))
        if not any(isinstance(n, Add | Concat) for n in build.nodes.values())
        else build.edges
    )
    return Graph(build.nodes, tuple(edges), ("note: ü",))
