"""From a mapped network to the chip's configuration."""

from collections.abc import Sequence

import numpy as np

from neurodeploy.errors import ConfigError
from neurodeploy.targets.dynapcnn.input_paths import InputPath
from neurodeploy.targets.dynapcnn.mapped import MappedLayer, MappedNetwork
from neurodeploy.targets.dynapcnn.program import (
    DECIMATION,
    CoreProgram,
    Destination,
    DynapcnnProgram,
    Entry,
    InputPort,
    ReadoutProgram,
)


def lower(mapped: MappedNetwork, monitor_layers: Sequence[str] | None = None) -> DynapcnnProgram:
    """The configuration of every core.

    Args:
        mapped: the network on its cores.
        monitor_layers: layers whose spikes the host sees; None: the output layers.

    Raises:
        ConfigError: ``monitor_layers`` names a layer that does not exist.
    """
    if monitor_layers is None:
        monitor_layers = [_layer(placed) for placed in mapped.layers.values() if placed.layer.is_output]
    elif isinstance(monitor_layers, str):
        monitor_layers = [monitor_layers]
    layers = list(dict.fromkeys(map(_layer, mapped.layers.values())))
    for name in monitor_layers:
        if name not in layers:
            raise ConfigError(
                f"monitor_layers names {name!r}, which does not exist.",
                remedy=f"the layers are: {', '.join(layers)}.",
                code="monitor-layers",
            )
    return DynapcnnProgram(
        target=mapped.chip.name,
        cores=tuple(_core(mapped, placed, _layer(placed) in monitor_layers) for placed in mapped.layers.values()),
        entry_core=mapped.layers[mapped.inputs[0].ends[0].layer].core,
        ports=() if _is_plain(mapped) else tuple(_port(mapped, path) for path in mapped.inputs),
        readout=_readout(mapped),
    )


def _is_plain(mapped: MappedNetwork) -> bool:
    """Whether one input goes straight into one core, which takes nothing else beside it."""
    (path, *others) = mapped.inputs
    if others or path.before is not None or len(path.ends) != 1:
        return False
    return path.given_shape == mapped.layers[path.ends[0].layer].input_shape


def _port(mapped: MappedNetwork, path: InputPath) -> InputPort:
    entries = tuple(Entry(mapped.layers[end.layer].core, end.feature_shift) for end in path.ends)
    return InputPort(path.name, path.given_shape, entries, path.dvs)


def _readout(mapped: MappedNetwork) -> ReadoutProgram | None:
    wanted = mapped.settings.readout
    if wanted is None:
        return None
    (placed,) = (placed for placed in mapped.layers.values() if placed.layer.is_output)
    return ReadoutProgram(
        placed.core, wanted.threshold, wanted.average_ticks, wanted.output, wanted.output_class, wanted.monitor
    )


def _layer(placed: MappedLayer) -> str:
    """The layer, of which ``placed`` may be a part."""
    return placed.layer.part_of or placed.name


def _core(mapped: MappedNetwork, placed: MappedLayer, monitor: bool) -> CoreProgram:
    layer = placed.layer
    conv, neuron = layer.conv, layer.neuron
    initial_v = neuron.initial_v
    if initial_v is not None:
        initial_v = np.broadcast_to(initial_v, layer.output_shape).astype(np.int16) if np.any(initial_v) else None
    biases = conv.bias if layer.has_bias and conv.bias is not None else np.zeros(layer.output_shape[0])
    decimation = mapped.settings.decimators.get(_layer(placed))
    lowest = -(2 ** (mapped.chip.limits.state_bits.value - 1))
    return CoreProgram(
        layer=_layer(placed),
        core=placed.core,
        input_shape=layer.input_shape,
        output_shape=layer.output_shape,
        kernel_size=conv.weight.shape[2],
        stride=conv.stride,
        padding=conv.padding,
        # The rules have checked that the integers are in range, so the narrower type changes no value.
        weights=np.ascontiguousarray(conv.weight, np.int8),
        biases=np.ascontiguousarray(biases, np.int16),
        threshold_high=int(np.max(neuron.threshold)),
        threshold_low=lowest if neuron.v_min is None else int(np.max(neuron.v_min)),
        return_to_zero=neuron.reset == "zero",
        leak_enable=layer.has_bias,
        monitor_enable=monitor,
        destinations=tuple(
            Destination(mapped.layers[end.layer].core, end.pooling[0], end.feature_shift) for end in layer.destinations
        ),
        neurons_initial_value=initial_v,
        first_feature=layer.first_feature if layer.part_of else None,
        feature_step=layer.feature_step,
        output_decimator_interval=None if decimation is None else DECIMATION.index(decimation),
    )
