"""Integers back into the network's units, to see what rounding the weights alone does."""

from dataclasses import replace

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Neuron, Node
from neurodeploy.quantize.integers import Quantized


def dequantize(quantized: Quantized, trained: Graph) -> Graph:
    """The float32 network that differs from the trained one by the rounding of weights and biases only.

    Integer weights and biases are divided by their layer's scale; thresholds and bounds are as trained, also where the
    network was quantized with another ``v_min``.

    Args:
        quantized: the integers.
        trained: the network they were made from.
    """
    graph = quantized.graph
    changed: dict[str, Node] = {}
    for name, layer in quantized.layers.items():
        conv, neuron, before = graph.nodes[name], graph.nodes[layer.neuron], trained.nodes[layer.neuron]
        if not isinstance(conv, Conv2d) or not isinstance(neuron, Neuron) or not isinstance(before, Neuron):
            raise TypeError(f"{name} and {layer.neuron} are not the nodes that were quantized")
        scale = np.float64(layer.scale)
        changed[name] = replace(
            conv,
            weight=(conv.weight / scale).astype(np.float32),
            bias=None if conv.bias is None else (conv.bias / scale).astype(np.float32),
        )
        changed[layer.neuron] = replace(
            neuron,
            threshold=np.asarray(layer.threshold, np.float32),
            v_min=None if before.v_min is None else np.asarray(np.ravel(before.v_min)[0], np.float32),
            initial_v=None if neuron.initial_v is None else (neuron.initial_v / scale).astype(np.float32),
        )
    return graph.with_nodes(changed)
