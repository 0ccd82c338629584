"""Mapper of chips whose synapses take any sign: a circuit per neuron, a synapse per connection.

The ideal chip is one: nothing is limited and nothing rounded, so that its configuration is what the program computes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import MappingError
from neurodeploy.targets.analog.chip import AnalogChip, ExactDac
from neurodeploy.targets.analog.mapped import Mapped
from neurodeploy.targets.analog.network import AnalogNetwork
from neurodeploy.targets.analog.neuron_words import neuron_words
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram
from neurodeploy.targets.analog.settings import Settings
from neurodeploy.targets.analog.weights import signed_levels


def map_network(network: AnalogNetwork, chip: AnalogChip, settings: Settings) -> Mapped:
    """Give each neuron a circuit and each connection a synapse, in network order.

    Raises:
        QuantizeError: a constant is outside the range of its converter, or too far from what was asked for.
        MappingError: there are more neurons than circuits, or more inputs than a circuit has.
        ConfigError: the neurons of the chip share words.
    """
    needed = sum(layer.parameters.neurons for layer in network.layers)
    circuits = chip.fabric.neurons
    if circuits is not None and needed > circuits:
        raise MappingError(
            f"the network has {needed} neurons, {chip.name} {circuits} circuits.",
            remedy="use fewer neurons.",
            code="neurons",
            need=f"{needed} circuits",
            limit=str(circuits),
        )
    for layer in network.layers:
        most, limit = int(layer.fan_in.max(initial=0)), chip.fabric.fan_in.value
        if limit is not None and most > limit:
            raise MappingError(
                f"{layer.name}: {most} inputs of a neuron, {limit} of a circuit of {chip.name}, which are not joined.",
                remedy=f"prune the smallest weights, nd.prune_fan_in(graph, {limit}), and fine-tune.",
                code="fan-in",
                layers=(layer.name,),
                need=f"{most} inputs",
                limit=str(limit),
            )
    words = [neuron_words(layer, chip, allow_error=settings.allow_error) for layer in network.layers]
    pairs = zip(network.layers, words, strict=True)
    wanted = [layer.parameters.weight * found.potential_unit for layer, found in pairs]
    bits = chip.weights.magnitude_bits.value
    levels = None if bits is None else signed_levels(wanted, magnitude_bits=bits)
    per_core = chip.fabric.neurons_per_core.value
    layers: list[AnalogLayer] = []
    entries: list[dict[str, Any]] = []
    configured: list[dict[str, Any]] = []
    first_circuit = first_synapse = 0
    for index, (layer, found) in enumerate(zip(network.layers, words, strict=True)):
        weight: NDArray[np.floating] = layer.parameters.weight
        if levels is not None:
            weight = levels.codes[index] * levels.level / found.potential_unit
        connected = layer.parameters.weight != 0
        sites = np.where(connected, first_synapse + np.arange(weight.size).reshape(weight.shape), -1)
        circuit = first_circuit + np.arange(layer.parameters.neurons)
        core = np.zeros_like(circuit) if per_core is None else circuit // per_core
        layers.append(
            AnalogLayer(
                layer.name,
                layer.source,
                layer.max_spikes,
                LayerParameters(weight.astype(np.float64), **found.constants),
                circuit[:, None],
                sites,
                core.astype(np.int32),
                found.rest,
                found.potential_unit,
            )
        )
        entries.append(
            {
                "name": layer.name,
                "parameters": found.report(),
                "weights": {
                    "nrmse": 0.0 if levels is None else levels.nrmse[index],
                    "clipped": 0.0 if levels is None else levels.clipped[index],
                },
                "circuits_per_neuron": 1,
            }
        )
        configured.append(
            {
                "name": layer.name,
                "potential_unit": found.potential_unit,
                "codes": None if levels is None else levels.codes[index].tolist(),
                "words": {
                    name: one.words.tolist()
                    for name, one in found.settings.items()
                    if not isinstance(getattr(chip.parameters, name).dac, ExactDac)
                },
            }
        )
        first_circuit, first_synapse = first_circuit + weight.shape[1], first_synapse + weight.size
    acceleration = chip.time.acceleration.value
    program = AnalogProgram(
        chip.name,
        network.inputs,
        tuple(layers),
        network.t_max,
        acceleration,
        chip.time.timestamp_lsb_s.value * acceleration,
        {"mapper": "plain", "level": None if levels is None else levels.level, "layers": configured},
    )
    return Mapped(program, {"layers": entries, "placement": {"circuits": needed, "of": circuits}})
