"""The runs that a validation compares: the same recordings through the same network, executed in different ways."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.emulate.dataset import execute_dataset
from neurodeploy.errors import ValidationError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.events.raster import dataset_to_raster
from neurodeploy.graph.graph import Graph
from neurodeploy.target import Execution
from neurodeploy.validation.stepped import stepped

#: Called with (recordings done, recordings in all) while a run is under way.
Progress = Callable[[int, int], None]

#: Rasters that a time-stepped run holds in memory at a time.
RECORDINGS_AT_ONCE = 16

#: Upper edges of the bins of a layer's histogram of spikes per neuron and recording; the last bin is open.
HISTOGRAM_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class LayerActivity:
    """What one layer did over all recordings of a run.

    Attributes:
        neurons: neurons in the layer.
        mean_spikes: spikes per neuron and recording.
        silent: share of neurons that never fired in any recording.
        histogram: neuron-recordings per bin of ``HISTOGRAM_EDGES``: 0, 1, 2, 3..4, 5..8, ..., above 1024.
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
        answers: NDArray[np.int64] = np.argmax(self.output_counts, axis=1)
        return answers


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


def event_driven_run(
    deployment: Deployment,
    dataset: EventDataset,
    *,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Run:
    """Every recording through the event-driven emulator, each from the neurons' initial state."""
    program = deployment.program
    activity = {name: _Activity() for name in program.layers}
    counters: dict[str, dict[str, int]] = {name: {} for name in program.layers}
    output = np.zeros((len(dataset), int(np.prod(program.layer_shape(program.layers[-1])))), np.int64)
    start = time.perf_counter()
    done = 0

    def observe(index: int, execution: Execution) -> None:
        nonlocal done
        for name in program.layers:
            activity[name].add(execution.counts[name].reshape(1, -1).astype(np.int64))
            for key, value in execution.counters[name].items():
                counters[name][key] = counters[name].get(key, 0) + value
        output[index] = execution.counts[program.layers[-1]].ravel()
        done += 1
        progress(done, len(dataset))

    execute_dataset(
        lambda: deployment.executor(slow_clock_hz=slow_clock_hz),
        dataset,
        observe,
        threads=threads,
        until_us=None if slow_clock_hz is None else dataset.duration_us,
    )
    return Run(output, {name: a.result() for name, a in activity.items()}, counters, time.perf_counter() - start)


def time_stepped_run(
    graph: Graph,
    dataset: EventDataset,
    neurons: Mapping[str, str],
    *,
    dt_us: int,
    progress: Progress = lambda done, total: None,
) -> Run:
    """Every recording binned to steps of ``dt_us`` and run through ``graph``, float or integer.

    Args:
        graph: the network.
        dataset: the recordings.
        neurons: layer name -> name of its neuron node; the last one is the output.
        dt_us: length of a time step in microseconds.
        progress: called after each batch.

    Raises:
        ValidationError: torch is missing, or a batch of rasters does not fit in memory.
    """
    activity = {name: _Activity() for name in neurons}
    output: list[NDArray[np.int64]] = []
    start = time.perf_counter()
    for counts in _time_stepped_batches(graph, dataset, neurons, dt_us, progress):
        for name, count in counts.items():
            activity[name].add(count)
        output.append(count)
    layers = {name: a.result() for name, a in activity.items()}
    return Run(np.concatenate(output), layers, {}, time.perf_counter() - start)


def time_stepped_counts(
    graph: Graph, dataset: EventDataset, neurons: Mapping[str, str], *, dt_us: int
) -> dict[str, NDArray[np.int64]]:
    """Layer -> spikes per recording and neuron, int64 ``[recordings, neurons]``; arguments as ``time_stepped_run``."""
    batches = list(_time_stepped_batches(graph, dataset, neurons, dt_us))
    return {name: np.concatenate([counts[name] for counts in batches]) for name in neurons}


def _time_stepped_batches(
    graph: Graph,
    dataset: EventDataset,
    neurons: Mapping[str, str],
    dt_us: int,
    progress: Progress = lambda done, total: None,
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Layer -> spikes per recording and neuron, a batch of recordings at a time."""
    network = stepped(graph)
    for first in range(0, len(dataset), RECORDINGS_AT_ONCE):
        indices = range(first, min(first + RECORDINGS_AT_ONCE, len(dataset)))
        try:
            raster = dataset_to_raster(dataset, indices, dt_us=dt_us, dtype=np.float32)
        except MemoryError as error:
            raise ValidationError(
                f"{dataset.source}: recordings of {dataset.duration_us} us in steps of dt_us = {dt_us} do not fit "
                f"in memory, {len(indices)} at a time.",
                remedy="give a longer dt_us, cut the recordings, or leave the time-stepped runs out "
                "(--runs event_driven).",
                code="raster-memory",
            ) from error
        spikes = network(raster)
        yield {name: spikes[neuron].sum(1).flatten(1).numpy().astype(np.int64) for name, neuron in neurons.items()}
        progress(indices[-1] + 1, len(dataset))
