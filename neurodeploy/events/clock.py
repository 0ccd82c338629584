"""Time stamps of few bits that start over: how cameras count microseconds."""

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray


class WrappingClock:
    """Lengthens counters of ``bits`` bits to 64 bits, piece by piece.

    Only a fall of more than half the range is a turn of the counter; a smaller one is disorder, which the reader
    refuses later. So a silence of more than half the range that spans a turn cannot be told from disorder, and a
    silence of more than a whole turn cannot be seen at all: that is a limit of such formats, not of the reader.
    """

    def __init__(self, bits: int) -> None:
        self.range = 1 << bits
        self._last: int | None = None
        self._turns = 0

    def unwrap(self, counter: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the counter values (int64 ``[n]``, following those of earlier calls) with the turns added."""
        if counter.size == 0:
            return counter
        before = np.empty_like(counter)
        before[0] = counter[0] if self._last is None else self._last
        before[1:] = counter[:-1]
        turns = self._turns + np.cumsum(before - counter > self.range // 2)
        self._last, self._turns = int(counter[-1]), int(turns[-1])
        unwrapped: NDArray[np.int64] = counter + turns * self.range
        return unwrapped


def require_carried(path: object, events: EventArray, bits: int, format_name: str) -> None:
    """Refuse times that a reader of ``bits``-bit counters would get wrong.

    Raises:
        EventError: the recording starts after the first turn of the counter, or is silent too long across a turn.
    """
    t = np.ascontiguousarray(events["t"])
    wrong = np.flatnonzero(WrappingClock(bits).unwrap(t & ((1 << bits) - 1)) != t)
    if wrong.size:
        first = int(wrong[0])
        raise EventError(
            f"{path}: event {first} at {t[first]} us cannot be stored in the {bits}-bit times of {format_name}, which "
            f"start over after {(1 << bits) / 1e6:.4g} s.",
            remedy="subtract the start time, split the recording, or write .npz.",
            code="event-time-range",
        )
