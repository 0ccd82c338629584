"""An algorithm over ``native/layer.cpp``: two opaque operators, and the autograd function around them.

EXODUS and SLAYER differ in one term of the compiled backward scan, and in nothing here. Opaque operators keep
``torch.compile(fullgraph=True)`` from looking inside; everything differentiable is in one ``autograd.Function``, whose
backward is the second operator.
"""

from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from neurodeploy import buffers
from neurodeploy.errors import KernelError
from neurodeploy.extension import native as _native
from neurodeploy.kernel import (
    CHECKPOINT_EVERY,
    Arguments,
    Gradients,
    Memory,
    Neuron,
    Output,
    Parameters,
    Saved,
    check_arguments,
    check_device,
)

RESETS = ("subtract", "zero", "none")
"""The position is the enumerator in ``native/neuron.hpp``."""

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_OPTIONS = (
    "str reset, int max_spikes, float? v_min, str v_min_position, int surrogate, float width, float scale, "
    "bool soft, bool time_major, str memory"
)
_FORWARD = (
    "(Tensor x, Tensor state, Tensor decay, Tensor threshold, Tensor input_gain, Tensor unit, "
    f"{_OPTIONS}) -> (Tensor, Tensor, Tensor)"
)
_BACKWARD = (
    "(Tensor grad_spikes, Tensor? grad_v, Tensor grad_state, Tensor? x, Tensor kept, Tensor state, "
    "Tensor decay, Tensor threshold, Tensor input_gain, Tensor unit, "
    f"{_OPTIONS}, bool parameters) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _sizes(x: torch.Tensor, time_major: bool) -> tuple[int, int, int]:
    return (x.shape[1], x.shape[0], x.shape[2]) if time_major else (x.shape[0], x.shape[1], x.shape[2])


def _kept_shape(x: torch.Tensor, time_major: bool, memory: str) -> tuple[int, ...]:
    """Shape of what the forward pass keeps: v like x, checkpoints [B, ceil(T / K), N], or nothing."""
    if memory == "store":
        return tuple(x.shape)
    if memory == "recompute":
        batch, steps, neurons = _sizes(x, time_major)
        return batch, -(-steps // CHECKPOINT_EVERY), neurons
    return (0,)


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


def _native_options(x: torch.Tensor, options: tuple[Any, ...]) -> Any:
    reset, max_spikes, v_min, v_min_position, surrogate, width, scale, soft, time_major, _memory = options
    batch, steps, neurons = _sizes(x, time_major)
    unlimited = float("-inf")
    before = v_min if v_min is not None and v_min_position == "before_threshold" else unlimited
    after = v_min if v_min is not None and v_min_position == "after_reset" else unlimited
    return _native.layer.Options(
        batch,
        steps,
        neurons,
        time_major,
        RESETS.index(reset),
        max_spikes,
        before,
        after,
        surrogate,
        width,
        scale,
        soft,
        CHECKPOINT_EVERY,
        torch.get_num_threads(),
    )


def _addresses(parameters: Parameters) -> list[int]:
    """Address and length of each parameter."""
    return [number for tensor in parameters for number in (tensor.data_ptr(), tensor.shape[0])]


def _forward_cpu(
    halves: Any,
    x: torch.Tensor,
    state: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    *options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    soft, time_major, memory = options[-3:]
    parameters = Parameters(decay, threshold, input_gain, unit)
    check_arguments(x, parameters, state, soft_spikes=soft, time_major=time_major)
    spikes = buffers.empty(x.shape, x.dtype)
    kept = buffers.empty(_kept_shape(x, time_major, memory), x.dtype)
    final_state = buffers.empty(state.shape, x.dtype)
    halves.forward(
        x.dtype == torch.float64,
        _native_options(x, options),
        x.data_ptr(),
        state.data_ptr(),
        *_addresses(parameters),
        spikes.data_ptr(),
        kept.data_ptr() if memory == "store" else 0,
        kept.data_ptr() if memory == "recompute" else 0,
        final_state.data_ptr(),
    )
    return spikes, kept, final_state


def _forward_fake(
    x: torch.Tensor,
    state: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    *options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    _soft, time_major, memory = options[-3:]
    return x.new_empty(x.shape), x.new_empty(_kept_shape(x, time_major, memory)), state.new_empty(state.shape)


def _backward_cpu(
    halves: Any,
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    kept: torch.Tensor,
    state: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    *options_and_parameters: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    *options, wants_parameters = options_and_parameters
    soft, time_major, memory = options[-3:]
    parameters = Parameters(decay, threshold, input_gain, unit)
    check_arguments(grad_spikes, parameters, grad_state, soft_spikes=soft, time_major=time_major)
    _check_like("grad_v", grad_v, tuple(grad_spikes.shape), grad_spikes)
    _check_like("x", x, tuple(grad_spikes.shape), grad_spikes)
    _check_like("kept", kept, _kept_shape(grad_spikes, time_major, memory), grad_spikes)
    _check_like("state", state, tuple(grad_state.shape), grad_spikes)
    if x is None and memory == "recompute":
        raise KernelError(
            "The input was not kept, and potentials are computed again from it.",
            remedy="pass the input to the backward operator.",
            code="kernel-shape",
        )
    grad_x = buffers.empty(grad_spikes.shape, grad_spikes.dtype)
    grad_initial = buffers.empty(state.shape, state.dtype)
    grads = [torch.empty(p.shape if wants_parameters else (0,), dtype=state.dtype) for p in parameters[:3]]
    halves.backward(
        grad_spikes.dtype == torch.float64,
        _native_options(grad_spikes, tuple(options)),
        grad_spikes.data_ptr(),
        grad_v.data_ptr() if grad_v is not None else 0,
        grad_state.data_ptr(),
        kept.data_ptr() if memory == "store" else 0,
        kept.data_ptr() if memory == "recompute" else 0,
        x.data_ptr() if x is not None else 0,
        state.data_ptr(),
        *_addresses(parameters),
        grad_x.data_ptr(),
        grad_initial.data_ptr(),
        *(grad.data_ptr() for grad in grads),
    )
    return grad_x, grad_initial, grads[0], grads[1], grads[2]


def _backward_fake(
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    kept: torch.Tensor,
    state: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    *options_and_parameters: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    wants_parameters = options_and_parameters[-1]
    grads = [p.new_empty(p.shape if wants_parameters else (0,)) for p in (decay, threshold, input_gain)]
    return grad_spikes.new_empty(grad_spikes.shape), state.new_empty(state.shape), grads[0], grads[1], grads[2]


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
        operators: tuple[str, str],
        arguments: Arguments,
        time_major: bool,
        memory: str,
        record_v: bool,
        keep_x: bool,
        wants_parameters: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator; ``keep_x`` where the backward pass will read the input."""
        spikes, kept, final_state = getattr(torch.ops.neurodeploy, operators[0])(
            x, state, decay, threshold, input_gain, unit, *arguments, time_major, memory
        )
        ctx.save_for_backward(x if keep_x else None, kept, state, decay, threshold, input_gain, unit)
        ctx.backward_operator = operators[1]
        ctx.options = (*arguments, time_major, memory)
        ctx.record_v = record_v
        ctx.wants_parameters = wants_parameters
        return (spikes, kept, final_state) if record_v else (spikes, final_state)

    @staticmethod
    @once_differentiable  # a second derivative is refused instead of wrong
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradients of the outputs."""
        grad_spikes, grad_state = grads[0].contiguous(), grads[-1].contiguous()
        grad_v = grads[1].contiguous() if ctx.record_v else None
        x, kept, state, decay, threshold, input_gain, unit = ctx.saved_tensors
        grad_x, grad_initial, grad_decay, grad_threshold, grad_gain = getattr(
            torch.ops.neurodeploy, ctx.backward_operator
        )(
            grad_spikes,
            grad_v,
            grad_state,
            x,
            kept,
            state,
            decay,
            threshold,
            input_gain,
            unit,
            *ctx.options,
            ctx.wants_parameters,
        )
        if not ctx.wants_parameters:
            return grad_x, grad_initial, *(None,) * 11
        return grad_x, grad_initial, grad_decay, grad_threshold, grad_gain, *(None,) * 8


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
        """Run T steps of independent neurons, differentiably.

        Args:
            x: input [B, T, N] (or [T, B, N]), contiguous, float32 or float64.
            parameters: decay, threshold (> 0), input gain and the surrogate's unit, each [N] or [1].
            state: potential [B, N] before the first step.
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
        wants_gain = parameters.input_gain.requires_grad
        wants_parameters = parameters.decay.requires_grad or parameters.threshold.requires_grad or wants_gain
        wants_any = torch.is_grad_enabled() and (x.requires_grad or state.requires_grad or wants_parameters)
        outputs = _Layer.apply(  # type: ignore[no-untyped-call]
            x,
            state,
            *parameters,
            self.operators,
            neuron.arguments(),
            time_major,
            memory if wants_any or record_v else "none",
            record_v,
            wants_any and (memory == "recompute" or wants_gain),
            wants_parameters,
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
        """Run T steps; return (spikes, final state [B, N], what ``backward`` needs). Arguments as in ``apply``."""
        check_device(x)
        _check_memory(memory)
        spikes, kept, final_state = getattr(torch.ops.neurodeploy, self.operators[0])(
            x, state, *parameters, *neuron.arguments(), time_major, memory
        )
        return spikes, final_state, Saved(x, kept, state, parameters, neuron, memory, time_major)

    def backward(
        self, grad_spikes: torch.Tensor, grad_v: torch.Tensor | None, grad_state: torch.Tensor, saved: Saved
    ) -> Gradients:
        """Return the gradients of input, initial state and parameters.

        Args:
            grad_spikes: dL/ds [B, T, N], contiguous.
            grad_v: direct dL/dv [B, T, N], contiguous; None is zero.
            grad_state: dL/d(final state) [B, N]: zero, or the next chunk's gradient of its initial state.
            saved: third result of ``forward``.
        """
        return Gradients(
            *getattr(torch.ops.neurodeploy, self.operators[1])(
                grad_spikes,
                grad_v,
                grad_state,
                saved.x,
                saved.kept,
                saved.state,
                *saved.parameters,
                *saved.neuron.arguments(),
                saved.time_major,
                saved.memory,
                True,
            )
        )


def _check_memory(memory: str) -> None:
    if memory not in ("store", "recompute"):
        raise KernelError(f"memory is {memory!r}.", remedy="choose 'store' or 'recompute'.", code="kernel-memory")
