"""``spike_time.cpp`` in Triton: one program takes a block of neurons and walks the sorted input spikes of a sample."""

import triton
import triton.language as tl

from neurodeploy.kernels.spike_time.gpu_cell import INF, NONE, any_of, crossing, step_after


@triton.jit
def cell_row(constants, row, columns, n, inside, SHARED: tl.constexpr):
    """One row of the constants for the neurons n."""
    return tl.load(constants + 2 + row * columns + (tl.zeros_like(n) if SHARED else n), mask=inside, other=1.0)


@triton.jit
def interval_length(time, first, e, events, t_max):
    """Time from event e to the next one, or to the end."""
    following = tl.load(time + first + e + 1, mask=e + 1 < events, other=0.0).to(tl.float64)
    return tl.where(e + 1 < events, following, t_max) - tl.load(time + first + e).to(tl.float64)


@triton.jit
def step_of_event(steps, total, at, length, rate_mem, rate_syn, SHARED: tl.constexpr):
    """Factors of an interval: from the table, or of each neuron of the block."""
    if SHARED:
        return tl.load(steps + at), tl.load(steps + total + at), tl.load(steps + 2 * total + at)
    else:
        return step_after(tl.zeros_like(rate_mem) + length, rate_mem, rate_syn)


@triton.jit
def steps_kernel(time, count, constants, steps, slots, total, LANES: tl.constexpr):
    """Factors (three of [batch, slots]) from every event to the next for neurons that share their constants."""
    at = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    e = at % slots
    events = tl.load(count + at // slots, mask=at < total, other=0)
    inside = e < events
    t_max = tl.load(constants)
    following = tl.load(time + at + 1, mask=e + 1 < events, other=0.0).to(tl.float64)
    start = tl.load(time + at, mask=inside, other=0.0).to(tl.float64)
    length = tl.where(e + 1 < events, following, t_max) - start
    rate_mem = 1.0 / tl.load(constants + 2)
    rate_syn = 1.0 / tl.load(constants + 3)
    membrane, synapse, transfer = step_after(length, rate_mem, rate_syn)
    tl.store(steps + at, membrane, mask=inside)
    tl.store(steps + total + at, synapse, mask=inside)
    tl.store(steps + 2 * total + at, transfer, mask=inside)


@triton.jit
def forward_kernel(
    time,  # [batch, slots], ascending
    source,  # [batch, slots]: the input that each is a spike of
    count,  # [batch]: how many are spikes
    steps,
    weight,
    constants,
    out,
    counts,
    grazing,
    interval,
    offset,
    drive,
    slots,
    total,
    neurons,
    columns,
    max_spikes,
    restarts,
    HARD: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
    KEEP: tl.constexpr,
    QUADRATIC: tl.constexpr,
    LAMBERT: tl.constexpr,
    NEWTON: tl.constexpr,
):
    """Spikes of one block of neurons in one sample. ``counts`` is above ``max_spikes`` where they overflow."""
    blocks = tl.cdiv(neurons, BLOCK)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = n < neurons
    t_max = tl.load(constants)
    limit = tl.load(constants + 1)
    tau_mem = cell_row(constants, 0, columns, n, inside, SHARED)
    tau_syn = cell_row(constants, 1, columns, n, inside, SHARED)
    threshold = cell_row(constants, 2, columns, n, inside, SHARED)
    after = cell_row(constants, 3, columns, n, inside, SHARED)
    t_ref = cell_row(constants, 4, columns, n, inside, SHARED)
    rate_mem = 1.0 / tau_mem
    rate_syn = 1.0 / tau_syn
    flat = b * neurons + n
    slot = flat * max_spikes
    first = b * slots
    events = tl.load(count + b)

    u = tl.zeros([BLOCK], tl.float64)
    i = tl.zeros([BLOCK], tl.float64)
    clamp = tl.full([BLOCK], -1.0, tl.float64)  # what is left of the refractory time, below 0: none
    found = tl.zeros([BLOCK], tl.int32)
    grazes = tl.zeros([BLOCK], tl.int32)
    start = tl.load(time + first, mask=events > 0, other=0.0).to(tl.float64)
    row = tl.load(source + first, mask=events > 0, other=0).to(tl.int64) * neurons
    weights = tl.load(weight + row + n, mask=inside & (events > 0), other=0.0)
    for e in range(events):
        i += weights.to(tl.float64)
        more = e + 1 < events  # the next event is read while this one is worked on
        row = tl.load(source + first + e + 1, mask=more, other=0).to(tl.int64) * neurons
        weights = tl.load(weight + row + n, mask=inside & more, other=0.0)
        following = tl.load(time + first + e + 1, mask=more, other=0.0).to(tl.float64)
        length = tl.where(more, following, t_max) - start
        membrane, synapse, transfer = step_of_event(steps, total, first + e, length, rate_mem, rate_syn, SHARED)
        next_u = membrane * u + transfer * i
        next_i = synapse * i
        slope = i - u * rate_mem
        rises = (i > 0) & (slope > 0) & (u + slope * length >= threshold)
        active = rises | (u >= threshold) | (clamp >= 0)
        if any_of(active):  # these go through the interval from spike to spike
            special = active
            x = tl.zeros([BLOCK], tl.float64)
            while any_of(active):
                remaining = length - x
                held = active & (clamp >= 0)
                wait = crossing(
                    active & ~held,
                    u,
                    i,
                    remaining,
                    tau_mem,
                    tau_syn,
                    rate_mem,
                    rate_syn,
                    threshold,
                    QUADRATIC,
                    LAMBERT,
                    NEWTON,
                )
                crosses = active & ~held & (wait != NONE)
                fires = crosses & (found < max_spikes)
                freed = held & (clamp < INF) & ~(clamp > remaining)
                by = tl.where(fires, wait, tl.where(freed, clamp, remaining))
                own_membrane, own_synapse, own_transfer = step_after(by, rate_mem, rate_syn)
                u = tl.where(active & ~held, own_membrane * u + own_transfer * i, u)
                i = tl.where(active, i * own_synapse, i)
                x = tl.where(active, x + by, x)
                if HARD:
                    for_ever = held & ~(clamp < INF)  # gets a potential that never fires, and needs no more care
                    clamp = tl.where(held, tl.where(freed | for_ever, -1.0, clamp - remaining), clamp)
                    u = tl.where(freed, after, tl.where(for_ever, -INF, u))
                    if KEEP:
                        at = restarts + slot + found - 1
                        tl.store(interval + at, e, mask=freed)
                        tl.store(offset + at, x, mask=freed)
                        tl.store(drive + at, i - u * rate_mem, mask=freed)
                if KEEP:
                    tl.store(interval + slot + found, e, mask=fires)
                    tl.store(offset + slot + found, x, mask=fires)
                    tl.store(drive + slot + found, i, mask=fires)
                tl.store(out + slot + found, start + x, mask=fires)
                slope = i - threshold * rate_mem
                least_slope = limit * (tl.abs(i) + threshold * rate_mem)
                grazes += (fires & (slope < least_slope)).to(tl.int32)
                if HARD:
                    u = tl.where(fires, after, u)
                    clamp = tl.where(fires, t_ref, clamp)
                else:
                    u = tl.where(fires, threshold - after, u)
                found = tl.where(crosses & ~fires, max_spikes + 1, found + fires.to(tl.int32))
                active = active & (fires | freed)
            next_u = tl.where(special, u, next_u)
            next_i = tl.where(special, i, next_i)
        u = next_u
        i = next_i
        start = following
    tl.store(counts + flat, found, mask=inside)
    tl.store(grazing + flat, grazes, mask=inside)


@triton.jit
def previous_item(item, interval, slot, restarts, HARD: tl.constexpr):
    """One item back: 2 k is spike k, 2 k + 1 the restart behind it, which only hard resets have, and not always.

    Returns the item, where it is kept, and its interval; below 0: none left.
    """
    item -= 1
    odd = (item & 1) == 1
    if HARD:
        reached = tl.load(interval + restarts + slot + (item >> 1), mask=odd & (item > 0), other=-1)
        item -= (odd & (reached < 0)).to(tl.int32)
    else:
        item -= odd.to(tl.int32)
    at = slot + (item >> 1) + tl.where((item & 1) == 1, restarts, 0)
    return item, at, tl.load(interval + at, mask=item >= 0, other=-1)


@triton.jit
def backward_kernel(
    time,
    source,
    count,
    steps,
    weight,
    constants,
    grad,
    counts,
    interval,
    offset,
    drive,
    by_group,  # [groups, inputs, neurons]: sums of the gradients of the weights
    by_block,  # [blocks, batch, slots]: sums of the gradients of the times, or unused
    batch,
    groups,
    table,
    slots,
    total,
    neurons,
    columns,
    max_spikes,
    restarts,
    HARD: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
    OF_TIMES: tl.constexpr,
):
    """Gradients of one block of neurons, summed over one group of samples, which it takes one after the other."""
    blocks = tl.cdiv(neurons, BLOCK)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    n = block * BLOCK + tl.arange(0, BLOCK)
    parts = by_block + block.to(tl.int64) * total
    inside = n < neurons
    t_max = tl.load(constants)
    limit = tl.load(constants + 1)
    threshold = cell_row(constants, 2, columns, n, inside, SHARED)
    after = cell_row(constants, 3, columns, n, inside, SHARED)
    rate_mem = 1.0 / cell_row(constants, 0, columns, n, inside, SHARED)
    rate_syn = 1.0 / cell_row(constants, 1, columns, n, inside, SHARED)
    sums = by_group + group * table
    for b in range(group * batch // groups, (group + 1) * batch // groups):
        flat = b * neurons + n
        slot = flat * max_spikes
        first = b * slots
        events = tl.load(count + b)
        spikes = tl.load(counts + flat, mask=inside, other=0)
        item, at, own = previous_item(2 * spikes, interval, slot, restarts, HARD)
        of_u = tl.zeros([BLOCK], tl.float64)
        of_i = tl.zeros([BLOCK], tl.float64)
        of_restart = tl.zeros([BLOCK], tl.float64)  # of the time of the restart behind the spike that comes next
        last = tl.max(own, axis=0)
        for back in range(last + 1):
            e = last - back
            row = tl.load(source + first + e).to(tl.int64) * neurons
            so_far = tl.load(sums + row + n, mask=inside, other=0.0)
            length = interval_length(time, first, e, events, t_max)
            membrane, synapse, transfer = step_of_event(steps, total, first + e, length, rate_mem, rate_syn, SHARED)
            next_of_u = membrane * of_u
            next_of_i = transfer * of_u + synapse * of_i
            active = own == e
            if any_of(active):  # these go back through the interval from spike to spike
                special = active
                x = tl.zeros([BLOCK], tl.float64) + length
                while any_of(active):
                    stops = active & (own == e)
                    to = tl.load(offset + at, mask=stops, other=0.0)
                    own_membrane, own_synapse, own_transfer = step_after(x - to, rate_mem, rate_syn)
                    of_i = tl.where(active, own_transfer * of_u + own_synapse * of_i, of_i)
                    of_u = tl.where(active, of_u * own_membrane, of_u)
                    x = tl.where(active, to, x)
                    current = tl.load(drive + at, mask=stops, other=1.0)
                    restarted = stops & ((item & 1) == 1)
                    fired = stops & ~restarted
                    of_time = tl.load(grad + at, mask=fired, other=0.0).to(tl.float64)
                    slope = current - threshold * rate_mem
                    least_slope = limit * (tl.abs(current) + threshold * rate_mem)
                    slope = tl.where(slope < least_slope, least_slope, slope)
                    if HARD:
                        of_restart = tl.where(restarted, -of_u * current, of_restart)
                        of_u = tl.where(fired, -(of_time + of_restart) / slope, tl.where(restarted, 0.0, of_u))
                        of_restart = tl.where(fired, 0.0, of_restart)
                    else:
                        of_u = tl.where(fired, of_u + (of_u * after * rate_mem - of_time) / slope, of_u)
                    previous, previous_at, previous_own = previous_item(item, interval, slot, restarts, HARD)
                    item = tl.where(stops, previous, item)
                    at = tl.where(stops, previous_at, at)
                    own = tl.where(stops, previous_own, own)
                    active = stops
                next_of_u = tl.where(special, of_u, next_of_u)
                next_of_i = tl.where(special, of_i, next_of_i)
            of_u = next_of_u
            of_i = next_of_i
            tl.store(sums + row + n, so_far + of_i, mask=inside)
            if OF_TIMES:
                weights = tl.load(weight + row + n, mask=inside, other=0.0).to(tl.float64)
                of_time = tl.sum(weights * (of_i * rate_syn - of_u), axis=0)
                tl.store(parts + first + e, of_time)


@triton.jit
def fold_kernel(parts, result, rows, width, LANES: tl.constexpr):
    """Sums over the first axis of [rows, width] in its order."""
    at = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    sums = tl.zeros([LANES], tl.float64)
    part = parts + at
    for _ in range(rows):
        sums += tl.load(part, mask=at < width, other=0.0)
        part += width
    tl.store(result + at, sums, mask=at < width)
