"""Passes that move constant factors into weights, so that only weights, neurons and sum pools are left."""

from dataclasses import replace

import numpy as np

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import AvgPool2d, BatchNorm2d, Conv2d, Feedback, Linear, Neuron, Node, Output, SumPool2d


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold each BatchNorm2d into the Conv2d or Linear before it.

    ``weight' = weight * g`` and ``bias' = (bias - mean) * g + shift`` with ``g = scale / sqrt(variance + epsilon)``
    per output channel, computed in float64 and rounded once to float32.

    Raises:
        QuantizeError: the layer before is not a Conv2d or Linear, or feeds something else too.
    """
    for name, norm in graph.nodes.items():
        if not isinstance(norm, BatchNorm2d):
            continue
        (source,) = graph.predecessors(name)
        layer = graph.nodes[source]
        if not isinstance(layer, Conv2d | Linear) or len(graph.successors(source)) > 1:
            raise QuantizeError(
                f"{name}: this BatchNorm2d cannot be folded: "
                + (
                    f"{source}, before it, feeds other layers too."
                    if isinstance(layer, Conv2d | Linear)
                    else f"before it is {source} ({layer.kind}), not a Conv2d or Linear."
                ),
                remedy="put it directly after a convolution that feeds nothing else, or remove it and train again.",
                code="batch-norm",
            )
        gain = norm.scale.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
        bias = 0.0 if layer.bias is None else layer.bias.astype(np.float64)
        weight = layer.weight * gain.reshape(-1, *[1] * (layer.weight.ndim - 1))
        shift = (bias - norm.mean.astype(np.float64)) * gain + norm.shift
        graph = graph.with_nodes(
            {source: replace(layer, weight=weight.astype(np.float32), bias=shift.astype(np.float32))}
        ).without(name, notes=[f"{name} (BatchNorm2d) folded into {source}."])
    return graph


def fold_average_pool(graph: Graph) -> Graph:
    """Turn each AvgPool2d into a SumPool2d and scale the weights of the layers it feeds by 1 / (ky * kx).

    Several pools on the way multiply. Biases are not scaled: they do not pass through the pool.

    Raises:
        QuantizeError: an average reaches a neuron, an output, a Feedback or an Add of unequal averages before any
            weights.
    """
    factors: dict[str, float] = {}
    origins: dict[str, str] = {}
    changed: dict[str, Node] = {}
    notes: list[str] = []
    for name, node in graph.nodes.items():
        sources = () if isinstance(node, Feedback) else graph.predecessors(name)
        incoming = {source: factors[source] for source in sources}
        if len(set(incoming.values())) > 1:
            raise QuantizeError(
                f"{name}: its inputs bring different averaging factors: "
                + ", ".join(f"{source} {factor:g}" for source, factor in incoming.items())
                + "; one weight tensor cannot undo both.",
                remedy="use the same AvgPool2d on every branch, or SumPool2d.",
                code="average-pool",
            )
        factor = next(iter(incoming.values()), 1.0)
        pool = next((origins[source] for source in sources if source in origins), "")
        if factor != 1.0 and isinstance(node, Neuron | Output):
            raise QuantizeError(
                f"{pool}: this AvgPool2d reaches {name} ({node.kind}) without a Conv2d or Linear between, so that its "
                "factor has no weights to go into.",
                remedy="use SumPool2d there, or put the pool after the neuron and before the next layer.",
                code="average-pool",
            )
        if isinstance(node, Conv2d | Linear):
            if factor != 1.0:
                changed[name] = replace(node, weight=node.weight * np.float32(factor))
                notes.append(f"{name}: weights multiplied by {factor:g} for {pool} (AvgPool2d as a sum).")
            factor, pool = 1.0, ""
        if isinstance(node, AvgPool2d):
            factor *= 1.0 / (node.kernel[0] * node.kernel[1])
            changed[name] = SumPool2d(node.kernel, node.stride, node.padding)
            pool = name
        factors[name] = factor
        if pool:
            origins[name] = pool
    for name, node in graph.nodes.items():
        (source,) = graph.predecessors(name) if isinstance(node, Feedback) else (None,)
        if source is not None and factors[source] != 1.0:
            raise QuantizeError(
                f"{name}: {origins[source]}, an AvgPool2d, reaches this Feedback without a Conv2d or Linear between.",
                remedy="use SumPool2d there, or put the pool behind the Feedback.",
                code="average-pool",
            )
    return graph.with_nodes(changed, notes=notes)


def fold_input_gain(graph: Graph) -> Graph:
    """Fold each neuron layer's input gain into the weights and bias of the layer before it.

    Raises:
        QuantizeError: the gain differs from neuron to neuron, or is not directly behind a layer of its own.
    """
    for name, neuron in graph.nodes.items():
        if not isinstance(neuron, Neuron) or np.all(neuron.input_gain == 1):
            continue
        (source,) = graph.predecessors(name)
        layer = graph.nodes[source]
        if np.ndim(neuron.input_gain) or not isinstance(layer, Conv2d | Linear) or len(graph.successors(source)) > 1:
            raise QuantizeError(
                f"{name}: its input gain (r in NIR) cannot be folded into weights: it needs one value for the layer "
                f"and a Conv2d or Linear of its own before it; before it is {source} ({layer.kind}).",
                remedy="export the network with an input gain of 1.",
                code="input-gain",
            )
        gain = np.float32(neuron.input_gain)
        graph = graph.with_nodes(
            {
                source: replace(
                    layer, weight=layer.weight * gain, bias=None if layer.bias is None else layer.bias * gain
                ),
                name: replace(neuron, input_gain=np.array(1, np.float32), scheme=None, dt_us=None, tau=None, r=None),
            },
            notes=[f"{name}: input gain {gain:g} folded into {source}."],
        )
    return graph
