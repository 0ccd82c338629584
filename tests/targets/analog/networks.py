"""Networks in continuous time for the tests: chains of layers, the same every time."""

from itertools import pairwise
from math import inf

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import CubaLIF, Input, Linear, Output


def number(value):
    return np.asarray(value, np.float64)


def cuba(**changes):
    """Neurons that fire once: tau_mem 10 ms, tau_syn 5 ms, a run of 30 ms."""
    constants = {
        "tau_mem": number(0.01),
        "tau_syn_exc": number(0.005),
        "tau_syn_inh": number(0.005),
        "threshold": number(1),
        "input_gain": number(200),
        "max_spikes": 1,
        "t_max": 0.03,
        "v_reset": number(0),
        "t_ref": number(inf),
    }
    return CubaLIF(**{**constants, **changes})


def often(**changes):
    """Neurons that fire up to 32 times, with a refractory time of 1 ms."""
    return cuba(**{"max_spikes": 32, "t_ref": number(0.001), **changes})


def weights(inputs, neurons, seed=0):
    """Such that most neurons fire once or more where all inputs do."""
    rng = np.random.default_rng(seed)
    return (rng.normal(1.2, 1.5, (neurons, inputs)) * 2 / np.sqrt(inputs)).astype(np.float32)


def chain(sizes=(5, 20, 3), neuron=cuba, matrices=None, **changes):
    """input -> hidden0 -> hidden0.neuron -> ... -> output."""
    nodes = {"input": Input(sizes[:1])}
    for index, (inputs, neurons) in enumerate(pairwise(sizes)):
        matrix = weights(inputs, neurons, index) if matrices is None else matrices[index]
        nodes |= {f"layer{index}": Linear(matrix), f"layer{index}.neuron": neuron(**changes)}
    nodes["output"] = Output()
    return Graph(nodes, tuple(pairwise(nodes)))


def spikes(samples=16, inputs=5, seed=0, until=0.02):
    """One spike of each input, float64 ``[samples, inputs, 1]``."""
    return np.random.default_rng(seed).uniform(0, until, (samples, inputs, 1))
