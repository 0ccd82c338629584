"""A neuron layer as a model-local ONNX function whose body is a ``Scan`` over time.

The function takes ``x [T * B, ...]``, ``steps_batch [2]`` (T, B), ``v_given [K, ...]`` with K <= B (the potentials of
the first K samples; the others start from ``v_default``), and the parameters; it gives ``y [T * B, ...]`` (spikes; the
potentials of an LI) and ``v_final [B, ...]``. The step is that of ``neurodeploy/neuron.py``, operation by operation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from neurodeploy.graph.nodes import LI, Neuron
from neurodeploy.graph.onnx_build import DOMAIN, OPSET, element_type, tensor, untyped


@dataclass(frozen=True)
class Step:
    """What decides the operations of one time step of a layer: one function is written for each Step that occurs.

    Attributes:
        node: the layer, of whose arrays only their being there counts.
        dtype: of potentials, parameters and spikes: float32, int32 or int64.
    """

    node: Neuron | LI
    dtype: np.dtype[Any]

    @property
    def parameters(self) -> list[str]:
        """The function's inputs behind ``v_default``, in order: the fields that the step uses."""
        node = self.node
        used = ["decay"] * (not is_one(node.decay)) + ["input_gain"] * (not is_one(node.input_gain))
        used += ["v_leak"] * (node.v_leak is not None and "decay" in used)
        if isinstance(node, Neuron):
            used += ["threshold", *(name for name in ("v_min", "v_reset") if getattr(node, name) is not None)]
        return used

    @property
    def name(self) -> str:
        """The function's name, which says the step."""
        node, used = self.node, self.parameters
        extras = [name for name in used if name in ("input_gain", "v_leak")]
        if isinstance(node, LI):
            return "_".join(["LI" if "decay" in used else "I", *extras])
        parts = ["LIF" if "decay" in used else "IAF", "subtract" if node.reset == "subtract" else f"reset_{node.reset}"]
        parts += [node.spikes if isinstance(node.spikes, str) else f"max{node.spikes}"]
        parts += ["above"] * (node.compare == ">") + extras
        parts += [f"v_min_{node.v_min_position}"] * (node.v_min is not None)
        return "_".join(parts + [self.dtype.name] * (self.dtype.kind == "i"))


def is_one(value: Any) -> bool:
    """Whether a factor is the single number 1, so that multiplying by it changes nothing."""
    return np.ndim(value) == 0 and bool(value == 1)


def neuron_function(step: Step) -> onnx.FunctionProto:
    """The function of one kind of step."""
    node, used = helper.make_node, step.parameters
    body = helper.make_graph(
        _operations(step),
        "step",
        [untyped(name, step.dtype) for name in ("v_before", "x_t")],
        [untyped(name, step.dtype) for name in ("v_after", "y_t")],
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
    ]
    if "v_leak" in used:
        nodes += [
            node("Constant", [], ["all"], value=tensor("all", np.array(1, step.dtype))),
            node("Sub", ["all", "decay"], ["lost"]),
            node("Mul", ["lost", "v_leak"], ["drift"]),
        ]
    nodes += [
        node("Scan", ["v_initial", "x_steps"], ["v_final", "y_steps"], num_scan_inputs=1, body=body),
        node("Reshape", ["y_steps", "folded"], ["y"]),
    ]
    inputs = ["x", "steps_batch", "v_given", "v_default", *used]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, step.name, inputs, ["y", "v_final"], nodes, opsets)


class _Operations:
    """The nodes of a step."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, *inputs: str, out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [out], **attributes))
        return out

    def number(self, name: str, value: int) -> str:
        return self.add("Constant", out=name, value=tensor(name, np.array(value, self.dtype)))

    def named(self, value: str, name: str) -> None:
        """Give a value that is no input of the step another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if one == value else one for one in names]

    def clipped(self, v: str, out: str) -> str:
        if self.dtype.kind == "i":
            return self.add("Max", v, "v_min", out=out)
        # Not Max: a NaN stays one.
        return self.add("Where", self.add("Less", v, "v_min", out=f"{out}_is_below"), "v_min", v, out=out)


def _operations(step: Step) -> list[onnx.NodeProto]:
    """One time step: ``v_before``, ``x_t`` to ``v_after``, ``y_t``."""
    ops, node, used = _Operations(step.dtype), step.node, step.parameters
    leaked = ops.add("Mul", "decay", "v_before", out="leaked") if "decay" in used else "v_before"
    driven = ops.add("Mul", "input_gain", "x_t", out="driven") if "input_gain" in used else "x_t"
    if "v_leak" in used:
        driven = ops.add("Add", driven, "drift", out="drifted")
    v = ops.add("Add", leaked, driven, out="v")
    if isinstance(node, LI):
        ops.named(v, "v_after")
        ops.add("Identity", "v_after", out="y_t")
        return ops.nodes
    if node.v_min is not None and node.v_min_position == "before_threshold":
        v = ops.clipped(v, "v_bounded")
    _fire(ops, node, v)
    if node.reset == "subtract":
        v = ops.add("Sub", v, ops.add("Mul", "threshold", "y_t", out="taken"), out="v_reset_to")
    elif node.reset != "none":
        zero = ops.number("rest", 0)
        fired = ops.add("Greater", "y_t", zero, out="fired")
        v = ops.add("Where", fired, "v_reset" if node.reset == "value" else zero, v, out="v_reset_to")
    if node.v_min is not None and node.v_min_position == "after_reset":
        v = ops.clipped(v, "v_bounded")
    ops.named(v, "v_after")
    return ops.nodes


def _fire(ops: _Operations, node: Neuron, v: str) -> None:
    """``y_t``: how often ``v`` reaches the threshold. A NaN never fires."""
    above = node.compare == ">"
    if node.spikes == "single" or node.spikes == 1:
        fires = ops.add("Greater" if above else "GreaterOrEqual", v, "threshold", out="fires")
        ops.add("Cast", fires, out="y_t", to=element_type(ops.dtype))
        return
    # The number of whole thresholds in v; with ">" of those below v. Integer division truncates by itself.
    zero = ops.number("zero", 0)
    if ops.dtype.kind == "i":
        reaching = ops.add("Sub", v, ops.number("one", 1), out="v_above") if above else v
        count = ops.add("Div", ops.add("Max", reaching, zero, out="v_positive"), "threshold", out="count")
    else:
        ratio = ops.add("Div", v, "threshold", out="ratio")
        if above:
            whole = ops.add("Sub", ops.add("Ceil", ratio, out="up"), ops.number("one", 1), out="whole")
        else:
            whole = ops.add("Floor", ratio, out="whole")
        count = ops.add("Where", ops.add("Greater", v, zero, out="is_positive"), whole, zero, out="count")
    if node.spikes == "multi":
        ops.named(count, "y_t")
    else:
        ops.add("Min", count, ops.number("most", int(node.spikes)), out="y_t")
