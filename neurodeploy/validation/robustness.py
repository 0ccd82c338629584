"""How much the answer depends on what nobody knows: the order of event delivery, or a chip's imperfections.

The chip is asynchronous: the order in which the spikes of one event leave a core and reach the next is not documented,
so several legal orders are run and compared. The same comparison serves Monte-Carlo runs of imperfect chips.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.emulate.dataset import map_recordings
from neurodeploy.errors import ValidationError
from neurodeploy.events.array import EventArray
from neurodeploy.events.dataset import EventDataset
from neurodeploy.target import Execution
from neurodeploy.validation.runs import Progress


@dataclass(frozen=True)
class Trial:
    """The recordings under other switches, beside the reference.

    Attributes:
        switches: what differs from the emulator's defaults.
        predictions: int64 ``[recordings]``.
        neurons_changed: layer -> share of its neurons, over all recordings, whose spike count differs.
        spikes_changed: layer -> sum over neurons and recordings of the counts' differences, as a share of the
            reference's spikes; infinite where the reference has none.
    """

    switches: Mapping[str, Any]
    predictions: NDArray[np.int64]
    neurons_changed: Mapping[str, float]
    spikes_changed: Mapping[str, float]


@dataclass(frozen=True)
class Robustness:
    """The answers under several settings.

    Attributes:
        labels: int64 ``[recordings]``.
        reference: answers with the default switches, int64 ``[recordings]``.
        trials: name -> trial.
    """

    labels: NDArray[np.int64]
    reference: NDArray[np.int64]
    trials: Mapping[str, Trial]

    @property
    def accuracy(self) -> dict[str, float]:
        """Trial -> share of recordings answered with their label; the reference is ``"default"``."""
        answers = {"default": self.reference, **{name: trial.predictions for name, trial in self.trials.items()}}
        return {name: float(np.mean(predictions == self.labels)) for name, predictions in answers.items()}

    @property
    def changed(self) -> NDArray[np.int64]:
        """For each recording, in how many trials its answer is another one than the default's."""
        changes: NDArray[np.int64] = np.sum(
            [trial.predictions != self.reference for trial in self.trials.values()], axis=0, dtype=np.int64
        )
        return changes

    @property
    def answers_changed(self) -> float:
        """Share of all answers (recordings x trials) that are not the default's."""
        return float(self.changed.sum() / (len(self.trials) * len(self.labels)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        accuracy = self.accuracy
        return {
            "recordings": len(self.labels),
            "accuracy": accuracy["default"],
            "answers_changed": self.answers_changed,
            "recordings_changed": np.flatnonzero(self.changed).tolist(),
            "trials": [
                {
                    "name": name,
                    "switches": dict(trial.switches),
                    "accuracy": accuracy[name],
                    "answers_changed": int(np.sum(trial.predictions != self.reference)),
                    "neurons_changed": dict(trial.neurons_changed),
                    "spikes_changed": {
                        layer: share if np.isfinite(share) else None for layer, share in trial.spikes_changed.items()
                    },
                }
                for name, trial in self.trials.items()
            ],
        }


def order_robustness(
    deployment: Deployment,
    dataset: EventDataset,
    *,
    orders: int = 5,
    seed: int = 0,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Robustness:
    """Run every recording in several legal orders of event delivery and compare with the default one.

    Args:
        deployment: the compiled network.
        dataset: labelled recordings.
        orders: how many orders besides the default: depth first, breadth first, then random ones.
        seed: of the first random order; the next ones count on.
        threads: results do not depend on it.
        slow_clock_hz: for networks with biases.
        progress: called with (recordings done, recordings in all).

    Raises:
        ValidationError: no recordings or fewer than one order.
        EventError, EmulationError: as ``Deployment.emulate``.
    """
    _at_least_one("orders", orders)
    trials = deployment.load_target().family.delivery_orders(orders, seed)
    return _compare(deployment, dataset, trials, threads, slow_clock_hz, progress)


def monte_carlo(
    deployment: Deployment,
    dataset: EventDataset,
    *,
    chips: int = 20,
    initial_state: bool = False,
    lost_events: float = 0.0,
    seed: int = 0,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Robustness:
    """Run every recording on several imperfect chips and compare with the perfect one.

    Args:
        deployment: the compiled network.
        dataset: labelled recordings.
        chips: how many; chip i has the seed ``seed + i``.
        initial_state: each neuron starts at a random potential below its threshold, the same in every recording.
        lost_events: probability with which an event that reaches a core is lost.
        seed: the same seed gives the same results.
        threads, slow_clock_hz, progress: as for ``order_robustness``.

    Raises:
        ValidationError: no recordings, no chips, or no imperfection.
        ConfigError: an impossible probability or seed.
        EventError, EmulationError: as ``Deployment.emulate``.
    """
    _at_least_one("chips", chips)
    if not initial_state and not lost_events:
        raise ValidationError(
            "no imperfection is asked for: all chips would do the same.",
            remedy="give initial_state=True, lost_events above 0, or both.",
            code="no-imperfection",
        )
    family = deployment.load_target().family
    trials = {f"chip_{seed + i}": family.imperfections(initial_state, lost_events, seed + i) for i in range(chips)}
    return _compare(deployment, dataset, trials, threads, slow_clock_hz, progress)


def _at_least_one(name: str, count: int) -> None:
    if count < 1:
        raise ValidationError(f"{name} is {count}.", remedy="give at least 1.", code="trials")


def _compare(
    deployment: Deployment,
    dataset: EventDataset,
    trials: Mapping[str, Mapping[str, Any]],
    threads: int,
    slow_clock_hz: float | None,
    progress: Progress,
) -> Robustness:
    n = len(dataset)
    if n == 0:
        raise ValidationError("the data set has no recordings.", remedy="give at least one.", code="no-recordings")
    layers = deployment.program.layers
    settings: list[Mapping[str, Any] | None] = [None, *trials.values()]
    answers = np.zeros((len(settings), n), np.int64)
    neurons = np.zeros((len(settings), len(layers)), np.int64)
    spikes = np.zeros((len(settings), len(layers)), np.int64)
    total = np.zeros(len(layers), np.int64)
    until_us = None if slow_clock_hz is None else dataset.duration_us

    def make_worker() -> Callable[[EventArray], list[Execution]]:
        executors = [deployment.executor(switches=switches, slow_clock_hz=slow_clock_hz) for switches in settings]

        def work(events: EventArray) -> list[Execution]:
            for executor in executors:
                executor.reset()
            return [executor.run(events, record=(), until_us=until_us) for executor in executors]

        return work

    done = 0

    def observe(index: int, executions: list[Execution]) -> None:
        nonlocal done
        first = executions[0]
        for i, execution in enumerate(executions):
            answers[i, index] = np.argmax(execution.counts[layers[-1]].ravel())
            for j, layer in enumerate(layers):
                difference = np.abs(execution.counts[layer].astype(np.int64) - first.counts[layer])
                neurons[i, j] += np.count_nonzero(difference)
                spikes[i, j] += difference.sum()
        for j, layer in enumerate(layers):
            total[j] += first.counts[layer].sum(dtype=np.int64)
        done += 1
        progress(done, n)

    map_recordings(make_worker, dataset, observe, threads=threads)
    sizes = [int(np.prod(deployment.program.layer_shape(layer))) for layer in layers]
    found = {}
    for i, (name, switches) in enumerate(trials.items(), 1):
        changed = {layer: float(neurons[i, j] / (sizes[j] * n)) for j, layer in enumerate(layers)}
        shares = {layer: _share(int(spikes[i, j]), int(total[j])) for j, layer in enumerate(layers)}
        found[name] = Trial(switches, answers[i], changed, shares)
    return Robustness(np.asarray(dataset.labels, np.int64), answers[0], found)


def _share(part: int, whole: int) -> float:
    if whole:
        return part / whole
    return float("inf") if part else 0.0
