"""Why one neuron does something else in two runs: it is run again alone, one rule changed at a time.

The rules are documented in ``README.md`` in this folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Neuron
from neurodeploy.quantize.dequantize import dequantize
from neurodeploy.quantize.integers import PASSES
from neurodeploy.validation.single_neuron import NotSimple, Rules, ThroughLoop, run_neuron, touches
from neurodeploy.validation.traces import Difference, Trace

#: Cause -> what it means, completed by the two runs' values in front of it.
CAUSES: Mapping[str, str] = {
    "weight-rounding": "its weights (or bias, or initial potential) were rounded to integers",
    "threshold-rounding": "its threshold was rounded to an integer",
    "v_min": "its potential was held at a lower bound v_min that differs from the trained one",
    "spikes-per-step": "the time-stepped network limits the spikes of one step; the chip fires at every event",
    "order-in-step": "the chip compares with the threshold at every event, so that a neuron fires before later events "
    "of the step take the potential down again; time steps add up all events first",
    "v_min-per-event": "the chip applies v_min at every event; in time steps positive and negative input of one step "
    "cancel before v_min is applied",
    "one-spike-per-event": "one event lifts the potential to several thresholds; the chip fires once per event and "
    "keeps the rest, the time-stepped network fires several spikes in the step",
    "bias-clock": "the chip adds the bias at the ticks of its slow clock, not at every time step",
    "pooling-remainder": "spikes from rows or columns that the pooling leaves over reach the neuron; time steps drop "
    "them",
    "loop": "its layer takes spikes that come back through a loop: in time steps one step later, on the chip at once",
    "arithmetic": "the float32 sums of the time-stepped run end on the other side of the threshold than exact sums",
    "chip": "unknown: the inside of the chip was not recorded",
    "unknown": "unknown: running the neuron again alone does not reproduce both runs",
}


@dataclass(frozen=True)
class Reason:
    """Why the neuron differs.

    Attributes:
        cause: a key of ``CAUSES``.
        explanation: in words.
        potentials: highest potential in the step in each run, as a multiple of its threshold; None where unknown.
    """

    cause: str
    explanation: str
    potentials: tuple[float, float] | None = None


def explain(
    deployment: Deployment,
    difference: Difference,
    runs: tuple[str, str],
    trace: Trace,
    *,
    dt_us: int,
    reference: Graph | None,
    ticks_us: NDArray[np.int64],
) -> Reason:
    """The cause of the first difference of two runs in time steps.

    Args:
        deployment: the compiled network.
        difference: the first one, so that everything that reaches the neuron is the same in both runs.
        runs: the two runs in the order float, quantized, time_stepped, event_driven; ``difference.spikes`` likewise.
        trace: of the second run.
        dt_us: length of a time step in microseconds.
        reference: the float network; None for the one that was compiled.
        ticks_us: times of the slow clock's ticks.
    """
    step = difference.at
    try:
        stages = _stages(deployment, difference, reference, ticks_us)
        until_us = (step + 1) * dt_us
        arriving = touches(deployment.quantized.graph, difference.layer, difference.neuron, trace.sent, until_us)
    except ThroughLoop as error:
        cause = "loop" if runs[1] == "event_driven" else "unknown"
        return Reason(cause, CAUSES["loop"] if cause == "loop" else f"unknown: {error}, which is not followed")
    except NotSimple as error:
        return Reason("unknown", f"unknown: {error}, which is not followed")
    place = {"float": 0, "quantized": 1, "time_stepped": 3, "event_driven": len(stages) - 1}
    chain = stages[place[runs[0]] : place[runs[1]] + 1]
    results = [run_neuron(arriving, rules, steps=step + 1, dt_us=dt_us) for _, rules in chain]
    counts = [int(spikes[step]) for spikes, _ in results]
    if runs[1] == "event_driven" and counts[-2] == difference.spikes[1]:
        # What the pooling leaves over need not have reached the neuron to explain the run.
        chain, results, counts = chain[:-1], results[:-1], counts[:-1]
    if counts[-1] != difference.spikes[1]:
        return Reason("unknown", CAUSES["unknown"])
    if counts[0] == difference.spikes[0]:
        cause = next(chain[i][0] for i in range(len(counts) - 1, 0, -1) if counts[i] != counts[i - 1])
    elif runs[0] in ("float", "quantized"):
        cause = "arithmetic"
    else:
        return Reason("unknown", CAUSES["unknown"])
    first, last = (float(results[i][1][step]) / chain[i][1].threshold for i in (0, -1))
    return Reason(cause, CAUSES[cause], (first, last))


def _stages(
    deployment: Deployment, difference: Difference, reference: Graph | None, ticks_us: NDArray[np.int64]
) -> list[tuple[str, Rules]]:
    """The way from the trained neuron to the chip's, one change at a time: (cause, rules after it)."""
    trained = reference or deployment.graph
    try:
        for fold in PASSES:
            trained = fold(trained)
    except QuantizeError as error:
        raise NotSimple(f"the reference cannot be folded ({error.message})") from error
    name = difference.layer
    layer = deployment.quantized.layers[name]
    integer = deployment.quantized.graph

    def rules(graph: Graph) -> Rules:
        conv, neuron = graph.nodes.get(name), graph.nodes.get(layer.neuron)
        if not isinstance(conv, Conv2d) or not isinstance(neuron, Neuron):
            raise NotSimple(f"{name} or {layer.neuron} is another node in the reference")
        f = difference.neuron[0]
        initial = 0.0 if neuron.initial_v is None else neuron.initial_v
        return Rules(
            weight=conv.weight[f].astype(np.float64),
            bias=0.0 if conv.bias is None else float(conv.bias[f]),
            threshold=float(np.ravel(neuron.threshold)[0]),
            initial=float(np.broadcast_to(initial, deployment.program.layer_shape(name))[difference.neuron]),
            v_min=-np.inf if neuron.v_min is None else float(np.ravel(neuron.v_min)[0]),
            reset=neuron.reset,
            spikes=neuron.spikes,
        )

    stepped, before = rules(integer), rules(trained)
    rounded = rules(dequantize(deployment.quantized, deployment.graph))
    multi = replace(stepped, spikes="multi")
    at_event = replace(multi, compare="event")
    clipped = replace(at_event, clip="event")
    once = replace(clipped, spikes="single")
    clocked = replace(once, bias_at=ticks_us)
    return [
        ("float", before),
        ("weight-rounding", rounded),
        ("threshold-rounding", replace(stepped, v_min=rounded.v_min * layer.scale)),
        ("v_min", stepped),
        ("spikes-per-step", multi),
        ("order-in-step", at_event),
        ("v_min-per-event", clipped),
        ("one-spike-per-event", once),
        ("bias-clock", clocked),
        ("pooling-remainder", replace(clocked, outside=True)),
    ]
