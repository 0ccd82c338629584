"""Spike accumulation as a plain loop over time: the definition that ``accumulation.cpp`` equals. See README.md.

Arrays are [T, B, N], states [B, N]; ``Parameters`` are those of :mod:`neurodeploy.kernel`, the decay a single value.
"""

from typing import NamedTuple

import torch

from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels.exodus.reference import fire, surrogate_gradient


class Forward(NamedTuple):
    """What T steps give.

    ``a`` accumulations, ``spikes``, ``u`` potentials before the reset and ``U`` accumulated potentials, each [T, B, N]
    (in the form "lif" there is no U, and u stands in its place); ``potential`` and ``accumulation`` the carried state
    [B, N].
    """

    a: torch.Tensor
    spikes: torch.Tensor
    u: torch.Tensor
    U: torch.Tensor
    potential: torch.Tensor
    accumulation: torch.Tensor


def forward(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    parameters: Parameters,
    neuron: Neuron,
    form: str,
) -> Forward:
    """Run T steps of ``form``: "closed" (z = W a^in_t + bias c_t), "recurrent" or "lif" (z = W s^in_t + bias)."""
    decay, threshold, gain = parameters.decay, parameters.threshold, parameters.input_gain
    a, spikes, potentials, totals = (torch.empty_like(z) for _ in range(4))
    for t in range(z.shape[0]):
        total = gain * z[t] if form == "closed" else decay * potential + gain * z[t]
        u = total if form == "lif" else total - threshold * (decay * accumulation)
        s = fire(u, parameters, neuron)
        accumulation = decay * accumulation + s
        if form == "recurrent":
            potential = total
        if form == "lif":
            potential = u - threshold * s
        a[t], spikes[t], potentials[t], totals[t] = accumulation, s, u, total
    return Forward(a, spikes, potentials, totals, potential.clone(), accumulation.clone())


def backward(grad_a: torch.Tensor, u: torch.Tensor, parameters: Parameters, neuron: Neuron) -> torch.Tensor:
    """Return dL/dz [T, B, N] of each step alone: nothing is carried from one step to another."""
    slope = surrogate_gradient(neuron.surrogate, u - parameters.threshold, parameters.unit)
    return parameters.input_gain * (slope * grad_a)


def backward_clamp(grad_a: torch.Tensor, U: torch.Tensor, parameters: Parameters, largest: float) -> torch.Tensor:
    """Return dL/dz with the slope of ``clamp(U / threshold, 0, largest)`` in the surrogate's place."""
    inside = (U >= 0) & (parameters.threshold * largest >= U)
    return torch.where(inside, parameters.input_gain * (grad_a / parameters.threshold), 0.0)
