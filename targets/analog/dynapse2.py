"""From layers of neurons to a program for DYNAP-SE2: neurons to cores, weights to synapses, spikes to destinations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConstraintError, MappingError
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.dac import setting
from neurodeploy.targets.analog.dynapse2_core import FittedCore, fit_core, parameter_report, weight_report
from neurodeploy.targets.analog.dynapse2_nominal import limits_of, network_of, nominal_parameters
from neurodeploy.targets.analog.dynapse2_placement import core_numbers, place
from neurodeploy.targets.analog.dynapse2_routing import Core, Destination, Source, route
from neurodeploy.targets.analog.dynapse2_words import (
    CoreWords,
    Dendrite,
    LayerPlaces,
    Limits,
    NeuronWords,
    Synapse,
    Words,
    words_of_dict,
)
from neurodeploy.targets.analog.mapped import Mapped
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.neuron_words import refractory_range
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import INPUT, AnalogLayer, AnalogProgram
from neurodeploy.targets.analog.settings import Settings

Masks = NDArray[np.int64]

#: Neurons that may fire only once are held for this many times the length of a run, if they can be: some circuits free
#: them earlier (5 sd of a circuit in the tail: a fifth). The next run must wait until they are free.
ONE_SPIKE_MARGIN = 5.0


def map_network(network: AnalogNetwork, chip: AnalogChip, settings: Settings) -> Mapped:
    """Place a network on the chips of a board.

    Raises:
        ConstraintError: neurons differ that must be alike, are not reset to the rest, or have too many inputs.
        QuantizeError: a parameter is outside its converter's range, or the nearest is more than 5 % away and
            ``settings.allow_error`` is not set.
        MappingError: too few cores, tags or destinations, or chips that are too far apart.
    """
    limits = limits_of(chip)
    asked = {layer.name: _as_on_chip(layer, network.t_max, chip) for layer in network.layers}
    groups = place(asked, cores=limits.chips * limits.cores, neurons_per_core=limits.neurons)
    cores = [fit_core(pieces, asked, chip, allow_error=settings.allow_error) for pieces in groups]
    masks = {name: np.zeros(parameters.weight.shape, np.int64) for name, parameters in asked.items()}
    for core in cores:
        for piece, mask in zip(core.pieces, core.masks, strict=True):
            masks[piece.layer][:, piece.neurons] = mask
    for name, mask in masks.items():
        _require_synapses(name, mask, asked[name].weight, limits)
    layers = []
    for layer in network.layers:
        slots = core_numbers(groups, layer.name, layer.parameters.neurons)
        places = tuple((*divmod(core, limits.cores), slot) for core, slot in slots.tolist())
        layers.append(LayerPlaces(layer.name, layer.source, places))
    wiring = _Wiring(layers, masks, network.inputs, chip, limits)
    words = Words(
        tuple(
            CoreWords(
                *divmod(number, limits.cores),
                core.biases,
                core.potential_per_ampere,
                tuple(
                    wiring.neuron(piece.layer, neuron, asked[piece.layer].weight[:, neuron])
                    for piece in core.pieces
                    for neuron in piece.neurons.tolist()
                ),
            )
            for number, core in enumerate(cores)
        ),
        tuple(wiring.destinations[INPUT, channel] for channel in range(network.inputs)),
        tuple(layers),
        wiring.monitor,
    )
    nominal = nominal_parameters(words, chip)
    program = AnalogProgram(
        chip.name,
        network.inputs,
        tuple(
            _layer(place, layer.max_spikes, computed, masks[layer.name], limits)
            for place, layer, computed in zip(layers, network.layers, nominal, strict=True)
        ),
        network.t_max,
        chip.time.acceleration.value,
        chip.time.timestamp_lsb_s.value * chip.time.acceleration.value,
        words.to_dict(),
    )
    return Mapped(program, _report(network, program, words, cores, limits))


def _report(
    network: AnalogNetwork, program: AnalogProgram, words: Words, cores: Sequence[FittedCore], limits: Limits
) -> dict[str, Any]:
    synapses = {layer.name: (layer.synapse_sites >= 0).sum(axis=0) for layer in program.layers}
    tags = [synapse.tag for core in words.cores for neuron in core.neurons for synapse in neuron.synapses]
    return {
        "layers": [
            {
                "name": layer.name,
                "parameters": parameter_report(cores, layer),
                "weights": weight_report(cores, layer, program.layer(layer.name).nominal),
                "circuits_per_neuron": 1,
                "synapses_per_neuron": int(synapses[layer.name].max(initial=0)),
            }
            for layer in network.layers
        ],
        "placement": {
            "neurons": sum(layer.neurons for layer in program.layers),
            "cores": len(cores),
            "of": limits.chips * limits.cores,
            "chips": 1 + max(core.chip for core in words.cores),
            "synapses": sum(int(count.sum()) for count in synapses.values()),
            "tags": 1 + max(tags, default=-1),
        },
        "cores": [
            {
                "chip": core.chip,
                "core": core.core,
                "neurons": {piece.layer: len(piece.neurons) for piece in fitted.pieces},
                "weight_currents_a": fitted.fit.currents.tolist(),
                "weight_nrmse": fitted.fit.nrmse,
            }
            for core, fitted in zip(words.cores, cores, strict=True)
        ],
    }


def nominal_of(configuration: Mapping[str, Any], chip: AnalogChip) -> tuple[LayerParameters, ...]:
    """What the layers compute by the digital words of a program's ``configuration`` alone, in network order.

    Raises:
        ProgramError: the words are not a configuration of the chip, or lead spikes to the wrong synapses.
    """
    return nominal_parameters(words_of_dict(configuration, limits_of(chip)), chip)


class _Wiring:
    """Tags and destinations of a network whose neurons have their places."""

    def __init__(
        self, layers: Sequence[LayerPlaces], masks: Mapping[str, Masks], inputs: int, chip: AnalogChip, limits: Limits
    ) -> None:
        self._masks, self._limits = masks, limits
        self._layers = {layer.name: layer for layer in layers}
        sources = {(INPUT, channel): self._source(INPUT, channel, None) for channel in range(inputs)}
        for layer in layers:
            for neuron, (chip_number, _, _) in enumerate(layer.places):
                sources[layer.name, neuron] = self._source(layer.name, neuron, chip_number)
        network = network_of(chip)
        #: (layer or input, neuron) -> where its spikes go, the host aside.
        self.destinations = dict(zip(sources, route(list(sources.values()), network), strict=True))
        self._tags = {
            (*key, *arrival[:2]): arrival[2]
            for key, words in self.destinations.items()
            for word in words
            for arrival in network.arrivals(sources[key].chip, word)
        }
        self.monitor = self._monitored()
        self._host = {entry: Destination(tag, *self._to_host()) for tag, entry in enumerate(self.monitor)}

    def neuron(self, layer: str, neuron: int, weights: NDArray[np.float64]) -> NeuronWords:
        """The words of one neuron with these weights."""
        chip, core, slot = self._layers[layer].places[neuron]
        source, mask = self._layers[layer].source, self._masks[layer][:, neuron]
        synapses = []
        for index in np.flatnonzero(mask).tolist():
            dendrite: Dendrite = "ampa" if weights[index] > 0 else "gaba"
            synapses.append(Synapse(self._tags[source, index, chip, core], dendrite, int(mask[index])))
        host = (self._host[layer, neuron],) if (layer, neuron) in self._host else ()
        return NeuronWords(slot, tuple(synapses), (*host, *self.destinations[layer, neuron]))

    def _source(self, name: str, index: int, chip: int | None) -> Source:
        listeners: set[Core] = set()
        for layer in self._layers.values():
            if layer.source == name:
                hearing = np.flatnonzero(self._masks[layer.name][index]).tolist()
                listeners |= {layer.places[neuron][:2] for neuron in hearing}
        return Source(f"{name} {index}", chip, tuple(sorted(listeners)))

    def _monitored(self) -> tuple[tuple[str, int], ...]:
        """All neurons, if there are tags to tell them apart, or those of the layers that no layer takes."""
        every = [(layer.name, neuron) for layer in self._layers.values() for neuron in range(len(layer.places))]
        taken = {layer.source for layer in self._layers.values()}
        last = [entry for entry in every if entry[0] not in taken]
        if len(last) > self._limits.tags:
            raise MappingError(
                f"{len(last)} neurons send their spikes to the host; a tag tells {self._limits.tags} apart.",
                remedy="use fewer output neurons.",
                code="tags",
                need=f"{len(last)} tags",
                limit=f"{self._limits.tags} tags",
            )
        return tuple(every if len(every) <= self._limits.tags else last)

    def _to_host(self) -> tuple[tuple[int, ...], int, int]:
        # As far as a spike goes leads beyond every chip, to the host (rockpool, allocator.py).
        return tuple(range(self._limits.cores)), -self._limits.hops, -self._limits.hops


def _as_on_chip(layer: Wanted, t_max: float, chip: AnalogChip) -> LayerParameters:
    """What is asked of the chip; neurons that may fire once are held beyond the end of the run."""
    parameters = layer.parameters
    away = np.flatnonzero(parameters.v_reset)
    if away.size:
        raise ConstraintError(
            f"{layer.name}: neuron {away[0]} is reset to {parameters.v_reset[away[0]]:g}; the circuit resets to rest, "
            "0 (its membrane current to the smallest there is).",
            remedy="train with v_reset=0.",
            code="reset-to-rest",
        )
    once = np.isinf(parameters.t_ref)
    if not once.any():
        return parameters
    faster = chip.time.acceleration.value
    longest = refractory_range(chip)[1]
    held = float(setting(chip, "t_ref", min(ONE_SPIKE_MARGIN * t_max / faster, longest), allow_error=True).value)
    if held * faster <= t_max:
        raise ConstraintError(
            f"{layer.name}: its neurons fire once, in runs of {t_max:g} s; {chip.name} holds a neuron for "
            f"{held * faster:g} s at most.",
            remedy="give the network a shorter run (t_max) or a smaller unit of time.",
            code="refractory",
        )
    return replace(parameters, t_ref=np.where(once, held * faster, parameters.t_ref))


def _require_synapses(name: str, mask: Masks, weight: NDArray[np.float64], limits: Limits) -> None:
    count = (mask > 0).sum(axis=0)
    worst = int(np.argmax(count)) if count.size else 0
    if count.size and count[worst] > limits.synapses:
        raise ConstraintError(
            f"{name}: neuron {worst} has {count[worst]} inputs whose weights do not round to 0 (of "
            f"{np.count_nonzero(weight[:, worst])} that are not 0); a neuron has {limits.synapses} synapses.",
            remedy=f"prune the smallest weights, nd.prune_fan_in(graph, {limits.synapses}), and fine-tune with them "
            "held at 0.",
            code="fan-in",
        )


def _layer(layer: LayerPlaces, max_spikes: int, nominal: LayerParameters, mask: Masks, limits: Limits) -> AnalogLayer:
    places = np.array(layer.places, np.int64).reshape(-1, 3)
    cores = places[:, 0] * limits.cores + places[:, 1]
    sites = cores * limits.neurons + places[:, 2]
    number = np.cumsum(mask > 0, axis=0) - 1
    synapses = np.where(mask > 0, sites * limits.synapses + number, -1).astype(np.int64)
    return AnalogLayer(layer.name, layer.source, max_spikes, nominal, sites[:, None], synapses, cores.astype(np.int32))
