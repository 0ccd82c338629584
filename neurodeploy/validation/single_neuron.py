"""One neuron of a network, run again alone: what reaches it, and what it does with that under given rules.

This is how a difference between two runs is explained: the neuron's input is the same in both, so running it again with
one rule changed at a time shows which rule the difference hangs on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Feedback, Input, Neuron, SumPool2d
from neurodeploy.neuron import Spikes

#: Spikes of one layer, or the recording: fields ``order`` (place in the run), ``t`` (us), ``c``, ``y``, ``x``.
ADDRESS_DTYPE = np.dtype([("order", "<i8"), ("t", "<i8"), ("c", "<i8"), ("y", "<i8"), ("x", "<i8")])

Addresses = NDArray[np.void]


class NotSimple(Exception):
    """The neuron is fed through a node that this module does not follow; caught where causes are named."""


class ThroughLoop(NotSimple):
    """Spikes come back through a loop."""


@dataclass(frozen=True)
class Touches:
    """What reaches one neuron, in order.

    Attributes:
        t_us: times, int64 ``[n]``.
        weight: index ``(c, ky, kx)`` of the weight each arrives through, int64 ``[n, 3]``.
        inside: whether it lies in the layer's declared input map; others come from the rows and columns that a pooling
            leaves over.
    """

    t_us: NDArray[np.int64]
    weight: NDArray[np.int64]
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """How the neuron is run. Potentials are in the unit of the weights.

    Attributes:
        weight: ``[C, ky, kx]``, float64.
        bias, threshold, initial: numbers in the unit of the weights.
        v_min: lower bound; minus infinity for none.
        reset: ``"subtract"`` or ``"zero"``.
        compare: ``"step"``: one sum, one comparison per time step; ``"event"``: after every event.
        spikes: most spikes per comparison: ``"single"``, a number, or ``"multi"`` for as many as the potential holds.
        clip: when ``v_min`` applies: at the end of every ``"step"``, or at every ``"event"``.
        bias_at: ``"steps"``: with every time step; or the times of the clock's ticks in microseconds.
        outside: whether events outside the input map count.
    """

    weight: NDArray[np.float64]
    bias: float
    threshold: float
    initial: float
    v_min: float
    reset: str
    compare: Literal["step", "event"] = "step"
    spikes: Spikes = "multi"
    clip: Literal["step", "event"] = "step"
    bias_at: NDArray[np.int64] | Literal["steps"] = "steps"
    outside: bool = False


def addresses(fields: Any, order: NDArray[np.int64] | None = None) -> Addresses:
    """Anything with ``t``, ``y``, ``x`` and ``c`` (or ``p``) as ``ADDRESS_DTYPE``."""
    result = np.empty(len(fields), ADDRESS_DTYPE)
    result["order"] = np.arange(len(fields)) if order is None else order
    result["c"] = fields["c" if "c" in fields.dtype.names else "p"]
    for name in ("t", "y", "x"):
        result[name] = fields[name]
    return result


def touches(
    graph: Graph, layer: str, neuron: tuple[int, int, int], sent: Mapping[str, Addresses], until_us: int
) -> Touches:
    """What reaches neuron ``(f, y, x)`` of the convolution ``layer`` before ``until_us``.

    Args:
        graph: a quantized graph.
        layer: name of the Conv2d.
        neuron: the neuron.
        sent: name of Input or Neuron node -> what it sent.
        until_us: end of the time that is looked at.

    Raises:
        NotSimple: between a source and the layer is something else than sum pooling, addition and concatenation;
            ThroughLoop if it is a loop.
    """
    conv = graph.nodes[layer]
    if not isinstance(conv, Conv2d):
        raise NotSimple(f"{layer} is a {conv.kind}")
    _, fy, fx = neuron
    (before,) = graph.predecessors(layer)
    parts: list[tuple[NDArray[np.int64], ...]] = []
    for source, pools, shift in _paths(graph, before):
        spikes = sent[source]
        spikes = spikes[spikes["t"] < until_us]
        y, x, inside = spikes["y"].copy(), spikes["x"].copy(), np.ones(len(spikes), bool)
        for pool in pools:
            _, height, width = graph.shapes[pool]
            node = graph.nodes[pool]
            if not isinstance(node, SumPool2d) or node.stride != node.kernel or node.padding != (0, 0):
                raise NotSimple(f"{pool} has overlapping windows")
            y, x = y // node.kernel[0], x // node.kernel[1]
            inside &= (y < height) & (x < width)
        ky = y + conv.padding[0] - conv.stride[0] * fy
        kx = x + conv.padding[1] - conv.stride[1] * fx
        hit = (ky >= 0) & (ky < conv.weight.shape[2]) & (kx >= 0) & (kx < conv.weight.shape[3])
        parts.append(tuple(a[hit] for a in (spikes["order"], spikes["t"], spikes["c"] + shift, ky, kx, inside)))
    order, t, c, ky, kx, inside = (np.concatenate(column) for column in zip(*parts, strict=True))
    sequence = np.lexsort((order, t))
    return Touches(t[sequence], np.stack([c, ky, kx], 1)[sequence], inside[sequence].astype(bool))


def _paths(graph: Graph, name: str) -> list[tuple[str, tuple[str, ...], int]]:
    """Every way into ``name``: the sending Input or Neuron node, the poolings passed, first to last, and what is added
    to the channel.
    """
    node = graph.nodes[name]
    if isinstance(node, Input | Neuron):
        return [(name, (), 0)]
    if isinstance(node, Feedback):
        raise ThroughLoop(f"{name} closes a loop")
    if not isinstance(node, Add | Concat | SumPool2d):
        raise NotSimple(f"{name} is a {node.kind}")
    own = (name,) if isinstance(node, SumPool2d) else ()
    found: list[tuple[str, tuple[str, ...], int]] = []
    first = 0
    for before in graph.predecessors(name):
        found += [(source, (*pools, *own), shift + first) for source, pools, shift in _paths(graph, before)]
        first += graph.shapes[before][0] if isinstance(node, Concat) else 0
    return found


def run_neuron(
    given: Touches, rules: Rules, *, steps: int, dt_us: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Spikes and highest potential (before its reset) of the neuron in every time step, ``[steps]`` each."""
    kept = given.inside | rules.outside
    amounts = rules.weight[tuple(given.weight[kept].T)]
    times = given.t_us[kept]
    if rules.compare == "step":
        return _by_step(times, amounts, rules, steps, dt_us)
    ticks = np.arange(steps, dtype=np.int64) * dt_us if isinstance(rules.bias_at, str) else rules.bias_at
    ticks = ticks[ticks < steps * dt_us] if rules.bias else ticks[:0]
    # A zero weight does not touch its neuron; a tick comes before the events of its microsecond.
    times, amounts = times[amounts != 0], amounts[amounts != 0]
    where = np.searchsorted(times, ticks, side="left")
    return _by_event(
        np.insert(times, where, ticks), np.insert(amounts, where, rules.bias), rules, steps=steps, dt_us=dt_us
    )


def _fire(v: float, rules: Rules) -> tuple[int, float]:
    if not v >= rules.threshold:
        return 0, v
    held = int(v // rules.threshold)
    n = held if rules.spikes == "multi" else 1 if rules.spikes == "single" else min(held, rules.spikes)
    return n, 0.0 if rules.reset == "zero" else v - n * rules.threshold


def _by_step(
    times: NDArray[np.int64], amounts: NDArray[np.float64], rules: Rules, steps: int, dt_us: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    sums = np.bincount(times // dt_us, amounts, minlength=steps)
    counts, peaks = np.zeros(steps, np.int64), np.zeros(steps)
    v = rules.initial
    for step, total in enumerate(sums.tolist()):
        v += total + rules.bias
        peaks[step] = v
        counts[step], v = _fire(v, rules)
        v = max(v, rules.v_min)
    return counts, peaks


def _by_event(
    times: NDArray[np.int64], amounts: NDArray[np.float64], rules: Rules, *, steps: int, dt_us: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    counts, peaks = np.zeros(steps, np.int64), np.full(steps, -np.inf)
    v, now = rules.initial, 0
    at_event = rules.clip == "event"
    for step, amount in zip((times // dt_us).tolist(), amounts.tolist(), strict=True):
        if step > now:
            v = max(v, rules.v_min)
            peaks[now] = max(peaks[now], v)
            peaks[now + 1 : step] = v
            now = step
        v += amount
        if at_event:
            v = max(v, rules.v_min)
        peaks[step] = max(peaks[step], v)
        fired, v = _fire(v, rules)
        counts[step] += fired
    peaks[now:] = np.maximum(peaks[now:], v)
    return counts, peaks
