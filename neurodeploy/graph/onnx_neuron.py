"""A neuron layer as a model-local ONNX function whose body is a ``Scan`` over time.

The function takes ``x [T * B, ...]``, ``steps_batch [2]`` (T, B), ``v_given [K, ...]`` with K <= B (the potentials of
the first K samples; the others start from ``v_default``), and the parameters; it gives ``spikes [T * B, ...]`` and
``v_final [B, ...]``. The step is that of ``neurodeploy/neuron.py``, operation by operation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from neurodeploy.graph.onnx_build import DOMAIN, OPSET, element_type, tensor
from neurodeploy.neuron import Reset, Spikes, VMinPosition


@dataclass(frozen=True)
class StepChoice:
    """What decides the operations of a neuron's step.

    Attributes:
        dtype: of potentials, parameters and spikes: float32, int32 or int64.
        leaks, scales_input: whether the potential is multiplied by ``decay``, the input by ``input_gain``.
        v_min: where the lower bound clips; None without one.
        reset, spikes: see ``neurodeploy/neuron.py``.
    """

    dtype: np.dtype[Any]
    leaks: bool
    scales_input: bool
    v_min: VMinPosition | None
    reset: Reset
    spikes: Spikes

    @property
    def name(self) -> str:
        """The function's name; one function is written for each choice that occurs."""
        parts = ["LIF" if self.leaks else "IAF", "subtract" if self.reset == "subtract" else f"reset_{self.reset}"]
        parts.append(self.spikes if isinstance(self.spikes, str) else f"max{self.spikes}")
        parts += ["input_gain"] * self.scales_input
        parts += [f"v_min_{self.v_min}"] * (self.v_min is not None)
        parts += [self.dtype.name] * (self.dtype.kind == "i")
        return "_".join(parts)

    @property
    def parameters(self) -> list[str]:
        """The function's inputs behind ``v_default``, in order."""
        present = {"threshold": True, "v_min": self.v_min, "decay": self.leaks, "input_gain": self.scales_input}
        return [name for name, wanted in present.items() if wanted]


def neuron_function(choice: StepChoice) -> onnx.FunctionProto:
    """The function of one choice."""
    node = helper.make_node
    body = helper.make_graph(
        _step(choice),
        "step",
        [_untyped(name, choice.dtype) for name in ("v_before", "x_t")],
        [_untyped(name, choice.dtype) for name in ("v_after", "spikes_t")],
    )
    nodes = [
        node("Shape", ["x"], ["folded"]),
        node("Shape", ["x"], ["neurons"], start=1),
        node("Concat", ["steps_batch", "neurons"], ["unfolded"], axis=0),
        node("Reshape", ["x", "unfolded"], ["x_steps"]),
        node("Shape", ["x_steps"], ["batch"], start=1, end=2),
        node("Shape", ["v_given"], ["given"], start=0, end=1),
        node("Sub", ["batch", "given"], ["missing"]),
        node("Concat", ["missing", "neurons"], ["missing_shape"], axis=0),
        node("Expand", ["v_default", "missing_shape"], ["v_missing"]),
        node("Concat", ["v_given", "v_missing"], ["v_initial"], axis=0),
        node("Scan", ["v_initial", "x_steps"], ["v_final", "spikes_steps"], num_scan_inputs=1, body=body),
        node("Reshape", ["spikes_steps", "folded"], ["spikes"]),
    ]
    inputs = ["x", "steps_batch", "v_given", "v_default", *choice.parameters]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, choice.name, inputs, ["spikes", "v_final"], nodes, opsets)


def _untyped(name: str, dtype: np.dtype[Any]) -> onnx.ValueInfoProto:
    """A value of any shape."""
    return helper.make_value_info(name, helper.make_tensor_type_proto(element_type(dtype), None))


def _step(choice: StepChoice) -> list[onnx.NodeProto]:
    """The operations of one time step: ``v_before``, ``x_t`` to ``v_after``, ``spikes_t``."""
    nodes: list[onnx.NodeProto] = []

    def op(operator: str, *inputs: str, out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [out], **attributes))
        return out

    def number(name: str, value: int) -> str:
        return op("Constant", out=name, value=tensor(name, np.array(value, choice.dtype)))

    def clipped(v: str, out: str) -> str:
        return op("Where", op("Less", v, "v_min", out=f"{out}_is_below"), "v_min", v, out=out)

    leaked = op("Mul", "decay", "v_before", out="leaked") if choice.leaks else "v_before"
    driven = op("Mul", "input_gain", "x_t", out="driven") if choice.scales_input else "x_t"
    v = op("Add", leaked, driven, out="v")
    if choice.v_min == "before_threshold":
        v = clipped(v, "v_bounded")
    if choice.spikes == "single" or choice.spikes == 1:
        fires = op("GreaterOrEqual", v, "threshold", out="fires")
        op("Cast", fires, out="spikes_t", to=element_type(choice.dtype))
    else:
        # trunc(v / threshold) where v > 0, else 0: a NaN never fires. Integer division truncates by itself.
        zero = number("zero", 0)
        if choice.dtype.kind == "i":
            count = op("Div", op("Max", v, zero, out="v_positive"), "threshold", out="count")
        else:
            whole = op("Floor", op("Div", v, "threshold", out="ratio"), out="whole")
            count = op("Where", op("Greater", v, zero, out="is_positive"), whole, zero, out="count")
        if choice.spikes == "multi":
            op("Identity", count, out="spikes_t")
        else:
            op("Min", count, number("most", choice.spikes), out="spikes_t")
    match choice.reset:
        case "subtract":
            v = op("Sub", v, op("Mul", "threshold", "spikes_t", out="taken"), out="v_reset")
        case "zero":
            zero = number("rest", 0)
            v = op("Where", op("Greater", "spikes_t", zero, out="fired"), zero, v, out="v_reset")
    if choice.v_min == "after_reset":
        v = clipped(v, "v_bounded")
    op("Identity", v, out="v_after")
    return nodes
