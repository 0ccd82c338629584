"""What the writers of the node kinds share: the values written so far, parameters, and the call of a neuron layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import helper

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import LI, Neuron, Node
from neurodeploy.graph.onnx_build import DOMAIN, OPSET, Builder
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
        scales: node -> scale of its integers, where quantization is simulated: ``number = integer / scale``.
    """

    graph: Graph
    builder: Builder
    arrays: dict[tuple[str, str], str] = field(default_factory=dict)
    steps_batch: str = ""
    scales: Mapping[str, float] = field(default_factory=dict)

    def parameter(self, name: str, field: str, dtype: DTypeLike) -> str:
        """A node's array or number as a value of the type that the network computes in."""
        array = np.asarray(getattr(self.graph.nodes[name], field))
        dequantized = name in self.scales and array.dtype.kind == "i"
        if not array.ndim:
            stored = self.builder.constant(f"{name}.{field}", array if dequantized else array.astype(dtype))
        else:
            stored = self.arrays[name, field]
        if dequantized:
            step = self.builder.constant(f"{name}.{field}.step", np.array(1 / self.scales[name], dtype))
            return self.builder.add("DequantizeLinear", [stored, step], f"{stored}.dequantized")
        if array.dtype == dtype or not array.ndim:
            return stored
        return self.builder.cast(stored, f"{stored}.{np.dtype(dtype).name}", dtype)

    def state(self, name: str, label: str, shape: Sequence[int], default: str, dtype: DTypeLike) -> str:
        """Declare a state of a node as input of the model, ``[K, *shape]``: the states of the first K samples.

        Args:
            name, label: of the node, and what the state is.
            shape: of one sample's state.
            default: value that the state of the other samples starts from.
            dtype: of the state.
        """
        given = self.builder.constant(f"{name}.{label}_initial", np.zeros((0, *shape), dtype))
        self.builder.model_input(given, dtype, ["K", *shape])
        return given

    def next_state(self, name: str, label: str, shape: Sequence[int], final: str, dtype: DTypeLike) -> None:
        """Declare the state behind the last step, ``[B, *shape]``, as output of the model."""
        self.builder.model_output(final, dtype, ["B", *shape])

    def neurons(self, name: str, node: Neuron | LI, x: Value, dtype: DTypeLike) -> str:
        """Call the function of a neuron layer."""
        builder, step, shape = self.builder, Step(node, np.dtype(dtype)), self.graph.shapes[name]
        builder.functions.setdefault(step.name, neuron_function(step))
        if node.initial_v is None:
            default = builder.constant(f"{name}.v_default", np.zeros((), dtype))
        else:
            default = self.parameter(name, "initial_v", dtype)
        given = self.state(name, "v", shape, default, dtype)
        current = x.name if x.dtype == dtype else builder.cast(x.name, f"{name}.input", dtype)
        parameters = [self.parameter(name, field, dtype) for field in step.parameters]
        y, final = builder.call(
            step.name,
            [current, self.steps_batch, given, default, *parameters],
            [name, f"{name}.v_final"],
            domain=DOMAIN,
        )
        self.next_state(name, "v", shape, final, dtype)
        return y

    def by_step(self, name: str, value: Value, shape: Sequence[int]) -> str:
        """``[T * B, *shape]`` as ``[T, B, *shape]``."""
        own_shape = self.builder.integers(f"{name}.shape", shape)
        unfolded = self.builder.add("Concat", [self.steps_batch, own_shape], f"{name}.by_step.shape", axis=0)
        return self.builder.add("Reshape", [value.name, unfolded], f"{name}.by_step")

    def complete(self, name: str, given: str, default: str) -> str:
        """The states of all samples, ``[B, *shape]``, from those of the first K."""
        self.builder.functions.setdefault(_INITIAL_STATE.name, _INITIAL_STATE)
        (state,) = self.builder.call(
            _INITIAL_STATE.name, [given, default, self.steps_batch], [f"{name}.complete"], domain=DOMAIN
        )
        return state


def _initial_state() -> onnx.FunctionProto:
    node = helper.make_node
    nodes = [
        node("Shape", ["given"], ["rows"], start=0, end=1),
        node("Shape", ["given"], ["shape"], start=1),
        node("Constant", [], ["last"], value_ints=[1]),
        node("Gather", ["steps_batch", "last"], ["batch"]),
        node("Sub", ["batch", "rows"], ["missing"]),
        node("Concat", ["missing", "shape"], ["missing_shape"], axis=0),
        node("Expand", ["default", "missing_shape"], ["others"]),
        node("Concat", ["given", "others"], ["state"], axis=0),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, "InitialState", ["given", "default", "steps_batch"], ["state"], nodes, opsets)


_INITIAL_STATE = _initial_state()

#: Writes one node: (context, its name, the node, its inputs) -> its value.
Writer = Callable[[Context, str, Any, Sequence[Value]], Value]

#: Node class -> writer.
Table = dict[type[Node], Writer]


def write_node(context: Context, table: Table, name: str, inputs: Sequence[Value]) -> Value:
    """Write one node by the entry of its kind.

    Raises:
        GraphError: the kind has none.
    """
    node = context.graph.nodes[name]
    if type(node) not in table:
        raise GraphError(
            f"{name}: a {node.kind} has no ONNX form.",
            remedy="replace it; the kinds that have one are "
            f"{', '.join(sorted(kind.kind for kind in table))}, Feedback, Input and Output.",
            code="unsupported-node",
        )
    return table[type(node)](context, name, node, inputs)
