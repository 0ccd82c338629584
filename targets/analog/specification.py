"""What the analog core computes, in Python to be read: one neuron, one stretch between two events at a time.

It shares no formula with the compiled core but the response of a synapse: the extrema of the potential are found
first, then the crossing between them, both by bisection. Its spikes are those of the core, at times within 1e-9 of the
synapse's time constant (tests), but where an extremum is on the threshold within rounding.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, expm1, inf, log

import numpy as np

from neurodeploy.targets.analog import philox
from neurodeploy.targets.analog.emulator import Integers, TrialNoise
from neurodeploy.targets.analog.parameters import CONSTANTS, Floats, LayerParameters


@dataclass(frozen=True)
class State:
    """Potential and currents of both receptors at one instant."""

    u: float = 0.0
    exc: float = 0.0
    inh: float = 0.0


@dataclass(frozen=True)
class Neuron:
    """Constants of one neuron, as in :class:`LayerParameters`."""

    tau_mem: float
    tau_syn_exc: float
    tau_syn_inh: float
    threshold: float
    v_reset: float
    t_ref: float

    def response(self, x: float, tau_syn: float) -> float:
        """Potential at time x after a current of 1."""
        beta = 1 / tau_syn - 1 / self.tau_mem
        if x * abs(beta) > 1:
            return (exp(-x / self.tau_mem) - exp(-x / tau_syn)) / beta
        return exp(-x / self.tau_mem) * (x if beta == 0 else -expm1(-beta * x) / beta)

    def after(self, state: State, x: float) -> State:
        """The state a time x later, if nothing happens."""
        rise = self.response(x, self.tau_syn_exc) * state.exc - self.response(x, self.tau_syn_inh) * state.inh
        exc, inh = exp(-x / self.tau_syn_exc) * state.exc, exp(-x / self.tau_syn_inh) * state.inh
        return State(exp(-x / self.tau_mem) * state.u + rise, exc, inh)

    def slope(self, state: State) -> float:
        """Derivative of the potential."""
        return state.exc - state.inh - state.u / self.tau_mem

    def turn(self, state: State) -> float:
        """When the total current turns, after which the slope changes its sign once at most, and before it as well."""
        falling, rising = state.exc / self.tau_syn_exc, state.inh / self.tau_syn_inh
        beta = 1 / self.tau_syn_inh - 1 / self.tau_syn_exc
        return log(rising / falling) / beta if falling > 0 and rising > 0 and beta != 0 else 0.0

    def extrema(self, state: State, end: float) -> list[float]:
        """Ends of the stretches of [0, end] on which the potential only rises or only falls."""
        found = [0.0]
        edges = [0.0, *(turn for turn in [self.turn(state)] if 0 < turn < end), end]
        for low, high in pairwise(edges):
            rises = self.slope(self.after(state, low)) > 0
            if rises != (self.slope(self.after(state, high)) > 0):
                found.append(_bisect(lambda x, rises=rises: (self.slope(self.after(state, x)) > 0) == rises, low, high))
        return [*found, end]

    def crossing(self, state: State, end: float) -> tuple[float, float]:
        """Time of the first crossing of the threshold in [0, end], inf: none; and the least distance of an extremum."""
        if state.u >= self.threshold:
            return 0.0, inf
        end = min(end, 300 * max(self.tau_mem, self.tau_syn_exc, self.tau_syn_inh))  # then nothing is left
        margin = inf
        edges = self.extrema(state, end)
        for low, high in pairwise(edges):
            highest = self.after(state, high).u
            margin = min(margin, abs(highest - self.threshold))
            if highest >= self.threshold:
                return _bisect(lambda x: self.after(state, x).u < self.threshold, low, high), margin
        return inf, margin


def _bisect(before: object, low: float, high: float) -> float:
    """The first number at which ``before`` is no longer true; it is at ``low``."""
    while low < (middle := 0.5 * (low + high)) < high:
        if before(middle):  # type: ignore[operator]
            low = middle
        else:
            high = middle
    return high


def spikes_of(
    neuron: Neuron, arrivals: list[tuple[float, float]], t_max: float, max_spikes: int
) -> tuple[list[float], float]:
    """Spike times of one neuron, and how near its potential came to the threshold without certainty.

    Args:
        neuron: its constants.
        arrivals: (time, weight) in order; none after ``t_max``.
        t_max: end, inclusive.
        max_spikes: where to stop.
    """
    state, free, margin = State(), -inf, inf  # free: end of the last clamp
    spikes: list[float] = []
    ends = [*(time for time, _ in arrivals[1:]), t_max]
    for (time, weight), end in zip(arrivals, ends, strict=False):
        state = replace(state, exc=state.exc + max(weight, 0.0), inh=state.inh + max(-weight, 0.0))
        while len(spikes) < max_spikes:
            if free > time:  # held: the currents flow on
                until = min(free, end)
                state = replace(neuron.after(state, until - time), u=neuron.v_reset)
                time = until
                if free > end:
                    break
            wait, near = neuron.crossing(state, end - time)
            margin = min(margin, near)
            if wait == inf:
                break
            state = replace(neuron.after(state, wait), u=neuron.v_reset)
            time += wait
            free = time + neuron.t_ref
            spikes.append(time)
        if end < inf and time < end:
            state = neuron.after(state, end - time)
    return spikes, margin


def run_layer(
    times: Floats,
    layer: LayerParameters,
    *,
    max_spikes: int,
    t_max: float = inf,
    noise: TrialNoise | None = None,
    seed: int = 0,
    trials: Integers | None = None,
    sites: Integers | None = None,
) -> tuple[Floats, float]:
    """Run one layer; arguments as for ``emulator.run_layer``, whose first ``max_spikes`` spikes this gives.

    Returns:
        Spike times ``[B, N, max_spikes]``, and the least distance of an extremum of a potential from its threshold:
        where it is a rounding error, rounding decided over a spike.
    """
    noise = noise or TrialNoise()
    batch, _, slots = times.shape
    trials = np.arange(batch) if trials is None else trials
    sites = np.arange(layer.neurons) if sites is None else sites
    out = np.full((batch, layer.neurons, max_spikes), inf)
    nearest = inf
    for b in range(batch):
        flat = times[b].ravel()
        order = sorted((time, slot) for slot, time in enumerate(flat.tolist()) if time < inf and time <= t_max)
        for n in range(layer.neurons):
            neuron = Neuron(*(float(getattr(layer, name)[n]) for name in CONSTANTS))
            if noise.threshold_cv > 0:
                factor = 1 + noise.threshold_cv * _normal(seed, 0, int(sites[n]), int(trials[b]), purpose=1)
                neuron = replace(neuron, threshold=neuron.threshold * factor)
            arrivals = [(time, float(layer.weight[slot // slots, n])) for time, slot in order]
            spikes, margin = spikes_of(neuron, arrivals, t_max, max_spikes)
            nearest = min(nearest, margin)
            if noise.jitter_s > 0 and spikes:
                first = next(time for time, weight in arrivals if weight > 0)
                moved = [
                    max(first, spike + noise.jitter_s * _normal(seed, k, int(sites[n]), int(trials[b]), purpose=0))
                    for k, spike in enumerate(spikes)
                ]
                spikes = sorted(spike for spike in moved if spike <= t_max)
            out[b, n, : len(spikes)] = spikes
    return out, nearest


def _normal(seed: int, index: int, site: int, trial: int, *, purpose: int) -> float:
    """The normal number of a spike (or of a threshold: index 0) at a site in a trial."""
    return float(philox.normal(seed, np.array([[index, site, trial, purpose]], dtype=np.uint32))[0])
