"""The text header of Prophesee files: lines of the form ``% key value``."""

import re
from typing import BinaryIO

from neurodeploy.events.stream import EventFile


def read_percent_header(file: EventFile, handle: BinaryIO) -> dict[str, str]:
    """Read the ``% key value`` lines (keys in lower case) and note the sensor size they state.

    The size is in ``% geometry WxH``, ``% format EVT3;height=H;width=W`` (docs.prophesee.ai, "RAW file format") or, in
    DAT files, ``% Height H`` and ``% Width W``.
    """
    fields: dict[str, str] = {}
    for line in file.header_lines(handle, b"%", ends=("% end",)):
        key, _, value = line[1:].strip().partition(" ")
        fields[key.lower()] = value.strip()
    width = height = None
    if found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", fields.get("geometry", "")):
        width, height = int(found[1]), int(found[2])
    else:
        options = dict(part.split("=", 1) for part in fields.get("format", "").lower().split(";") if "=" in part)
        texts = (options.get("width", fields.get("width", "")), options.get("height", fields.get("height", "")))
        if all(re.fullmatch(r"\d{1,5}", text) for text in texts):
            width, height = int(texts[0]), int(texts[1])
    if width and height:
        file.size = (height, width)
    return fields


def start_time_us(file: EventFile, fields: dict[str, str]) -> int:
    """The ``% t0`` line (written by faery): microseconds to add to every time of the file."""
    text = fields.get("t0", "0")
    if not re.fullmatch(r"\d{1,18}", text):
        raise file.damaged(f"the header line '% t0 {text[:40]}' is no time in microseconds")
    return int(text)


def raw_header(version: str, name: str, size: tuple[int, int] | None) -> bytes:
    """The header of a .raw file; ``size`` is ``(height, width)``, left out when unknown."""
    options = f";height={size[0]};width={size[1]}" if size else ""
    geometry = f"% geometry {size[1]}x{size[0]}\n" if size else ""
    return f"% evt {version}\n% format {name}{options}\n{geometry}% end\n".encode("ascii")
