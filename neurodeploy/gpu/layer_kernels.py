"""The forward and backward scan of IAF/LIF layers on the GPU; ``native/layer.cpp`` is the same on the processor.

The READMEs of kernels/exodus and kernels/slayer derive the equations, that of exodus also the split of the time axis.
Grids are (blocks of lanes, chunks of time). ``SHARED`` has bit k set where parameter k has one value for all neurons.
"""

import triton
import triton.language as tl

from neurodeploy.gpu.neuron import layer_adjoint, layer_step
from neurodeploy.gpu.rows import column, lanes_of, load_rows, wide
from neurodeploy.gpu.surrogate import surrogate_column


@triton.jit
def layer_forward(
    x_ptr,
    state_ptr,
    decay_ptr,
    threshold_ptr,
    gain_ptr,
    unit_ptr,
    syn_ptr,
    adapt_ptr,
    scale_ptr,
    spikes_ptr,
    v_ptr,
    drive_ptr,
    b_ptr,
    checkpoints_ptr,
    final_ptr,
    flags_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    EVERY: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps; arrays that are None are not kept. Writes a flag where a parameter is not allowed."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    rows = wide(lanes)
    at = sample * wide(batch_stride) + neuron
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 2)
    gain = column(gain_ptr, neuron, mask, SHARED & 4)
    unit = column(unit_ptr, neuron, mask, SHARED & 8)
    syn = column(syn_ptr, neuron, mask, SHARED & 16)
    adapt = column(adapt_ptr, neuron, mask, SHARED & 32)
    scale = column(scale_ptr, neuron, mask, SHARED & 64)
    tl.store(flags_ptr + lane * 0, 1, mask=mask & ((threshold > 0) == 0))
    v = tl.load(state_ptr + lane, mask=mask, other=0.0)
    i = v
    b = v
    if syn_ptr is not None:
        i = tl.load(state_ptr + rows + lane, mask=mask, other=0.0)
    if adapt_ptr is not None:
        last = rows * (1 + (syn_ptr is not None))
        b = tl.load(state_ptr + last + lane, mask=mask, other=0.0)
        tl.store(flags_ptr + 1 + lane * 0, 1, mask=mask & ((scale >= 0) == 0))
        tl.store(flags_ptr + 2 + lane * 0, 1, mask=mask & ((b >= 0) == 0))
    xs = load_rows(x_ptr, at, stride, mask, 0, steps, STEPS)
    for t in range(0, steps, STEPS):
        if checkpoints_ptr is not None:
            if t % EVERY == 0:
                STATES: tl.constexpr = 1 + (syn_ptr is not None) + (adapt_ptr is not None)
                row = (sample * wide((steps + EVERY - 1) // EVERY) + t // EVERY) * (STATES * wide(neurons)) + neuron
                tl.store(checkpoints_ptr + row, v, mask=mask)
                if syn_ptr is not None:
                    tl.store(checkpoints_ptr + row + neurons, i, mask=mask)
                if adapt_ptr is not None:
                    tl.store(checkpoints_ptr + row + (STATES - 1) * neurons, b, mask=mask)
        ahead = load_rows(x_ptr, at + STEPS * stride, stride, mask, t + STEPS, steps, STEPS)
        for u in tl.static_range(STEPS):
            x = xs[u].to(v.dtype)
            now = mask
            before = b
            next_v, next_i, next_b, potential, spikes, drive = layer_step(
                x, v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C
            )
            if TAIL:
                now = mask & (t + u < steps)
                v = tl.where(now, next_v, v)
                i = tl.where(now, next_i, i)
                b = tl.where(now, next_b, b)
            else:
                v = next_v
                i = next_i
                b = next_b
            tl.store(spikes_ptr + at + u * stride, spikes.to(spikes_ptr.dtype.element_ty), mask=now)
            if v_ptr is not None:
                tl.store(v_ptr + at + u * stride, potential, mask=now)
            if drive_ptr is not None:
                tl.store(drive_ptr + at + u * stride, drive, mask=now)
            if b_ptr is not None:
                tl.store(b_ptr + at + u * stride, before, mask=now)
        xs = ahead
        at += STEPS * stride
    tl.store(final_ptr + lane, v, mask=mask)
    if syn_ptr is not None:
        tl.store(final_ptr + rows + lane, i, mask=mask)
    if adapt_ptr is not None:
        last = rows * (1 + (syn_ptr is not None))
        tl.store(final_ptr + last + lane, b, mask=mask)


@triton.jit
def layer_backward(
    grad_spikes_ptr,
    grad_v_ptr,
    grad_state_ptr,
    v_ptr,
    drive_ptr,
    b_ptr,
    checkpoints_ptr,
    x_ptr,
    state_ptr,
    decay_ptr,
    threshold_ptr,
    gain_ptr,
    unit_ptr,
    syn_ptr,
    adapt_ptr,
    scale_ptr,
    grad_x_ptr,
    grad_initial_ptr,
    sums_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    EVERY: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps backwards; ``checkpoints_ptr`` is None where v was stored, ``sums_ptr`` where nothing is learnt.

    Potentials that were not stored are computed again, ``STEPS`` at a time in registers, from the last checkpoint.
    """
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    stride = wide(step_stride)
    rows = wide(lanes)
    origin = sample * wide(batch_stride) + neuron
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 2)
    gain = column(gain_ptr, neuron, mask, SHARED & 4)
    unit = column(unit_ptr, neuron, mask, SHARED & 8)
    syn = column(syn_ptr, neuron, mask, SHARED & 16)
    adapt = column(adapt_ptr, neuron, mask, SHARED & 32)
    scale = column(scale_ptr, neuron, mask, SHARED & 64)
    rate, peak = surrogate_column(unit, C)
    p = tl.load(grad_state_ptr + lane, mask=mask, other=0.0)
    p_i = p
    p_b = p
    STATES: tl.constexpr = 1 + (syn_ptr is not None) + (adapt_ptr is not None)
    if syn_ptr is not None:
        p_i = tl.load(grad_state_ptr + rows + lane, mask=mask, other=0.0)
    if adapt_ptr is not None:
        p_b = tl.load(grad_state_ptr + (STATES - 1) * rows + lane, mask=mask, other=0.0)
    later = p * 0.0  # adjoint of the current at the step after
    of_decay = later.to(tl.float64)
    of_threshold = of_decay
    of_gain = of_decay
    of_syn = of_decay
    of_adapt = of_decay
    of_scale = of_decay
    groups = (steps + STEPS - 1) // STEPS
    for k in range(0, groups):
        group = groups - 1 - k
        t = group * STEPS
        at = origin + t * stride
        gs = load_rows(grad_spikes_ptr, at, stride, mask, t, steps, STEPS)
        hs = load_rows(grad_v_ptr, at, stride, mask, t, steps, STEPS)
        if checkpoints_ptr is None:
            us = load_rows(v_ptr, at, stride, mask, t, steps, STEPS)
            drives = load_rows(drive_ptr, at, stride, mask, t, steps, STEPS)
            bs = load_rows(b_ptr, at, stride, mask, t, steps, STEPS)
            if drive_ptr is None:
                drives = load_rows(x_ptr, at, stride, mask, t, steps, STEPS)
        else:
            chunk = t // EVERY
            row = (sample * wide((steps + EVERY - 1) // EVERY) + chunk) * (STATES * wide(neurons)) + neuron
            v = tl.load(checkpoints_ptr + row, mask=mask, other=0.0)
            i = v
            b = v
            if syn_ptr is not None:
                i = tl.load(checkpoints_ptr + row + neurons, mask=mask, other=0.0)
            if adapt_ptr is not None:
                b = tl.load(checkpoints_ptr + row + (STATES - 1) * neurons, mask=mask, other=0.0)
            if STEPS < EVERY:
                for r in range(chunk * EVERY, t, STEPS):
                    xs = load_rows(x_ptr, origin + r * stride, stride, mask, r, steps, STEPS)
                    for u in tl.static_range(STEPS):
                        v, i, b, potential, spikes, drive = layer_step(
                            xs[u].to(v.dtype), v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C
                        )
            xs = load_rows(x_ptr, at, stride, mask, t, steps, STEPS)
            us = ()
            drives = ()
            bs = ()
            for u in tl.static_range(STEPS):
                bs = bs + (b,)
                v, i, b, potential, spikes, drive = layer_step(
                    xs[u].to(v.dtype), v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C
                )
                us = us + (potential,)
                drives = drives + (drive,)
        for u in tl.static_range(STEPS):
            g = gs[STEPS - 1 - u].to(p.dtype)
            h = None
            if grad_v_ptr is not None:
                h = hs[STEPS - 1 - u]
            b = None
            if adapt_ptr is not None:
                b = bs[STEPS - 1 - u]
            now = mask
            if TAIL:
                now = mask & (t + STEPS - 1 - u < steps)
            grad_x, next_p, next_p_i, next_p_b, masked, carried, of_level, of_synapse, s = layer_adjoint(
                us[STEPS - 1 - u], g, h, b, p, p_i, p_b,
                decay, threshold, gain, unit, syn, adapt, scale, rate, peak, C,
            )  # fmt: skip
            if sums_ptr is not None:
                if TAIL:
                    masked = tl.where(now, masked, 0.0)
                    of_level = tl.where(now, of_level, 0.0)
                    of_synapse = tl.where(now, of_synapse, 0.0)
                of_decay += later.to(tl.float64) * carried.to(tl.float64)
                of_threshold += of_level.to(tl.float64)
                if drive_ptr is not None or x_ptr is not None:  # else the gain is not learnt
                    drive = drives[STEPS - 1 - u].to(p.dtype)
                    if syn_ptr is not None:
                        of_syn += of_synapse.to(tl.float64) * drive.to(tl.float64)
                        drive = syn * drive
                    of_gain += masked.to(tl.float64) * drive.to(tl.float64)
                if adapt_ptr is not None:
                    of_adapt += tl.where(now, p_b, 0.0).to(tl.float64) * (b.to(tl.float64) - s.to(tl.float64))
                    of_scale += of_level.to(tl.float64) * b.to(tl.float64)
                later = masked
            if TAIL:
                p = tl.where(now, next_p, p)
                p_i = tl.where(now, next_p_i, p_i)
                p_b = tl.where(now, next_p_b, p_b)
            else:
                p = next_p
                p_i = next_p_i
                p_b = next_p_b
            tl.store(grad_x_ptr + at + (STEPS - 1 - u) * stride, grad_x.to(grad_x_ptr.dtype.element_ty), mask=now)
    tl.store(grad_initial_ptr + lane, p, mask=mask)
    if syn_ptr is not None:
        tl.store(grad_initial_ptr + rows + lane, p_i, mask=mask)
    if adapt_ptr is not None:
        tl.store(grad_initial_ptr + (STATES - 1) * rows + lane, p_b, mask=mask)
    if sums_ptr is not None:
        before = tl.load(state_ptr + lane, mask=mask, other=0.0)
        of_decay += later.to(tl.float64) * before.to(tl.float64)
        tl.store(sums_ptr + lane, of_decay, mask=mask)
        tl.store(sums_ptr + rows + lane, of_threshold, mask=mask)
        tl.store(sums_ptr + 2 * rows + lane, of_gain, mask=mask)
        if syn_ptr is not None:
            tl.store(sums_ptr + 3 * rows + lane, of_syn, mask=mask)
        if adapt_ptr is not None:
            tl.store(sums_ptr + 4 * rows + lane, of_adapt, mask=mask)
            tl.store(sums_ptr + 5 * rows + lane, of_scale, mask=mask)
