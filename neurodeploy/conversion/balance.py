"""Weights of a spiking network from an ANN's, so that spike rates follow its activations. Method: ``README.md``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConvertError
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Flatten, Input, Linear, Neuron, Node, Output, Relu
from neurodeploy.quantize.folding import fold_batch_norm

Per = Literal["channel", "layer"]
Floats = NDArray[np.float64]

#: A channel's scale is at least its layer's divided by this: a channel that is hardly ever active would otherwise get
#: weights so large that the layer's integers hold nothing else.
LARGEST_SPREAD = 4.0


@dataclass(frozen=True)
class Units:
    """One weight layer with what becomes its neurons.

    Attributes:
        layer: name of the Conv2d or Linear.
        value: node whose value the spike rate is to follow: its Relu, or the layer itself at the end of the network.
        neuron: name of the Neuron node in the spiking network.
    """

    layer: str
    value: str
    neuron: str


def ann_layers(graph: Graph) -> tuple[Graph, list[Units]]:
    """The ANN with batch normalisation folded and needless Relus removed, and its weight layers in network order.

    Raises:
        ConvertError: a weight layer is not followed by a Relu of its own or by the output, a Relu follows something
            else than a weight layer and is needed there, or the output is not the last layer's.
        QuantizeError: a batch normalisation cannot be folded.
    """
    graph = fold_batch_norm(graph)
    positive: dict[str, bool] = {}
    for name, node in list(graph.nodes.items()):
        before = graph.predecessors(name)
        positive[name] = isinstance(node, Relu | Input) or (
            not isinstance(node, Conv2d | Linear) and bool(before) and all(positive[source] for source in before)
        )
        if isinstance(node, Relu) and all(positive[source] for source in before):
            graph = graph.without(name, notes=[f"{name}: its input is never negative; this Relu is dropped."])
    layers: list[Units] = []
    for name, node in graph.nodes.items():
        after = graph.successors(name)
        kinds = [graph.nodes[other] for other in after]
        if isinstance(node, Conv2d | Linear):
            match kinds:
                case [Relu()]:
                    layers.append(Units(name, after[0], after[0]))
                case [Output()]:
                    layers.append(Units(name, name, f"{name}.neurons"))
                case [Neuron(), *_]:
                    raise ConvertError(
                        f"{name}: spiking neurons follow it ({after[0]}).",
                        remedy="this network spikes already and needs no conversion: neurodeploy compile takes it.",
                        code="not-an-ann",
                    )
                case _:
                    found = ", ".join(f"{other} ({kind.kind})" for other, kind in zip(after, kinds, strict=True))
                    raise ConvertError(
                        f"{name}: a weight layer needs a ReLU of its own directly behind it, or the output; "
                        f"behind it: {found}.",
                        remedy="put ReLU behind every convolution and linear layer, before pooling and before "
                        "branches meet, and train on.",
                        code="no-relu",
                    )
        elif isinstance(node, Relu) and not isinstance(graph.nodes[graph.predecessors(name)[0]], Conv2d | Linear):
            raise ConvertError(
                f"{name}: this Relu follows {graph.predecessors(name)[0]}, which is no weight layer.",
                remedy="put ReLU directly behind convolutions and linear layers, before pooling.",
                code="relu-place",
            )
    if not layers:
        raise ConvertError("the network has no Conv2d or Linear.", remedy="there is nothing to convert.", code="empty")
    _check_output(graph, layers[-1])
    return graph, layers


def _check_output(graph: Graph, last: Units) -> None:
    """Answers are counted in the spikes of the last layer's neurons."""
    for name, node in graph.nodes.items():
        if isinstance(node, Output):
            (source,) = graph.predecessors(name)
            while isinstance(graph.nodes[source], Flatten):
                (source,) = graph.predecessors(source)
            if source != last.value:
                raise ConvertError(
                    f"{name}: the output is that of {source} ({graph.nodes[source].kind}), not of the last weight "
                    f"layer, {last.layer}.",
                    remedy="end the network with one linear layer or convolution, its ReLU behind it or none; pool "
                    "before it.",
                    code="output",
                )


def activation_scales(
    graph: Graph, layers: list[Units], values: Mapping[str, NDArray[np.float32]], *, percentile: float, per: Per
) -> dict[str, Floats]:
    """What activation one spike per spike of a full-brightness pixel stands for: layer -> float64 ``[channels]``.

    The given percentile of the activations on all images (100: the maximum), per channel or layer; 1 for a layer that
    is never active. The output layer has one for all classes, so that the most spikes stay the largest output. Layers
    whose spikes are added up share theirs.

    Args:
        graph, layers: of ``ann_layers``.
        values: name of each layer's ``value`` -> activations ``[images, ...]``.
        percentile: in (0, 100].
        per: "channel" or "layer".

    Raises:
        ConvertError: an option is out of range.
    """
    if per not in ("channel", "layer") or not 0 < percentile <= 100:
        raise ConvertError(
            f"percentile {percentile}, per {per!r}.",
            remedy="give a percentile in (0, 100] and per='channel' or 'layer'.",
            code="balance",
        )
    scales: dict[str, Floats] = {}
    for units in layers:
        found = values[units.value]
        channels = np.moveaxis(found.reshape(*found.shape[:2], -1), 1, 0).reshape(found.shape[1], -1)
        whole = max(float(np.percentile(found, percentile)), 0.0) or max(float(found.max()), 0.0) or 1.0
        if per == "layer" or units is layers[-1]:
            scales[units.layer] = np.full(found.shape[1], whole)
        else:
            each = np.percentile(channels, percentile, axis=1).astype(np.float64)
            scales[units.layer] = np.maximum(each, whole / LARGEST_SPREAD)
    for group in _added_up(graph, layers):
        own = {name: scales[name] for name in group}
        if len({scale.size for scale in own.values()}) > 1:  # channels of a map meet a linear layer's outputs
            most = max(float(scale.max()) for scale in own.values())
            scales.update({name: np.full(scale.size, most) for name, scale in own.items()})
        else:
            scales.update(dict.fromkeys(group, np.max(list(own.values()), axis=0)))
    return scales


def spiking_graph(
    graph: Graph,
    layers: list[Units],
    scales: Mapping[str, Floats],
    gains: Mapping[str, Floats],
    *,
    input_scale: float,
    spikes_per_step: float,
    initial_v: float,
) -> Graph:
    """The spiking network: integrate-and-fire neurons of threshold 1 for every Relu and behind the output layer.

    Args:
        graph, layers: of ``ann_layers``.
        scales: of ``activation_scales``.
        gains: layer -> factor on its weights and bias beyond balancing, ``[channels]``.
        input_scale: factor on images in 0..1 before the ANN's first layer.
        spikes_per_step: events a pixel of brightness 1 gives in a time step, for the biases, which act every step.
        initial_v: potential every neuron starts with, as a share of the threshold.
    """
    changed: dict[str, Node] = {}
    named = {units.layer: units for units in layers}
    meaning: dict[str, Floats] = {}  # node -> what a spike rate in it stands for, per channel or element
    for name, node in graph.nodes.items():
        sources = graph.predecessors(name)
        if isinstance(node, Input):
            meaning[name] = np.full(graph.shapes[name][0], input_scale)
        elif isinstance(node, Conv2d | Linear):
            out, gain = scales[name], gains.get(name, np.ones(1))
            changed[name] = _scaled(node, meaning[sources[0]], out, gain, spikes_per_step)
            meaning[name] = out
        elif isinstance(node, Flatten):
            (source,) = sources
            meaning[name] = np.repeat(meaning[source], int(np.prod(graph.shapes[source][1:])))
        elif isinstance(node, Concat):
            meaning[name] = np.concatenate([meaning[source] for source in sources])
        elif isinstance(node, Add):
            first, *others = (meaning[source] for source in sources)
            if any(other.shape != first.shape or (other != first).any() for other in others):
                raise ConvertError(
                    f"{name}: adds up spikes that stand for different values: {', '.join(sources)}.",
                    remedy="add up outputs of ReLU layers only, not the network's input and not joined channels.",
                    code="add",
                )
            meaning[name] = first
        else:
            meaning[name] = meaning[sources[0]]
    nodes: dict[str, Node] = {}
    edges: list[Edge] = list(graph.edges)
    threshold = np.array(1, np.float32)
    start = None if initial_v == 0 else np.array(initial_v, np.float32)
    for name, node in graph.nodes.items():
        nodes[name] = changed.get(name, node)
        if isinstance(node, Relu):
            nodes[name] = Neuron(threshold, initial_v=start)
        elif name in named and named[name].value == name:
            neuron = named[name].neuron
            nodes[neuron] = Neuron(threshold, initial_v=start)
            edges = [(neuron if a == name else a, b) for a, b in edges] + [(name, neuron)]
    return Graph(nodes, tuple(edges), graph.notes, graph.fidelity)


def _scaled(
    node: Conv2d | Linear, source: Floats, out: Floats, gain: Floats, spikes_per_step: float
) -> Conv2d | Linear:
    if isinstance(node, Conv2d):
        per_group = node.weight.shape[1]
        group = np.arange(node.weight.shape[0]) // (node.weight.shape[0] // node.groups)
        columns = group[:, None] * per_group + np.arange(per_group)
        factor = (source[columns] * (gain / out)[:, None])[:, :, None, None]
    else:
        factor = source[None, :] * (gain / out)[:, None]
    weight = (node.weight * factor).astype(np.float32)
    bias = None if node.bias is None else (node.bias * spikes_per_step * gain / out).astype(np.float32)
    return replace(node, weight=weight, bias=bias)


def _added_up(graph: Graph, layers: list[Units]) -> list[set[str]]:
    """Groups of layers whose spikes meet in an Add, directly or through pooling, flattening or other Adds."""
    origin: dict[str, set[str]] = {}
    values = {units.value: units.layer for units in layers}
    groups: list[set[str]] = []
    for name, node in graph.nodes.items():
        if name in values:
            origin[name] = {values[name]}
        elif isinstance(node, Conv2d | Linear | Concat | Input):
            origin[name] = set()
        else:
            origin[name] = {layer for source in graph.predecessors(name) for layer in origin[source]}
        if isinstance(node, Add) and len(origin[name]) > 1:
            meeting = [group for group in groups if group & origin[name]]
            groups = [group for group in groups if group not in meeting] + [set.union(origin[name], *meeting)]
    return groups
