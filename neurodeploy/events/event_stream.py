"""Event Stream 2.x (.es): a 12-byte signature, version, type and sensor size, then records of one or five bytes.

Layout (github.com/neuromorphic-paris/event_stream, "Event Stream specification")::

    "Event Stream", 3 bytes version, 1 byte type (1 dvs, 2 atis), u16 width, u16 height, little-endian
    dvs   0xFF: 127 us pass    0xFE: nothing    else bit 0 polarity, bits 1-7 us passed, followed by u16 x, u16 y
    atis  0xFC-0xFF: 63 us times the low two bits pass    else bit 0 exposure measurement, bit 1 polarity,
          bits 2-7 us passed, followed by u16 x, u16 y

Exposure measurements of atis files are no change of brightness: they are skipped and counted.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.stream import EventFile, event_columns
from neurodeploy.files import replacing

_SIGNATURE = b"Event Stream"
_TYPES = {0: "generic", 1: "dvs", 2: "atis", 3: "amd", 4: "color"}
_ROW = 512  # bytes a lane of the parallel parser walks through
_BLOCK = 1 << 19
_TAIL = 4  # bytes of a record after the first
_MAX_OVERFLOW_BYTES = 1 << 26


def read_event_stream(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an .es file in blocks."""
    with file.open() as handle:
        head = handle.read(len(_SIGNATURE) + 4)
        if len(head) < len(_SIGNATURE) + 4:
            raise file.truncated("the header is incomplete")
        if not head.startswith(_SIGNATURE):
            raise file.damaged("it does not begin with 'Event Stream'")
        major, minor, patch, kind = head[len(_SIGNATURE) :]
        file.header["version"] = f"{major}.{minor}.{patch}"
        file.header["type"] = _TYPES.get(kind, str(kind))
        if major != 2 or kind not in (1, 2):
            raise file.unsupported(
                f"version {major}.{minor}.{patch}, type {_TYPES.get(kind, kind)}; version 2 with dvs or atis is read",
                "convert it with the event_stream package, or save the events as .csv or .npz.",
            )
        size = handle.read(4)
        if len(size) < 4:
            raise file.truncated("the sensor size is missing")
        width, height = struct.unpack("<HH", size)
        if not (width and height):
            raise file.damaged(f"the header states a sensor of {width} x {height} pixels")
        file.size = (height, width)
        quiet = 0xFE if kind == 1 else 0xFC  # first bytes from here on only move the clock
        time, carry = 0, b""
        while data := handle.read(_BLOCK):
            block = np.frombuffer(carry + data, np.uint8)
            first = _first_bytes(block, quiet)
            whole = int(np.searchsorted(first, block.size - _TAIL))
            # Only a record that starts in the last four bytes can be incomplete: it waits for the next block.
            rest = first[whole:]
            cut = next((int(at) for at in rest if block[at] < quiet), block.size)
            first = first[first < cut]
            carry = block[cut:].tobytes()
            events, time = _decode(file, block, first, kind == 2, quiet, time)
            yield events
        if carry:
            raise file.truncated(f"the last record has {len(carry)} of 5 bytes")


def _first_bytes(block: NDArray[np.uint8], quiet: int) -> NDArray[np.int64]:
    """Positions of the first bytes of records, given that one starts at 0.

    Where a record starts depends on all bytes before, but only through how many bytes of the current record are left:
    five possibilities. All lanes of ``_ROW`` bytes are walked at once for all five, then chained.
    """
    lanes = -(-block.size // _ROW)
    padded = np.full(lanes * _ROW, 0xFF, np.uint8)
    padded[: block.size] = block
    long = np.ascontiguousarray((padded.reshape(lanes, _ROW) < quiet).T)  # [byte in lane, lane]
    tail = np.where(long, _TAIL, 0).astype(np.uint8)
    left = np.empty((_ROW + 1, _TAIL + 1, lanes), np.uint8)  # before each byte
    left[0] = np.arange(_TAIL + 1, dtype=np.uint8)[:, None]
    inside = np.empty((_TAIL + 1, lanes), bool)
    for byte in range(_ROW):
        # In a record one byte less is left; at a first byte, the four that follow an event's.
        np.not_equal(left[byte], 0, out=inside)
        np.subtract(left[byte], inside, out=left[byte + 1])
        np.copyto(left[byte + 1], tail[byte], where=~inside)
    entry = np.zeros(lanes, np.int64)
    ends = left[_ROW]
    for lane in range(1, lanes):
        entry[lane] = ends[entry[lane - 1], lane - 1]
    starts = left[:_ROW, entry, np.arange(lanes)].T.reshape(-1)[: block.size] == 0
    return np.flatnonzero(starts)


def _decode(
    file: EventFile, block: NDArray[np.uint8], first: NDArray[np.int64], atis: bool, quiet: int, time: int
) -> tuple[EventArray, int]:
    lead = block[first].astype(np.int64)
    is_event = lead < quiet
    flag_bits, mask, unit = (2, 3, 63) if atis else (1, 1, 127)
    passed = np.where(is_event, lead >> flag_bits, unit * (lead & mask))
    t = time + np.cumsum(passed)
    end = int(t[-1]) if t.size else time
    if atis:
        exposure = is_event & (lead & 1 == 1)
        file.skip("exposure measurements", np.count_nonzero(exposure))
        is_event &= ~exposure
    at, lead, t = first[is_event], lead[is_event], t[is_event]
    data = block.astype(np.uint16)
    x, y = data[at + 1] | (data[at + 2] << 8), data[at + 3] | (data[at + 4] << 8)
    return event_columns(t, x, y, (lead >> 1) & 1 if atis else lead & 1), end


def write_event_stream(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write an .es file of type dvs. Carries 16-bit addresses, two polarities and any time; a silence costs a byte
    for every 127 us.

    Without ``size`` the largest addresses give the sensor size the header needs.

    Raises:
        EventError: a polarity does not fit, or the silences would take more than 64 MiB.
    """
    as_events(events, sensor_size=(2, 65536, 65536), source=str(path))
    if size is None:
        size = (int(events["y"].max()) + 1, int(events["x"].max()) + 1) if events.size else (1, 1)
    if max(size) > 0xFFFF:
        raise EventError(
            f"{path}: a sensor of {size[1]} x {size[0]} pixels; .es files state sides up to 65535.",
            remedy="crop the recording or write .npz.",
            code="event-outside-sensor",
        )
    gap = np.diff(events["t"], prepend=0)
    waits = gap // 127
    if waits.sum() > _MAX_OVERFLOW_BYTES:
        raise EventError(
            f"{path}: the recording ends at {int(events['t'][-1])} us; .es spends a byte on every 127 us without "
            "an event, which would be more than 64 MiB here.",
            remedy="subtract the start time of the recording, or write .npz.",
            code="event-time-range",
        )
    at = np.cumsum(waits + 1 + _TAIL) - (1 + _TAIL)
    data: NDArray[Any] = np.full(int(at[-1]) + 1 + _TAIL if events.size else 0, 0xFF, np.uint8)
    data[at] = ((gap % 127) << 1) | events["p"]
    for offset, column in ((1, events["x"]), (3, events["y"])):
        data[at + offset], data[at + offset + 1] = column & 0xFF, column >> 8
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(_SIGNATURE + bytes([2, 0, 0, 1]) + struct.pack("<HH", size[1], size[0]))
        handle.write(data.tobytes())
