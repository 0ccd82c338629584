"""Chips and programs that the tests of virtual chips share."""

from functools import cache
from itertools import pairwise

import numpy as np

from neurodeploy.target import load_target
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram

#: Layer sizes: inputs, hidden neurons, labels.
SIZES = (20, 64, 3)


@cache
def chip_of(name: str) -> AnalogChip:
    return load_target(name).chip


@cache
def program_on(name: str, *, merged: int = 1, circuits: bool = False) -> AnalogProgram:
    """A network of two layers; ``circuits``: those that form its neurons with ``merged=2``, as single neurons."""
    chip = chip_of(name)
    layers, site = [], 0
    for number, (inputs, neurons) in enumerate(pairwise(SIZES)):
        neurons = 2 * neurons if circuits else neurons
        leak, threshold = chip.operating_point.leak.value, chip.operating_point.threshold.value
        shape = (inputs * (2 if circuits and number else 1), neurons)
        nominal = LayerParameters(
            weight=((np.arange(shape[0] * shape[1]) * 29 + 5) % 64 - 31.0).reshape(shape),
            tau_mem=np.full(neurons, 0.01),
            tau_syn_exc=np.full(neurons, 0.005),
            tau_syn_inh=np.full(neurons, 0.005),
            threshold=np.full(neurons, 1.0),
            v_reset=np.zeros(neurons),
            t_ref=np.full(neurons, 0.03),
        )
        sites = np.arange(site, site + neurons * merged, dtype=np.int64).reshape(neurons, merged)
        site += neurons * merged
        synapses = np.arange(nominal.weight.size, dtype=np.int64).reshape(nominal.weight.shape) + 100_000 * number
        cores = np.zeros(neurons, np.int32)
        source = "input" if number == 0 else "layer0"
        layers.append(AnalogLayer(f"layer{number}", source, 1, nominal, sites, synapses, cores, leak, threshold - leak))
    acceleration = chip.time.acceleration.value
    lsb = chip.time.timestamp_lsb_s.value * acceleration
    return AnalogProgram(name, SIZES[0], tuple(layers), 0.03, acceleration, lsb, {})
