"""The contract of ``targets/``: what a chip's folder provides, and how a folder is found.

A folder is a chip family when it has code: its ``__init__.py`` exposes ``family``, an object with the methods of
``Family``. A folder with nothing but a ``chip.yaml`` is one chip; its ``family:`` line names the family folder, and its
entries are laid over that family's own ``chip.yaml``. Adding a chip of a known family is adding one such file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.events.array import EventArray

#: One spike of an emulated network: ``layer`` indexes ``Program.layers``; ``t`` is in microseconds.
SPIKE_DTYPE = np.dtype([("layer", "u1"), ("t", "<i8"), ("c", "<u2"), ("y", "<u2"), ("x", "<u2")])

SpikeArray = NDArray[np.void]


class Program(Protocol):
    """A chip configuration as plain data: deterministic, versioned, loss-free on disk."""

    @property
    def target(self) -> str:
        """Name of the chip, e.g. ``"speck2f"``."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in network order; the names of the source graph's weight nodes."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the events the program takes: ``p < C``, ``y < H``, ``x < W``."""
        ...

    def layer_shape(self, layer: str) -> tuple[int, int, int]:
        """``(C, H, W)`` of a layer's neurons, before any pooling on the way to the next layer."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The program as JSON-ready data, without header and hash."""
        ...


@dataclass(frozen=True)
class Execution:
    """What one run of a program produced.

    Attributes:
        spikes: array of ``SPIKE_DTYPE``: host event by host event, and for one event layer by layer; empty unless recorded.
        counts: layer name -> spikes per neuron, uint32 ``(C, H, W)``.
        counters: layer name -> counter name -> value: ``events`` taken in, ``synops`` (state updates, zero weights included),
            ``spikes``, ``dropped`` (events outside the input map), ``saturated`` (updates that hit the int16 range).
    """

    spikes: SpikeArray
    counts: Mapping[str, NDArray[np.uint32]]
    counters: Mapping[str, Mapping[str, int]]


class Executor(Protocol):
    """Executes one program; keeps the neurons' state between calls, so that a recording can be streamed in pieces."""

    def run(self, events: EventArray, *, record: Sequence[str] | None = None) -> Execution:
        """Feed events; ``record`` names the layers whose spikes are kept (None: all)."""
        ...

    def reset(self) -> None:
        """Set every neuron back to its initial state."""
        ...
