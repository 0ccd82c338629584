"""A float graph into integers: the passes in order, then one scale per layer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph, Pass
from neurodeploy.graph.nodes import Add, Conv2d, Input, Neuron, Node, Output, SumPool2d
from neurodeploy.quantize.folding import fold_average_pool, fold_batch_norm, fold_input_gain
from neurodeploy.quantize.layer import LayerQuantization, QuantizationSpec, quantize_layer
from neurodeploy.quantize.linear_to_conv import linear_to_conv

#: The passes that ``quantize`` runs before rounding, in order.
PASSES: tuple[Pass, ...] = (fold_batch_norm, linear_to_conv, fold_average_pool, fold_input_gain)


@dataclass(frozen=True)
class Quantized:
    """A network in integers.

    Attributes:
        graph: Input, Conv2d (integer weight ``[out, in, ky, kx]`` and bias ``[out]`` or None), Neuron (integer
            ``threshold`` and ``v_min``, scalars), SumPool2d, Add and Output; all shapes are ``(C, H, W)``.
        folded: the same nodes and edges in float32: the network after the passes, before rounding.
        layers: weight layer -> what rounding did to it, in network order.
        spec: the widths.
    """

    graph: Graph
    folded: Graph
    layers: Mapping[str, LayerQuantization]
    spec: QuantizationSpec

    def report(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        return {
            "passes": [step.__name__ for step in PASSES],
            "weight_bits": self.spec.weight_bits,
            "bias_bits": self.spec.bias_bits,
            "state_bits": self.spec.state_bits,
            "layers": [layer.to_dict() for layer in self.layers.values()],
            "notes": list(self.graph.notes),
        }


def quantize(graph: Graph, spec: QuantizationSpec | None = None, *, v_min: str | float | None = None) -> Quantized:
    """Turn a float network into integers, layer by layer (method: sinabs' ``discretize``; see ``README.md``).

    Args:
        graph: a float network; every Conv2d or Linear has a Neuron of its own behind it.
        spec: integer widths; the default is that of DynapCNN and Speck.
        v_min: lower bound of the potential for every neuron layer. None: the network's own. ``"-threshold"``: minus the
            layer's threshold. ``"lowest"``: the lowest number of the state word. A number: that potential, in the
            units of the network.

    Raises:
        QuantizeError: the network cannot be expressed in integers; the message names the layer and the remedy.
    """
    spec = QuantizationSpec() if spec is None else spec
    graph = _with_v_min(graph, v_min)
    for step in PASSES:
        graph = step(graph)
    changed: dict[str, Node] = {}
    layers: dict[str, LayerQuantization] = {}
    for name, layer, neuron_name, neuron in _layers(graph):
        changed[name], changed[neuron_name], layers[name] = quantize_layer(name, layer, neuron_name, neuron, spec)
    return Quantized(graph.with_nodes(changed), graph, layers, spec)


def _with_v_min(graph: Graph, v_min: str | float | None) -> Graph:
    if v_min is None:
        return graph
    if v_min not in ("-threshold", "lowest"):
        try:
            v_min = float(v_min)
        except ValueError as error:
            raise QuantizeError(
                f"v_min is {v_min!r}.",
                remedy="give '-threshold', 'lowest', a negative number, or nothing.",
                code="v-min",
            ) from error
    changed: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Neuron):
            if v_min == "lowest":
                changed[name] = replace(node, v_min=None)
            elif v_min == "-threshold":
                changed[name] = replace(node, v_min=-node.threshold)
            else:
                changed[name] = replace(node, v_min=np.array(v_min, np.float32))
    return graph.with_nodes(changed, notes=[f"v_min of every neuron layer set to {v_min}."])


def _layers(graph: Graph) -> list[tuple[str, Conv2d, str, Neuron]]:
    """The weight layers and their neurons. Every Conv2d feeds one Neuron alone, and nothing else computes."""
    layers: list[tuple[str, Conv2d, str, Neuron]] = []
    for name, node in graph.nodes.items():
        if isinstance(node, Conv2d):
            after = [(other, graph.nodes[other]) for other in graph.successors(name)]
            match after:
                case [(neuron_name, Neuron() as neuron)]:
                    layers.append((name, node, neuron_name, neuron))
                case _:
                    found = ", ".join(f"{other} ({other_node.kind})" for other, other_node in after)
                    raise QuantizeError(
                        f"{name}: a weight layer needs spiking neurons of its own directly behind it; "
                        f"behind it: {found}.",
                        remedy="put nd.nn.IAF directly behind it, before any pooling (the output layer too).",
                        code="no-neuron",
                    )
        elif isinstance(node, Neuron):
            (before,) = graph.predecessors(name)
            if not isinstance(graph.nodes[before], Conv2d):
                raise QuantizeError(
                    f"{name}: neurons need a Conv2d or Linear directly before them; before it is {before} "
                    f"({graph.nodes[before].kind}).",
                    remedy="put a Conv2d or Linear before it, and pooling behind it.",
                    code="no-weights",
                )
        elif not isinstance(node, Input | Output | SumPool2d | Add):
            raise QuantizeError(
                f"{name}: a {node.kind} cannot be expressed in integers.", remedy="remove it.", code="unsupported-node"
            )
    if not layers:
        raise QuantizeError(
            "the network has no Conv2d or Linear.", remedy="there is nothing to deploy; add a layer.", code="no-weights"
        )
    return layers
