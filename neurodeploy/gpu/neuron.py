"""Device functions for the steps of neurons: those of ``native/neuron.hpp`` and ``native/layer_state_blocks.cpp``.

Each is a statement of one formula in the order of operations of the processor's kernels, so that spikes and potentials
have the same bits. ``C`` is a :class:`neurodeploy.gpu.choices.Choices`.
"""

import triton
import triton.language as tl

from neurodeploy.gpu.arithmetic import divide
from neurodeploy.gpu.surrogate import surrogate_column, surrogate_gradient, surrogate_primitive


@triton.jit
def clip(v, V_MIN: tl.constexpr):
    """The potential, at least ``V_MIN``; a NaN stays one."""
    v_min = tl.full(v.shape, V_MIN, v.dtype)  # in float64 a bare number may be rounded to float32
    return tl.where(v < v_min, v_min, v)


@triton.jit
def unclipped(v, p, V_MIN: tl.constexpr):
    """The adjoint p where the potential is above ``V_MIN``, else 0."""
    return tl.where(v > tl.full(v.shape, V_MIN, v.dtype), p, 0.0)


@triton.jit
def fire(v, threshold, C: tl.constexpr):
    """Whole spikes at potential v."""
    if C.max_spikes == 1:
        return tl.where(v >= threshold, 1.0, 0.0).to(v.dtype)
    else:
        count = tl.where(v > 0, tl.floor(divide(v, threshold)), 0.0)  # of a positive number, floor is trunc
        if C.max_spikes > 1:
            count = tl.where(count > C.max_spikes, C.max_spikes * 1.0, count)
        return count


@triton.jit
def after_reset(v, s, threshold, C: tl.constexpr):
    """The potential after s spikes, before a clip."""
    if C.reset == 0:
        return v - threshold * s
    elif C.reset == 1:
        if C.soft:
            return v * silent(s, C)
        else:
            return tl.where(s > 0, 0.0, v)
    else:
        return v


@triton.jit
def silent(s, C: tl.constexpr):
    """What a hard reset leaves of the potential: 1 without a spike, else 0; soft spikes leave 1 - s."""
    if C.soft and C.reset_path:
        return 1.0 - s
    else:
        return 1.0 - tl.where(s > 1, 1.0, s)


@triton.jit
def resetting_spikes(v, threshold, unit, C: tl.constexpr):
    """The counts that reset the potential: soft ones where the reset is part of the gradient, else whole ones."""
    if C.soft and C.reset_path:
        return surrogate_primitive(v - threshold, unit, C)
    else:
        return fire(v, threshold, C)


@triton.jit
def layer_step(
    x, v, i, b, decay, threshold, gain, unit, syn, adapt, scale,
    C: tl.constexpr, SYN: tl.constexpr, ADAPT: tl.constexpr,
):  # fmt: skip
    """One step: returns the state (v, i, b) after it, the potential at the threshold, spikes, and the drive.

    ``SYN`` where neurons have a synapse, ``ADAPT`` where they adapt. The drive is the current before the synapse.
    """
    drive = x
    current = x
    if SYN:
        drive = i + x
        i = syn * drive
        current = i
    level = threshold
    if ADAPT:
        level = threshold + scale * b
    potential = clip(decay * v + gain * current, C.v_min_before)
    resetting = resetting_spikes(potential, level, unit, C)
    spikes = resetting
    if C.soft and not C.reset_path:
        spikes = surrogate_primitive(potential - level, unit, C)
    v = clip(after_reset(potential, resetting, level, C), C.v_min_after)
    if ADAPT:
        b = adapt * b + (1.0 - adapt) * resetting
    return v, i, b, potential, spikes, drive


@triton.jit
def layer_adjoint(
    u, g, h, b, p, p_i, p_b, decay, threshold, gain, unit, syn, adapt, scale, rate, peak,
    C: tl.constexpr, SYN: tl.constexpr, ADAPT: tl.constexpr,
):  # fmt: skip
    """One step backwards, from the adjoints (p, p_i, p_b) of the state after it to those of the state before it.

    Args: potential u at the threshold, gradients g of the spikes and h of u, the trace b before the step (not read
    without adaptation), and the surrogate's column.

    Returns: the gradient of x, the three adjoints, then what gradients of parameters add up: dL/d(current) before the
    gain, the state w after the step, dL/d(threshold), dL/d(synaptic current), and the spikes.
    """
    level = threshold
    if ADAPT:
        level = threshold + scale * b
        if not C.soft:  # soft spikes keep the unit: it has no gradient
            rate, peak = surrogate_column(unit + scale * b, C)
    s = resetting_spikes(u, level, unit, C)
    slope = surrogate_gradient(u - level, rate, peak, C)
    if C.reset == 0:
        after = u - level * s
    elif C.reset == 1:
        after = u * silent(s, C)
    else:
        after = u
    free = unclipped(after, p, C.v_min_after)
    q = g
    if ADAPT and C.reset_path:
        q = q + (1.0 - adapt) * p_b
    through = free
    if C.reset == 0 and C.reset_path:
        q = q - level * free
    if C.reset == 1:
        if C.reset_path:
            q = q - u * free
        through = silent(s, C) * free
    direct = slope * q
    adjoint = direct + through
    adjoint = adjoint + h
    masked = unclipped(u, adjoint, C.v_min_before)
    if ADAPT:
        of_threshold = -(C.threshold_level * direct)
    else:
        of_threshold = -direct
    if C.reset == 0:
        of_threshold = of_threshold - s * free
    grad_x = gain * masked
    p = decay * masked
    of_synapse = grad_x
    if SYN:
        of_synapse = p_i + grad_x
        p_i = syn * of_synapse
        grad_x = p_i
    if ADAPT:
        p_b = adapt * p_b + scale * of_threshold
    return grad_x, p, p_i, p_b, masked, clip(after, C.v_min_after), of_threshold, of_synapse, s
