"""Does the chip do what the network did? The same recordings through every stage of the way, compared."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.errors import ValidationError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.files import write_json, write_text
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Neuron, Output
from neurodeploy.program_file import program_hash
from neurodeploy.quantize.dequantize import dequantize
from neurodeploy.validation.divergence import Divergence, first_divergence
from neurodeploy.validation.given import check_given
from neurodeploy.validation.robustness import Robustness
from neurodeploy.validation.runs import HISTOGRAM_EDGES, Progress, Run, event_driven_run, time_stepped_run
from neurodeploy.validation.waterfall import GapRuns, Waterfall

RunName = Literal["float", "quantized", "time_stepped", "event_driven"]

DESCRIPTIONS: Mapping[str, str] = {
    "float": "the network as it was trained, in time steps",
    "quantized": "the same with weights and biases rounded as on the chip; threshold and v_min as trained",
    "time_stepped": "all integers of the chip (weights, threshold, v_min), still in time steps",
    "event_driven": "the chip configuration, event by event: what the chip is documented to do",
}


@dataclass(frozen=True)
class Validation:
    """Results of a validation.

    Attributes:
        labels: int64 ``[recordings]``.
        runs: run name -> result; the names are ``float``, ``quantized``, ``time_stepped``, ``event_driven`` and, for
            every variant, ``event_driven[NAME]``.
        dt_us: length of the time steps of the time-stepped runs.
        source: where the recordings came from.
        program_sha256: hash of the program that was validated, as in its file's header.
        waterfall: the gap between ``float`` and ``event_driven`` by cause; None without the float run.
        first_divergence: where ``float`` and ``event_driven`` first differ in the first recording that they answer
            differently (in the first of all where there is none); None without the float run or without a difference.
        divergent_recording: index of that recording.
        order_robustness, monte_carlo: the event-driven run in other orders of delivery, and on imperfect chips; None
            where they were not made (``nd.order_robustness``, ``nd.monte_carlo``).
    """

    labels: NDArray[np.int64]
    runs: Mapping[str, Run]
    dt_us: int
    source: str
    program_sha256: str
    waterfall: Waterfall | None = None
    first_divergence: Divergence | None = None
    divergent_recording: int | None = None
    order_robustness: Robustness | None = None
    monte_carlo: Robustness | None = None

    @property
    def accuracy(self) -> dict[str, float]:
        """Run name -> share of recordings answered with their label."""
        return {name: float(np.mean(run.predictions == self.labels)) for name, run in self.runs.items()}

    @property
    def agreement(self) -> dict[str, float]:
        """Run name -> share of recordings answered like the event-driven run."""
        reference = self.runs["event_driven"].predictions
        return {name: float(np.mean(run.predictions == reference)) for name, run in self.runs.items()}

    def to_dict(self) -> dict[str, Any]:
        """``validation.json``: everything but the answers to single recordings. The same on every machine."""
        return {
            "recordings": len(self.labels),
            "source": self.source,
            "program_sha256": self.program_sha256,
            "dt_us": self.dt_us,
            "histogram_edges": list(HISTOGRAM_EDGES),
            "waterfall": None if self.waterfall is None else self.waterfall.to_dict(),
            "first_divergence": None if self.first_divergence is None else self.first_divergence.to_dict(),
            "divergent_recording": self.divergent_recording,
            "order_robustness": None if self.order_robustness is None else self.order_robustness.to_dict(),
            "monte_carlo": None if self.monte_carlo is None else self.monte_carlo.to_dict(),
            "runs": {
                name: {
                    "description": describe(name),
                    "accuracy": self.accuracy[name],
                    "correct": int(np.sum(run.predictions == self.labels)),
                    "agreement_with_event_driven": self.agreement[name],
                    "layers": {
                        layer: {
                            "neurons": activity.neurons,
                            "mean_spikes": activity.mean_spikes,
                            "silent": activity.silent,
                            "histogram": list(activity.histogram),
                        }
                        for layer, activity in run.layers.items()
                    },
                    "counters": {layer: dict(counters) for layer, counters in run.counters.items()},
                }
                for name, run in self.runs.items()
            },
        }

    def per_sample_csv(self) -> str:
        """One line per recording: its label and the answer of every run."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["recording", "label", *self.runs])
        columns = [run.predictions.tolist() for run in self.runs.values()]
        for index, row in enumerate(zip(self.labels.tolist(), *columns, strict=True)):
            writer.writerow([index, *row])
        return text.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write ``validation.json`` and ``per_sample.csv`` into ``folder``."""
        write_json(Path(folder) / "validation.json", self.to_dict())
        write_text(Path(folder) / "per_sample.csv", self.per_sample_csv())


def describe(run: str) -> str:
    """What a run executes, in words."""
    name, _, variant = run.partition("[")
    return DESCRIPTIONS[name] if not variant else f"the same, compiled with {variant.rstrip(']')}"


def validate(
    deployment: Deployment,
    dataset: EventDataset,
    *,
    dt_us: int = 1000,
    runs: Sequence[RunName] = get_args(RunName),
    reference: Graph | None = None,
    variants: Mapping[str, Deployment] | None = None,
    explain: bool = True,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Validation:
    """Run labelled recordings through the network as trained and through every stage down to the chip's events.

    Args:
        deployment: the compiled network.
        dataset: labelled recordings.
        dt_us: length of a time step of the time-stepped runs, in microseconds; that of the training is the natural one.
        runs: which runs to make; ``event_driven`` is always made. All others need torch.
        reference: the float network, with the neuron nodes of the compiled one; by default the graph that was compiled.
        variants: name -> another deployment of the network, run event-driven beside the first.
        explain: with the float run, also split the gap by cause and find the first divergence; makes up to five more
            runs, those that the requested ones do not hold already.
        threads: threads of the event-driven runs; results do not depend on it.
        slow_clock_hz: ticks per second of the slow clock, for networks with biases; ``1e6 / dt_us`` is what
            time-stepped training meant.
        progress: called with (recordings done, recordings in all) over all runs.

    Raises:
        ValidationError: no recordings, recordings of another sensor, labels that are no output neuron, an unknown run,
            several outputs or inputs, settings that change the events, a reference or variant with other layers, or
            torch is missing.
        EmulationError: a layer has biases and ``slow_clock_hz`` is not given.
    """
    program = deployment.program
    classes = int(np.prod(program.layer_shape(program.layers[-1])))
    labels = np.asarray(dataset.labels, np.int64)
    unknown = sorted(set(runs) - set(get_args(RunName)))
    if unknown:
        raise ValidationError(
            f"unknown run: {', '.join(unknown)}.", remedy=f"choose from: {', '.join(DESCRIPTIONS)}.", code="unknown-run"
        )
    if set(runs) - {"event_driven"}:
        check_given(deployment)
    outputs = [name for name, node in deployment.graph.nodes.items() if isinstance(node, Output)]
    if len(outputs) != 1:
        raise ValidationError(
            f"the network has {len(outputs)} outputs ({', '.join(outputs)}); the answer is read from one.",
            remedy="compile a network with one output.",
            code="several-outputs",
        )
    if len(labels) == 0:
        raise ValidationError("the data set has no recordings.", remedy="give at least one.", code="no-recordings")
    if labels.max() >= classes:
        raise ValidationError(
            f"label {labels.max()} has no output neuron: the network has {classes} (0..{classes - 1}).",
            remedy="use the data set the network was trained for.",
            code="label",
        )
    if dataset.sensor_size != program.input_shape:
        raise ValidationError(
            f"the recordings have (channels, height, width) = {dataset.sensor_size}, "
            f"the network takes {program.input_shape}.",
            remedy="use recordings of the sensor the network was trained for.",
            code="sensor-size",
        )
    if reference is not None and not isinstance(reference, Graph):
        raise ValidationError(
            f"the reference is a {type(reference).__name__}; it must be a graph.",
            remedy="give nd.trace(module, sample) for a torch module.",
            code="reference",
        )
    variants = dict(variants or {})
    for name, other in variants.items():
        if other.program.layers != program.layers or other.program.input_shape != program.input_shape:
            raise ValidationError(
                f"variant {name} has the layers {', '.join(other.program.layers)} and takes "
                f"{other.program.input_shape}; the network has {', '.join(program.layers)} and takes "
                f"{program.input_shape}.",
                remedy="give other deployments of the same network.",
                code="variant",
            )
    neurons = {name: layer.neuron for name, layer in deployment.quantized.layers.items()}
    graphs = {
        "float": reference or deployment.graph,
        "quantized": dequantize(deployment.quantized, deployment.graph),
        "time_stepped": deployment.quantized.graph,
    }
    missing = [name for name in neurons.values() if not isinstance(graphs["float"].nodes.get(name), Neuron)]
    if missing:
        raise ValidationError(
            f"the reference has no neurons called {', '.join(missing)}, which the compiled network has.",
            remedy="give the graph that was compiled, or one with the same names.",
            code="reference",
        )
    chosen = [name for name in graphs if name in runs]
    events = {"event_driven": deployment, **{f"event_driven[{name}]": other for name, other in variants.items()}}
    gap: GapRuns | None = None
    if explain and "float" in chosen:
        made: dict[str, Graph | Deployment] = {**{name: graphs[name] for name in chosen}, "event_driven": deployment}
        gap = GapRuns(deployment, graphs["float"], made)
    total = len(dataset) * (len(chosen) + len(events) + (len(gap.missing) if gap else 0))
    results: dict[str, Run] = {}
    for other in events.values():
        other.executor(slow_clock_hz=slow_clock_hz)  # refuses what it cannot execute before the long runs, not after

    def advance(done: int, _: int) -> None:
        progress(len(results) * len(dataset) + done, total)

    for name in chosen:
        results[name] = time_stepped_run(graphs[name], dataset, neurons, dt_us=dt_us, progress=advance)
    for name, other in events.items():
        results[name] = event_driven_run(other, dataset, threads=threads, slow_clock_hz=slow_clock_hz, progress=advance)
    waterfall, divergence, index = None, None, None
    if gap is not None:
        waterfall = gap.waterfall(
            results, dataset, neurons, dt_us=dt_us, threads=threads, slow_clock_hz=slow_clock_hz, progress=advance
        )
        different = results["float"].predictions != results["event_driven"].predictions
        index = int(np.argmax(different))
        events_of_one, _ = dataset[index]
        divergence = first_divergence(
            deployment, events_of_one, dt_us=dt_us, reference=reference, slow_clock_hz=slow_clock_hz
        )
    return Validation(
        labels,
        results,
        dt_us,
        dataset.source,
        program_hash(program),
        waterfall,
        divergence,
        None if divergence is None else index,
    )
