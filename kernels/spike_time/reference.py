"""The readable definition: one neuron at a time, potentials as sums over all spikes, derivatives carried forward.

It shares no formula with the compiled code but the response of a synapse: crossings are found by bisection up to the
peak of each interval, the Jacobian by the implicit function theorem on those sums. Spike times agree within 1e-13 of
the slower time constant where no spike grazes the threshold, gradients within 1e-9 of their size (tests).
"""

from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, expm1, inf, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Cell:
    """Constants of one neuron, as in :class:`SpikeTimeNeuron`; ``after`` is ``drop`` or ``v_reset``."""

    tau_mem: float
    tau_syn: float
    threshold: float
    hard: bool
    after: float
    t_ref: float = 0.0

    def response(self, x: float) -> float:
        """Potential at time x >= 0 after the current was set to 1."""
        beta = 1 / self.tau_syn - 1 / self.tau_mem
        return exp(-x / self.tau_mem) * (x if beta == 0 else -expm1(-beta * x) / beta)


@dataclass
class Neuron:
    """One neuron, its input so far, and its own spikes with their derivatives.

    Attributes:
        spikes: spike times.
        by_weight, by_time: for each spike its derivative by each input's weight and time.
        start: since when the potential has been free: the end of the last clamp, -inf before the first.
    """

    cell: Cell
    arrivals: Array
    weights: Array
    spikes: list[float] = field(default_factory=list)
    by_weight: list[Array] = field(default_factory=list)
    by_time: list[Array] = field(default_factory=list)
    start: float = -inf

    def potential(self, t: float) -> float:
        """u just before time t, which is not below ``start``."""
        cell, start = self.cell, self.start
        u = 0.0
        for arrival, weight in zip(self.arrivals, self.weights, strict=True):
            if arrival < t:
                since = max(arrival, start)
                u += weight * exp(-(since - arrival) / cell.tau_syn) * cell.response(t - since)
        if cell.hard:
            return u + (cell.after * exp(-(t - start) / cell.tau_mem) if self.spikes else 0.0)
        return u - sum(cell.after * exp(-(t - spike) / cell.tau_mem) for spike in self.spikes)

    def current(self, t: float) -> float:
        """I just before time t."""
        past = self.arrivals < t
        return float((self.weights[past] * np.exp(-(t - self.arrivals[past]) / self.cell.tau_syn)).sum())

    def crossing(self, low: float, high: float) -> float:
        """First time in (low, high] at which u reaches the threshold; inf: none. No input arrives in between."""
        cell, u = self.cell, self.potential(low)
        current = self.current(np.nextafter(low, inf)) if low > -inf else 0.0
        beta = 1 / cell.tau_syn - 1 / cell.tau_mem
        if current <= 0 or current <= u / cell.tau_mem or current + beta * u <= 0:
            return inf
        to_peak = cell.tau_syn * (1 - u / (cell.tau_mem * current))
        if beta != 0:
            to_peak = -log(cell.tau_syn * (current + beta * u) / (cell.tau_mem * current)) / beta
        high = min(high, low + to_peak)
        if self.potential(high) < cell.threshold:
            return inf
        while low < (middle := 0.5 * (low + high)) < high:
            if self.potential(middle) < cell.threshold:
                low = middle
            else:
                high = middle
        return high

    def differentiate(self, t: float) -> None:
        """Append the derivatives of a spike at t, not yet appended itself: -(dF/dp) / (dF/dt), F = u - threshold."""
        cell, start = self.cell, self.start
        slope = self.current(t) - cell.threshold / cell.tau_mem
        by_weight, by_time = np.zeros_like(self.weights), np.zeros_like(self.weights)
        for j in np.flatnonzero(self.arrivals < t):
            since = max(self.arrivals[j], start)
            decayed = exp(-(since - self.arrivals[j]) / cell.tau_syn)
            x = t - since
            by_weight[j] = decayed * cell.response(x)
            # With the arrival fixed to the start, an earlier arrival only lets the current decay for longer.
            own = cell.response(x) / cell.tau_mem - exp(-x / cell.tau_syn)  # d(response)/d(arrival)
            by_time[j] = self.weights[j] * (decayed * cell.response(x) / cell.tau_syn if since == start else own)
        if cell.hard and self.spikes:
            rise = self.current(start) - cell.after / cell.tau_mem
            last = -exp(-(t - start) / cell.tau_mem) * rise
            by_weight += last * self.by_weight[-1]
            by_time += last * self.by_time[-1]
        elif not cell.hard:
            for spike, own_weight, own_time in zip(self.spikes, self.by_weight, self.by_time, strict=True):
                pull = -cell.after / cell.tau_mem * exp(-(t - spike) / cell.tau_mem)
                by_weight += pull * own_weight
                by_time += pull * own_time
        self.by_weight.append(-by_weight / slope)
        self.by_time.append(-by_time / slope)

    def fire(self, t: float) -> None:
        """A spike at t."""
        self.differentiate(t)
        self.spikes.append(t)
        if self.cell.hard:
            self.start = t + self.cell.t_ref

    def observe(self, spikes: list[float]) -> None:
        """Fire at the given times; one within the refractory time ends it."""
        for t in spikes:
            self.start = min(self.start, t)
            self.fire(t)

    def run(self, t_max: float, max_spikes: int) -> None:
        """Fire until ``t_max`` (inclusive) or ``max_spikes``."""
        edges = [*(float(t) for t in self.arrivals if t <= t_max), t_max]
        for low, high in pairwise(edges):
            while len(self.spikes) < max_spikes:
                free = max(low, self.start, self.spikes[-1] if self.spikes else -inf)
                spike = self.crossing(free, high) if free < high else inf
                if spike == inf:
                    break
                self.fire(spike)


def layer(
    times: Array,
    weight: Array,
    cells: list[Cell],
    max_spikes: int,
    t_max: float = inf,
    observed: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Run one layer.

    Args:
        times: input spikes [B, inputs, slots], inf where there is none.
        weight: [inputs, neurons].
        cells: one per neuron.
        max_spikes: slots per neuron.
        t_max: end of the run.
        observed: times [B, N, max_spikes], inf behind the last, at which neurons fire instead of at their thresholds.

    Returns:
        Times [B, N, max_spikes], and the Jacobians [B, N, max_spikes, inputs] by the weights and
        [B, N, max_spikes, inputs, slots] by the input times.
    """
    batch, inputs, slots = times.shape
    neurons = weight.shape[1]
    out = np.full((batch, neurons, max_spikes), inf)
    by_weight = np.zeros((batch, neurons, max_spikes, inputs))
    by_time = np.zeros((batch, neurons, max_spikes, inputs, slots))
    for b in range(batch):
        flat = times[b].ravel()
        order = np.argsort(flat, kind="stable")
        order = order[flat[order] < inf]
        for n, cell in enumerate(cells):
            neuron = Neuron(cell, flat[order], weight[order // slots, n])
            if observed is None:
                neuron.run(t_max, max_spikes)
            else:
                neuron.observe(observed[b, n][observed[b, n] < inf].tolist())
            for k, spike in enumerate(neuron.spikes):
                out[b, n, k] = spike
                np.add.at(by_weight[b, n, k], order // slots, neuron.by_weight[k])
                by_time[b, n, k].ravel()[order] = neuron.by_time[k]
    return out, by_weight, by_time
