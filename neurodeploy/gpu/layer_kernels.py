"""The forward and backward scan of IAF/LIF layers on the GPU; ``native/layer.cpp`` is the same on the processor.

The READMEs of kernels/exodus and kernels/slayer derive the equations, that of exodus also the split of the time axis.
Grids are (blocks of lanes, chunks of time). ``SHARED`` has bit k set where parameter k has one value for all neurons.
"""

import triton
import triton.language as tl

from neurodeploy.gpu.neuron import after_reset, clip, layer_adjoint, layer_step, resetting_spikes
from neurodeploy.gpu.rows import column, lanes_of, load_rows, wide
from neurodeploy.gpu.surrogate import surrogate_column


@triton.jit
def numbers(
    decay_ptr, threshold_ptr, gain_ptr, unit_ptr, syn_ptr, adapt_ptr, scale_ptr, neuron, mask, SHARED: tl.constexpr
):
    """The parameters of this program's lanes; those of rows that neurons do not have are 0."""
    decay = column(decay_ptr, neuron, mask, SHARED & 1)
    threshold = column(threshold_ptr, neuron, mask, SHARED & 2)
    gain = column(gain_ptr, neuron, mask, SHARED & 4)
    unit = column(unit_ptr, neuron, mask, SHARED & 8)
    syn = decay * 0.0
    adapt = syn
    scale = syn
    if syn_ptr is not None:
        syn = column(syn_ptr, neuron, mask, SHARED & 16)
    if adapt_ptr is not None:
        adapt = column(adapt_ptr, neuron, mask, SHARED & 32)
        scale = column(scale_ptr, neuron, mask, SHARED & 64)
    return decay, threshold, gain, unit, syn, adapt, scale


@triton.jit
def load_state(ptr, at, row, mask, SYN: tl.constexpr, ADAPT: tl.constexpr):
    """The rows (v, i, b) of a state at address ``at``, ``row`` apart; those that neurons do not have are v."""
    v = tl.load(ptr + at, mask=mask, other=0.0)
    i = v
    b = v
    if SYN:
        i = tl.load(ptr + at + row, mask=mask, other=0.0)
    if ADAPT:
        b = tl.load(ptr + at + (1 + SYN) * row, mask=mask, other=0.0)
    return v, i, b


@triton.jit
def store_state(ptr, at, row, v, i, b, mask, SYN: tl.constexpr, ADAPT: tl.constexpr):
    """Write the rows that neurons have."""
    tl.store(ptr + at, v, mask=mask)
    if SYN:
        tl.store(ptr + at + row, i, mask=mask)
    if ADAPT:
        tl.store(ptr + at + (1 + SYN) * row, b, mask=mask)


@triton.jit
def forget_too_slowly(decay, syn, adapt, mask, LIMIT: tl.constexpr):
    """Whether a neuron of this program remembers its state for longer than the warm-up of a chunk."""
    slowest = tl.where(mask, decay, 0.0)
    slowest = tl.maximum(slowest, tl.where(mask, syn, 0.0))
    slowest = tl.maximum(slowest, tl.where(mask, adapt, 0.0))
    return tl.max(slowest, 0) > LIMIT


@triton.jit
def differ(a, b, mask):
    """Whether two numbers have different bits in any lane."""
    if a.dtype == tl.float64:
        other = a.to(tl.int64, bitcast=True) != b.to(tl.int64, bitcast=True)
    else:
        other = a.to(tl.int32, bitcast=True) != b.to(tl.int32, bitcast=True)
    return tl.max((other & mask).to(tl.int32), 0) > 0


@triton.jit
def states_differ(v, i, b, ptr, at, row, mask, SYN: tl.constexpr, ADAPT: tl.constexpr):
    """Whether the state (v, i, b) has other bits than the one in memory, in any lane."""
    w, j, c = load_state(ptr, at, row, mask, SYN, ADAPT)
    different = differ(v, w, mask)
    if SYN:
        different = different | differ(i, j, mask)
    if ADAPT:
        different = different | differ(b, c, mask)
    return different


@triton.jit
def checkpoint(sample, neuron, neurons, steps, t, EVERY: tl.constexpr, SYN: tl.constexpr, ADAPT: tl.constexpr):
    """Where the state before step t (a multiple of EVERY) is kept, in [B, C, (S,) N]; its rows are N apart."""
    row = sample * wide((steps + EVERY - 1) // EVERY) + t // EVERY
    return row * ((1 + SYN + ADAPT) * wide(neurons)) + neuron


@triton.jit
def steps_forward(
    xs, v, i, b, decay, threshold, gain, unit, syn, adapt, scale,
    spikes_ptr, v_ptr, drive_ptr, b_ptr, at, stride, mask, t, end,
    C: tl.constexpr, STEPS: tl.constexpr, TAIL: tl.constexpr, SYN: tl.constexpr, ADAPT: tl.constexpr,
):  # fmt: skip
    """The steps t, t + 1, ... of one group, as far as they are before ``end``; returns the state after them."""
    for u in tl.static_range(STEPS):
        now = mask
        before = b
        next_v, next_i, next_b, potential, spikes, drive = layer_step(
            xs[u].to(v.dtype), v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C, SYN, ADAPT
        )
        if TAIL:
            now = mask & (t + u < end)
            v = tl.where(now, next_v, v)
            i = tl.where(now, next_i, i)
            b = tl.where(now, next_b, b)
        else:
            v = next_v
            i = next_i
            b = next_b
        if spikes_ptr is not None:
            tl.store(spikes_ptr + at + u * stride, spikes.to(spikes_ptr.dtype.element_ty), mask=now)
        if v_ptr is not None:
            tl.store(v_ptr + at + u * stride, potential, mask=now)
        if drive_ptr is not None:
            tl.store(drive_ptr + at + u * stride, drive, mask=now)
        if b_ptr is not None:
            tl.store(b_ptr + at + u * stride, before, mask=now)
    return v, i, b


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
    chunk_steps,
    warm_up,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    EVERY: tl.constexpr,
    LIMIT: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run the steps of one chunk of time; arrays that are None are not kept.

    Chunk k starts from row k of the states [chunks, (S,) B, N] and ends in row k of the final ones. Where there are no
    states the last ``warm_up`` steps of each chunk are run from zero: that is what the next one will start from.
    ``LIMIT`` (None: time is not split) is the slowest decay for which a warm-up is any use; programs with slower
    neurons do nothing but chunk 0.
    """
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    SYN: tl.constexpr = syn_ptr is not None
    ADAPT: tl.constexpr = adapt_ptr is not None
    STATES: tl.constexpr = 1 + SYN + ADAPT
    chunk = tl.program_id(1)
    stride = wide(step_stride)
    rows = wide(lanes)
    decay, threshold, gain, unit, syn, adapt, scale = numbers(
        decay_ptr, threshold_ptr, gain_ptr, unit_ptr, syn_ptr, adapt_ptr, scale_ptr, neuron, mask, SHARED
    )
    begin = chunk * chunk_steps
    end = tl.minimum(begin + chunk_steps, steps)
    v = tl.zeros((BLOCK,), decay.dtype)
    i = v
    b = v
    if state_ptr is not None:
        v, i, b = load_state(state_ptr, chunk * STATES * rows + lane, rows, mask, SYN, ADAPT)
        tl.store(flags_ptr + lane * 0, 1, mask=mask & ((threshold > 0) == 0))
        if ADAPT:
            tl.store(flags_ptr + 1 + lane * 0, 1, mask=mask & ((scale >= 0) == 0))
            tl.store(flags_ptr + 2 + lane * 0, 1, mask=mask & ((b >= 0) == 0))
    else:
        begin = tl.maximum(end - warm_up, 0)
    if LIMIT is not None:
        idle = forget_too_slowly(decay, syn, adapt, mask, LIMIT) & ((chunk > 0) | (state_ptr is None))
        end = tl.where(idle, begin, end)
    at = sample * wide(batch_stride) + neuron + begin * stride
    xs = load_rows(x_ptr, at, stride, mask, begin, end, STEPS)
    for t in range(begin, end, STEPS):
        if checkpoints_ptr is not None:
            if t % EVERY == 0:
                row = checkpoint(sample, neuron, neurons, steps, t, EVERY, SYN, ADAPT)
                store_state(checkpoints_ptr, row, neurons, v, i, b, mask, SYN, ADAPT)
        ahead = load_rows(x_ptr, at + STEPS * stride, stride, mask, t + STEPS, end, STEPS)
        v, i, b = steps_forward(
            xs, v, i, b, decay, threshold, gain, unit, syn, adapt, scale,
            spikes_ptr, v_ptr, drive_ptr, b_ptr, at, stride, mask, t, end, C, STEPS, TAIL, SYN, ADAPT,
        )  # fmt: skip
        xs = ahead
        at += STEPS * stride
    store_state(final_ptr, chunk * STATES * rows + lane, rows, v, i, b, mask, SYN, ADAPT)


@triton.jit
def layer_repair(
    x_ptr,
    assumed_ptr,
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
    reached_ptr,
    final_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    chunk_steps,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    EVERY: tl.constexpr,
    LIMIT: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Walk over the chunks in order; run again those that started from another state than the one reached before.

    Comparison is by bits. A chunk is run again until its state has the bits of a checkpoint of the first run, from
    where on nothing can differ; so this ends after all steps at most, and the result has the bits of one pass.
    """
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    SYN: tl.constexpr = syn_ptr is not None
    ADAPT: tl.constexpr = adapt_ptr is not None
    STATES: tl.constexpr = 1 + SYN + ADAPT
    stride = wide(step_stride)
    rows = wide(lanes)
    origin = sample * wide(batch_stride) + neuron
    decay, threshold, gain, unit, syn, adapt, scale = numbers(
        decay_ptr, threshold_ptr, gain_ptr, unit_ptr, syn_ptr, adapt_ptr, scale_ptr, neuron, mask, SHARED
    )
    idle = forget_too_slowly(decay, syn, adapt, mask, LIMIT)  # then the first run left these chunks out
    v, i, b = load_state(reached_ptr, lane, rows, mask, SYN, ADAPT)
    chunks = (steps + chunk_steps - 1) // chunk_steps
    for chunk in range(1, chunks):
        of_chunk = chunk * STATES * rows + lane
        again = idle | states_differ(v, i, b, assumed_ptr, of_chunk, rows, mask, SYN, ADAPT)
        begin = chunk * chunk_steps
        end = tl.minimum(begin + chunk_steps, steps)
        for first in range(begin, end, EVERY):
            row = checkpoint(sample, neuron, neurons, steps, first, EVERY, SYN, ADAPT)
            if first > begin:
                again = again & (idle | states_differ(v, i, b, checkpoints_ptr, row, neurons, mask, SYN, ADAPT))
            if again:
                store_state(checkpoints_ptr, row, neurons, v, i, b, mask, SYN, ADAPT)
                for t in range(first, tl.minimum(first + EVERY, end), STEPS):
                    at = origin + t * stride
                    xs = load_rows(x_ptr, at, stride, mask, t, end, STEPS)
                    v, i, b = steps_forward(
                        xs, v, i, b, decay, threshold, gain, unit, syn, adapt, scale,
                        spikes_ptr, v_ptr, drive_ptr, b_ptr, at, stride, mask, t, end, C, STEPS, TAIL, SYN, ADAPT,
                    )  # fmt: skip
        if again == 0:
            v, i, b = load_state(reached_ptr, of_chunk, rows, mask, SYN, ADAPT)
    store_state(final_ptr, lane, rows, v, i, b, mask, SYN, ADAPT)


@triton.jit
def layer_fold(
    transfer_ptr,
    grad_state_ptr,
    ends_ptr,
    lanes,
    chunks,
    STATES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """From each chunk's affine map of adjoints [1 + S, chunks, S, lanes] to the adjoint at each chunk's end.

    Column 0 of a map is where it sends 0, column k where its linear part sends the k-th unit.
    """
    lane, mask, sample, neuron = lanes_of(lanes, lanes, BLOCK, WIDE)
    rows = wide(lanes)
    column_stride = rows * STATES * chunks
    p = tl.load(grad_state_ptr + lane, mask=mask, other=0.0)
    q = p
    r = p
    if STATES > 1:
        q = tl.load(grad_state_ptr + rows + lane, mask=mask, other=0.0)
    if STATES > 2:
        r = tl.load(grad_state_ptr + 2 * rows + lane, mask=mask, other=0.0)
    for k in range(0, chunks):
        chunk = chunks - 1 - k
        at = chunk * STATES * rows + lane
        tl.store(ends_ptr + at, p, mask=mask)
        if STATES > 1:
            tl.store(ends_ptr + at + rows, q, mask=mask)
        if STATES > 2:
            tl.store(ends_ptr + at + 2 * rows, r, mask=mask)
        next_p = affine(transfer_ptr, at, column_stride, p, q, r, mask, STATES)
        if STATES > 1:
            next_q = affine(transfer_ptr, at + rows, column_stride, p, q, r, mask, STATES)
            if STATES > 2:
                r = affine(transfer_ptr, at + 2 * rows, column_stride, p, q, r, mask, STATES)
            q = next_q
        p = next_p


@triton.jit
def affine(ptr, at, column_stride, p, q, r, mask, STATES: tl.constexpr):
    """One row of a chunk's map at (p, q, r)."""
    result = tl.load(ptr + at, mask=mask, other=0.0) + tl.load(ptr + column_stride + at, mask=mask, other=0.0) * p
    if STATES > 1:
        result += tl.load(ptr + 2 * column_stride + at, mask=mask, other=0.0) * q
    if STATES > 2:
        result += tl.load(ptr + 3 * column_stride + at, mask=mask, other=0.0) * r
    return result


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
    chunk_steps,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    EVERY: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run the steps of one chunk of time backwards.

    ``checkpoints_ptr`` is None where v was stored; else potentials are computed again, ``STEPS`` at a time in
    registers, from the last checkpoint. ``sums_ptr`` [6, chunks, lanes] is None where nothing is learnt. Chunk k starts
    from row k of ``grad_state`` [chunks, (S,) B, N]. Where ``grad_x_ptr`` is None only the chunk's affine map of
    adjoints is wanted: program k along axis 2 finds its column k, in ``grad_initial`` [1 + S, chunks, S, lanes].
    """
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    SYN: tl.constexpr = syn_ptr is not None
    ADAPT: tl.constexpr = adapt_ptr is not None
    STATES: tl.constexpr = 1 + SYN + ADAPT
    chunk = tl.program_id(1)
    unit_column = tl.program_id(2)
    stride = wide(step_stride)
    rows = wide(lanes)
    origin = sample * wide(batch_stride) + neuron
    decay, threshold, gain, unit, syn, adapt, scale = numbers(
        decay_ptr, threshold_ptr, gain_ptr, unit_ptr, syn_ptr, adapt_ptr, scale_ptr, neuron, mask, SHARED
    )
    rate, peak = surrogate_column(unit, C)
    at_state = chunk * STATES * rows + lane
    if grad_x_ptr is not None:
        p, p_i, p_b = load_state(grad_state_ptr, at_state, rows, mask, SYN, ADAPT)
    else:
        zero = tl.zeros((BLOCK,), decay.dtype)
        p = zero + tl.where(unit_column == 1, 1.0, 0.0)
        p_i = zero + tl.where(unit_column == 2, 1.0, 0.0)
        p_b = zero + tl.where(unit_column == STATES, 1.0, 0.0)
    later = tl.zeros((BLOCK,), p.dtype)  # adjoint of the current at the step after
    of_decay = tl.zeros((BLOCK,), tl.float64)
    of_threshold = of_decay
    of_gain = of_decay
    of_syn = of_decay
    of_adapt = of_decay
    of_scale = of_decay
    begin = chunk * chunk_steps
    end = tl.minimum(begin + chunk_steps, steps)
    groups = (end - begin + STEPS - 1) // STEPS
    for k in range(0, groups):
        t = begin + (groups - 1 - k) * STEPS
        at = origin + t * stride
        gs = load_rows(grad_spikes_ptr, at, stride, mask & (unit_column == 0), t, end, STEPS)
        hs = load_rows(grad_v_ptr, at, stride, mask & (unit_column == 0), t, end, STEPS)
        if checkpoints_ptr is None:
            us = load_rows(v_ptr, at, stride, mask, t, end, STEPS)
            bs = load_rows(b_ptr, at, stride, mask, t, end, STEPS)
            if drive_ptr is not None:
                drives = load_rows(drive_ptr, at, stride, mask, t, end, STEPS)
            else:
                drives = load_rows(x_ptr, at, stride, mask, t, end, STEPS)
        else:
            row = checkpoint(sample, neuron, neurons, steps, t, EVERY, SYN, ADAPT)
            v, i, b = load_state(checkpoints_ptr, row, neurons, mask, SYN, ADAPT)
            if STEPS < EVERY:
                for r in range(t // EVERY * EVERY, t, STEPS):
                    xs = load_rows(x_ptr, origin + r * stride, stride, mask, r, end, STEPS)
                    for u in tl.static_range(STEPS):
                        v, i, b, potential, spikes, drive = layer_step(
                            xs[u].to(v.dtype), v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C, SYN, ADAPT
                        )
            xs = load_rows(x_ptr, at, stride, mask, t, end, STEPS)
            us = ()
            drives = ()
            bs = ()
            for u in tl.static_range(STEPS):
                bs = bs + (b,)
                v, i, b, potential, spikes, drive = layer_step(
                    xs[u].to(v.dtype), v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C, SYN, ADAPT
                )
                us = us + (potential,)
                drives = drives + (drive,)
        for u in tl.static_range(STEPS):
            g = gs[STEPS - 1 - u].to(p.dtype)
            h = tl.zeros((BLOCK,), p.dtype)
            if grad_v_ptr is not None:
                h = hs[STEPS - 1 - u]
            b_before = h
            if ADAPT:
                b_before = bs[STEPS - 1 - u]
            now = mask
            if TAIL:
                now = mask & (t + STEPS - 1 - u < end)
            grad_x, next_p, next_p_i, next_p_b, masked, carried, of_level, of_synapse, s = layer_adjoint(
                us[STEPS - 1 - u], g, h, b_before, p, p_i, p_b,
                decay, threshold, gain, unit, syn, adapt, scale, rate, peak, C, SYN, ADAPT,
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
                    if SYN:
                        of_syn += of_synapse.to(tl.float64) * drive.to(tl.float64)
                        drive = syn * drive
                    of_gain += masked.to(tl.float64) * drive.to(tl.float64)
                if ADAPT:
                    difference = b_before.to(tl.float64) - s.to(tl.float64)
                    of_adapt += tl.where(now, p_b, 0.0).to(tl.float64) * difference
                    of_scale += of_level.to(tl.float64) * b_before.to(tl.float64)
                later = masked
            if TAIL:
                p = tl.where(now, next_p, p)
                p_i = tl.where(now, next_p_i, p_i)
                p_b = tl.where(now, next_p_b, p_b)
            else:
                p = next_p
                p_i = next_p_i
                p_b = next_p_b
            if grad_x_ptr is not None:
                tl.store(grad_x_ptr + at + (STEPS - 1 - u) * stride, grad_x.to(grad_x_ptr.dtype.element_ty), mask=now)
    if grad_x_ptr is None:
        to = unit_column * (rows * STATES * tl.num_programs(1)) + at_state
        store_state(grad_initial_ptr, to, rows, p, p_i, p_b, mask, SYN, ADAPT)
    elif chunk == 0:
        store_state(grad_initial_ptr, lane, rows, p, p_i, p_b, mask, SYN, ADAPT)
    if sums_ptr is not None:
        # The first step of a chunk multiplied what the step before it, or the start, left behind.
        before = tl.load(state_ptr + lane, mask=mask, other=0.0)
        if chunk > 0:
            if checkpoints_ptr is not None:
                row = checkpoint(sample, neuron, neurons, steps, begin, EVERY, SYN, ADAPT)
                before = tl.load(checkpoints_ptr + row, mask=mask, other=0.0)
            else:
                at = origin + (begin - 1) * stride
                u = tl.load(v_ptr + at, mask=mask, other=0.0)
                level = threshold + u * 0.0
                if ADAPT:
                    level = threshold + scale * tl.load(b_ptr + at, mask=mask, other=0.0)
                resetting = resetting_spikes(u, level, unit, C)
                before = clip(after_reset(u, resetting, level, C), C.v_min_after)
        of_decay += later.to(tl.float64) * before.to(tl.float64)
        chunked = rows * tl.num_programs(1)
        to = chunk * rows + lane
        tl.store(sums_ptr + to, of_decay, mask=mask)
        tl.store(sums_ptr + chunked + to, of_threshold, mask=mask)
        tl.store(sums_ptr + 2 * chunked + to, of_gain, mask=mask)
        if SYN:
            tl.store(sums_ptr + 3 * chunked + to, of_syn, mask=mask)
        if ADAPT:
            tl.store(sums_ptr + 4 * chunked + to, of_adapt, mask=mask)
            tl.store(sums_ptr + 5 * chunked + to, of_scale, mask=mask)
