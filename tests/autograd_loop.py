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
    """Return spikes [B, T, N], v [B, T, N] and the state.

    With ``detach_reset`` a spike acts on its own neuron as a constant: in the reset, and in an adapting threshold.
    """
    spikes, potentials = [], []
    rows = dict(zip(p.state_rows, state.unbind() if state.dim() == 3 else [state], strict=True))
    zero = torch.zeros_like(rows["v_mem"])
    v, i, b, i_rec = (rows.get(name, zero) for name in ("v_mem", "i_syn", "b", "i_rec"))
    for t in range(x.shape[1]):
        current = x[:, t] + i_rec
        if p.syn_decay is not None:
            i = p.syn_decay * (i + current)
            current = i
        v = p.decay * v + p.input_gain * current
        if neuron.v_min is not None and neuron.v_min_position == "before_threshold":
            v = torch.where(v > neuron.v_min, v, neuron.v_min)
        threshold, level, unit = p.threshold, p.threshold, p.unit
        if p.adapt_scale is not None:
            threshold = p.threshold + p.adapt_scale * b
            level = threshold.detach() if neuron.detach_threshold else threshold
            unit = p.unit + (p.adapt_scale * b).detach()
        s = Spike.apply(v, level, unit, neuron)
        own = s.detach() if detach_reset else s
        spikes.append(s)
        potentials.append(v)
        if neuron.reset == "subtract":
            v = v - threshold * own
        elif neuron.reset == "zero":
            spiked = Spike.apply(v, level, unit, Neuron(spikes="single", surrogate=neuron.surrogate))
            v = v * (1 - (spiked.detach() if detach_reset else spiked))
        if p.adapt_decay is not None:
            b = p.adapt_decay * b + (1 - p.adapt_decay) * own
        if neuron.v_min is not None and neuron.v_min_position == "after_reset":
            v = torch.where(v > neuron.v_min, v, neuron.v_min)
        if p.weight is not None:
            i_rec = s @ p.weight.T if p.bias is None else s @ p.weight.T + p.bias
    final = {"v_mem": v, "i_syn": i, "b": b, "i_rec": i_rec}
    rows_after = [final[name] for name in p.state_rows]
    return (
        torch.stack(spikes, 1),
        torch.stack(potentials, 1),
        torch.stack(rows_after) if len(rows_after) > 1 else rows_after[0],
    )
