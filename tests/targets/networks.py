"""Networks for the tests: integer graphs of convolution, neurons and sum-pooling, the same every time."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Input, Neuron, Node, Output, SumPool2d

#: (features, kernel, stride, padding, pooling) per layer.
Spec = Sequence[tuple[int, int, int, int, int]]

#: The sinabs MNIST network and the nine-core DVS gesture network; shapes of the published parameters.
MNIST_INPUT, MNIST = (
    (1, 28, 28),
    [(20, 5, 1, 0, 2), (32, 5, 1, 0, 2), (128, 3, 1, 0, 2), (500, 1, 1, 0, 1), (10, 1, 1, 0, 1)],
)
GESTURE_INPUT, GESTURE = (
    (2, 128, 128),
    [
        (16, 2, 2, 0, 1),
        (16, 3, 1, 1, 2),
        (32, 3, 1, 1, 2),
        (32, 3, 1, 1, 2),
        (64, 3, 1, 1, 2),
        (64, 3, 1, 1, 2),
        (256, 2, 1, 0, 1),
        (128, 1, 1, 0, 1),
        (11, 1, 1, 0, 1),
    ],
)


def weights(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed int8 weights that use the whole range and differ from place to place."""
    return ((np.arange(np.prod(shape)) * 37 + 11) % 256 - 128).astype(np.int8).reshape(shape)


def chain(input_shape: tuple[int, int, int], spec: Spec, *, threshold: int = 150, v_min: int = -150) -> Graph:
    """conv0 -> spike0 -> pool0 -> conv1 -> ... -> output."""
    nodes: dict[str, Node] = {"input": Input(input_shape)}
    edges: list[tuple[str, str]] = []
    before, features = "input", input_shape[0]

    def add(name: str, node: Node) -> None:
        nonlocal before
        nodes[name] = node
        edges.append((before, name))
        before = name

    for i, (out, kernel, stride, padding, pooling) in enumerate(spec):
        weight = weights((out, features, kernel, kernel))
        add(f"conv{i}", Conv2d(weight, None, (stride, stride), (padding, padding)))
        add(f"spike{i}", Neuron(np.array(threshold, np.int16), np.array(v_min, np.int16)))
        if pooling > 1:
            add(f"pool{i}", SumPool2d((pooling, pooling), (pooling, pooling)))
        features = out
    add("output", Output())
    return Graph(nodes, tuple(edges))


def as_float(graph: Graph) -> Graph:
    """The same network before quantization: every integer array as float32."""
    changed: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Conv2d):
            changed[name] = replace(node, weight=node.weight.astype(np.float32))
        elif isinstance(node, Neuron):
            v_min = None if node.v_min is None else node.v_min.astype(np.float32)
            changed[name] = replace(node, threshold=node.threshold.astype(np.float32), v_min=v_min)
    return graph.with_nodes(changed)
