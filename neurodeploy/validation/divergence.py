"""The first place where two runs of one recording part, and why: layer, neuron, time, both values and the cause.

The rules are documented in ``README.md`` in this folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.errors import ValidationError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.raster import count_steps, events_to_raster
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Input, Neuron
from neurodeploy.quantize.dequantize import dequantize
from neurodeploy.quantize.integers import PASSES
from neurodeploy.target import SpikeArray
from neurodeploy.validation.single_neuron import Addresses, NotSimple, Rules, addresses, run_neuron, touches

#: The runs that can be compared; ``recorded`` are spikes of a real chip. In the order from the trained network on.
ComparedRun = Literal["float", "quantized", "time_stepped", "event_driven", "recorded"]

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
    "arithmetic": "the float32 sums of the time-stepped run end on the other side of the threshold than exact sums",
    "chip": "unknown: the inside of the chip was not recorded",
    "unknown": "unknown: running the neuron again alone does not reproduce both runs",
}


@dataclass(frozen=True)
class Divergence:
    """The earliest difference of two runs.

    Attributes:
        runs: names of the two runs.
        layer: name of the layer.
        neuron: ``(c, y, x)``.
        t_us: start of the time step in which they differ; for two event-driven runs the time of the first spike that
            the other run lacks, in microseconds.
        dt_us: length of the time step; None for two event-driven runs.
        spikes: spikes of the neuron in that step, or around that time, in each run.
        potentials: highest potential in that step as a multiple of the run's own threshold, before the reset; None
            where the neuron could not be run again alone.
        cause: a key of ``CAUSES``.
        explanation: the cause in words.
    """

    runs: tuple[str, str]
    layer: str
    neuron: tuple[int, int, int]
    t_us: int
    dt_us: int | None
    spikes: tuple[int, int]
    potentials: tuple[float, float] | None
    cause: str
    explanation: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Divergence":
        """The inverse of ``to_dict``, also after JSON.

        Raises:
            TypeError: a field is missing or unknown.
        """
        pairs = {name: tuple(values[name]) for name in ("runs", "neuron", "spikes", "potentials") if values[name]}
        return cls(**{**values, **pairs})

    def __str__(self) -> str:
        when = f"at {self.t_us} us" if self.dt_us is None else f"in the {self.dt_us} us from {self.t_us} us on"
        values = [
            f"{name} {count} spike{'s' * (count != 1)}" for name, count in zip(self.runs, self.spikes, strict=True)
        ]
        if self.potentials is not None:
            values = [f"{v} (up to {p:.4g} thresholds)" for v, p in zip(values, self.potentials, strict=True)]
        return (
            f"layer {self.layer}, neuron (c, y, x) = {self.neuron}, {when}: {', '.join(values)}. "
            f"Cause ({self.cause}): {self.explanation}."
        )


@dataclass(frozen=True)
class _Trace:
    """Spikes of one run.

    Attributes:
        keys: layer -> sorted numbers ``step * neurons + neuron`` of the places with spikes, int64.
        counts: layer -> spikes at these places.
        sent: Input or Neuron node -> what it sent, in order.
    """

    keys: Mapping[str, NDArray[np.int64]]
    counts: Mapping[str, NDArray[np.int64]]
    sent: Mapping[str, Addresses]


def first_divergence(
    deployment: Deployment,
    events: EventArray | Any,
    a: ComparedRun = "float",
    b: ComparedRun = "event_driven",
    *,
    dt_us: int = 1000,
    reference: Graph | None = None,
    recorded: SpikeArray | None = None,
    recorded_layers: Sequence[str] | None = None,
    tolerance_us: int = 0,
    switches: Mapping[str, Any] | None = None,
    slow_clock_hz: float | None = None,
) -> Divergence | None:
    """Where two runs of one recording first differ: the earliest time, then the first layer, then the lowest neuron.

    Runs in time steps are compared by the spikes of every neuron in every step; ``event_driven`` and ``recorded`` with
    each other spike by spike.

    Args:
        deployment: the compiled network.
        events: structured array with the fields ``t`` (us), ``x``, ``y``, ``p``, sorted by time.
        a, b: ``"float"``, ``"quantized"``, ``"time_stepped"``, ``"event_driven"`` (see ``validate``) or ``"recorded"``.
        dt_us: length of a time step in microseconds.
        reference: the float network; by default the graph that was compiled.
        recorded: spikes of a real chip, structured array ``layer`` (index into ``deployment.program.layers``), ``t``
            (us, on the recording's clock), ``c``, ``y``, ``x``.
        recorded_layers: the layers that were monitored; by default those that occur in ``recorded``.
        tolerance_us: spikes of ``event_driven`` and ``recorded`` that far apart still count as the same.
        switches, slow_clock_hz: of the event-driven run; see ``Deployment.executor``.

    Returns:
        The first difference, or None if there is none.

    Raises:
        ValidationError: a run that does not exist or is compared with itself, ``recorded`` missing or malformed, or
            torch is missing.
        EventError: events that do not fit the network's input.
        EmulationError: a layer has biases and ``slow_clock_hz`` is not given.
    """
    _check_runs(a, b, recorded)
    program = deployment.program
    events = as_events(events, sensor_size=program.input_shape)
    steps = max(count_steps(int(events["t"][-1]) + 1 if len(events) else 1, dt_us), 1)
    layers = list(program.layers)
    chip: Addresses | None = None
    if recorded is not None and "recorded" in (a, b):
        recorded = _check_recorded(deployment, recorded)
        seen = {program.layers[index] for index in np.unique(recorded["layer"])}
        layers = [name for name in layers if name in (seen if recorded_layers is None else recorded_layers)]
        chip = addresses(recorded)
    traces: dict[str, _Trace] = {}
    executor = (
        None if "event_driven" not in (a, b) else deployment.executor(switches=switches, slow_clock_hz=slow_clock_hz)
    )
    for run in (a, b):
        if run == "recorded" and chip is not None and recorded is not None:
            traces[run] = _event_trace(deployment, chip, recorded["layer"], events, dt_us, steps)
        elif executor is not None and run == "event_driven":
            spikes = executor.run(events, until_us=steps * dt_us - 1).spikes
            traces[run] = _event_trace(deployment, addresses(spikes), spikes["layer"], events, dt_us, steps)
        else:
            graph = _stepped_graph(deployment, run, reference)
            traces[run] = _stepped_trace(deployment, graph, events, dt_us, steps)
    if {a, b} == {"event_driven", "recorded"}:
        return _first_unmatched(deployment, traces[a], traces[b], (a, b), layers, tolerance_us)
    found = _first_difference(deployment, traces[a], traces[b], layers)
    if found is None:
        return None
    layer, step, neuron, counts = found
    divergence = Divergence((a, b), layer, neuron, step * dt_us, dt_us, counts, None, "chip", CAUSES["chip"])
    if "recorded" in (a, b):
        return divergence
    ticks = np.empty(0, np.int64)
    if slow_clock_hz is not None:
        last = int(steps * dt_us * slow_clock_hz / 1e6) + 1
        ticks = np.array([int(k * 1e6 / slow_clock_hz) for k in range(1, last + 1)], np.int64)
    return _explained(deployment, divergence, traces, reference, ticks)


def _check_runs(a: str, b: str, recorded: Any) -> None:
    names = get_args(ComparedRun)
    if a not in names or b not in names or a == b:
        raise ValidationError(
            f"cannot compare {a!r} with {b!r}.", remedy=f"choose two of: {', '.join(names)}.", code="unknown-run"
        )
    if "recorded" in (a, b) and recorded is None:
        raise ValidationError(
            "a comparison with 'recorded' needs the chip's spikes.",
            remedy="give recorded=, a structured array layer, t, c, y, x.",
            code="no-recorded",
        )


def _check_recorded(deployment: Deployment, recorded: Any) -> SpikeArray:
    """The chip's spikes sorted by time."""
    fields = recorded.dtype.names or ()
    missing = [name for name in ("layer", "t", "c", "y", "x") if name not in fields]
    if missing:
        raise ValidationError(
            f"the recorded spikes have no field {', '.join(missing)} (found: {', '.join(fields) or 'none'}).",
            remedy="give a structured array with the fields layer, t, c, y, x.",
            code="recorded-fields",
        )
    if len(recorded) and not 0 <= int(recorded["layer"].min()) <= int(recorded["layer"].max()) < len(
        deployment.program.layers
    ):
        raise ValidationError(
            f"the recorded spikes name layer {int(recorded['layer'].max())}; the program has "
            f"{len(deployment.program.layers)} layers (0..{len(deployment.program.layers) - 1}).",
            remedy="number the layers as in the program: deployment.program.layers.",
            code="recorded-layer",
        )
    for index, name in enumerate(deployment.program.layers):
        own = recorded[recorded["layer"] == index]
        shape = deployment.program.layer_shape(name)
        for field, size in zip(("c", "y", "x"), shape, strict=True):
            if len(own) and not 0 <= int(own[field].min()) <= int(own[field].max()) < size:
                raise ValidationError(
                    f"{name}: recorded spikes reach {field} = {int(own[field].max())}; the layer is {shape}.",
                    remedy="check the layer numbers and the order of the addresses.",
                    code="recorded-address",
                )
    ordered: SpikeArray = recorded[np.argsort(recorded["t"], kind="stable")]
    return ordered


def _stepped_graph(deployment: Deployment, run: str, reference: Graph | None) -> Graph:
    if run == "float":
        return reference or deployment.graph
    return deployment.quantized.graph if run == "time_stepped" else dequantize(deployment.quantized, deployment.graph)


def _input_name(graph: Graph) -> str:
    return next(name for name, node in graph.nodes.items() if isinstance(node, Input))


def _event_trace(
    deployment: Deployment,
    spikes: Addresses,
    layer: NDArray[Any],
    events: EventArray,
    dt_us: int,
    steps: int,
) -> _Trace:
    keys, counts = {}, {}
    sent = {_input_name(deployment.quantized.graph): addresses(events)}
    for index, (name, quantized) in enumerate(deployment.quantized.layers.items()):
        own = spikes[layer == index]
        sent[quantized.neuron] = own
        shape = deployment.program.layer_shape(name)
        own = own[(own["t"] >= 0) & (own["t"] < steps * dt_us)]
        place = np.ravel_multi_index((own["c"], own["y"], own["x"]), shape)
        keys[name], counts[name] = np.unique(own["t"] // dt_us * int(np.prod(shape)) + place, return_counts=True)
    return _Trace(keys, counts, sent)


def _stepped_trace(deployment: Deployment, graph: Graph, events: EventArray, dt_us: int, steps: int) -> _Trace:
    try:
        import torch
    except ImportError as error:
        raise ValidationError(
            "time-stepped runs need torch, which is not installed.",
            remedy="pip install torch, or compare event_driven with recorded.",
            code="torch-missing",
        ) from error
    from neurodeploy.graph.torch_writer import to_torch

    shape = deployment.program.input_shape
    raster = events_to_raster(events, shape, dt_us=dt_us, n_time_steps=steps, dtype=np.float32)
    raster = raster.reshape(1, steps, *graph.input_shape())
    with torch.inference_mode():
        spikes = to_torch(graph).record(torch.from_numpy(raster))
    keys, counts = {}, {}
    sent = {_input_name(deployment.quantized.graph): addresses(events)}
    for name, quantized in deployment.quantized.layers.items():
        values = spikes[quantized.neuron].numpy().reshape(-1)
        keys[name] = np.flatnonzero(values).astype(np.int64)
        counts[name] = np.rint(values[keys[name]]).astype(np.int64)
        layer_shape = deployment.program.layer_shape(name)
        places = np.repeat(keys[name], counts[name])
        step, place = np.divmod(places, int(np.prod(layer_shape)))
        own = np.empty(len(places), np.dtype([("t", "<i8"), ("c", "<i8"), ("y", "<i8"), ("x", "<i8")]))
        own["t"] = step * dt_us
        own["c"], own["y"], own["x"] = np.unravel_index(place, layer_shape)
        sent[quantized.neuron] = addresses(own)
    return _Trace(keys, counts, sent)


def _first_difference(
    deployment: Deployment, a: _Trace, b: _Trace, layers: Sequence[str]
) -> tuple[str, int, tuple[int, int, int], tuple[int, int]] | None:
    """Layer, step, neuron and both counts of the first difference: by step, then layer, then neuron."""
    found: tuple[int, str, int, tuple[int, int]] | None = None
    for name in layers:
        places = np.union1d(a.keys[name], b.keys[name])
        both = [_at(trace.keys[name], trace.counts[name], places) for trace in (a, b)]
        different = np.flatnonzero(both[0] != both[1])
        if len(different):
            first = different[0]
            size = int(np.prod(deployment.program.layer_shape(name)))
            step, place = divmod(int(places[first]), size)
            if found is None or step < found[0]:
                found = (step, name, place, (int(both[0][first]), int(both[1][first])))
    if found is None:
        return None
    step, name, place, counts = found
    c, y, x = (int(v) for v in np.unravel_index(place, deployment.program.layer_shape(name)))
    return name, step, (c, y, x), counts


def _at(keys: NDArray[np.int64], counts: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts at ``places``, 0 where there is none."""
    result = np.zeros(len(places), np.int64)
    result[np.searchsorted(places, keys)] = counts
    return result


def _first_unmatched(
    deployment: Deployment,
    a: _Trace,
    b: _Trace,
    runs: tuple[str, str],
    layers: Sequence[str],
    tolerance_us: int,
) -> Divergence | None:
    """The earliest spike of either run without a partner of the same neuron within the tolerance in the other."""
    best: tuple[int, int, int] | None = None
    for rank, name in enumerate(layers):
        neuron_node = deployment.quantized.layers[name].neuron
        shape = deployment.program.layer_shape(name)
        times = [_by_neuron(trace.sent[neuron_node], shape) for trace in (a, b)]
        for place in sorted(times[0].keys() | times[1].keys()):
            t = _unmatched(times[0].get(place, []), times[1].get(place, []), tolerance_us)
            if t is not None and (best is None or (t, rank, place) < best):
                best = (t, rank, place)
    if best is None:
        return None
    t, rank, place = best
    name = layers[rank]
    shape = deployment.program.layer_shape(name)
    c, y, x = (int(v) for v in np.unravel_index(place, shape))
    neuron_node = deployment.quantized.layers[name].neuron
    near = [
        sum(abs(time - t) <= tolerance_us for time in _by_neuron(trace.sent[neuron_node], shape).get(place, []))
        for trace in (a, b)
    ]
    return Divergence(runs, name, (c, y, x), t, None, (near[0], near[1]), None, "chip", CAUSES["chip"])


def _by_neuron(spikes: Addresses, shape: tuple[int, int, int]) -> dict[int, list[int]]:
    place = np.ravel_multi_index((spikes["c"], spikes["y"], spikes["x"]), shape)
    order = np.lexsort((spikes["t"], place))
    neurons, starts = np.unique(place[order], return_index=True)
    parts = np.split(spikes["t"][order], starts[1:])
    return {int(neuron): part.tolist() for neuron, part in zip(neurons, parts, strict=False)}


def _unmatched(a: list[int], b: list[int], tolerance_us: int) -> int | None:
    """Time of the first spike without a partner; both lists sorted, partners taken in order."""
    i = j = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance_us:
            i, j = i + 1, j + 1
        else:
            return min(a[i], b[j])
    return a[i] if i < len(a) else b[j] if j < len(b) else None


def _explained(
    deployment: Deployment,
    divergence: Divergence,
    traces: Mapping[str, _Trace],
    reference: Graph | None,
    ticks: NDArray[np.int64],
) -> Divergence:
    """The divergence with potentials and cause, found by running its neuron again under one changed rule at a time."""
    dt_us = divergence.dt_us or 1
    step = divergence.t_us // dt_us
    order = get_args(ComparedRun)
    first, last = sorted(divergence.runs, key=order.index)
    spikes = dict(zip(divergence.runs, divergence.spikes, strict=True))
    try:
        stages = _stages(deployment, divergence, reference, ticks)
        arriving = touches(
            deployment.quantized.graph, divergence.layer, divergence.neuron, traces[last].sent, (step + 1) * dt_us
        )
    except NotSimple as error:
        return replace(divergence, cause="unknown", explanation=f"unknown: {error}, which is not followed")
    place = {"float": 0, "quantized": 1, "time_stepped": 3, "event_driven": len(stages) - 1}
    chain = stages[place[first] : place[last] + 1]
    results = [run_neuron(arriving, rules, steps=step + 1, dt_us=dt_us) for _, rules in chain]
    counts = [int(result[0][step]) for result in results]
    if last == "event_driven" and counts[-2] == spikes[last]:
        # What the pooling leaves over need not have reached the neuron to explain the run.
        chain, results, counts = chain[:-1], results[:-1], counts[:-1]
    peaks = {
        name: float(result[1][step]) / rules.threshold
        for name, result, (_, rules) in ((first, results[0], chain[0]), (last, results[-1], chain[-1]))
    }
    a, b = divergence.runs
    divergence = replace(divergence, potentials=(peaks[a], peaks[b]))
    if counts[-1] == spikes[last] and counts[0] == spikes[first]:
        changed = [index for index in range(1, len(counts)) if counts[index] != counts[index - 1]]
        cause = chain[changed[-1]][0]
    elif first in ("float", "quantized") and counts[-1] == spikes[last]:
        cause = "arithmetic"
    else:
        return replace(divergence, potentials=None, cause="unknown", explanation=CAUSES["unknown"])
    return replace(divergence, cause=cause, explanation=CAUSES[cause])


def _stages(
    deployment: Deployment, divergence: Divergence, reference: Graph | None, ticks: NDArray[np.int64]
) -> list[tuple[str, Rules]]:
    """The way from the trained neuron to the chip's, one change at a time: (cause, rules after it)."""
    trained = reference or deployment.graph
    for fold in PASSES:
        trained = fold(trained)
    name = divergence.layer
    layer = deployment.quantized.layers[name]
    integer = deployment.quantized.graph

    def rules(graph: Graph) -> Rules:
        conv, neuron = graph.nodes[name], graph.nodes[layer.neuron]
        if not isinstance(conv, Conv2d) or not isinstance(neuron, Neuron):
            raise NotSimple(f"{name} or {layer.neuron} is another node in the reference")
        f = divergence.neuron[0]
        initial = 0.0 if neuron.initial_v is None else neuron.initial_v
        return Rules(
            weight=conv.weight[f].astype(np.float64),
            bias=0.0 if conv.bias is None else float(conv.bias[f]),
            threshold=float(np.ravel(neuron.threshold)[0]),
            initial=float(np.broadcast_to(initial, deployment.program.layer_shape(name))[divergence.neuron]),
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
    clocked = replace(once, bias_at=ticks)
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
