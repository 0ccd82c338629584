"""``cell.hpp`` in Triton: propagator and next threshold crossing of a block of neurons, with the CPU's bits.

Every expression has the operations of the C++ code in the same order, in float64: ``+ - * /`` and square roots round to
nearest on both. What branches there is selected here, lane by lane, and loops run until no lane needs them.
"""

import triton
import triton.language as tl

from neurodeploy.gpu.arithmetic import exp_nonpositive

NONE = tl.constexpr(-1.0)
"""No crossing."""

INF = tl.constexpr(float("inf"))
LN2_HIGH = tl.constexpr(6.93147180369123816490e-01)
LN2_LOW = tl.constexpr(1.90821492927058770002e-10)


@triton.jit
def any_of(mask):
    """Whether any lane is set: one truth value for the block."""
    return tl.max(mask.to(tl.int32), axis=0) > 0


@triton.jit
def log_of_sum(u, c):
    """ln(u + c) for a normal number u > 0 and what its rounding left out, c (``native/logarithm.hpp``)."""
    bits = u.to(tl.int64, bitcast=True) + ((0x3FF00000 - 0x3FE6A09E) << 32)
    k = ((bits >> 52) - 1023).to(tl.float64)
    mantissa = ((bits & 0x000FFFFFFFFFFFFF) + (0x3FE6A09E << 32)).to(tl.float64, bitcast=True)
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    series = z * (2.0 / 23) + 2.0 / 21
    for odd in tl.static_range(19, 1, -2):
        series = series * z + 2.0 / odd
    small = s * (half_square + z * series) + (k * LN2_LOW + c / u)
    return small - half_square + f + k * LN2_HIGH


@triton.jit
def log_one_plus(x):
    """ln(1 + x) for x > -1."""
    u = 1.0 + x
    return log_of_sum(u, tl.where(tl.abs(x) > 1.0, 1.0 - (u - x), x - (u - 1.0)))


@triton.jit
def mean_decay(z):
    """(1 - exp(-z)) / z for z >= 0, without cancellation."""
    series = 1.0 / 1307674368000.0 - z * (1.0 / 20922789888000.0)
    series = 1.0 / 87178291200.0 - z * series
    series = 1.0 / 6227020800.0 - z * series
    series = 1.0 / 479001600.0 - z * series
    series = 1.0 / 39916800.0 - z * series
    series = 1.0 / 3628800.0 - z * series
    series = 1.0 / 362880.0 - z * series
    series = 1.0 / 40320.0 - z * series
    series = 1.0 / 5040.0 - z * series
    series = 1.0 / 720.0 - z * series
    series = 1.0 / 120.0 - z * series
    series = 1.0 / 24.0 - z * series
    series = 1.0 / 6.0 - z * series
    series = 0.5 - z * series
    series = 1.0 - z * series
    direct = (1.0 - exp_nonpositive(-z)) / tl.where(z < 0.5, 1.0, z)
    return tl.where(z < 0.5, series, direct)


@triton.jit
def step_after(x, rate_mem, rate_syn):
    """Factors (membrane, synapse, transfer) of the state after a time x: u <- membrane u + transfer i."""
    finite = x < INF
    y = tl.where(finite, x, 0.0)
    membrane = exp_nonpositive(-y * rate_mem)
    synapse = exp_nonpositive(-y * rate_syn)
    slow = tl.where(rate_syn < rate_mem, synapse, membrane)
    difference = tl.where(rate_syn < rate_mem, rate_mem - rate_syn, rate_syn - rate_mem)
    transfer = slow * (y * mean_decay(difference * y))
    return tl.where(finite, membrane, 0.0), tl.where(finite, synapse, 0.0), tl.where(finite, transfer, 0.0)


@triton.jit
def crossing_quadratic(u, i, tau_mem, threshold):
    """tau_mem = 2 tau_syn: a quadratic in exp(-x / tau_mem)."""
    drive = tau_mem * i
    rise = drive - u
    gap = threshold - u
    discriminant = rise * rise - 4.0 * drive * gap
    decayed = 2.0 * gap / (rise + tl.sqrt(discriminant))
    return tl.where((discriminant >= 0) & (decayed < 1.0), -tau_mem * log_one_plus(-decayed), NONE)


@triton.jit
def crossing_lambert(needed, u, i, tau_mem, threshold):
    """tau_mem = tau_syn: the principal branch of Lambert's W, by Halley's method."""
    drive = tau_mem * i
    level = 1.0 - u / drive + log_of_sum(threshold / drive, 0.0)
    found = needed & (level <= 0)
    s = tl.sqrt(2.0 * (-level * mean_decay(-level)))
    w = exp_nonpositive(level - 1.0)
    tiny = tl.full(s.shape, 1e-16, tl.float64)  # a bare number may be rounded to float32 where it is compared
    flat = tl.full(s.shape, -1e-7, tl.float64)
    near = -s + s * s / 3.0 - s * s * s * (11.0 / 72)
    m = tl.where(s < tl.full(s.shape, 0.8, tl.float64), near, w * (1.0 + w * (1.0 + 1.5 * w)) - 1.0)
    running = found & (m > -1.0) & (m < flat)
    k = 0
    while any_of(running) & (k < 12):
        slope = -m / (1.0 + m)
        error = log_one_plus(m) - m - level
        curvature = -1.0 / ((1.0 + m) * (1.0 + m))
        change = error / (slope - 0.5 * error * curvature / slope)
        m = tl.where(running, m - change, m)
        running = running & ~(tl.abs(change) <= tiny) & (m > -1.0) & (m < flat)
        k += 1
    x = tau_mem * (1.0 + m) - u / i
    return tl.where(found, tl.where(x > 0.0, x, 0.0), NONE)


@triton.jit
def crossing_newton(needed, u, i, end, tau_syn, rate_mem, rate_syn, threshold):
    """Any ratio: Newton's method from the left of the peak, in a bracket."""
    rate = i - u * rate_mem
    to_peak = tau_syn * rate / i
    z = (rate_syn - rate_mem) * to_peak
    peak = tl.where(z == 0.0, to_peak, to_peak * (log_one_plus(-z) / -z))
    high = tl.where(peak < end, peak, end)
    membrane, synapse, transfer = step_after(high, rate_mem, rate_syn)
    found = needed & (z < 1.0) & (membrane * u + transfer * i - threshold >= 0)
    low = tl.zeros_like(high)
    gap = threshold - u
    bend = rate * rate_mem + i * rate_syn
    discriminant = rate * rate - 2.0 * bend * gap
    x = tl.where(discriminant > 0, 2.0 * gap / (rate + tl.sqrt(discriminant)), gap / rate)
    x = tl.where(x < high, x, 0.5 * high)
    running = found
    k = 0
    while any_of(running) & (k < 100):
        membrane, synapse, transfer = step_after(x, rate_mem, rate_syn)
        potential = membrane * u + transfer * i
        slope = synapse * i - potential * rate_mem
        error = potential - threshold
        low = tl.where(error < 0, x, low)
        high = tl.where(error < 0, high, x)
        following = x - error / slope
        following = tl.where((following >= low) & (following <= high), following, 0.5 * (low + high))
        done = tl.abs(following - x) <= 1e-16 * (tau_syn + x)
        x = tl.where(running, following, x)
        running = running & ~done
        k += 1
    return tl.where(found, x, NONE)


@triton.jit
def crossing(
    needed,
    u,
    i,
    end,
    tau_mem,
    tau_syn,
    rate_mem,
    rate_syn,
    threshold,
    QUADRATIC: tl.constexpr,
    LAMBERT: tl.constexpr,
    NEWTON: tl.constexpr,
):
    """Time until the potential first reaches the threshold from below, at most ``end``; NONE if it does not.

    Only lanes in ``needed`` count. The flags name the solvers that the layer's neurons need.
    """
    reached = u >= threshold
    slope = i - u * rate_mem
    needed = needed & ~reached & (i > 0) & (slope > 0) & (u + slope * end >= threshold)
    x = tl.full(u.shape, NONE, tl.float64)
    if any_of(needed):
        by_quadratic = tau_mem == 2.0 * tau_syn
        by_lambert = tau_mem == tau_syn
        if QUADRATIC:
            x = tl.where(needed & by_quadratic, crossing_quadratic(u, i, tau_mem, threshold), x)
        if LAMBERT:
            own = needed & by_lambert
            x = tl.where(own, crossing_lambert(own, u, i, tau_mem, threshold), x)
        if NEWTON:
            own = needed & ~by_quadratic & ~by_lambert
            x = tl.where(own, crossing_newton(own, u, i, end, tau_syn, rate_mem, rate_syn, threshold), x)
    return tl.where(reached, 0.0, tl.where(x <= end, x, NONE))
