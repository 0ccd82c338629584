"""Weights in the levels that a chip of signed synapses has: whole multiples of one level, the same for all synapses."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import QuantizeError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

#: Candidates of the clip search: how much of the largest weight the highest code stands for.
CLIPS = 161


@dataclass(frozen=True, eq=False)
class SignedLevels:
    """Weights of several layers in codes of one common level; ``codes * level`` is what the chip has.

    Attributes:
        codes: per layer, int64, of the weights' shapes.
        level: the weight of code 1; 1 if there is no weight but 0.
        nrmse: per layer, the root mean square error over the root mean square weight; 0 for a layer of zeros.
        clipped: per layer, the share of weights beyond the highest code.
    """

    codes: tuple[Codes, ...]
    level: float
    nrmse: tuple[float, ...]
    clipped: tuple[float, ...]


def highest_code(magnitude_bits: int) -> int:
    """The highest code of a magnitude: 63 for 6 bits."""
    return (1 << magnitude_bits) - 1


def to_codes(weight: Floats, level: float, magnitude_bits: int) -> Codes:
    """The nearest code of each weight, halves to even, clipped to the highest code of either sign."""
    highest = highest_code(magnitude_bits)
    return np.clip(np.rint(np.asarray(weight, np.float64) / level), -highest, highest).astype(np.int64)


def signed_levels(
    weights: Sequence[NDArray[np.floating]],
    *,
    magnitude_bits: int = 6,
    importance: Sequence[float] | None = None,
) -> SignedLevels:
    """Choose the level that all synapses of a chip share, because the gain of its synapses is one for the chip.

    Dividing the largest weight by the highest code wastes codes on rare weights. So a grid of clips, 20 to 100 % of the
    largest weight, is searched for the smallest sum over layers of ``importance * nrmse ** 2``.

    Args:
        weights: one array per layer, in the same unit (a potential per time).
        magnitude_bits: bits of a code beside its sign.
        importance: of each layer; by default all 1.

    Raises:
        QuantizeError: a weight is not finite, there is no bit, or ``importance`` has another length.
    """
    layers = [np.asarray(weight, np.float64) for weight in weights]
    shares = [1.0] * len(layers) if importance is None else list(importance)
    if magnitude_bits < 1 or len(shares) != len(layers) or not all(np.isfinite(layer).all() for layer in layers):
        raise QuantizeError(
            f"{magnitude_bits} bits, {len(layers)} layers with {len(shares)} importances, weights that are all finite: "
            f"{all(np.isfinite(layer).all() for layer in layers)}.",
            remedy="give at least one bit, finite weights, and one importance per layer or none.",
            code="signed-levels",
        )
    largest = max((float(np.abs(layer).max()) for layer in layers if layer.size), default=0.0)
    if largest == 0:
        zeros = tuple(np.zeros(layer.shape, np.int64) for layer in layers)
        return SignedLevels(zeros, 1.0, (0.0,) * len(layers), (0.0,) * len(layers))
    highest = highest_code(magnitude_bits)
    candidates = [float(clip) * largest / highest for clip in np.linspace(1.0, 0.2, CLIPS)]

    def cost(level: float) -> float:
        errors = (_nrmse(layer, to_codes(layer, level, magnitude_bits) * level) for layer in layers)
        return sum(share * error**2 for share, error in zip(shares, errors, strict=True))

    level = min(candidates, key=cost)
    codes = tuple(to_codes(layer, level, magnitude_bits) for layer in layers)
    edge = (highest + 0.5) * level
    return SignedLevels(
        codes,
        level,
        tuple(_nrmse(layer, code * level) for layer, code in zip(layers, codes, strict=True)),
        tuple(float((np.abs(layer) > edge).mean()) if layer.size else 0.0 for layer in layers),
    )


def _nrmse(wanted: Floats, realised: NDArray[np.floating]) -> float:
    power = float(np.square(wanted).mean()) if wanted.size else 0.0
    return sqrt(float(np.square(wanted - realised).mean()) / power) if power else 0.0
