"""HDF5 files (NIR, recordings) are tried in a process of its own before they are read here.

The HDF5 library trusts the structure of a file: damage can make it crash, hang or allocate without bound, which no
exception handler of this process could catch. A file that the trial (``hdf5_trial.py``, limited in time and memory)
reads to its end is then read here by the same library. One trial process serves all files, so a trial costs
milliseconds.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

_TRIAL = Path(__file__).with_name("hdf5_trial.py")
_SECONDS = 20.0
_BYTES_PER_SECOND = 10 << 20  # what reading must reach beyond the first seconds

_SETTLED_SECONDS = 2.0

_lock = threading.Lock()
_process: subprocess.Popen[str] | None = None
_owner = 0
_known_good: set[tuple[str, int, int]] = set()


def check_hdf5(path: str | Path) -> None:
    """Let the trial process read ``path``; a file that it has read is not tried again until it changes.

    Raises:
        OSError: the file does not exist or cannot be opened.
        ValueError: the file is damaged; the message says how, or that reading it crashed or took too long.
    """
    path = Path(path).resolve()
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    with _lock:
        if key in _known_good:
            return
        problem = _try(path, _SECONDS + status.st_size / _BYTES_PER_SECOND)
    if problem is not None:
        raise ValueError(problem)
    # What was written just now could change again without a new time: the clock of files is coarse.
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        _known_good.add(key)


def _try(path: Path, seconds: float) -> str | None:
    global _process, _owner
    if _process is None or _process.poll() is not None or _owner != os.getpid():
        # -P: this folder stays out of the module search path, where its files would hide others of their name.
        command = [sys.executable, "-P", str(_TRIAL)]
        pipe = subprocess.PIPE
        _process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        _owner = os.getpid()
    process = _process
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:  # it ended while it was written to
        answer = ""
    finally:
        timer.cancel()
    if answer.endswith("\n"):
        problem: str | None = json.loads(answer)
        return problem
    process.kill()
    process.wait()
    _process = None
    if late.is_set():
        return f"reading it was stopped after {seconds:.0f} seconds: its structure is damaged"
    return "reading it crashed the HDF5 library: its structure is damaged"
