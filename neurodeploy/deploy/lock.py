"""One process per kit: a lock that the operating system gives back when its holder ends, however it ends."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurodeploy.device import DeviceName
from neurodeploy.errors import DeviceError


def lock_path(device: DeviceName) -> Path:
    """The lock file of a kit, the same for all users of the machine."""
    return Path(tempfile.gettempdir()) / f"neurodeploy-{device.kind}-{device.index}.lock"


@contextmanager
def locked(device: DeviceName) -> Iterator[None]:
    """Hold the kit's lock.

    Raises:
        DeviceError: another process holds it (the message names its id), or the lock file cannot be opened.
    """
    import fcntl  # where the kits' drivers are: Linux and macOS

    path = lock_path(device)
    try:
        handle = _open(path)
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be opened: {error.strerror}.",
            remedy="remove that file, or correct its permissions.",
            code="kit-lock",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise DeviceError(
                f"{device} is in use by the process with id {holder} (lock: {path}).",
                remedy="wait until it ends, or end it.",
                code="kit-locked",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # Closing releases the lock. The file stays: removing it could take away a lock that somebody else just got.
        os.close(handle)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        handle = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(handle, 0o666)  # other users' processes must see the lock, whatever the umask
        return handle
