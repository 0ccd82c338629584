"""Graphs run in plain NumPy, one step after the other: what the nodes' documentation says, as an oracle."""

import numpy as np

from neurodeploy.graph.graph import Graph
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
    Membrane,
    Neuron,
    Node,
    Scale,
    SumPool2d,
    Threshold,
)


class Stepwise:
    """One network with its state; ``kind``: the type of potentials (float32, or int64 for an integer network)."""

    def __init__(self, graph: Graph, kind: type) -> None:
        self.graph, self.kind = graph, kind
        self.potentials: dict[str, np.ndarray] = {}
        self.under_way: dict[str, np.ndarray] = {}  # of a Delay, (B, longest, *shape)
        self.before: dict[str, np.ndarray] = {}  # of a Feedback

    def run(self, raster: np.ndarray) -> dict[str, np.ndarray]:
        """Every node's values ``(B, T, ...)`` for the only Input's raster ``(B, T, ...)``."""
        steps = []
        for step in np.moveaxis(raster.astype(self.kind), 1, 0):
            values: dict[str, np.ndarray] = {}
            for name, node in self.graph.nodes.items():
                if isinstance(node, Feedback):
                    values[name] = self.before.get(name, np.zeros((len(step), *node.shape), self.kind))
                    continue
                inputs = [values[source] for source in self.graph.predecessors(name)]
                values[name] = step if isinstance(node, Input) else self.value(name, node, inputs)
            for name, node in self.graph.nodes.items():
                if isinstance(node, Feedback):
                    self.before[name] = values[self.graph.predecessors(name)[0]]
            steps.append(values)
        return {name: np.stack([values[name] for values in steps], 1) for name in self.graph.nodes}

    def value(self, name: str, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        x = inputs[0]
        match node:
            case Membrane():
                return self.membrane(name, node, x)
            case Conv2d() | Conv1d():
                return self.conv(node, x)
            case Linear():
                y = x.astype(np.float64) @ node.weight.T.astype(np.float64)
                return self.exact(y if node.bias is None else y + node.bias)
            case SumPool2d():
                total = self.windows(x, node.kernel, node.stride, node.padding, (1, 1)).sum((-2, -1))
                return self.exact(total / np.prod(node.kernel) if isinstance(node, AvgPool2d) else total)
            case BatchNorm2d():
                mean, variance, scale, shift = (
                    part.reshape(-1, *[1] * (x.ndim - 2)).astype(np.float64)
                    for part in (node.mean, node.variance, node.scale, node.shift)
                )
                return self.exact(scale * (x - mean) / np.sqrt(variance + node.epsilon) + shift)
            case Delay():
                longest = int(np.max(node.steps))
                before = self.under_way.get(name, np.zeros((len(x), longest, *x.shape[1:]), self.kind))
                line = np.concatenate([before, x[:, None]], 1)
                self.under_way[name] = line[:, 1:]
                at = np.broadcast_to(longest - np.asarray(node.steps, np.int64), x.shape)
                return np.take_along_axis(line, at[:, None], 1)[:, 0]
            case Flatten():
                return x.reshape(len(x), -1)
            case Add():
                return self.exact(sum(part.astype(np.float64) for part in inputs))
            case Concat():
                return np.concatenate(inputs, 1)
            case Scale():
                return self.kind(1) * np.asarray(node.scale, self.kind) * x
            case Threshold():
                return self.reaches(x, node).astype(self.kind)
        return x

    def exact(self, value: np.ndarray) -> np.ndarray:
        """Sums computed in float64, where they are exact in these tests."""
        return value.astype(self.kind)

    def reaches(self, v: np.ndarray, node: Neuron | Threshold) -> np.ndarray:
        threshold = np.asarray(node.threshold, self.kind)
        return v > threshold if node.compare == ">" else v >= threshold

    def membrane(self, name: str, node: Neuron | LI, x: np.ndarray) -> np.ndarray:
        def get(field: str, otherwise: float = 0) -> np.ndarray:
            value = getattr(node, field)
            return np.asarray(otherwise if value is None else value, self.kind)

        before = self.potentials.get(name)
        if before is None:
            before = np.broadcast_to(get("initial_v"), x.shape)
        driven = get("input_gain") * x + (self.kind(1) - get("decay")) * get("v_leak")
        v = get("decay") * before + driven
        spikes = v
        if isinstance(node, Neuron):
            if node.v_min is not None and node.v_min_position == "before_threshold":
                v = np.where(v < get("v_min"), get("v_min"), v)
            spikes = self.fired(v, node)
            if node.reset == "subtract":
                v = v - get("threshold") * spikes
            elif node.reset != "none":
                v = np.where(spikes > 0, get("v_reset"), v)
            if node.v_min is not None and node.v_min_position == "after_reset":
                v = np.where(v < get("v_min"), get("v_min"), v)
        self.potentials[name] = v
        return spikes

    def fired(self, v: np.ndarray, node: Neuron) -> np.ndarray:
        if node.spikes == "single":
            return self.reaches(v, node).astype(self.kind)
        threshold = np.asarray(node.threshold, self.kind)
        if node.compare == ">":
            whole = -(-v // threshold) - 1 if self.kind is np.int64 else np.ceil(v / threshold) - 1
        else:
            whole = v // threshold if self.kind is np.int64 else np.floor(v / threshold)
        whole = np.where(v > 0, whole, 0).astype(self.kind)
        return whole if node.spikes == "multi" else np.minimum(whole, self.kind(node.spikes))

    def conv(self, node: Conv1d | Conv2d, x: np.ndarray) -> np.ndarray:
        flat = isinstance(node, Conv1d)
        weight = node.weight[:, :, None] if flat else node.weight
        if flat:
            stride, padding, dilation = (1, node.stride), (0, node.padding), (1, node.dilation)
        else:
            stride, padding, dilation = node.stride, node.padding, node.dilation
        windows = self.windows(x[:, :, None] if flat else x, weight.shape[2:], stride, padding, dilation)
        b, _, h, w, *kernel = windows.shape
        grouped = windows.reshape(b, node.groups, -1, h, w, *kernel)
        per_group = weight.astype(np.float64).reshape(node.groups, -1, *weight.shape[1:])
        y = np.einsum("bgchwij,gocij->bgohw", grouped, per_group).reshape(b, -1, h, w)
        y = y if node.bias is None else y + node.bias[:, None, None]
        return self.exact(y[:, :, 0] if flat else y)

    def windows(self, x, kernel, stride, padding, dilation) -> np.ndarray:
        """``(B, C, H', W', ky, kx)``."""
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *((p, p) for p in padding)))
        extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
        view = np.lib.stride_tricks.sliding_window_view(padded, extent, (2, 3))
        return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
