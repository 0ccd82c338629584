"""From a value to the word that sets it, and back: the parameter converters of the chips.

Words are int64 ``[..., 2]``:

==============  ==========================================================
``linear``      code, gear (index into the converter's ``gears``)
``coarse_fine`` coarse code, fine code
``counter``     periods, n of the clock divider ``2^(n + 1)``
``exact``       0, 0: the value itself is what the chip has
==============  ==========================================================

The nearest word is the one whose value has the smallest relative error; of two equal ones the first in the order of the
words. Values are in the unit of the parameter: seconds of the chip's own time, lsb, amperes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.errors import QuantizeError
from neurodeploy.targets.analog.chip import AnalogChip, CoarseFineDac, CounterDac, ExactDac, LinearDac

Floats = NDArray[np.float64]
Words = NDArray[np.int64]
AnyDac = ExactDac | LinearDac | CoarseFineDac | CounterDac

#: Relative errors of a realised value above this are refused.
LARGEST_ERROR = 0.05

#: Share of the highest code that a calibration starts below: circuits whose time constants are 2.5 sd (of 20 %) too
#: long need half as much again.
ROOM = 0.6


@dataclass(frozen=True, eq=False)
class Setting:
    """Values of one parameter as the chip can have them; arrays of one shape (``words`` with a last axis of 2).

    Attributes:
        parameter: its name in ``chip.yaml``. unit: of the values.
        requested, value: float64. words: int64. error: float64, ``|value - requested| / |requested|``.
    """

    parameter: str
    unit: str
    requested: Floats
    value: Floats
    words: Words
    error: Floats

    @property
    def largest_error(self) -> float:
        """The largest relative error; 0 without values."""
        return float(self.error.max(initial=0.0))


def setting(chip: AnalogChip, parameter: str, requested: ArrayLike, *, allow_error: bool = False) -> Setting:
    """The nearest words for the ``requested`` values of a parameter.

    A counter has one clock for all values of a call: the fastest that reaches the largest of them.

    Args:
        chip: the chip.
        parameter: a field of ``parameters`` in its ``chip.yaml``.
        requested: values in the parameter's unit, finite, of any shape.
        allow_error: accept errors above ``LARGEST_ERROR`` (a value outside the range is refused all the same).

    Raises:
        QuantizeError: the chip has no such parameter, a value is outside its range or not finite, or no word is near.
    """
    description = getattr(chip.parameters, parameter, None)
    if description is None:
        raise QuantizeError(
            f"{chip.name} has no parameter {parameter!r}.",
            remedy=f"choose one of: {', '.join(name for name, _ in chip.parameters.items())}.",
            code="analog-parameter",
        )
    values = np.asarray(requested, np.float64)
    low, high = description.range.value if description.range is not None else (-np.inf, np.inf)
    outside = ~((values >= low) & (values <= high) & np.isfinite(values))
    if outside.any():
        raise QuantizeError(
            f"{parameter} is {values[outside].flat[0]:g} {description.unit}; {chip.name} has {low:g} to {high:g}.",
            remedy="choose a value within the range, or another unit of time for the network.",
            code="analog-range",
        )
    words = _nearest(description.dac, values)
    found = values.copy() if isinstance(description.dac, ExactDac) else value_of(description.dac, words)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(found == values, 0.0, np.abs(found - values) / np.abs(values))
    result = Setting(parameter, description.unit, values, found, words, error)
    if result.largest_error > LARGEST_ERROR and not allow_error:
        worst, limit = int(np.argmax(error)), 100 * LARGEST_ERROR
        raise QuantizeError(
            f"{parameter}: {values.flat[worst]:g} {description.unit} was asked for and {found.flat[worst]:g} is the "
            f"nearest that {chip.name} has, {100 * error.flat[worst]:.1f} % off; the limit is {limit:g} %.",
            remedy="choose another value or unit of time, or allow the error.",
            code="analog-error",
        )
    return result


def finest_gear(dac: LinearDac, values: Floats) -> NDArray[np.int64]:
    """For each value the gear with the largest code that leaves room for a trim, int64 of the values' shape.

    The code is at most ``ROOM * top``; where no gear has such a code, it is the gear with the smallest one.
    """
    gears = np.array(dac.gears.value)
    of_gear_one = values / dac.at_top.value if dac.law == "proportional" else dac.at_top.value / values
    share = of_gear_one[..., None] / gears  # of the highest code
    fits = share <= ROOM
    chosen: NDArray[np.int64] = np.where(fits.any(-1), np.where(fits, share, -1.0).argmax(-1), share.argmin(-1))
    return chosen


def value_of(dac: AnyDac, words: Words) -> Floats:
    """What ``words`` (int64 ``[..., 2]``) set, float64 ``[...]``; ``inf`` for an inverse law at code 0.

    Raises:
        QuantizeError: a word that the converter does not have.
    """
    first, second = words[..., 0], words[..., 1]
    if isinstance(dac, ExactDac):
        raise QuantizeError(
            "an exact parameter has no words.", remedy="take the value itself.", code="analog-parameter"
        )
    if isinstance(dac, LinearDac):
        _require(first, 0, dac.top.value, second, len(dac.gears.value))
        gear = np.array(dac.gears.value)[second]
        if dac.law == "proportional":
            return dac.at_top.value * gear * first / dac.top.value
        with np.errstate(divide="ignore"):
            return np.where(first == 0, np.inf, dac.at_top.value * dac.top.value / (gear * first))
    if isinstance(dac, CoarseFineDac):
        _require(first, 0, dac.coarse_codes.value - 1, second, dac.fine_top.value + 1)
        return _coarse_fine_values(dac)[first, second]
    _require(first, 1, (1 << dac.bits.value) - 1, second, dac.dividers.value)
    return first * _period(dac, second)


def _nearest(dac: AnyDac, values: Floats) -> Words:
    if isinstance(dac, ExactDac):
        return np.zeros((*values.shape, 2), np.int64)
    if isinstance(dac, CounterDac):
        longest = (1 << dac.bits.value) - 1
        reach = longest * _period(dac, np.arange(dac.dividers.value))
        n = min(int(np.searchsorted(reach, values.max(initial=0.0))), dac.dividers.value - 1)
        periods = np.clip(np.rint(values / _period(dac, np.int64(n))), 1, longest)
        return np.stack([periods, np.full(values.shape, n)], axis=-1).astype(np.int64)
    if isinstance(dac, LinearDac):
        words = np.stack(np.meshgrid(np.arange(dac.top.value + 1), np.arange(len(dac.gears.value)), indexing="ij"), -1)
        words = words[0 if dac.law == "proportional" else 1 :].reshape(-1, 2)
    else:
        words = np.stack(
            np.meshgrid(np.arange(dac.coarse_codes.value), np.arange(dac.fine_top.value + 1), indexing="ij"), -1
        ).reshape(-1, 2)
    have = value_of(dac, words)
    order = np.argsort(have, kind="stable")
    return words[order[_nearest_in(have[order], values)]].astype(np.int64)


def _nearest_in(have: Floats, values: Floats) -> NDArray[np.int64]:
    """For each value the index of the nearest of ``have``, which rises; the first of equal ones."""
    above = np.clip(np.searchsorted(have, values), 1, len(have) - 1)
    below = above - 1
    nearest = np.where(np.abs(values - have[below]) <= np.abs(have[above] - values), below, above)
    return np.searchsorted(have, have[nearest])


def _require(first: Words, low: int, high: int, second: Words, count: int) -> None:
    if not ((first >= low) & (first <= high) & (second >= 0) & (second < count)).all():
        raise QuantizeError(
            f"words must be {low} to {high} and 0 to {count - 1}.",
            remedy="take the words from a setting of the same chip.",
            code="analog-words",
        )


def _period(dac: CounterDac, n: NDArray[np.int64] | np.int64) -> Floats:
    return np.ldexp(1.0, np.asarray(n) + 1) / dac.clock_hz.value


@lru_cache(maxsize=64)
def _coarse_fine_values(dac: CoarseFineDac) -> Floats:
    if dac.currents_a is not None:
        currents = np.array(dac.currents_a.value)
    else:
        full = np.cumprod([dac.first_range_a.value] + [dac.ratio.value] * (dac.coarse_codes.value - 1))
        currents = dac.floor_a.value + full[:, None] * np.arange(dac.fine_top.value + 1) / dac.fine_top.value
    currents = currents * dac.factor.value
    if dac.capacity_f is None or dac.voltage_v is None:
        return currents
    return dac.capacity_f.value * dac.voltage_v.value / currents
