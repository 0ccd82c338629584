"""The compiled scans of ``native/filter.cpp``: leaky integrators without spikes, as two opaque operators.

``leak``: ``y_t = decay * y_{t-1} + input_gain * x_t``; ``synapse``: ``y_t = decay * (y_{t-1} + x_t)``. Both are linear.
With ``l_t = dL/dy_t + p_t``, p the adjoint of the state, ``p_{t-1} = decay * l_t``, in one scan backwards:

- leak: ``dL/dx_t = input_gain * l_t``, ``dL/d(decay) = sum l_t * y_{t-1}``, ``dL/d(input_gain) = sum l_t * x_t``;
- synapse: ``dL/dx_t = decay * l_t``, ``dL/d(decay) = sum l_t * (y_{t-1} + x_t)``.
"""

from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable

from neurodeploy import buffers
from neurodeploy.errors import KernelError
from neurodeploy.extension import native as _native
from neurodeploy.kernel import Parameters, check_arguments, check_device, gpu_module
from neurodeploy.threads import threads_for

Kind = Literal["leak", "synapse"]

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    "filter_forward(Tensor x, Tensor state, Tensor decay, Tensor input_gain, bool synapse, bool time_major) "
    "-> (Tensor, Tensor)"
)
_library.define(
    "filter_backward(Tensor grad_y, Tensor grad_state, Tensor? x, Tensor? y, Tensor state, Tensor decay, "
    "Tensor input_gain, bool synapse, bool time_major) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _options(x: torch.Tensor, synapse: bool, time_major: bool) -> Any:
    steps, batch = x.shape[:2] if time_major else (x.shape[1], x.shape[0])
    return _native.filter.Options(batch, steps, x.shape[2], time_major, synapse, threads_for(x.numel()))


def _check(
    x: torch.Tensor, state: torch.Tensor, decay: torch.Tensor, input_gain: torch.Tensor, time_major: bool
) -> None:
    one = torch.ones(1, dtype=decay.dtype) if x.device.type == "cpu" else decay  # a filter has no threshold
    check_arguments(x, Parameters(decay, one, input_gain, one), state, soft_spikes=False, time_major=time_major)


def _forward_cpu(
    x: torch.Tensor, state: torch.Tensor, decay: torch.Tensor, input_gain: torch.Tensor, synapse: bool, time_major: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    _check(x, state, decay, input_gain, time_major)
    y = buffers.empty(x.shape, x.dtype)
    final_state = buffers.empty(state.shape, x.dtype)
    _native.filter.forward(
        x.dtype == torch.float64,
        _options(x, synapse, time_major),
        x.data_ptr(),
        state.data_ptr(),
        decay.data_ptr(),
        len(decay),
        input_gain.data_ptr(),
        len(input_gain),
        y.data_ptr(),
        final_state.data_ptr(),
    )
    return y, final_state


def _forward_fake(
    x: torch.Tensor, state: torch.Tensor, decay: torch.Tensor, input_gain: torch.Tensor, synapse: bool, time_major: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


def _check_saved(
    grad_y: torch.Tensor,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    y: torch.Tensor | None,
    state: torch.Tensor,
    decay: torch.Tensor,
    input_gain: torch.Tensor,
    time_major: bool,
) -> None:
    _check(grad_y, grad_state, decay, input_gain, time_major)
    for tensor, like in ((x, grad_y), (y, grad_y), (state, grad_state)):
        if tensor is not None and (
            tensor.shape != like.shape or tensor.dtype != like.dtype or not tensor.is_contiguous()
        ):
            raise KernelError(
                f"The backward pass got {tensor.dtype} of shape {tuple(tensor.shape)} for {tuple(like.shape)}.",
                remedy="pass what the forward operator took and returned.",
                code="kernel-shape",
            )


def _backward_cpu(
    grad_y: torch.Tensor,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    y: torch.Tensor | None,
    state: torch.Tensor,
    decay: torch.Tensor,
    input_gain: torch.Tensor,
    synapse: bool,
    time_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    _check_saved(grad_y, grad_state, x, y, state, decay, input_gain, time_major)
    grad_x = buffers.empty(grad_y.shape, grad_y.dtype)
    grad_initial = buffers.empty(state.shape, state.dtype)
    grad_decay, grad_gain = torch.zeros_like(decay), torch.zeros_like(input_gain)
    _native.filter.backward(
        grad_y.dtype == torch.float64,
        _options(grad_y, synapse, time_major),
        grad_y.data_ptr(),
        grad_state.data_ptr(),
        0 if x is None else x.data_ptr(),
        0 if y is None else y.data_ptr(),
        state.data_ptr(),
        decay.data_ptr(),
        len(decay),
        input_gain.data_ptr(),
        len(input_gain),
        grad_x.data_ptr(),
        grad_initial.data_ptr(),
        grad_decay.data_ptr(),
        grad_gain.data_ptr(),
    )
    return grad_x, grad_initial, grad_decay, grad_gain


def _backward_fake(
    grad_y: torch.Tensor,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    y: torch.Tensor | None,
    state: torch.Tensor,
    decay: torch.Tensor,
    input_gain: torch.Tensor,
    synapse: bool,
    time_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        grad_y.new_empty(grad_y.shape),
        state.new_empty(state.shape),
        torch.empty_like(decay),
        torch.empty_like(input_gain),
    )


def _forward_gpu(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    x, state, decay, input_gain, _, time_major = arguments
    _check(x, state, decay, input_gain, time_major)
    outputs: tuple[torch.Tensor, torch.Tensor] = gpu_module("neurodeploy.gpu.filter").forward(*arguments)
    return outputs


def _backward_gpu(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    grad_y, grad_state, x, y, state, decay, input_gain, _, time_major = arguments
    _check_saved(grad_y, grad_state, x, y, state, decay, input_gain, time_major)
    outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    outputs = gpu_module("neurodeploy.gpu.filter").backward(*arguments)
    return outputs


_library.impl("filter_forward", _forward_gpu, "CUDA")
_library.impl("filter_backward", _backward_gpu, "CUDA")
_library.impl("filter_forward", _forward_cpu, "CPU")
_library.impl("filter_backward", _backward_cpu, "CPU")
torch.library.register_fake("neurodeploy::filter_forward", _forward_fake, lib=_library)
torch.library.register_fake("neurodeploy::filter_backward", _backward_fake, lib=_library)


class _Filter(torch.autograd.Function):
    """Output and final state, with the gradient of the backward scan."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        state: torch.Tensor,
        decay: torch.Tensor,
        input_gain: torch.Tensor,
        synapse: bool,
        time_major: bool,
        wants_parameters: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the forward operator; input and output are kept for gradients of parameters only."""
        y, final_state = torch.ops.neurodeploy.filter_forward(x, state, decay, input_gain, synapse, time_major)
        kept = (x, y) if wants_parameters else (None, None)
        ctx.save_for_backward(*kept, state, decay, input_gain)
        ctx.synapse, ctx.time_major, ctx.wants_parameters = synapse, time_major, wants_parameters
        return y, final_state

    @staticmethod
    @once_differentiable  # a second derivative is refused instead of wrong
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradients of the outputs."""
        grad_x, grad_initial, grad_decay, grad_gain = torch.ops.neurodeploy.filter_backward(
            grads[0].contiguous(), grads[1].contiguous(), *ctx.saved_tensors, ctx.synapse, ctx.time_major
        )
        of_parameters = (grad_decay, grad_gain) if ctx.wants_parameters else (None, None)
        return grad_x, grad_initial, *of_parameters, None, None, None


def apply(
    x: torch.Tensor,
    state: torch.Tensor,
    decay: torch.Tensor,
    input_gain: torch.Tensor,
    *,
    kind: Kind,
    time_major: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter T steps of independent neurons, differentiably; return (output, final state).

    Args:
        x: input [B, T, N] (or [T, B, N]), contiguous, float32 or float64.
        state: output [B, N] before the first step.
        decay: [N] or [1].
        input_gain: [N] or [1]; a synapse has none and ignores it.
        kind: "leak" or "synapse".
        time_major: arrays are [T, B, N].

    Raises:
        KernelError: tensors that the scan cannot run on.
    """
    check_device(x)
    wants_parameters = torch.is_grad_enabled() and (decay.requires_grad or input_gain.requires_grad)
    outputs: tuple[torch.Tensor, torch.Tensor] = _Filter.apply(  # type: ignore[no-untyped-call]
        x, state, decay, input_gain, kind == "synapse", time_major, wants_parameters
    )
    return outputs
