"""Between events and rasters: spike counts on a grid of time steps.

Bin ``k`` holds the events with ``k * dt_us <= t < (k + 1) * dt_us``. Nothing is dropped: an event that the raster
cannot hold is an error, and recordings are cut explicitly (``EventDataset.until``).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EVENT_DTYPE, EventArray, as_events
from neurodeploy.events.dataset import EventDataset, check_sensor_size


def events_to_raster(
    events: EventArray,
    sensor_size: tuple[int, int, int],
    *,
    dt_us: int,
    n_time_steps: int | None = None,
    dtype: DTypeLike = np.uint8,
) -> NDArray[Any]:
    """Count the events of each pixel, channel and time step.

    Args:
        events: one recording.
        sensor_size: ``(channels, height, width)``.
        dt_us: length of a time step in microseconds.
        n_time_steps: steps of the raster; by default just enough for the last event.
        dtype: number type of the counts.

    Returns:
        ``[T, C, H, W]``.

    Raises:
        EventError: malformed events, events after the last step, or a count that ``dtype`` cannot hold.
    """
    size = check_sensor_size(sensor_size, "events_to_raster")
    events = as_events(events, sensor_size=size)
    steps = count_steps(int(events["t"][-1]) + 1 if events.size else 0, dt_us) if n_time_steps is None else n_time_steps
    _check_span(events["t"], dt_us, steps)
    cells = _cells(events["t"], events["p"], events["y"], events["x"], size, dt_us)
    return _count(cells, steps * int(np.prod(size)), dtype).reshape(steps, *size)


def dataset_to_raster(
    dataset: EventDataset,
    indices: ArrayLike,
    *,
    dt_us: int,
    n_time_steps: int | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Rasters of several recordings as one batch, ``[B, T, C, H, W]``; otherwise as ``events_to_raster``.

    ``n_time_steps`` is by default enough for ``dataset.duration_us``, so every batch has the same length.
    """
    chosen = np.asarray(indices, np.int64)
    if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(dataset):
        raise EventError(
            f"{dataset.source} holds {len(dataset)} recordings; indices span {chosen.min()}..{chosen.max()}.",
            remedy=f"use indices in 0..{len(dataset) - 1}.",
            code="raster-index",
        )
    steps = count_steps(dataset.duration_us, dt_us) if n_time_steps is None else n_time_steps
    parts = [slice(int(dataset.offsets[i]), int(dataset.offsets[i + 1])) for i in chosen]
    t, x, y, p = (
        np.concatenate([column[part] for part in parts]) if parts else column[:0]
        for column in (dataset.t, dataset.x, dataset.y, dataset.p)
    )
    _check_span(t, dt_us, steps)
    recording = np.repeat(np.arange(chosen.size), dataset.counts[chosen])
    per_recording = steps * int(np.prod(dataset.sensor_size))
    cells = recording * per_recording + _cells(t, p, y, x, dataset.sensor_size, dt_us)
    counts = _count(cells, chosen.size * per_recording, dtype)
    return counts.reshape(chosen.size, steps, *dataset.sensor_size)


def raster_to_events(raster: ArrayLike, *, dt_us: int) -> EventArray:
    """Turn counts ``[T, C, H, W]`` into events: a count of n gives n identical events at the start of the step.

    Within a step the order is channel, row, column. ``events_to_raster`` inverts it.

    Raises:
        EventError: not four axes, or counts that are not whole numbers of at least 0.
    """
    counts = np.asarray(raster)
    if counts.ndim != 4:
        raise EventError(
            f"raster_to_events: a raster has the axes (T, C, H, W), this one has shape {counts.shape}.",
            remedy="pass one recording; use raster[i] for a batch.",
            code="raster-shape",
        )
    check_sensor_size(counts.shape[1:], "raster_to_events")
    _check_dt(dt_us)
    if counts.dtype.kind not in "iub" and not bool(np.all(np.isfinite(counts) & (counts == np.rint(counts)))):
        raise EventError(
            "raster_to_events: the counts are not whole numbers.",
            remedy="pass spike counts, not rates or potentials; encode images with rate_encode or latency_encode.",
            code="raster-counts",
        )
    if counts.size and counts.min() < 0:
        raise EventError(
            f"raster_to_events: a count is {counts.min()}; events cannot be negative.",
            remedy="pass spike counts.",
            code="raster-counts",
        )
    step, p, y, x = np.nonzero(counts)
    repeats = counts[step, p, y, x].astype(np.int64)
    events = np.empty(int(repeats.sum()), EVENT_DTYPE)
    for name, column in (("t", step * int(dt_us)), ("x", x), ("y", y), ("p", p)):
        events[name] = np.repeat(column, repeats)
    return events


def count_steps(duration_us: int, dt_us: int) -> int:
    """Time steps of ``dt_us`` that cover ``duration_us``, rounded up.

    Raises:
        EventError: a negative duration, or a time step that is not a whole number of microseconds.
    """
    _check_dt(dt_us)
    if not duration_us >= 0:
        raise EventError(
            f"duration_us = {duration_us}: a recording cannot last less than 0 us.",
            remedy="give the length of the recording in microseconds.",
            code="raster-duration",
        )
    return -(-int(duration_us) // int(dt_us))


def _check_dt(dt_us: int) -> None:
    if not dt_us >= 1 or int(dt_us) != dt_us:
        raise EventError(
            f"dt_us = {dt_us}: a time step is a whole number of microseconds, at least 1.",
            remedy="give e.g. dt_us=10000 for 10 ms.",
            code="raster-dt",
        )


def _check_span(t: NDArray[Any], dt_us: int, steps: int) -> None:
    _check_dt(dt_us)
    last = int(t.max()) if t.size else -1
    if last >= steps * dt_us:
        raise EventError(
            f"an event at {last} us lies after the raster's end ({steps} steps of {dt_us} us = {steps * dt_us} us).",
            remedy="use more steps, or cut the recording first (EventDataset.until, or events[events['t'] < end]).",
            code="raster-span",
        )


def _cells(
    t: NDArray[Any], p: NDArray[Any], y: NDArray[Any], x: NDArray[Any], size: tuple[int, int, int], dt_us: int
) -> NDArray[np.int64]:
    """Index of each event's cell in a flat ``[T, C, H, W]`` raster."""
    channels, height, width = size
    cells = (t.astype(np.int64) // dt_us) * channels + p
    return np.asarray((cells * height + y) * width + x, np.int64)


def _count(cells: NDArray[np.int64], n_cells: int, dtype: DTypeLike) -> NDArray[Any]:
    """How often each cell 0..n_cells-1 occurs."""
    kind = np.dtype(dtype)
    if kind in (np.float32, np.float64):  # what training uses: no pass over an integer copy of the whole raster
        raster = np.zeros(n_cells, kind)
        np.add.at(raster, cells, kind.type(1))
        return raster
    counts = np.bincount(cells, minlength=n_cells)
    top = int(counts.max()) if counts.size else 0
    if kind.kind in "iu" and top > np.iinfo(kind).max:
        raise EventError(
            f"a cell counts {top} events, more than {kind} holds ({np.iinfo(kind).max}).",
            remedy="use a wider dtype, e.g. numpy.uint16, or a shorter time step.",
            code="raster-overflow",
        )
    return counts.astype(kind)
