"""Leaky integrators and synapses on the GPU: the two operators of ``native_filter.py``."""

import torch

from neurodeploy.gpu import launch
from neurodeploy.gpu.filter_kernels import filter_backward, filter_forward
from neurodeploy.gpu.memory import empty
from neurodeploy.gpu.scan import add_up, scan, shared, widest


def forward(
    x: torch.Tensor, state: torch.Tensor, decay: torch.Tensor, input_gain: torch.Tensor, synapse: bool, time_major: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (output like x, final state); arguments as the operator's."""
    y = empty(x.shape, x.dtype, x)
    final_state = empty(state.shape, state.dtype, x)
    walk = scan(x, time_major, widest=widest(state.dtype), rows=16)
    launch.run(
        filter_forward,
        walk.grid,
        (x, state, decay, input_gain, y, final_state, *walk.sizes),
        walk.warps,
        SYNAPSE=synapse,
        SHARED=shared((decay, input_gain)),
        **walk.constants,
    )
    return y, final_state


def backward(
    grad_y: torch.Tensor,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    y: torch.Tensor | None,
    state: torch.Tensor,
    decay: torch.Tensor,
    input_gain: torch.Tensor,
    synapse: bool,
    time_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of x, state, decay and input gain; the last two are 0 without x and y."""
    grad_x = empty(grad_y.shape, grad_y.dtype, grad_y)
    grad_initial = empty(state.shape, state.dtype, grad_y)
    learnt = x is not None and y is not None
    walk = scan(grad_y, time_major, widest=2 if learnt else widest(state.dtype), rows=16)
    sums = empty((2, walk.lanes), torch.float64, grad_y) if learnt else None
    launch.run(
        filter_backward,
        walk.grid,
        (
            grad_y,
            grad_state,
            x if learnt else None,
            y if learnt else None,
            state,
            decay,
            input_gain,
            grad_x,
            grad_initial,
            sums,
            *walk.sizes,
        ),
        walk.warps,
        SYNAPSE=synapse,
        SHARED=shared((decay, input_gain)),
        **walk.constants,
    )
    if sums is None:
        return grad_x, grad_initial, torch.zeros_like(decay), torch.zeros_like(input_gain)
    neurons = grad_y.shape[2]
    return grad_x, grad_initial, add_up(sums[0], neurons, decay), add_up(sums[1], neurons, input_gain)
