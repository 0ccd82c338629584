"""AEDAT 3.1 of cAER and jAER (.aedat): a text header, then packets of events, little-endian.

Packet header (docs.inivation.com, "AEDAT 3.1"; libcaer ``events/common.h``), 28 bytes::

    i16 type, i16 source, i32 event size, i32 offset of the time stamp, i32 time overflow,
    i32 capacity, i32 number, i32 valid

Polarity events have type 1 and 8 bytes: bit 0 valid, bit 1 polarity, bits 2-16 y, bits 17-31 x, then 31 bits of time in
us; the packet's time overflow holds the bits above. Packets of other types and events not marked valid are skipped and
counted. DVS128 Gesture (research.ibm.com/dvsgesture) is in this format.
"""

import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.clock import require_carried
from neurodeploy.events.stream import BLOCK_RECORDS, EventFile, event_columns
from neurodeploy.files import replacing

_HEADER = struct.Struct("<hhiiiiii")
_POLARITY = 1
_NAMES = {0: "special", 2: "frame", 3: "IMU", 4: "IMU", 5: "sample", 6: "ear", 7: "configuration", 12: "spike"}
_RECORD = np.dtype([("data", "<u4"), ("t", "<u4")])
_PACKET = 8192
_COORDINATES = 1 << 15
_SIZES = {"DVS128": (128, 128), "DAVIS240": (180, 240), "DAVIS346": (260, 346), "DAVIS640": (480, 640)}


def read_aedat3(file: EventFile) -> Iterator[EventArray]:
    """Yield the polarity events of an AEDAT 3.1 file in blocks."""
    with file.open() as handle:
        lines = file.header_lines(handle, b"#", ends=("#!END-HEADER",))
        if not lines or not lines[0].startswith("#!AER-DAT3"):
            raise file.damaged("the first line is not '#!AER-DAT3.1'")
        if not lines[-1].startswith("#!END-HEADER"):
            raise file.damaged("the header has no line '#!END-HEADER'")
        encoding = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("#Format:")), "RAW")
        if encoding != "RAW":
            raise file.unsupported(
                f"the packets are in the format {encoding[:40]!r}, not RAW",
                "save the recording again with the format RAW, or convert it to AEDAT 4 with DV.",
            )
        camera = next((found[1].strip() for line in lines if (found := re.match(r"#Source \d+:(.*)", line))), "")
        file.header["camera"] = camera[:40]
        file.size = next((size for name, size in _SIZES.items() if camera.upper().startswith(name)), None)
        end = file.path.stat().st_size
        source_seen: int | None = None
        while head := handle.read(_HEADER.size):
            if len(head) < _HEADER.size:
                raise file.truncated(f"the last packet header has {len(head)} of {_HEADER.size} bytes")
            kind, source, size, offset, overflow, _, number, _ = _HEADER.unpack(head)
            if size < 1 or number < 0 or kind < 0 or overflow < 0:
                raise file.damaged(f"a packet states type {kind}, {number} events of {size} bytes, overflow {overflow}")
            if size * number > end - handle.tell():
                raise file.truncated(f"a packet states {number} events of {size} bytes, {end - handle.tell()} are left")
            if kind != _POLARITY:
                file.skip(f"{_NAMES.get(kind, f'type {kind}')} events", number)
                handle.seek(size * number, 1)
                continue
            if size != _RECORD.itemsize or offset != 4:
                raise file.damaged(f"polarity events have {size} bytes, the time at byte {offset}; 8 and 4 are right")
            if source_seen not in (None, source):
                raise file.unsupported("events of several cameras", "write one file for each camera.")
            source_seen = source
            for first in range(0, number, BLOCK_RECORDS):
                count = min(BLOCK_RECORDS, number - first)
                yield _decode(file, handle.read(count * _RECORD.itemsize), overflow)


def _decode(file: EventFile, payload: bytes, overflow: int) -> EventArray:
    if len(payload) % _RECORD.itemsize:
        raise file.truncated("a packet is cut off")
    block = np.frombuffer(payload, _RECORD)
    valid = block["data"] & 1 == 1
    file.skip("events marked invalid", block.size - np.count_nonzero(valid))
    block = block[valid]
    if np.any(block["t"] >> 31):
        raise file.damaged("a time stamp is negative")
    data = block["data"]
    t = block["t"].astype(np.int64) + (overflow << 31)
    return event_columns(t, data >> 17, (data >> 2) & 0x7FFF, (data >> 1) & 1)


def write_aedat3(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write an AEDAT 3.1 file. Carries 15-bit addresses, two polarities and times of 62 bits.

    The header names the camera when ``size`` is that of a DVS128, DAVIS240, DAVIS346 or DAVIS640.

    Raises:
        EventError: an address, polarity or time does not fit.
    """
    as_events(events, sensor_size=(2, _COORDINATES, _COORDINATES), source=str(path))
    overflow = events["t"] >> 31
    if events.size and int(overflow[-1]) >> 31:
        require_carried(path, events, 62, "AEDAT 3.1")
    x, y, p = (events[name].astype(np.uint32) for name in ("x", "y", "p"))
    block = np.empty(events.size, _RECORD)
    block["data"] = (x << 17) | (y << 2) | (p << 1) | 1
    block["t"] = events["t"] & 0x7FFFFFFF
    # A packet has one overflow count: a new one starts wherever it changes.
    turns = np.flatnonzero(np.diff(overflow)) + 1
    starts = np.unique(np.concatenate([np.arange(0, events.size, _PACKET), turns])).astype(np.int64)
    camera = next((name for name, known in _SIZES.items() if known == size), "neurodeploy")
    header = f"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: {camera}\r\n#!END-HEADER\r\n"
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(header.encode("ascii"))
        for first, last in pairwise([*starts, events.size]):
            number = int(last - first)
            handle.write(_HEADER.pack(_POLARITY, 1, 8, 4, int(overflow[first]), number, number, number))
            handle.write(block[first:last].tobytes())
