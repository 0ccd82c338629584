"""What circuits made alike differ by: numbers drawn for a physical site, the same on every machine.

The key of a chip is the first 8 bytes of SHA-256 of ``AnalogChip.silicon`` and its serial number; the counter is
(site, low word; site, high word; number of the parameter; 0). Words 0 and 1 of the Philox block give the normal number,
words 2 and 3 say whether the circuit is in the tail. Only + - * / and sqrt are used, and an exponential and a logarithm
made of them (``philox.hpp``, ``exponential.hpp``), so the bits do not depend on CPU, compiler or C library.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from neurodeploy.extension import native as _native
from neurodeploy.targets.analog.chip import AnalogChip, LogNormal, Normal

Floats = NDArray[np.float64]
Sites = NDArray[np.int64]

#: Numbers of what is drawn, for the counters: never change one, or every serial number means another chip.
NUMBERS = {
    "tau_mem": 0,
    "tau_syn_exc": 1,
    "tau_syn_inh": 2,
    "t_ref": 3,
    "threshold": 4,
    "leak": 5,
    "reset": 6,
    "weight": 7,
    "gain_exc": 8,
    "gain_inh": 9,
}


def chip_key(chip: AnalogChip, serial: int) -> int:
    """The 64-bit key of the chip with this serial number."""
    return int.from_bytes(hashlib.sha256(f"{chip.silicon} {serial}".encode()).digest()[:8], "little")


def deviation(spread: LogNormal | Normal | None, key: int, quantity: str, sites: Sites, scale: float = 1.0) -> Floats:
    """The deviations of circuits: factors (``LogNormal``) or shifts in the parameter's unit (``Normal``).

    Factors have mean 1, ``exp(s z - s^2 / 2)`` with ``s = scale * sqrt(ln(1 + cv^2))``; shifts are
    ``scale * sigma * z``. In the tail, cv or sigma is multiplied before.

    Args:
        spread: ``None``: factors of 1.
        key: of the chip.
        quantity: a key of ``NUMBERS``.
        sites: int64, of any shape; numbers below 0 are no circuits and get the mean.
        scale: of the spread.

    Returns:
        float64, of the shape of ``sites``.
    """
    if spread is None:
        return np.ones(sites.shape)
    out = np.empty(sites.size)
    size = spread.cv.value if isinstance(spread, LogNormal) else spread.sigma.value
    share, factor = (spread.tail.share.value, spread.tail.factor.value) if spread.tail else (0.0, 1.0)
    draw = _native.deviations.factors if isinstance(spread, LogNormal) else _native.deviations.shifts
    draw(key, NUMBERS[quantity], np.ascontiguousarray(sites).reshape(-1), size, share, size * factor, scale, out)
    found = out.reshape(sites.shape)
    found[sites < 0] = 1.0 if isinstance(spread, LogNormal) else 0.0
    return found
