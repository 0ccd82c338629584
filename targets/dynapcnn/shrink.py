"""What would make a network fit: the smallest single change that gives every layer a core."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from neurodeploy.mapping.placement import Core, Item, placeable
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.layers import CoreLayer
from neurodeploy.targets.dynapcnn.memory import kernel_words, needs, neuron_words


def suggest(layers: Mapping[str, CoreLayer], conflict: Sequence[str], cores: Sequence[Core], chip: Chip) -> str:
    """A remedy for layers that cannot be placed together: changes of one layer, each tried against all cores.

    Args:
        layers: all layers of the network.
        conflict: names of the layers that conflict.
        cores: the chip's cores.
        chip: whose strides are allowed.
    """
    if len(layers) > len(cores):
        return f"remove or join at least {len(layers) - len(cores)} of the {len(layers)} layers."
    if found := [change for name in conflict for change in _changes(layers, name, cores, chip)]:
        return "; or ".join(found) + (". Each of these alone is enough." if len(found) > 1 else ".")
    # Several layers are too big: say for each what at least it needs.
    alone = [_changes({name: layers[name]}, name, cores, chip) for name in conflict]
    found = [" or ".join(changes) for changes in alone if changes]
    if found:
        return "several changes are needed, at least these: " + "; and ".join(found) + "."
    return f"use fewer features, a larger stride or more pooling in several of: {', '.join(conflict)}."


def _changes(layers: Mapping[str, CoreLayer], name: str, cores: Sequence[Core], chip: Chip) -> list[str]:
    """Changes of ``name`` that, each alone, give every layer of ``layers`` a core."""
    layer = layers[name]
    if placeable([Item(name, needs(other)) for name, other in layers.items()], cores):
        return []
    found: list[str] = []
    if features := _fewer_features(layers, name, cores):
        found.append(f"give {name} at most {features} output features (it has {layer.output_shape[0]})")
    if stride := _larger_stride(layers, name, cores, chip):
        found.append(f"give {name} a stride of {stride} (it has {layer.conv.stride[0]})")
    if _pooled_input(layers, name, cores):
        found.append(f"pool the input of {name} by a further factor of 2")
    return found


def _feeds(layers: Mapping[str, CoreLayer], layer: CoreLayer, output: Sequence[int]) -> bool:
    """Whether a smaller map of ``layer`` is still large enough for the layers it feeds; linear layers take any map."""
    for destination in layer.destinations:
        other = layers.get(destination.layer)
        for axis in (0, 1):
            pooled = output[1 + axis] // destination.pooling[axis]
            if pooled < 1:
                return False
            if other is None or other.conv.weight.shape[2:] == other.input_shape[1:]:
                continue
            if pooled + 2 * other.conv.padding[axis] < other.conv.weight.shape[2 + axis]:
                return False
    return True


def _fits_with(layers: Mapping[str, CoreLayer], cores: Sequence[Core], changed: Mapping[str, dict[str, int]]) -> bool:
    return placeable([Item(name, changed.get(name) or needs(layer)) for name, layer in layers.items()], cores)


def _fewer_features(layers: Mapping[str, CoreLayer], name: str, cores: Sequence[Core]) -> int | None:
    """The largest number of output features of ``name`` with which all layers fit; needs grow with it, so bisect."""
    layer = layers[name]
    fits, too_many = 0, layer.output_shape[0]
    while too_many - fits > 1:
        features = (fits + too_many) // 2
        if _fits_with(layers, cores, _with_features(layers, layer, features)):
            fits = features
        else:
            too_many = features
    return fits or None


def _with_features(layers: Mapping[str, CoreLayer], layer: CoreLayer, features: int) -> dict[str, dict[str, int]]:
    """Needs of ``layer`` with fewer output features, and of the layers that then receive fewer."""
    _, c, ky, kx = layer.conv.weight.shape
    changed = {
        layer.name: {
            "kernel": kernel_words(c, features, (ky, kx)),
            "neuron": neuron_words((features, *layer.output_shape[1:])),
            "bias": features if layer.has_bias else 0,
        }
    }
    for destination in layer.destinations:
        other = layers.get(destination.layer)
        # A layer with several sources still receives the features of the others.
        if other is not None and other.sources == (layer.name,):
            f, _, ky, kx = other.conv.weight.shape
            changed[other.name] = {**needs(other), "kernel": kernel_words(features, f, (ky, kx))}
    return changed


def _larger_stride(layers: Mapping[str, CoreLayer], name: str, cores: Sequence[Core], chip: Chip) -> int | None:
    """The next larger stride of ``name`` with which all layers fit; later layers only get smaller."""
    layer = layers[name]
    for stride in sorted(chip.limits.strides.value):
        if stride > max(layer.conv.stride):
            strided = replace(layer.conv, stride=(stride, stride))
            output = strided.output_shape(name, [layer.input_shape])
            changed = {name: {**needs(layer), "neuron": neuron_words((output[0], output[1], output[2]))}}
            if _feeds(layers, layer, output) and _fits_with(layers, cores, changed):
                return stride
    return None


def _pooled_input(layers: Mapping[str, CoreLayer], name: str, cores: Sequence[Core]) -> bool:
    """Whether halving the input map of ``name`` makes all layers fit; a linear layer's kernel halves with its map."""
    layer = layers[name]
    f, c, ky, kx = layer.conv.weight.shape
    _, h, w = layer.input_shape
    if not layer.sources or min(h, w) < 2:
        return False
    if (ky, kx) == (h, w):
        changed = {**needs(layer), "kernel": kernel_words(c, f, (h // 2, w // 2))}
    else:
        if min(h, w) // 2 + 2 * min(layer.conv.padding) < max(ky, kx):
            return False
        output = layer.conv.output_shape(name, [(c, h // 2, w // 2)])
        if not _feeds(layers, layer, output):
            return False
        changed = {**needs(layer), "neuron": neuron_words((output[0], output[1], output[2]))}
    return _fits_with(layers, cores, {name: changed})
