"""How well another format says what a node says: one entry per node, as data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

#: ``exact``: the same meaning. ``assumed``: the format does not say it; a convention, an option or metadata does.
#: ``approximated``: another meaning, within a bound. ``refused``: it cannot be said. From best to worst.
Status = Literal["exact", "assumed", "approximated", "refused"]


@dataclass(frozen=True)
class Remark:
    """One thing that was decided about a node.

    Attributes:
        status: how it changes the meaning.
        text: what, in words.
        bound: how much at most, for ``approximated``; None where no number bounds it.
        bounded: what the number counts, with its unit.
    """

    status: Status
    text: str
    bound: float | None = None
    bounded: str = ""

    def __str__(self) -> str:
        return self.text if self.bound is None else f"{self.text}; at most {self.bound:.3g} {self.bounded}"


@dataclass(frozen=True)
class Fidelity:
    """What became of one node on its way from or to another format.

    Attributes:
        node: its name.
        kind: its kind in the other format.
        remarks: what was decided about it; empty for a node that is the same in both.
    """

    node: str
    kind: str
    remarks: tuple[Remark, ...] = ()

    @property
    def status(self) -> Status:
        """The worst of the remarks; ``exact`` without any."""
        order = get_args(Status)
        return max((remark.status for remark in self.remarks), key=order.index, default="exact")

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return {**asdict(self), "status": self.status, "remarks": [asdict(remark) for remark in self.remarks]}


def as_notes(report: Sequence[Fidelity]) -> tuple[str, ...]:
    """The remarks as sentences, each once with the nodes that it is about."""
    nodes: dict[str, dict[str, None]] = {}
    for entry in report:
        for remark in entry.remarks:
            nodes.setdefault(remark.text, {})[entry.node] = None
    return tuple(f"{text}: {', '.join(names)}." for text, names in nodes.items())
