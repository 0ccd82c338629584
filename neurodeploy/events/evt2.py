"""Prophesee EVT 2.0 (.raw): 32-bit little-endian words after a text header.

Words (docs.prophesee.ai, "EVT 2.0 Format"), by their top four bits::

    0x0 OFF event, 0x1 ON event: bits 22-27 low 6 bits of the time, bits 11-21 x, bits 0-10 y
    0x8 TIME_HIGH: bits 0-27 the high 28 bits of the time
    0xA external trigger, 0xE others, 0xF continued: skipped and counted

The 34-bit time starts over after 4.77 h.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.clock import WrappingClock
from neurodeploy.events.percent_header import raw_header, read_percent_header, start_time_us
from neurodeploy.events.stream import EventFile, event_columns, latest
from neurodeploy.events.time_high import place_time_high
from neurodeploy.files import replacing

_HIGH_BITS = 28
_LOW_BITS = 6
_COORDINATES = 1 << 11


def read_evt2(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an EVT 2.0 file in blocks."""
    with file.open() as handle:
        t0 = start_time_us(file, read_percent_header(file, handle))
        clock = WrappingClock(_HIGH_BITS)
        time_high = -1  # unknown until the first TIME_HIGH
        for words in file.records(handle, "<u4"):
            kind = words >> 28
            is_high = kind == 8
            highs = clock.unwrap((words[is_high] & 0x0FFFFFFF).astype(np.int64))
            high = latest(highs, time_high, is_high)
            time_high = int(high[-1])
            is_event = (kind <= 1) & (high >= 0)
            event = words[is_event]
            file.skip("events before the first time", np.count_nonzero(kind <= 1) - event.size)
            file.skip("external triggers", np.count_nonzero(kind == 0xA))
            file.skip("other words", np.count_nonzero((kind > 1) & ~is_high & (kind != 0xA)))
            t = t0 + ((high[is_event] << _LOW_BITS) | ((event >> 22) & 0x3F))
            yield event_columns(t, (event >> 11) & 0x7FF, event & 0x7FF, event >> 28)


def write_evt2(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write an EVT 2.0 file. Carries 11-bit addresses and two polarities; turns of the clock are spelled out.

    Raises:
        EventError: an address or polarity does not fit, or the times need more than 10,000 turns of the clock.
    """
    as_events(events, sensor_size=(2, _COORDINATES, _COORDINATES), source=str(path))
    tail = np.ones(events.size, np.int64)
    layout = place_time_high(path, events["t"] >> _LOW_BITS, _HIGH_BITS, tail, "EVT 2.0")
    words = np.empty(layout.words, "<u4")
    words[layout.high_at] = 0x80000000 | layout.high
    low = (events["t"] & 0x3F).astype(np.uint32)
    x, y, p = (events[name].astype(np.uint32) for name in ("x", "y", "p"))
    words[layout.tail_at] = (p << 28) | (low << 22) | (x << 11) | y
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(raw_header("2.0", "EVT2", size))
        handle.write(words.tobytes())
