"""Spikes of a network in time steps, with whole numbers exact in loops too."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ValidationError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Feedback, SumPool2d

if TYPE_CHECKING:
    import torch

#: Whole numbers up to this, and their sums, are exact in float64.
_EXACT = 2.0**51

#: Spikes of a network with loops in one call; a loop that excites itself doubles them from step to step.
_MOST_SPIKES = 2.0**26


def stepped(graph: Graph) -> Callable[[NDArray[np.float32]], "dict[str, torch.Tensor]"]:
    """A function from a raster ``(B, T, C, H, W)`` to the spikes of every neuron node, ``(B, T, *shape)``.

    Integer networks with loops run in float64. How many spikes a loop makes is known only afterwards, so it is then
    that the sums are looked at: as long as none can have left the exact integers, all were exact.

    Raises:
        ValidationError: torch is missing; from the function: a loop whose spikes grew beyond exact integers.
        GraphError: as ``to_torch`` and its module.
    """
    try:
        import torch
    except ImportError as error:
        raise ValidationError(
            "time-stepped runs need torch, which is not installed.",
            remedy="pip install torch, or leave these runs out (--runs event_driven).",
            code="torch-missing",
        ) from error
    from neurodeploy.graph.torch_writer import to_torch

    loops = any(isinstance(node, Feedback) for node in graph.nodes.values())
    integer = any(isinstance(node, Conv2d) and node.weight.dtype.kind == "i" for node in graph.nodes.values())
    module = to_torch(graph, torch.float64 if loops and integer else None)

    def run(raster: NDArray[np.float32]) -> "dict[str, torch.Tensor]":
        # A network may take the sensor's map as a vector.
        given = torch.from_numpy(raster.reshape(*raster.shape[:2], *graph.input_shape()))
        with torch.inference_mode():
            spikes = module.record(given)
        if loops:
            largest = max(float(values.max()) for values in (given, *spikes.values()) if values.numel())
            exact = not integer or _largest_sum(graph) * largest * raster.shape[1] < _EXACT
            if not exact or sum(float(values.sum()) for values in spikes.values()) > _MOST_SPIKES:
                raise ValidationError(
                    f"in time steps a neuron fires {largest:g} spikes in one step: a loop excites itself.",
                    remedy="weaken the loop, or leave the time-stepped runs out (--runs event_driven).",
                    code="loop-grows",
                )
        return spikes

    return run


def _largest_sum(graph: Graph) -> float:
    """The most that a layer can add to a potential in one step in which nothing sends more than one spike."""
    pools = [float(np.prod(node.kernel)) for node in graph.nodes.values() if isinstance(node, SumPool2d)]
    sums = [
        np.abs(node.weight.reshape(len(node.weight), -1).astype(np.float64)).sum(1).max()
        + (0 if node.bias is None else np.abs(node.bias.astype(np.float64)).max())
        for node in graph.nodes.values()
        if isinstance(node, Conv2d)
    ]
    # Additions in front of a layer can at most bring together everything that there is.
    return float(max(sums) * np.prod(pools) * len(graph.nodes))
