"""A graph as core layers: one convolution, its neurons, and a sum-pooling on the way to each destination."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Feedback, Input, Neuron, Output, SumPool2d

MapShape = tuple[int, int, int]
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class LayerDestination:
    """Where a layer's spikes go: through ``pools`` (in order) to the layer ``layer``."""

    layer: str
    pools: tuple[SumPool2d, ...] = ()
    feature_shift: int = 0

    @property
    def pooling(self) -> Pair:
        """Product of the poolings, (y, x)."""
        y = x = 1
        for pool in self.pools:
            y, x = y * pool.kernel[0], x * pool.kernel[1]
        return y, x


@dataclass(frozen=True, eq=False)
class CoreLayer:
    """What one core holds.

    Attributes:
        name: name of the convolution node; of a part ``conv2[0:32]``.
        conv, neuron: the two nodes, float or integer.
        input_shape: ``(C, H, W)`` of the events it takes.
        output_shape: ``(F, H, W)`` of its neurons, before pooling.
        sources: layers that feed it; empty when only the host does.
        takes_input: whether an input's events enter here.
        destinations: where its spikes go.
        is_output: whether the network's result is read here.
        part_of: the layer that it is a part of; None for a whole layer.
        first_feature: the feature of that layer which is its feature 0.
        feature_step: feature f of the layer is feature ``f * feature_step`` of the core; those between never fire.
    """

    name: str
    conv: Conv2d
    neuron: Neuron
    input_shape: MapShape
    output_shape: MapShape
    sources: tuple[str, ...]
    takes_input: bool
    destinations: tuple[LayerDestination, ...]
    is_output: bool
    part_of: str | None = None
    first_feature: int = 0
    feature_step: int = 1

    @property
    def has_bias(self) -> bool:
        """Whether any bias is not zero; biases that are all zero are left out."""
        return self.conv.bias is not None and bool(np.any(self.conv.bias != 0))

    @property
    def is_integer(self) -> bool:
        """Whether the layer is quantized."""
        return bool(np.issubdtype(self.conv.weight.dtype, np.integer))

    @property
    def fires_once(self) -> bool:
        """Whether "at most one spike per event" can never bind.

        True when no weight and no initial potential can take a neuron to twice its threshold and no bias is positive.
        """
        threshold = np.min(self.neuron.threshold)
        start = 0 if self.neuron.initial_v is None else np.max(self.neuron.initial_v)
        bias = 0 if self.conv.bias is None else np.max(self.conv.bias)
        return bool(np.max(self.conv.weight) <= threshold and start < threshold and bias <= 0)


def input_ends(graph: Graph) -> dict[str, tuple[LayerDestination, ...]]:
    """Input -> the layers its events reach, in network order."""
    return {name: tuple(_ends(graph, name)) for name, node in graph.nodes.items() if isinstance(node, Input)}


def core_layers(graph: Graph) -> Mapping[str, CoreLayer]:
    """Every convolution of ``graph`` that is followed by one layer of neurons, by name, in network order.

    Whatever does not fit this pattern is left out here and refused by the rules of ``constraints.py``.
    """
    paired: dict[str, str] = {}
    for name, node in graph.nodes.items():
        after = graph.successors(name)
        if isinstance(node, Conv2d) and len(after) == 1 and isinstance(graph.nodes[after[0]], Neuron):
            paired[name] = after[0]
    destinations = {
        name: tuple(end for end in _ends(graph, neuron) if end.layer in paired) for name, neuron in paired.items()
    }
    entered = {end.layer for ends in input_ends(graph).values() for end in ends}
    layers: dict[str, CoreLayer] = {}
    for name, neuron_name in paired.items():
        conv, neuron = graph.nodes[name], graph.nodes[neuron_name]
        if not isinstance(conv, Conv2d) or not isinstance(neuron, Neuron):
            continue
        (before,) = graph.predecessors(name)
        layers[name] = CoreLayer(
            name=name,
            conv=conv,
            neuron=neuron,
            input_shape=_map(graph.shapes[before]),
            output_shape=_map(graph.shapes[name]),
            sources=tuple(other for other, ends in destinations.items() for end in ends if end.layer == name),
            takes_input=name in entered,
            destinations=destinations[name],
            is_output=any(isinstance(graph.nodes[after], Output) for after in graph.successors(neuron_name)),
        )
    return MappingProxyType(layers)


def _map(shape: tuple[int, ...]) -> MapShape:
    c, h, w = shape
    return c, h, w


def _ends(
    graph: Graph, name: str, pools: tuple[SumPool2d, ...] = (), feature_shift: int = 0
) -> Iterator[LayerDestination]:
    """Every convolution that spikes leaving ``name`` reach through poolings, additions and concatenations."""
    for after in dict.fromkeys(graph.successors(name)):
        node = graph.nodes[after]
        before = graph.predecessors(after)
        # A node that takes ``name`` twice (x + x) gets every spike twice.
        for place in (index for index, other in enumerate(before) if other == name):
            if isinstance(node, Conv2d):
                yield LayerDestination(after, pools, feature_shift)
            elif isinstance(node, SumPool2d):
                yield from _ends(graph, after, (*pools, node), feature_shift)
            elif isinstance(node, Add | Feedback):  # without time steps, what comes back does so at once
                yield from _ends(graph, after, pools, feature_shift)
            elif isinstance(node, Concat):
                first = sum(graph.shapes[other][0] for other in before[:place])
                yield from _ends(graph, after, pools, feature_shift + first)
