"""What differs between two run folders: the network, its integers, where its layers are, its program, its accuracy."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.deployment import GRAPH_FILE, MAPPING_FILE, PROGRAM_FILE
from neurodeploy.errors import ConfigError
from neurodeploy.files import read_json
from neurodeploy.graph.difference import GraphDifference, difference, value_change
from neurodeploy.graph.file import load_graph
from neurodeploy.program_file import read_program
from neurodeploy.quantize.integers import GRAPH_FILE as INTEGERS_FILE

VALIDATION_FILE = "validation.json"


@dataclass(frozen=True)
class FieldChange:
    """A value that differs: ``name`` says which, ``text`` how; ``first`` and ``second`` are None where it is absent."""

    name: str
    text: str
    first: Any = None
    second: Any = None

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True)
class RunDifference:
    """All differences of two run folders.

    Attributes:
        graph: of the networks.
        integers: of the networks in integers; None where a folder has none.
        files: files that only one folder has.
        cores: layers on other cores.
        program: fields of the chip's configuration.
        accuracy: of each validated run, and of what it was validated on.
    """

    graph: GraphDifference
    integers: GraphDifference | None
    files: tuple[FieldChange, ...]
    cores: tuple[FieldChange, ...]
    program: tuple[FieldChange, ...]
    accuracy: tuple[FieldChange, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return (
            self.graph.equal
            and (self.integers is None or self.integers.equal)
            and not (self.files or self.cores or self.program or self.accuracy)
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        changes = {part: getattr(self, part) for part in ("files", "cores", "program", "accuracy")}
        return {
            "equal": self.equal,
            "graph": self.graph.to_dict(),
            "integers": None if self.integers is None else self.integers.to_dict(),
            **{part: [vars(change) for change in found] for part, found in changes.items()},
        }


def run_difference(first: str | Path, second: str | Path) -> RunDifference:
    """Compare two run folders, as ``neurodeploy train``, ``convert`` or ``compile`` wrote them.

    What only one of the two has (a program, a validation) is named in ``files`` and otherwise left out.

    Raises:
        ConfigError: a folder holds no network.
        GraphError, ProgramError: a file is damaged.
    """
    folders = Path(first), Path(second)
    for folder in folders:
        if not (folder / GRAPH_FILE).is_file():
            raise ConfigError(
                f"{folder} is not a run folder: {GRAPH_FILE} is missing.",
                remedy="give a folder that neurodeploy train, convert or compile wrote.",
                code="not-a-run",
            )
    names = (INTEGERS_FILE, MAPPING_FILE, PROGRAM_FILE, VALIDATION_FILE)
    there = {name: [(folder / name).is_file() for folder in folders] for name in names}
    alone = [
        FieldChange(name, f"only in {folders[not found[0]]}", *found)
        for name, found in there.items()
        if found[0] != found[1]
    ]
    both = {name for name, found in there.items() if all(found)}
    graphs = [load_graph(folder / GRAPH_FILE) for folder in folders]
    integers = [load_graph(folder / INTEGERS_FILE) for folder in folders] if INTEGERS_FILE in both else None

    def documents(name: str) -> list[dict[str, Any]]:
        return [read_json(folder / name) for folder in folders] if name in both else [{}, {}]

    if PROGRAM_FILE in both:
        for folder in folders:
            read_program(folder / PROGRAM_FILE)  # damaged files are refused

    def changes(name: str, read: Callable[[Mapping[str, Any]], dict[str, Any]]) -> tuple[FieldChange, ...]:
        before, after = map(read, documents(name))
        return tuple(_values(before, after))

    return RunDifference(
        difference(*graphs),
        None if integers is None else difference(*integers),
        tuple(alone),
        changes(MAPPING_FILE, _cores),
        changes(PROGRAM_FILE, lambda program: {"target": program.get("target"), **program.get("program", {})}),
        changes(VALIDATION_FILE, _accuracy),
    )


def _cores(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {layer["name"]: f"core {layer['core']}" for layer in mapping.get("layers", ())}


def _accuracy(validation: Mapping[str, Any]) -> dict[str, Any]:
    runs = {name: f"{run['accuracy']:.2%}" for name, run in validation.get("runs", {}).items()}
    return {**runs, **{key: validation.get(key) for key in ("recordings", "source", "dt_us")}} if runs else {}


def _values(first: Any, second: Any, name: str = "") -> Iterator[FieldChange]:
    """Differences of two JSON documents; lists of numbers are compared as arrays."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys((*first, *second)):
            place = f"{name}.{key}" if name else str(key)
            if key not in first or key not in second:
                text = "added" if key in second else "removed"
                value = second.get(key) if key in second else first[key]
                shown = "" if isinstance(value, dict | list) else f" ({value})"
                yield FieldChange(place, text + shown, _plain(first.get(key)), _plain(second.get(key)))
            else:
                yield from _values(first[key], second[key], place)
    elif first != second:
        arrays = _numbers(first), _numbers(second)
        if arrays[0] is not None and arrays[1] is not None:
            yield FieldChange(name, value_change(*arrays)[0])
        elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
            for index, (old, new) in enumerate(zip(first, second, strict=True)):
                yield from _values(old, new, f"{name}[{index}]")
        elif isinstance(first, list) and isinstance(second, list):
            yield FieldChange(name, f"{len(first)} -> {len(second)} entries")
        else:
            yield FieldChange(name, value_change(first, second)[0], _plain(first), _plain(second))


def _plain(value: Any) -> Any:
    return None if isinstance(value, dict | list) else value


def _numbers(value: Any) -> np.ndarray[Any, Any] | None:
    """A list of numbers, nested or not, as an array; None for anything else."""
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value)
    except ValueError:  # rows of different lengths
        return None
    return array if array.dtype.kind in "if" and array.size else None
