"""What every reader of torch modules needs: parameters as arrays, types without importing their library, refusals."""

import sys
from typing import Any

import numpy as np
import torch

from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import Array, Shape


def is_from(module: torch.nn.Module, library: str, *kinds: str) -> bool:
    """isinstance without importing the library: a module of a library exists only once that is imported.

    Args:
        module: the module.
        library: full name of the Python module that has the classes.
        kinds: names of classes; one of them is enough.
    """
    found = sys.modules.get(library)
    classes = (getattr(found, kind, None) for kind in kinds)
    return any(isinstance(module, kind) for kind in classes if isinstance(kind, type))


def refused(name: str, module: torch.nn.Module, remedy: str, option: str | None = None) -> GraphError:
    """The error for a module, or for an ``option`` of it, that no node has."""
    kind = type(module).__name__
    what = f"a {kind} is not supported" if option is None else f"{option} of this {kind} is not supported"
    return GraphError(
        f"{name}: {what}.", remedy=f"{remedy}.", code="unsupported-module" if option is None else "module-option"
    )


def array(value: torch.Tensor) -> Array:
    """The tensor as float32."""
    return np.array(value.detach().cpu().numpy(), np.float32)


def per_neuron(name: str, module: torch.nn.Module, field: str, value: Any, shape: Shape) -> Array:
    """One value for the layer where all are equal, else one per neuron.

    Raises:
        GraphError: the value does not broadcast to the layer's shape.
    """
    values = array(torch.as_tensor(value))
    if values.size and (values == values.reshape(-1)[0]).all():
        return np.array(values.reshape(-1)[0])
    try:
        return np.array(np.broadcast_to(values, shape))
    except ValueError:
        raise refused(
            name, module, f"give a shape that broadcasts to {shape}", f"{field} of shape {values.shape}"
        ) from None
