"""Pooling windows that no chip has, moved into the fully connected layer behind them."""

from dataclasses import replace

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import AvgPool2d, Flatten, Linear, SumPool2d


def pool_into_linear(graph: Graph) -> Graph:
    """Let a Linear read the map before a pool with windows that chips lack; the same function, one node less.

    Chips sum over windows of 1, 2 or 4 pixels that do not overlap. Any other pool that feeds only a Flatten and Linear
    layers is a linear map, and goes into their weights: a pixel gets the sum of the weights of its windows (over the
    number of pixels in a window, for an average).
    """
    for name, node in list(graph.nodes.items()):
        if not isinstance(node, SumPool2d) or _has_plain_windows(node):
            continue
        flattens = graph.successors(name)
        linears = [other for flatten in flattens for other in graph.successors(flatten)]
        if not all(isinstance(graph.nodes[other], Flatten) for other in flattens) or not all(
            isinstance(graph.nodes[other], Linear) for other in linears
        ):
            continue
        (source,) = graph.predecessors(name)
        shape, pooled = graph.shapes[source], graph.shapes[name]
        changed = {other: _spread(graph.nodes[other], node, shape, pooled) for other in linears}
        nodes = {key: changed.get(key, value) for key, value in graph.nodes.items() if key != name}
        edges = tuple((source if a == name else a, b) for a, b in graph.edges if b != name)
        note = f"{name}: pooling over {node.kernel} goes into the weights of {', '.join(linears)}."
        graph = Graph(nodes, edges, (*graph.notes, note), graph.fidelity)
    return graph


def _has_plain_windows(node: SumPool2d) -> bool:
    y, x = node.kernel
    return node.kernel == node.stride and y == x and y in (1, 2, 4) and node.padding == (0, 0)


def _spread(linear: object, pool: SumPool2d, shape: tuple[int, ...], pooled: tuple[int, ...]) -> Linear:
    if not isinstance(linear, Linear):
        raise TypeError("only a Linear reads a pool that is spread")
    c, h, w = shape
    (ky, kx), (sy, sx), (py, px) = pool.kernel, pool.stride, pool.padding
    before = linear.weight.reshape(-1, *pooled).astype(np.float64)
    _, rows, columns = pooled
    after = np.zeros((len(before), c, h + 2 * py + ky, w + 2 * px + kx))
    for y in range(ky):
        for x in range(kx):
            after[:, :, y : y + sy * rows : sy, x : x + sx * columns : sx] += before
    inside = after[:, :, py : py + h, px : px + w].reshape(len(before), -1)
    size = ky * kx if isinstance(pool, AvgPool2d) else 1
    return replace(linear, weight=(inside / size).astype(np.float32))
