"""Random graphs: branches that meet in Add and Concat, all options, parameters per layer and per neuron."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import (
    LI,
    Add,
    Array,
    AvgPool2d,
    BatchNorm2d,
    Concat,
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
    Shape,
    SumPool2d,
    Threshold,
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
        if not isinstance(node, Feedback):
            self.shapes[name] = node.output_shape(name, [self.shapes[source] for source in sources])
        return name

    def membrane(self, shape: Shape) -> dict[str, Any]:
        """What LI and Neuron share. Factors are powers of 2."""
        fields: dict[str, Any] = {"initial_v": self.pick(None, self.parameter(shape, -16, 16))}
        if not self.integer:
            powers = (np.float32(1), np.float32(0.5), (0.5 ** self.rng.integers(0, 3, shape)).astype(np.float32))
            fields |= {"decay": self.pick(*powers), "input_gain": self.pick(*powers)}
            fields["v_leak"] = self.pick(None, None, self.parameter(shape, -8, 8))
        return fields

    def neuron(self, source: str) -> str:
        shape = self.shapes[source]
        bounded = self.integer or self.draw(st.booleans())
        reset = self.pick("subtract", "zero", "none", "value")
        node = Neuron(
            self.parameter(shape, 8, 40),
            self.parameter(shape, -64, -1) if bounded else None,
            reset=reset,
            v_reset=self.parameter(shape, -8, 4) if reset == "value" else None,
            spikes=self.pick("multi", "single", 3),
            v_min_position=self.pick("after_reset", "before_threshold"),
            compare=self.pick(">=", ">"),
            **self.membrane(shape),
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
        if len(shape) == 2:
            weight = self.weights(out * groups, channels // groups, 2)
            bias = None if bias is None else np.tile(bias, groups)
            return self.add(Conv1d(weight, bias, self.pick(1, 2), 1, self.pick(1, 2), groups), source)
        height, dilation = self.pick((1, 1), (2, 1), (2, 2), (3, 1), (3, 2)) if shape[1] > 2 else (1, 1)
        width, padding = self.pick((1, 0), (1, 1), (2, 1))
        conv = Conv2d(
            self.weights(out * groups, channels // groups, height, width),
            None if bias is None else np.tile(bias, groups),
            (self.pick(1, 2), self.pick(1, 2)),
            (1, padding),
            (dilation, 1),
            groups,
        )
        return self.add(conv, source)

    def layer(self, source: str) -> str:
        """One more layer behind ``source``, with neurons where it has weights."""
        is_map = len(self.shapes[source]) == 3 and min(self.shapes[source][1:]) >= 2
        shape = self.shapes[source]
        match self.pick(
            "weights", "weights", "pool", "flatten", *([] if self.integer else ["norm", "scale", "threshold", "li"])
        ):
            case "pool" if is_map:
                kind = SumPool2d if self.integer else self.pick(SumPool2d, AvgPool2d)
                padding = self.pick((0, 0), (1, 1))
                return self.add(kind((2, 2), (2, self.pick(1, 2)), padding), source)
            case "flatten" if is_map:
                return self.add(Flatten(), source)
            case "norm" if is_map:
                arrays = [self.weights(shape[0]) for _ in range(3)]
                variance = self.rng.choice([1 / 16, 1, 4], shape[0]).astype(np.float32)
                return self.add(BatchNorm2d(arrays[0], variance, *arrays[1:], 0.0), source)
            case "scale":
                return self.add(Scale(self.parameter(shape, -16, 16)), source)
            case "threshold":
                return self.add(Threshold(self.parameter(shape, 0, 16), self.pick(">=", ">")), source)
            case "li":
                return self.add(Threshold(np.float32(1)), self.add(LI(**self.membrane(shape)), source))
        return self.neuron(self.weighted(source))

    def loop(self, source: str) -> str:
        """Neurons that also get their own spikes of the step before, through a delay or weights or as they are."""
        shape = self.shapes[source]
        back = self.add(Feedback(shape))
        self.shapes[back] = shape
        last = neurons = self.neuron(self.add(Add(), source, back))
        inner = self.pick("delay", "nothing", *["weights"] * (len(shape) == 1))
        if inner == "delay":
            last = self.delay(neurons)
        elif inner == "weights":
            last = self.add(Linear(self.weights(*shape, *shape)), neurons)
        self.edges.append((last, back))
        return self.pick(neurons, last)

    def delay(self, source: str) -> str:
        steps = self.rng.integers(0, 4, self.pick((), self.shapes[source]))
        return self.add(Delay(np.asarray(steps, np.int32)), source)

    def block(self, source: str) -> str:
        """A layer, a loop, or two branches that meet."""
        join = self.pick(None, None, *[] if self.integer else ["loop", "delay"], Add, Concat)
        if join is None:
            return self.layer(source)
        if join in ("loop", "delay"):
            return self.loop(source) if join == "loop" else self.delay(source)
        left, right = self.neuron(source), self.neuron(source)
        return self.add(join(), *self.pick((left, right), (right, left)))


@st.composite
def random_graphs(draw: Draw, *, integer: bool = False) -> Graph:
    """A float or an integer network of up to four blocks, one or two outputs."""
    build = Drawn(draw, integer)
    name = build.add(Input(build.pick((4,), (2, 5, 6)) if integer else build.pick((4,), (2, 9), (2, 5, 6))))
    for _ in range(draw(st.integers(1, 4))):
        name = build.block(name)
    if integer:
        name = build.neuron(build.weighted(name))
    build.add(Output(), name)
    return Graph(build.nodes, tuple(build.edges), ("note: ü",))
