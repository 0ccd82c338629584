"""What differs between two graphs, in words: layers, connections, and how far their numbers moved."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Node

#: ``renamed`` is the only kind of change that leaves what a network computes as it was.
What = Literal["added", "removed", "renamed", "kind", "field", "connection"]


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        what: its kind.
        layer: name of the node in the second graph; in the first for one that was removed.
        text: the change, in words, without the name.
        field: of the node, for ``field``.
        changed: how many numbers differ, for arrays of one shape.
        of: how many there are.
        largest: the largest change of a number, as an absolute value.
    """

    what: What
    layer: str
    text: str
    field: str | None = None
    changed: int | None = None
    of: int | None = None
    largest: float | None = None

    def __str__(self) -> str:
        return f"{self.layer}: {self.text}"


@dataclass(frozen=True)
class GraphDifference:
    """All differences of two graphs, in the order of the second's nodes (what was removed comes last)."""

    changes: tuple[Change, ...]

    @property
    def equal(self) -> bool:
        """Whether the graphs are equal, names included."""
        return not self.changes

    @property
    def equal_up_to_names(self) -> bool:
        """Whether only names of nodes differ: both compute the same."""
        return all(change.what == "renamed" for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        changes = [
            {key: value for key, value in asdict(change).items() if value is not None} for change in self.changes
        ]
        return {"equal": self.equal, "equal_up_to_names": self.equal_up_to_names, "changes": changes}


def difference(first: Graph, second: Graph) -> GraphDifference:
    """Compare two graphs node by node and edge by edge.

    Nodes of one name are compared with each other. The others are paired in the order of the network: equal nodes
    first, then nodes of one kind and one output shape whose arrays have the same shapes; a pair is a renamed layer.
    """
    names = _pairs(first, second)
    partner = {new: old for old, new in names.items()}
    changes: list[Change] = []
    for name, node in second.nodes.items():
        if name not in partner:
            changes.append(Change("added", name, f"added: {node.kind} {second.shapes[name]}"))
            continue
        old = partner[name]
        if old != name:
            changes.append(Change("renamed", name, f"called {old} before"))
        changes += _changes_of(name, first.nodes[old], node)
    changes += _connections(first, second, names)
    changes += [
        Change("removed", name, f"removed: {node.kind} {first.shapes[name]}")
        for name, node in first.nodes.items()
        if name not in names
    ]
    return GraphDifference(tuple(changes))


def value_change(before: Any, after: Any) -> tuple[str, dict[str, Any]]:
    """Two different values of a field in words, and what ``Change`` says of arrays of one shape."""
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        if before.shape != after.shape:
            return f"shape {before.shape} -> {after.shape}", {}
        return _array_change(before, after)
    return f"{_shown(before)} -> {_shown(after)}", {}


def _array_change(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
    different = before != after
    count, kind = int(different.sum()), "" if before.dtype == after.dtype else f"{before.dtype} -> {after.dtype}"
    if not count:
        return kind, {}
    distance = np.where(different, np.abs(after.astype(np.float64) - before.astype(np.float64)), -1.0)
    at = np.unravel_index(int(np.argmax(distance)), distance.shape)
    numbers = {"changed": count, "of": before.size, "largest": float(distance[at])}
    step = f"{_number(before[at])} -> {_number(after[at])}"
    if before.size == 1:
        return f"{step}{kind and f' ({kind})'}", numbers
    place = ", ".join(str(int(index)) for index in at)
    text = f"{count} of {before.size} changed, by at most {_number(distance[at])} (at [{place}]: {step})"
    return f"{text}{kind and f', {kind}'}", numbers


def _number(value: Any) -> str:
    return f"{value:.6g}"


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return _number(value.reshape(-1)[0]) if value.size == 1 else f"{value.size} values"
    return "none" if value is None else str(value)


def _changes_of(name: str, before: Node, after: Node) -> list[Change]:
    if type(before) is not type(after):
        return [Change("kind", name, f"{before.kind} -> {after.kind}")]
    changes = []
    for part in fields(after):
        old, new = _value(before, part.name), _value(after, part.name)
        if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
            same = old.dtype == new.dtype and np.array_equal(old, new)
        else:  # an array is not equal to anything else
            same = not isinstance(old, np.ndarray) and not isinstance(new, np.ndarray) and old == new
        if not same:
            text, numbers = value_change(old, new)
            changes.append(Change("field", name, f"{part.name} {text}", part.name, **numbers))
    return changes


def _value(node: Node, field: str) -> Any:
    """The field's value; NumPy's scalars as arrays."""
    value = getattr(node, field)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _connections(first: Graph, second: Graph, names: Mapping[str, str]) -> Iterable[Change]:
    """Inputs of nodes that both have; those of added and removed nodes go without saying."""
    for old, new in names.items():
        before = [names.get(source, source) for source in first.predecessors(old)]
        after = list(second.predecessors(new))
        if before != after:
            text = f"fed by {', '.join(after) or 'nothing'} (before: {', '.join(before) or 'nothing'})"
            yield Change("connection", new, text)


def _pairs(first: Graph, second: Graph) -> dict[str, str]:
    """First name -> second name of every node that both have."""
    names = {name: name for name in first.nodes if name in second.nodes}
    rest = [name for name in second.nodes if name not in names]

    def pair(alike: Callable[[str, str], bool]) -> None:
        for old in first.nodes:
            if old not in names:
                before = [names.get(source) for source in first.predecessors(old)]
                found = [new for new in rest if alike(old, new)]
                fed_alike = [new for new in found if list(second.predecessors(new)) == before]
                if found:
                    names[old] = (fed_alike or found)[0]
                    rest.remove(names[old])

    def shapes(node: Node) -> list[Any]:
        return [value.shape for part in fields(node) if isinstance(value := _value(node, part.name), np.ndarray)]

    pair(lambda old, new: first.nodes[old] == second.nodes[new] and first.shapes[old] == second.shapes[new])
    pair(
        lambda old, new: (
            first.nodes[old].kind == second.nodes[new].kind
            and first.shapes[old] == second.shapes[new]
            and shapes(first.nodes[old]) == shapes(second.nodes[new])
        )
    )
    return {name: names[name] for name in first.nodes if name in names}
