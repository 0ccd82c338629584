"""The oracle of the kernels' gradients: the step of ``neurodeploy/neuron.py`` for autograd, one operation at a time."""

from typing import Any

import torch

from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels.exodus import reference


class Spike(torch.autograd.Function):
    """Spike count whose derivative in v is the surrogate, and in the threshold its negative."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor, threshold: torch.Tensor, unit: torch.Tensor, neuron: Neuron) -> torch.Tensor:
        ctx.save_for_backward(v - threshold, unit)
        ctx.neuron = neuron
        ctx.threshold_shape = threshold.shape
        if neuron.spikes == "single":
            return (v >= threshold).to(v.dtype)
        count = torch.div(v, threshold, rounding_mode="trunc") * (v > 0)
        return count if neuron.spikes == "multi" else count.clamp(max=int(neuron.spikes))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d, unit = ctx.saved_tensors
        grad = grads[0] * reference.surrogate_gradient(ctx.neuron.surrogate, d, unit)
        return grad, -grad.sum_to_size(ctx.threshold_shape), None, None


def loop(
    x: torch.Tensor, state: torch.Tensor, p: Parameters, neuron: Neuron, *, detach_reset: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return spikes [B, T, N], v [B, T, N] and state [B, N]; with ``detach_reset`` a spike resets as a constant."""
    spikes, potentials, v = [], [], state
    for t in range(x.shape[1]):
        v = p.decay * v + p.input_gain * x[:, t]
        if neuron.v_min is not None and neuron.v_min_position == "before_threshold":
            v = torch.where(v > neuron.v_min, v, neuron.v_min)
        s = Spike.apply(v, p.threshold, p.unit, neuron)
        spikes.append(s)
        potentials.append(v)
        if neuron.reset == "subtract":
            v = v - p.threshold * (s.detach() if detach_reset else s)
        elif neuron.reset == "zero":
            spiked = Spike.apply(v, p.threshold, p.unit, Neuron(spikes="single", surrogate=neuron.surrogate))
            v = v * (1 - (spiked.detach() if detach_reset else spiked))
        if neuron.v_min is not None and neuron.v_min_position == "after_reset":
            v = torch.where(v > neuron.v_min, v, neuron.v_min)
    return torch.stack(spikes, 1), torch.stack(potentials, 1), v
