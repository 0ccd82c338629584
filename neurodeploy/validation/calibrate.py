"""Calibration: per layer, the weights' range and the threshold with which the chip's neurons fire as the trained ones.

Method: ``README.md`` in this folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.compile_options import DEFAULT, CompileOptions
from neurodeploy.deployment import Deployment, compile_with
from neurodeploy.emulate.dataset import execute_dataset
from neurodeploy.errors import ValidationError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.files import write_json
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.quantize.calibration import CALIBRATION_FILE, LayerCalibration, to_plain
from neurodeploy.target import Execution, Target, load_target
from neurodeploy.validation.runs import Progress, time_stepped_counts

#: Shares of the largest weight that are tried as the end of a layer's integer range.
WEIGHT_RANGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)

#: How often a layer's threshold is moved towards the trained network's rate.
THRESHOLD_STEPS = 3

Counts = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class CalibratedLayer:
    """One layer before and after its calibration; layers before it are calibrated already in both.

    Attributes:
        layer: name of the weight layer.
        weight_range, threshold: what was chosen, as in ``LayerCalibration``.
        rate_trained, rate_before, rate_after: spikes per neuron and recording.
        error_before, error_after: distance of the spike counts per recording and neuron from the trained network's,
            relative to them (L2).
    """

    layer: str
    weight_range: float
    threshold: float
    rate_trained: float
    rate_before: float
    rate_after: float
    error_before: float
    error_after: float


@dataclass(frozen=True)
class CalibrationResult:
    """What ``calibrate`` chose, and what it does.

    Attributes:
        calibration: for ``nd.compile(..., calibration=)``.
        layers: one row per layer, in network order.
        accuracy_before, accuracy_after: share of the recordings answered with their label, event by event, without and
            with the calibration.
        recordings, source: how many recordings, and where they came from.
    """

    calibration: Mapping[str, LayerCalibration]
    layers: tuple[CalibratedLayer, ...]
    accuracy_before: float
    accuracy_after: float
    recordings: int
    source: str

    def to_dict(self) -> dict[str, Any]:
        """``calibration.json``."""
        return {
            "calibration": to_plain(self.calibration),
            "layers": [asdict(layer) for layer in self.layers],
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
            "recordings": self.recordings,
            "source": self.source,
        }

    def save(self, folder: str | Path) -> None:
        """Write ``calibration.json`` into ``folder``."""
        write_json(Path(folder) / CALIBRATION_FILE, self.to_dict())


def calibrate(
    graph: Graph | str | Path,
    dataset: EventDataset,
    *,
    dt_us: int,
    target: str | Path | Target = "speck2f",
    weight_ranges: Sequence[float] = WEIGHT_RANGES,
    options: CompileOptions = DEFAULT,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> CalibrationResult:
    """Choose every layer's weight range and threshold on recordings, layer by layer in network order.

    Each choice is the one whose event-driven integers fire most like the trained float network in time steps of
    ``dt_us``; where nothing does better than plain quantization, plain quantization stays.

    Args:
        graph: a float network, or the path of one.
        dataset: labelled recordings, none of those the result is judged on.
        dt_us: length of a time step in microseconds for the float network: that of its training. Needs torch.
        target: as for ``nd.compile``.
        weight_ranges: ends of the range to try, as shares of a layer's largest weight.
        options: what the network is compiled with, without a calibration.
        threads: threads of the event-driven runs; results do not depend on it.
        slow_clock_hz: ticks per second of the slow clock, for networks with biases.
        progress: called with (event-driven runs done, runs in all).

    Raises:
        ValidationError: no recordings or no weight ranges, a calibration in the options, or torch is missing.
        QuantizeError, ConstraintError, MappingError: the network does not fit the chip.
    """
    graph = load(graph) if isinstance(graph, str | Path) else graph
    chip = load_target(target) if isinstance(target, str | Path) else target
    if len(dataset) == 0 or not weight_ranges:
        raise ValidationError(
            f"{len(dataset)} recordings and {len(weight_ranges)} weight ranges to calibrate with.",
            remedy="give at least one of each.",
            code="no-recordings",
        )
    if options.calibration is not None:
        raise ValidationError(
            "the options hold a calibration, which is what is looked for.",
            remedy="leave it out.",
            code="calibration",
        )
    chosen: dict[str, LayerCalibration] = {}

    def run(calibration: Mapping[str, LayerCalibration]) -> Counts:
        deployment = compile_with(graph, chip, replace(options, calibration=calibration))
        return _event_driven_counts(deployment, dataset, threads=threads, slow_clock_hz=slow_clock_hz)

    plain = compile_with(graph, chip, options)
    neurons = {name: layer.neuron for name, layer in plain.quantized.layers.items()}
    trained = time_stepped_counts(graph, dataset, neurons, dt_us=dt_us)
    before = now = _event_driven_counts(plain, dataset, threads=threads, slow_clock_hz=slow_clock_hz)
    rows: list[CalibratedLayer] = []
    runs_per_layer = len(weight_ranges) + THRESHOLD_STEPS
    done = 0
    for name in neurons:
        best, best_counts = LayerCalibration(), now
        best_error = first_error = _error(now[name], trained[name])
        rate_before = float(now[name].mean())

        def attempt(candidate: LayerCalibration, layer: str = name) -> Counts:
            nonlocal best, best_counts, best_error
            counts = run({**chosen, layer: candidate})
            error = _error(counts[layer], trained[layer])
            if error < best_error:
                best, best_counts, best_error = candidate, counts, error
            return counts

        for end in weight_ranges:
            if end != 1:
                attempt(LayerCalibration(weight_range=end))
            progress(done := done + 1, runs_per_layer * len(neurons))
        factor, counts = 1.0, best_counts
        for _ in range(THRESHOLD_STEPS):
            spikes, wanted = counts[name].sum(), trained[name].sum()
            if spikes and wanted and spikes != wanted:
                factor *= float(np.clip(spikes / wanted, 0.5, 2.0))
                counts = attempt(LayerCalibration(best.weight_range, round(factor, 4)))
            progress(done := done + 1, runs_per_layer * len(neurons))
        if best != LayerCalibration():
            chosen[name] = best
        now = best_counts
        rows.append(
            CalibratedLayer(
                layer=name,
                weight_range=best.weight_range,
                threshold=best.threshold,
                rate_trained=float(trained[name].mean()),
                rate_before=rate_before,
                rate_after=float(now[name].mean()),
                error_before=first_error,
                error_after=best_error,
            )
        )
    labels = np.asarray(dataset.labels, np.int64)
    last = list(neurons)[-1]
    return CalibrationResult(
        calibration=chosen,
        layers=tuple(rows),
        accuracy_before=float(np.mean(before[last].argmax(1) == labels)),
        accuracy_after=float(np.mean(now[last].argmax(1) == labels)),
        recordings=len(dataset),
        source=dataset.source,
    )


def _event_driven_counts(
    deployment: Deployment, dataset: EventDataset, *, threads: int, slow_clock_hz: float | None
) -> Counts:
    """Layer -> spikes per recording and neuron, int64 ``[recordings, neurons]``."""
    program = deployment.program
    counts = {
        name: np.zeros((len(dataset), int(np.prod(program.layer_shape(name)))), np.int64) for name in program.layers
    }

    def observe(index: int, execution: Execution) -> None:
        for name in program.layers:
            counts[name][index] = execution.counts[name].ravel()

    execute_dataset(
        lambda: deployment.executor(slow_clock_hz=slow_clock_hz),
        dataset,
        observe,
        threads=threads,
        until_us=None if slow_clock_hz is None else dataset.duration_us,
    )
    return counts


def _error(counts: NDArray[np.int64], trained: NDArray[np.int64]) -> float:
    size = float(np.linalg.norm(trained))
    return float(np.linalg.norm(counts - trained)) / (size or 1.0)
