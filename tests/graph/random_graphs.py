"""Random graphs with every kind of node, for the formats that graphs are written in."""

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.integration import step_factors
from neurodeploy.graph.nodes import (
    LI,
    Add,
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
    Output,
    Scale,
    SumPool2d,
    Threshold,
)


def f32(value):
    return np.asarray(value, np.float32)


class Builder:
    """Grows a graph node by node; the names are of the forms that importers make."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes = {}
        self.edges = []
        self.shapes = {}

    def add(self, node, *sources, name=None):
        number = len(self.nodes)
        if name is None:
            name = str(self.rng.choice([f"n{number}", str(number), f"block.{number}", f"/layer{number}/Conv"]))
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        if isinstance(node, Feedback):
            self.shapes[name] = node.shape
        else:
            self.shapes[name] = node.output_shape(name, [self.shapes[source] for source in sources])
        return name

    def maybe(self, value, chance=0.5):
        return value if self.rng.random() < chance else None

    def values(self, shape, low=0.1, high=2.0):
        """One number or one per neuron; sometimes the same for every neuron."""
        form = self.rng.integers(3)
        if form == 0:
            return f32(self.rng.uniform(low, high))
        if form == 1:
            return np.full(shape, f32(self.rng.uniform(low, high)))
        return f32(self.rng.uniform(low, high, shape))

    def weight(self, *shape):
        return f32(self.rng.normal(size=shape))

    def bias(self, size):
        return [None, np.zeros(size, np.float32), self.weight(size)][self.rng.integers(3)]

    def membrane(self, shape, leaky=None):
        """Fields of a membrane: no leak, a leak in steps, or one in continuous time."""
        form = self.rng.integers(3) if leaky is None else self.rng.integers(1, 3)
        if form == 0:
            return {"input_gain": self.values(shape)}
        if form == 1:
            fields = {"decay": self.values(shape, 0.01, 0.99), "input_gain": self.values(shape)}
        else:
            scheme = str(self.rng.choice(["euler", "zoh", "exp_delta"]))
            dt_us = float(self.rng.choice([100.0, 1000.0, 333.3]))
            tau = np.asarray(self.rng.uniform(0.002, 0.05, shape if self.rng.random() < 0.5 else ()))
            r = np.asarray(self.rng.uniform(0.5, 20))
            decay, gain = step_factors(scheme, dt_us, tau, r)
            fields = {"decay": f32(decay), "input_gain": f32(gain), "scheme": scheme, "dt_us": dt_us}
            fields |= {"tau": tau, "r": r}
        return fields

    def neuron(self, shape, leaky=None):
        rng = self.rng
        reset = str(rng.choice(["subtract", "zero", "none", "value"]))
        return Neuron(
            self.values(shape, 0.5, 2.0),
            self.maybe(-self.values(shape, 0.5, 2.0)),
            reset=reset,
            v_reset=self.values(shape, -1.0, 0.4) if reset == "value" else None,
            spikes=[1, "single", "multi", 3][rng.integers(1, 4)],
            v_min_position=str(rng.choice(["after_reset", "before_threshold"])),
            compare=str(rng.choice([">=", ">"])),
            v_leak=self.maybe(self.values(shape, -0.2, 0.2)),
            initial_v=self.maybe(self.values(shape, -0.5, 0.5)),
            **self.membrane(shape, leaky),
        )

    def integrator(self, shape):
        return LI(
            **self.membrane(shape),
            v_leak=self.maybe(self.values(shape, -0.2, 0.2)),
            initial_v=self.maybe(self.values(shape, -0.5, 0.5)),
        )

    def layer(self, source):
        """One layer that fits behind ``source``."""
        rng, shape = self.rng, self.shapes[source]
        choices = ["neuron", "integrator", "scale", "delay", "threshold", "cuba", "norm", "loop", "flatten", "branch"]
        choices += {1: ["linear"] * 3, 2: ["conv1d"] * 3, 3: ["conv2d", "sum", "average"] * 2}[len(shape)]
        channels = int(rng.integers(1, 5))
        match str(rng.choice(choices)):
            case "linear":
                return self.add(Linear(self.weight(channels, shape[0]), self.bias(channels)), source)
            case "conv1d":
                return self.add(Conv1d(self.weight(channels, shape[0], 3), self.bias(channels), padding=1), source)
            case "conv2d":
                dilation = (int(rng.integers(1, 3)), 1)
                weight = self.weight(channels, shape[0], 3, 1)
                return self.add(Conv2d(weight, self.bias(channels), padding=(2, 0), dilation=dilation), source)
            case "sum":
                return self.add(SumPool2d((1, 2), (1, 1), (0, 1)), source)
            case "average":
                return self.add(AvgPool2d((2, 1), (1, 1), (1, 0)), source)
            case "neuron":
                return self.add(self.neuron(shape), source)
            case "integrator":
                return self.add(self.integrator(shape), source)
            case "scale":
                return self.add(Scale(self.values(shape)), source)
            case "delay":
                return self.add(Delay(rng.integers(0, 5, shape if rng.random() < 0.5 else ())), source)
            case "threshold":
                return self.add(Threshold(self.values(shape), compare=str(rng.choice([">=", ">"]))), source)
            case "norm":
                parts = [self.weight(shape[0]), self.weight(shape[0]) ** 2 + f32(0.1), *self.weight(2, shape[0])]
                return self.add(BatchNorm2d(*parts), source)
            case "flatten":
                return self.add(Flatten(), source)
            case "cuba":
                name = f"cuba{len(self.nodes)}"
                self.add(LI(**self.membrane(shape, leaky=True)), source, name=f"{name}.synapse")
                return self.add(self.neuron(shape, leaky=True), f"{name}.synapse", name=name)
            case "loop":
                loop = self.add(Feedback(shape))
                back = self.add(Scale(self.values(shape)), loop)
                neuron = self.add(self.neuron(shape), self.add(Add(), source, back))
                self.edges.append((neuron, loop))
                return neuron
            case _:
                other = self.add(Scale(self.values(shape)), source)
                return self.add(Concat() if rng.random() < 0.5 else Add(), source, other, *self.maybe([source]) or [])

    def graph(self, layers):
        shape = [(4,), (2, 5), (2, 4, 3)][self.rng.integers(3)]
        source = self.add(Input(shape), name="input")
        for _ in range(layers):
            source = self.layer(source)
        self.add(Output(), source, name="output")
        return Graph(self.nodes, tuple(self.edges))


def random_graph(seed, layers):
    """A graph of about ``layers`` layers; the same seed gives the same graph."""
    return Builder(seed).graph(layers)
