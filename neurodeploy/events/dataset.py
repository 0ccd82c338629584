"""Labelled recordings of one sensor: the data set that training, calibration and validation read."""

import hashlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EVENT_DTYPE, EventArray, as_events
from neurodeploy.files import replacing

_COLUMNS = ("t", "x", "y", "p")
#: What zipfile, zlib and numpy's header parser raise for damaged archives.
_NPZ_DAMAGE = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, EOFError, ValueError, OSError, KeyError,
    NotImplementedError, RuntimeError, MemoryError, OverflowError, TypeError, struct.error,
)  # fmt: skip
_MOST_BYTES = 1 << 35  # of one archive unpacked: 32 GiB
_DATASET_KEYS = ("x", "y", "p", "t", "offsets", "labels")


@dataclass(frozen=True, eq=False)
class EventDataset:
    """Recordings of one sensor, stored as concatenated columns.

    ``dataset[i]`` is ``(events, label)``; ``dataset[2:5]``, ``dataset.subset(indices)`` and ``dataset.until(t_us)`` are
    data sets again. Build one with ``from_recordings``, ``load_npz`` or the simulated camera; the constructor checks
    everything.

    Attributes:
        t: event times in microseconds from the start of their recording, non-decreasing in each; shape ``[events]``.
        x, y, p: column, row and channel (polarity, 1 = ON) of each event; shape ``[events]``.
        offsets: recording ``i`` is ``offsets[i]:offsets[i + 1]``; int64, shape ``[recordings + 1]``.
        labels: class of each recording; int64, shape ``[recordings]``.
        sensor_size: ``(channels, height, width)``.
        duration_us: length of every recording in microseconds; by default the last event's time + 1.
        source: file or simulation the recordings come from, for error messages.

    Raises:
        EventError: a column of another length, offsets not monotonic, one label too few, unsorted times, an event
            outside the sensor or after ``duration_us``.
    """

    t: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]
    p: NDArray[Any]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    sensor_size: tuple[int, int, int]
    duration_us: int = -1
    source: str = "events"

    def __post_init__(self) -> None:
        columns = {name: _integers(getattr(self, name), name, self.source) for name in _COLUMNS}
        offsets = _integers(self.offsets, "offsets", self.source).astype(np.int64)
        labels = _integers(self.labels, "labels", self.source).astype(np.int64)
        size = check_sensor_size(self.sensor_size, self.source)
        _check_offsets(columns, offsets, labels, self.source)
        last = _check_events(columns, offsets, size, self.source)
        duration_us = int(self.duration_us)
        if duration_us < 0:
            duration_us = last + 1
        elif last >= duration_us:
            raise EventError(
                f"{self.source}: an event at {last} us lies after the stated duration of {duration_us} us.",
                remedy="give the true duration, or cut the recordings with EventDataset.until(duration_us).",
                code="event-duration",
            )
        for name, value in (*columns.items(), ("offsets", offsets), ("labels", labels)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "sensor_size", size)
        object.__setattr__(self, "duration_us", duration_us)

    @classmethod
    def from_recordings(
        cls,
        recordings: Sequence[EventArray],
        labels: ArrayLike,
        *,
        sensor_size: tuple[int, int, int],
        duration_us: int | None = None,
        source: str = "recordings",
    ) -> "EventDataset":
        """Concatenate event arrays (any structured arrays with ``t, x, y, p``) into one data set."""
        checked = [as_events(r, sensor_size=sensor_size, source=f"{source}[{i}]") for i, r in enumerate(recordings)]
        joined = np.concatenate(checked) if checked else np.empty(0, EVENT_DTYPE)
        offsets = np.concatenate([[0], np.cumsum([events.size for events in checked], dtype=np.int64)]).astype(np.int64)
        return cls(
            **{name: np.ascontiguousarray(joined[name]) for name in _COLUMNS},
            offsets=offsets,
            labels=np.asarray(labels),
            sensor_size=sensor_size,
            duration_us=-1 if duration_us is None else duration_us,
            source=source,
        )

    def __len__(self) -> int:
        return int(self.labels.size)

    @overload
    def __getitem__(self, index: int) -> tuple[EventArray, int]: ...

    @overload
    def __getitem__(self, index: slice) -> "EventDataset": ...

    def __getitem__(self, index: int | slice) -> "tuple[EventArray, int] | EventDataset":
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.source} holds {len(self)} recordings; there is no recording {index}")
        index = index % len(self)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        events = np.empty(part.stop - part.start, EVENT_DTYPE)
        for name in _COLUMNS:
            events[name] = getattr(self, name)[part]
        return events, int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[EventArray, int]]:
        return (self[i] for i in range(len(self)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Events of each recording; shape ``[recordings]``."""
        return np.diff(self.offsets)

    @property
    def n_classes(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max()) + 1 if len(self) else 0

    def subset(self, indices: ArrayLike) -> "EventDataset":
        """Return the recordings ``indices`` (integers, or a mask), in that order."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        counts = self.counts[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # Position of every kept event in the old columns: its rank in the new recording plus the old start.
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], counts)
        return self._with_events(events, offsets, self.labels[chosen], self.duration_us)

    def until(self, duration_us: int) -> "EventDataset":
        """Cut every recording: only events with ``t < duration_us`` remain."""
        if duration_us < 1:
            raise EventError(
                f"{self.source}: cannot cut to {duration_us} us.",
                remedy="give a duration of at least 1 us.",
                code="event-duration",
            )
        kept = self.t < duration_us
        running = np.concatenate([[0], np.cumsum(kept)])
        return self._with_events(np.flatnonzero(kept), running[self.offsets], self.labels, duration_us)

    def _with_events(
        self, events: NDArray[np.int64], offsets: NDArray[np.int64], labels: NDArray[np.int64], duration_us: int
    ) -> "EventDataset":
        columns = {name: getattr(self, name)[events] for name in _COLUMNS}
        return EventDataset(
            **columns,
            offsets=offsets,
            labels=labels,
            sensor_size=self.sensor_size,
            duration_us=duration_us,
            source=self.source,
        )

    def digest(self) -> str:
        """SHA-256 of the recordings (values only: the same for any storage width), for records of what was used."""
        h = hashlib.sha256(repr((self.sensor_size, self.duration_us)).encode())
        for name, dtype in (
            ("t", "<i8"),
            ("x", "<u2"),
            ("y", "<u2"),
            ("p", "u1"),
            ("offsets", "<i8"),
            ("labels", "<i8"),
        ):
            h.update(np.ascontiguousarray(getattr(self, name), dtype).tobytes())
        return h.hexdigest()


def save_npz(path: str | Path, dataset: EventDataset) -> None:
    """Write a data set as a compressed .npz, all or nothing; the same data set gives the same bytes.

    Keys: ``x, y, p, t, offsets, labels, sensor_size, duration_us``, each column in the narrowest unsigned type.
    """
    arrays = {name: _narrow(getattr(dataset, name)) for name in ("x", "y", "p", "t")}
    arrays |= {
        "offsets": dataset.offsets,
        "labels": dataset.labels,
        "sensor_size": np.asarray(dataset.sensor_size, np.int64),
        "duration_us": np.asarray(dataset.duration_us, np.int64),
    }
    write_npz(path, arrays)


def load_npz(path: str | Path, *, sensor_size: tuple[int, int, int] | None = None) -> EventDataset:
    """Read a labelled data set with the keys ``x, y, p, t, offsets, labels`` (further keys are ignored).

    Args:
        path: the file.
        sensor_size: ``(channels, height, width)``; needed when the file has no key ``sensor_size``, and must agree
            with that key otherwise.

    Raises:
        EventError: no such file, not an .npz, keys missing, sensor size unknown, or anything ``EventDataset`` refuses.
    """
    path = Path(path)
    arrays = read_npz(path)
    missing = [key for key in _DATASET_KEYS if key not in arrays]
    if missing:
        raise EventError(
            f"{path}: a labelled event data set needs the keys {', '.join(_DATASET_KEYS)}; missing: "
            f"{', '.join(missing)} (found: {', '.join(sorted(arrays)) or 'none'}).",
            remedy="write it with neurodeploy.events.save_npz; a single recording is read with read_events.",
            code="npz-keys",
        )
    size = _stored_sensor_size(path, arrays, sensor_size)
    if size is None:
        raise EventError(
            f"{path}: the sensor size is neither in the file (key sensor_size) nor given.",
            remedy="pass sensor_size=(channels, height, width), e.g. (2, 34, 34) for N-MNIST.",
            code="sensor-size-missing",
        )
    return EventDataset(
        **{name: arrays[name] for name in _COLUMNS},
        offsets=arrays["offsets"],
        labels=arrays["labels"],
        sensor_size=size,
        duration_us=_scalar(path, arrays["duration_us"]) if "duration_us" in arrays else -1,
        source=str(path),
    )


def read_recording_npz(path: str | Path, *, sensor_size: tuple[int, int, int] | None = None) -> EventArray:
    """Read one recording: keys ``x, y, p, t``, or one structured array ``events``."""
    path = Path(path)
    arrays = read_npz(path)
    if "offsets" in arrays:
        raise EventError(
            f"{path}: holds a data set of {max(arrays['offsets'].size - 1, 0)} recordings, not a single one.",
            remedy="choose one of them: --index N, or neurodeploy.events.load_npz(path)[N].",
            code="npz-dataset",
        )
    size = _stored_sensor_size(path, arrays, sensor_size)
    if "events" in arrays:
        return as_events(arrays["events"], sensor_size=size, source=str(path))
    missing = [key for key in _COLUMNS if key not in arrays]
    if missing:
        raise EventError(
            f"{path}: a recording needs the keys x, y, p, t or one structured array 'events'; missing: "
            f"{', '.join(missing)} (found: {', '.join(sorted(arrays)) or 'none'}).",
            remedy="write it with neurodeploy.events.write_events.",
            code="npz-keys",
        )
    shapes = {name: arrays[name].shape for name in _COLUMNS}
    if len(set(shapes.values())) != 1 or len(shapes["t"]) != 1:
        raise EventError(
            f"{path}: the columns have shapes {shapes}; they must be four equally long vectors.",
            remedy="write the file again from the original recording.",
            code="event-shape",
        )
    loose = np.empty(shapes["t"], [(name, arrays[name].dtype) for name in _COLUMNS])
    for name in _COLUMNS:
        loose[name] = arrays[name]
    return as_events(loose, sensor_size=size, source=str(path))


def write_recording_npz(
    path: str | Path, events: EventArray, *, sensor_size: tuple[int, int, int] | None = None
) -> None:
    """Write one recording as .npz with the keys ``x, y, p, t`` (and ``sensor_size`` when given), all or nothing."""
    events = as_events(events, sensor_size=sensor_size)
    arrays = {name: _narrow(events[name]) for name in ("x", "y", "p", "t")}
    if sensor_size is not None:
        arrays["sensor_size"] = np.asarray(sensor_size, np.int64)
    write_npz(path, arrays)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz file, never unpickling; any damage becomes an ``EventError`` that names the file."""
    if not path.is_file():
        raise EventError(f"{path}: no such file.", remedy="check the path.", code="file-missing")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single .npy array, not an archive")
        with archive:
            claimed = sum(member.file_size for member in (archive.zip.infolist() if archive.zip else ()))
            if claimed > _MOST_BYTES:
                raise ValueError(f"it unpacks to {claimed} bytes, more than {_MOST_BYTES} are read at once")
            return {key: archive[key] for key in archive.files}
    except _NPZ_DAMAGE as error:
        why = "it holds pickled objects, or something that is no archive" if "pickle" in str(error) else error
        raise EventError(
            f"{path}: cannot be read as an .npz archive of plain arrays ({why}).",
            remedy="the file is truncated, damaged or of another format: copy or write it again.",
            code="npz-damaged",
        ) from error


def write_npz(path: str | Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed .npz, all or nothing; equal data is equal bytes (numpy stamps every member 1980)."""
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]


def check_sensor_size(sensor_size: Any, source: str) -> tuple[int, int, int]:
    """Check ``(channels, height, width)``: three integers of at least 1 that the event dtype can address."""
    size = tuple(int(v) for v in np.asarray(sensor_size).ravel())
    limits = (256, 65536, 65536)
    if len(size) != 3 or any(not 1 <= v <= limit for v, limit in zip(size, limits, strict=True)):
        raise EventError(
            f"{source}: sensor size {size} is not (channels, height, width) with channels 1..256 and sides 1..65536.",
            remedy="give e.g. (2, 34, 34): two polarities, 34 rows, 34 columns.",
            code="sensor-size",
        )
    return size[0], size[1], size[2]


def _integers(values: Any, name: str, source: str) -> NDArray[Any]:
    array = np.ascontiguousarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise EventError(
            f"{source}: {name} must be a vector of integers, it is {array.dtype} of shape {array.shape}.",
            remedy="times are integer microseconds, addresses and labels integers, one per event or recording.",
            code="event-dtype",
        )
    return array


def _check_offsets(
    columns: dict[str, NDArray[Any]], offsets: NDArray[np.int64], labels: NDArray[np.int64], source: str
) -> None:
    sizes = {name: column.size for name, column in columns.items()}
    if len(set(sizes.values())) != 1:
        raise EventError(
            f"{source}: the columns differ in length: {sizes}.",
            remedy="give one t, x, y and p per event.",
            code="event-shape",
        )
    n_events = sizes["t"]
    if offsets.size < 1 or offsets[0] != 0 or offsets[-1] != n_events or bool(np.any(np.diff(offsets) < 0)):
        span = f"{offsets[0]}..{offsets[-1]}" if offsets.size else "empty"
        raise EventError(
            f"{source}: offsets must rise from 0 to the number of events ({n_events}) without ever falling; they are "
            f"{span}{' and fall somewhere' if bool(np.any(np.diff(offsets) < 0)) else ''}.",
            remedy="recording i must be events offsets[i]:offsets[i + 1]; offsets has one entry more than recordings.",
            code="dataset-offsets",
        )
    if labels.size != offsets.size - 1:
        raise EventError(
            f"{source}: {labels.size} labels for {offsets.size - 1} recordings.",
            remedy="give one label per recording.",
            code="dataset-labels",
        )
    if labels.size and int(labels.min()) < 0:
        raise EventError(
            f"{source}: label {int(labels.min())} is negative; classes are 0, 1, 2, ...",
            remedy="renumber the classes from 0.",
            code="dataset-labels",
        )


def _check_events(
    columns: dict[str, NDArray[Any]], offsets: NDArray[np.int64], size: tuple[int, int, int], source: str
) -> int:
    """Check order and addresses of all recordings at once; return the time of the last event (-1 without events)."""
    t = columns["t"]
    if not t.size:
        return -1
    recordings = offsets[1:-1]
    falls = t[1:] < t[:-1]
    falls[recordings[(recordings > 0) & (recordings < t.size)] - 1] = False  # a new recording starts over
    bad = np.flatnonzero(falls) + 1
    for name, limit in zip(("p", "y", "x"), size, strict=True):
        column = columns[name]
        if int(column.min()) < 0 or int(column.max()) >= limit:
            bad = np.flatnonzero((column < 0) | (column >= limit))[:1]
            break
    if int(t.min()) < 0:
        bad = np.flatnonzero(t < 0)
    if bad.size:
        # The single-recording check words the error; this only finds the recording.
        i = int(np.searchsorted(offsets, bad[0], side="right")) - 1
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        loose = np.empty(part.stop - part.start, [(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            loose[name] = column[part]
        as_events(loose, sensor_size=size, source=f"{source} (recording {i})")
    return int(t.max())


def _stored_sensor_size(
    path: Path, arrays: dict[str, NDArray[Any]], given: tuple[int, int, int] | None
) -> tuple[int, int, int] | None:
    given = None if given is None else check_sensor_size(given, str(path))
    if "sensor_size" not in arrays:
        return given
    stored = check_sensor_size(arrays["sensor_size"], str(path))
    if given is not None and stored != given:
        raise EventError(
            f"{path}: the file says its sensor is {stored}, the call says {given} (channels, height, width).",
            remedy="leave sensor_size out, or correct it.",
            code="sensor-size",
        )
    return stored


def _scalar(path: Path, array: NDArray[Any]) -> int:
    if array.size != 1 or array.dtype.kind not in "iu":
        raise EventError(
            f"{path}: duration_us must be one integer, it is {array.dtype} of shape {array.shape}.",
            remedy="write the file again with neurodeploy.events.save_npz.",
            code="npz-keys",
        )
    return int(array.reshape(()))


def _narrow(column: NDArray[Any]) -> NDArray[Any]:
    top = int(column.max()) if column.size else 0
    return column.astype(np.min_scalar_type(top))
