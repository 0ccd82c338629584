"""Mapper of BrainScaleS-2: signed inputs as pairs of synapse rows, circuits merged for more of them.

Two arrays of 256 rows and 256 columns of synapses, a neuron circuit under each column. Driver d of an array drives row
2d, which excites, and row 2d + 1, which inhibits: a signed input is a driver. Every synapse has a 6-bit label and takes
only the events of that label, so up to 64 sources share a driver; but a column can hear only one of them. A neuron
with more inputs than drivers is several circuits side by side whose membranes are joined: of the sources that share a
driver, each is heard by another of its columns. The membrane of c circuits has c times the capacity, so that a synapse
moves it by a c-th.

The gain of the synapses is one number of the whole chip, which has to be measured and calibrated; the mapper says what
it has to be. Sources: halco ``synapse.h``, ``neuron.h``, ``padi.h``; haldls ``synapse.h``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import MappingError
from neurodeploy.graph.pruning import fan_in_mask
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.mapped import Mapped
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.neuron_words import NeuronWords, constants_of, neuron_words
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram
from neurodeploy.targets.analog.settings import Settings
from neurodeploy.targets.analog.weights import SignedLevels, signed_levels

Sites = NDArray[np.int64]

#: Rows and columns of an array, columns of a quadrant (circuits are joined only inside one), labels of a synapse.
ROWS, COLUMNS, QUADRANT, LABELS = 256, 256, 128, 64
DRIVERS = ROWS // 2

#: Words of the synaptic inputs that hxtorch and jaxsnn use, the same for the whole chip.
SYNAPSE_DAC_BIAS, SYNAPTIC_INPUT_GM = 600, 500

#: Word of the membrane capacitor: the largest.
CAPACITANCE = 63


@dataclass(frozen=True, eq=False)
class Wiring:
    """Where the sources of one layer arrive: driver and label of each (-1: nobody listens), circuits per neuron."""

    driver: Sites
    label: Sites
    merged: int


def map_network(network: AnalogNetwork, chip: AnalogChip, settings: Settings) -> Mapped:
    """Choose drivers, labels, circuits, weight codes and the words of the neurons.

    Raises:
        QuantizeError: a constant is outside the range of its converter, or too far from what was asked for.
        MappingError: there are not enough circuits or labels, or a neuron needs too many circuits.
    """
    words = [neuron_words(layer, chip, allow_error=settings.allow_error) for layer in network.layers]
    wirings = _wire(network.layers, chip)
    # A joint membrane of c circuits is moved by a c-th of each synapse; potentials in lsb, times in the chip's seconds.
    units = [
        found.potential_unit * wiring.merged * chip.time.acceleration.value
        for found, wiring in zip(words, wirings, strict=True)
    ]
    levels = signed_levels(
        [layer.parameters.weight * unit for layer, unit in zip(network.layers, units, strict=True)],
        magnitude_bits=chip.weights.magnitude_bits.value or 6,
    )
    places, used = _places(
        [(layer.parameters.neurons, wiring.merged) for layer, wiring in zip(network.layers, wirings, strict=True)]
    )
    circuits = chip.fabric.neurons or 2 * COLUMNS
    if used > circuits:
        raise MappingError(
            f"the network needs {used} circuits of {chip.name}, which has {circuits}: "
            + ", ".join(
                f"{layer.name} {layer.parameters.neurons} x {wiring.merged}"
                for layer, wiring in zip(network.layers, wirings, strict=True)
            )
            + " (neurons x circuits, within quadrants).",
            remedy=f"use fewer neurons, or at most {DRIVERS} inputs per neuron (nd.prune_fan_in(graph, {DRIVERS})).",
            code="neurons",
            need=f"{used} circuits",
            limit=str(circuits),
        )
    configuration = _configuration(network, words, wirings, levels, places)
    return _mapped(network, chip, configuration, words, wirings, levels, used)


def nominal_of(configuration: Mapping[str, Any], chip: AnalogChip) -> tuple[LayerParameters, ...]:
    """What the layers of a configuration compute on a chip without mismatch, from its digital words alone.

    Raises:
        QuantizeError: a word that the chip does not have.
    """
    code = np.zeros((2, ROWS, COLUMNS))
    label = np.full((2, ROWS, COLUMNS), -1)
    for array, row, column, weight, own in configuration["synapses"]:
        code[array, row, column], label[array, row, column] = weight, own
    found = []
    for layer in configuration["layers"]:
        circuits = np.array(layer["circuits"], np.int64)
        array, column = circuits // COLUMNS, circuits % COLUMNS
        driver, wanted = np.array(configuration["sources"][layer["source"]], np.int64).T
        total = np.zeros((len(driver), len(circuits)))
        for sign, row in ((1, 2 * driver), (-1, 2 * driver + 1)):
            places = array[None], row[:, None, None], column[None]
            heard = (label[places] == wanted[:, None, None]) & (driver >= 0)[:, None, None]
            total += sign * (code[places] * heard).sum(-1)
        unit = layer["potential_unit"] * circuits.shape[1] * chip.time.acceleration.value
        words = {name: np.array(row, np.int64) for name, row in layer["words"].items()}
        weight = total * configuration["gain"]["lsb_per_s"] / unit
        found.append(LayerParameters(weight, **constants_of(words, chip, layer["potential_unit"])))
    return tuple(found)


def _wire(layers: Sequence[Wanted], chip: AnalogChip) -> list[Wiring]:
    """Drivers and labels of the sources of every layer.

    Raises:
        MappingError: a neuron would need too many circuits, or a driver too many labels.
    """
    most = chip.fabric.max_merge.value
    taken = np.zeros(DRIVERS, np.int64)
    found = []
    for layer in layers:
        connected = layer.parameters.weight != 0
        wiring, after = _spread(connected, taken)
        if wiring.merged > most:
            fitting = _fitting_fan_in(layer, taken, most)
            raise MappingError(
                f"{layer.name}: has up to {layer.fan_in.max()} inputs per neuron from {len(connected)} sources, which "
                f"meet on drivers so that a neuron would need {wiring.merged} circuits; {chip.name} joins {most}.",
                remedy=f"use at most {most * DRIVERS} sources, or prune further, nd.prune_fan_in(graph, {fitting}), "
                "and fine-tune with the pruned weights held at 0.",
                code="fan-in",
                layers=(layer.name,),
                need=f"{wiring.merged} circuits per neuron",
                limit=str(most),
            )
        if after.max() > LABELS:
            raise MappingError(
                f"{layer.name}: {after.max()} sources on one driver are needed; labels tell {LABELS} apart.",
                remedy=f"use at most {LABELS * DRIVERS} inputs and hidden neurons.",
                code="labels",
                layers=(layer.name,),
                need=f"{after.max()} labels",
                limit=str(LABELS),
            )
        found.append(wiring)
        taken = after
    return found


def _spread(connected: NDArray[np.bool_], taken: Sites) -> tuple[Wiring, Sites]:
    """Spread sources over the drivers, so that a neuron hears as few as possible on one of them.

    The sources with the most listeners come first; each gets the driver on which its listeners hear the fewest others,
    of equally good ones that with the fewest labels taken.

    Args:
        connected: ``[inputs, N]``.
        taken: labels of each driver that other layers have.

    Returns:
        The wiring, and the labels taken after it.
    """
    taken = taken.copy()
    driver, label = np.full(len(connected), -1), np.full(len(connected), -1)
    heard = np.zeros((DRIVERS, connected.shape[1]), np.int64)
    sources = np.flatnonzero(connected.any(1))
    for source in sources[np.argsort(-connected[sources].sum(1), kind="stable")]:
        listeners = connected[source]
        chosen = int(np.lexsort((np.arange(DRIVERS), taken, heard[:, listeners].max(1)))[0])
        driver[source], label[source] = chosen, taken[chosen]
        heard[chosen, listeners] += 1
        taken[chosen] += 1
    return Wiring(driver, label, max(1, int(heard.max(initial=0)))), taken


def _fitting_fan_in(layer: Wanted, taken: Sites, most: int) -> int:
    """The largest of some numbers of inputs per neuron, pruned by magnitude, for which there are circuits enough."""
    weight = layer.parameters.weight
    for eighths in range(7, 1, -1):
        fan_in = most * DRIVERS * eighths // 8
        if _spread(fan_in_mask(weight.T, fan_in).T, taken)[0].merged <= most:
            return fan_in
    return DRIVERS


def _places(layers: Sequence[tuple[int, int]]) -> tuple[list[Sites], int]:
    """Circuits ``[N, merged]`` of each layer, one after the other, those of a neuron inside one quadrant."""
    places, free = [], 0
    for neurons, merged in layers:
        rows = []
        for _ in range(neurons):
            if free % QUADRANT + merged > QUADRANT:
                free += QUADRANT - free % QUADRANT
            rows.append(np.arange(free, free + merged))
            free += merged
        places.append(np.array(rows, np.int64).reshape(neurons, merged))
    return places, free


def _configuration(
    network: AnalogNetwork,
    words: Sequence[NeuronWords],
    wirings: Sequence[Wiring],
    levels: SignedLevels,
    places: Sequence[Sites],
) -> dict[str, Any]:
    sources, layers, synapses = {}, [], []
    for layer, found, wiring, codes, circuits in zip(network.layers, words, wirings, levels.codes, places, strict=True):
        sources[layer.source] = np.stack([wiring.driver, wiring.label], axis=1).tolist()
        layers.append(
            {
                "name": layer.name,
                "source": layer.source,
                "circuits": circuits.tolist(),
                "potential_unit": found.potential_unit,
                "membrane_capacitance": CAPACITANCE,
                "words": {name: one.words.tolist() for name, one in found.settings.items()},
            }
        )
        sites = _synapse_sites(layer, wiring, codes, circuits)
        for source, neuron in np.argwhere(sites >= 0):
            site = int(sites[source, neuron])
            place = [site // (ROWS * COLUMNS), site // COLUMNS % ROWS, site % COLUMNS]
            synapses.append([*place, int(abs(codes[source, neuron])), int(wiring.label[source])])
    gain = {"synapse_dac_bias": SYNAPSE_DAC_BIAS, "i_synin_gm": SYNAPTIC_INPUT_GM, "lsb_per_s": levels.level}
    return {"mapper": "bss2", "gain": gain, "sources": sources, "layers": layers, "synapses": sorted(synapses)}


def _synapse_sites(layer: Wanted, wiring: Wiring, codes: Sites, circuits: Sites) -> Sites:
    """The synapse of each connection, ``(array * 256 + row) * 256 + column``; -1 where there is none."""
    connected = layer.parameters.weight != 0
    sites = np.full(connected.shape, -1)
    for neuron in range(connected.shape[1]):
        sources = np.flatnonzero(connected[:, neuron])
        drivers = wiring.driver[sources]
        order = np.argsort(drivers, kind="stable")
        # The first source on a driver is heard by the neuron's first column, the second by its second, and so on.
        sorted_drivers = drivers[order]
        rank = np.empty(len(sources), np.int64)
        rank[order] = np.arange(len(sources)) - np.searchsorted(sorted_drivers, sorted_drivers)
        circuit = circuits[neuron, rank]
        row = 2 * drivers + (codes[sources, neuron] < 0)
        sites[sources, neuron] = (circuit // COLUMNS * ROWS + row) * COLUMNS + circuit % COLUMNS
    return sites


def _mapped(
    network: AnalogNetwork,
    chip: AnalogChip,
    configuration: dict[str, Any],
    words: Sequence[NeuronWords],
    wirings: Sequence[Wiring],
    levels: SignedLevels,
    used: int,
) -> Mapped:
    nominal = nominal_of(configuration, chip)
    layers, entries = [], []
    for index, (layer, found, wiring) in enumerate(zip(network.layers, words, wirings, strict=True)):
        circuits = np.array(configuration["layers"][index]["circuits"], np.int64)
        sites = _synapse_sites(layer, wiring, levels.codes[index], circuits)
        cores = np.zeros(layer.parameters.neurons, np.int32)
        layers.append(
            AnalogLayer(
                layer.name,
                layer.source,
                layer.max_spikes,
                nominal[index],
                circuits,
                sites,
                cores,
                found.rest,
                found.potential_unit,
            )
        )
        entries.append(
            {
                "name": layer.name,
                "parameters": found.report(),
                "weights": {"nrmse": levels.nrmse[index], "clipped": levels.clipped[index]},
                "circuits_per_neuron": wiring.merged,
                "largest_fan_in": int(layer.fan_in.max(initial=0)),
                "arrays": sorted({int(array) for array in (circuits // COLUMNS).flat}),
            }
        )
    acceleration = chip.time.acceleration.value
    program = AnalogProgram(
        chip.name,
        network.inputs,
        tuple(layers),
        network.t_max,
        acceleration,
        chip.time.timestamp_lsb_s.value * acceleration,
        configuration,
    )
    drivers = {place[0] for rows in configuration["sources"].values() for place in rows if place[0] >= 0}
    labels = max((place[1] + 1 for rows in configuration["sources"].values() for place in rows), default=0)
    placement = {
        "circuits": int(sum(layer.neuron_sites.size for layer in layers)),
        "last_circuit": used - 1,
        "of": chip.fabric.neurons,
        "synapses": len(configuration["synapses"]),
        "drivers_per_array": len(drivers),
        "labels_per_driver": labels,
        "gain_lsb_per_s": levels.level,
    }
    return Mapped(program, {"layers": entries, "placement": placement})
