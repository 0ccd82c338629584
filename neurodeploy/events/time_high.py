"""Where the TIME_HIGH words of EVT 2.0 and EVT 3.0 go when a recording is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError

_MAX_TURNS = 10_000


@dataclass(frozen=True)
class TimeHighLayout:
    """A word stream with room for each event's own words (its tail).

    Attributes:
        words: length of the stream.
        tail_at: position of the first word of each event's tail, ``[n]``.
        high_at, high: positions and values of the TIME_HIGH words.
    """

    words: int
    tail_at: NDArray[np.int64]
    high_at: NDArray[np.int64]
    high: NDArray[np.int64]


def place_time_high(
    path: Path, high: NDArray[np.int64], bits: int, tail: NDArray[np.int64], format_name: str
) -> TimeHighLayout:
    """Put a TIME_HIGH word before every event whose high time differs from the event before.

    A turn of the counter is written as its largest value followed by 0, which every decoder takes for a turn.

    Args:
        path: the file, for the error.
        high: high part of each event's time, not wrapped, ``[n]``.
        bits: width of the counter.
        tail: number of words each event needs after its TIME_HIGH words, ``[n]``.
        format_name: for the error.

    Raises:
        EventError: the times need more than 10,000 turns of the counter.
    """
    before = np.concatenate([[-1], high[:-1]])[: high.size]
    turns = (high >> bits) - (np.maximum(before, 0) >> bits)
    if turns.sum() > _MAX_TURNS:
        raise EventError(
            f"{path}: the clock of {format_name} would start over {turns.sum()} times to reach the last event; "
            f"{_MAX_TURNS} is the limit.",
            remedy="subtract the start time of the recording, or write .npz.",
            code="event-time-range",
        )
    changed = high != before
    heads = 2 * turns + changed
    tail_at = np.cumsum(heads + tail) - tail
    largest = (1 << bits) - 1
    places, values = [tail_at[changed] - 1], [high[changed] & largest]
    for event in np.flatnonzero(turns):
        n = 2 * int(turns[event])
        places.append(int(tail_at[event] - heads[event]) + np.arange(n))
        values.append(np.tile(np.array([largest, 0]), n // 2))
    words = int(tail_at[-1] + tail[-1]) if high.size else 0
    return TimeHighLayout(words, tail_at, np.concatenate(places), np.concatenate(values))
