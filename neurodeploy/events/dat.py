"""Prophesee .dat files: a text header, two bytes (event type, event size), 8-byte little-endian records.

Record (docs.prophesee.ai, "DAT file format")::

    bytes 0-3: time in us, 32 bit, starts over after 71.6 min
    bytes 4-7: bits 0-13 x, bits 14-27 y, bits 28-31 polarity

The event type is 0x00 ("2d", written by older software) or 0x0C ("CD"); the records are the same.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.clock import WrappingClock, require_carried
from neurodeploy.events.percent_header import read_percent_header
from neurodeploy.events.stream import EventFile, event_columns
from neurodeploy.files import replacing

_TYPES = {0x00: "2d", 0x0C: "CD"}
_RECORD = np.dtype([("t", "<u4"), ("address", "<u4")])
_COORDINATES = 1 << 14


def read_dat(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of a .dat file in blocks."""
    with file.open() as handle:
        fields = read_percent_header(file, handle)
        version = fields.get("version", "")
        if version != "2":
            raise file.unsupported(
                f"the header has no line '% Version 2' (found: version {version[:20]!r})",
                "convert the file with the vendor's tools, or save the events as .csv or .npz.",
            )
        kind = handle.read(2)
        if len(kind) < 2:
            raise file.truncated("no event type after the header")
        if kind[0] not in _TYPES or kind[1] != _RECORD.itemsize:
            raise file.unsupported(
                f"event type 0x{kind[0]:02X} of {kind[1]} bytes is not a pixel's event (0x00 or 0x0C, 8 bytes)",
                "give the file with the CD events (its name often ends in _td.dat).",
            )
        file.header["event type"] = _TYPES[kind[0]]
        clock = WrappingClock(32)
        for block in file.records(handle, _RECORD):
            address = block["address"]
            t = clock.unwrap(block["t"].astype(np.int64))
            yield event_columns(t, address & 0x3FFF, (address >> 14) & 0x3FFF, address >> 28)


def write_dat(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write a .dat file ("CD" form). Carries 14-bit addresses, 4-bit channels and 32-bit times that start over.

    Raises:
        EventError: an address, channel or time does not fit.
    """
    as_events(events, sensor_size=(16, _COORDINATES, _COORDINATES), source=str(path))
    require_carried(path, events, 32, ".dat")
    block = np.empty(events.size, _RECORD)
    block["t"] = events["t"] & 0xFFFFFFFF
    block["address"] = events["x"] | (events["y"].astype(np.uint32) << 14) | (events["p"].astype(np.uint32) << 28)
    geometry = f"% Height {size[0]}\n% Width {size[1]}\n" if size else ""
    header = f"% Data file containing CD events\n% Version 2\n{geometry}"
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(header.encode("ascii") + bytes([0x0C, _RECORD.itemsize]))
        handle.write(block.tobytes())
