"""Device functions that walk ``[B, T, N]`` or ``[T, B, N]``: a lane is one neuron of a sample, lanes run along memory.

A program has ``BLOCK`` lanes and all time steps of one chunk. Rows are read several steps ahead of their use (``xs`` is
a tuple of the next steps' rows, all in registers), so that enough of the memory's latency is covered with few lanes.
Addresses have 64 bits; sizes that fit in 32 bits keep the division that finds a lane's sample short.
"""

import triton
import triton.language as tl


@triton.jit
def lanes_of(lanes, neurons, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Return (lane numbers, which exist, sample, neuron); WIDE where 32 bits cannot number the lanes."""
    first = tl.program_id(0)
    if WIDE:
        first = first.to(tl.int64)
    lane = first * BLOCK + tl.arange(0, BLOCK)
    sample = lane // neurons
    return lane, lane < lanes, sample, lane - sample * neurons


@triton.jit
def wide(number):
    """The number as int64, whatever it was specialised to."""
    return tl.full((), 0, tl.int64) + number


@triton.jit
def column(ptr, neuron, mask, SHARED: tl.constexpr):
    """One number per neuron, or the one that all share. Lanes that do not exist get 1."""
    if SHARED:
        return tl.load(ptr)
    else:
        return tl.load(ptr + neuron, mask=mask, other=1.0)


@triton.jit
def load_rows(ptr, at, stride, mask, first, count, STEPS: tl.constexpr):
    """Rows of the steps first, first + 1, ... as a tuple; those at or past ``count`` are 0. No array has no rows."""
    rows = ()
    if ptr is not None:
        for u in tl.static_range(STEPS):
            rows = rows + (tl.load(ptr + at + u * stride, mask=mask & (first + u < count), other=0.0),)
    return rows
