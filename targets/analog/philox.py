"""Counter-based random numbers: each depends on nothing but its key and its counter.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a key of 64 bits and a
counter of four 32-bit words into four 32-bit words. The first two give a uniform number
``((words[0] * 2^32 + words[1]) // 2^12 + 1/2) / 2^52``, and Wichura's AS 241 its normal quantile. The numbers have the
same bits on every CPU. Trial noise takes its counters from ``core.hpp``, chip deviations from ``deviations.py``.
"""

import numpy as np
from numpy.typing import NDArray

from neurodeploy.extension import native as _native


def words(key: int, counters: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the four words of each counter, uint32 ``[n, 4]``.

    Args:
        key: 0 to 2^64 - 1.
        counters: uint32 ``[n, 4]``, C-contiguous.
    """
    out = np.empty_like(counters)
    _native.philox.words(key, counters, out)
    return out


def normal(key: int, counters: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return one standard normal number for each counter, float64 ``[n]``; ``|x| <= 8.22``.

    Args:
        key: 0 to 2^64 - 1.
        counters: uint32 ``[n, 4]``, C-contiguous.
    """
    out = np.empty(len(counters))
    _native.philox.normal(key, counters, out)
    return out


def normal_quantile(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers below which a standard normal one lies with the given probabilities, float64 ``[n]``.

    Args:
        uniform: float64 ``[n]``, above 0 and below 1, C-contiguous.
    """
    out = np.empty_like(uniform)
    _native.philox.quantile(uniform, out)
    return out
