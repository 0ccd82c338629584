"""Bias, neurons, packed spikes and spike counts in one pass over the input."""

import triton
import triton.language as tl

from neurodeploy.gpu.layer_kernels import load_state, numbers, store_state
from neurodeploy.gpu.neuron import layer_step
from neurodeploy.gpu.rows import lanes_of, load_rows, wide


@triton.jit
def layer_packed(
    x_ptr,
    bias_ptr,
    state_ptr,
    decay_ptr,
    threshold_ptr,
    gain_ptr,
    unit_ptr,
    syn_ptr,
    adapt_ptr,
    scale_ptr,
    words_ptr,
    counts_ptr,
    final_ptr,
    flags_ptr,
    lanes,
    neurons,
    steps,
    batch_stride,
    step_stride,
    words_batch_stride,
    C: tl.constexpr,
    SHARED: tl.constexpr,
    PER_WORD: tl.constexpr,
    STEPS: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Run all steps; ``PER_WORD`` of them share a word, and rows of words are as far apart as rows of the input."""
    lane, mask, sample, neuron = lanes_of(lanes, neurons, BLOCK, WIDE)
    SYN: tl.constexpr = syn_ptr is not None
    ADAPT: tl.constexpr = adapt_ptr is not None
    BITS: tl.constexpr = 32 // PER_WORD
    stride = wide(step_stride)
    at = sample * wide(batch_stride) + neuron
    to = sample * wide(words_batch_stride) + neuron
    decay, threshold, gain, unit, syn, adapt, scale = numbers(
        decay_ptr, threshold_ptr, gain_ptr, unit_ptr, syn_ptr, adapt_ptr, scale_ptr, neuron, mask, SHARED
    )
    bias = decay * 0.0
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + neuron, mask=mask, other=0.0)
    v, i, b = load_state(state_ptr, lane, wide(lanes), mask, SYN, ADAPT)
    tl.store(flags_ptr + lane * 0, 1, mask=mask & ((threshold > 0) == 0))
    if ADAPT:
        tl.store(flags_ptr + 1 + lane * 0, 1, mask=mask & ((scale >= 0) == 0))
        tl.store(flags_ptr + 2 + lane * 0, 1, mask=mask & ((b >= 0) == 0))
    word = tl.zeros((BLOCK,), tl.int32)
    count = tl.zeros((BLOCK,), tl.int64)
    most = tl.zeros((BLOCK,), v.dtype)
    xs = load_rows(x_ptr, at, stride, mask, 0, steps, STEPS)
    for t in range(0, steps, STEPS):
        ahead = load_rows(x_ptr, at + STEPS * stride, stride, mask, t + STEPS, steps, STEPS)
        for u in tl.static_range(STEPS):
            x = xs[u].to(v.dtype)
            if bias_ptr is not None:
                x = x + bias
            next_v, next_i, next_b, potential, spikes, drive = layer_step(
                x, v, i, b, decay, threshold, gain, unit, syn, adapt, scale, C, SYN, ADAPT
            )
            if TAIL:
                now = mask & (t + u < steps)
                v = tl.where(now, next_v, v)
                i = tl.where(now, next_i, i)
                b = tl.where(now, next_b, b)
                spikes = tl.where(now, spikes, 0.0)
            else:
                v = next_v
                i = next_i
                b = next_b
            most = tl.maximum(most, spikes)
            whole = spikes.to(tl.int32)
            count += whole
            word = word | (whole << ((t + u) % PER_WORD * BITS))
            if PER_WORD <= STEPS:
                if u % PER_WORD == PER_WORD - 1:
                    tl.store(words_ptr + to, word, mask=mask & (t + u - PER_WORD + 1 < steps))
                    word = tl.zeros((BLOCK,), tl.int32)
                    to += stride
            elif u == STEPS - 1:
                if (t + STEPS) % PER_WORD == 0:
                    tl.store(words_ptr + to, word, mask=mask)
                    word = tl.zeros((BLOCK,), tl.int32)
                    to += stride
        xs = ahead
        at += STEPS * stride
    if (steps + STEPS - 1) // STEPS * STEPS % PER_WORD != 0:  # the last word is not full
        tl.store(words_ptr + to, word, mask=mask)
    tl.store(counts_ptr + lane, count, mask=mask)
    if PER_WORD < 32:
        tl.store(flags_ptr + 3 + lane * 0, 1, mask=mask & (most > 255))
    store_state(final_ptr, lane, wide(lanes), v, i, b, mask, SYN, ADAPT)
