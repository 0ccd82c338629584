"""What a recording holds, found out in one pass over the file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neurodeploy.events.array import EventArray
from neurodeploy.events.formats import SensorSize, checked_pieces, open_recording


@dataclass
class RecordingInfo:
    """Facts of one recording.

    Attributes:
        format: name of the format; ``title`` says it for people.
        file_bytes: size of the file.
        events, on_events: number of events, and of those with p > 0.
        start_us, end_us: time of the first and the last event; -1 without events.
        extent: ``(channels, height, width)`` that the events span: the largest addresses + 1.
        sensor_size: ``(height, width)`` as the file states it, when it does.
        skipped: what was in the file but is no event of a pixel.
        header: further facts of the header.
    """

    format: str
    title: str
    file_bytes: int
    events: int = 0
    on_events: int = 0
    start_us: int = -1
    end_us: int = -1
    extent: tuple[int, int, int] = (0, 0, 0)
    sensor_size: tuple[int, int] | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    header: dict[str, str | int] = field(default_factory=dict)

    @property
    def rate_hz(self) -> float:
        """Mean rate of events over the time from the first to the last."""
        return self.events * 1e6 / (self.end_us - self.start_us) if self.end_us > self.start_us else 0.0

    def _count(self, piece: EventArray) -> None:
        if self.events == 0:
            self.start_us = int(piece["t"][0])
        self.end_us = int(piece["t"][-1])
        self.events += piece.size
        self.on_events += int(np.count_nonzero(piece["p"]))
        spans = zip(self.extent, ("p", "y", "x"), strict=True)
        channels, height, width = (max(known, int(piece[name].max()) + 1) for known, name in spans)
        self.extent = (channels, height, width)


def recording_info(
    path: str | Path, *, sensor_size: SensorSize | None = None, format: str | None = None
) -> RecordingInfo:
    """Read a recording once, in bounded memory, and say what is in it.

    Args:
        path: the file.
        sensor_size: ``(channels, height, width)``; events outside it are refused.
        format: name of the format, when the extension does not tell.

    Raises:
        EventError: as for ``read_events``.
    """
    file, chosen = open_recording(path, sensor_size=sensor_size, format=format)
    info = RecordingInfo(chosen.name, chosen.title, file.path.stat().st_size)
    for piece in checked_pieces(file, chosen):
        info._count(piece)
    info.sensor_size, info.skipped, info.header = file.size, dict(file.skipped), file.header
    return info
