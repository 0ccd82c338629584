"""The .bin files of N-MNIST and N-Caltech101: 40-bit records of the ATIS camera.

Layout (Orchard et al. 2015, doi 10.3389/fnins.2015.00437, and the authors' ``Read_Ndataset.m``), one event in 5 bytes::

    byte 0: x    byte 1: y    byte 2, bit 7: polarity (1 = ON)    byte 2, bits 6..0, bytes 3 and 4: time in us, 23 bit

Two things lengthen the clock: a record with y = 240 is no event but "the time base moved on by 2**13 us", and the
23-bit time starts over after 8.39 s.
"""

from pathlib import Path

import numpy as np

from neurodeploy.errors import EventError
from neurodeploy.events.array import EVENT_DTYPE, EventArray, as_events
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
    path = Path(path)
    if not path.is_file():
        raise EventError(f"{path}: no such file.", remedy="check the path.", code="file-missing")
    data = path.read_bytes()
    if len(data) % _RECORD_BYTES:
        raise EventError(
            f"{path}: {len(data)} bytes is not a whole number of 5-byte records.",
            remedy="the file is truncated or not an N-MNIST .bin: copy it again.",
            code="bin-truncated",
        )
    return as_events(_decode(np.frombuffer(data, np.uint8)), sensor_size=sensor_size, source=str(path))


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
    back = _decode(raw.reshape(-1))["t"]
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


def _decode(data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> EventArray:
    raw = data.reshape(-1, _RECORD_BYTES).astype(np.int64)
    t = ((raw[:, 2] & 0x7F) << 16) | (raw[:, 3] << 8) | raw[:, 4]
    overflow = raw[:, 1] == _OVERFLOW_ROW
    # Only a fall of more than half the range is a wrap; a smaller one is disorder, which as_events refuses.
    wraps = np.zeros(t.size, np.int64)
    wraps[1:] = t[1:] - t[:-1] < -(1 << (_TIME_BITS - 1))
    t = t + np.cumsum(wraps) * (1 << _TIME_BITS) + np.cumsum(overflow) * _OVERFLOW_US
    events = np.empty(int(t.size - overflow.sum()), EVENT_DTYPE)
    events["t"], events["x"], events["y"] = t[~overflow], raw[~overflow, 0], raw[~overflow, 1]
    events["p"] = raw[~overflow, 2] >> 7
    return events
