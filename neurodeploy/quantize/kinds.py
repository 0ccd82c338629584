"""Which nodes integers can express at all; asked before the passes, which rely on it."""

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Feedback

_NOT_IN_INTEGERS = {
    "Conv1d": "use a Conv2d with a kernel of height 1 on an input (C, 1, L).",
    "CubaLIF": "it runs in continuous time: compile for an analog chip (see 'neurodeploy targets'), or train a network "
    "of time steps with IAF neurons.",
    "Delay": "train without delays, or remove it.",
    "LI": "use IAF neurons; end the network with IAF neurons and count spikes.",
    "Scale": "multiply the scale into the weights of the layer that follows.",
    "Threshold": "use IAF neurons.",
}


def check_kinds(graph: Graph, allow_recurrence: bool = False) -> None:
    """Refuse what no layer of integers computes, and loops unless they are allowed.

    Raises:
        QuantizeError: a node is of such a kind; or a Feedback only delays, which no core can.
    """
    for name, node in graph.nodes.items():
        if node.kind in _NOT_IN_INTEGERS:
            raise QuantizeError(
                f"{name}: a {node.kind} cannot be expressed in integers.",
                remedy=_NOT_IN_INTEGERS[node.kind],
                code="unsupported-node",
            )
        if isinstance(node, Feedback) and not allow_recurrence:
            raise QuantizeError(
                f"{name}: a Feedback closes a loop. An event-driven chip works it off at once instead of one time "
                "step later, and may deadlock.",
                remedy="if it is meant so, compile with allow_recurrence=True (--allow-recurrence) and read the notes; "
                "else train a network without recurrent connections.",
                code="recurrence",
            )
        for after in graph.successors(name) if isinstance(node, Feedback) else ():
            if not _leads_to(graph, after, name):
                raise QuantizeError(
                    f"{name}: from here to {after} is no loop, so this Feedback is a delay of one step, which an "
                    "event-driven chip does not have.",
                    remedy=f"connect {after} without it.",
                    code="feedback-delay",
                )


def _leads_to(graph: Graph, name: str, other: str) -> bool:
    seen, new = {name}, [name]
    while new:
        found = [after for after in graph.successors(new.pop()) if after not in seen]
        new += found
        seen.update(found)
    return other in seen
