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
from neurodeploy.kernel import Neuron, Parameters, check_arguments, check_device

Form = Literal["closed", "recurrent", "lif"]
"""What z is and what is carried from step to step.

``closed``: z_t = W a^in_t + bias * c_t, the accumulated potential itself; only the accumulation is carried.
``recurrent``: z_t = W (a^in_t - decay * a^in_{t-1}) + bias; U_t = decay * U_{t-1} + z_t is carried too.
``lif``: z_t = W s^in_t + bias; the potential u after the reset is carried, and spikes are given: what OTTT runs.
"""

FORMS = ("closed", "recurrent", "lif")
"""The position is the enumerator in ``accumulation.cpp``."""

Kept = Literal["none", "u", "U"]
"""What the backward pass reads: the potential for a surrogate, or the accumulated potential for the clamp."""

_CLAMP = len(surrogates.KINDS)

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    "saf_forward(Tensor z, Tensor potential, Tensor accumulation, Tensor decay, Tensor threshold, Tensor input_gain, "
    "str form, int max_spikes, str kept) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "saf_backward(Tensor grad_a, Tensor kept, Tensor threshold, Tensor input_gain, Tensor unit, int slope, "
    "float width, float scale) -> Tensor"
)


class State(NamedTuple):
    """What one layer carries from step to step, each [B, N]; both start at 0.

    ``potential`` is U in the recurrent form, the potential after the reset in "lif", and unused in the closed form.
    """

    potential: torch.Tensor
    accumulation: torch.Tensor


class Output(NamedTuple):
    """Accumulations a [T, B, N] (the gradient enters here), spikes [T, B, N] in the form "lif", and the state after."""

    a: torch.Tensor
    spikes: torch.Tensor | None
    state: State


class Clamp(NamedTuple):
    """The slope of ``clamp(U / threshold, 0, largest)`` in the place of the surrogate: spike representation."""

    largest: float


def _options(z: torch.Tensor, form: str, max_spikes: int, keep_total: bool) -> Any:
    steps, batch, neurons = z.shape
    return _native.saf.Options(
        batch, steps, neurons, FORMS.index(form), max_spikes, keep_total, torch.get_num_threads()
    )


def _suffix(tensor: torch.Tensor) -> str:
    return "f64" if tensor.dtype == torch.float64 else "f32"


def _forward_cpu(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    form: str,
    max_spikes: int,
    kept: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    values = Parameters(decay, threshold, input_gain, threshold)
    for state in (potential, accumulation):
        check_arguments(z, values, state, soft_spikes=False, time_major=True)
    if decay.shape != (1,):
        raise KernelError(
            f"The decay has shape {tuple(decay.shape)}; accumulations of different decays cannot be combined.",
            remedy="give all neurons one decay: a tensor of shape [1].",
            code="saf-decay",
        )
    a = buffers.empty(z.shape, z.dtype)
    spikes = buffers.empty(z.shape if form == "lif" else (0,), z.dtype)
    keeps = buffers.empty(z.shape if kept != "none" else (0,), z.dtype)
    potential, accumulation = potential.clone(), accumulation.clone()
    getattr(_native.saf, f"forward_{_suffix(z)}")(
        _options(z, form, max_spikes, kept == "U"),
        decay.item(),
        z.data_ptr(),
        threshold.data_ptr(),
        threshold.shape[0],
        input_gain.data_ptr(),
        input_gain.shape[0],
        potential.data_ptr(),
        accumulation.data_ptr(),
        a.data_ptr(),
        spikes.data_ptr() if form == "lif" else 0,
        keeps.data_ptr() if kept != "none" else 0,
    )
    return a, spikes, keeps, potential, accumulation


def _forward_fake(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    form: str,
    max_spikes: int,
    kept: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    spikes = z.new_empty(z.shape if form == "lif" else (0,))
    keeps = z.new_empty(z.shape if kept != "none" else (0,))
    return z.new_empty(z.shape), spikes, keeps, torch.empty_like(potential), torch.empty_like(accumulation)


def _backward_cpu(
    grad_a: torch.Tensor,
    kept: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    slope: int,
    width: float,
    scale: float,
) -> torch.Tensor:
    if kept.shape != grad_a.shape or kept.dtype != grad_a.dtype or not kept.is_contiguous():
        raise KernelError(
            f"kept is {kept.dtype} of shape {tuple(kept.shape)} and strides {kept.stride()}; "
            f"the gradient is {grad_a.dtype} of shape {tuple(grad_a.shape)}.",
            remedy="pass what the forward operator returned, and gradients of its outputs' shapes.",
            code="kernel-shape",
        )
    grad_z = buffers.empty(grad_a.shape, grad_a.dtype)
    getattr(_native.saf, f"backward_{_suffix(grad_a)}")(
        _options(grad_a, "closed", 1, False),
        slope,
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


_library.impl("saf_forward", _forward_cpu, "CPU")
_library.impl("saf_backward", _backward_cpu, "CPU")
torch.library.register_fake("neurodeploy::saf_forward", _forward_fake, lib=_library)
torch.library.register_fake("neurodeploy::saf_backward", _backward_fake, lib=_library)


class _Accumulate(torch.autograd.Function):
    """Accumulations with the gradient of each step alone; spikes and state have none."""

    @staticmethod
    def forward(
        ctx: Any,
        z: torch.Tensor,
        potential: torch.Tensor,
        accumulation: torch.Tensor,
        parameters: Parameters,
        form: str,
        max_spikes: int,
        kept: str,
        slope: tuple[int, float, float],
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator."""
        decay, threshold, gain, unit = parameters
        a, spikes, keeps, *state = torch.ops.neurodeploy.saf_forward(
            z, potential, accumulation, decay, threshold, gain, form, max_spikes, kept
        )
        ctx.save_for_backward(keeps, threshold, gain, unit)
        ctx.slope = slope
        ctx.mark_non_differentiable(spikes, *state)
        return a, spikes, *state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradient of the accumulations."""
        grad_z = torch.ops.neurodeploy.saf_backward(grads[0].contiguous(), *ctx.saved_tensors, *ctx.slope)
        return grad_z, *(None,) * 7


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
        clamp: take the slope of the clamp instead of the surrogate's; not in the form "lif".

    Returns:
        Accumulations a_t = decay * a_{t-1} + s_t; with dL/dz_t = gain * sg(u_t - threshold) * dL/da_t, where a_{t-1}
        is a constant.

    Raises:
        KernelError: tensors or a neuron that cannot be run.
    """
    check_device(z)
    refuse_neuron(neuron)
    if form not in FORMS or (form == "lif" and clamp is not None):
        raise KernelError(
            f"The form is {form!r}" + (" with a clamp." if form == "lif" else "."),
            remedy="choose 'closed', 'recurrent' or 'lif'; a clamp needs U, which 'lif' has not.",
            code="saf-form",
        )
    kind, width, scale = surrogates.code(neuron.surrogate)
    kept: Kept = "none"
    if torch.is_grad_enabled() and z.requires_grad:
        kept = "u" if clamp is None else "U"
    slope = (kind, width, scale) if clamp is None else (_CLAMP, 1.0, clamp.largest)
    a, spikes, *after = _Accumulate.apply(  # type: ignore[no-untyped-call]
        z, *state, Parameters(*(value.detach() for value in parameters)), form, neuron.max_spikes, kept, slope
    )
    return Output(a, spikes if form == "lif" else None, State(*after))


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
