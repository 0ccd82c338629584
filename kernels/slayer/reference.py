"""SLAYER as two plain loops over time: those of EXODUS with the reset path left out. README.md says what that changes.

With soft spikes the layer's output is soft and its reset is by whole spikes: constants almost everywhere, so that the
gradient without the reset path is the true one of this function.
"""

import torch

from neurodeploy.kernel import Gradients, Neuron, Parameters
from neurodeploy.kernels.exodus import reference as exodus


def forward(
    x: torch.Tensor, parameters: Parameters, state: torch.Tensor, neuron: Neuron
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (spikes [B, T, N], v [B, T, N] before the reset, final state [B, N]); x is [B, T, N]."""
    return exodus.forward(x, parameters, state, neuron, reset_path=False)


def backward(
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor,
    v: torch.Tensor,
    parameters: Parameters,
    state: torch.Tensor,
    neuron: Neuron,
) -> Gradients:
    """Return the gradients, given those of spikes [B, T, N], v [B, T, N] (None: zero) and final state [B, N]."""
    return exodus.backward(grad_spikes, grad_v, grad_state, x, v, parameters, state, neuron, reset_path=False)
