"""The circuits that DYNAP-SE2's words set, with all their equations: how far is the linear neuron from them?"""

import numpy as np

from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.dynapse2_nominal import core_values, leak_current, limits_of
from neurodeploy.targets.analog.dynapse2_words import words_of_dict
from neurodeploy.targets.analog.program import AnalogProgram
from neurodeploy.targets.analog.stepped import DpiNeurons

#: Dark current of a transistor in amperes: the membrane current is not below it (rockpool ``lookup/defaults.py``).
DARK_CURRENT_A = 0.5e-12


def full_circuit(program: AnalogProgram, chip: AnalogChip, layer: str) -> DpiNeurons:
    """The neurons of a layer as DPI circuits, for ``run_stepped``: currents in amperes, times in the network's seconds.

    Unlike that of the linear neuron, the membrane current cannot fall below the dark current, and moves slowly where it
    is not far above the gain current. The positive feedback of the exponential neuron type is off, as in the files for
    the kits.

    Raises:
        ProgramError: the program has no such layer, or a damaged configuration.
    """
    nominal, faster = program.layer(layer).nominal, chip.time.acceleration.value
    words = words_of_dict(program.configuration, limits_of(chip))
    cores = {(core.chip, core.core): core_values(core, chip) for core in words.cores}
    (places,) = [found.places for found in words.layers if found.name == layer]
    rows = [cores[place[:2]] for place in places]

    def each(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([row.bias[name] for row in rows])

    return DpiNeurons(
        weight=nominal.weight * faster / np.array([row.slope for row in rows]),
        tau_mem=nominal.tau_mem,
        tau_syn_exc=nominal.tau_syn_exc,
        tau_syn_inh=nominal.tau_syn_inh,
        threshold=each("SOIF_SPKTHR_P"),
        reset=DARK_CURRENT_A,
        t_ref=nominal.t_ref,
        start=DARK_CURRENT_A,
        i_leak=np.array([leak_current(chip, "tau_mem", row.bias["SOIF_LEAK_N"]) for row in rows]),
        i_gain=each("SOIF_GAIN_N"),
        i_0=DARK_CURRENT_A,
    )
