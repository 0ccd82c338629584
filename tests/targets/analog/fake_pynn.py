"""A substitute for pynn_brainscales.brainscales2: the names that its documentation and demos use, and no others.

Cells check their parameters against calix' ranges. A run integrates the network by small steps, so that what comes back
depends on everything that was set: potentials in LSB, times in us, weights in steps of ``LSB_PER_S``.
"""

import json
import os
from types import SimpleNamespace

import numpy as np

RANGES = {
    "v_rest": (50, 160),
    "v_reset": (50, 160),
    "v_thresh": (50, 220),
    "tau_m": (0.5, 60),
    "tau_syn_E": (0.3, 30),
    "tau_syn_I": (0.3, 30),
    "cm": (0, 63),
    "tau_refrac": (0.04, 32),
    "i_synin_gm_E": (30, 800),
    "i_synin_gm_I": (30, 800),
    "synapse_dac_bias": (30, 1022),
}
WHOLE = ("v_rest", "v_reset", "v_thresh", "cm", "i_synin_gm_E", "i_synin_gm_I", "synapse_dac_bias")
STATE = SimpleNamespace(populations=[], projections=[], running=False)
#: What weight 1 does on this chip.
LSB_PER_S = float(os.environ.get("FAKE_LSB_PER_S", "0"))


class CalibHXNeuronCuba:
    def __init__(self, **parameters):
        assert set(parameters) == set(RANGES), sorted(parameters)
        for name, value in parameters.items():
            low, high = RANGES[name]
            assert np.all((np.asarray(value) >= low) & (np.asarray(value) <= high)), (name, value)
            assert name not in WHOLE or np.asarray(value).dtype.kind == "i", (name, value)
        self.parameters = parameters


class SpikeSourceArray:
    def __init__(self, spike_times):
        assert list(spike_times) == []


class StaticSynapse:
    def __init__(self, weight):
        assert weight == 0


class AllToAllConnector:
    pass


class Population:
    def __init__(self, size, cell):
        assert STATE.running
        self.size, self.cell, self.spike_times, self.recorded = size, cell, [[]] * size, []
        STATE.populations.append(self)

    def record(self, variables):
        self.recorded = variables

    def set(self, spike_times):
        assert isinstance(self.cell, SpikeSourceArray)
        assert len(spike_times) == self.size
        self.spike_times = [list(train) for train in spike_times]

    def get_data(self, variable):
        assert variable == "spikes"
        assert self.recorded == ["spikes"]
        return SimpleNamespace(segments=[SimpleNamespace(spiketrains=self.spike_times)])


class Projection:
    def __init__(self, source, target, connector, synapse_type, receptor_type):
        assert isinstance(connector, AllToAllConnector)
        assert isinstance(synapse_type, StaticSynapse)
        self.source, self.target, self.receptor, self.weight = source, target, receptor_type, None
        STATE.projections.append(self)

    def set(self, weight):
        low, high = {"excitatory": (0, 63), "inhibitory": (-63, 0)}[self.receptor]
        assert weight.dtype.kind == "i"
        assert weight.shape == (self.source.size, self.target.size)
        assert weight.min() >= low
        assert weight.max() <= high
        self.weight = weight


def setup():
    STATE.running = True


def end():
    STATE.running = False


def run(runtime_ms, dt_us=0.002):
    for population in STATE.populations[1:]:
        inputs = [projection for projection in STATE.projections if projection.target is population]
        population.spike_times = integrate(population, inputs, runtime_ms * 1e3, dt_us)
    note = os.environ.get("FAKE_NOTE")
    if note:
        with open(note, "w") as file:
            json.dump([[p.receptor, p.weight.tolist()] for p in STATE.projections], file)


def integrate(population, inputs, runtime_us, dt):
    """Forward Euler of current-based LIF neurons; spike times in ms."""
    given = population.cell.parameters
    p = {name: np.broadcast_to(value, population.size).astype(float) for name, value in given.items()}
    arrivals = [
        (time * 1e3, projection.receptor, index, projection)
        for projection in inputs
        for index, train in enumerate(projection.source.spike_times)
        for time in train
    ]
    arrivals.sort(key=lambda arrival: arrival[0])
    v, free = p["v_rest"].copy(), np.zeros(population.size)
    current = {"excitatory": np.zeros(population.size), "inhibitory": np.zeros(population.size)}
    trains, done = [[] for _ in range(population.size)], 0
    for step in range(round(runtime_us / dt)):
        now = step * dt
        while done < len(arrivals) and arrivals[done][0] <= now:
            _, receptor, index, projection = arrivals[done]
            current[receptor] += projection.weight[index] * LSB_PER_S * 1e-6  # LSB per us
            done += 1
        v += dt * ((p["v_rest"] - v) / p["tau_m"] + current["excitatory"] + current["inhibitory"])
        v = np.where(now < free, p["v_reset"], v)
        for neuron in np.flatnonzero((v >= p["v_thresh"]) & (now >= free)):
            trains[neuron].append(now * 1e-3)
            v[neuron], free[neuron] = p["v_reset"][neuron], now + p["tau_refrac"][neuron]
        current["excitatory"] *= 1 - dt / p["tau_syn_E"]
        current["inhibitory"] *= 1 - dt / p["tau_syn_I"]
    return trains


cells = SimpleNamespace(CalibHXNeuronCuba=CalibHXNeuronCuba, SpikeSourceArray=SpikeSourceArray)
standardmodels = SimpleNamespace(synapses=SimpleNamespace(StaticSynapse=StaticSynapse))
