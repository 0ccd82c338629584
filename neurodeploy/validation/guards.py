"""Activity guards of a compiled network: which layers will be silent, saturated or behind, and what to do about it."""

from neurodeploy.deployment import Deployment
from neurodeploy.events.dataset import EventDataset
from neurodeploy.quantize.guards import Guard, guard_activity, guard_weight
from neurodeploy.validation.runs import Progress, Run, event_driven_run


def activity_guards(
    deployment: Deployment,
    dataset: EventDataset | None = None,
    *,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Guard]:
    """Warnings about a compiled network, in network order; an empty list is good news.

    Without recordings: weights above twice the threshold, in the chip's integers. With recordings, run event by event,
    also layers that never fire, layers that fire on more than half of their updates, and potentials that meet the end
    of their word.

    Args:
        deployment: the compiled network.
        dataset: recordings; labels are not used.
        threads: threads of the emulator.
        slow_clock_hz: ticks per second of the slow clock, for networks with biases.
        progress: called with (recordings done, recordings in all).

    Raises:
        EmulationError: no recordings in the data set, or a layer has biases and ``slow_clock_hz`` is not given.
    """
    run = None
    if dataset is not None:
        run = event_driven_run(deployment, dataset, threads=threads, slow_clock_hz=slow_clock_hz, progress=progress)
    return guards_of_run(deployment, run)


def guards_of_run(deployment: Deployment, run: Run | None) -> list[Guard]:
    """The same from an event-driven run that was made already (None: weights alone)."""
    guards: list[Guard] = []
    for name, layer in deployment.quantized.layers.items():
        guards += guard_weight(name, layer.weight_max, layer.threshold_integer)
        if run is not None:
            counters = run.counters[name]
            guards += guard_activity(
                name, spikes=counters["spikes"], updates=counters["synops"], saturated=counters["saturated"]
            )
    return guards
