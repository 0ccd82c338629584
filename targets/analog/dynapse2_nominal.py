"""What the circuits of DYNAP-SE2 compute without mismatch, read from the digital words alone.

Synapse and membrane are DPI circuits, first-order low-passes of currents (Chicca et al. 2014): a leak current sets the
time constant, ``tau = C U_T / (kappa I_tau)``, and a gain current the gain, ``I_gain / I_tau``. A spike opens a
synapse's weight current for the time of a pulse, so that its dendrite's current jumps by
``gain I_w (1 - exp(-t_pulse / tau))``. See README.md, "DYNAP-SE2".
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import expm1
from typing import cast

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError
from neurodeploy.targets.analog.chip import AnalogChip, CoarseFineDac
from neurodeploy.targets.analog.dac import value_of
from neurodeploy.targets.analog.dynapse2_routing import Network
from neurodeploy.targets.analog.dynapse2_words import (
    BIAS_OF,
    BIASES,
    WEIGHTS,
    CoreWords,
    Dendrite,
    Limits,
    NeuronWords,
    Words,
    refuse,
)
from neurodeploy.targets.analog.four_currents import levels
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import INPUT

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CoreValues:
    """What the words of a core set.

    Attributes:
        bias: of each name in ``BIASES``, in seconds or amperes.
        slope: potential per second that an ampere of a dendrite's current makes.
        per_ampere: for each dendrite, the weight (potential per second) that an ampere of weight current makes.
        threshold: in the network's unit.
    """

    bias: Mapping[str, float]
    slope: float
    per_ampere: Mapping[Dendrite, float]
    threshold: float

    @property
    def levels(self) -> Floats:
        """float64 ``[16]``: the current of each mask."""
        return levels(np.array([self.bias[name] for name in WEIGHTS]))


def converter(chip: AnalogChip, parameter: str) -> CoarseFineDac:
    """The converter of a parameter.

    Raises:
        ConfigError: it is not of the coarse/fine kind.
    """
    description = getattr(chip.parameters, parameter)
    if description is None or not isinstance(description.dac, CoarseFineDac):
        raise ConfigError(
            f"{chip.name}: parameters.{parameter}: a chip like DYNAP-SE2 sets it by a coarse and a fine code.",
            remedy="describe its converter with kind: coarse_fine.",
            code="chip-yaml",
        )
    return description.dac


def leak_current(chip: AnalogChip, parameter: str, tau: float) -> float:
    """The leak current, in amperes, of a DPI circuit with the time constant ``tau`` (seconds of the chip).

    Raises:
        ConfigError: the parameter's converter does not make times.
    """
    dac = converter(chip, parameter)
    if dac.capacity_f is None or dac.voltage_v is None:
        raise ConfigError(
            f"{chip.name}: parameters.{parameter}: a time constant falls with its current.",
            remedy="describe its converter with law: inverse, and its capacity_f and voltage_v.",
            code="chip-yaml",
        )
    return dac.capacity_f.value * dac.voltage_v.value / tau


def core_values(core: CoreWords, chip: AnalogChip) -> CoreValues:
    """What the biases of a core make of its neurons; ``core.neurons`` does not matter."""
    bias = {
        name: float(value_of(converter(chip, parameter), np.array(core.biases[name], np.int64)))
        for name, parameter in BIASES.items()
    }
    unit = core.potential_per_ampere
    slope = unit * _gain(chip, bias, "SOIF_GAIN_N", "SOIF_LEAK_N") / bias["SOIF_LEAK_N"]
    pulse = bias["SYPD_EXT_N"]
    jumps: dict[Dendrite, float] = {
        "ampa": _gain(chip, bias, "DEAM_EGAIN_P", "DEAM_ETAU_P") * -expm1(-pulse / bias["DEAM_ETAU_P"]),
        "gaba": _gain(chip, bias, "DEGA_IGAIN_P", "DEGA_ITAU_P") * -expm1(-pulse / bias["DEGA_ITAU_P"]),
    }
    per_ampere = {dendrite: slope * jump for dendrite, jump in jumps.items()}
    return CoreValues(bias, slope, per_ampere, unit * bias["SOIF_SPKTHR_P"])


def limits_of(chip: AnalogChip) -> Limits:
    """The sizes of the chip's words.

    Raises:
        ConfigError: the chip leaves one of them open, or its converters have different codes.
    """
    fabric = chip.fabric
    sizes = (fabric.neurons_per_core.value, fabric.synapses.value, fabric.destinations.value)
    more = (fabric.tag_bits.value, fabric.hops.value)
    codes = {(dac.coarse_codes.value, dac.fine_top.value + 1) for dac in map(partial(converter, chip), BIASES.values())}
    if None in (*sizes, *more) or len(codes) != 1:
        raise ConfigError(
            f"{chip.name}: a chip like DYNAP-SE2 has numbers for neurons_per_core, synapses, destinations, "
            "tag_bits and hops, and one number of codes for all converters.",
            remedy="complete the fabric of the chip.yaml.",
            code="chip-yaml",
        )
    neurons, synapses, destinations = cast(tuple[int, int, int], sizes)
    tag_bits, hops = cast(tuple[int, int], more)
    ((coarse, fine),) = codes
    return Limits(
        fabric.chips.value, fabric.cores.value, neurons, synapses, destinations, 2**tag_bits, hops, coarse, fine
    )


def network_of(chip: AnalogChip) -> Network:
    """What the chips of a board offer to the routing."""
    limits, fabric = limits_of(chip), chip.fabric
    words = limits.destinations - fabric.destinations_for_monitor.value
    return Network(fabric.chip_positions.value, limits.cores, limits.tags, words, limits.hops)


def nominal_parameters(words: Words, chip: AnalogChip) -> tuple[LayerParameters, ...]:
    """The parameters of every layer, in network order: every synapse takes the spikes that arrive with its tag.

    Raises:
        ProgramError: a synapse takes the spikes of nobody, of several neurons, or of another layer than the one whose
            spikes its layer takes.
    """
    values = {(core.chip, core.core): core_values(core, chip) for core in words.cores}
    neurons = {(core.chip, core.core, neuron.neuron): neuron for core in words.cores for neuron in core.neurons}
    senders = _senders(words, neurons, network_of(chip))
    widths = {INPUT: len(words.inputs)}
    found = []
    for layer in words.layers:
        widths[layer.name] = len(layer.places)
        weight = np.zeros((widths[layer.source], len(layer.places)))
        for number, (chip_number, core, neuron) in enumerate(layer.places):
            value = values[chip_number, core]
            for synapse in neurons[chip_number, core, neuron].synapses:
                heard = senders.get((chip_number, core, synapse.tag), [])
                if len(heard) != 1 or heard[0][0] != layer.source:
                    refuse(
                        f"{layer.name}, neuron {number}",
                        f"has a synapse for tag {synapse.tag}, with which {_names(heard)} arrives",
                        f"the tag of one neuron of {layer.source}",
                    )
                sign = 1.0 if synapse.dendrite == "ampa" else -1.0
                weight[heard[0][1], number] += sign * value.per_ampere[synapse.dendrite] * value.levels[synapse.mask]
        rows = [values[place[:2]] for place in layer.places]
        times = {
            name: chip.time.acceleration.value * np.array([row.bias[BIAS_OF[name]] for row in rows])
            for name in ("tau_mem", "tau_syn_exc", "tau_syn_inh", "t_ref")
        }
        found.append(
            LayerParameters(
                weight=weight / chip.time.acceleration.value,
                threshold=np.array([row.threshold for row in rows]),
                v_reset=np.zeros(len(rows)),
                **times,
            )
        )
    return tuple(found)


def _gain(chip: AnalogChip, bias: Mapping[str, float], gain: str, tau: str) -> float:
    """Gain of a DPI circuit: its gain current over its leak current."""
    return bias[gain] / leak_current(chip, BIASES[tau], bias[tau])


def _senders(
    words: Words, neurons: Mapping[tuple[int, int, int], NeuronWords], network: Network
) -> dict[tuple[int, int, int], list[tuple[str, int]]]:
    """(chip, core, tag) -> layers (or the input) and neurons whose spikes arrive there."""
    found = defaultdict(list)
    for channel, destinations in enumerate(words.inputs):
        for destination in destinations:
            for arrival in network.arrivals(None, destination):
                found[arrival].append((INPUT, channel))
    for layer in words.layers:
        for number, place in enumerate(layer.places):
            for destination in neurons[place].destinations:
                for arrival in network.arrivals(place[0], destination):
                    found[arrival].append((layer.name, number))
    return found


def _names(senders: list[tuple[str, int]]) -> str:
    return " and ".join(f"{layer} {number}" for layer, number in senders) or "nothing"
