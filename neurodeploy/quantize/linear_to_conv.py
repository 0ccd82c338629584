"""Pass that turns vectors into maps, because the chip's cores know convolutions alone."""

from dataclasses import replace

import numpy as np

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Array, Concat, Conv2d, Feedback, Flatten, Input, Linear, Neuron, Node, Shape


def linear_to_conv(graph: Graph) -> Graph:
    """Turn each Linear into the Conv2d whose kernel is the whole incoming map, and remove each Flatten.

    A Linear on a flattened ``(C, H, W)`` map becomes a convolution with weight ``[out, C, H, W]``, any other one a
    ``1 x 1`` convolution; both produce ``(out, 1, 1)``. An Input of shape ``(N,)`` becomes ``(N, 1, 1)``.

    Raises:
        QuantizeError: an Add receives vectors that were flattened from different maps, a Concat from maps of
            different size, a Feedback from a map of more than one place.
    """
    maps: dict[str, Shape] = {}
    nodes: dict[str, Node] = {}
    notes: list[str] = []
    removed: dict[str, str] = {}
    for name, node in graph.nodes.items():
        sources = graph.predecessors(name)
        # What a Feedback takes is known only later: its shape is declared.
        incoming = [] if isinstance(node, Feedback) else [maps[source] for source in sources]
        maps[name] = incoming[0] if incoming else ()
        if isinstance(node, Flatten):
            removed[name] = removed.get(sources[0], sources[0])
            notes.append(f"{name} (Flatten) removed: the next layer reads the map itself.")
            continue
        if isinstance(node, Input | Feedback):
            maps[name] = node.shape if len(node.shape) == 3 else (node.shape[0], 1, 1)
            node = replace(node, shape=maps[name])
        elif isinstance(node, Linear):
            weight = node.weight.reshape(node.weight.shape[0], *incoming[0])
            node = Conv2d(weight, node.bias)
            maps[name] = (weight.shape[0], 1, 1)
            notes.append(f"{name}: Linear as a Conv2d with kernel {weight.shape[2:]}.")
        elif isinstance(node, Add) and len(set(incoming)) > 1:
            raise QuantizeError(
                f"{name}: its inputs are vectors of maps of different shapes: {', '.join(map(str, incoming))}.",
                remedy="add maps of one shape before flattening.",
                code="flatten-add",
            )
        elif isinstance(node, Concat):
            if len({shape[1:] for shape in incoming}) > 1:
                raise QuantizeError(
                    f"{name}: its inputs are vectors of maps of different sizes: {', '.join(map(str, incoming))}.",
                    remedy="put a layer on each branch that makes maps of one size, or join before flattening.",
                    code="flatten-concat",
                )
            # Channel is the slowest axis of a flattened map: maps joined by channel flatten to the joined vectors.
            maps[name] = (sum(shape[0] for shape in incoming), *incoming[0][1:])
        elif isinstance(node, Neuron):
            node = _reshaped(node, maps[name])
        elif len(shape := graph.shapes[name]) == 3:
            maps[name] = shape
        nodes[name] = node
    for name, node in nodes.items():
        (source,) = graph.predecessors(name) if isinstance(node, Feedback) else (None,)
        if source is not None and maps[source] != maps[name]:
            raise QuantizeError(
                f"{name}: this Feedback takes {source} as a vector; it is a map {maps[source]}.",
                remedy="flatten behind the Feedback instead of before it.",
                code="feedback-map",
            )
    edges = tuple((removed.get(a, a), b) for a, b in graph.edges if b not in removed)
    return Graph(nodes, edges, (*graph.notes, *notes))


def _reshaped(neuron: Neuron, shape: Shape) -> Neuron:
    """The neuron layer with its per-neuron parameters in the shape of the map."""

    def reshape(value: Array) -> Array:
        return value if np.ndim(value) == 0 else value.reshape(shape)

    return replace(
        neuron,
        threshold=reshape(neuron.threshold),
        v_min=None if neuron.v_min is None else reshape(neuron.v_min),
        decay=reshape(neuron.decay),
        input_gain=reshape(neuron.input_gain),
        initial_v=None if neuron.initial_v is None else reshape(neuron.initial_v),
    )
