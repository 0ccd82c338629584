"""What the writers of the node kinds share: the values written so far, parameters, and the call of a neuron layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import LI, Neuron, Node
from neurodeploy.graph.onnx_build import DOMAIN, Builder
from neurodeploy.graph.onnx_neuron import Step, neuron_function


@dataclass(frozen=True)
class Value:
    """What a node produces, ``[T * B, *shape]``.

    Attributes:
        name: in the ONNX graph.
        dtype: of its elements.
        largest: in integer networks, a bound of their absolute value.
        signed: in integer networks, whether they can be negative.
    """

    name: str
    dtype: np.dtype[Any]
    largest: int = 0
    signed: bool = True


@dataclass
class Context:
    """The model while it is being written.

    Attributes:
        graph, builder: source and destination.
        arrays: (node, field) -> name of the initializer that holds it.
        steps_batch: the value that holds (T, B).
    """

    graph: Graph
    builder: Builder
    arrays: dict[tuple[str, str], str] = field(default_factory=dict)
    steps_batch: str = ""

    def parameter(self, name: str, field: str, dtype: DTypeLike) -> str:
        """A node's array or number as a value of the type that the network computes in."""
        array = np.asarray(getattr(self.graph.nodes[name], field))
        if not array.ndim:
            return self.builder.constant(f"{name}.{field}", array.astype(dtype))
        stored = self.arrays[name, field]
        if array.dtype == dtype:
            return stored
        return self.builder.cast(stored, f"{stored}.{np.dtype(dtype).name}", dtype)

    def neurons(self, name: str, node: Neuron | LI, x: Value, dtype: DTypeLike) -> str:
        """Call the function of a neuron layer; its initial and final potentials are inputs and outputs of the model."""
        builder, step = self.builder, Step(node, np.dtype(dtype))
        builder.functions.setdefault(step.name, neuron_function(step))
        shape = self.graph.shapes[name]
        given = builder.constant(f"{name}.v_initial", np.zeros((0, *shape), dtype))
        builder.model_input(given, dtype, ["K", *shape])
        if node.initial_v is None:
            default = builder.constant(f"{name}.v_default", np.zeros((), dtype))
        else:
            default = self.parameter(name, "initial_v", dtype)
        current = x.name if x.dtype == dtype else builder.cast(x.name, f"{name}.input", dtype)
        parameters = [self.parameter(name, field, dtype) for field in step.parameters]
        y, final = builder.call(
            step.name,
            [current, self.steps_batch, given, default, *parameters],
            [name, f"{name}.v_final"],
            domain=DOMAIN,
        )
        builder.model_output(final, dtype, ["B", *shape])
        return y


#: Writes one node: (context, its name, the node, its inputs) -> its value.
Writer = Callable[[Context, str, Any, Sequence[Value]], Value]

#: Node class -> writer.
Table = dict[type[Node], Writer]
