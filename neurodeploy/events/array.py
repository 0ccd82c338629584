"""The event array: what the whole toolchain means by "events"."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError

#: One event: time in microseconds, column, row, polarity or channel (``p``: 1 = ON).
EVENT_DTYPE = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])

EventArray = NDArray[np.void]


def as_events(array: Any, *, sensor_size: tuple[int, int, int] | None = None, source: str = "events") -> EventArray:
    """Check and convert any structured array with the fields ``t, x, y, p`` (in any order) to ``EVENT_DTYPE``.

    Args:
        array: structured array, shape ``[n]``; integer fields; ``t`` in microseconds, non-decreasing.
        sensor_size: ``(channels, height, width)``; events outside it are refused. ``None`` skips that check.
        source: name of the file or argument, for the error messages.

    Raises:
        EventError: missing fields, wrong rank, non-integer fields, negative or unsorted time, event outside the sensor.
    """
    array = np.asarray(array)
    names = array.dtype.names or ()
    missing = [name for name in ("t", "x", "y", "p") if name not in names]
    if missing:
        raise EventError(
            f"{source}: an event array needs the fields t, x, y, p; missing: {', '.join(missing)} "
            f"(found: {names or array.dtype}).",
            remedy="build a structured array with neurodeploy.events.make_events(t_us, x, y, p).",
            code="event-fields",
        )
    if array.ndim != 1:
        raise EventError(
            f"{source}: an event array has one axis, this one has shape {array.shape}.",
            remedy="pass one recording at a time.",
            code="event-shape",
        )
    for name in ("t", "x", "y", "p"):
        if array[name].dtype.kind not in "iub":
            raise EventError(
                f"{source}: field {name} is {array[name].dtype}; times (us) and addresses are integers.",
                remedy=f"convert it, e.g. {name}.astype('int64') (times in seconds: multiply by 1e6 first).",
                code="event-dtype",
            )
    if array.size and sensor_size is not None:
        for name, limit in zip(("p", "y", "x"), sensor_size, strict=True):
            low, high = int(array[name].min()), int(array[name].max())
            if low < 0 or high >= limit:
                raise EventError(
                    f"{source}: field {name} reaches {low if low < 0 else high}, the sensor has {name} = 0.."
                    f"{limit - 1} (channels, height, width = {sensor_size}).",
                    remedy="give the right sensor size, or crop the recording to it.",
                    code="event-outside-sensor",
                )
    for name in ("x", "y", "p") if array.dtype != EVENT_DTYPE else ():
        limit = np.iinfo(EVENT_DTYPE[name]).max
        if array.size and not 0 <= int(array[name].min()) <= int(array[name].max()) <= limit:
            raise EventError(
                f"{source}: field {name} spans {array[name].min()}..{array[name].max()}; addresses are 0..{limit}.",
                remedy="check how the recording was decoded.",
                code="event-outside-sensor",
            )
    if array.size:
        t = array["t"]
        if int(t.max()) > np.iinfo(np.int64).max or int(t.min()) < 0:
            raise EventError(
                f"{source}: times span {t.min()}..{t.max()} us; they must be 0 or later and fit 63 bits.",
                remedy="subtract the recording's start time.",
                code="event-time",
            )
        backwards = np.flatnonzero(t[1:] < t[:-1])
        if backwards.size:
            first = int(backwards[0]) + 1
            raise EventError(
                f"{source}: events are not sorted by time: event {first} has t = {t[first]} us "
                f"after {t[first - 1]} us.",
                remedy="sort them (stable): events[np.argsort(events['t'], kind='stable')].",
                code="event-unsorted",
            )
    if array.dtype == EVENT_DTYPE:
        events: EventArray = array
        return events
    events = np.empty(array.shape, EVENT_DTYPE)
    for name in ("t", "x", "y", "p"):
        events[name] = array[name]
    return events


def make_events(t_us: Any, x: Any, y: Any, p: Any, *, sensor_size: tuple[int, int, int] | None = None) -> EventArray:
    """Build an event array from four equally long columns (time in microseconds) and check it (see ``as_events``)."""
    columns = {"t": np.asarray(t_us), "x": np.asarray(x), "y": np.asarray(y), "p": np.asarray(p)}
    lengths = {name: column.shape for name, column in columns.items()}
    if len({column.shape for column in columns.values()}) != 1 or columns["t"].ndim != 1:
        raise EventError(
            f"make_events: the columns have shapes {lengths}; they must be four equally long vectors.",
            remedy="pass one value per event in each column.",
            code="event-shape",
        )
    loose = np.empty(columns["t"].shape, [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        loose[name] = column
    return as_events(loose, sensor_size=sensor_size, source="make_events")
