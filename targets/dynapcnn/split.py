"""Splitting a layer over several cores by its output features, and the choice of the layers to split.

The parts take the same events, so whoever feeds the layer sends to each of them; each sends its spikes on with a
feature shift, so that the next layer sees the features of the whole. Every neuron gets the same weights in the same
order of events as in the whole layer. Only the order in which the next layer takes the spikes of the parts is another.

How many parts there can be is a question of destinations. A core has two, and so has the sensor's pre-processing: what
they feed is split in two, if they feed nothing else. The host sends an event to any number of cores: a layer that only
takes the host's events has as many parts as there are cores.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from neurodeploy.errors import ConfigError
from neurodeploy.mapping.placement import Core, CoreChoice, Item, fitting, placeable, shortfalls
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.input_paths import InputPath
from neurodeploy.targets.dynapcnn.layers import CoreLayer, LayerDestination
from neurodeploy.targets.dynapcnn.memory import needs
from neurodeploy.targets.dynapcnn.program import part_name

#: Layer -> the first features of its parts but the first: ``{"conv2": (32,)}`` for two parts of 64 features.
Cuts = Mapping[str, tuple[int, ...]]

#: Bounds the search on an invented chip with very many cores.
MAX_ATTEMPTS = 2000


def with_parts(layers: Mapping[str, CoreLayer], cuts: Cuts) -> dict[str, CoreLayer]:
    """The layers with those in ``cuts`` replaced by their parts, all connected as before."""
    ranges = {
        name: list(itertools.pairwise((0, *cuts.get(name, ()), layer.output_shape[0])))
        for name, layer in layers.items()
    }
    found: dict[str, CoreLayer] = {}
    for name, layer in layers.items():
        for part, (first, stop) in zip(part_names(layers, cuts, name), ranges[name], strict=True):
            destinations = tuple(
                LayerDestination(to, end.pools, end.feature_shift + first)
                for end in layer.destinations
                for to in part_names(layers, cuts, end.layer)
            )
            sources = tuple(other for source in layer.sources for other in part_names(layers, cuts, source))
            whole = replace(layer, name=part, sources=sources, destinations=destinations)
            found[part] = _part(whole, name, first, stop) if name in cuts else whole
    return found


def part_names(layers: Mapping[str, CoreLayer], cuts: Cuts, name: str) -> list[str]:
    """Names of the parts of a layer, or its own."""
    if name not in cuts:
        return [name]
    return [part_name(name, a, b - a) for a, b in itertools.pairwise((0, *cuts[name], layers[name].output_shape[0]))]


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


def most_parts(layers: Mapping[str, CoreLayer], name: str, chip: Chip, paths: Sequence[InputPath]) -> tuple[int, str]:
    """How many cores ``name`` can be split over, and what limits it."""
    layer, limit = layers[name], chip.limits.destinations.value
    most, reason = len(chip.cores.memories), "the chip has no more cores"
    if layer.output_shape[0] < most:
        most, reason = layer.output_shape[0], f"{name} has {layer.output_shape[0]} output features"
    if layer.feature_step > 1:
        most, reason = 1, f"{name} is read by the readout block, which takes one core"
    ends = {source: layers[source].destinations for source in layer.sources}
    ends |= {path.name: path.ends for path in paths if path.before is not None}
    for source, destinations in ends.items():
        own = sum(end.layer == name for end in destinations)
        if own and (parts := 1 + (limit - len(destinations)) // own) < most:
            others = ", ".join(end.layer for end in destinations)
            what = "a core" if source in layers else "the sensor's pre-processing"
            most, reason = parts, f"{source} feeds {others}, and {what} has {limit} destinations"
    return most, reason


def obstacle(layers: Mapping[str, CoreLayer], name: str, chip: Chip, paths: Sequence[InputPath]) -> str | None:
    """Why ``name`` cannot be split at all; None when it can."""
    most, reason = most_parts(layers, name, chip, paths)
    return reason if most < 2 else None


def plan(
    layers: Mapping[str, CoreLayer], chip: Chip, paths: Sequence[InputPath], fixed: Sequence[str] = ()
) -> Cuts | None:
    """The fewest cuts so that everything can be placed; None when splitting does not help.

    Args:
        layers: all layers, in network order.
        chip: whose cores.
        paths: the network's inputs.
        fixed: layers that stay whole on a core of their own, which the user chose.
    """
    cores = chip.placement_cores()
    spare = len(cores) - len(layers)
    cuts: dict[str, list[tuple[int, ...]]] = {}
    for name, layer in layers.items():
        most = 1 if name in fixed else min(most_parts(layers, name, chip, paths)[0], spare + 1)
        whole = bool(fitting(Item(name, needs(layer)), cores))
        cuts[name] = ([()] if whole else []) + _cuts(layer, most, cores)
        if not cuts[name]:
            return None
    attempts = (attempt for more in range(1, spare + 1) for attempt in _attempts(list(cuts.items()), more))
    for attempt in itertools.islice(attempts, MAX_ATTEMPTS):
        items = [
            Item(f"{name} from {a}", needs(layer, b - a))
            for name, layer in layers.items()
            for a, b in itertools.pairwise((0, *attempt.get(name, ()), layer.output_shape[0]))
        ]
        if placeable(items, cores):
            return attempt
    return None


def _attempts(
    options: Sequence[tuple[str, Sequence[tuple[int, ...]]]], more: int
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Every choice of one cut per layer that takes ``more`` cores more than there are layers; few layers first."""
    if not options:
        if not more:
            yield {}
        return
    (name, cuts), rest = options[0], options[1:]
    for cut in sorted(cuts, key=len, reverse=True):
        if len(cut) <= more:
            for others in _attempts(rest, more - len(cut)):
                yield {name: cut, **others} if cut else others


def _cuts(layer: CoreLayer, most: int, cores: Sequence[Core]) -> list[tuple[int, ...]]:
    """Where to cut a layer so that every part fits some core, fewest parts first.

    Into equal parts; into parts of a power of two, which wastes no memory; into parts as large as the cores of each
    size hold, the largest first.
    """
    features, found = layer.output_shape[0], []
    holds = sorted({_holds(layer, core) for core in cores} - {0}, reverse=True)
    for parts in range(2, most + 1):
        equal = -(-features // parts)
        power = 1 << (equal - 1).bit_length()
        sizes = [(size,) * parts for size in (equal, power)]
        sizes += list(itertools.combinations_with_replacement(holds, parts))
        for chosen in sizes:
            cut = tuple(stop for stop in itertools.accumulate(chosen) if stop < features)
            stops = (0, *cut, features)
            if len(cut) == parts - 1 and all(b - a <= holds[0] for a, b in itertools.pairwise(stops) if holds):
                found.append(cut)
    return list(dict.fromkeys(found)) if holds else []


def _holds(layer: CoreLayer, core: Core) -> int:
    """The most features of ``layer`` that ``core`` has room for."""
    fit, too_many = 0, layer.output_shape[0] + 1
    while too_many - fit > 1:  # needs grow with the features, so bisect
        features = (fit + too_many) // 2
        if shortfalls(Item(layer.name, needs(layer, features)), core):
            too_many = features
        else:
            fit = features
    return fit


def chosen_cuts(layers: Mapping[str, CoreLayer], choice: CoreChoice, chip: Chip, paths: Sequence[InputPath]) -> Cuts:
    """The cuts in the names of parts that the user gave cores to, e.g. ``{"conv2[0:32]": 3, "conv2[32:64]": 4}``.

    Raises:
        ConfigError: a layer that cannot be split so, or parts that are not those of one layer.
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
    cuts: dict[str, tuple[int, ...]] = {}
    for name, ranges in parts.items():
        features = layers[name].output_shape[0]
        bounds = (0, *sorted(stop for _, stop in ranges))
        most, limit = most_parts(layers, name, chip, paths)
        reason = None
        if len(ranges) > most:
            reason = limit
        elif len(ranges) < 2 or bounds[-1] != features or sorted(ranges) != list(itertools.pairwise(bounds)):
            reason = f"the parts of its {features} features must follow each other, from the first to the last"
        if reason:
            raise ConfigError(
                f"layer2core_map splits {name}: {reason}.",
                remedy=f'name all parts, e.g. "{name}[0:{features // 2}]" and "{name}[{features // 2}:{features}]", '
                "or leave the layer out.",
                code="layer2core-map",
            )
        cuts[name] = bounds[1:-1]
    return cuts
