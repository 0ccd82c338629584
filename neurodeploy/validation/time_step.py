"""The time-step advisor: up to which length of a time step clock-driven runs still tell what the chip will do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neurodeploy.deployment import Deployment
from neurodeploy.errors import ValidationError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.validation.runs import Progress, Run, event_driven_run, time_stepped_run


@dataclass(frozen=True)
class TimeStep:
    """How well one length of a time step does.

    Attributes:
        dt_us: length of the time step in microseconds.
        agreement: share of recordings that the time-stepped and the event-driven run answer alike.
        rate_difference: mean over the layers of the relative difference of their spike counts,
            ``|time_stepped - event_driven| / max(event_driven, one spike)``.
        accuracy: share of recordings that the time-stepped run answers with their label.
        within: whether agreement and rate difference are within the bounds.
    """

    dt_us: int
    agreement: float
    rate_difference: float
    accuracy: float
    within: bool


@dataclass(frozen=True)
class TimeStepAdvice:
    """The answer of ``largest_dt``.

    Attributes:
        dt_us: the largest candidate that is within the bounds together with all shorter ones; None if the shortest is
            not.
        candidates: what each candidate does, shortest first.
        min_agreement, max_rate_difference: the bounds.
    """

    dt_us: int | None
    candidates: tuple[TimeStep, ...]
    min_agreement: float
    max_rate_difference: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**asdict(self), "candidates": [asdict(step) for step in self.candidates]}


def largest_dt(
    deployment: Deployment,
    dataset: EventDataset,
    candidates_us: Sequence[int],
    *,
    min_agreement: float = 0.98,
    max_rate_difference: float = 0.1,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
    event_driven: Run | None = None,
) -> TimeStepAdvice:
    """The longest time step at which the integer network in time steps still does what the chip does.

    Args:
        deployment: the compiled network.
        dataset: labelled recordings.
        candidates_us: lengths to try, in microseconds.
        min_agreement, max_rate_difference: the bounds, see ``TimeStep``.
        threads: threads of the event-driven run.
        slow_clock_hz: ticks per second of the slow clock, for networks with biases.
        progress: called with (recordings done, recordings in all).
        event_driven: the event-driven run of the same recordings, where it has been made already.

    Raises:
        ValidationError: no candidates, or torch is missing.
    """
    lengths = sorted({int(dt) for dt in candidates_us})
    if not lengths or lengths[0] < 1:
        raise ValidationError(
            f"the candidates for the time step are {list(candidates_us)}.",
            remedy="give lengths of at least 1 us, e.g. 100, 1000 and 10000.",
            code="time-steps",
        )
    if event_driven is None:
        event_driven = event_driven_run(deployment, dataset, threads=threads, slow_clock_hz=slow_clock_hz)
    neurons = {name: layer.neuron for name, layer in deployment.quantized.layers.items()}
    labels = np.asarray(dataset.labels, np.int64)
    steps = []
    for position, dt_us in enumerate(lengths):

        def advance(done: int, _: int, before: int = position * len(dataset)) -> None:
            progress(before + done, len(lengths) * len(dataset))

        run = time_stepped_run(deployment.quantized.graph, dataset, neurons, dt_us=dt_us, progress=advance)
        agreement = float(np.mean(run.predictions == event_driven.predictions))
        difference = _rate_difference(run, event_driven, len(dataset))
        within = agreement >= min_agreement and difference <= max_rate_difference
        steps.append(TimeStep(dt_us, agreement, difference, float(np.mean(run.predictions == labels)), within))
    good = 0
    while good < len(steps) and steps[good].within:
        good += 1
    best = steps[good - 1].dt_us if good else None
    return TimeStepAdvice(best, tuple(steps), min_agreement, max_rate_difference)


def _rate_difference(stepped: Run, event_driven: Run, recordings: int) -> float:
    differences = []
    for name, activity in event_driven.layers.items():
        per_spike = 1 / (activity.neurons * recordings)
        apart = abs(stepped.layers[name].mean_spikes - activity.mean_spikes)
        differences.append(apart / max(activity.mean_spikes, per_spike))
    return float(np.mean(differences))
