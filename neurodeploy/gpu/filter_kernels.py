"""The scans of ``native/filter.cpp`` on the GPU: leaky integrators without spikes, and exponential synapses."""

import triton
import triton.language as tl

from neurodeploy.gpu.rows import column, lanes_of, load_rows, wide


@triton.jit
def filter_forward(
    x_ptr,
    state_ptr,
    decay_ptr,
    gain_ptr,
    y_ptr,
    final_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    SYNAPSE: tl.constexpr,
    SHARED: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps: ``y = decay * y + gain * x``, or as a synapse ``y = decay * (y + x)``."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    at = sample * wide(batch_stride) + neuron
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    gain = column(gain_ptr, neuron, mask, SHARED & 2)
    y = tl.load(state_ptr + lane, mask=mask, other=0.0)
    xs = load_rows(x_ptr, at, stride, mask, 0, steps, STEPS)
    for t in range(0, steps, STEPS):
        ahead = load_rows(x_ptr, at + STEPS * stride, stride, mask, t + STEPS, steps, STEPS)
        for u in tl.static_range(STEPS):
            x = xs[u].to(y.dtype)
            if SYNAPSE:
                after = decay * (y + x)
            else:
                after = decay * y + gain * x
            now = mask
            if TAIL:
                now = mask & (t + u < steps)
                y = tl.where(now, after, y)
            else:
                y = after
            tl.store(y_ptr + at + u * stride, y.to(y_ptr.dtype.element_ty), mask=now)
        xs = ahead
        at += STEPS * stride
    tl.store(final_ptr + lane, y, mask=mask)


@triton.jit
def filter_backward(
    grad_y_ptr,
    grad_state_ptr,
    x_ptr,
    y_ptr,
    state_ptr,
    decay_ptr,
    gain_ptr,
    grad_x_ptr,
    grad_initial_ptr,
    sums_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    SYNAPSE: tl.constexpr,
    SHARED: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps backwards; ``sums_ptr`` is None where nothing is learnt, and then so are x and y."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    origin = sample * wide(batch_stride) + neuron
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    gain = column(gain_ptr, neuron, mask, SHARED & 2)
    p = tl.load(grad_state_ptr + lane, mask=mask, other=0.0)
    start = p
    if sums_ptr is not None:
        start = tl.load(state_ptr + lane, mask=mask, other=0.0)
    of_decay = (p * 0.0).to(tl.float64)
    of_gain = of_decay
    groups = (steps + STEPS - 1) // STEPS
    for k in range(0, groups):
        t = (groups - 1 - k) * STEPS
        at = origin + t * stride
        gs = load_rows(grad_y_ptr, at, stride, mask, t, steps, STEPS)
        xs = load_rows(x_ptr, at, stride, mask, t, steps, STEPS)
        # The outputs of the steps before; that of the first one is the initial state, which is no row.
        ys = load_rows(y_ptr, at - stride, stride, mask & (t > 0), t - 1, steps, 1)
        if STEPS > 1:
            ys = ys + load_rows(y_ptr, at, stride, mask, t, steps, STEPS - 1)
        for u in tl.static_range(STEPS):
            now = mask
            if TAIL:
                now = mask & (t + STEPS - 1 - u < steps)
            adjoint = gs[STEPS - 1 - u].to(p.dtype) + p
            if sums_ptr is not None:
                before = ys[STEPS - 1 - u].to(p.dtype)
                if u == STEPS - 1:
                    before = tl.where(mask & (t > 0), before, start)
                x = xs[STEPS - 1 - u].to(p.dtype)
                counted = tl.where(now, adjoint, 0.0).to(tl.float64)
                if SYNAPSE:
                    of_decay += counted * (before + x).to(tl.float64)
                else:
                    of_decay += counted * before.to(tl.float64)
                    of_gain += counted * x.to(tl.float64)
            after = decay * adjoint
            if SYNAPSE:
                grad_x = after
            else:
                grad_x = gain * adjoint
            if TAIL:
                p = tl.where(now, after, p)
            else:
                p = after
            tl.store(grad_x_ptr + at + (STEPS - 1 - u) * stride, grad_x.to(grad_x_ptr.dtype.element_ty), mask=now)
    tl.store(grad_initial_ptr + lane, p, mask=mask)
    if sums_ptr is not None:
        tl.store(sums_ptr + lane, of_decay, mask=mask)
        tl.store(sums_ptr + wide(lanes) + lane, of_gain, mask=mask)
