"""Losses on spike times (B, N, slots), padded with inf. Which gradients are exact is said at each."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from neurodeploy.errors import KernelError


def first_spike_loss(times: torch.Tensor, labels: torch.Tensor, *, temperature: float, t_silent: float) -> torch.Tensor:
    """Cross-entropy of the softmax over ``-t_first / temperature``: the right neuron should fire first.

    Its gradient is exact, as long as no first spike appears or disappears. A silent neuron counts as firing at
    ``t_silent`` and has no gradient.

    Args:
        times: (B, classes, slots).
        labels: (B,) classes.
        temperature: in the unit of the times, > 0.
        t_silent: in the unit of the times; at or after the last spike that can be.

    Raises:
        KernelError: shapes that do not go together, or a temperature that is not above 0.
    """
    _check_axes(times)
    if not temperature > 0:
        raise KernelError(
            f"temperature is {temperature}.", remedy="give a time above 0.", code="spike-time-temperature"
        )
    first = times.min(-1).values
    return torch.nn.functional.cross_entropy(-_or(first, t_silent) / temperature, labels)


def spike_time_loss(times: torch.Tensor, targets: torch.Tensor, *, t_silent: float) -> torch.Tensor:
    """Half the squared distance of k-th spikes to k-th target times, summed over neurons and slots, averaged over B.

    Its gradient is exact, as long as no spike appears or disappears. A missing spike, or target, counts as one at
    ``t_silent``: a spike too many is sent there, a spike too few has no gradient. A slot without both costs nothing.

    Args:
        times, targets: (B, N, slots) and (B, N, slots'), ascending, inf behind the last.
        t_silent: in the unit of the times.

    Raises:
        KernelError: shapes that do not go together.
    """
    _check_axes(times)
    if targets.dim() != 3 or targets.shape[:2] != times.shape[:2]:
        raise KernelError(
            f"Targets have shape {tuple(targets.shape)}, spike times {tuple(times.shape)}.",
            remedy="give both as (B, N, slots), padded with inf.",
            code="spike-time-shape",
        )
    slots = max(times.shape[-1], targets.shape[-1])
    ours, theirs = (
        _or(torch.nn.functional.pad(t, [0, slots - t.shape[-1]], value=torch.inf), t_silent) for t in (times, targets)
    )
    return 0.5 * (ours - theirs).square().sum() / max(1, len(times))


class _Counts(torch.autograd.Function):
    """Half the squared error of spike counts, with the stand-in gradient of :func:`spike_count_loss`."""

    @staticmethod
    def forward(ctx: Any, times: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Count the spikes."""
        fired = times < torch.inf
        error = targets.to(times.dtype) - fired.sum(-1)
        ctx.save_for_backward(fired, error)
        return 0.5 * error.square().sum() / max(1, len(times))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Every spike's time is pulled by the error of its neuron's count."""
        fired, error = ctx.saved_tensors
        return grads[0] * fired * error[..., None] / max(1, len(fired)), None


def spike_count_loss(times: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half the squared error of spike counts, summed over neurons, averaged over B.

    Its gradient is **not** exact: a count does not change with a weight until a spike appears or disappears, the true
    gradient is 0. As in Bacho and Chu's code, each spike's time gets ``target - count`` as its gradient, so that spikes
    move earlier, and more follow, where there are too few, and later where there are too many. Silent neurons get
    nothing.

    Args:
        times: (B, N, slots).
        targets: counts (B, N).

    Raises:
        KernelError: shapes that do not go together.
    """
    _check_axes(times)
    if targets.shape != times.shape[:2]:
        raise KernelError(
            f"Target counts have shape {tuple(targets.shape)}, spike times {tuple(times.shape)}.",
            remedy="give one count per sample and neuron: (B, N).",
            code="spike-time-shape",
        )
    loss: torch.Tensor = _Counts.apply(times, targets)  # type: ignore[no-untyped-call]
    return loss


def _check_axes(times: torch.Tensor) -> None:
    if times.dim() != 3:
        raise KernelError(
            f"Spike times have shape {tuple(times.shape)}.",
            remedy="give (B, N, slots): what a SpikeTimeLinear returns.",
            code="spike-time-shape",
        )


def _or(times: torch.Tensor, t_silent: float) -> torch.Tensor:
    """Replace inf by a constant; the gradient there is 0, not nan."""
    return torch.where(times < torch.inf, times, torch.full_like(times, t_silent))
