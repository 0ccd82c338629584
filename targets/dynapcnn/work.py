"""How busy each layer is, for a placement that gives the busiest layers the fast cores."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from neurodeploy.errors import ConfigError
from neurodeploy.targets.dynapcnn.input_paths import InputPath
from neurodeploy.targets.dynapcnn.layers import CoreLayer

#: Layer -> synaptic operations, of a recording or per second; or "estimate"; or None for no preference.
Synops = Literal["estimate"] | Mapping[str, float] | None


def work_of(layers: Mapping[str, CoreLayer], paths: Sequence[InputPath], synops: Synops) -> dict[str, float]:
    """Synaptic operations of every layer or part; nothing without ``synops``.

    ``"estimate"`` takes every input pixel and every neuron to send one event in the unit of time. An event costs
    ``F kx ky / (sx sy)`` operations in the layer it enters (sinabs documentation).

    Raises:
        ConfigError: ``synops`` names a layer that does not exist.
    """
    if synops is None:
        return {}
    if isinstance(synops, Mapping):
        names = list(dict.fromkeys(layer.part_of or name for name, layer in layers.items()))
        for name in synops:
            if name not in names:
                raise ConfigError(
                    f"settings: synops names the layer {name!r}, which does not exist.",
                    remedy=f"the layers are: {', '.join(names)}.",
                    code="synops",
                )
        whole: dict[str, int] = {}
        for name, layer in layers.items():
            own = layer.part_of or name
            whole[own] = whole.get(own, 0) + layer.output_shape[0]
        return {
            name: synops.get(layer.part_of or name, 0.0) * layer.output_shape[0] / whole[layer.part_of or name]
            for name, layer in layers.items()
        }
    arriving = dict.fromkeys(layers, 0)
    for path in paths:
        for end in path.ends:
            arriving[end.layer] += math.prod(path.shape)
    for layer in layers.values():
        for end in layer.destinations:
            arriving[end.layer] += math.prod(layer.output_shape)
    found = {}
    for name, layer in layers.items():
        f, _, ky, kx = layer.conv.weight.shape
        found[name] = arriving[name] * f * ky * kx / math.prod(layer.conv.stride)
    return found
