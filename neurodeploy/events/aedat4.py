"""AEDAT 4 of DV (.aedat4), through the optional package ``aedat``.

Only the event stream is read; frames, IMU samples and triggers are skipped and counted. Times are Unix times in us.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from neurodeploy.events.array import EventArray
from neurodeploy.events.stream import EventFile, event_columns

_SIGNATURE = b"#!AER-DAT4.0\r\n"


def read_aedat4(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an AEDAT 4 file, packet by packet.

    Raises:
        EventError: also when the package is not installed.
    """
    with file.open() as handle:
        if handle.read(len(_SIGNATURE)) != _SIGNATURE:
            raise file.damaged("it does not begin with '#!AER-DAT4.0'")
    try:
        aedat = importlib.import_module("aedat")
    except ImportError as error:
        raise file.unsupported(
            "AEDAT 4 is read by the package aedat, which is not installed",
            "install it: pip install 'neurodeploy-toolchain[aedat]'.",
        ) from error
    decoder = _guarded(file, lambda: aedat.Decoder(str(file.path)))
    streams = {number: stream for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
    if len(streams) != 1:
        raise file.unsupported(f"{len(streams)} event streams", "export one camera's events to a file of its own.")
    number, stream = next(iter(streams.items()))
    file.size = (int(stream["height"]), int(stream["width"]))
    packets = iter(decoder)
    while (packet := _guarded(file, lambda: next(packets, None))) is not None:
        if packet.get("stream_id") != number:
            file.skip("packets of other streams", 1)
            continue
        events = packet["events"]
        if events.size and int(events["t"].max()) > np.iinfo(np.int64).max:
            raise file.damaged("a time stamp is negative")
        yield event_columns(events["t"].astype(np.int64), events["x"], events["y"], events["on"])


def _guarded(file: EventFile, call: Any) -> Any:
    """Run a call into the package; whatever it raises (its panics are no ``Exception``) becomes an ``EventError``."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise file.damaged(f"the package aedat cannot read it ({str(error)[:200]})") from error
