"""EXODUS as two plain loops over time: the definition that ``cpu.cpp`` equals. README.md derives the backward loop.

``reset_path=False`` leaves out what a spike does to the loss through the reset of its own neuron: that is SLAYER.
"""

from dataclasses import replace
from math import inf, pi

import torch

from neurodeploy.kernel import Gradients, Neuron, Parameters
from neurodeploy.surrogate import Arctan, Box, Heaviside, PeriodicExponential, Sigmoid, SingleExponential, Surrogate


def forward(
    x: torch.Tensor, parameters: Parameters, state: torch.Tensor, neuron: Neuron, *, reset_path: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (spikes [B, T, N], v [B, T, N] before the reset, final state [B, N]); x is [B, T, N]."""
    spikes, potentials = torch.empty_like(x), torch.empty_like(x)
    resetting = neuron if reset_path else replace(neuron, soft_spikes=False)
    after = state.clone()
    for t in range(x.shape[1]):
        v = _clip(parameters.decay * after + parameters.input_gain * x[:, t], neuron, "before_threshold")
        s = fire(v, parameters, neuron)
        after = _reset(v, fire(v, parameters, resetting), parameters, resetting)
        after = _clip(after, neuron, "after_reset")
        spikes[:, t], potentials[:, t] = s, v
    return spikes, potentials, after


def backward(
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor,
    v: torch.Tensor,
    parameters: Parameters,
    state: torch.Tensor,
    neuron: Neuron,
    *,
    reset_path: bool = True,
) -> Gradients:
    """Return the gradients, given those of spikes [B, T, N], v [B, T, N] (None: zero) and final state [B, N]."""
    decay, threshold, input_gain, unit = parameters
    grad_x = torch.empty_like(x)
    sums = [torch.zeros_like(state) for _ in range(3)]  # decay, threshold, input gain, per sample
    p = grad_state.clone()  # adjoint of the state after step t
    current = torch.zeros_like(state)  # adjoint of decay * state + input_gain * x at step t + 1
    resetting = neuron if reset_path else replace(neuron, soft_spikes=False)
    before_limit, after_limit = _limit(neuron, "before_threshold"), _limit(neuron, "after_reset")
    for t in reversed(range(x.shape[1])):
        u = v[:, t]
        s = fire(u, parameters, resetting)
        slope = surrogate_gradient(neuron.surrogate, u - threshold, unit)
        after = _reset(u, s, parameters, resetting)
        free = torch.where(after > after_limit, p, 0.0)
        q, through, spike_path = grad_spikes[:, t], free, torch.zeros_like(free)
        if neuron.reset == "subtract":
            q = q - threshold * free if reset_path else q
            spike_path = -s * free
        elif neuron.reset == "zero":
            q = q - u * free if reset_path else q
            through = _silent(s, resetting) * free
        adjoint = slope * q + through
        if grad_v is not None:
            adjoint = adjoint + grad_v[:, t]
        masked = torch.where(u > before_limit, adjoint, 0.0)
        sums[0] += current * _clip(after, neuron, "after_reset")
        sums[1] += spike_path - slope * q
        sums[2] += masked * x[:, t]
        grad_x[:, t] = input_gain * masked
        current, p = masked, decay * masked
    sums[0] += current * state
    per_parameter = (
        total.sum().reshape(1) if len(value) == 1 else total.sum(0)
        for total, value in zip(sums, parameters[:3], strict=True)
    )
    return Gradients(grad_x, p, *per_parameter)


def fire(v: torch.Tensor, parameters: Parameters, neuron: Neuron) -> torch.Tensor:
    """Return the spike counts at potentials v [..., N]: whole numbers, or soft ones."""
    if neuron.soft_spikes:
        return surrogate_primitive(neuron.surrogate, v - parameters.threshold, parameters.unit)
    if neuron.max_spikes == 1:
        return (v >= parameters.threshold).to(v.dtype)
    count = torch.where(v > 0, torch.trunc(v / parameters.threshold), 0.0)
    return count.clamp(max=neuron.max_spikes) if neuron.max_spikes else count


def surrogate_gradient(surrogate: Surrogate, d: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return ds/dv at distances d above the threshold; formulas in ``neurodeploy/surrogate.py``."""
    match surrogate:
        case SingleExponential(w, c):
            return c / (w * unit) * torch.exp(-d.abs() / (w * unit))
        case PeriodicExponential(w, c):
            phase = d / unit + 0.5
            wave = unit * (2 * (phase - phase.floor()) - 1)
            return c * torch.exp(-torch.where(d < 0, d, wave).abs() / w)
        case Box(w, c):
            return torch.where(d.abs() <= w * unit / 2, c / (w * unit), 0.0)
        case Sigmoid(w, c):
            f = torch.sigmoid(d / (w * unit))
            return c / (w * unit) * f * (1 - f)
        case Arctan(w, c):
            return c / (2 * w * unit) / (1 + (pi * d / (2 * w * unit)) ** 2)
        case Heaviside(window):
            return torch.where(d >= -window, 1 / unit, 0.0)


def surrogate_primitive(surrogate: Surrogate, d: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return the function of d whose derivative is the surrogate."""
    match surrogate:
        case SingleExponential(w, c):
            e = torch.exp(-d.abs() / (w * unit))
            return c * torch.where(d < 0, e, 2 - e)
        case PeriodicExponential(w, c):
            k = torch.floor(d / unit + 0.5)
            rest = d - k * unit
            half = rest.sign() * w / 2 * (1 - torch.exp(-2 * rest.abs() / w))
            above = w + k * w * (1 - torch.exp(-unit / w)) + half
            return c * torch.where(d < 0, w * torch.exp(d.clamp(max=0) / w), above)
        case Box(w, c):
            return c * (d / (w * unit) + 0.5).clamp(0, 1)
        case Sigmoid(w, c):
            return c * torch.sigmoid(d / (w * unit))
        case Arctan(w, c):
            return c * (torch.atan(pi * d / (2 * w * unit)) / pi + 0.5)
        case Heaviside(window):
            return (d + window).clamp(min=0) / unit


def _limit(neuron: Neuron, position: str) -> float:
    return neuron.v_min if neuron.v_min is not None and neuron.v_min_position == position else -inf


def _clip(v: torch.Tensor, neuron: Neuron, position: str) -> torch.Tensor:
    limit = _limit(neuron, position)
    return torch.where(v < limit, limit, v)


def _silent(s: torch.Tensor, neuron: Neuron) -> torch.Tensor:
    """What a hard reset leaves of the potential: 1 without a spike, else 0; soft spikes leave 1 - s."""
    return 1 - s if neuron.soft_spikes else 1 - s.clamp(max=1)


def _reset(v: torch.Tensor, s: torch.Tensor, parameters: Parameters, neuron: Neuron) -> torch.Tensor:
    if neuron.reset == "subtract":
        return v - parameters.threshold * s
    if neuron.reset == "zero":
        return v * _silent(s, neuron)
    return v
