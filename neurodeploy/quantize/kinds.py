"""Which nodes integers can express at all; asked before the passes, which rely on it."""

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph

_NOT_IN_INTEGERS = {
    "Conv1d": "use a Conv2d with a kernel of height 1 on an input (C, 1, L).",
    "Delay": "train without delays, or remove it.",
    "Feedback": "train a network without recurrent connections.",
    "LI": "use IAF neurons; end the network with IAF neurons and count spikes.",
    "Scale": "multiply the scale into the weights of the layer that follows.",
    "Threshold": "use IAF neurons.",
}


def check_kinds(graph: Graph) -> None:
    """Refuse what no layer of integers computes, and loops.

    Raises:
        QuantizeError: a node is of such a kind.
    """
    for name, node in graph.nodes.items():
        if node.kind in _NOT_IN_INTEGERS:
            raise QuantizeError(
                f"{name}: a {node.kind} cannot be expressed in integers.",
                remedy=_NOT_IN_INTEGERS[node.kind],
                code="unsupported-node",
            )
