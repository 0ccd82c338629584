"""The two opaque operators of EXODUS and the autograd function around them.

Opaque operators keep ``torch.compile(fullgraph=True)`` from looking inside; everything differentiable is in one
``autograd.Function``, whose backward is the second operator.
"""

import importlib
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from neurodeploy import buffers
from neurodeploy.errors import KernelError
from neurodeploy.kernel import CHECKPOINT_EVERY, Arguments, Parameters, check_arguments

_native = importlib.import_module("neurodeploy._ext").exodus

RESETS = ("subtract", "zero", "none")
"""The position is the enumerator in ``native/neuron.hpp``."""

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_OPTIONS = (
    "str reset, int max_spikes, float? v_min, str v_min_position, int surrogate, float width, float scale, "
    "bool soft, bool time_major, str memory"
)
_library.define(
    "exodus_forward(Tensor x, Tensor state, Tensor decay, Tensor threshold, Tensor input_gain, Tensor unit, "
    f"{_OPTIONS}) -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "exodus_backward(Tensor grad_spikes, Tensor? grad_v, Tensor grad_state, Tensor? x, Tensor kept, Tensor state, "
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
    return _native.Options(
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
    _native.forward(
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
    _native.backward(
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


_library.impl("exodus_forward", _forward_cpu, "CPU")
_library.impl("exodus_backward", _backward_cpu, "CPU")
torch.library.register_fake("neurodeploy::exodus_forward", _forward_fake, lib=_library)
torch.library.register_fake("neurodeploy::exodus_backward", _backward_fake, lib=_library)


class Exodus(torch.autograd.Function):
    """Spikes and final state (and v between them, if recorded) with the exact gradient of README.md."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        state: torch.Tensor,
        decay: torch.Tensor,
        threshold: torch.Tensor,
        input_gain: torch.Tensor,
        unit: torch.Tensor,
        arguments: Arguments,
        time_major: bool,
        memory: str,
        record_v: bool,
        keep_x: bool,
        wants_parameters: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator; ``keep_x`` where the backward pass will read the input."""
        spikes, kept, final_state = torch.ops.neurodeploy.exodus_forward(
            x, state, decay, threshold, input_gain, unit, *arguments, time_major, memory
        )
        ctx.save_for_backward(x if keep_x else None, kept, state, decay, threshold, input_gain, unit)
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
        grad_x, grad_initial, grad_decay, grad_threshold, grad_gain = torch.ops.neurodeploy.exodus_backward(
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
            return grad_x, grad_initial, *(None,) * 10
        return grad_x, grad_initial, grad_decay, grad_threshold, grad_gain, *(None,) * 7
