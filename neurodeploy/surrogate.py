"""Surrogate derivatives of the spike function: what ``ds/dv`` is taken to be in the backward pass.

Each is a function of ``d = v - threshold`` (v before the reset) and of the voltage unit ``u``, the threshold held
constant under differentiation; ``w`` is ``grad_width`` and ``c`` is ``grad_scale``. In the soft-spike mode of the
kernels the spikes *are* the primitive of the surrogate, so that gradients can be checked by finite differences.
"""

from dataclasses import dataclass
from math import isfinite

from neurodeploy.errors import KernelError


def _check(surrogate: object, width: float, scale: float) -> None:
    if not (isfinite(width) and width > 0):
        raise KernelError(
            f"{type(surrogate).__name__}: width {width} is not a positive number.",
            remedy="choose a width above 0, in units of the threshold.",
            code="surrogate-width",
        )
    if not isfinite(scale):
        raise KernelError(
            f"{type(surrogate).__name__}: scale {scale} is not finite.",
            remedy="choose a finite grad_scale; 1.0 is the default.",
            code="surrogate-scale",
        )


@dataclass(frozen=True, slots=True)
class SingleExponential:
    """``c / (w u) * exp(-|d| / (w u))`` (Shrestha and Orchard, 2018); sinabs' default, with its names and values."""

    grad_width: float = 0.5
    grad_scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.grad_width, self.grad_scale)


@dataclass(frozen=True, slots=True)
class PeriodicExponential:
    """A peak at every multiple of the threshold, for multi-spike neurons (Weidel and Sheik, 2021, arXiv 2111.01456).

    ``c * exp(-|d| / w)`` below the threshold; above it ``c * exp(-|y| / w)``, ``y = u * (2 frac(d / u + 1/2) - 1)``.
    The width is in volts, not in units of the threshold, as in sinabs.
    """

    grad_width: float = 0.5
    grad_scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.grad_width, self.grad_scale)


@dataclass(frozen=True, slots=True)
class Box:
    """``c / (w u)`` where ``|d| <= w u / 2``, else 0; its primitive is a ramp from 0 to ``c``."""

    grad_width: float = 1.0
    grad_scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.grad_width, self.grad_scale)


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """``c / (w u) * f (1 - f)``, ``f = 1 / (1 + exp(-d / (w u)))``. Width 1/4 is SpikingJelly's ``alpha=4``."""

    grad_width: float = 0.25
    grad_scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.grad_width, self.grad_scale)


@dataclass(frozen=True, slots=True)
class Arctan:
    """``c / (2 w u) / (1 + (pi d / (2 w u))^2)``. Width 1/2 is SpikingJelly's ``ATan(alpha=2)``."""

    grad_width: float = 0.5
    grad_scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.grad_width, self.grad_scale)


@dataclass(frozen=True, slots=True)
class Heaviside:
    """``1 / u`` where ``d >= -window``, else 0: sinabs' ``Heaviside``. ``window`` is in volts."""

    window: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.window, 1.0)


Surrogate = SingleExponential | PeriodicExponential | Box | Sigmoid | Arctan | Heaviside

KINDS: tuple[type, ...] = (SingleExponential, PeriodicExponential, Box, Sigmoid, Arctan, Heaviside)
"""All surrogates; the position is the enumerator in ``native/surrogate.hpp``."""


def code(surrogate: Surrogate) -> tuple[int, float, float]:
    """Return (enumerator, width, scale): how a surrogate is passed to compiled kernels."""
    kind = KINDS.index(type(surrogate))
    if isinstance(surrogate, Heaviside):
        return kind, surrogate.window, 1.0
    return kind, surrogate.grad_width, surrogate.grad_scale


def rescaled(surrogate: Surrogate, scale: float) -> Surrogate:
    """The surrogate of neurons whose potentials and thresholds are all multiplied by ``scale``.

    The derivative of a spike with respect to a potential that is ``scale`` times as large is ``1 / scale`` times as
    large. Surrogates whose width is in units of the threshold are unchanged by construction.
    """
    match surrogate:
        case PeriodicExponential(width, height):
            return PeriodicExponential(width * scale, height / scale)
        case Heaviside(window):
            return Heaviside(window * scale)
        case _:
            return surrogate
