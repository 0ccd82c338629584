"""Prophesee EVT 3.0 (.raw): 16-bit little-endian words after a text header; each word changes a state.

Words (docs.prophesee.ai, "EVT 3.0 Format"), by their top four bits::

    0x0 ADDR_Y: y                                0x2 ADDR_X: one event at x, bit 11 its polarity
    0x3 VECT_BASE_X: x and polarity of a vector  0x4 VECT_12, 0x5 VECT_8: a mask of events at x, x + 1, ...; x moves on
    0x6 TIME_LOW: low 12 bits of the time        0x8 TIME_HIGH: high 12 bits; the low bits become 0
    0xA external trigger, 0x7 and 0xF continued, 0xE others: skipped and counted

The 24-bit time starts over after 16.8 s.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.clock import WrappingClock
from neurodeploy.events.percent_header import raw_header, read_percent_header, start_time_us
from neurodeploy.events.stream import EventFile, event_columns, latest
from neurodeploy.events.time_high import place_time_high
from neurodeploy.files import replacing

_BITS = 12
_COORDINATES = 1 << 11


@dataclass
class _State:
    """The decoder between two blocks; ``time_high`` is -1 until the first TIME_HIGH."""

    clock: WrappingClock = field(default_factory=lambda: WrappingClock(_BITS))
    time_high: int = -1
    time_low: int = 0
    y: int = 0
    vector_x: int = 0
    vector_p: int = 0


def read_evt3(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an EVT 3.0 file in blocks."""
    with file.open() as handle:
        t0 = start_time_us(file, read_percent_header(file, handle))
        state = _State()
        for words in file.records(handle, "<u2"):
            yield _decode(file, words, state, t0)


def _decode(file: EventFile, words: NDArray[Any], state: _State, t0: int) -> EventArray:
    kind, value = words >> 12, (words & 0xFFF).astype(np.int64)
    is_high, is_base = kind == 8, kind == 3
    is_time = is_high | (kind == 6)
    high = latest(state.clock.unwrap(value[is_high]), state.time_high, is_high)
    low = latest(np.where(is_high, 0, value)[is_time], state.time_low, is_time)
    y = latest(value[kind == 0] & 0x7FF, state.y, kind == 0)
    is_vector = (kind == 4) | (kind == 5)
    emits = ((kind == 2) | is_vector) & (high >= 0)
    single = (kind == 2)[emits]

    t = t0 + ((high[emits] << _BITS) | low[emits])
    x, p, row = value[emits] & 0x7FF, value[emits] >> 11, y[emits]
    if is_vector.any() or is_base.any():
        # How far the vectors of this block have moved x before each word; a base subtracts what was moved before it.
        moved = np.cumsum(12 * (kind == 4) + 8 * (kind == 5))
        before = np.concatenate([[0], moved[:-1]])
        start = latest((value & 0x7FF)[is_base] - before[is_base], state.vector_x, is_base)
        polarity = latest(value[is_base] >> 11, state.vector_p, is_base)
        mask = np.where(kind == 5, value & 0xFF, value)
        t, x, row, p = _spread(
            t, np.where(single, x, (start + before)[emits]), row, np.where(single, p, polarity[emits]),
            np.where(single, 1, mask[emits]),
        )  # fmt: skip
        state.vector_x, state.vector_p = int(start[-1] + moved[-1]), int(polarity[-1])
        if x.size and int(x.max()) >= _COORDINATES:
            raise file.damaged(f"a vector of events reaches x = {int(x.max())}; EVT 3.0 has x = 0..2047")
    state.time_high, state.time_low, state.y = int(high[-1]), int(low[-1]), int(y[-1])
    file.skip("events before the first time", np.count_nonzero((kind == 2) | is_vector) - np.count_nonzero(emits))
    file.skip("external triggers", np.count_nonzero(kind == 0xA))
    file.skip("other words", np.count_nonzero((kind == 1) | (kind == 7) | (kind == 9) | (kind > 10)))
    return event_columns(t, x, row, p)


def _spread(
    t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], mask: NDArray[Any]
) -> tuple[NDArray[Any], ...]:
    """One event per set bit of each mask, in the order of the words and then of x."""
    word, bit = np.nonzero((mask[:, None] >> np.arange(12)) & 1)
    return t[word], x[word] + bit, y[word], p[word]


def write_evt3(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write an EVT 3.0 file without vectors. Carries 11-bit addresses and two polarities; turns are spelled out.

    Raises:
        EventError: an address or polarity does not fit, or the times need more than 10,000 turns of the clock.
    """
    as_events(events, sensor_size=(2, _COORDINATES, _COORDINATES), source=str(path))
    t, y = np.ascontiguousarray(events["t"]), events["y"].astype(np.int64)
    new_low = np.ones(t.size, np.int64)
    new_low[1:] = t[1:] != t[:-1]
    new_y = np.ones(t.size, np.int64)
    new_y[1:] = y[1:] != y[:-1]
    layout = place_time_high(path, t >> _BITS, _BITS, 1 + new_low + new_y, "EVT 3.0")
    words = np.empty(layout.words, "<u2")
    words[layout.high_at] = 0x8000 | layout.high
    words[layout.tail_at[new_low > 0]] = 0x6000 | (t[new_low > 0] & 0xFFF)
    words[(layout.tail_at + new_low)[new_y > 0]] = y[new_y > 0]
    words[layout.tail_at + new_low + new_y] = 0x2000 | (events["p"].astype(np.int64) << 11) | events["x"]
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(raw_header("3.0", "EVT3", size))
        handle.write(words.tobytes())
