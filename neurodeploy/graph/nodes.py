"""The typed nodes of the graph. A node's fields are its whole meaning; nothing is implied by a name or by metadata.

Shapes are those of one time step of one sample: ``(C, H, W)`` for maps, ``(N,)`` for vectors. Every node states the
shape it produces from the shapes it receives (``output_shape``) and refuses what it cannot take.

Float graphs hold float32 arrays. Quantized graphs are the same nodes holding integers (see ``neurodeploy.quantize``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import GraphError
from neurodeploy.graph.integration import Scheme, step_factors
from neurodeploy.neuron import Reset, Spikes, VMinPosition

Array = NDArray[Any]
Shape = tuple[int, ...]
Pair = tuple[int, int]

#: ``>=`` fires at the threshold, ``>`` only above it (NIR's equations, snnTorch).
Compare = Literal[">=", ">"]


def _one() -> Array:
    return np.array(1, np.float32)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and np.array_equal(a, b)
    return bool(a == b)


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. Two nodes are equal when their kinds and all their fields (arrays by value and dtype) are."""

    kind: ClassVar[str] = "node"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            _equal(getattr(self, part.name), getattr(other, part.name)) for part in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Shape this node produces. ``name`` is the node's name in its graph, for the error message.

        Raises:
            GraphError: the incoming shapes do not fit the node.
        """
        return _only(name, self, inputs)


def _only(name: str, node: Node, inputs: Sequence[Shape]) -> Shape:
    if not inputs:
        raise GraphError(
            f"{name} ({node.kind}) has no input.", remedy="connect it to an Input or remove it.", code="unconnected"
        )
    if len(inputs) != 1:
        raise GraphError(
            f"{name}: a {node.kind} takes exactly one input, it has {len(inputs)}.",
            remedy="join several inputs with an Add node (nd.nn.Merge in a torch module).",
            code="fan-in",
        )
    return inputs[0]


def _map_shape(name: str, node: Node, inputs: Sequence[Shape]) -> tuple[int, int, int]:
    shape = _only(name, node, inputs)
    if len(shape) != 3:
        raise GraphError(
            f"{name}: a {node.kind} takes a map (C, H, W), it receives shape {shape}.",
            remedy="remove the Flatten before it, or use a Linear layer.",
            code="shape",
        )
    return shape


def _check_weight(name: str, weight: Array, bias: Array | None, axes: str) -> None:
    wanted = len(axes.split(", "))
    if weight.ndim != wanted or not weight.size:
        raise GraphError(
            f"{name}: the weight has shape {weight.shape}; it must have {wanted} axes [{axes}], none of them empty.",
            remedy="check the layer's weight; a layer without inputs or outputs is left out.",
            code="shape",
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise GraphError(
            f"{name}: the bias has shape {bias.shape}; the weight {weight.shape} has {weight.shape[0]} outputs.",
            remedy="give one bias per output.",
            code="shape",
        )


def _check_groups(name: str, weight: Array, groups: int, shape: Shape) -> None:
    out, per_group = weight.shape[:2]
    if groups < 1 or out % groups:
        raise GraphError(
            f"{name}: {out} output channels cannot be split into {groups} groups of equal size (shape of the "
            f"weight {weight.shape}).",
            remedy="use a number of channels that the groups divide.",
            code="shape",
        )
    if per_group * groups != shape[0]:
        raise GraphError(
            f"{name}: the weight {weight.shape} with groups {groups} takes {per_group * groups} "
            f"channels, it receives {shape[0]} (shape {shape}).",
            remedy="check the input shape given for the network.",
            code="shape",
        )


def _window(name: str, node: Node, size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    if min(kernel, stride, dilation) < 1 or padding < 0:
        raise GraphError(
            f"{name}: a {node.kind} with kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}; "
            "kernel, stride and dilation must be at least 1, padding at least 0.",
            remedy="correct the option that is too small.",
            code="window",
        )
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if out < 1:
        raise GraphError(
            f"{name}: the {node.kind} window of {kernel} (dilation {dilation}, padding {padding}) is larger than its "
            f"input of {size}.",
            remedy="use a smaller kernel or more padding.",
            code="shape",
        )
    return out


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Where events or rasters enter. ``shape``: ``(C, H, W)`` or ``(N,)``."""

    kind: ClassVar[str] = "Input"
    shape: Shape

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """The declared shape; an Input has no predecessors."""
        if inputs:
            raise GraphError(
                f"{name}: an Input has no incoming edge, it has {len(inputs)}.",
                remedy="remove the edge into it.",
                code="fan-in",
            )
        if not self.shape or min(self.shape) < 1:
            raise GraphError(
                f"{name}: the input shape is {self.shape}; it must be (C, H, W) or (N,), each at least 1.",
                remedy="give the shape of one sample and time step.",
                code="input-shape",
            )
        return self.shape


@dataclass(frozen=True, eq=False)
class Output(Node):
    """Where the network's result leaves."""

    kind: ClassVar[str] = "Output"


@dataclass(frozen=True, eq=False)
class Conv2d(Node):
    """Cross-correlation as in torch.

    ``weight``: ``[out, in / groups, ky, kx]``; ``bias``: ``[out]`` or None; pairs are (y, x).
    """

    kind: ClassVar[str] = "Conv2d"
    weight: Array
    bias: Array | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """``(out, H', W')`` with ``H' = floor((H + 2p - d(k-1) - 1) / s) + 1``."""
        c, h, w = _map_shape(name, self, inputs)
        _check_weight(name, self.weight, self.bias, "out, in / groups, ky, kx")
        _check_groups(name, self.weight, self.groups, (c, h, w))
        out, _, ky, kx = self.weight.shape
        return (
            out,
            _window(name, self, h, ky, self.stride[0], self.padding[0], self.dilation[0]),
            _window(name, self, w, kx, self.stride[1], self.padding[1], self.dilation[1]),
        )


@dataclass(frozen=True, eq=False)
class Conv1d(Node):
    """Cross-correlation over one axis, as in torch, on ``(C, L)``.

    ``weight``: ``[out, in / groups, k]``; ``bias``: ``[out]`` or None.
    """

    kind: ClassVar[str] = "Conv1d"
    weight: Array
    bias: Array | None = None
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """``(out, L')`` with ``L' = floor((L + 2p - d(k-1) - 1) / s) + 1``."""
        shape = _only(name, self, inputs)
        if len(shape) != 2:
            raise GraphError(
                f"{name}: a Conv1d takes (C, L), it receives shape {shape}.",
                remedy="use a Conv2d for maps, a Linear for vectors.",
                code="shape",
            )
        _check_weight(name, self.weight, self.bias, "out, in / groups, k")
        _check_groups(name, self.weight, self.groups, shape)
        window = _window(name, self, shape[1], self.weight.shape[2], self.stride, self.padding, self.dilation)
        return (self.weight.shape[0], window)


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """``weight`` ``[out, in]``, ``bias`` ``[out]`` or None, on a vector ``(in,)``."""

    kind: ClassVar[str] = "Linear"
    weight: Array
    bias: Array | None = None

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """``(out,)``."""
        shape = _only(name, self, inputs)
        _check_weight(name, self.weight, self.bias, "out, in")
        if shape != (self.weight.shape[1],):
            raise GraphError(
                f"{name}: the weight {self.weight.shape} takes shape ({self.weight.shape[1]},), it receives {shape}.",
                remedy="put a Flatten before it, or check the input shape given for the network.",
                code="shape",
            )
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False)
class BatchNorm2d(Node):
    """Inference-time normalisation: ``scale * (x - mean) / sqrt(variance + epsilon) + shift``; arrays ``[C]``."""

    kind: ClassVar[str] = "BatchNorm2d"
    mean: Array
    variance: Array
    scale: Array
    shift: Array
    epsilon: float = 1e-5

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged."""
        shape = _only(name, self, inputs)
        for part in ("mean", "variance", "scale", "shift"):
            found = np.shape(getattr(self, part))
            if len(found) != 1 or shape[0] != found[0]:
                raise GraphError(
                    f"{name}: normalises {found[0] if len(found) == 1 else found} channels ({part}), it receives shape "
                    f"{shape}.",
                    remedy="give mean, variance, scale and shift one number per channel of the layer before it.",
                    code="shape",
                )
        return shape


@dataclass(frozen=True, eq=False)
class SumPool2d(Node):
    """Sum over windows; pairs are (y, x). Windows that do not fit are dropped, as in torch (``ceil_mode=False``)."""

    kind: ClassVar[str] = "SumPool2d"
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """``(C, H', W')``."""
        c, h, w = _map_shape(name, self, inputs)
        return (
            c,
            _window(name, self, h, self.kernel[0], self.stride[0], self.padding[0]),
            _window(name, self, w, self.kernel[1], self.stride[1], self.padding[1]),
        )


@dataclass(frozen=True, eq=False)
class AvgPool2d(SumPool2d):
    """Mean over windows (padding counts as zeros)."""

    kind: ClassVar[str] = "AvgPool2d"


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """``(C, H, W) -> (C * H * W,)``, channel slowest."""

    kind: ClassVar[str] = "Flatten"

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """``(N,)``."""
        shape = _only(name, self, inputs)
        return (int(np.prod(shape)),)


@dataclass(frozen=True, eq=False)
class Add(Node):
    """Sum of two or more inputs of equal shape (a merge of spike streams)."""

    kind: ClassVar[str] = "Add"

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """The common shape."""
        if len(inputs) < 2 or len(set(inputs)) != 1:
            raise GraphError(
                f"{name}: an Add takes two or more inputs of one shape, it receives {list(inputs)}.",
                remedy="make the branches produce the same shape.",
                code="shape",
            )
        return inputs[0]


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Inputs one after the other along the channels (the first axis), in the order of the edges into the node."""

    kind: ClassVar[str] = "Concat"

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """``(sum of C, H, W)``, or ``(sum of N,)``."""
        if len(inputs) < 2 or len({shape[1:] for shape in inputs}) != 1:
            raise GraphError(
                f"{name}: a Concat takes two or more inputs whose maps have one height and width, it receives "
                f"{list(inputs)}.",
                remedy="make the branches produce maps of one size; only the numbers of channels may differ.",
                code="shape",
            )
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])


@dataclass(frozen=True, eq=False)
class Relu(Node):
    """``max(x, 0)``: the unit of an ANN, which ``nd.convert`` turns into neurons."""

    kind: ClassVar[str] = "Relu"


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """``scale * x``, element by element; ``scale``: scalar array ``[]`` or of the node's shape."""

    kind: ClassVar[str] = "Scale"
    scale: Array

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged."""
        return _elementwise(name, self, inputs, ("scale",))


@dataclass(frozen=True, eq=False)
class Threshold(Node):
    """1 where the input reaches the threshold (``compare``), else 0; there is no state.

    ``threshold``: scalar array ``[]`` or of the node's shape.
    """

    kind: ClassVar[str] = "Threshold"
    threshold: Array
    compare: Compare = ">="

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged."""
        _choice(name, self, "compare", self.compare, get_args(Compare))
        return _elementwise(name, self, inputs, ("threshold",))


@dataclass(frozen=True, eq=False)
class Delay(Node):
    """The input of ``steps`` time steps before, 0 until then.

    ``steps``: whole numbers, at least 0; scalar array ``[]`` or of the node's shape.
    """

    kind: ClassVar[str] = "Delay"
    steps: Array

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged."""
        if np.asarray(self.steps).dtype.kind not in "iu" or np.min(self.steps) < 0:
            raise GraphError(
                f"{name}: a Delay of {self.steps!r} steps; it must be whole numbers, at least 0.",
                remedy="give the delay as an integer array of time steps.",
                code="delay",
            )
        return _elementwise(name, self, inputs, ("steps",))


@dataclass(frozen=True, eq=False)
class Feedback(Node):
    """The input of the step before, 0 in the first: closes a loop (recurrent connections).

    A recurrent network is simulated in steps with one step of delay in every loop; this node says where it is. Its
    shape is declared, because shapes are inferred along the other edges.
    """

    kind: ClassVar[str] = "Feedback"
    shape: Shape

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """The declared shape."""
        if _only(name, self, inputs) != self.shape:
            raise GraphError(
                f"{name}: this Feedback is declared with shape {self.shape}, it receives {inputs[0]}.",
                remedy="declare the shape of the node it follows.",
                code="shape",
            )
        return self.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Membrane(Node):
    """A potential with a leak; what LI and Neuron share.

    One step is ``v = decay v + (input_gain x + (1 - decay) v_leak)``.

    Attributes:
        decay: factor on the potential per time step; 1 is no leak, below 1 leaky. Scalar array ``[]`` or one per
            neuron (the node's shape), like all arrays here.
        input_gain: factor on the input; ``1 - decay`` for a LIF that normalises its input.
        v_leak: potential without input, or None for 0.
        initial_v: potential at the start, or None for 0.
        scheme: how the step was made from ``tau dv/dt = v_leak - v + r x``; None for a neuron defined in steps.
        dt_us: the time step in microseconds; given with ``scheme``, like the next two.
        tau: time constants in seconds, float64.
        r: resistances, float64. ``decay`` and ``input_gain`` are what ``scheme`` makes of ``tau`` and ``r``, as
            float32.
    """

    decay: Array = field(default_factory=_one)
    input_gain: Array = field(default_factory=_one)
    v_leak: Array | None = None
    initial_v: Array | None = None
    scheme: Scheme | None = None
    dt_us: float | None = None
    tau: Array | None = None
    r: Array | None = None

    _PER_NEURON: ClassVar[tuple[str, ...]] = ("decay", "input_gain", "v_leak", "initial_v", "tau", "r")

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged; per-neuron parameters must have the shape of the layer."""
        shape = _elementwise(name, self, inputs, self._PER_NEURON)
        if self.scheme is not None or self.dt_us is not None or self.tau is not None or self.r is not None:
            self._check_integration(name)
        return shape

    def _check_integration(self, name: str) -> None:
        if self.scheme is None or self.dt_us is None or self.tau is None or self.r is None:
            raise GraphError(
                f"{name}: of scheme, dt_us, tau and r only some are given.",
                remedy="give all four (a neuron in continuous time) or none (a neuron defined in steps).",
                code="integration",
            )
        _choice(name, self, "scheme", self.scheme, get_args(Scheme))
        if not self.dt_us > 0 or not np.all(np.asarray(self.tau) > 0):
            raise GraphError(
                f"{name}: dt_us {self.dt_us} and tau {np.min(self.tau)} must be positive.",
                remedy="check the time constants.",
                code="integration",
            )
        factors = step_factors(self.scheme, self.dt_us, self.tau, self.r)
        for part, wanted in zip(("decay", "input_gain"), factors, strict=True):
            if not np.all(np.asarray(getattr(self, part), np.float32) == wanted.astype(np.float32)):
                raise GraphError(
                    f"{name}: {part} is not what scheme {self.scheme!r} makes of tau, r and dt_us.",
                    remedy=f"leave scheme, dt_us, tau and r out where {part} is changed.",
                    code="integration",
                )


@dataclass(frozen=True, eq=False)
class LI(Membrane):
    """Leaky integrators: the potential after each step is the output; there are no spikes.

    The synaptic filter of a current-based neuron is one too: ``tau_syn dI/dt = -I + w_in x`` with ``r`` = ``w_in``.
    """

    kind: ClassVar[str] = "LI"


@dataclass(frozen=True, eq=False)
class Neuron(Membrane):
    """A layer of integrate-and-fire neurons; the step is defined in ``neurodeploy.neuron``.

    Attributes:
        threshold: spike threshold, scalar array ``[]`` or one per neuron (the node's shape).
        v_min: lower bound of the potential, like ``threshold``, or None for no bound.
        reset: what a spike does to the potential; ``"value"`` sets it to ``v_reset``.
        v_reset: like ``threshold``; given with ``reset="value"``.
        spikes: how many spikes one neuron can fire in one step.
        v_min_position: where in the step ``v_min`` clips.
        compare: how the potential is compared with the threshold.

    The fields of ``Membrane`` come behind these, by name only.
    """

    kind: ClassVar[str] = "Neuron"
    threshold: Array
    v_min: Array | None = None
    reset: Reset | Literal["value"] = "subtract"
    v_reset: Array | None = None
    spikes: Spikes = "multi"
    v_min_position: VMinPosition = "after_reset"
    compare: Compare = ">="

    _PER_NEURON: ClassVar[tuple[str, ...]] = ("threshold", "v_min", "v_reset", *Membrane._PER_NEURON)

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged; per-neuron parameters must have the shape of the layer."""
        _choice(name, self, "compare", self.compare, get_args(Compare))
        _choice(name, self, "reset", self.reset, (*get_args(Reset), "value"))
        _choice(name, self, "v_min_position", self.v_min_position, get_args(VMinPosition))
        if self.spikes not in ("multi", "single") and not (type(self.spikes) is int and self.spikes >= 1):
            raise GraphError(
                f"{name}: spikes is {self.spikes!r}.",
                remedy="choose 'multi', 'single' or a whole number of spikes per step, at least 1.",
                code="option",
            )
        if (self.reset == "value") != (self.v_reset is not None):
            raise GraphError(
                f"{name}: reset {self.reset!r} with v_reset {self.v_reset}.",
                remedy="give v_reset together with reset='value', and only then.",
                code="reset",
            )
        return super().output_shape(name, inputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class CubaLIF(Node):
    """A layer of current-based LIF neurons in continuous time; what passes from layer to layer are spike times.

    ``du/dt = -u / tau_mem + i_exc - i_inh`` and ``di_r/dt = -i_r / tau_syn_r``, with potentials relative to the rest.
    An input spike of weight ``w`` (what the weights before the node give) adds ``input_gain * abs(w)`` to the current
    of the receptor that the sign of ``w`` chooses. A spike is fired when ``u`` reaches the threshold from below. All is
    in seconds and float64; each array is a scalar ``[]`` or one value per neuron (the node's shape).

    Attributes:
        tau_mem, tau_syn_exc, tau_syn_inh: time constants, > 0.
        threshold: > 0.
        input_gain: per second, > 0.
        max_spikes: spikes that a neuron can fire in one run.
        t_max: end of a run, or None: until all are at rest.
        reset: ``"value"``: a spike sets ``u`` to ``v_reset``, where it is held for ``t_ref`` while the currents flow
            on. ``"subtract"``: ``u`` loses ``drop``.
        v_reset: with "value", below the threshold.
        t_ref: with "value", >= 0, or None for 0. ``inf``: one spike at most.
        drop: with "subtract", > 0.
    """

    kind: ClassVar[str] = "CubaLIF"
    tau_mem: Array
    tau_syn_exc: Array
    tau_syn_inh: Array
    threshold: Array
    input_gain: Array
    max_spikes: int
    t_max: float | None = None
    reset: Literal["value", "subtract"] = "value"
    v_reset: Array | None = None
    t_ref: Array | None = None
    drop: Array | None = None

    def output_shape(self, name: str, inputs: Sequence[Shape]) -> Shape:
        """Unchanged; per-neuron constants must have the shape of the layer and be in their range."""
        _choice(name, self, "reset", self.reset, ("value", "subtract"))
        given = ("v_reset", "t_ref") if self.drop is None else ("drop",)
        if (self.reset == "value") != (self.v_reset is not None) or (self.reset == "subtract") != (
            self.drop is not None and self.t_ref is None
        ):
            raise GraphError(
                f"{name}: reset {self.reset!r} with {' and '.join(given)}.",
                remedy="give v_reset (and t_ref) with reset='value', drop with reset='subtract', and only then.",
                code="reset",
            )
        for part in ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold", "input_gain", "drop"):
            if (value := getattr(self, part)) is not None:
                _in_range(name, self, part, value, (value > 0) & np.isfinite(value), "above 0 and finite")
        if self.v_reset is not None:
            below = (self.v_reset < self.threshold) & np.isfinite(self.v_reset)
            _in_range(
                name, self, "v_reset", np.broadcast_to(self.v_reset, np.shape(below)), below, "below the threshold"
            )
        if self.t_ref is not None:
            _in_range(name, self, "t_ref", self.t_ref, self.t_ref >= 0, "at least 0")
        if self.max_spikes < 1 or not (self.t_max is None or 0 < self.t_max < np.inf):
            raise GraphError(
                f"{name}: max_spikes {self.max_spikes} and t_max {self.t_max}; a neuron has at least 1 spike, a run a "
                "length above 0.",
                remedy="give max_spikes >= 1 and t_max in seconds, or None for a run without end.",
                code="option",
            )
        constants = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold", "input_gain", "v_reset", "t_ref", "drop")
        return _elementwise(name, self, inputs, constants)


def _in_range(name: str, node: Node, part: str, value: Array, fits: Array, rule: str) -> None:
    if not np.all(fits):
        worst = float(np.ravel(value)[int(np.argmin(np.ravel(fits)))])
        raise GraphError(
            f"{name}: {part} of this {node.kind} is {worst:g}; it must be {rule}.",
            remedy="check the constants, which are in seconds and relative to the rest.",
            code="constants",
        )


def _elementwise(name: str, node: Node, inputs: Sequence[Shape], parameters: Sequence[str]) -> Shape:
    """The shape of the only input; the named parameters must be scalar or have it."""
    shape = _only(name, node, inputs)
    for parameter in parameters:
        value = getattr(node, parameter)
        if value is not None and np.shape(value) not in ((), shape):
            raise GraphError(
                f"{name}: {parameter} has shape {np.shape(value)}; the layer has shape {shape}.",
                remedy="give one value for the layer or one per neuron.",
                code="shape",
            )
    return shape


def _choice(name: str, node: Node, option: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise GraphError(
            f"{name}: {option} of this {node.kind} is {value!r}.",
            remedy=f"the choices are: {', '.join(allowed)}.",
            code="option",
        )
