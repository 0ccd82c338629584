"""A recording named on the command line, and the options of the verbs that run one."""

from pathlib import Path

from pydantic import Field

from neurodeploy.cli.verb import Options
from neurodeploy.errors import ConfigError
from neurodeploy.events.array import EventArray
from neurodeploy.events.dataset import EventDataset, load_npz
from neurodeploy.events.formats import read_events
from neurodeploy.graph.graph import Graph

Shape = tuple[int, int, int]


class RecordingOptions(Options):
    """A compiled network, and one recording for it."""

    run: Path = Field(description="a folder written by 'neurodeploy compile'.")
    events: Path = Field(description="recording (any format of 'neurodeploy data'), or a data set (.npz) with --index.")
    index: int | None = Field(None, ge=0, description="which recording of a data set.")
    slow_clock_hz: float | None = Field(
        None, gt=0, description="ticks per second of the slow clock, for networks with biases."
    )


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


def labelled_recordings(path: Path, graph: Graph, samples: int | None) -> EventDataset:
    """The first ``samples`` recordings of an .npz file (None: all), read for the network's input shape.

    Raises:
        EventError: the file is missing, damaged, or does not fit the input.
    """
    shape = graph.input_shape()
    size = (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)
    return load_npz(path, sensor_size=size)[:samples]
