"""Potentials to spike accumulations: two opaque operators, and the autograd function around them.

Arrays are time-major, [T, B, N] and contiguous, so that one step, and any run of steps, is one block of memory.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from neurodeploy import buffers
from neurodeploy import surrogate as surrogates
from neurodeploy.errors import KernelError
from neurodeploy.extension import native as _native
from neurodeploy.kernel import HALF, Neuron, Parameters, check_arguments, check_device, gpu_module
from neurodeploy.threads import threads_for

Form = Literal["closed", "recurrent", "lif"]
"""What z is and what is carried from step to step.

``closed``: z_t = W a^in_t + bias * c_t, the accumulated potential itself; only the accumulation is carried.
``recurrent``: z_t = W (a^in_t - decay * a^in_{t-1}) + bias; U_t = decay * U_{t-1} + z_t is carried too.
``lif``: z_t = W s^in_t + bias; the potential u after the reset is carried, and spikes are given: what OTTT runs.
"""

FORMS = ("closed", "recurrent", "lif")
"""The position is the enumerator in ``accumulation.cpp``."""

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    "saf_forward(Tensor z, Tensor potential, Tensor accumulation, Tensor decay, Tensor threshold, Tensor input_gain, "
    "str form, int max_spikes, bool keep) -> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "saf_backward(Tensor grad_a, Tensor kept, Tensor threshold, Tensor input_gain, Tensor unit, int surrogate, "
    "float width, float scale) -> Tensor"
)


class State(NamedTuple):
    """What one layer carries from step to step.

    ``accumulation`` [B, N] is that of the last step. ``potential`` is U in the recurrent form and the potential after
    the reset in "lif", [B, N]; the closed form has none, [0]. All start at 0.
    """

    potential: torch.Tensor
    accumulation: torch.Tensor


def silent(like: torch.Tensor, form: Form) -> State:
    """Return the state before a window, for z [T, B, N] of ``form``."""
    shape = like.shape[1:]
    return State(like.new_zeros((0,) if form == "closed" else shape), like.new_zeros(shape))


class Output(NamedTuple):
    """Accumulations a [T, B, N] (the gradient enters here), spikes [T, B, N] in the form "lif", and the state after."""

    a: torch.Tensor
    spikes: torch.Tensor | None
    state: State


class Clamp(NamedTuple):
    """The slope of ``clamp(U / threshold, 0, largest)`` in the place of the surrogate: spike representation."""

    largest: float


def _options(z: torch.Tensor, form: str, max_spikes: int) -> Any:
    steps, batch, neurons = z.shape
    return _native.saf.Options(batch, steps, neurons, FORMS.index(form), max_spikes, threads_for(z.numel()))


def _suffix(tensor: torch.Tensor) -> str:
    return "f64" if tensor.dtype == torch.float64 else "f32"


def _check(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    form: str,
) -> None:
    if z.dtype in HALF:
        raise KernelError(
            f"z is {z.dtype}, which holds whole numbers up to {256 if z.dtype == torch.bfloat16 else 2048} only; "
            "accumulations exceed that.",
            remedy="use float32, and leave the network out of autocast.",
            code="kernel-dtype",
        )
    values = Parameters(decay, threshold, input_gain, threshold)
    for state in (accumulation,) if form == "closed" else (accumulation, potential):
        check_arguments(z, values, state, soft_spikes=False, time_major=True)
    if decay.shape != (1,):
        raise KernelError(
            f"The decay has shape {tuple(decay.shape)}; accumulations of different decays cannot be combined.",
            remedy="give all neurons one decay: a tensor of shape [1].",
            code="saf-decay",
        )


def _forward_cpu(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    form: str,
    max_spikes: int,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    _check(z, potential, accumulation, decay, threshold, input_gain, form)
    a = buffers.empty(z.shape, z.dtype)
    spikes = buffers.empty(z.shape if form == "lif" else (0,), z.dtype)
    kept = buffers.empty(z.shape if keep else (0,), z.dtype)
    potential = potential.clone()
    getattr(_native.saf, f"forward_{_suffix(z)}")(
        _options(z, form, max_spikes),
        decay.item(),
        z.data_ptr(),
        threshold.data_ptr(),
        threshold.shape[0],
        input_gain.data_ptr(),
        input_gain.shape[0],
        potential.data_ptr() if form != "closed" else 0,
        accumulation.data_ptr(),
        a.data_ptr(),
        spikes.data_ptr() if form == "lif" else 0,
        kept.data_ptr() if keep else 0,
    )
    return a, spikes, kept, potential


def _forward_fake(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    form: str,
    max_spikes: int,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    spikes = z.new_empty(z.shape if form == "lif" else (0,))
    return z.new_empty(z.shape), spikes, z.new_empty(z.shape if keep else (0,)), torch.empty_like(potential)


def _check_kept(grad_a: torch.Tensor, kept: torch.Tensor) -> None:
    if kept.shape != grad_a.shape or kept.dtype != grad_a.dtype or not kept.is_contiguous():
        raise KernelError(
            f"kept is {kept.dtype} of shape {tuple(kept.shape)} and strides {kept.stride()}; "
            f"the gradient is {grad_a.dtype} of shape {tuple(grad_a.shape)}.",
            remedy="pass what the forward operator returned, and gradients of its outputs' shapes.",
            code="kernel-shape",
        )


def _backward_cpu(
    grad_a: torch.Tensor,
    kept: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    surrogate: int,
    width: float,
    scale: float,
) -> torch.Tensor:
    _check_kept(grad_a, kept)
    grad_z = buffers.empty(grad_a.shape, grad_a.dtype)
    getattr(_native.saf, f"backward_{_suffix(grad_a)}")(
        _options(grad_a, "closed", 1),
        surrogate,
        width,
        scale,
        grad_a.data_ptr(),
        kept.data_ptr(),
        *(number for tensor in (threshold, input_gain, unit) for number in (tensor.data_ptr(), tensor.shape[0])),
        grad_z.data_ptr(),
    )
    return grad_z


def _backward_fake(grad_a: torch.Tensor, *_: Any) -> torch.Tensor:
    return grad_a.new_empty(grad_a.shape)


def _forward_gpu(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    *tensors_and_form, _, _ = arguments
    _check(*tensors_and_form)
    outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    outputs = gpu_module("neurodeploy.kernels.saf.gpu").forward(*arguments)
    return outputs


def _backward_gpu(*arguments: Any) -> torch.Tensor:
    _check_kept(*arguments[:2])
    grad_z: torch.Tensor = gpu_module("neurodeploy.kernels.saf.gpu").backward(*arguments)
    return grad_z


_library.impl("saf_forward", _forward_cpu, "CPU")
_library.impl("saf_backward", _backward_cpu, "CPU")
_library.impl("saf_forward", _forward_gpu, "CUDA")
_library.impl("saf_backward", _backward_gpu, "CUDA")
torch.library.register_fake("neurodeploy::saf_forward", _forward_fake, lib=_library)
torch.library.register_fake("neurodeploy::saf_backward", _backward_fake, lib=_library)


class _Accumulate(torch.autograd.Function):
    """Accumulations with the gradient of each step alone; spikes and potential have none."""

    @staticmethod
    def forward(
        ctx: Any,
        z: torch.Tensor,
        state: State,
        parameters: Parameters,
        form: str,
        neuron: Neuron,
        clamp: Clamp | None,
        keep: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator; ``keep`` where there will be a backward pass."""
        threshold, gain = parameters.threshold, parameters.input_gain
        a, spikes, kept, potential = torch.ops.neurodeploy.saf_forward(
            z, *state, parameters.decay, threshold, gain, form, neuron.max_spikes, keep and clamp is None
        )
        if keep and clamp is not None:
            total = gain * z
            kept = (total >= 0) & (total <= threshold * clamp.largest)
        ctx.save_for_backward(kept, threshold, gain, parameters.unit)
        ctx.clamp, ctx.surrogate = clamp, surrogates.code(neuron.surrogate)
        ctx.mark_non_differentiable(spikes, potential)
        return a, spikes, potential

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradient of the accumulations, or take the slope of the clamp."""
        kept, threshold, gain, unit = ctx.saved_tensors
        if ctx.clamp is None:
            grad_z = torch.ops.neurodeploy.saf_backward(
                grads[0].contiguous(), kept, threshold, gain, unit, *ctx.surrogate
            )
        else:
            grad_z = torch.where(kept, gain * (grads[0] / threshold), 0.0)
        return grad_z, *(None,) * 6


def accumulate(
    z: torch.Tensor,
    state: State,
    parameters: Parameters,
    neuron: Neuron,
    form: Form,
    *,
    clamp: Clamp | None = None,
) -> Output:
    """Run T steps of soft-reset neurons and give their weighted spike accumulations, differentiably in z.

    Args:
        z: [T, B, N], contiguous, float32 or float64; what it is depends on ``form``.
        state: potential and accumulation [B, N] before the first step; taken as constants.
        parameters: decay [1], threshold, input gain and surrogate unit [N] or [1]; taken as constants.
        neuron: spikes per step and surrogate; soft reset, no ``v_min``.
        form: see :data:`Form`.
        clamp: take the slope of the clamp instead of the surrogate's; in the closed form only. One byte per neuron and
            step is kept for the backward pass then, otherwise the potential.

    Returns:
        Accumulations a_t = decay * a_{t-1} + s_t; with dL/dz_t = gain * sg(u_t - threshold) * dL/da_t, where a_{t-1}
        is a constant.

    Raises:
        KernelError: tensors or a neuron that cannot be run.
    """
    check_device(z)
    refuse_neuron(neuron)
    if form not in FORMS or (form != "closed" and clamp is not None):
        raise KernelError(
            f"The form is {form!r}" + ("." if clamp is None else " with a clamp."),
            remedy="choose 'closed', 'recurrent' or 'lif'; with a clamp 'closed'.",
            code="saf-form",
        )
    keep = torch.is_grad_enabled() and z.requires_grad
    a, spikes, potential = _Accumulate.apply(  # type: ignore[no-untyped-call]
        z, state, parameters, form, neuron, clamp, keep
    )
    after = state.accumulation if len(a) == 0 else a[0] if len(a) == 1 else a[-1].clone()  # not the whole block
    return Output(a, spikes if form == "lif" else None, State(potential, after.detach()))


def refuse_neuron(neuron: Neuron, name: str = "The neuron") -> None:
    """Refuse a neuron whose potential is not its accumulated input less its accumulated spikes.

    Raises:
        KernelError: another reset than "subtract", a ``v_min``, or soft spikes.
    """
    if neuron.reset != "subtract":
        raise KernelError(
            f"{name} has reset={neuron.reset!r}; potentials are accumulations where spikes subtract the threshold.",
            remedy="use reset='subtract', or train it with algorithm='exodus'.",
            code="saf-reset",
        )
    if neuron.v_min is not None:
        raise KernelError(
            f"{name} has v_min={neuron.v_min}; a clipped potential is not an accumulation of its inputs any more.",
            remedy="use v_min=None, or train it with algorithm='exodus'.",
            code="saf-v-min",
        )
    if neuron.soft_spikes:
        raise KernelError(
            f"{name} has soft spikes, a test mode of other algorithms.",
            remedy="use soft_spikes=False.",
            code="saf-soft-spikes",
        )
