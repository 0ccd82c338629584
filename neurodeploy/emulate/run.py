"""What one emulated recording did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError
from neurodeploy.target import Execution, Probe, Program, SpikeArray


@dataclass(frozen=True)
class Run:
    """Spikes and counters of one recording.

    Attributes:
        program: what was executed.
        execution: the raw result.
    """

    program: Program
    execution: Execution

    @property
    def spikes(self) -> SpikeArray:
        """Structured array ``layer, t (us), c, y, x``; ``layer`` indexes ``program.layers``."""
        return self.execution.spikes

    def counts(self, layer: str) -> NDArray[np.uint32]:
        """Spikes per neuron of ``layer``, ``(C, H, W)``, before any pooling.

        Raises:
            EmulationError: there is no such layer.
        """
        if layer not in self.execution.counts:
            raise EmulationError(
                f"there is no layer {layer!r}.",
                remedy=f"the layers are: {', '.join(self.program.layers)}.",
                code="unknown-layer",
            )
        return self.execution.counts[layer]

    @property
    def output_counts(self) -> NDArray[np.uint32]:
        """Spikes per output neuron, ``[classes]``: the counts of the last layer, channel slowest."""
        return self.counts(self.program.layers[-1]).ravel()

    @property
    def prediction(self) -> int:
        """Output neuron with the most spikes; on a tie the lowest."""
        return int(np.argmax(self.output_counts))

    @property
    def probes(self) -> Mapping[str, Probe]:
        """Layer -> potentials of the neurons that were asked for with ``probe=``."""
        return self.execution.probes

    @property
    def stats(self) -> dict[str, Any]:
        """Every counter of ``Execution.counters`` summed over all layers, and ``layers``: those of each."""
        layers = {name: dict(counters) for name, counters in self.execution.counters.items()}
        totals = {key: sum(counters[key] for counters in layers.values()) for key in next(iter(layers.values()))}
        return {**totals, "layers": layers}
