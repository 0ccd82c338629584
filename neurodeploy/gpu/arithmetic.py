"""Device functions that round like the processor's kernels: division to nearest, and ``exp`` of ``exponential.hpp``.

Triton's ``/`` on float32 is an approximation; spikes depend on the quotient, so it is rounded to nearest here. Kernels
are compiled without contraction to fused multiply-add (``launch.py``), so that sums of products round twice.
"""

import triton
import triton.language as tl


@triton.jit
def divide(a, b):
    """The quotient, rounded to nearest."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def exp_nonpositive(x):
    """``exp(x)`` for x <= 0 with the bits of ``native/exponential.hpp``."""
    if x.dtype == tl.float64:
        y = tl.where(x < -708.0, -708.0, x)
        shifted = y * 1.4426950408889634074 + 6755399441055744.0
        n = shifted - 6755399441055744.0
        r = (y - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
        p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        p = p * r + 1.0
        power = ((shifted.to(tl.int64, bitcast=True) + 1023) << 52).to(tl.float64, bitcast=True)
        return tl.where(x < -708.0, 0.0, p * power)
    else:
        y = tl.where(x < -87.0, -87.0, x)
        shifted = y * 1.44269504088896341 + 12582912.0
        n = shifted - 12582912.0
        r = (y - n * 0.693359375) - n * -2.12194440e-4
        p = r * (1.0 / 5040) + 1.0 / 720
        p = p * r + 1.0 / 120
        p = p * r + 1.0 / 24
        p = p * r + 1.0 / 6
        p = p * r + 0.5
        p = p * r + 1.0
        p = p * r + 1.0
        power = ((shifted.to(tl.int32, bitcast=True) + 127) << 23).to(tl.float32, bitcast=True)
        return tl.where(x < -87.0, 0.0, p * power)


@triton.jit
def arctan(x):
    """``atan(x)`` in float64: three halvings of the angle, then its Taylor series (soft spikes only)."""
    y = x / (1.0 + tl.sqrt(1.0 + x * x))
    y = y / (1.0 + tl.sqrt(1.0 + y * y))
    y = y / (1.0 + tl.sqrt(1.0 + y * y))
    z = -y * y
    series = z * (1.0 / 25) + 1.0 / 23
    series = series * z + 1.0 / 21
    series = series * z + 1.0 / 19
    series = series * z + 1.0 / 17
    series = series * z + 1.0 / 15
    series = series * z + 1.0 / 13
    series = series * z + 1.0 / 11
    series = series * z + 1.0 / 9
    series = series * z + 1.0 / 7
    series = series * z + 1.0 / 5
    series = series * z + 1.0 / 3
    series = series * z + 1.0
    return 8.0 * y * series
