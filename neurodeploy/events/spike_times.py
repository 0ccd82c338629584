"""Labelled patterns of spike times: the data of networks in continuous time."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.dataset import EventDataset, load_npz, read_npz, write_npz

_KEYS = ("times", "labels")


@dataclass(frozen=True, eq=False)
class SpikeTimes:
    """Patterns of spikes on some inputs; ``patterns[2:5]`` is a part of them.

    Attributes:
        times: float64 ``[S, inputs, slots]``, seconds from the start of a pattern, in any order; ``inf`` where there is
            no spike.
        labels: int64 ``[S]``, the class of each pattern.
        source: where they come from, for error messages.

    Raises:
        EventError: another type or shape, a label too few or negative, or a time before the start.
    """

    times: NDArray[np.float64]
    labels: NDArray[np.int64]
    source: str = "spike times"

    def __post_init__(self) -> None:
        times, labels = self.times, self.labels
        if times.dtype != np.float64 or times.ndim != 3:
            raise EventError(
                f"{self.source}: times are {times.dtype} of shape {times.shape}; they must be float64 "
                "[patterns, inputs, slots].",
                remedy="give one row of slots per input, inf where there is no spike.",
                code="spike-times-shape",
            )
        if labels.dtype != np.int64 or labels.shape != times.shape[:1]:
            raise EventError(
                f"{self.source}: labels are {labels.dtype} of shape {labels.shape} for {len(times)} patterns.",
                remedy="give one int64 label per pattern.",
                code="spike-times-labels",
            )
        if labels.size and int(labels.min()) < 0:
            raise EventError(
                f"{self.source}: label {int(labels.min())} is negative; classes are 0, 1, 2, ...",
                remedy="renumber the classes from 0.",
                code="spike-times-labels",
            )
        bad = ~(times >= 0)
        if bad.any():
            pattern, place, slot = (int(index[0]) for index in np.nonzero(bad))
            raise EventError(
                f"{self.source}: time {times[pattern, place, slot]} in pattern {pattern}, input {place}, slot {slot}.",
                remedy="give times of at least 0, and inf where there is no spike.",
                code="spike-times-value",
            )

    @classmethod
    def of_recordings(cls, recordings: EventDataset) -> "SpikeTimes":
        """The events of recordings, microseconds made seconds; input ``(p * height + y) * width + x`` of an event."""
        channels, height, width = recordings.sensor_size
        inputs = channels * height * width
        place = (recordings.p.astype(np.int64) * height + recordings.y) * width + recordings.x
        pattern = np.repeat(np.arange(len(recordings)), np.diff(recordings.offsets))
        row = pattern * inputs + place
        order = np.argsort(row, kind="stable")  # times of an input stay in order
        counts = np.bincount(row, minlength=len(recordings) * inputs)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        slot = np.arange(row.size) - np.repeat(first, counts)
        times = np.full((len(recordings) * inputs, max(1, int(counts.max(initial=0)))), np.inf)
        times[row[order], slot] = recordings.t[order] * 1e-6
        return cls(times.reshape(len(recordings), inputs, -1), recordings.labels, recordings.source)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice) -> "SpikeTimes":
        return SpikeTimes(self.times[chosen], self.labels[chosen], self.source)

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.times.shape[1])

    @property
    def n_classes(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max(initial=-1)) + 1

    def digest(self) -> str:
        """SHA-256 of times and labels."""
        shape = repr(self.times.shape).encode()
        return hashlib.sha256(shape + self.times.tobytes() + self.labels.tobytes()).hexdigest()


def save_spike_times(path: str | Path, patterns: SpikeTimes) -> None:
    """Write patterns as a compressed .npz with the keys ``times`` and ``labels``, all or nothing."""
    write_npz(path, {"times": patterns.times, "labels": patterns.labels})


def load_spike_times(path: str | Path) -> SpikeTimes:
    """Read what ``save_spike_times`` wrote, or a labelled data set of events (``SpikeTimes.of_recordings``).

    Raises:
        EventError: no such file, not an .npz, other keys, or anything ``SpikeTimes`` refuses.
    """
    path = Path(path)
    arrays = read_npz(path)
    if "offsets" in arrays:
        return SpikeTimes.of_recordings(load_npz(path))
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise EventError(
            f"{path}: patterns of spike times need the keys times and labels; missing: {', '.join(missing)} (found: "
            f"{', '.join(sorted(arrays)) or 'none'}).",
            remedy="write it with neurodeploy.events.save_spike_times.",
            code="npz-keys",
        )
    return SpikeTimes(arrays["times"], arrays["labels"], str(path))
