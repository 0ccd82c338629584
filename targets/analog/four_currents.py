"""DYNAP-SE2's weights: every synapse of a core adds up some of four currents that all of its 256 neurons share.

A synapse stores four bits, its mask, and the dendrite that its event goes to. Its magnitude is the sum of the core's
currents ``W0..W3`` whose bits are set (16 levels, spacing free), its sign is the dendrite, and a weight of magnitude 0
needs no synapse at all. See README.md, "Four currents".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import QuantizeError

Floats = NDArray[np.float64]

CURRENTS = 4
#: ``SUBSETS[mask, k]``: whether the mask takes current k.
SUBSETS = (np.arange(2**CURRENTS)[:, None] >> np.arange(CURRENTS) & 1).astype(np.float64)

#: The scan: smallest steps that are tried, as fractions of the largest weight; below 1/15 the largest ones are clipped.
_SMALLEST_STEP, _LARGEST_STEP, _STEPS = 0.015, 0.085, 71
#: Ratios of the four currents that a scan starts from: binary, and denser where a bell-shaped distribution is.
_RATIOS = np.array([[1, 2, 4, 8], [1, 2, 4, 6], [1, 2, 3, 7], [1, 2, 5, 8], [1, 3, 5, 7]], np.float64)
#: Starting points that are improved, and the most rounds of that. Errors decrease in every round, so it ends.
_STARTS, _ROUNDS = 12, 40


@dataclass(frozen=True, eq=False)
class FourCurrents:
    """The levels of one core and what its weights became.

    Attributes:
        currents: float64 ``[4]``, ascending, in the unit of the weights.
        choices: int64 ``[4]``: where the currents are in the list of possible ones; empty if any current was possible.
        masks: uint8 ``[inputs, N]``: bit k of a mask takes current k; 0: no synapse.
        signs: int8 ``[inputs, N]``: +1 and -1 are the two dendrites; 0: no synapse.
        realised: float64 ``[inputs, N]``: the weights that the masks stand for.
        nrmse: root of the (weighted) mean squared error over that of the mean squared weight; 0 if all weights are 0.
    """

    currents: Floats
    choices: NDArray[np.int64]
    masks: NDArray[np.uint8]
    signs: NDArray[np.int8]
    realised: Floats
    nrmse: float


def four_currents(weights: Floats, possible: Floats | None = None, importance: Floats | None = None) -> FourCurrents:
    """Choose the four currents of a core, and the mask of each weight.

    A scan over the smallest step (small steps clip the largest weights, so that this is the search for the clip too)
    gives starting points. From these, two steps alternate as long as the error falls: the best masks for the currents,
    and the best currents for the masks (least squares), each put on a possible current before masks are chosen again.
    Last, each current is moved to its neighbours while that helps. No randomness; the same weights give the same bits.

    Args:
        weights: float64 ``[inputs, N]``, signed.
        possible: float64 ``[K]``, ascending, > 0: what the DAC makes, in the unit of the weights; None: any current.
        importance: float64 like ``weights``, >= 0: factors of the squared errors; None: all 1.

    Raises:
        QuantizeError: a weight is not finite, or ``possible`` or ``importance`` is not as described.
    """
    magnitudes = np.abs(_checked(weights, possible, importance))
    signs = np.sign(weights).astype(np.int8)
    core = _Sums(magnitudes.ravel(), None if importance is None else importance.ravel())
    if core.energy == 0:  # nothing to represent: the smallest currents, and no synapse
        currents = np.full(CURRENTS, 1.0 if possible is None else possible[0])
    else:
        currents = _search(core, possible)
    masks = masks_of(magnitudes, currents)
    signs[masks == 0] = 0
    realised = signs * levels(currents)[masks]
    error = (
        core.energy and np.sum((1.0 if importance is None else importance) * (realised - weights) ** 2) / core.energy
    )
    choices = np.empty(0, np.int64) if possible is None else np.searchsorted(possible, currents).astype(np.int64)
    return FourCurrents(currents, choices, masks, signs, realised, float(np.sqrt(error)))


def quantised(weights: Floats, possible: Floats | None = None, importance: Floats | None = None) -> Floats:
    """The weights that a core can hold: ``four_currents(...).realised``, for training on them."""
    return four_currents(weights, possible, importance).realised


def levels(currents: Floats) -> Floats:
    """float64 ``[16]``: the magnitude of every mask."""
    result: Floats = SUBSETS @ currents
    return result


def masks_of(magnitudes: Floats, currents: Floats) -> NDArray[np.uint8]:
    """uint8, like ``magnitudes``: the mask of the nearest level, of equally near ones the smaller level.

    Of several masks with one level, the one with the smallest number is taken.
    """
    values = levels(currents)
    order = np.argsort(values, kind="stable")
    found = np.searchsorted((values[order][1:] + values[order][:-1]) / 2, magnitudes, side="left")
    # Equal levels have a midpoint equal to both, so that a search may land on any of them: take the first.
    first = np.searchsorted(values[order], values[order], side="left")
    return order[first[found]].astype(np.uint8)


class _Sums:
    """Weights of a core, sorted, with running sums: all that an error or a least-squares step needs, 16 at a time."""

    def __init__(self, magnitudes: Floats, importance: Floats | None) -> None:
        order = np.argsort(magnitudes, kind="stable")
        self.sorted = magnitudes[order]
        factors = np.ones_like(magnitudes) if importance is None else importance[order]
        moments = np.stack([factors, factors * self.sorted])
        self.running = np.concatenate([np.zeros((2, 1)), np.cumsum(moments, axis=1)], axis=1)
        self.energy = float(np.sum(factors * self.sorted**2))
        self.largest = float(self.sorted[-1]) if self.sorted.size else 0.0

    def moments(self, currents: Floats) -> tuple[Floats, Floats, Floats]:
        """For currents ``[S, 4]``: masks in the order of their levels ``[S, 16]``, and per level sum of importance and
        of importance times magnitude of the weights that are nearest to it, ``[S, 16]`` each.
        """
        values = currents @ SUBSETS.T
        order = np.argsort(values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        middle = np.searchsorted(self.sorted, (values[:, 1:] + values[:, :-1]) / 2, side="right")
        ends = np.full((len(currents), 1), self.sorted.size)
        edges = np.concatenate([np.zeros_like(ends), middle, ends], axis=1)
        count, first = np.diff(self.running[:, edges], axis=2)
        return order.astype(np.float64), count, first

    def errors(self, currents: Floats) -> Floats:
        """Sum of the squared errors for each row of ``currents`` ``[S, 4]``."""
        order, count, first = self.moments(currents)
        values = np.take_along_axis(currents @ SUBSETS.T, order.astype(np.int64), axis=1)
        error: Floats = self.energy + np.sum(values * (count * values - 2 * first), axis=1)
        return np.maximum(error, 0.0)

    def least_squares(self, currents: Floats) -> Floats:
        """The currents ``[S, 4]`` that fit best to the masks which ``currents`` give."""
        order, count, first = self.moments(currents)
        bits = SUBSETS[order.astype(np.int64)]
        normal = np.einsum("sl,slj,slk->sjk", count, bits, bits)
        # A current that no weight uses has an empty row: a tiny pull towards where it is keeps it there.
        pull = 1e-9 * self.running[0, -1]
        right = np.einsum("sl,slj->sj", first, bits) + pull * currents
        solved = np.linalg.solve(normal + pull * np.eye(CURRENTS), right[..., None])[..., 0]
        result: Floats = np.maximum(solved, 1e-6 * self.largest)
        return result


def _search(core: _Sums, possible: Floats | None) -> Floats:
    steps = core.largest * np.linspace(_SMALLEST_STEP, _LARGEST_STEP, _STEPS)
    scan = np.concatenate([(steps[:, None, None] * _RATIOS).reshape(-1, CURRENTS), _read_off(core.sorted)])
    scan = _on_possible(scan, possible)
    errors = core.errors(scan)
    best = np.argsort(errors, kind="stable")[:_STARTS]
    currents, errors = scan[best], errors[best]
    for _ in range(_ROUNDS):
        moved = _on_possible(core.least_squares(currents), possible)
        new = core.errors(moved)
        better = new < errors
        if not better.any():
            break
        currents[better], errors[better] = moved[better], new[better]
    winner = currents[int(np.argmin(errors))]
    return np.sort(winner if possible is None else _neighbours(core, winner, possible))


def _read_off(magnitudes: Floats) -> Floats:
    """Currents ``[1, 4]`` of weights that are levels already, as after training on them; ``[0, 4]`` if they are not."""
    smallest = magnitudes[np.searchsorted(magnitudes, 0.0, side="right")]
    # Levels that differ by rounding alone are one.
    distinct = magnitudes[np.diff(magnitudes, prepend=0.0) > 1e-9 * magnitudes[-1]]
    if distinct.size >= 2**CURRENTS:
        return np.empty((0, CURRENTS))
    found = np.empty(0)
    for value in distinct:
        sums = SUBSETS[: 2**found.size, : found.size] @ found
        if found.size < CURRENTS and np.abs(sums - value).min() > 1e-6 * value:
            found = np.append(found, value)
    return np.append(found, np.full(CURRENTS - found.size, smallest))[None]


def _neighbours(core: _Sums, currents: Floats, possible: Floats) -> Floats:
    """``currents`` after single steps of single currents, as long as one lowers the error."""
    places = np.searchsorted(possible, currents)
    error = core.errors(currents[None])[0]
    moves = np.concatenate([step * np.eye(CURRENTS, dtype=np.int64) for step in (-2, -1, 1, 2)])
    for _ in range(_ROUNDS):
        around = np.clip(places + moves, 0, possible.size - 1)
        errors = core.errors(possible[around])
        place = int(np.argmin(errors))
        if errors[place] >= error:
            break
        places, error = around[place], errors[place]
    return possible[places]


def _on_possible(currents: Floats, possible: Floats | None) -> Floats:
    """The nearest possible currents, sorted row by row (the order of the four has no meaning)."""
    if possible is not None:
        upper = np.clip(np.searchsorted(possible, currents), 1, possible.size - 1)
        nearer = currents - possible[upper - 1] <= possible[upper] - currents
        currents = possible[np.where(nearer, upper - 1, upper)]
    return np.sort(currents, axis=1)


def _checked(weights: Floats, possible: Floats | None, importance: Floats | None) -> Floats:
    if weights.dtype != np.float64 or weights.ndim != 2 or not np.isfinite(weights).all():
        _refuse("weights", f"{weights.dtype} of shape {weights.shape}", "finite float64 [inputs, neurons]")
    if possible is not None and not (
        possible.ndim == 1 and possible.size >= 2 and possible[0] > 0 and (np.diff(possible) > 0).all()
    ):
        _refuse(
            "possible", f"{possible.dtype} of shape {possible.shape}", "two or more values > 0, each above the last"
        )
    if importance is not None and not (
        importance.shape == weights.shape and np.isfinite(importance).all() and (importance >= 0).all()
    ):
        _refuse("importance", f"{importance.dtype} of shape {importance.shape}", "finite, >= 0, in the weights' shape")
    return weights


def _refuse(name: str, found: str, rule: str) -> None:
    raise QuantizeError(
        f"{name} is {found}; it must be {rule}.",
        remedy="check the weights of the layer; a training that diverged leaves values that are not finite.",
        code="four-currents",
    )
