"""One recording from or to a file; the extension names the format."""

from pathlib import Path

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray
from neurodeploy.events.dataset import read_recording_npz, write_recording_npz
from neurodeploy.events.nmnist import read_nmnist_bin, write_nmnist_bin

_READERS = {".npz": read_recording_npz, ".bin": read_nmnist_bin}


def read_events(path: str | Path, *, sensor_size: tuple[int, int, int] | None = None) -> EventArray:
    """Read one recording: ``.npz`` (keys ``x, y, p, t`` or a structured array ``events``) or ``.bin`` (N-MNIST).

    Args:
        path: the file.
        sensor_size: ``(channels, height, width)``; when given, events outside it are refused.

    Raises:
        EventError: unknown extension, or whatever the format's reader finds.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise _unknown(path)
    return reader(path, sensor_size=sensor_size)


def write_events(path: str | Path, events: EventArray, *, sensor_size: tuple[int, int, int] | None = None) -> None:
    """Write one recording as ``.npz`` or N-MNIST ``.bin``, all or nothing.

    Raises:
        EventError: unknown extension, malformed events, or events that the format cannot hold.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".npz":
            write_recording_npz(path, events, sensor_size=sensor_size)
        case ".bin":
            write_nmnist_bin(path, events)
        case _:
            raise _unknown(path)


def _unknown(path: Path) -> EventError:
    return EventError(
        f"{path}: no event format is known for the extension '{path.suffix}' (known: {', '.join(_READERS)}).",
        remedy="save the recording as .npz with the integer arrays t (microseconds), x, y and p.",
        code="event-format",
    )
