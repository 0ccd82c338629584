"""A program that decodes an AEDAT 4 file with the package ``aedat`` and writes its events to standard output.

It runs in a process of its own (``aedat4.py`` starts it): on some damaged files the package aborts the process it runs
in, and what it allocates follows lengths in the file. Each frame is a line of JSON; after ``{"events": n}`` come n
events of 13 bytes. The last frame is ``{"done": true}`` or ``{"error": text}``.
"""

import json
import sys
from typing import Any

import aedat
import numpy as np

_MEMORY_BYTES = 4 << 30
_EVENT = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on every system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _frame(content: dict[str, Any], data: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(content).encode() + b"\n" + data)


def _decode(path: str) -> None:
    decoder = aedat.Decoder(path)
    streams = {number: stream for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
    if len(streams) != 1:
        _frame({"streams": len(streams)})
        return
    number, stream = next(iter(streams.items()))
    _frame({"width": int(stream["width"]), "height": int(stream["height"])})
    for packet in decoder:
        if packet["stream_id"] != number:
            _frame({"skipped": 1})
            continue
        found = packet["events"]
        if found.size and int(found["t"].max()) > np.iinfo(np.int64).max:
            _frame({"error": "a time stamp is negative"})
            return
        events = np.empty(found.size, _EVENT)
        events["t"], events["x"], events["y"], events["p"] = found["t"], found["x"], found["y"], found["on"]
        _frame({"events": int(events.size)}, events.tobytes())
    _frame({"done": True})


if __name__ == "__main__":
    _limit_memory()
    try:
        _decode(sys.argv[1])
    except BaseException as error:  # the package's panics are no Exception
        _frame({"error": str(error)[:200]})
    sys.stdout.buffer.flush()
