"""Writing files so that nothing half-written is ever left behind."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurodeploy.errors import ConfigError, ProgramError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, remove it on any error.

    Raises:
        ConfigError: the file cannot be written: no permission, no space, a file where the folder should be.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes the file private; the result gets the permissions any new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="choose a folder that can be written to, on a disk with space left.",
            code="cannot-write",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. The same value gives the same text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, all or nothing."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ProgramError: the file cannot be read, or holds something else.
    """
    if not Path(path).is_file():
        raise ProgramError(
            f"{path}: no such file.",
            remedy="check the path; write a run folder that is not whole, or of another version, again.",
            code="run-folder",
        )
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ProgramError(
            f"{path}: not readable as JSON: {error}.", remedy="write the run folder again.", code="run-folder"
        ) from error
    if not isinstance(value, dict):
        raise ProgramError(
            f"{path}: holds {type(value).__name__}, not an object.",
            remedy="write the run folder again.",
            code="run-folder",
        )
    return value
