"""Run a graph step by step on a raster, with arrays in and out."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph


def simulate(
    graph: Graph, raster: NDArray[Any], *, record: bool = False, dtype: Literal["float32", "float64"] | None = None
) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Run a graph from its initial state; needs torch.

    In a loop, a Feedback gives what it received in the step before (0 in the first): recurrent connections have one
    step of delay. Everything else passes from node to node within a step.

    Args:
        graph: float or integer; one Input, one Output.
        raster: input per time step, ``(T, *input_shape)`` or ``(B, T, *input_shape)``.
        record: give the spikes of every neuron layer instead of the output.
        dtype: type to compute in; None: float32, or what is exact for integers.

    Returns:
        The output, ``(T, *shape)`` or ``(B, T, *shape)``; with ``record`` a dictionary of them by node.

    Raises:
        GraphError: the raster does not fit, another dtype, or the graph cannot be run (see ``to_torch``).
    """
    import torch

    from neurodeploy.graph.torch_writer import to_torch

    shape = graph.input_shape()
    raster = np.asarray(raster)
    if raster.dtype.kind not in "fiub" or raster.ndim not in (len(shape) + 1, len(shape) + 2):
        raise GraphError(
            f"the raster has shape {raster.shape} and type {raster.dtype}; the network takes (T, "
            f"{', '.join(map(str, shape))}) or (B, T, {', '.join(map(str, shape))}).",
            remedy="give numbers of events (or currents) per time step.",
            code="raster-shape",
        )
    single = raster.ndim == len(shape) + 1
    if dtype not in ("float32", "float64", None):
        raise GraphError(f"dtype is {dtype!r}.", remedy="choose 'float32', 'float64' or None.", code="option")
    batch = torch.from_numpy(np.ascontiguousarray(raster, np.float64 if dtype == "float64" else np.float32))
    module = to_torch(graph, {"float32": torch.float32, "float64": torch.float64, None: None}[dtype])
    batch = batch[None] if single else batch

    def array(values: torch.Tensor) -> NDArray[Any]:
        result: NDArray[Any] = values.numpy()
        return result[0] if single else result

    if record:
        return {name: array(values) for name, values in module.record(batch).items()}
    return array(module(batch))
