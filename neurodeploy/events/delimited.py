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
_SEPARATORS = b",; \t\r\n"


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

    digit = (text - np.uint8(48)) < 10
    solid = digit | (text == ord("-")) | (text == ord("."))
    strange = np.flatnonzero(~solid & ~np.isin(text, np.frombuffer(_SEPARATORS, np.uint8)))
    if strange.size:
        raise file.damaged(f"{where(strange[0])} holds the character {chr(text[strange[0]])!r}, numbers are expected")
    edge = np.diff(solid.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    start, end = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    newline = np.flatnonzero(text == 10)
    per_line = np.diff(np.searchsorted(start, newline), prepend=0)
    wrong = np.flatnonzero((per_line != 0) & (per_line != layout.width))
    if wrong.size:
        raise file.damaged(
            f"line {line + int(wrong[0])} has {per_line[wrong[0]]} numbers, {layout.width} are expected on each line"
        )
    starts, ends = start.reshape(-1, layout.width), end.reshape(-1, layout.width)
    events = np.empty(len(starts), _LOOSE)
    for name, column in layout.columns.items():
        first, last = starts[:, column].copy(), ends[:, column]
        negative = text[first] == ord("-")
        first += negative
        dots = _dots(text, first, last)
        if name == "t" and layout.seconds is None and len(dots):
            layout.seconds = bool(dots[0] >= 0)
            file.header["time unit"] = "s" if layout.seconds else "us"
        if name == "t" and layout.seconds:
            whole_end = np.where(dots >= 0, dots, last)
            value = _number(text, digit, first, whole_end) * 1_000_000
            fraction_start = np.where(dots >= 0, dots + 1, last)
            kept = np.minimum(last - fraction_start, 6)
            value += _number(text, digit, fraction_start, fraction_start + kept) * 10 ** (6 - kept)
            good = _count(digit, first, last) == (last - first) - (dots >= 0)
            good &= (whole_end - first <= 12) & (last > first + (dots >= 0))
        else:
            value = _number(text, digit, first, last)
            good = (_count(digit, first, last) == last - first) & (last - first <= 18) & (last > first)
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            word = bytes(text[starts[bad, column] : min(int(last[bad]), int(starts[bad, column]) + 40)]).decode(
                "latin-1"
            )
            kind = "a time in seconds" if name == "t" and layout.seconds else "an integer of up to 18 digits"
            raise file.damaged(f"{where(int(first[bad]))}: {name} = {word!r} is not {kind}")
        events[name] = np.where(negative, -value, value)
    events["p"][events["p"] == -1] = 0
    return events


def _dots(text: NDArray[np.uint8], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of the first decimal point of each number, or -1."""
    dots = np.append(np.flatnonzero(text == ord(".")), text.size + 1)
    found = dots[np.searchsorted(dots, first)]
    return np.where(found < last, found, -1)


def _count(digit: NDArray[np.bool_], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Digits of each number."""
    running = np.concatenate([[0], np.cumsum(digit)])
    counted: NDArray[np.int64] = running[last] - running[first]
    return counted


def _number(
    text: NDArray[np.uint8], digit: NDArray[np.bool_], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Value of the decimal digits ``text[first:last]`` of each number (at most 18 of them count)."""
    length = np.minimum(last - first, 18)
    value = np.zeros(first.size, np.int64)
    for k in range(int(length.max(initial=0))):
        here = k < length
        at = np.where(here, first + k, 0)
        value = np.where(here, value * 10 + (text[at].astype(np.int64) - 48) * digit[at], value)
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
