"""Fewer connections per neuron: the largest are kept."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Array, Conv2d, Linear, Node


def fan_in_mask(weight: Array, k: int) -> NDArray[np.bool_]:
    """Which ``k`` weights of each neuron are the largest in magnitude; of equal ones the first.

    Args:
        weight: ``[out, ...]``: all but the first axis are the inputs of a neuron (of a convolution: of a channel).
        k: connections that each keeps.

    Returns:
        bool, of the weight's shape; where a neuron has no more than ``k`` weights that are not 0, those.

    Raises:
        GraphError: ``k`` is not at least 1.
    """
    if k < 1:
        raise GraphError(f"k is {k}.", remedy="keep at least one connection.", code="prune")
    rows = np.abs(weight.reshape(len(weight), -1))
    order = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    mask = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(mask, order, True, axis=1)
    kept: NDArray[np.bool_] = (mask & (rows != 0)).reshape(weight.shape)
    return kept


def prune_fan_in(graph: Graph, k: int) -> Graph:
    """Keep the ``k`` largest weights of every neuron (of a convolution: of every output channel), set the others to 0.

    Accuracy falls: fine-tune with the pruned weights held at 0, for example by
    ``torch.nn.utils.prune.custom_from_mask(layer, "weight", mask)`` with :func:`fan_in_mask`, then trace again.

    Raises:
        GraphError: ``k`` is not at least 1.
    """
    changed: dict[str, Node] = {}
    notes = []
    for name, node in graph.nodes.items():
        if isinstance(node, Linear | Conv2d):
            mask = fan_in_mask(node.weight, k)
            dropped = np.count_nonzero(node.weight) - np.count_nonzero(mask)
            if dropped:
                changed[name] = replace(node, weight=np.where(mask, node.weight, np.zeros((), node.weight.dtype)))
                power = float(np.square(changed[name].weight, dtype=np.float64).sum())  # type: ignore[attr-defined]
                share = power / float(np.square(node.weight, dtype=np.float64).sum())
                notes.append(
                    f"{name}: {dropped} of {np.count_nonzero(node.weight)} weights were pruned, so that no neuron has "
                    f"more than {k}; {share:.1%} of the squared weights are left."
                )
    return graph.with_nodes(changed, notes=notes)
