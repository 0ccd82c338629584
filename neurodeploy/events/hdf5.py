"""HDF5 recordings (.h5, .hdf5): DSEC's layout, read and written, and the spike data sets SHD and SSC.

DSEC (dsec.ifi.uzh.ch, "Data format"): group ``events`` with ``x, y, t, p``; ``t_offset`` is added to every ``t`` (us);
``ms_to_idx[k]`` is the index of the first event with ``t >= 1000 k``. One compound data set ``events`` or ``CD/events``
with the fields ``x, y, p, t`` is read, too.

SHD (zenkelab.org, "Spiking Heidelberg Digits"): ``spikes/times`` (seconds) and ``spikes/units`` hold one vector for
each recording, ``labels`` its class. Units become x on a sensor of one row.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.dataset import EventDataset
from neurodeploy.events.stream import BLOCK_RECORDS, EventFile
from neurodeploy.files import replacing
from neurodeploy.guarded_read import check_hdf5

_LOOSE = np.dtype([("t", "<i8"), ("x", "<i8"), ("y", "<i8"), ("p", "<i8")])
_NAMES = {"t": ("t", "ts", "timestamps"), "x": ("x", "xs"), "y": ("y", "ys"), "p": ("p", "ps", "pol", "polarity")}


def read_hdf5(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an HDF5 recording in blocks.

    Raises:
        EventError: another layout, a missing compression filter, or damage.
    """
    import h5py

    with _open(file) as source:
        try:
            if "spikes" in source:
                raise _is_dataset(file)
            columns = _columns(file, source, h5py)
            lengths = {name: len(column) for name, column in columns.items()}
            if len(set(lengths.values())) != 1:
                raise file.damaged(f"the columns have the lengths {lengths}")
            offset = _offset(file, source)
            for first in range(0, lengths["t"], BLOCK_RECORDS):
                part = slice(first, first + BLOCK_RECORDS)
                events = np.empty(min(BLOCK_RECORDS, lengths["t"] - first), _LOOSE)
                for name, column in columns.items():
                    events[name] = column[part]
                events["t"] += offset
                events["p"][events["p"] == -1] = 0
                yield events
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise file.damaged(f"HDF5 cannot read it ({str(error)[:200]})") from error


def _open(file: EventFile) -> Any:
    import h5py

    with file.open() as handle:
        signature = handle.read(8)
    if signature != b"\x89HDF\r\n\x1a\n":
        raise file.damaged("it does not begin like an HDF5 file")
    if importlib.util.find_spec("hdf5plugin"):
        importlib.import_module("hdf5plugin")  # registers its filters
    try:
        check_hdf5(file.path)
        return h5py.File(file.path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise file.damaged(f"HDF5 cannot open it ({str(error)[:200]})") from error


def _columns(file: EventFile, source: Any, h5py: Any) -> dict[str, Any]:
    node = source.get("events") or source.get("CD/events")
    if isinstance(node, h5py.Dataset) and node.dtype.names:
        _check(file, node, h5py)
        found = {name: _first(names, node.dtype.names) for name, names in _NAMES.items()}
        columns = {name: node.fields(key) for name, key in found.items() if key}
        types = {name: node.dtype[key] for name, key in found.items() if key}
    elif isinstance(node, h5py.Group):
        found = {name: _first(names, node.keys()) for name, names in _NAMES.items()}
        columns = {name: node[key] for name, key in found.items() if key}
        for column in columns.values():
            _check(file, column, h5py)
        types = {name: column.dtype for name, column in columns.items()}
    else:
        raise file.unsupported(
            f"no group 'events' with x, y, t, p (found: {', '.join(list(source)[:8]) or 'nothing'})",
            "save the recording in DSEC's layout, as .csv or as .npz.",
        )
    missing = [name for name in _NAMES if name not in columns]
    if missing:
        raise file.damaged(f"'events' has no {', '.join(missing)}")
    for name, dtype in types.items():
        if dtype.kind not in "iub":
            raise file.unsupported(
                f"events/{name} is {dtype}, integers are expected",
                "convert the times to integer microseconds and write the file again.",
            )
    return columns


def _first(wanted: Sequence[str], present: Any) -> str | None:
    return next((name for name in wanted if name in present), None)


def _check(file: EventFile, data: Any, h5py: Any) -> None:
    """Refuse data sets that are no vectors, and filters that are not there; sizes are tried by ``check_hdf5``."""
    if not isinstance(data, h5py.Dataset) or len(data.shape or ()) != 1:
        raise file.damaged(f"{getattr(data, 'name', 'events')} is not a vector")
    properties = data.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            raise file.unsupported(
                f"{data.name} is compressed with the HDF5 filter {code} ({name.decode('latin-1')}), which is missing",
                "install it: pip install hdf5plugin (it is used by itself once installed).",
            )


def _offset(file: EventFile, source: Any) -> int:
    if "t_offset" not in source:
        return 0
    offset = np.asarray(source["t_offset"][()])
    if offset.size != 1 or offset.dtype.kind not in "iu" or abs(int(offset.ravel()[0])) >= 1 << 62:
        raise file.damaged("t_offset is not one integer of microseconds")
    file.header["t_offset (us)"] = int(offset.ravel()[0])
    return int(offset.ravel()[0])


def _is_dataset(file: EventFile) -> EventError:
    return EventError(
        f"{file.path}: holds a data set of spike recordings (SHD, SSC), not a single recording.",
        remedy="read it with neurodeploy.events.load_shd(path), or convert it: neurodeploy data convert FILE OUT.npz.",
        code="hdf5-dataset",
    )


def write_hdf5(path: Path, events: EventArray, size: tuple[int, int] | None) -> None:
    """Write a recording in DSEC's layout, deflated. Carries every recording.

    Times are stored from 0; ``t_offset`` is the first event's time rounded down to a whole millisecond.

    Raises:
        EventError: malformed events, or a recording longer than 24 days, whose ``ms_to_idx`` would not be sensible.
    """
    import h5py

    events = as_events(events, source=str(path))
    offset = int(events["t"][0]) // 1000 * 1000 if events.size else 0
    t = events["t"] - offset
    milliseconds = int(t[-1]) // 1000 + 1 if events.size else 0
    if milliseconds > 1 << 31:
        raise EventError(
            f"{path}: the recording lasts {milliseconds} ms; DSEC's index has one entry for each.",
            remedy="split the recording, or write .npz.",
            code="event-time-range",
        )
    with replacing(path) as temporary, h5py.File(temporary, "w") as target:
        group = target.create_group("events")
        narrow = "<u4" if not events.size or int(t[-1]) <= 0xFFFFFFFF else "<i8"
        for name, column, dtype in (
            ("t", t, narrow), ("x", events["x"], "<u2"), ("y", events["y"], "<u2"), ("p", events["p"], "u1"),
        ):  # fmt: skip
            group.create_dataset(name, data=np.ascontiguousarray(column, dtype), compression="gzip", track_times=False)
        index = np.searchsorted(t, 1000 * np.arange(milliseconds + 1)).astype("<u8")
        target.create_dataset("ms_to_idx", data=index, compression="gzip", track_times=False)
        target.create_dataset("t_offset", data=np.int64(offset), track_times=False)


def load_shd(path: str | Path, indices: Sequence[int] | None = None, *, units: int = 700) -> EventDataset:
    """Read the spike recordings of SHD or SSC.

    Args:
        path: the .h5 file (unpacked).
        indices: which recordings; all of them by default.
        units: number of channels; the sensor size becomes ``(1, 1, units)``.

    Raises:
        EventError: another layout, damage, no such recording, a unit beyond ``units``, or unsorted times.
    """
    file = EventFile(Path(path))
    with _open(file) as source:
        try:
            times, channels, labels = source["spikes/times"], source["spikes/units"], np.asarray(source["labels"])
            if not len(times) == len(channels) == labels.size:
                raise file.damaged(f"{len(times)} times, {len(channels)} units and {labels.size} labels")
            chosen = range(len(times)) if indices is None else indices
            recordings = []
            for index in chosen:
                if not 0 <= index < len(times):
                    raise EventError(
                        f"{path}: there is no recording {index}.",
                        remedy=f"choose from 0..{len(times) - 1}.",
                        code="recording-index",
                    )
                seconds = np.asarray(times[index], np.float64)
                units_here = np.asarray(channels[index])
                if seconds.shape != units_here.shape or seconds.ndim != 1 or not np.all(np.abs(seconds) < 1e9):
                    raise file.damaged(f"recording {index}: times and units do not belong together")
                events = np.zeros(seconds.size, _LOOSE)
                events["t"], events["x"] = np.rint(seconds * 1e6), units_here
                recordings.append(as_events(events, source=f"{path}: recording {index}"))
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise file.damaged(f"HDF5 cannot read it as SHD ({str(error)[:200]})") from error
    chosen_labels = labels[list(chosen)].astype(np.int64)
    return EventDataset.from_recordings(recordings, chosen_labels, sensor_size=(1, 1, units), source=str(path))
