"""Recordings named on the command line."""

from pathlib import Path

from neurodeploy.errors import ConfigError
from neurodeploy.events.array import EventArray
from neurodeploy.events.dataset import load_npz
from neurodeploy.events.formats import read_events

Shape = tuple[int, int, int]


def one_recording(path: Path, index: int | None, input_shape: Shape) -> tuple[EventArray, int | None, int | None]:
    """The recording in ``path``, or with ``index`` that recording of a data set.

    Returns:
        The events; label and length in microseconds where ``path`` is a data set, else None and None.

    Raises:
        ConfigError: the data set has no such recording.
        EventError: the file is missing, malformed or of the other kind, or events lie outside ``input_shape``.
    """
    if index is None:
        return read_events(path, sensor_size=input_shape), None, None
    dataset = load_npz(path, sensor_size=input_shape)
    if index >= len(dataset):
        raise ConfigError(
            f"{path} is a data set of {len(dataset)} recordings; index {index} is not among them.",
            remedy=f"choose one: --index 0..{len(dataset) - 1}.",
            code="recording-index",
        )
    return (*dataset[index], dataset.duration_us)
