"""The NIR nodes without state, in both directions: Input, Output, convolutions, linear maps, pooling, Flatten, Scale,
Threshold, Delay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph.integration import Scheme
from neurodeploy.graph.nir_file import Fields
from neurodeploy.graph.nir_stored import StoredNode
from neurodeploy.graph.nodes import (
    Array,
    AvgPool2d,
    BatchNorm2d,
    Compare,
    Conv1d,
    Conv2d,
    Delay,
    Flatten,
    Input,
    Linear,
    Node,
    Output,
    Pair,
    Scale,
    Shape,
    SumPool2d,
    Threshold,
)
from neurodeploy.graph.padding import named_padding
from neurodeploy.neuron import Reset, Spikes


@dataclass(frozen=True)
class Choices:
    """What a caller decides where NIR leaves it open; None leaves it to the file and to convention."""

    reset: Reset | None = None
    compare: Compare | None = None
    spikes: Spikes | None = None
    scheme: Scheme | None = None
    dt_us: float | None = None
    continuous_time: bool = False
    tau_unit: Literal["s", "ms"] | None = None
    max_spikes: int = 16
    t_max: float | None = None


def read_layer(stored: StoredNode, choices: Choices) -> Node | None:
    """The node of a stored one without state; None for another kind.

    Raises:
        GraphError: a field is missing or malformed, or has no meaning here.
    """
    reader = _READERS.get(stored.kind)
    return None if reader is None else reader(stored, choices)


def _bias(stored: StoredNode) -> Array | None:
    bias = stored.array("bias", 1)
    if bias.any():
        return bias
    stored.remark("exact", "an all-zero bias is left out")
    return None


def _input(stored: StoredNode, _: Choices) -> Node:
    stored.stored("shape")
    shape = stored.shape("shape")
    if shape is None or len(shape) not in (1, 2, 3) or min(shape) < 1:
        raise stored.error(
            f"the input shape is {stored.fields['shape']!r}; it must be (C, H, W), (C, L) or (N,), of one sample and "
            "time step.",
            "export the network without batch and time axes.",
            "input-shape",
        )
    return Input(shape)


def _output(_stored: StoredNode, _: Choices) -> Node:
    return Output()


def _padding(stored: StoredNode, kernel: Sequence[int], stride: Pair, dilation: Pair) -> Pair:
    if isinstance(stored.fields.get("padding"), str):
        return named_padding(f"node {stored.name}", stored.fields["padding"], kernel, stride, dilation)
    return stored.pair("padding")


def _conv2d(stored: StoredNode, _: Choices) -> Node:
    weight = stored.array("weight", 4)
    stride, dilation = stored.pair("stride"), stored.pair("dilation")
    padding = _padding(stored, weight.shape[2:], stride, dilation)
    return Conv2d(weight, _bias(stored), stride, padding, dilation, stored.whole("groups"))


def _conv1d(stored: StoredNode, _: Choices) -> Node:
    weight = stored.array("weight", 3)
    stride, dilation = stored.whole("stride"), stored.whole("dilation")
    if isinstance(stored.fields.get("padding"), str):
        kernel = weight.shape[2]
        padding, _x = named_padding(
            f"node {stored.name}", stored.fields["padding"], (kernel, kernel), (stride, stride), (dilation, dilation)
        )
    else:
        padding = stored.whole("padding")
    return Conv1d(weight, _bias(stored), stride, padding, dilation, stored.whole("groups"))


def _affine(stored: StoredNode, _: Choices) -> Node:
    return Linear(stored.array("weight", 2), _bias(stored))


def _linear(stored: StoredNode, _: Choices) -> Node:
    return Linear(stored.array("weight", 2))


def _window(stored: StoredNode) -> tuple[Pair, Pair, Pair]:
    return stored.pair("kernel_size"), stored.pair("stride"), stored.pair("padding")


def _sum_pool(stored: StoredNode, _: Choices) -> Node:
    return SumPool2d(*_window(stored))


def _avg_pool(stored: StoredNode, _: Choices) -> Node:
    return AvgPool2d(*_window(stored))


def _flatten(stored: StoredNode, _: Choices) -> Node:
    start = stored.whole("start_dim") if stored.has("start_dim") else 1
    end = stored.whole("end_dim") if stored.has("end_dim") else -1
    if start not in (0, 1) or end not in (-1, 2, 3):
        raise stored.error(
            f"it flattens axes {start} to {end}; only a whole map can be flattened.",
            "flatten with start_dim=0, end_dim=-1.",
            "flatten",
        )
    if start == 1:
        stored.remark("assumed", "start_dim 1 is read as counting a batch axis: the whole map is flattened")
    return Flatten()


def _scale(stored: StoredNode, _: Choices) -> Node:
    return Scale(stored.per_neuron("scale"))


def _threshold(stored: StoredNode, choices: Choices) -> Node:
    return Threshold(stored.per_neuron("threshold"), compare=read_compare(stored, choices))


def read_compare(stored: StoredNode, choices: Choices) -> Compare:
    """How a potential is compared: as the caller says, else ``>=``."""
    if choices.compare == ">":
        stored.remark("exact", "a spike is fired at v > threshold, as NIR's equations say")
        return ">"
    stored.remark("assumed", "a spike is fired at v >= threshold (NIR's equations say >)")
    return ">="


def _delay(stored: StoredNode, choices: Choices) -> Node:
    seconds = stored.precise("delay")
    if (seconds < 0).any():
        raise stored.error("the delay is negative.", "check the exported delays.", "delay")
    if not seconds.any():
        return Delay(np.zeros(np.shape(seconds), np.int64))
    if choices.dt_us is None:
        raise stored.error(
            "a delay is in seconds; the time step decides how many steps it is.", "give dt_us.", "needs-dt"
        )
    exact = seconds / (choices.dt_us * 1e-6)
    if exact.max() > _MOST_STEPS:
        raise stored.error(
            f"the delay of {seconds.max():g} s is more than {_MOST_STEPS} steps of {choices.dt_us:g} us.",
            "check the unit of the delay (seconds) and dt_us.",
            "delay",
        )
    steps = np.rint(exact)
    # A delay that is stored in float32 is a whole number of steps within its own rounding.
    if (np.abs(exact - steps) > 1e-6 * np.maximum(steps, 1)).any():
        error = float(np.abs(exact - steps).max() * choices.dt_us)
        stored.remark("approximated", "the delay is rounded to whole time steps", error, "us of delay")
    return Delay(steps.astype(np.int64))


#: Steps of a delay at most: what is in flight has to be remembered.
_MOST_STEPS = 1_000_000

_READERS: dict[str, Callable[[StoredNode, Choices], Node]] = {
    "Input": _input,
    "Output": _output,
    "Conv2d": _conv2d,
    "Conv1d": _conv1d,
    "Affine": _affine,
    "Linear": _linear,
    "SumPool2d": _sum_pool,
    "AvgPool2d": _avg_pool,
    "Flatten": _flatten,
    "Scale": _scale,
    "Threshold": _threshold,
    "Delay": _delay,
}

LAYER_KINDS = tuple(_READERS)


def write_layer(name: str, node: Node, incoming: Shape, shape: Shape, dt_us: float | None) -> Fields | None:
    """The fields of a node without state, as NIR stores it; None for another kind.

    Args:
        name: of the node, for the error message.
        node: the node.
        incoming: shape it receives; ``()`` for an Input.
        shape: shape it produces.
        dt_us: time step, for delays.

    Raises:
        GraphError: a delay without a time step.
    """
    match node:
        case Input() | Output():
            return {"type": node.kind, "shape": np.array(shape)}
        case Conv2d():
            return {
                "type": "Conv2d",
                "input_shape": np.array(incoming[1:]),
                "weight": node.weight,
                "stride": np.array(node.stride),
                "padding": np.array(node.padding),
                "dilation": np.array(node.dilation),
                "groups": node.groups,
                "bias": _stored_bias(node.weight, node.bias),
            }
        case Conv1d():
            return {
                "type": "Conv1d",
                "input_shape": incoming[1],
                "weight": node.weight,
                "stride": node.stride,
                "padding": node.padding,
                "dilation": node.dilation,
                "groups": node.groups,
                "bias": _stored_bias(node.weight, node.bias),
            }
        case Linear(bias=None):
            return {"type": "Linear", "weight": node.weight}
        case Linear():
            return {"type": "Affine", "weight": node.weight, "bias": node.bias}
        case BatchNorm2d():
            return _batch_norm(name, node, incoming)
        case SumPool2d():
            return {
                "type": node.kind,
                "kernel_size": np.array(node.kernel),
                "stride": np.array(node.stride),
                "padding": np.array(node.padding),
            }
        case Flatten():
            return {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": np.array(incoming)}
        case Scale():
            return {"type": "Scale", "scale": _full(node.scale, shape)}
        case Threshold():
            return {"type": "Threshold", "threshold": _full(node.threshold, shape)}
        case Delay():
            if dt_us is None and np.any(node.steps):
                raise GraphError(
                    f"{name}: a Delay counts time steps, NIR counts seconds.", remedy="give dt_us.", code="needs-dt"
                )
            return {"type": "Delay", "delay": _full(np.asarray(node.steps) * ((dt_us or 0) * 1e-6), shape)}
    return None


#: Channels of a normalisation of vectors, which NIR can only say as a matrix.
_WIDEST = 8192


def _stored_bias(weight: Array, bias: Array | None) -> Array:
    return np.zeros(weight.shape[0], weight.dtype) if bias is None else bias


def _full(value: Array, shape: Shape) -> Array:
    return np.ascontiguousarray(np.broadcast_to(value, shape))


def _batch_norm(name: str, node: BatchNorm2d, incoming: Shape) -> Fields:
    """A normalisation as the linear map it is: one factor and one bias per channel, rounded to float32."""
    gain = node.scale.astype(np.float64) / np.sqrt(node.variance.astype(np.float64) + node.epsilon)
    bias = (node.shift - node.mean.astype(np.float64) * gain).astype(np.float32)
    channels = gain.size
    if len(incoming) == 1 and channels > _WIDEST:
        raise GraphError(
            f"{name}: NIR would need a matrix of {channels} x {channels} for this BatchNorm2d.",
            remedy="fold it into the layer before it (neurodeploy.quantize.folding.fold_batch_norm).",
            code="batch-norm",
        )
    if len(incoming) == 1:
        return {"type": "Affine", "weight": np.diag(gain).astype(np.float32), "bias": bias}
    one_d = len(incoming) == 2
    return {
        "type": "Conv1d" if one_d else "Conv2d",
        "input_shape": incoming[1] if one_d else np.array(incoming[1:]),
        "weight": gain.astype(np.float32).reshape(channels, 1, *[1] * (len(incoming) - 1)),
        "stride": 1 if one_d else np.array((1, 1)),
        "padding": 0 if one_d else np.array((0, 0)),
        "dilation": 1 if one_d else np.array((1, 1)),
        "groups": channels,
        "bias": bias,
    }
