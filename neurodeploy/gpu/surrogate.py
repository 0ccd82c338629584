"""Device functions for surrogate derivatives: those of ``native/surrogate.hpp``, operation by operation.

``C`` is a :class:`neurodeploy.gpu.choices.Choices`. Kinds: 0 single exponential, 1 periodic exponential, 2 box,
3 sigmoid, 4 arctan, 5 Heaviside.
"""

import triton
import triton.language as tl

from neurodeploy.gpu.arithmetic import arctan, divide, exp_nonpositive


@triton.jit
def surrogate_column(unit, C: tl.constexpr):
    """Two numbers per neuron, (rate, peak), so that the loop over time has no division."""
    one = tl.full(unit.shape, 1.0, unit.dtype)
    inverse = divide(one, unit * C.width)
    if C.surrogate == 1:
        return divide(one, unit), unit
    elif C.surrogate == 2:
        return unit * C.width * 0.5, C.scale * inverse
    elif C.surrogate == 4:
        return 1.5707963267948966 * inverse, C.scale * 0.5 * inverse
    elif C.surrogate == 5:
        return one * -C.width, divide(one * C.scale, unit)
    else:
        return inverse, C.scale * inverse


@triton.jit
def surrogate_gradient(d, rate, peak, C: tl.constexpr):
    """ds/dv at distance d above the threshold."""
    if C.surrogate == 0:
        return peak * exp_nonpositive(-tl.abs(d * rate))
    elif C.surrogate == 1:
        phase = d * rate + 0.5
        wave = peak * (2.0 * (phase - tl.floor(phase)) - 1.0)
        return C.scale * exp_nonpositive(-tl.abs(tl.where(d < 0, d, wave)) * C.inverse_width)
    elif C.surrogate == 2:
        return tl.where(tl.abs(d) <= rate, peak, 0.0)
    elif C.surrogate == 3:
        e = exp_nonpositive(-tl.abs(d * rate))
        one_plus = 1.0 + e
        return divide(peak * e, one_plus * one_plus)
    elif C.surrogate == 4:
        z = d * rate
        return divide(peak + 0.0 * z, 1.0 + z * z)
    else:
        return tl.where(d >= rate, peak, 0.0)


@triton.jit
def surrogate_primitive(d, unit, C: tl.constexpr):
    """The function of d whose derivative is the surrogate, in float64: the spike count of the soft-spike mode."""
    z = d / (unit * C.width)
    if C.surrogate == 0:
        e = exp_nonpositive(-tl.abs(z))
        return tl.where(z < 0, C.scale * e, C.scale * (2.0 - e))
    elif C.surrogate == 1:
        below = C.scale * C.width * exp_nonpositive(tl.where(d < 0, d, 0.0) / C.width)
        period = tl.floor(d / unit + 0.5)
        rest = d - period * unit
        half = 0.5 * C.width * (1.0 - exp_nonpositive(-2.0 * tl.abs(rest) / C.width))
        whole = C.width * (1.0 - exp_nonpositive(-unit / C.width))
        above = C.scale * (C.width + period * whole + tl.where(rest < 0, -half, half))
        return tl.where(d < 0, below, above)
    elif C.surrogate == 2:
        ramp = z + 0.5
        return C.scale * tl.where(ramp < 0, 0.0, tl.where(ramp > 1, 1.0, ramp))
    elif C.surrogate == 3:
        e = exp_nonpositive(-tl.abs(z))
        return C.scale * tl.where(z < 0, e, 1.0) / (1.0 + e)
    elif C.surrogate == 4:
        return C.scale * (arctan(1.5707963267948966 * z) / 3.14159265358979323846 + 0.5)
    else:
        return tl.where(d + C.width > 0, C.scale * (d + C.width) / unit, 0.0)
