"""The .bin files of N-MNIST and N-Caltech101: 40-bit records of the ATIS camera.

Layout (Orchard et al. 2015, doi 10.3389/fnins.2015.00437, and the authors' ``Read_Ndataset.m``), one event in 5 bytes::

    byte 0: x    byte 1: y    byte 2, bit 7: polarity (1 = ON)    byte 2, bits 6..0, bytes 3 and 4: time in us, 23 bit

Two things lengthen the clock: a record with y = 240 is no event but "the time base moved on by 2**13 us", and the
23-bit time starts over after 8.39 s.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EVENT_DTYPE, EventArray, as_events
from neurodeploy.events.clock import WrappingClock
from neurodeploy.events.stream import EventFile, event_columns
from neurodeploy.files import replacing

_RECORD_BYTES = 5
_TIME_BITS = 23
_OVERFLOW_ROW = 240
_OVERFLOW_US = 1 << 13


def read_nmnist_bin(path: str | Path, *, sensor_size: tuple[int, int, int] | None = None) -> EventArray:
    """Read an N-MNIST .bin recording.

    Args:
        path: the file.
        sensor_size: ``(channels, height, width)``, ``(2, 34, 34)`` for N-MNIST; ``None`` skips the bounds check.

    Raises:
        EventError: no such file, size not a multiple of 5 bytes, times running backwards, event outside the sensor.
    """
    pieces = list(read_bin(EventFile(Path(path), sensor_size)))
    events = np.concatenate(pieces) if pieces else np.empty(0, EVENT_DTYPE)
    return as_events(events, sensor_size=sensor_size, source=str(path))


def read_bin(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an N-MNIST .bin recording in blocks."""
    with file.open() as handle:
        bits = _Clock()
        for block in file.records(handle, (np.uint8, _RECORD_BYTES)):
            yield _decode(block, bits)


def write_nmnist_bin(path: str | Path, events: EventArray) -> None:
    """Write a recording as N-MNIST .bin, all or nothing.

    Raises:
        EventError: addresses beyond 8 bits, row 240 (which the format reserves), polarity beyond 1, or times that 23
            bits with wrap cannot carry (a gap of more than half the 8.39 s range across the wrap).
    """
    events = as_events(events, sensor_size=(2, _OVERFLOW_ROW, 256), source=str(path))
    raw = np.empty((events.size, _RECORD_BYTES), np.uint8)
    t = events["t"] & ((1 << _TIME_BITS) - 1)
    raw[:, 0], raw[:, 1] = events["x"], events["y"]
    raw[:, 2] = (events["p"] << 7) | (t >> 16)
    raw[:, 3], raw[:, 4] = (t >> 8) & 0xFF, t & 0xFF
    back = _decode(raw, _Clock())["t"]
    if not np.array_equal(back, events["t"]):
        first = int(np.flatnonzero(back != events["t"])[0])
        raise EventError(
            f"{path}: event {first} at {events['t'][first]} us cannot be stored in 23-bit times (they wrap after "
            f"8.39 s): a reader would see {back[first]} us.",
            remedy="subtract the start time, split the recording, or write .npz.",
            code="bin-time-range",
        )
    with replacing(path) as temporary:
        temporary.write_bytes(raw.tobytes())


@dataclass
class _Clock:
    """The 23-bit counter and the overflow records seen so far."""

    counter: WrappingClock = field(default_factory=lambda: WrappingClock(_TIME_BITS))
    overflows: int = 0


def _decode(block: NDArray[np.uint8], clock: _Clock) -> EventArray:
    raw = block.astype(np.int64)
    overflow = raw[:, 1] == _OVERFLOW_ROW
    overflows = clock.overflows + np.cumsum(overflow)
    t = clock.counter.unwrap(((raw[:, 2] & 0x7F) << 16) | (raw[:, 3] << 8) | raw[:, 4]) + overflows * _OVERFLOW_US
    clock.overflows = int(overflows[-1]) if overflows.size else clock.overflows
    event = raw[~overflow]
    return event_columns(t[~overflow], event[:, 0], event[:, 1], event[:, 2] >> 7)
