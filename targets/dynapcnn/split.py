"""Splitting a layer over two cores by its output features, and the choice of the layers to split.

The parts take the same events, so whoever feeds the layer sends to both; each sends its spikes on with a feature shift,
so that the next layer sees the features of the whole. Every neuron gets the same weights in the same order of events as
in the whole layer. Only the order in which the next layer takes the spikes of the two parts is another.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from neurodeploy.errors import ConfigError
from neurodeploy.mapping.placement import CoreChoice, Item, fitting, placeable
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.layers import CoreLayer, LayerDestination
from neurodeploy.targets.dynapcnn.memory import needs
from neurodeploy.targets.dynapcnn.program import part_name

#: Layer -> the first feature of its second part.
Cuts = Mapping[str, int]

#: Bounds the search on an invented chip with very many cores.
MAX_ATTEMPTS = 2000


def with_parts(layers: Mapping[str, CoreLayer], cuts: Cuts) -> dict[str, CoreLayer]:
    """The layers with those in ``cuts`` replaced by their two parts, all connected as before."""
    ranges = {
        name: [(0, cuts[name]), (cuts[name], layer.output_shape[0])] if name in cuts else [(0, layer.output_shape[0])]
        for name, layer in layers.items()
    }

    def names(layer: str) -> list[str]:
        return [part_name(layer, a, b - a) for a, b in ranges[layer]] if layer in cuts else [layer]

    found: dict[str, CoreLayer] = {}
    for name, layer in layers.items():
        for part, (first, stop) in zip(names(name), ranges[name], strict=True):
            destinations = tuple(
                LayerDestination(to, end.pools, end.feature_shift + first)
                for end in layer.destinations
                for to in names(end.layer)
            )
            sources = tuple(other for source in layer.sources for other in names(source))
            whole = replace(layer, name=part, sources=sources, destinations=destinations)
            found[part] = _part(whole, name, first, stop) if name in cuts else whole
    return found


def _part(layer: CoreLayer, part_of: str, first: int, stop: int) -> CoreLayer:
    conv, neuron = layer.conv, layer.neuron
    bias = None if conv.bias is None else conv.bias[first:stop]
    start = neuron.initial_v
    if start is not None:
        start = np.broadcast_to(start, layer.output_shape)[first:stop]
    return replace(
        layer,
        conv=replace(conv, weight=conv.weight[first:stop], bias=bias),
        # The rules have checked that threshold and lower bound are the same for all neurons.
        neuron=replace(
            neuron,
            threshold=np.max(neuron.threshold),
            v_min=None if neuron.v_min is None else np.max(neuron.v_min),
            initial_v=start,
        ),
        output_shape=(stop - first, *layer.output_shape[1:]),
        part_of=part_of,
        first_feature=first,
    )


def obstacle(layers: Mapping[str, CoreLayer], name: str, chip: Chip) -> str | None:
    """Why ``name`` cannot be split, with what to do about it; None when it can."""
    layer, limit = layers[name], chip.limits.destinations.value
    if layer.takes_input:
        return (
            f"{name} takes the host's events, which enter one core (a 1 x 1 convolution with the identity before it "
            "sends them to two)"
        )
    if layer.output_shape[0] < 2:
        return f"{name} has one output feature"
    for source in layer.sources:
        if len(layers[source].destinations) + 1 > limit:
            others = ", ".join(end.layer for end in layers[source].destinations)
            return f"{source} feeds {others}, and a core has {limit} destinations"
    return None


def plan(layers: Mapping[str, CoreLayer], chip: Chip, fixed: Sequence[str] = ()) -> Cuts | None:
    """The fewest layers to split so that everything can be placed; None when splitting does not help.

    Args:
        layers: all layers, in network order.
        chip: whose cores.
        fixed: layers that stay whole on a core of their own, which the user chose.
    """
    cores = chip.placement_cores()
    cuts = {
        name: _cuts(layer.output_shape[0])
        for name, layer in layers.items()
        if name not in fixed and obstacle(layers, name, chip) is None
    }
    too_large = [name for name, layer in layers.items() if not fitting(Item(name, needs(layer)), cores)]
    if not set(too_large) <= set(cuts):
        return None
    others = [name for name in cuts if name not in too_large]
    attempts = (
        dict(zip(names, chosen, strict=True))
        for extra in range(len(cores) - len(layers) - len(too_large) + 1)
        for names in ((*too_large, *more) for more in itertools.combinations(others, extra))
        for chosen in itertools.product(*(cuts[name] for name in names))
    )
    for attempt in itertools.islice(attempts, MAX_ATTEMPTS):
        items = [Item(name, needs(layer)) for name, layer in with_parts(layers, attempt).items()]
        if attempt and placeable(items, cores):
            return attempt
    return None


def _cuts(features: int) -> list[int]:
    """Where to cut: in the middle; or at a power of two, which wastes no kernel memory."""
    return list(dict.fromkeys([(features + 1) // 2, 1 << ((features - 1).bit_length() - 1)]))


def chosen_cuts(layers: Mapping[str, CoreLayer], choice: CoreChoice, chip: Chip) -> Cuts:
    """The cuts in the names of parts that the user gave cores to, e.g. ``{"conv2[0:32]": 3, "conv2[32:64]": 4}``.

    Raises:
        ConfigError: a layer that cannot be split, or parts that are not the two of one layer.
    """
    if not isinstance(choice, Mapping):
        return {}
    parts: dict[str, list[tuple[int, int]]] = {}
    for key in choice:
        found = (
            re.fullmatch(r"(.+)\[(\d{1,4}):(\d{1,4})\]", key) if isinstance(key, str) and key not in layers else None
        )
        if found and found[1] in layers:
            parts.setdefault(found[1], []).append((int(found[2]), int(found[3])))
    cuts: dict[str, int] = {}
    for name, ranges in parts.items():
        features = layers[name].output_shape[0]
        cut = min(stop for _, stop in ranges)
        reason = obstacle(layers, name, chip)
        if reason is None and not (0 < cut < features and sorted(ranges) == [(0, cut), (cut, features)]):
            reason = f"the parts of its {features} features must be two, one after the other"
        if reason:
            raise ConfigError(
                f"layer2core_map splits {name}: {reason}.",
                remedy=f'name both parts, e.g. "{name}[0:{features // 2}]" and "{name}[{features // 2}:{features}]", '
                "or leave the layer out.",
                code="layer2core-map",
            )
        cuts[name] = cut
    return cuts
