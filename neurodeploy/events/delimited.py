"""Text files with one event a line (.csv, .txt).

The columns are separated by commas, semicolons, tabs or blanks. A first line with names says which is which
(``t, x, y, p`` in any order, or ``timestamp``, ``polarity``, ``on``, ...; further columns are ignored); without it they
are ``t, x, y, p``. Times are integer microseconds, or, when the first has a decimal point, seconds (digits beyond the
microsecond are cut off). Polarity -1 is read as 0 (OFF). Lines that begin with ``#`` are left out, anywhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.stream import EventFile
from neurodeploy.files import replacing

_BLOCK = 1 << 19
_LINE = 4096
_NAMES = {
    "t": "t", "timestamp": "t", "timestamps": "t", "ts": "t", "time": "t", "t_us": "t", "x": "x", "y": "y",
    "p": "p", "pol": "p", "polarity": "p", "on": "p", "is_increase": "p",
}  # fmt: skip
_LOOSE = np.dtype([("t", "<i8"), ("x", "<i8"), ("y", "<i8"), ("p", "<i8")])
_STRANGE, _SEPARATOR, _DIGIT, _SIGN = range(4)
_KIND = np.zeros(256, np.uint8)
_KIND[np.frombuffer(b",; \t\r\n", np.uint8)] = _SEPARATOR
_KIND[np.frombuffer(b"0123456789", np.uint8)] = _DIGIT
_KIND[np.frombuffer(b"-.", np.uint8)] = _SIGN


@dataclass
class _Layout:
    columns: dict[str, int]
    width: int
    seconds: bool | None = None


def read_delimited(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of a text file in blocks (as a structured array of 64-bit columns)."""
    with file.open() as handle:
        layout: _Layout | None = None
        line, carry = 1, b""
        while data := handle.read(_BLOCK):
            data = carry + data
            cut = data.rfind(b"\n") + 1
            data, carry = data[:cut], data[cut:]
            if len(carry) > _LINE:
                number = line + data.count(b"\n")
                raise file.damaged(f"line {number} is longer than {_LINE} bytes")
            if data:
                layout, events = _block(file, data, layout, line)
                line += data.count(b"\n")
                yield events
        if carry:
            layout, events = _block(file, carry + b"\n", layout, line)
            yield events


def _block(file: EventFile, data: bytes, layout: _Layout | None, line: int) -> tuple[_Layout | None, EventArray]:
    if b"#" in data:
        data = re.sub(rb"(?m)^[ \t]*#[^\n]*", b"", data)
    if layout is None:
        found = re.search(rb"[^\s][^\n]*", data)
        if not found:
            return None, np.empty(0, _LOOSE)
        layout, is_header = _layout(file, found[0][:_LINE].decode("latin-1").strip(), line)
        if is_header:
            data = data[: found.start()] + data[found.end() :]
    return layout, _parse(file, np.frombuffer(data, np.uint8), layout, line)


def _layout(file: EventFile, text: str, line: int) -> tuple[_Layout, bool]:
    words = [word.strip("\"'").lower() for word in re.split(r"[,;\s]+", text) if word]
    if not any(re.match("[a-z]", word) for word in words):
        if len(words) != 4:
            raise file.damaged(f"line {line} has {len(words)} columns; without a line of names four are expected")
        file.header["columns"] = "t, x, y, p (no names in the file)"
        return _Layout({name: column for column, name in enumerate("txyp")}, 4), False
    columns = {_NAMES[word]: column for column, word in reversed(list(enumerate(words))) if word in _NAMES}
    missing = [name for name in "txyp" if name not in columns]
    if missing:
        raise file.damaged(f"line {line} names the columns {text[:80]!r}; missing: {', '.join(missing)}")
    file.header["columns"] = ", ".join(words)[:80]
    return _Layout(columns, len(words)), True


def _parse(file: EventFile, text: NDArray[np.uint8], layout: _Layout, line: int) -> EventArray:
    def where(position: int) -> str:
        return f"line {line + int(np.count_nonzero(text[:position] == 10))}"

    kind = _KIND[text]
    solid = kind >= _DIGIT
    strange = np.flatnonzero(kind == _STRANGE)
    if strange.size:
        raise file.damaged(f"{where(strange[0])} holds the character {chr(text[strange[0]])!r}, numbers are expected")
    edge = np.flatnonzero(np.diff(solid, prepend=False, append=False))
    start, end = edge[::2], edge[1::2]
    newline = np.flatnonzero(text == 10)
    per_line = np.diff(np.searchsorted(start, newline), prepend=0)
    wrong = np.flatnonzero((per_line != 0) & (per_line != layout.width))
    if wrong.size:
        raise file.damaged(
            f"line {line + int(wrong[0])} has {per_line[wrong[0]]} numbers, {layout.width} are expected on each line"
        )
    starts, ends = start.reshape(-1, layout.width), end.reshape(-1, layout.width)
    signs = np.flatnonzero(kind == _SIGN)
    events = np.empty(len(starts), _LOOSE)
    for name, column in layout.columns.items():
        first, last = starts[:, column].copy(), ends[:, column]
        negative = text[first] == ord("-")
        first += negative
        # Signs and points inside the number: none is right, or one point in seconds.
        inside = np.searchsorted(signs, last) - np.searchsorted(signs, first)
        if name == "t" and layout.seconds is None and len(inside):
            layout.seconds = bool(inside[0])
            file.header["time unit"] = "s" if layout.seconds else "us"
        if name == "t" and layout.seconds:
            what = "a time in seconds"
            value, good = _microseconds(text, first, last, inside)
        else:
            what = "an integer of up to 18 digits"
            value, good = _number(text, first, last), (inside == 0) & (last - first <= 18) & (last > first)
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            word = text[starts[bad, column] : last[bad]][:40].tobytes().decode("ascii")
            raise file.damaged(f"{where(int(first[bad]))}: {name} = {word!r} is not {what}")
        events[name] = np.where(negative, -value, value)
    events["p"][events["p"] == -1] = 0
    return events


def _microseconds(
    text: NDArray[np.uint8], first: NDArray[np.int64], last: NDArray[np.int64], inside: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Decimal seconds as microseconds, cut off, and which of them are numbers of up to 12 digits before the point."""
    points = np.append(np.flatnonzero(text == ord(".")), text.size)
    point = np.minimum(points[np.searchsorted(points, first)], last)  # without a point: the end
    fraction = np.minimum(point + 1, last)
    kept = np.minimum(last - fraction, 6)
    value = _number(text, first, point) * 1_000_000 + _number(text, fraction, fraction + kept) * 10 ** (6 - kept)
    has_point = point < last
    return value, (inside == has_point) & (point - first <= 12) & (last - first > has_point)


def _number(text: NDArray[np.uint8], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Value of the digits ``text[first:last]`` of each number, from the right; at most 18 count."""
    length = np.minimum(last - first, 18)
    value = np.zeros(first.size, np.int64)
    for k in range(int(length.max(initial=0))):
        longer = np.flatnonzero(length > k)
        value[longer] += (text[first[longer] + length[longer] - 1 - k].astype(np.int64) - 48) * 10**k
    return value


def write_delimited(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write a text file with the line of names ``t,x,y,p``. Carries every recording.

    Raises:
        EventError: malformed events.
    """
    as_events(events, source=str(path))
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as handle:
        handle.write("t,x,y,p\n")
        for first in range(0, events.size, 1 << 16):
            rows = events[first : first + (1 << 16)].tolist()
            handle.writelines(f"{t},{x},{y},{p}\n" for t, x, y, p in rows)
