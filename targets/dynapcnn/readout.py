"""The readout block behind the last core: how the layer is laid out for it, and what it answers.

Speck Dev Kit Datasheet V1.0: a counter of 16 bits per class and tick of the slow clock, a moving average over 1, 16 or
32 ticks, a comparison ``>`` with a threshold. On Speck2e and Speck2f it reads class i from feature 4 i of the core
(erratum, sinabs documentation); which features it reads elsewhere, how it rounds and how it breaks ties is not
documented.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError, EmulationError
from neurodeploy.target import Rule, SpikeArray
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.layers import CoreLayer
from neurodeploy.targets.dynapcnn.program import DynapcnnProgram
from neurodeploy.targets.dynapcnn.settings import ReadoutSettings

READOUT = Rule(
    "readout",
    "The readout block reads class i from a feature that is a multiple of i (erratum of 2e and 2f), so the last layer "
    "gets features without weights in between.",
    "note",
)

#: One answer per tick: the class with the largest average and that average; ``valid`` where it exceeds the threshold.
READOUT_DTYPE = np.dtype([("t", "<i8"), ("valid", "?"), ("class", "u1"), ("average", "<f8")])


def with_readout(
    layers: Mapping[str, CoreLayer], wanted: ReadoutSettings | None, chip: Chip
) -> Mapping[str, CoreLayer]:
    """The layers with the last one laid out for the readout block.

    Raises:
        ConfigError: there is not one output layer of at most as many classes as the block has, on a 1 x 1 map.
    """
    if wanted is None:
        return layers
    outputs = [layer for layer in layers.values() if layer.is_output]
    classes, step = chip.readout.classes.value, chip.readout.feature_step.value
    found = ", ".join(f"{layer.name} {layer.output_shape}" for layer in outputs)
    if len(outputs) != 1 or outputs[0].output_shape[0] > classes or outputs[0].output_shape[1:] != (1, 1):
        raise ConfigError(
            f"settings: readout needs one output layer ({classes}, 1, 1) or smaller; there is {found}.",
            remedy="end the network with one linear layer of that many classes, or count its spikes on the host.",
            code="readout-layer",
        )
    if outputs[0].destinations:
        raise ConfigError(
            f"settings: readout lays out the features of {outputs[0].name} for itself, which feeds "
            f"{', '.join(end.layer for end in outputs[0].destinations)} too.",
            remedy="let the output layer feed nothing else.",
            code="readout-layer",
        )
    return {**layers, outputs[0].name: _spread(outputs[0], step)}


def _spread(layer: CoreLayer, step: int) -> CoreLayer:
    f = (layer.output_shape[0] - 1) * step + 1

    def spread(values: NDArray[Any] | None) -> NDArray[Any] | None:
        if values is None or values.ndim == 0:
            return values
        result = np.zeros((f, *values.shape[1:]), values.dtype)
        result[::step] = values
        return result

    def one(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else np.max(values)

    weight = spread(layer.conv.weight)
    if weight is None:
        return layer
    return replace(
        layer,
        conv=replace(layer.conv, weight=weight, bias=spread(layer.conv.bias)),
        # The rules have checked that threshold and lower bound are the same for all neurons.
        neuron=replace(
            layer.neuron,
            threshold=np.asarray(np.max(layer.neuron.threshold)),
            v_min=one(layer.neuron.v_min),
            initial_v=spread(layer.neuron.initial_v),
        ),
        output_shape=(f, *layer.output_shape[1:]),
        feature_step=step,
    )


def readout_values(
    program: DynapcnnProgram, spikes: SpikeArray, *, slow_clock_hz: float, until_us: int
) -> NDArray[np.void]:
    """What the readout block answers at every tick of the slow clock up to ``until_us``, as ``READOUT_DTYPE``.

    Averages are not rounded; of equal averages the lowest class is taken; until enough ticks have come, the missing
    ones count as empty. Counters hold 16 bits.

    Args:
        program: a program with a readout block.
        spikes: of the emulated (or recorded) network, ``layer`` an index into ``program.layers``.
        slow_clock_hz: ticks per second.
        until_us: end of the recording.

    Raises:
        EmulationError: the program has no readout block, or the clock is not a positive number.
    """
    if program.readout is None or not 0 < slow_clock_hz <= 1e6:
        what = "it has no readout block" if program.readout is None else f"slow_clock_hz is {slow_clock_hz}"
        raise EmulationError(
            f"the program gives no readout values: {what}.",
            remedy='compile with settings={"readout": {}} and give the clock in hertz.',
            code="readout",
        )
    core = next(core for core in program.cores if core.core == program.readout.core)
    ticks = np.floor(np.arange(1, int(until_us * slow_clock_hz / 1e6) + 2) * 1e6 / slow_clock_hz).astype(np.int64)
    ticks = ticks[ticks <= until_us]
    own = spikes[spikes["layer"] == program.layers.index(core.layer)]
    # A tick comes before the events of its microsecond.
    place = np.searchsorted(ticks, own["t"], side="right")
    inside = place < len(ticks)
    counts = np.zeros((len(ticks), core.features))
    np.add.at(counts, (place[inside], own["c"][inside]), 1)
    total = np.cumsum(np.minimum(counts, 65535), axis=0)
    n = program.readout.average_ticks
    total[n:] -= total[:-n].copy()
    averages = total / n
    found = np.empty(len(ticks), READOUT_DTYPE)
    found["t"], found["class"] = ticks, averages.argmax(1) if len(ticks) else 0
    found["average"] = averages.max(1) if len(ticks) else 0
    found["valid"] = found["average"] > program.readout.threshold
    return found
