"""Networks of one pixel and one neuron, where it is known beforehand why two runs differ."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import neurodeploy as nd
from neurodeploy.deployment import Deployment
from neurodeploy.events.array import EventArray, make_events
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Input, Neuron, Node, Output


def chain(*nodes: Node, shape: tuple[int, int, int]) -> Graph:
    """input -> n0 -> n1 -> ... -> output."""
    names = ["input", *(f"n{index}" for index in range(len(nodes))), "output"]
    return Graph(dict(zip(names, [Input(shape), *nodes, Output()], strict=True)), tuple(pairwise(names)))


def neuron(threshold: float, v_min: float | None = None, **options: Any) -> Neuron:
    """One kind of neuron for a layer."""
    bound = None if v_min is None else np.array(v_min, np.float32)
    return Neuron(np.array(threshold, np.float32), bound, **options)


def one_neuron(
    weights: Sequence[float],
    threshold: float,
    v_min: float | None = None,
    *,
    bias: float | None = None,
    deployed: str | float | None = None,
    **options: Any,
) -> Deployment:
    """A neuron with one weight per input channel, compiled; ``deployed`` is the ``v_min`` given to the compiler."""
    values = np.array(weights, np.float32).reshape(1, -1, 1, 1)
    conv = Conv2d(values, None if bias is None else np.array([bias], np.float32))
    graph = chain(conv, neuron(threshold, v_min, **options), shape=(len(weights), 1, 1))
    return nd.compile(graph, v_min=deployed)


def at(*events: tuple[int, int]) -> EventArray:
    """Events of the one pixel: (time in us, channel)."""
    t, p = zip(*events, strict=True)
    return make_events(t, [0] * len(t), [0] * len(t), p)
