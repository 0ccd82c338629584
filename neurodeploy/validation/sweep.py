"""One network compiled in many ways: accuracy and load over a grid of bounds, widths and thresholds."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.compile_options import DEFAULT, CompileOptions
from neurodeploy.deployment import deploy_integers, quantize_for
from neurodeploy.errors import ConstraintError, MappingError, QuantizeError, ValidationError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.files import write_json, write_text
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.graph.nodes import Neuron, Node
from neurodeploy.target import Target, load_target
from neurodeploy.validation.runs import Progress, event_driven_run
from neurodeploy.validation.time_step import TimeStepAdvice, largest_dt

VMin = str | float | None


@dataclass(frozen=True)
class SweepRow:
    """One way of compiling the network, and what it does event by event.

    Attributes:
        v_min: lower bound as ``nd.compile`` takes it; None: the network's own.
        weight_bits: bits of a weight, sign included.
        threshold_scale: factor on every threshold.
        accuracy: share of recordings answered with their label; None if the network could not be compiled so.
        synops: SynOps per recording.
        spikes: layer -> spikes per neuron and recording.
        time_steps: how well time steps of the given lengths do for this network; None if none were asked for.
        error: why it could not be compiled; empty otherwise.
    """

    v_min: VMin
    weight_bits: int
    threshold_scale: float
    accuracy: float | None = None
    synops: float | None = None
    spikes: Mapping[str, float] | None = None
    time_steps: TimeStepAdvice | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        steps = self.time_steps
        spikes = None if self.spikes is None else dict(self.spikes)
        return {**self.__dict__, "spikes": spikes, "time_steps": None if steps is None else steps.to_dict()}


@dataclass(frozen=True)
class Sweep:
    """All rows, in the order of the grid (the last argument varies fastest).

    Attributes:
        rows: one per combination.
        recordings: how many were run.
        source: where they came from.
    """

    rows: tuple[SweepRow, ...]
    recordings: int
    source: str

    @property
    def best(self) -> SweepRow | None:
        """The row with the highest accuracy, of those the one with the fewest SynOps; None if none compiled."""
        done = [row for row in self.rows if row.accuracy is not None and row.synops is not None]
        return min(done, key=lambda row: (-(row.accuracy or 0.0), row.synops or 0.0), default=None)

    def to_dict(self) -> dict[str, Any]:
        """``sweep.json``; the same on every machine and for any number of threads."""
        return {
            "recordings": self.recordings,
            "source": self.source,
            "rows": [row.to_dict() for row in self.rows],
            "best": None if self.best is None else self.best.to_dict(),
        }

    def to_csv(self) -> str:
        """``sweep.csv``: one line per row, and per length of a time step where they were asked for."""
        layers = next((list(row.spikes) for row in self.rows if row.spikes is not None), [])
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        settings = ["v_min", "weight_bits", "threshold_scale", "accuracy", "synops"]
        spikes = [f"spikes[{name}]" for name in layers]
        writer.writerow([*settings, *spikes, "dt_us", "agreement", "rate_difference", "within_bounds", "error"])
        for row in self.rows:
            v_min = "own" if row.v_min is None else row.v_min
            own = [v_min, row.weight_bits, row.threshold_scale, row.accuracy, row.synops]
            own += [row.spikes[name] if row.spikes else None for name in layers]
            for step in row.time_steps.candidates if row.time_steps else (None,):
                cells = [None] * 4 if step is None else [step.dt_us, step.agreement, step.rate_difference, step.within]
                writer.writerow([*own, *cells, row.error])
        return text.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write ``sweep.csv`` and ``sweep.json`` into ``folder``."""
        write_json(Path(folder) / "sweep.json", self.to_dict())
        write_text(Path(folder) / "sweep.csv", self.to_csv())


def sweep(
    graph: Graph | str | Path,
    dataset: EventDataset,
    *,
    target: str | Path | Target = "speck2f",
    v_min: Sequence[VMin] = (None,),
    weight_bits: Sequence[int] | None = None,
    threshold_scale: Sequence[float] = (1.0,),
    options: CompileOptions = DEFAULT,
    dt_us: Sequence[int] = (),
    min_agreement: float = 0.98,
    max_rate_difference: float = 0.1,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Sweep:
    """Compile a network in every combination of the given settings and run it event by event.

    Args:
        graph: a float network, or the path of one.
        dataset: labelled recordings.
        target: name of the chip, path of a ``chip.yaml``, or a loaded chip.
        v_min: lower bounds of the potential, as ``nd.compile`` takes them; None is the network's own.
        weight_bits: bits of a weight, sign included, at most the chip's; by default the chip's.
        threshold_scale: factors on every threshold (the lower bound stays, unless it is given as ``"-threshold"``).
        options: what else the network is compiled with; its ``v_min`` is given here instead.
        dt_us: lengths of a time step in microseconds; for each combination ``largest_dt`` says up to which of them
            time steps do what the chip does. Needs torch.
        min_agreement, max_rate_difference: the bounds of ``largest_dt``.
        threads: threads of the event-driven runs; results do not depend on it.
        slow_clock_hz: ticks per second of the slow clock, for networks with biases.
        progress: called with (recordings done, recordings in all).

    Returns:
        One row per combination. A combination that the chip cannot hold is a row with its error.

    Raises:
        ValidationError: no recordings, an empty list, a ``v_min`` in the options, more weight bits than the chip has
            or fewer than 2, or a threshold scale that is not positive.
        EventError: recordings that do not fit the network's input.
    """
    graph = load(graph) if isinstance(graph, str | Path) else graph
    chip = load_target(target) if isinstance(target, str | Path) else target
    widths = chip.family.quantization_spec(chip.chip)
    bits = (widths.weight_bits,) if weight_bits is None else tuple(weight_bits)
    _check(dataset, v_min, bits, threshold_scale, widths.weight_bits)
    if options.v_min is not None:
        raise ValidationError(
            f"options.v_min is {options.v_min!r}, and v_min is what is swept.",
            remedy="give it as one of the values: v_min=[...].",
            code="v-min",
        )
    grid = list(product(v_min, bits, threshold_scale))
    total = len(grid) * len(dataset) * (1 + len(set(dt_us)))
    labels = np.asarray(dataset.labels, np.int64)
    rows: list[SweepRow] = []
    before = 0

    def advance(done: int, _: int) -> None:
        progress(before + done, total)

    for bound, width, factor in grid:
        row = SweepRow(bound, width, factor)
        try:
            scaled = _scaled_thresholds(graph, factor)
            chosen = replace(options, v_min=bound)
            quantized = quantize_for(chip, scaled, chosen, weight_bits=width)
            deployment = deploy_integers(scaled, quantized, chip, chosen)
        except (QuantizeError, ConstraintError, MappingError) as error:
            rows.append(replace(row, error=error.message))
            before += len(dataset) * (1 + len(set(dt_us)))
            continue
        run = event_driven_run(deployment, dataset, threads=threads, slow_clock_hz=slow_clock_hz, progress=advance)
        before += len(dataset)
        advice = None
        if dt_us:
            advice = largest_dt(
                deployment,
                dataset,
                dt_us,
                min_agreement=min_agreement,
                max_rate_difference=max_rate_difference,
                event_driven=run,
                progress=advance,
            )
            before += len(dataset) * len(set(dt_us))
        rows.append(
            replace(
                row,
                accuracy=float(np.mean(run.predictions == labels)),
                synops=sum(counters["synops"] for counters in run.counters.values()) / len(dataset),
                spikes={name: activity.mean_spikes for name, activity in run.layers.items()},
                time_steps=advice,
            )
        )
    return Sweep(tuple(rows), len(dataset), dataset.source)


def _check(
    dataset: EventDataset, v_min: Sequence[VMin], bits: Sequence[int], factors: Sequence[float], most: int
) -> None:
    if len(dataset) == 0:
        raise ValidationError("the data set has no recordings.", remedy="give at least one.", code="no-recordings")
    if isinstance(v_min, str) or not v_min or not bits or not factors:
        raise ValidationError(
            f"nothing to sweep: v_min {v_min!r}, weight_bits {bits}, threshold_scale {factors}.",
            remedy="give each as a list with at least one value, or leave it out.",
            code="empty-sweep",
        )
    for width in bits:
        if not 2 <= width <= most:
            raise ValidationError(
                f"weight_bits is {width}; the chip holds weights of {most} bits.",
                remedy=f"give 2 to {most}.",
                code="weight-bits",
            )
    for factor in factors:
        if not (np.isfinite(factor) and factor > 0):
            raise ValidationError(
                f"threshold_scale is {factor:g}.", remedy="give factors above 0.", code="threshold-scale"
            )


def _scaled_thresholds(graph: Graph, factor: float) -> Graph:
    if factor == 1:
        return graph
    changed: dict[str, Node] = {
        name: replace(node, threshold=np.asarray(node.threshold * np.float32(factor), np.float32))
        for name, node in graph.nodes.items()
        if isinstance(node, Neuron)
    }
    return graph.with_nodes(changed, notes=[f"every threshold multiplied by {factor:g}."])
