"""The first place where two runs of one recording part, and why: layer, neuron, time, both values and the cause.

The rules are documented in ``README.md`` in this folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.errors import ValidationError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.raster import count_steps
from neurodeploy.graph.graph import Graph
from neurodeploy.quantize.dequantize import dequantize
from neurodeploy.target import SpikeArray
from neurodeploy.validation.causes import CAUSES, Reason, explain
from neurodeploy.validation.given import check_given
from neurodeploy.validation.traces import Trace, event_trace, first_difference, first_unmatched, stepped_trace

N = TypeVar("N", int, float)

#: The runs that can be compared; ``recorded`` are spikes of a real chip. In the order from the trained network on.
ComparedRun = Literal["float", "quantized", "time_stepped", "event_driven", "recorded"]


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
    if not {a, b} <= {"event_driven", "recorded"}:
        check_given(deployment)
    program = deployment.program
    events = as_events(events, sensor_size=program.input_shape)
    steps = max(count_steps(int(events["t"][-1]) + 1 if len(events) else 1, dt_us), 1)
    layers = list(program.layers)
    if recorded is not None and "recorded" in (a, b):
        recorded = _check_recorded(deployment, recorded)
        seen = {program.layers[index] for index in np.unique(recorded["layer"])}
        layers = [name for name in layers if name in (seen if recorded_layers is None else recorded_layers)]
    executor = None
    if "event_driven" in (a, b):
        executor = deployment.executor(switches=switches, slow_clock_hz=slow_clock_hz)
    traces: dict[str, Trace] = {}
    for run in (a, b):
        if run == "recorded" and recorded is not None:
            traces[run] = event_trace(deployment, recorded, events, dt_us, steps)
        elif run == "event_driven" and executor is not None:
            spikes = executor.run(events, until_us=steps * dt_us - 1).spikes
            traces[run] = event_trace(deployment, spikes, events, dt_us, steps)
        else:
            traces[run] = stepped_trace(deployment, _stepped_graph(deployment, run, reference), events, dt_us, steps)
    # From the trained network on, so that the answer does not depend on which run is called a.
    first, last = sorted((a, b), key=get_args(ComparedRun).index)
    exact = {a, b} == {"event_driven", "recorded"}
    if exact:
        found = first_unmatched(deployment, traces[first], traces[last], layers, tolerance_us)
    else:
        found = first_difference(deployment, traces[first], traces[last], layers)
    if found is None:
        return None
    reason = Reason("chip", CAUSES["chip"])
    if last != "recorded":
        ticks_us = _ticks(slow_clock_hz, steps * dt_us)
        runs = (first, last)
        reason = explain(deployment, found, runs, traces[last], dt_us=dt_us, reference=reference, ticks_us=ticks_us)
    turn = 1 if first == a else -1
    return Divergence(
        runs=(a, b),
        layer=found.layer,
        neuron=found.neuron,
        t_us=found.at if exact else found.at * dt_us,
        dt_us=None if exact else dt_us,
        spikes=_pair(found.spikes[::turn]),
        potentials=None if reason.potentials is None else _pair(reason.potentials[::turn]),
        cause=reason.cause,
        explanation=reason.explanation,
    )


def _pair(values: tuple[N, ...]) -> tuple[N, N]:
    return values[0], values[1]


def _ticks(slow_clock_hz: float | None, until_us: int) -> NDArray[np.int64]:
    """Times of the slow clock's ticks before ``until_us``: tick k = 1, 2, ... at floor(k * 1e6 / slow_clock_hz)."""
    if slow_clock_hz is None:
        return np.empty(0, np.int64)
    count = int(until_us * slow_clock_hz / 1e6) + 1
    times = np.array([int(k * 1e6 / slow_clock_hz) for k in range(1, count + 1)], np.int64)
    return times[times < until_us]


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
