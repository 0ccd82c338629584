"""AEDAT 4 of DV (.aedat4), through the optional package ``aedat`` in a process of its own (``aedat4_decoder.py``).

Only the event stream is read; packets of other streams (frames, IMU samples, triggers) are skipped and counted. Times
are Unix times in us.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from neurodeploy.events.array import EVENT_DTYPE, EventArray
from neurodeploy.events.stream import EventFile

_SIGNATURE = b"#!AER-DAT4.0\r\n"
_DECODER = Path(__file__).with_name("aedat4_decoder.py")


def read_aedat4(file: EventFile) -> Iterator[EventArray]:
    """Yield the events of an AEDAT 4 file, packet by packet.

    Raises:
        EventError: also when the package is not installed.
    """
    with file.open() as handle:
        if handle.read(len(_SIGNATURE)) != _SIGNATURE:
            raise file.damaged("it does not begin with '#!AER-DAT4.0'")
    if importlib.util.find_spec("aedat") is None:
        raise file.unsupported(
            "AEDAT 4 is read by the package aedat, which is not installed",
            "install it: pip install aedat.",
        )
    # -P: the decoder's folder stays out of the module search path, where its neighbours would hide standard modules.
    command = [sys.executable, "-P", str(_DECODER), str(file.path.resolve())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as decoder:
        try:
            yield from _frames(file, cast(IO[bytes], decoder.stdout))
        finally:
            decoder.kill()


def _frames(file: EventFile, output: IO[bytes]) -> Iterator[EventArray]:
    while (line := output.readline()).endswith(b"\n"):
        frame: dict[str, Any] = json.loads(line)
        if "events" in frame:
            size = frame["events"] * EVENT_DTYPE.itemsize
            data = output.read(size)
            if len(data) < size:
                break
            yield np.frombuffer(data, EVENT_DTYPE)
        elif "width" in frame:
            file.size = (frame["height"], frame["width"])
        elif "skipped" in frame:
            file.skip("packets of other streams", frame["skipped"])
        elif "streams" in frame:
            raise file.unsupported(f"{frame['streams']} event streams", "export one camera's events to its own file.")
        elif "error" in frame:
            raise file.damaged(f"the package aedat cannot read it ({frame['error']})")
        else:
            return
    raise file.damaged("the package aedat gave up while reading it")
