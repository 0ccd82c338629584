"""An algorithm over ``native/layer.cpp``: two opaque operators, and the autograd function around them.

EXODUS and SLAYER differ in one term of the compiled backward scan, and in nothing here. Opaque operators keep
``torch.compile(fullgraph=True)`` from looking inside; everything differentiable is in one ``autograd.Function``, whose
backward is the second operator.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from neurodeploy import buffers
from neurodeploy.errors import KernelError
from neurodeploy.extension import native as _native
from neurodeploy.kernel import (
    CHECKPOINT_EVERY,
    Gradients,
    Memory,
    Neuron,
    Output,
    Parameters,
    Saved,
    check_arguments,
    check_device,
    check_state,
    gpu_module,
)
from neurodeploy.threads import threads_for

RESETS = ("subtract", "zero", "none")
"""The position is the enumerator in ``native/neuron.hpp``."""

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
LAYER_PARAMETERS = (
    "Tensor decay, Tensor threshold, Tensor input_gain, Tensor unit, Tensor? syn_decay, Tensor? adapt_decay, "
    "Tensor? adapt_scale, Tensor? weight, Tensor? bias"
)
LAYER_OPTIONS = (
    "str reset, int max_spikes, float? v_min, str v_min_position, int surrogate, float width, float scale, "
    "bool soft, bool time_major, str memory, bool detach_threshold, bool wants_parameters"
)
_FORWARD = f"(Tensor x, Tensor state, {LAYER_PARAMETERS}, {LAYER_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
_BACKWARD = (
    "(Tensor grad_spikes, Tensor? grad_v, Tensor grad_state, Tensor? x, Tensor kept, Tensor drive, Tensor adaptation, "
    f"Tensor? spikes, Tensor state, {LAYER_PARAMETERS}, {LAYER_OPTIONS}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_SCALARS = 7
"""Parameters with one number per neuron; weight and bias follow them."""


class LayerOptions(NamedTuple):
    """Every operator's last arguments; the first eight are :meth:`Neuron.arguments`."""

    reset: str
    max_spikes: int
    v_min: float | None
    v_min_position: str
    surrogate: int
    width: float
    scale: float
    soft: bool
    time_major: bool
    memory: str
    detach_threshold: bool
    wants_parameters: bool


def sizes(x: torch.Tensor, time_major: bool) -> tuple[int, int, int]:
    """Return (batch, steps, neurons)."""
    return (x.shape[1], x.shape[0], x.shape[2]) if time_major else (x.shape[0], x.shape[1], x.shape[2])


def split(arguments: tuple[Any, ...]) -> tuple[Parameters, LayerOptions]:
    """Parameters and options of an operator's last arguments."""
    count = len(Parameters._fields)
    return Parameters(*arguments[:count]), LayerOptions(*arguments[count:])


def kept_shapes(
    x: torch.Tensor, parameters: Parameters, options: LayerOptions
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of what the forward pass keeps: v like x or checkpoints [B, C, (S,) N], drive and b like x, or nothing."""
    nothing = (0,)
    if options.memory == "store":
        filtered = parameters.syn_decay is not None or parameters.weight is not None
        return (
            tuple(x.shape),
            tuple(x.shape) if filtered and options.wants_parameters else nothing,
            tuple(x.shape) if parameters.adapt_decay is not None else nothing,
        )
    if options.memory == "recompute":
        batch, steps, neurons = sizes(x, options.time_major)
        rows = len(parameters.state_rows)
        return (batch, -(-steps // CHECKPOINT_EVERY), *([rows] if rows > 1 else []), neurons), nothing, nothing
    return nothing, nothing, nothing


def _check_like(name: str, tensor: torch.Tensor | None, shape: tuple[int, ...], like: torch.Tensor) -> None:
    if tensor is None:
        return
    if tuple(tensor.shape) != shape or tensor.dtype != like.dtype or not tensor.is_contiguous():
        raise KernelError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)} and strides {tensor.stride()}; "
            f"the backward pass needs {like.dtype} of shape {shape}, contiguous.",
            remedy="pass what the forward operator returned, and gradients of its outputs' shapes.",
            code="kernel-shape",
        )


def check_saved(
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    kept: torch.Tensor,
    drive: torch.Tensor,
    adaptation: torch.Tensor,
    spikes: torch.Tensor | None,
    state: torch.Tensor,
    parameters: Parameters,
    options: LayerOptions,
) -> None:
    """Refuse what does not belong to the forward pass whose gradients these are.

    Raises:
        KernelError: a tensor has another shape, dtype or strides than the forward pass gave it.
    """
    shape = tuple(grad_spikes.shape)
    needed_kept, needed_drive, needed_adaptation = kept_shapes(grad_spikes, parameters, options)
    for name, tensor, needed, like in (
        ("grad_v", grad_v, shape, grad_state),
        ("x", x, shape, grad_spikes),
        ("kept", kept, needed_kept, grad_state),
        ("drive", drive, needed_drive, grad_state),
        ("adaptation", adaptation, needed_adaptation, grad_state),
        ("spikes", spikes, shape, grad_spikes),
        ("state", state, tuple(grad_state.shape), grad_state),
    ):
        _check_like(name, tensor, needed, like)
    if x is None and options.memory == "recompute":
        raise KernelError(
            "The input was not kept, and potentials are computed again from it.",
            remedy="pass the input to the backward operator.",
            code="kernel-shape",
        )


def _native_options(x: torch.Tensor, options: LayerOptions) -> Any:
    batch, steps, neurons = sizes(x, options.time_major)
    unlimited = float("-inf")
    limit = unlimited if options.v_min is None else options.v_min
    return _native.layer.Options(
        batch,
        steps,
        neurons,
        options.time_major,
        RESETS.index(options.reset),
        options.max_spikes,
        limit if options.v_min_position == "before_threshold" else unlimited,
        limit if options.v_min_position == "after_reset" else unlimited,
        options.surrogate,
        options.width,
        options.scale,
        options.soft,
        0.0 if options.detach_threshold else 1.0,
        CHECKPOINT_EVERY,
        threads_for(x.numel()),
    )


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(parameters: Parameters, by_source: torch.Tensor | None) -> list[int]:
    """Address and length of each parameter, then those of the lateral weights in both orders and of the bias."""
    scalars = [n for p in parameters[:_SCALARS] for n in (_address(p), 0 if p is None else p.shape[0])]
    return [*scalars, _address(by_source), _address(parameters.weight), _address(parameters.bias)]


def _by_source(parameters: Parameters) -> torch.Tensor | None:
    return None if parameters.weight is None else parameters.weight.t().contiguous()


def _forward_cpu(halves: Any, x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    parameters, options = split(arguments)
    check_arguments(x, parameters, state, soft_spikes=options.soft, time_major=options.time_major)
    spikes = buffers.empty(x.shape, x.dtype)
    kept, drive, adaptation = (buffers.empty(shape, x.dtype) for shape in kept_shapes(x, parameters, options))
    check_state(parameters, state)
    final_state = buffers.empty(state.shape, x.dtype)
    by_source = _by_source(parameters)
    halves.forward(
        x.dtype == torch.float64,
        _native_options(x, options),
        x.data_ptr(),
        state.data_ptr(),
        _addresses(parameters, by_source),
        spikes.data_ptr(),
        kept.data_ptr() if options.memory == "store" else 0,
        drive.data_ptr(),
        adaptation.data_ptr(),
        kept.data_ptr() if options.memory == "recompute" else 0,
        final_state.data_ptr(),
    )
    return spikes, kept, drive, adaptation, final_state


def _forward_fake(x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    kept = (state.new_empty(shape) for shape in kept_shapes(x, *split(arguments)))
    return x.new_empty(x.shape), *kept, state.new_empty(state.shape)


def _backward_cpu(
    halves: Any,
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    kept: torch.Tensor,
    drive: torch.Tensor,
    adaptation: torch.Tensor,
    spikes: torch.Tensor | None,
    state: torch.Tensor,
    *arguments: Any,
) -> tuple[torch.Tensor, ...]:
    parameters, options = split(arguments)
    check_arguments(grad_spikes, parameters, grad_state, soft_spikes=options.soft, time_major=options.time_major)
    check_saved(grad_spikes, grad_v, grad_state, x, kept, drive, adaptation, spikes, state, parameters, options)
    grad_x = buffers.empty(grad_spikes.shape, grad_spikes.dtype)
    grad_initial = buffers.empty(state.shape, state.dtype)
    grads = [torch.zeros(shape, dtype=state.dtype) for shape in gradient_shapes(parameters, options)]
    addresses = [grad.data_ptr() for grad in grads[: _SCALARS - 1]]
    by_source = _by_source(parameters)
    halves.backward(
        grad_spikes.dtype == torch.float64,
        _native_options(grad_spikes, options),
        grad_spikes.data_ptr(),
        _address(grad_v),
        grad_state.data_ptr(),
        kept.data_ptr() if options.memory == "store" else 0,
        drive.data_ptr(),
        adaptation.data_ptr(),
        kept.data_ptr() if options.memory == "recompute" else 0,
        _address(x),
        state.data_ptr(),
        _addresses(parameters, by_source),
        grad_x.data_ptr(),
        grad_initial.data_ptr(),
        [*addresses[:3], 0, *addresses[3:]],  # none for the unit
    )
    if parameters.weight is not None and options.wants_parameters:
        if spikes is None:
            raise KernelError(
                "The gradient of lateral weights needs the spikes of the forward pass.",
                remedy="pass them to the backward operator.",
                code="kernel-shape",
            )
        _add_lateral_gradients(grad_x, grad_state[-1], spikes, grads[-2], grads[-1], options.time_major)
    return grad_x, grad_initial, *grads


def _add_lateral_gradients(
    grad_x: torch.Tensor,
    grad_last: torch.Tensor,
    spikes: torch.Tensor,
    grad_weight: torch.Tensor,
    grad_bias: torch.Tensor,
    time_major: bool,
) -> None:
    """Add to the gradients of weight and bias: spikes of step t reach the current of step t + 1, with dL/dx as adjoint.

    ``grad_last`` is the gradient of the current that the last spikes leave behind in the state.
    """
    batch, steps, neurons = sizes(spikes, time_major)
    if batch * steps * neurons == 0:
        return
    if time_major:
        grad_weight.addmm_(grad_x[1:].reshape(-1, neurons).t(), spikes[:-1].reshape(-1, neurons))
        grad_weight.addmm_(grad_last.t(), spikes[-1])
    else:
        for b in range(batch):
            grad_weight.addmm_(grad_x[b, 1:].t(), spikes[b, :-1])
        grad_weight.addmm_(grad_last.t(), spikes[:, -1])
    if grad_bias.numel():
        later = grad_x[1:] if time_major else grad_x[:, 1:]
        grad_bias += later.sum((0, 1)) + grad_last.sum(0)


def gradient_shapes(parameters: Parameters, options: LayerOptions) -> list[tuple[int, ...]]:
    """Shapes of the gradients of all parameters but the unit; nothing where absent or not wanted."""
    wanted = options.wants_parameters
    return [
        tuple(value.shape) if wanted and value is not None else (0,)
        for name, value in zip(Parameters._fields, parameters, strict=True)
        if name != "unit"
    ]


def _backward_fake(
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    kept: torch.Tensor,
    drive: torch.Tensor,
    adaptation: torch.Tensor,
    spikes: torch.Tensor | None,
    state: torch.Tensor,
    *arguments: Any,
) -> tuple[torch.Tensor, ...]:
    grads = (state.new_empty(shape) for shape in gradient_shapes(*split(arguments)))
    return grad_spikes.new_empty(grad_spikes.shape), state.new_empty(state.shape), *grads


class _Layer(torch.autograd.Function):
    """Spikes and final state (and v between them, if recorded), with the gradient of the algorithm's operators."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        state: torch.Tensor,
        decay: torch.Tensor,
        threshold: torch.Tensor,
        input_gain: torch.Tensor,
        unit: torch.Tensor,
        syn_decay: torch.Tensor | None,
        adapt_decay: torch.Tensor | None,
        adapt_scale: torch.Tensor | None,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        operators: tuple[str, str],
        options: tuple[Any, ...],
        record_v: bool,
        keep_x: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator; ``keep_x`` where the backward pass will read the input."""
        parameters = Parameters(decay, threshold, input_gain, unit, syn_decay, adapt_decay, adapt_scale, weight, bias)
        spikes, kept, drive, adaptation, final_state = getattr(torch.ops.neurodeploy, operators[0])(
            x, state, *parameters, *options
        )
        keep_spikes = weight is not None and options[-1]
        ctx.save_for_backward(
            x if keep_x else None, kept, drive, adaptation, spikes if keep_spikes else None, state, *parameters
        )
        ctx.backward_operator = operators[1]
        ctx.options = options
        ctx.record_v = record_v
        return (spikes, kept, final_state) if record_v else (spikes, final_state)

    @staticmethod
    @once_differentiable  # a second derivative is refused instead of wrong
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradients of the outputs."""
        grad_spikes, grad_state = grads[0].contiguous(), grads[-1].contiguous()
        grad_v = grads[1].contiguous() if ctx.record_v else None
        saved = ctx.saved_tensors
        grad_x, grad_initial, *of_parameters = getattr(torch.ops.neurodeploy, ctx.backward_operator)(
            grad_spikes, grad_v, grad_state, *saved, *ctx.options
        )
        values = Parameters(*saved[6:])
        given = _named_gradients(values, of_parameters if ctx.options[-1] else None)
        return grad_x, grad_initial, *(given.get(name) for name in Parameters._fields), *(None,) * 4


def _named_gradients(parameters: Parameters, gradients: Sequence[torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """Gradients of the parameters there are by name; the operator's order is theirs without the unit."""
    if gradients is None:
        return {}
    names = [name for name in Parameters._fields if name != "unit"]
    return {
        name: gradient for name, gradient in zip(names, gradients, strict=True) if getattr(parameters, name) is not None
    }


def _on_gpu(name: str, half: str, *arguments: Any) -> tuple[torch.Tensor, ...]:
    """Run a half of the algorithm ``name`` on a GPU; its Triton kernels are imported here, at the first need."""
    outputs: tuple[torch.Tensor, ...] = getattr(gpu_module(f"neurodeploy.kernels.{name}.gpu"), half)(*arguments)
    return outputs


class NativeLayer:
    """The functions of :class:`neurodeploy.kernel.Kernel` for the algorithm ``name``, a submodule of ``_ext``.

    Attributes:
        operators: names of the forward and backward operators in ``torch.ops.neurodeploy``.
    """

    def __init__(self, name: str) -> None:
        self.operators = (f"{name}_forward", f"{name}_backward")
        halves = getattr(_native, name)
        for operator, schema in zip(self.operators, (_FORWARD, _BACKWARD), strict=True):
            _library.define(operator + schema)
        forward, backward = self.operators
        _library.impl(forward, partial(_forward_cpu, halves), "CPU")
        _library.impl(backward, partial(_backward_cpu, halves), "CPU")
        _library.impl(forward, partial(_on_gpu, name, "forward"), "CUDA")
        _library.impl(backward, partial(_on_gpu, name, "backward"), "CUDA")
        torch.library.register_fake(f"neurodeploy::{forward}", _forward_fake, lib=_library)
        torch.library.register_fake(f"neurodeploy::{backward}", _backward_fake, lib=_library)

    def apply(
        self,
        x: torch.Tensor,
        parameters: Parameters,
        state: torch.Tensor,
        neuron: Neuron,
        *,
        memory: Memory = "store",
        time_major: bool = False,
        record_v: bool = False,
    ) -> Output:
        """Run T steps, differentiably.

        Args:
            x: input [B, T, N] (or [T, B, N]), contiguous, float32 or float64.
            parameters: numbers per neuron, each [N] or [1], and lateral weights: what they switch on, a neuron has.
            state: before the first step: the potential [B, N], or [S, B, N] where a neuron has more than that.
            neuron: the choices of the step and the surrogate.
            memory: what to keep for the backward pass; without gradients nothing is kept.
            time_major: arrays are [T, B, N].
            record_v: also return v; its gradient is taken into account.

        Raises:
            KernelError: tensors the kernel cannot run on, or ``record_v`` with ``memory="recompute"``.
        """
        check_device(x)
        _check_memory(memory)
        if record_v and memory == "recompute":
            raise KernelError(
                "record_v keeps every potential, which is what memory='recompute' avoids.",
                remedy="use memory='store' where potentials are recorded.",
                code="record-v-recompute",
            )
        grad = torch.is_grad_enabled()
        wants_parameters = grad and any(value is not None and value.requires_grad for value in parameters)
        wants_any = grad and (x.requires_grad or state.requires_grad or wants_parameters)
        plain = parameters.syn_decay is None and parameters.weight is None
        outputs = _Layer.apply(  # type: ignore[no-untyped-call]
            x,
            state,
            *parameters,
            self.operators,
            layer_options(
                neuron,
                memory=memory if wants_any or record_v else "none",
                time_major=time_major,
                wants_parameters=wants_parameters,
            ),
            record_v,
            wants_any and (memory == "recompute" or (plain and parameters.input_gain.requires_grad)),
        )
        return Output(outputs[0], outputs[1] if record_v else None, outputs[-1])

    def forward(
        self,
        x: torch.Tensor,
        parameters: Parameters,
        state: torch.Tensor,
        neuron: Neuron,
        *,
        memory: Memory = "store",
        time_major: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, Saved]:
        """Run T steps; return (spikes, final state, what ``backward`` needs). Arguments as in ``apply``."""
        check_device(x)
        _check_memory(memory)
        options = layer_options(neuron, memory=memory, time_major=time_major, wants_parameters=True)
        spikes, kept, drive, adaptation, final_state = getattr(torch.ops.neurodeploy, self.operators[0])(
            x, state, *parameters, *options
        )
        saved = Saved(x, kept, state, parameters, neuron, memory, time_major, drive, adaptation, spikes)
        return spikes, final_state, saved

    def backward(
        self, grad_spikes: torch.Tensor, grad_v: torch.Tensor | None, grad_state: torch.Tensor, saved: Saved
    ) -> Gradients:
        """Return the gradients of input, initial state and parameters.

        Args:
            grad_spikes: dL/ds [B, T, N], contiguous.
            grad_v: direct dL/dv [B, T, N], contiguous; None is zero.
            grad_state: dL/d(final state): zero, or the next chunk's gradient of its initial state.
            saved: third result of ``forward``.
        """
        options = layer_options(saved.neuron, memory=saved.memory, time_major=saved.time_major, wants_parameters=True)
        grad_x, grad_initial, *of_parameters = getattr(torch.ops.neurodeploy, self.operators[1])(
            grad_spikes,
            grad_v,
            grad_state,
            saved.x,
            saved.kept,
            saved.drive,
            saved.adaptation,
            saved.spikes,
            saved.state,
            *saved.parameters,
            *options,
        )
        return Gradients(grad_x, grad_initial, **_named_gradients(saved.parameters, of_parameters))


def layer_options(neuron: Neuron, *, memory: str, time_major: bool, wants_parameters: bool) -> tuple[Any, ...]:
    """The last arguments of a layer's operators, as in :class:`LayerOptions`."""
    return (*neuron.arguments(), time_major, memory, neuron.detach_threshold, wants_parameters)


def _check_memory(memory: str) -> None:
    if memory not in ("store", "recompute"):
        raise KernelError(f"memory is {memory!r}.", remedy="choose 'store' or 'recompute'.", code="kernel-memory")
