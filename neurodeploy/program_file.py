"""Program files: JSON with a header and a hash, the same bytes for the same program on every machine.

``{"format", "version", "target", "family", "sha256", "program"}``; the hash covers the canonical JSON of all other
fields, so that a damaged or edited file is refused. The chip is named, not described: for a chip of the user's own, its
description lies beside the program (``neurodeploy.target.TARGET_FILE``).
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from neurodeploy.errors import ConfigError, ProgramError
from neurodeploy.files import canonical_json, write_text
from neurodeploy.target import AnalogProgram, Program, Target, target_of_program

FORMAT = "neurodeploy-program"
VERSION = 1
#: No chip's configuration comes near this size; it bounds what reading a damaged or foreign file can cost.
MAX_BYTES = 64 * 2**20
HEADER = ("format", "version", "target", "family", "sha256", "program")


def write_program(path: str | Path, program: Program | AnalogProgram) -> None:
    """Write ``program`` to ``path``, all or nothing."""
    write_text(path, program_text(program))


def program_text(program: Program | AnalogProgram) -> str:
    """The text of a program's file."""
    content = _content(program)
    return json.dumps({**content, "sha256": _hash(content)}, sort_keys=True, separators=(",", ":")) + "\n"


def program_hash(program: Program | AnalogProgram) -> str:
    """SHA-256 of a program, in hexadecimal: the one in its file's header."""
    return _hash(_content(program))


def read_program(path: str | Path) -> Program:
    """The program in the file at ``path``, of a chip that computes with integers and events.

    Raises:
        ProgramError: the file is missing, too large, not JSON, of another format or version, for an unknown target, its
            hash does not match, or the program is not consistent.
        ConfigError: the program is one of an analog chip.
    """
    target, data = _read(Path(path))
    family = target.family
    with _in_file(path):
        return family.read_program(data, target.chip)


def read_analog_program(path: str | Path) -> AnalogProgram:
    """The program in the file at ``path``, of an analog chip.

    Raises:
        ProgramError: as ``read_program``.
        ConfigError: the program is one of a chip of integers.
    """
    target, data = _read(Path(path))
    family = target.analog_family
    with _in_file(path):
        return family.read_program(data, target.chip)


def program_target(path: str | Path) -> Target:
    """The chip that the program in the file at ``path`` is for; errors as ``read_program``."""
    return _read(Path(path))[0]


@contextmanager
def _in_file(path: str | Path) -> Iterator[None]:
    try:
        yield
    except ProgramError as error:
        raise ProgramError(f"{path}: {error.message}", remedy=error.remedy, code=error.code) from None


def _read(path: Path) -> tuple[Target, Any]:
    """The chip and the data of an intact program file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            _refuse(path, f"has {size} bytes; a program has at most {MAX_BYTES}.", code="program-size")
        data = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except OSError as error:
        raise ProgramError(
            f"{path} cannot be read: {error.strerror}.",
            remedy="give the program.json that neurodeploy compile wrote.",
            code="program-missing",
        ) from None
    except (ValueError, RecursionError) as error:
        # ValueError: not UTF-8, not JSON, a field twice, NaN, or a number with thousands of digits.
        _refuse(path, f"is not valid JSON ({error}).", code="program-json")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        _refuse(path, f"is not a program: its format is not {FORMAT!r}.", code="program-format")
    if type(data.get("version")) is not int or data["version"] != VERSION:
        _refuse(path, f"has version {data.get('version')!r}; this release reads {VERSION}.", code="program-version")
    if sorted(data) != sorted(HEADER):
        _refuse(path, f"must have exactly the fields {', '.join(HEADER)}.", code="program-header")
    content = {name: data[name] for name in HEADER if name != "sha256"}
    try:
        intact = data["sha256"] == _hash(content)
    except (ValueError, RecursionError):
        # A number that JSON cannot hold (1e999) or brackets nested without end: nothing that was ever written here.
        intact = False
    if not intact:
        _refuse(path, "was damaged or edited: its hash does not match.", code="program-hash")
    try:
        target = target_of_program(str(data["target"]), path.parent)
    except ConfigError as error:
        _refuse(path, f"is for a target that cannot be used: {error.message}", code="program-target")
    if data["family"] != target.family_name:
        _refuse(path, f"is for the family {data['family']!r}, not {target.family_name!r}.", code="program-target")
    return target, data["program"]


def _content(program: Program | AnalogProgram) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "target": program.target,
        "family": program.family,
        "program": program.to_dict(),
    }


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode("utf-8")).hexdigest()


def _refuse(path: Path, problem: str, *, code: str) -> NoReturn:
    remedy = "write it again with neurodeploy compile; a program file is not edited by hand."
    raise ProgramError(f"{path} {problem}", remedy=remedy, code=code)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field appears twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
