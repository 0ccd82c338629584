"""The spike response model of ``srm.py`` on the GPU: the recursion of ``srm.cpp`` and its gradient in Triton."""

from typing import Any

import torch
import triton
import triton.language as tl

from neurodeploy.gpu import flags, launch
from neurodeploy.gpu.choices import NO_LIMIT, Choices, inverse
from neurodeploy.gpu.memory import empty
from neurodeploy.gpu.neuron import fire
from neurodeploy.gpu.rows import column, lanes_of, load_rows, wide
from neurodeploy.gpu.scan import scan, shared
from neurodeploy.gpu.surrogate import surrogate_column, surrogate_gradient


@triton.jit
def srm_forward(
    x_ptr,
    state_ptr,
    decay_ptr,
    gain_ptr,
    ref_decay_ptr,
    ref_gain_ptr,
    threshold_ptr,
    spikes_ptr,
    u_ptr,
    final_ptr,
    flags_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps; u is not kept where its pointer is None."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    rows = wide(lanes)
    at = sample * wide(batch_stride) + neuron
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    gain = column(gain_ptr, neuron, mask, SHARED & 2)
    ref_decay = column(ref_decay_ptr, neuron, mask, SHARED & 4)
    ref_gain = column(ref_gain_ptr, neuron, mask, SHARED & 8)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 16)
    tl.store(flags_ptr + lane * 0, 1, mask=mask & ((threshold > 0) == 0))
    trace = tl.load(state_ptr + lane, mask=mask, other=0.0)
    response = tl.load(state_ptr + rows + lane, mask=mask, other=0.0)
    spike_trace = tl.load(state_ptr + 2 * rows + lane, mask=mask, other=0.0)
    refractory = tl.load(state_ptr + 3 * rows + lane, mask=mask, other=0.0)
    xs = load_rows(x_ptr, at, stride, mask, 0, steps, STEPS)
    for t in range(0, steps, STEPS):
        ahead = load_rows(x_ptr, at + STEPS * stride, stride, mask, t + STEPS, steps, STEPS)
        for u in tl.static_range(STEPS):
            now = mask
            if TAIL:
                now = mask & (t + u < steps)
            next_response = decay * (response + trace)
            next_refractory = ref_decay * (refractory + spike_trace)
            potential = gain * next_response - ref_gain * next_refractory
            spikes = fire(potential, threshold, C)
            next_trace = decay * trace + xs[u].to(trace.dtype)
            next_spike_trace = ref_decay * spike_trace + spikes
            if TAIL:
                response = tl.where(now, next_response, response)
                refractory = tl.where(now, next_refractory, refractory)
                trace = tl.where(now, next_trace, trace)
                spike_trace = tl.where(now, next_spike_trace, spike_trace)
            else:
                response = next_response
                refractory = next_refractory
                trace = next_trace
                spike_trace = next_spike_trace
            tl.store(spikes_ptr + at + u * stride, spikes.to(spikes_ptr.dtype.element_ty), mask=now)
            if u_ptr is not None:
                tl.store(u_ptr + at + u * stride, potential, mask=now)
        xs = ahead
        at += STEPS * stride
    tl.store(final_ptr + lane, trace, mask=mask)
    tl.store(final_ptr + rows + lane, response, mask=mask)
    tl.store(final_ptr + 2 * rows + lane, spike_trace, mask=mask)
    tl.store(final_ptr + 3 * rows + lane, refractory, mask=mask)


@triton.jit
def srm_backward(
    grad_spikes_ptr,
    grad_u_ptr,
    grad_state_ptr,
    u_ptr,
    decay_ptr,
    gain_ptr,
    ref_decay_ptr,
    ref_gain_ptr,
    threshold_ptr,
    grad_x_ptr,
    grad_initial_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps backwards; the four rows are the adjoints of the state."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    rows = wide(lanes)
    origin = sample * wide(batch_stride) + neuron
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    gain = column(gain_ptr, neuron, mask, SHARED & 2)
    ref_decay = column(ref_decay_ptr, neuron, mask, SHARED & 4)
    ref_gain = column(ref_gain_ptr, neuron, mask, SHARED & 8)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 16)
    rate, peak = surrogate_column(threshold, C)
    trace = tl.load(grad_state_ptr + lane, mask=mask, other=0.0)
    response = tl.load(grad_state_ptr + rows + lane, mask=mask, other=0.0)
    spike_trace = tl.load(grad_state_ptr + 2 * rows + lane, mask=mask, other=0.0)
    refractory = tl.load(grad_state_ptr + 3 * rows + lane, mask=mask, other=0.0)
    groups = (steps + STEPS - 1) // STEPS
    for k in range(0, groups):
        t = (groups - 1 - k) * STEPS
        at = origin + t * stride
        gs = load_rows(grad_spikes_ptr, at, stride, mask, t, steps, STEPS)
        us = load_rows(u_ptr, at, stride, mask, t, steps, STEPS)
        hs = load_rows(grad_u_ptr, at, stride, mask, t, steps, STEPS)
        for u in tl.static_range(STEPS):
            now = mask
            if TAIL:
                now = mask & (t + STEPS - 1 - u < steps)
            slope = surrogate_gradient(us[STEPS - 1 - u] - threshold, rate, peak, C)
            q = gs[STEPS - 1 - u].to(trace.dtype)
            if C.reset_path:
                q = q + spike_trace
            adjoint = slope * q
            if grad_u_ptr is not None:
                adjoint = adjoint + hs[STEPS - 1 - u]
            of_response = response + gain * adjoint
            of_refractory = refractory - ref_gain * adjoint
            tl.store(grad_x_ptr + at + (STEPS - 1 - u) * stride, trace.to(grad_x_ptr.dtype.element_ty), mask=now)
            next_trace = decay * trace + decay * of_response
            next_spike_trace = ref_decay * spike_trace + ref_decay * of_refractory
            if TAIL:
                trace = tl.where(now, next_trace, trace)
                response = tl.where(now, decay * of_response, response)
                spike_trace = tl.where(now, next_spike_trace, spike_trace)
                refractory = tl.where(now, ref_decay * of_refractory, refractory)
            else:
                trace = next_trace
                response = decay * of_response
                spike_trace = next_spike_trace
                refractory = ref_decay * of_refractory
    tl.store(grad_initial_ptr + lane, trace, mask=mask)
    tl.store(grad_initial_ptr + rows + lane, response, mask=mask)
    tl.store(grad_initial_ptr + 2 * rows + lane, spike_trace, mask=mask)
    tl.store(grad_initial_ptr + 3 * rows + lane, refractory, mask=mask)


def _choices(
    dtype: torch.dtype, max_spikes: int, surrogate: int, width: float, scale: float, reset_path: bool
) -> Choices:
    return Choices(
        reset=2,
        max_spikes=max_spikes,
        v_min_before=NO_LIMIT,
        v_min_after=NO_LIMIT,
        surrogate=surrogate,
        width=width,
        scale=scale,
        inverse_width=inverse(width, dtype),
        soft=False,
        reset_path=reset_path,
        threshold_level=1.0,
    )


def forward(x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    """The forward operator of ``srm.py``: spikes, u (empty unless kept), final state."""
    *constants, keep_u = arguments
    flags.raise_earlier(x.device)
    spikes = empty(x.shape, x.dtype, x)
    u = empty(x.shape if keep_u else (0,), state.dtype, x)
    final_state = empty(state.shape, state.dtype, x)
    walk = scan(x, constants[-1], widest=2, rows=16)
    launch.run(
        srm_forward,
        walk.grid,
        (x, state, *constants[:5], spikes, u if keep_u else None, final_state, flags.flags(x.device), *walk.sizes),
        walk.warps,
        C=_choices(state.dtype, *constants[5:-1]),
        SHARED=shared(constants[:5]),
        **walk.constants,
    )
    return spikes, u, final_state


def backward(
    grad_spikes: torch.Tensor, grad_u: torch.Tensor | None, grad_state: torch.Tensor, u: torch.Tensor, *constants: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The backward operator of ``srm.py``: gradients of x and of the initial state."""
    grad_x = empty(grad_spikes.shape, grad_spikes.dtype, grad_spikes)
    grad_initial = empty(grad_state.shape, grad_state.dtype, grad_state)
    walk = scan(grad_spikes, constants[-1], widest=2, rows=16)
    launch.run(
        srm_backward,
        walk.grid,
        (grad_spikes, grad_u, grad_state, u, *constants[:5], grad_x, grad_initial, *walk.sizes),
        walk.warps,
        C=_choices(grad_state.dtype, *constants[5:-1]),
        SHARED=shared(constants[:5]),
        **walk.constants,
    )
    return grad_x, grad_initial
