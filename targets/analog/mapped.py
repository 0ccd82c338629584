"""What a mapper gives: a configured chip, and what became of every parameter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.target import Finding
from neurodeploy.targets.analog.program import AnalogProgram


@dataclass(frozen=True, eq=False)
class Mapped:
    """A network on its chip.

    Attributes:
        program: the configuration, and what it computes without mismatch.
        report: JSON-ready. ``layers``: for each its ``name``, ``parameters`` (``unit``, ``requested``, ``realised``,
            ``error``, ``words`` of each; one entry where all neurons agree, else a list) and ``weights`` (``nrmse``,
            the error as a share of their root mean square, and ``clipped``, the share beyond the highest code), and
            more by chip (``circuits_per_neuron``, where it may be more than one). ``placement``: what is used of the
            chip.
        notes: what runs differently on the chip than in the network.
    """

    program: AnalogProgram
    report: Mapping[str, Any]
    notes: Sequence[Finding] = ()


def agreed(values: NDArray[Any]) -> Any:
    """The values along the first axis as JSON-ready data: one entry where all are the same; None for ``inf``."""
    rows = [_plain(row) for row in values.tolist()]
    return rows[0] if all(row == rows[0] for row in rows) else rows


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
