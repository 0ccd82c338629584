"""AEDAT 2.0 of jAER (.aedat): a text header, then big-endian pairs of 32-bit address and 32-bit time in us.

How an address is read depends on the chip (docs.inivation.com, "AEDAT 2.0")::

    DVS128   bits 1-7 x, bits 8-14 y, bit 0 polarity (1 = ON); bit 15: external event
    DAVIS    bits 12-21 x, bits 22-30 y, bit 11 polarity (1 = ON); bit 10: external event or IMU, bit 31: frame

External events, IMU samples and frames are skipped and counted. Addresses stay as they are stored: y counts from the
lower edge of the picture in these files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.clock import WrappingClock, require_carried
from neurodeploy.events.stream import EventFile, event_columns
from neurodeploy.files import replacing

_RECORD = np.dtype([("address", ">u4"), ("t", ">u4")])


@dataclass(frozen=True)
class _Chip:
    name: str
    size: tuple[int, int]  # height, width
    x_shift: int
    y_shift: int
    p_shift: int
    x_mask: int
    y_mask: int
    special: int  # bits that mark something other than a pixel's event
    unused: int  # bits that are never set


def _davis(name: str, height: int, width: int) -> _Chip:
    # Bits 0-9 of a DAVIS address hold ADC samples for frames; the special bits come first.
    return _Chip(name, (height, width), 12, 22, 11, 0x3FF, 0x1FF, 0x80000400, 0)


_CHIPS = (
    _Chip("DVS128", (128, 128), 1, 8, 0, 0x7F, 0x7F, 0x8000, 0xFFFF0000),
    _davis("DAVIS128", 128, 128),
    _davis("DAVIS208", 192, 208),
    _davis("DAVIS240", 180, 240),
    _davis("DAVIS346", 260, 346),
    _davis("DAVIS640", 480, 640),
)


def read_aedat2(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an AEDAT 2.0 file in blocks.

    Raises:
        EventError: also when the header names no chip (``# AEChip:``) and the caller gave no sensor size to tell it by.
    """
    with file.open() as handle:
        lines = file.header_lines(handle, b"#", ends=("End Of ASCII Header", "End of ASCII Header"))
        if not lines or not lines[0].startswith("#!AER-DAT2"):
            raise file.damaged("the first line is not '#!AER-DAT2.0'")
        chip = _chip(file, lines)
        file.size, file.header["chip"] = chip.size, chip.name
        clock = WrappingClock(32)
        for block in file.records(handle, _RECORD):
            address = block["address"].astype(np.int64)
            special = address & chip.special != 0
            if np.any(address[~special] & chip.unused):
                raise file.damaged(f"an address has bits that a {chip.name} does not use")
            t = clock.unwrap(block["t"].astype(np.int64))
            file.skip("external events, IMU and frame samples", np.count_nonzero(special))
            address, t = address[~special], t[~special]
            x, y = (address >> chip.x_shift) & chip.x_mask, (address >> chip.y_shift) & chip.y_mask
            yield event_columns(t, x, y, (address >> chip.p_shift) & 1)


def _chip(file: EventFile, lines: list[str]) -> _Chip:
    named = next((line.split("AEChip:", 1)[1].strip() for line in lines if "AEChip:" in line), "")
    for chip in _CHIPS:
        if re.search(chip.name, named, re.IGNORECASE):
            return chip
    if not named and file.asked_size:
        for chip in _CHIPS:
            if file.asked_size[1:] == chip.size:
                return chip
    sizes = ", ".join(f"(2, {chip.size[0]}, {chip.size[1]}) for {chip.name}" for chip in _CHIPS if chip.name[1] != "A")
    sizes += ", (2, 180, 240) for DAVIS240, (2, 260, 346) for DAVIS346"
    raise file.unsupported(
        f"the header names {'no chip' if not named else f'the chip {named[:80]!r}'}, so its addresses cannot be read",
        f"give the sensor size when the header names none: {sizes}; other chips: convert the file with jAER or DV.",
    )


def write_aedat2(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write an AEDAT 2.0 file for the chip of that size, or the smallest of DVS128, DAVIS240, 346, 640 that fits.

    Carries the chip's addresses, two polarities and 32-bit times that start over.

    Raises:
        EventError: an address, polarity or time does not fit.
    """
    chips = [chip for chip in _CHIPS if size in (None, chip.size)]
    if not chips:
        raise EventError(
            f"{path}: AEDAT 2.0 holds recordings of known chips only; none of them has {size} rows and columns.",
            remedy=f"give one of the sizes {', '.join(str(chip.size) for chip in _CHIPS)}, or write .aedat (3.1).",
            code="event-outside-sensor",
        )
    height = int(events["y"].max()) + 1 if events.size else 1
    width = int(events["x"].max()) + 1 if events.size else 1
    chip = next((chip for chip in chips if height <= chip.size[0] and width <= chip.size[1]), chips[-1])
    as_events(events, sensor_size=(2, *chip.size), source=str(path))
    require_carried(path, events, 32, "AEDAT 2.0")
    block = np.empty(events.size, _RECORD)
    x, y, p = (events[name].astype(np.uint32) for name in ("x", "y", "p"))
    block["address"] = (x << chip.x_shift) | (y << chip.y_shift) | (p << chip.p_shift)
    block["t"] = events["t"] & 0xFFFFFFFF
    lines = ("#!AER-DAT2.0", "# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event",
             "# Timestamps tick is 1 us", f"# AEChip: {chip.name}", "# End Of ASCII Header")  # fmt: skip
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write("".join(line + "\r\n" for line in lines).encode("ascii"))
        handle.write(block.tobytes())
