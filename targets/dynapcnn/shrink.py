"""What would make a network fit: the smallest single change that gives every layer a core."""

from collections.abc import Mapping, Sequence

from neurodeploy.mapping.placement import Core, Item, placeable
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.layers import CoreLayer, MapShape
from neurodeploy.targets.dynapcnn.memory import kernel_words, neuron_words

Needs = Mapping[str, Mapping[str, int]]


def suggest(layers: Mapping[str, CoreLayer], conflict: Sequence[str], cores: Sequence[Core], chip: Chip) -> str:
    """A remedy for layers that cannot be placed together: changes of one layer, each tried on the whole network.

    Args:
        layers: all layers of the network, in network order.
        conflict: names of the layers that conflict.
        cores: the chip's cores.
        chip: whose strides and poolings are allowed.
    """
    if len(layers) > len(cores):
        return f"remove or join at least {len(layers) - len(cores)} of the {len(layers)} layers."
    if found := [change for name in conflict for change in _changes(layers, name, list(layers), cores, chip)]:
        return "; or ".join(found) + (". Each of these alone is enough." if len(found) > 1 else ".")
    # Several layers are too big: say for each what at least it needs.
    alone = [_changes(layers, name, [name], cores, chip) for name in conflict]
    found = [" or ".join(changes) for changes in alone if changes]
    if found:
        return "several changes are needed, at least these: " + "; and ".join(found) + "."
    return f"use fewer features, a larger stride or more pooling in several of: {', '.join(conflict)}."


def _changes(
    layers: Mapping[str, CoreLayer], name: str, placed: Sequence[str], cores: Sequence[Core], chip: Chip
) -> list[str]:
    """Changes of ``name`` that, each alone, give every layer of ``placed`` a core."""
    layer = layers[name]

    def fits(needs: Needs | None) -> bool:
        return needs is not None and placeable([Item(other, needs[other]) for other in placed], cores)

    if fits(_needs(layers)):
        return []
    found: list[str] = []
    fit, too_many = 0, layer.output_shape[0]
    while too_many - fit > 1:  # needs grow with the features, so bisect
        features = (fit + too_many) // 2
        if fits(_needs(layers, name, features=features)):
            fit = features
        else:
            too_many = features
    if fit:
        found.append(f"give {name} at most {fit} output features (it has {layer.output_shape[0]})")
    larger = [stride for stride in sorted(chip.limits.strides.value) if stride > max(layer.conv.stride)]
    if stride := next((stride for stride in larger if fits(_needs(layers, name, stride=stride))), None):
        found.append(f"give {name} a stride of {stride} (it has {layer.conv.stride[0]})")
    poolings = [
        2 * pooling
        for source in layer.sources
        for destination in layers[source].destinations
        if destination.layer == name
        for pooling in destination.pooling
    ]
    if poolings and set(poolings) <= set(chip.limits.poolings.value) and fits(_needs(layers, name, pooling=2)):
        found.append(f"pool the input of {name} by a further factor of 2")
    return found


def _needs(
    layers: Mapping[str, CoreLayer],
    name: str = "",
    *,
    features: int | None = None,
    stride: int | None = None,
    pooling: int = 1,
) -> Needs | None:
    """What every layer needs once ``name`` has other output features, another stride or a pooled input.

    The change is followed through all later layers; a linear layer takes a map of any size. None: some map is then too
    small for its kernel, or branches that are added no longer have one shape.
    """
    arriving: dict[str, set[MapShape]] = {}
    found: dict[str, Mapping[str, int]] = {}
    for layer in layers.values():
        shapes = arriving.get(layer.name, {layer.input_shape})
        if len(shapes) != 1:
            return None
        ((c, h, w),) = shapes
        f, _, ky, kx = layer.conv.weight.shape
        (sy, sx), (py, px) = layer.conv.stride, layer.conv.padding
        if layer.name == name:
            f, h, w = features or f, h // pooling, w // pooling
            sy, sx = (stride, stride) if stride else (sy, sx)
        if (ky, kx) == layer.input_shape[1:] and (py, px) == (0, 0):
            ky, kx = h, w
        output = (f, (h + 2 * py - ky) // sy + 1, (w + 2 * px - kx) // sx + 1)
        if min(h, w, *output) < 1:
            return None
        found[layer.name] = {
            "kernel": kernel_words(c, f, (ky, kx)),
            "neuron": neuron_words(output),
            "bias": f if layer.has_bias else 0,
        }
        for end in layer.destinations:
            y, x = end.pooling
            arriving.setdefault(end.layer, set()).add((f, output[1] // y, output[2] // x))
    return found
