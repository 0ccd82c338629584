"""One recording from or to a file; the extension (and for .raw and .aedat the header) names the format."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurodeploy.errors import EventError
from neurodeploy.events.aedat2 import read_aedat2, write_aedat2
from neurodeploy.events.aedat3 import read_aedat3, write_aedat3
from neurodeploy.events.aedat4 import read_aedat4
from neurodeploy.events.array import EVENT_DTYPE, EventArray, as_events
from neurodeploy.events.dat import read_dat, write_dat
from neurodeploy.events.dataset import check_sensor_size, read_recording_npz, write_recording_npz
from neurodeploy.events.delimited import read_delimited, write_delimited
from neurodeploy.events.event_stream import read_event_stream, write_event_stream
from neurodeploy.events.evt2 import read_evt2, write_evt2
from neurodeploy.events.evt3 import read_evt3, write_evt3
from neurodeploy.events.hdf5 import read_hdf5, write_hdf5
from neurodeploy.events.nmnist import read_bin, write_nmnist_bin
from neurodeploy.events.stream import EventFile

SensorSize = tuple[int, int, int]


@dataclass(frozen=True)
class Format:
    """A file format of recordings.

    Attributes:
        name: what ``format=`` takes.
        title: for people.
        suffixes: extensions it is written under; the longest match wins.
        read: yields blocks of events.
        write: writes a whole recording (path, events, (height, width) or None); ``None``: read only.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    read: Callable[[EventFile], Iterator[EventArray]]
    write: Callable[[Path, EventArray, tuple[int, int] | None], None] | None


def _read_npz(file: EventFile) -> Iterator[EventArray]:
    yield read_recording_npz(file.path)


def _write_npz(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    channels = max(2, int(events["p"].max(initial=0)) + 1)
    write_recording_npz(path, events, sensor_size=None if size is None else (channels, *size))


def _write_bin(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    write_nmnist_bin(path, events)


FORMATS = {
    format.name: format
    for format in (
        Format("npz", "numpy archive", (".npz",), _read_npz, _write_npz),
        Format("csv", "text, one event a line", (".csv", ".txt"), read_delimited, write_delimited),
        Format("bin", "N-MNIST", (".bin",), read_bin, _write_bin),
        Format("dat", "Prophesee DAT", (".dat",), read_dat, write_dat),
        Format("evt2", "Prophesee EVT 2.0", (".evt2.raw", ".evt2"), read_evt2, write_evt2),
        Format("evt3", "Prophesee EVT 3.0", (".evt3.raw", ".evt3", ".raw"), read_evt3, write_evt3),
        Format("es", "Event Stream", (".es",), read_event_stream, write_event_stream),
        Format("aedat2", "AEDAT 2.0 (jAER)", (".aedat2",), read_aedat2, write_aedat2),
        Format("aedat3", "AEDAT 3.1 (cAER, DVS128 Gesture)", (".aedat", ".aedat3"), read_aedat3, write_aedat3),
        Format("aedat4", "AEDAT 4 (DV)", (".aedat4",), read_aedat4, None),
        Format("hdf5", "HDF5 (DSEC)", (".h5", ".hdf5"), read_hdf5, write_hdf5),
    )
}


def read_events(
    path: str | Path,
    *,
    sensor_size: SensorSize | None = None,
    format: str | None = None,
    sort: bool = False,
) -> EventArray:
    """Read one recording.

    Args:
        path: the file; see the table in ``neurodeploy/events/README.md`` for the formats.
        sensor_size: ``(channels, height, width)``; when given, events outside it are refused. Without it the size that
            the file states, if any, is the bound.
        format: a name of ``FORMATS``, when the extension does not tell.
        sort: put unsorted events in order of time (stable) instead of refusing them.

    Raises:
        EventError: unknown format, no such file, damage of any kind, unsorted events, events outside the sensor.
    """
    file, chosen = open_recording(path, sensor_size=sensor_size, format=format)
    if not sort:
        pieces = list(checked_pieces(file, chosen))
        return np.concatenate(pieces) if pieces else np.empty(0, EVENT_DTYPE)
    loose = list(chosen.read(file))
    if not loose:
        return np.empty(0, EVENT_DTYPE)
    joined = np.concatenate(loose)
    return as_events(joined[np.argsort(joined["t"], kind="stable")], sensor_size=_bounds(file), source=str(file.path))


def iter_events(
    path: str | Path,
    *,
    chunk_events: int = 1 << 20,
    sensor_size: SensorSize | None = None,
    format: str | None = None,
) -> Iterator[EventArray]:
    """Read one recording piece by piece, in memory that does not grow with the file (except for .npz).

    Args:
        path: the file.
        chunk_events: events in each piece; the last may be shorter. No piece is empty.
        sensor_size: as for ``read_events``.
        format: as for ``read_events``.

    Raises:
        EventError: as for ``read_events``; what concerns the content is raised when the iteration gets there.
    """
    if chunk_events < 1:
        raise EventError(f"chunk_events is {chunk_events}.", remedy="give a number of at least 1.", code="event-chunk")
    file, chosen = open_recording(path, sensor_size=sensor_size, format=format)
    return _rechunk(checked_pieces(file, chosen), chunk_events)


def write_events(
    path: str | Path, events: EventArray, *, sensor_size: SensorSize | None = None, format: str | None = None
) -> None:
    """Write one recording, all or nothing; what is written reads back equal.

    Args:
        path: the file. ``.raw`` is EVT 3.0, ``.evt2.raw`` EVT 2.0, ``.aedat`` AEDAT 3.1, ``.aedat2`` AEDAT 2.0.
        events: structured array with ``t, x, y, p``.
        sensor_size: ``(channels, height, width)``; checked, and stored where the format has a place for it.
        format: a name of ``FORMATS``, when the extension does not tell.

    Raises:
        EventError: unknown format, malformed events, or events that the format cannot hold.
    """
    path = Path(path)
    if sensor_size is not None:
        sensor_size = check_sensor_size(sensor_size, str(path))
    events = as_events(events, sensor_size=sensor_size, source=str(path))
    chosen = _named(path, format) or _by_suffix(path)
    if chosen is None:
        raise _unknown(path)
    if chosen.write is None:
        raise EventError(
            f"{path}: {chosen.title} is read, not written.",
            remedy="write .npz, .csv, .dat, .raw, .es, .aedat or .h5.",
            code="event-format",
        )
    if chosen.name == "npz":
        write_recording_npz(path, events, sensor_size=sensor_size)
    else:
        chosen.write(path, events, None if sensor_size is None else sensor_size[1:])


def open_recording(
    path: str | Path, *, sensor_size: SensorSize | None = None, format: str | None = None
) -> tuple[EventFile, Format]:
    """Find out a file's format; nothing but its header is read yet.

    Raises:
        EventError: unknown format or no such file.
    """
    path = Path(path)
    if sensor_size is not None:
        sensor_size = check_sensor_size(sensor_size, str(path))
    chosen = _named(path, format)
    if chosen is None and path.suffix.lower() in (".raw", ".aedat") and path.is_file():
        chosen = _by_header(path)
    chosen = chosen or _by_suffix(path)
    if chosen is None:
        raise _unknown(path)
    if not path.is_file():
        raise EventError(f"{path}: no such file.", remedy="check the path.", code="file-missing")
    return EventFile(path, asked_size=sensor_size), chosen


def checked_pieces(file: EventFile, chosen: Format) -> Iterator[EventArray]:
    """The blocks of a recording, each checked, and in order of time from one to the next."""
    last, count = np.iinfo(np.int64).min, 0
    for piece in chosen.read(file):
        if not piece.size:
            continue
        backwards = np.flatnonzero(piece["t"][1:] < piece["t"][:-1])
        first = 0 if int(piece["t"][0]) < last else int(backwards[0]) + 1 if backwards.size else None
        if first is not None:
            before = last if first == 0 else int(piece["t"][first - 1])
            raise EventError(
                f"{file.path}: events are not sorted by time: event {count + first} has t = {piece['t'][first]} us "
                f"after {before} us.",
                remedy="sort them while reading: read_events(path, sort=True), or neurodeploy data convert --sort.",
                code="event-unsorted",
            )
        events = as_events(piece, sensor_size=_bounds(file), source=str(file.path))
        last, count = int(events["t"][-1]), count + events.size
        yield events


def _bounds(file: EventFile) -> SensorSize | None:
    if file.asked_size is not None or file.size is None:
        return file.asked_size
    return 256, *file.size


def _rechunk(pieces: Iterator[EventArray], size: int) -> Iterator[EventArray]:
    waiting: list[EventArray] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += piece.size
        if count >= size:
            joined = np.concatenate(waiting)
            whole = count - count % size
            for first in range(0, whole, size):
                yield joined[first : first + size]
            waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def _named(path: Path, format: str | None) -> Format | None:
    if format is not None and format not in FORMATS:
        raise EventError(
            f"{path}: there is no event format {format!r}.",
            remedy=f"the formats are: {', '.join(FORMATS)}.",
            code="event-format",
        )
    return None if format is None else FORMATS[format]


def _by_suffix(path: Path) -> Format | None:
    name = path.name.lower()
    found = [
        (len(suffix), format) for format in FORMATS.values() for suffix in format.suffixes if name.endswith(suffix)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _by_header(path: Path) -> Format:
    """Tell .raw files (EVT 2 or 3) and .aedat files (2, 3 or 4) apart."""
    with EventFile(path).open() as handle:
        head = handle.read(4096)
    if path.suffix.lower() == ".aedat":
        version = re.match(rb"#!AER-DAT([234])\.", head)
        name = f"aedat{version[1].decode()}" if version else None
    else:
        version = re.search(rb"(?m)^% *(?:evt ([23])\.0|format EVT([23])\b)", head)
        name = f"evt{(version[1] or version[2]).decode()}" if version else None
    if name is None:
        raise EventError(
            f"{path}: the header does not state a version that is read "
            f"({'AEDAT 2, 3.1 or 4' if path.suffix.lower() == '.aedat' else 'EVT 2.0 or EVT 3.0'}).",
            remedy="name the format, e.g. read_events(path, format='evt3') or --format evt3; or convert the file "
            "with the vendor's tools.",
            code="event-format",
        )
    return FORMATS[name]


def _unknown(path: Path) -> EventError:
    known = ", ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
    return EventError(
        f"{path}: no event format is known for the extension '{path.suffix}' (known: {known}).",
        remedy="save the recording as .npz with the integer arrays t (microseconds), x, y and p.",
        code="event-format",
    )
