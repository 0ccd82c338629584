"""``neurodeploy data info | convert | view``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydantic import Field

from neurodeploy.cli.event_picture import event_picture
from neurodeploy.cli.output import say, table
from neurodeploy.cli.verb import Options, verb
from neurodeploy.errors import ConfigError, EventError
from neurodeploy.events.dataset import EventDataset, load_npz, save_npz
from neurodeploy.events.formats import iter_events, read_events, write_events
from neurodeploy.events.hdf5 import load_shd
from neurodeploy.events.info import RecordingInfo, recording_info
from neurodeploy.files import replacing
from neurodeploy.report.png import png_bytes

_SIZE = "channels,height,width, e.g. 2,34,34: events outside are refused; for files that do not state a size."
_FORMAT = "format of FILE when its extension does not tell, e.g. evt2."


class InfoOptions(Options):
    """Options of ``neurodeploy data info``."""

    file: Path = Field(description="a recording, or a data set (.npz, SHD).")
    sensor_size: str | None = Field(None, description=_SIZE)
    format: str | None = Field(None, description=_FORMAT)


class ConvertOptions(Options):
    """Options of ``neurodeploy data convert``."""

    file: Path = Field(description="a recording, or an SHD data set.")
    out: Path = Field(description="the file to write; its extension names the format.")
    sensor_size: str | None = Field(None, description=_SIZE)
    format: str | None = Field(None, description=_FORMAT)
    sort: bool = Field(False, description="put unsorted events in order of time instead of refusing them.")
    from_zero: bool = Field(False, description="subtract the time of the first event.")


class ViewOptions(Options):
    """Options of ``neurodeploy data view``."""

    file: Path = Field(description="a recording.")
    out: Path = Field(description="the .png to write.", json_schema_extra={"short": "-o"})
    sensor_size: str | None = Field(None, description=_SIZE)
    format: str | None = Field(None, description=_FORMAT)


@click.group("data")
def command() -> None:
    """Inspect, convert and draw event recordings: info FILE, convert FILE OUT, view FILE -o PICTURE.png.

    Formats: .npz .csv .bin (N-MNIST) .dat .raw (EVT 2, EVT 3) .es .aedat (2.0, 3.1) .aedat4 .h5 (DSEC, SHD). Each of
    the three takes --json.
    """


@verb(InfoOptions, config_flag=False)
def info(options: InfoOptions) -> dict[str, Any]:
    """Say what a recording or data set holds."""
    size = _sensor_size(options.sensor_size)
    try:
        found = recording_info(options.file, sensor_size=size, format=options.format)
    except EventError as error:
        dataset = _dataset(options.file, size, error)
        return _dataset_info(options.file, dataset)
    facts = _facts(found)
    table(options.file.name, ("fact", "value"), facts.items())
    return {**asdict(found), "rate_hz": found.rate_hz}


@verb(ConvertOptions, config_flag=False, arguments=2)
def convert(options: ConvertOptions) -> dict[str, Any]:
    """Write a recording in another format; what OUT cannot carry is refused."""
    size = _sensor_size(options.sensor_size)
    try:
        events = read_events(options.file, sensor_size=size, format=options.format, sort=options.sort)
    except EventError as error:
        dataset = _dataset(options.file, size, error)
        if options.out.suffix.lower() != ".npz":
            raise EventError(
                f"{options.out}: a data set of {len(dataset)} recordings is written as .npz only.",
                remedy="give OUT the extension .npz.",
                code="event-format",
            ) from error
        save_npz(options.out, dataset)
        say(f"wrote {options.out}: {len(dataset)} recordings, {dataset.t.size} events")
        return {"out": str(options.out), "recordings": len(dataset), "events": int(dataset.t.size)}
    if options.from_zero and events.size:
        events = events.copy()
        events["t"] -= events["t"][0]
    write_events(options.out, events, sensor_size=size)
    say(f"wrote {options.out}: {events.size} events")
    return {"out": str(options.out), "events": int(events.size)}


@verb(ViewOptions, config_flag=False)
def view(options: ViewOptions) -> dict[str, Any]:
    """Draw a recording: ON events of each pixel, OFF events, and below them the column of each event over time."""
    if options.out.suffix.lower() != ".png":
        raise ConfigError(
            f"{options.out}: pictures are written as .png.", remedy="-o PICTURE.png.", code="picture-format"
        )
    size = _sensor_size(options.sensor_size)
    found = recording_info(options.file, sensor_size=size, format=options.format)
    if size is not None:
        found.sensor_size = size[1:]
    picture = event_picture(iter_events(options.file, sensor_size=size, format=options.format), found)
    with replacing(options.out) as temporary:
        temporary.write_bytes(png_bytes(picture))
    say(
        f"wrote {options.out}: ON (red, left), OFF (blue, right), x over {(found.end_us - found.start_us) / 1e3:.1f} ms"
    )
    return {"out": str(options.out), "size": [picture.shape[1], picture.shape[0]], "events": found.events}


for _action in (info, convert, view):
    command.add_command(_action)


def _sensor_size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(
            f"--sensor-size {text!r} is not three integers.",
            remedy="give channels,height,width: 2,34,34.",
            code="sensor-size",
        )
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def _dataset(path: Path, size: tuple[int, int, int] | None, error: EventError) -> EventDataset:
    """The data set in ``path``, when ``error`` says that it is one; else the error goes on."""
    if error.code == "npz-dataset":
        return load_npz(path, sensor_size=size)
    if error.code == "hdf5-dataset":
        return load_shd(path) if size is None else load_shd(path, units=size[2])
    raise error


def _dataset_info(path: Path, dataset: EventDataset) -> dict[str, Any]:
    counts = dataset.counts
    result = {
        "recordings": len(dataset),
        "events": int(dataset.t.size),
        "sensor_size": list(dataset.sensor_size),
        "duration_us": dataset.duration_us,
        "events_per_recording": [int(counts.min()), float(np.median(counts)), int(counts.max())]
        if len(dataset)
        else [],
        "recordings_per_class": np.bincount(dataset.labels).tolist() if len(dataset) else [],
    }
    table(f"{path.name}: data set", ("fact", "value"), result.items())
    return result


def _facts(found: RecordingInfo) -> dict[str, object]:
    stated = f"{found.sensor_size[1]} x {found.sensor_size[0]}" if found.sensor_size else "not stated"
    facts: dict[str, object] = {
        "format": found.title,
        "size of the file": f"{found.file_bytes} bytes",
        "events": f"{found.events} ({found.on_events} ON)",
        "first, last": f"{found.start_us} us, {found.end_us} us",
        "mean rate": f"{found.rate_hz:.4g} events/s",
        "sensor (width x height)": stated,
        "addresses reach": f"x {found.extent[2] - 1}, y {found.extent[1] - 1}, p {found.extent[0] - 1}",
    }
    facts |= {f"header: {name}": value for name, value in found.header.items()}
    facts |= {f"skipped: {name}": count for name, count in found.skipped.items()}
    return facts
