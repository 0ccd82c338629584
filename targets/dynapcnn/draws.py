"""Random numbers that depend on nothing but what they are for, so that Python and C++ draw the same ones.

``draw(seed, purpose, ...)`` hashes its arguments with SplitMix64's finalizer (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators"); there is no generator whose state the order of the work could change.
"""

import numpy as np
from numpy.typing import NDArray

_MASK = 2**64 - 1
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

#: What a number is drawn for: order of the spikes of one update, delay of an event, loss of an event, initial state.
EMISSION, DELAY, LOSS, INITIAL = range(4)


def mix(x: int) -> int:
    """A 64-bit number from a 64-bit number, one to one."""
    x = (x + _STEP) & _MASK
    x = ((x ^ (x >> 30)) * _FIRST) & _MASK
    x = ((x ^ (x >> 27)) * _SECOND) & _MASK
    return x ^ (x >> 31)


def draw(seed: int, *words: int) -> int:
    """A number of 64 random bits for ``words``, each a whole number below 2**64."""
    number = mix(seed)
    for word in words:
        number = mix(number ^ word)
    return number


def uniform_integers(seed: int, purpose: int, index: int, low: int, high: int, count: int) -> NDArray[np.int64]:
    """``count`` whole numbers in ``low`` to ``high``, both included (at most 2**16 of them), for one ``index``."""
    x = np.full(count, draw(seed, purpose, index), np.uint64) ^ np.arange(count, dtype=np.uint64)
    x += np.uint64(_STEP)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_SECOND)
    x ^= x >> np.uint64(31)
    numbers: NDArray[np.int64] = ((x >> np.uint64(32)) * np.uint64(high - low + 1) >> np.uint64(32)).astype(np.int64)
    return numbers + low
