"""DYNAP-SE2's digital words as data: biases of the cores, synapses and destinations of the neurons, the host's events.

This is the ``configuration`` of a program; everything that the chip computes follows from it (``dynapse2_nominal.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NoReturn, get_args

from neurodeploy.errors import ProgramError
from neurodeploy.targets.analog.dynapse2_routing import Destination
from neurodeploy.targets.analog.program import INPUT

Dendrite = Literal["ampa", "gaba"]
"""Where a synapse's event goes: the excitatory dendrite AMPA, or GABA, which subtracts."""

#: The chip's names of the biases of a core that a program sets, and the parameter of ``chip.yaml`` that each one sets.
BIASES = {
    "SOIF_LEAK_N": "tau_mem",
    "SOIF_GAIN_N": "gain_mem",
    "SOIF_SPKTHR_P": "threshold",
    "SOIF_REFR_N": "t_ref",
    "DEAM_ETAU_P": "tau_syn_exc",
    "DEAM_EGAIN_P": "gain_exc",
    "DEGA_ITAU_P": "tau_syn_inh",
    "DEGA_IGAIN_P": "gain_inh",
    "SYPD_EXT_N": "pulse",
    "SYAM_W0_P": "weight_current",
    "SYAM_W1_P": "weight_current",
    "SYAM_W2_P": "weight_current",
    "SYAM_W3_P": "weight_current",
}
#: Those of the four currents that weights are made of.
WEIGHTS = tuple(name for name, parameter in BIASES.items() if parameter == "weight_current")
#: The others, by parameter.
BIAS_OF = {parameter: name for name, parameter in BIASES.items() if name not in WEIGHTS}


@dataclass(frozen=True)
class Synapse:
    """A CAM word in use: it takes spikes with ``tag``; bit k of ``mask`` adds the core's current Wk."""

    tag: int
    dendrite: Dendrite
    mask: int


@dataclass(frozen=True)
class NeuronWords:
    """A neuron in use: its number in the core, its synapses, and its destinations, the host (if it is one) first."""

    neuron: int
    synapses: tuple[Synapse, ...]
    destinations: tuple[Destination, ...]


@dataclass(frozen=True)
class CoreWords:
    """A core in use.

    Attributes:
        chip, core: its numbers.
        biases: (coarse, fine) of each of :data:`BIASES`.
        potential_per_ampere: the potential, in the network's unit, that an ampere of membrane current stands for.
        neurons: by number.
    """

    chip: int
    core: int
    biases: Mapping[str, tuple[int, int]]
    potential_per_ampere: float
    neurons: tuple[NeuronWords, ...]


@dataclass(frozen=True)
class LayerPlaces:
    """Where a layer is: its name, the layer or input whose spikes it takes, ``(chip, core, neuron)`` of its neurons."""

    name: str
    source: str
    places: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Words:
    """A whole configuration.

    Attributes:
        cores: those in use, by chip and core.
        inputs: for each channel of the host, the events that one spike on it becomes.
        layers: in network order.
        monitor: for each tag under which spikes reach the host, from 0: the layer and the neuron in it.
    """

    cores: tuple[CoreWords, ...]
    inputs: tuple[tuple[Destination, ...], ...]
    layers: tuple[LayerPlaces, ...]
    monitor: tuple[tuple[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data. A synapse is ``[tag, dendrite, mask]``, a destination ``[tag, cores, x_hop, y_hop]``."""
        return {
            "cores": [
                {
                    "chip": core.chip,
                    "core": core.core,
                    "biases": {name: list(word) for name, word in core.biases.items()},
                    "potential_per_ampere": core.potential_per_ampere,
                    "neurons": [
                        {
                            "neuron": neuron.neuron,
                            "synapses": [[word.tag, word.dendrite, word.mask] for word in neuron.synapses],
                            "destinations": [_plain(word) for word in neuron.destinations],
                        }
                        for neuron in core.neurons
                    ],
                }
                for core in self.cores
            ],
            "inputs": [[_plain(word) for word in words] for words in self.inputs],
            "layers": [
                {"name": layer.name, "source": layer.source, "places": [list(place) for place in layer.places]}
                for layer in self.layers
            ],
            "monitor": [list(entry) for entry in self.monitor],
        }


@dataclass(frozen=True)
class Limits:
    """Sizes of the words of a chip and of their numbers; codes of a bias are below ``coarse`` and ``fine``."""

    chips: int
    cores: int
    neurons: int
    synapses: int
    destinations: int
    tags: int
    hops: int
    coarse: int
    fine: int


def words_of_dict(data: Mapping[str, Any], limits: Limits) -> Words:
    """The words that ``Words.to_dict`` described.

    Raises:
        ProgramError: a field is missing, unknown or of the wrong type, or a word is out of its range or there twice.
    """
    reader = _Reader(limits)
    reader.fields("configuration", data, ("cores", "inputs", "layers", "monitor"))
    cores = tuple(reader.core(entry) for entry in reader.items("cores", data["cores"]))
    reader.distinct("cores", [(core.chip, core.core) for core in cores])
    inputs = tuple(
        tuple(reader.destination(f"input {channel}", word) for word in reader.items(f"input {channel}", words))
        for channel, words in enumerate(reader.items("inputs", data["inputs"]))
    )
    layers: dict[str, LayerPlaces] = {}
    for entry in reader.items("layers", data["layers"]):
        layer = reader.layer(entry)
        if layer.name in layers or layer.name == INPUT or layer.source not in (INPUT, *layers):
            refuse("layers", f"has {layer.name!r} with the source {layer.source!r}", "in network order, each name once")
        layers[layer.name] = layer
    used = [(core.chip, core.core, neuron.neuron) for core in cores for neuron in core.neurons]
    reader.distinct("neurons", used)
    if sorted(place for layer in layers.values() for place in layer.places) != sorted(used):
        refuse("layers", "are at other places than the neurons of the cores", "at exactly these")
    monitor = tuple(reader.monitored(entry, layers) for entry in reader.items("monitor", data["monitor"]))
    return Words(cores, inputs, tuple(layers.values()), monitor)


class _Reader:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def core(self, data: Any) -> CoreWords:
        self.fields("core", data, ("chip", "core", "biases", "potential_per_ampere", "neurons"))
        chip = self.whole("core", "chip", data["chip"], self.limits.chips)
        core = self.whole("core", "core", data["core"], self.limits.cores)
        place = f"core {core} of chip {chip}"
        self.fields(place, data["biases"], tuple(BIASES))
        biases = {}
        for name in BIASES:
            word = self.items(f"{place}, {name}", data["biases"][name], 2)
            coarse = self.whole(place, f"{name}, coarse code,", word[0], self.limits.coarse)
            biases[name] = coarse, self.whole(place, f"{name}, fine code,", word[1], self.limits.fine)
        unit = data["potential_per_ampere"]
        if isinstance(unit, bool) or not isinstance(unit, int | float) or not (isfinite(unit) and unit > 0):
            refuse(place, f"has {unit!r} as potential_per_ampere", "a number above 0")
        neurons = tuple(self.neuron(place, entry) for entry in self.items(place, data["neurons"]))
        return CoreWords(chip, core, biases, float(unit), neurons)

    def neuron(self, core: str, data: Any) -> NeuronWords:
        self.fields(core, data, ("neuron", "synapses", "destinations"))
        neuron = self.whole(core, "neuron", data["neuron"], self.limits.neurons)
        place = f"neuron {neuron} of {core}"
        synapses = tuple(self.synapse(place, word) for word in self.items(place, data["synapses"]))
        destinations = tuple(self.destination(place, word) for word in self.items(place, data["destinations"]))
        for name, count, most in (
            ("synapses", len(synapses), self.limits.synapses),
            ("destinations", len(destinations), self.limits.destinations),
        ):
            if count > most:
                refuse(place, f"has {count} {name}", f"at most {most}")
        return NeuronWords(neuron, synapses, destinations)

    def synapse(self, place: str, data: Any) -> Synapse:
        tag, dendrite, mask = self.items(f"{place}, synapse", data, 3)
        if dendrite not in get_args(Dendrite):
            refuse(place, f"has the dendrite {dendrite!r}", " or ".join(get_args(Dendrite)))
        return Synapse(
            self.whole(place, "tag", tag, self.limits.tags),
            dendrite,
            self.whole(place, "mask", mask, 2 ** len(WEIGHTS)),
        )

    def destination(self, place: str, data: Any) -> Destination:
        tag, cores, x, y = self.items(f"{place}, destination", data, 4)
        numbers = tuple(self.whole(place, "core", core, self.limits.cores) for core in self.items(place, cores))
        self.distinct(f"{place}, destination", numbers)
        tag = self.whole(place, "tag", tag, self.limits.tags)
        hops = [self.whole(place, "hop", hop, self.limits.hops + 1, -self.limits.hops) for hop in (x, y)]
        return Destination(tag, numbers, hops[0], hops[1])

    def layer(self, data: Any) -> LayerPlaces:
        self.fields("layer", data, ("name", "source", "places"))
        name = str(data["name"])
        return LayerPlaces(
            name, str(data["source"]), tuple(self.place(name, p) for p in self.items(name, data["places"]))
        )

    def place(self, layer: str, data: Any) -> tuple[int, int, int]:
        chip, core, neuron = self.items(layer, data, 3)
        return (
            self.whole(layer, "chip", chip, self.limits.chips),
            self.whole(layer, "core", core, self.limits.cores),
            self.whole(layer, "neuron", neuron, self.limits.neurons),
        )

    def monitored(self, data: Any, layers: Mapping[str, LayerPlaces]) -> tuple[str, int]:
        layer, neuron = self.items("monitor", data, 2)
        if layer not in layers:
            refuse("monitor", f"names the layer {layer!r}", f"one of: {', '.join(layers)}")
        return str(layer), self.whole("monitor", "neuron", neuron, len(layers[layer].places))

    def fields(self, place: str, data: Any, names: Sequence[str]) -> None:
        if not isinstance(data, Mapping) or sorted(data) != sorted(names):
            refuse(place, "has other fields", f"exactly {', '.join(names)}")

    def items(self, place: str, data: Any, count: int | None = None) -> Sequence[Any]:
        if not isinstance(data, list) or (count is not None and len(data) != count):
            refuse(place, "is no such list", "a list" if count is None else f"a list of {count}")
        return data

    def whole(self, place: str, name: str, value: Any, end: int, low: int = 0) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < end:
            refuse(place, f"{name} is {value!r}", f"a whole number from {low} to {end - 1}")
        return value

    def distinct(self, place: str, values: Sequence[Any]) -> None:
        if len(set(values)) != len(values):
            refuse(place, "has one of them twice", "all different")


def refuse(place: str, found: str, rule: str) -> NoReturn:
    """Raise the error for a configuration that is not one."""
    raise ProgramError(
        f"DYNAP-SE2 configuration: {place}: {found}; it must be {rule}.",
        remedy="compile the network again; a program is not meant to be edited.",
        code="dynapse2-words",
    )


def _plain(word: Destination) -> list[Any]:
    return [word.tag, list(word.cores), word.x_hop, word.y_hop]
