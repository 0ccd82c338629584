"""The runs that a validation compares: the same recordings through the same network, executed in different ways."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.emulate.dataset import emulate_dataset
from neurodeploy.errors import ValidationError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.events.raster import to_raster
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Neuron

#: Called with (recordings done, recordings in all) while a run is under way.
Progress = Callable[[int, int], None]

#: Upper edges of the bins of a layer's histogram of spikes per neuron and recording; the last bin is open.
HISTOGRAM_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class LayerActivity:
    """What one layer did over all recordings of a run.

    Attributes:
        neurons: neurons in the layer.
        mean_spikes: spikes per neuron and recording.
        silent: share of neurons that never fired in any recording.
        histogram: neuron-recordings per bin of ``HISTOGRAM_EDGES``: exactly 0, exactly 1, 2, 3..4, 5..8, ..., above 1024.
    """

    neurons: int
    mean_spikes: float
    silent: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One way of executing the network on every recording.

    Attributes:
        output_counts: int64 ``[recordings, classes]``, spikes per output neuron.
        layers: layer name -> activity.
        counters: layer name -> counter -> sum over recordings; only the event-driven runs have them.
        seconds: wall time.
    """

    output_counts: NDArray[np.int64]
    layers: Mapping[str, LayerActivity]
    counters: Mapping[str, Mapping[str, int]]
    seconds: float

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Class with the most output spikes per recording, int64 ``[recordings]``; on a tie the lowest class."""
        return np.argmax(self.output_counts, axis=1)


class _Activity:
    """Accumulates ``LayerActivity`` over recordings."""

    def __init__(self) -> None:
        self.total: NDArray[np.int64] | None = None
        self.histogram = np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64)
        self.recordings = 0

    def add(self, counts: NDArray[np.int64]) -> None:
        """Add counts ``[recordings, neurons]``."""
        total = counts.sum(0)
        self.total = total if self.total is None else self.total + total
        bins = np.searchsorted(HISTOGRAM_EDGES, counts.ravel(), side="left")
        self.histogram += np.bincount(bins, minlength=self.histogram.size)
        self.recordings += counts.shape[0]

    def result(self) -> LayerActivity:
        if self.total is None:
            return LayerActivity(0, 0.0, 0.0, tuple(self.histogram.tolist()))
        return LayerActivity(
            neurons=self.total.size,
            mean_spikes=float(self.total.sum() / (self.total.size * self.recordings)),
            silent=float(np.mean(self.total == 0)),
            histogram=tuple(self.histogram.tolist()),
        )
