"""The spikes of one recording in one run, sparse, and where two runs first differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.events.array import EventArray
from neurodeploy.events.raster import events_to_raster
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Input
from neurodeploy.target import SpikeArray
from neurodeploy.validation.single_neuron import Addresses, addresses
from neurodeploy.validation.stepped import stepped


@dataclass(frozen=True)
class Trace:
    """Spikes of one run.

    Attributes:
        keys: layer -> sorted numbers ``step * neurons + neuron`` of the places with spikes, int64.
        counts: layer -> spikes at these places.
        sent: Input or Neuron node -> what it sent, in order.
    """

    keys: Mapping[str, NDArray[np.int64]]
    counts: Mapping[str, NDArray[np.int64]]
    sent: Mapping[str, Addresses]


@dataclass(frozen=True)
class Difference:
    """Where two runs first differ.

    Attributes:
        layer: name of the layer.
        neuron: ``(c, y, x)``.
        at: time step, or for runs compared spike by spike the time in microseconds.
        spikes: spikes of the neuron there in each run.
    """

    layer: str
    neuron: tuple[int, int, int]
    at: int
    spikes: tuple[int, int]


def event_trace(deployment: Deployment, found: SpikeArray, events: EventArray, dt_us: int, steps: int) -> Trace:
    """The trace of spikes with times, sorted: ``layer, t, c, y, x``."""
    spikes, layer = addresses(found), found["layer"]
    keys, counts = {}, {}
    sent = {_input_name(deployment.quantized.graph): addresses(events)}
    for index, (name, quantized) in enumerate(deployment.quantized.layers.items()):
        own = spikes[layer == index]
        sent[quantized.neuron] = own
        shape = deployment.program.layer_shape(name)
        own = own[(own["t"] >= 0) & (own["t"] < steps * dt_us)]
        place = np.ravel_multi_index((own["c"], own["y"], own["x"]), shape)
        keys[name], counts[name] = np.unique(own["t"] // dt_us * int(np.prod(shape)) + place, return_counts=True)
    return Trace(keys, counts, sent)


def stepped_trace(deployment: Deployment, graph: Graph, events: EventArray, dt_us: int, steps: int) -> Trace:
    """The trace of ``graph`` run in time steps.

    Raises:
        ValidationError: torch is missing.
    """
    shape = deployment.program.input_shape
    raster = events_to_raster(events, shape, dt_us=dt_us, n_time_steps=steps, dtype=np.float32)
    spikes = stepped(graph)(raster[None])
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
    return Trace(keys, counts, sent)


def _input_name(graph: Graph) -> str:
    return next(name for name, node in graph.nodes.items() if isinstance(node, Input))


def first_difference(deployment: Deployment, a: Trace, b: Trace, layers: Sequence[str]) -> Difference | None:
    """The first difference of two runs in time steps: by step, then layer, then neuron."""
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
    return Difference(name, (c, y, x), step, counts)


def _at(keys: NDArray[np.int64], counts: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts at ``places``, 0 where there is none."""
    result = np.zeros(len(places), np.int64)
    result[np.searchsorted(places, keys)] = counts
    return result


def first_unmatched(
    deployment: Deployment,
    a: Trace,
    b: Trace,
    layers: Sequence[str],
    tolerance_us: int,
) -> Difference | None:
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
    return Difference(name, (c, y, x), t, (near[0], near[1]))


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
