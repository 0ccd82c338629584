"""The spike response model of the SLAYER paper: alpha functions for input and refractoriness (README.md).

``reference`` is the definition as convolutions with both kernels, cut off nowhere; the compiled scan gives the same
potentials by recursion. The gradient drops the path through a neuron's own spikes, or keeps it (``reset_path``).
"""

from math import e
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from neurodeploy import buffers
from neurodeploy import surrogate as surrogates
from neurodeploy.extension import native as _native
from neurodeploy.kernel import Neuron, Parameters, check_arguments, check_device, gpu_module
from neurodeploy.threads import threads_for

STATE_ROWS = ("trace", "response", "spike_trace", "refractory")
"""Sum of decaying inputs and its response, sum of decaying spikes and theirs."""


class Kernels(NamedTuple):
    """Per-neuron constants, each [N] or [1], of the input's dtype.

    Attributes:
        tau: time constant of the response to input in time steps.
        tau_ref: that of the refractory response.
        scale_ref: its size in thresholds.
        threshold: potential at which a spike is fired, > 0.
    """

    tau: torch.Tensor
    tau_ref: torch.Tensor
    scale_ref: torch.Tensor
    threshold: torch.Tensor

    def scan(self) -> tuple[torch.Tensor, ...]:
        """Decay and gain of the input's response, those of the refractory one, and the threshold."""
        return (
            torch.exp(-1 / self.tau),
            e / self.tau,
            torch.exp(-1 / self.tau_ref),
            self.scale_ref * self.threshold * e / self.tau_ref,
            self.threshold,
        )


_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_CONSTANTS = (
    "Tensor decay, Tensor gain, Tensor ref_decay, Tensor ref_gain, Tensor threshold, int max_spikes, int surrogate, "
    "float width, float scale, bool reset_path, bool time_major"
)
_library.define(f"srm_forward(Tensor x, Tensor state, {_CONSTANTS}, bool keep_u) -> (Tensor, Tensor, Tensor)")
_library.define(
    f"srm_backward(Tensor grad_spikes, Tensor? grad_u, Tensor grad_state, Tensor u, {_CONSTANTS}) -> (Tensor, Tensor)"
)


def _options(x: torch.Tensor, constants: tuple[Any, ...]) -> Any:
    time_major = constants[-1]
    steps, batch = x.shape[:2] if time_major else (x.shape[1], x.shape[0])
    return _native.srm.Options(batch, steps, x.shape[2], time_major, *constants[5:-1], threads_for(x.numel()))


def _addresses(constants: tuple[Any, ...]) -> list[int]:
    return [number for tensor in constants[:5] for number in (tensor.data_ptr(), len(tensor))]


def _check(x: torch.Tensor, state: torch.Tensor, constants: tuple[Any, ...]) -> None:
    """Refuse what the scan cannot run on: four rows of state, and constants like a neuron's parameters."""
    decay, gain, ref_decay, ref_gain, threshold = constants[:5]
    for pair in ((decay, gain), (ref_decay, ref_gain)):
        values = Parameters(pair[0], threshold, pair[1], threshold)
        for row in state.unbind() if state.dim() == 3 and len(state) == len(STATE_ROWS) else [state]:
            check_arguments(x, values, row, soft_spikes=False, time_major=constants[-1])


def _forward_cpu(x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    *constants, keep_u = arguments
    _check(x, state, tuple(constants))
    spikes = buffers.empty(x.shape, x.dtype)
    u = buffers.empty(x.shape if keep_u else (0,), x.dtype)
    final_state = buffers.empty(state.shape, x.dtype)
    _native.srm.forward(
        x.dtype == torch.float64,
        _options(x, tuple(constants)),
        x.data_ptr(),
        state.data_ptr(),
        _addresses(tuple(constants)),
        spikes.data_ptr(),
        u.data_ptr(),
        final_state.data_ptr(),
    )
    return spikes, u, final_state


def _forward_fake(x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    return x.new_empty(x.shape), state.new_empty(x.shape if arguments[-1] else (0,)), state.new_empty(state.shape)


def _check_saved(
    grad_spikes: torch.Tensor,
    grad_u: torch.Tensor | None,
    grad_state: torch.Tensor,
    u: torch.Tensor,
    constants: tuple[Any, ...],
) -> None:
    for array in (grad_spikes, u, *([] if grad_u is None else [grad_u])):
        _check(array, grad_state, constants)


def _backward_cpu(
    grad_spikes: torch.Tensor,
    grad_u: torch.Tensor | None,
    grad_state: torch.Tensor,
    u: torch.Tensor,
    *constants: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    _check_saved(grad_spikes, grad_u, grad_state, u, constants)
    grad_x = buffers.empty(grad_spikes.shape, grad_spikes.dtype)
    grad_initial = buffers.empty(grad_state.shape, grad_state.dtype)
    _native.srm.backward(
        grad_spikes.dtype == torch.float64,
        _options(grad_spikes, constants),
        grad_spikes.data_ptr(),
        0 if grad_u is None else grad_u.data_ptr(),
        grad_state.data_ptr(),
        u.data_ptr(),
        _addresses(constants),
        grad_x.data_ptr(),
        grad_initial.data_ptr(),
    )
    return grad_x, grad_initial


def _backward_fake(
    grad_spikes: torch.Tensor,
    grad_u: torch.Tensor | None,
    grad_state: torch.Tensor,
    u: torch.Tensor,
    *constants: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    return grad_spikes.new_empty(grad_spikes.shape), grad_state.new_empty(grad_state.shape)


def _forward_gpu(x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    _check(x, state, arguments[:-1])
    outputs: tuple[torch.Tensor, ...]
    outputs = gpu_module("neurodeploy.kernels.slayer.srm_gpu").forward(x, state, *arguments)
    return outputs


def _backward_gpu(
    grad_spikes: torch.Tensor,
    grad_u: torch.Tensor | None,
    grad_state: torch.Tensor,
    u: torch.Tensor,
    *constants: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    _check_saved(grad_spikes, grad_u, grad_state, u, constants)
    outputs: tuple[torch.Tensor, torch.Tensor] = gpu_module("neurodeploy.kernels.slayer.srm_gpu").backward(
        grad_spikes, grad_u, grad_state, u, *constants
    )
    return outputs


_library.impl("srm_forward", _forward_gpu, "CUDA")
_library.impl("srm_backward", _backward_gpu, "CUDA")
_library.impl("srm_forward", _forward_cpu, "CPU")
_library.impl("srm_backward", _backward_cpu, "CPU")
torch.library.register_fake("neurodeploy::srm_forward", _forward_fake, lib=_library)
torch.library.register_fake("neurodeploy::srm_backward", _backward_fake, lib=_library)


class _Response(torch.autograd.Function):
    """Spikes and final state (and u between them, if recorded), with the gradient of the backward scan."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, state: torch.Tensor, keep_u: bool, record_u: bool, *constants: Any
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator."""
        spikes, u, final_state = torch.ops.neurodeploy.srm_forward(x, state, *constants, keep_u)
        ctx.save_for_backward(u, *constants[:5])
        ctx.options = constants[5:]
        ctx.record_u = record_u
        return (spikes, u, final_state) if record_u else (spikes, final_state)

    @staticmethod
    @once_differentiable  # a second derivative is refused instead of wrong
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradients of the outputs."""
        grad_u = grads[1].contiguous() if ctx.record_u else None
        grad_x, grad_initial = torch.ops.neurodeploy.srm_backward(
            grads[0].contiguous(), grad_u, grads[-1].contiguous(), *ctx.saved_tensors, *ctx.options
        )
        return grad_x, grad_initial, *(None,) * (2 + 5 + len(ctx.options))


def apply(
    x: torch.Tensor,
    kernels: Kernels,
    state: torch.Tensor,
    neuron: Neuron,
    *,
    reset_path: bool = False,
    time_major: bool = False,
    record_u: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Run T steps of independent neurons, differentiably in input and state; return (spikes, u if recorded, state).

    Args:
        x: input [B, T, N] (or [T, B, N]), contiguous, float32 or float64.
        kernels: time constants, size of the refractory response and threshold: constants.
        state: [4, B, N], rows as in ``STATE_ROWS``.
        neuron: its spikes per step and surrogate are used.
        reset_path: send errors through a neuron's own spikes too.
        time_major: arrays are [T, B, N].
        record_u: also return the potentials; their gradient is taken into account.

    Raises:
        KernelError: tensors that the scan cannot run on.
    """
    check_device(x)
    surrogate = surrogates.code(neuron.surrogate)
    constants = (*(value.detach() for value in kernels.scan()), neuron.max_spikes, *surrogate, reset_path, time_major)
    wanted = torch.is_grad_enabled() and (x.requires_grad or state.requires_grad)
    outputs = _Response.apply(x, state, wanted or record_u, record_u, *constants)  # type: ignore[no-untyped-call]
    return outputs[0], outputs[1] if record_u else None, outputs[-1]


def reference(x: torch.Tensor, kernels: Kernels, max_spikes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (spikes, u) [B, T, N] of the definition: sums over all earlier inputs and spikes, from rest."""
    steps = x.shape[1]
    ages = torch.arange(steps, dtype=x.dtype)[:, None]
    epsilon = ages / kernels.tau * torch.exp(1 - ages / kernels.tau)
    nu = -kernels.scale_ref * kernels.threshold * ages / kernels.tau_ref * torch.exp(1 - ages / kernels.tau_ref)
    spikes, potentials = torch.zeros_like(x), torch.zeros_like(x)
    for t in range(steps):
        past = torch.arange(t, -1, -1)  # ages of the steps 0 to t
        u = (epsilon[past] * x[:, : t + 1]).sum(1) + (nu[past] * spikes[:, : t + 1]).sum(1)
        count = torch.where(u > 0, torch.trunc(u / kernels.threshold), 0.0)
        spikes[:, t] = count.clamp(max=max_spikes) if max_spikes else count
        potentials[:, t] = u
    return spikes, potentials
