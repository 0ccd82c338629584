"""``accumulation.cpp`` in Triton: potentials to accumulations, step by step, and gradients through the surrogate."""

import triton
import triton.language as tl

from neurodeploy.gpu.neuron import fire
from neurodeploy.gpu.rows import column, lanes_of, load_rows, wide
from neurodeploy.gpu.surrogate import surrogate_column, surrogate_gradient


@triton.jit
def saf_step(z, potential, before, decay, threshold, gain, FORM: tl.constexpr, C: tl.constexpr):
    """One step: returns (potential carried on, accumulation, spikes, potential before the reset).

    FORM is the position in ``accumulation.FORMS``: 0 closed, 1 recurrent, 2 lif.
    """
    decayed = decay * before
    total = gain * z
    if FORM != 0:
        total = decay * potential + total
    v = total
    if FORM != 2:
        v = total - threshold * decayed
    spikes = fire(v, threshold, C)
    if FORM == 1:
        potential = total
    elif FORM == 2:
        potential = v - threshold * spikes
    return potential, decayed + spikes, spikes, v


@triton.jit
def saf_forward(
    z_ptr,
    potential_ptr,
    accumulation_ptr,
    decay_ptr,
    threshold_ptr,
    gain_ptr,
    a_ptr,
    spikes_ptr,
    kept_ptr,
    final_ptr,
    flags_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    FORM: tl.constexpr,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps; arrays that are None are not kept. Raises a flag where a threshold is not above 0."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    at = sample * wide(batch_stride) + neuron
    decay = tl.load(decay_ptr)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 1)
    gain = column(gain_ptr, neuron, mask, SHARED & 2)
    tl.store(flags_ptr + lane * 0, 1, mask=mask & ((threshold > 0) == 0))
    a = tl.load(accumulation_ptr + lane, mask=mask, other=0.0)
    potential = a
    if potential_ptr is not None:
        potential = tl.load(potential_ptr + lane, mask=mask, other=0.0)
    zs = load_rows(z_ptr, at, stride, mask, 0, steps, STEPS)
    for t in range(0, steps, STEPS):
        ahead = load_rows(z_ptr, at + STEPS * stride, stride, mask, t + STEPS, steps, STEPS)
        for k in tl.static_range(STEPS):
            now = mask
            if TAIL:
                now = mask & (t + k < steps)
            next_potential, next_a, spikes, v = saf_step(zs[k], potential, a, decay, threshold, gain, FORM, C)
            a = tl.where(now, next_a, a)
            potential = tl.where(now, next_potential, potential)
            tl.store(a_ptr + at + k * stride, a, mask=now)
            if spikes_ptr is not None:
                tl.store(spikes_ptr + at + k * stride, spikes, mask=now)
            if kept_ptr is not None:
                tl.store(kept_ptr + at + k * stride, v, mask=now)
        zs = ahead
        at += STEPS * stride
    if final_ptr is not None:
        tl.store(final_ptr + lane, potential, mask=mask)


@triton.jit
def saf_backward(
    grad_ptr,
    kept_ptr,
    threshold_ptr,
    gain_ptr,
    unit_ptr,
    grad_z_ptr,
    count,
    neurons,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of every step alone."""
    lane, mask, _, neuron = lanes_of(count, neurons, BLOCK, WIDE)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 1)
    gain = column(gain_ptr, neuron, mask, SHARED & 2)
    rate, peak = surrogate_column(column(unit_ptr, neuron, mask, SHARED & 4), C)
    kept = tl.load(kept_ptr + lane, mask=mask, other=0.0)
    grad = tl.load(grad_ptr + lane, mask=mask, other=0.0)
    slope = surrogate_gradient(kept - threshold, rate, peak, C)
    tl.store(grad_z_ptr + lane, gain * (slope * grad), mask=mask)
