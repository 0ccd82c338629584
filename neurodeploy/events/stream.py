"""What all readers of event files share: the open recording, its blocks, and the errors."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EVENT_DTYPE, EventArray

#: Records decoded at a time. Their temporaries stay in the cache, and memory stays small whatever the file's size.
BLOCK_RECORDS = 1 << 16
_HEADER_BYTES = 1 << 20


@dataclass
class EventFile:
    """A recording that is being read.

    Attributes:
        path: the file.
        asked_size: the sensor size the caller gave, ``(channels, height, width)``.
        size: ``(height, width)`` as the header states it, when it does.
        skipped: what was not an event of a pixel (triggers, frames, invalid events), counted while reading.
        header: further facts of the header worth showing.
    """

    path: Path
    asked_size: tuple[int, int, int] | None = None
    size: tuple[int, int] | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    header: dict[str, str | int] = field(default_factory=dict)

    def skip(self, what: str, count: Any) -> None:
        """Count ``count`` things that are no events."""
        if count:
            self.skipped[what] += int(count)

    def damaged(self, what: str) -> EventError:
        """The error for content that breaks the format's rules."""
        return EventError(
            f"{self.path}: {what}.",
            remedy="the file is damaged or of another format: copy it again, or name the format explicitly.",
            code="event-file-damaged",
        )

    def truncated(self, what: str) -> EventError:
        """The error for a file that ends too early."""
        return EventError(
            f"{self.path}: the file ends too early: {what}.",
            remedy="copy the file again; it is cut off or not a recording of this format.",
            code="event-file-truncated",
        )

    def unsupported(self, what: str, remedy: str) -> EventError:
        """The error for a valid file of a kind that is not read."""
        return EventError(f"{self.path}: {what}.", remedy=remedy, code="event-file-unsupported")

    def open(self) -> BinaryIO:
        """Open the file for reading; an ``EventError`` when that fails."""
        try:
            return self.path.open("rb")
        except OSError as error:
            what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
            raise EventError(f"{self.path}: {what}.", remedy="check the path.", code="file-missing") from error

    def records(self, handle: BinaryIO, dtype: Any) -> Iterator[NDArray[Any]]:
        """The rest of the file as arrays of fixed-size records, a block at a time."""
        size = np.dtype(dtype).itemsize
        while data := handle.read(BLOCK_RECORDS * size):
            if len(data) % size:
                raise self.truncated(f"after whole records of {size} bytes, {len(data) % size} bytes are left")
            yield np.frombuffer(data, dtype)

    def header_lines(self, handle: BinaryIO, mark: bytes, *, ends: tuple[str, ...] = ()) -> list[str]:
        """Header lines: printable text that begins with ``mark``; ``handle`` is left at the first byte after them.

        A line that contains one of ``ends`` is the last one.
        """
        lines: list[str] = []
        total = 0
        while True:
            start = handle.tell()
            line = handle.readline(_HEADER_BYTES)
            text = _printable(line.rstrip(b"\r\n"))
            if not line.startswith(mark) or not line.endswith(b"\n") or text is None:
                handle.seek(start)
                return lines
            total += len(line)
            if total > _HEADER_BYTES:
                raise self.damaged(f"the text header is longer than {_HEADER_BYTES} bytes")
            lines.append(text)
            if any(end in lines[-1] for end in ends):
                return lines


def _printable(line: bytes) -> str | None:
    """The text of a line; ``None`` when it is binary data that happens to begin like a header line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(character >= " " or character == "\t" for character in text) else None


def event_columns(t: ArrayLike, x: ArrayLike, y: ArrayLike, p: ArrayLike) -> EventArray:
    """Join columns whose values are known to fit into an event array."""
    t = np.asarray(t)
    events = np.empty(t.shape, EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    return events


def latest(table: NDArray[Any], initial: Any, seen: NDArray[np.bool_]) -> NDArray[Any]:
    """For each word the latest of ``table``, whose values belong to the words ``seen`` marks; ``initial`` before."""
    values = np.empty(table.size + 1, table.dtype)
    values[0], values[1:] = initial, table
    return values[np.cumsum(seen)]
