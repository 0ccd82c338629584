"""EXODUS: exact gradients of spiking layers by the implicit function theorem (Bauer et al. 2023; see README.md).

The functions are those of :class:`neurodeploy.kernel.Kernel`.
"""

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Gradients, Memory, Neuron, Output, Parameters, Saved, check_device
from neurodeploy.kernels.exodus import reference
from neurodeploy.kernels.exodus.ops import Exodus

__all__ = ["apply", "backward", "forward", "operators", "reference"]

operators = ("exodus_forward", "exodus_backward")


def apply(
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
    outputs = Exodus.apply(  # type: ignore[no-untyped-call]
        x,
        state,
        *parameters,
        neuron.arguments(),
        time_major,
        memory if wants_any or record_v else "none",
        record_v,
        wants_any and (memory == "recompute" or wants_gain),
        wants_parameters,
    )
    return Output(outputs[0], outputs[1] if record_v else None, outputs[-1])


def forward(
    x: torch.Tensor,
    parameters: Parameters,
    state: torch.Tensor,
    neuron: Neuron,
    *,
    memory: Memory = "store",
    time_major: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, Saved]:
    """Run T steps; return (spikes, final state [B, N], what :func:`backward` needs). Arguments as in :func:`apply`."""
    check_device(x)
    _check_memory(memory)
    spikes, kept, final_state = torch.ops.neurodeploy.exodus_forward(
        x, state, *parameters, *neuron.arguments(), time_major, memory
    )
    return spikes, final_state, Saved(x, kept, state, parameters, neuron, memory, time_major)


def backward(
    grad_spikes: torch.Tensor, grad_v: torch.Tensor | None, grad_state: torch.Tensor, saved: Saved
) -> Gradients:
    """Return the gradients of input, initial state and parameters.

    Args:
        grad_spikes: dL/ds [B, T, N], contiguous.
        grad_v: direct dL/dv [B, T, N], contiguous; None is zero.
        grad_state: dL/d(final state) [B, N]: zero, or the next chunk's gradient of its initial state.
        saved: third result of :func:`forward`.
    """
    return Gradients(
        *torch.ops.neurodeploy.exodus_backward(
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
