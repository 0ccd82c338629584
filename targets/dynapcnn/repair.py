"""What would make a network fit: changes of layers, found by what the cores have room for, and each tried by mapping
the changed network.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Feedback, Neuron, Node, Shape, SumPool2d
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.input_paths import InputPath
from neurodeploy.targets.dynapcnn.layers import CoreLayer
from neurodeploy.targets.dynapcnn.memory import kernel_words, neuron_words

Needs = Mapping[str, Mapping[str, int]]
Fits = Callable[[Needs], bool]

#: The most repairs that are named; more would be a list nobody reads.
MOST_REPAIRS = 6

#: The most sets of layers to leave out that are looked at.
MOST_REMOVALS = 200


@dataclass(frozen=True)
class Change:
    """One layer made smaller.

    Attributes:
        layer: which.
        what: its output ``features``, its ``stride``, its ``kernel`` (side), a further ``pooling`` of its input, its
            ``bias`` (left out) or the whole layer (``remove``).
        to: the new number; the factor of the pooling; 0 where there is none.
        was: the number before.
    """

    layer: str
    what: Literal["features", "stride", "kernel", "pooling", "bias", "remove"]
    to: int = 0
    was: int = 0

    def __str__(self) -> str:
        match self.what:
            case "features":
                return f"give {self.layer} at most {self.to} output features (it has {self.was})"
            case "stride":
                return f"give {self.layer} a stride of {self.to} (it has {self.was})"
            case "kernel":
                return f"give {self.layer} a kernel of {self.to} x {self.to} (it has {self.was})"
            case "pooling":
                return f"pool the input of {self.layer} by a further factor of {self.to}"
            case "bias":
                return f"leave out the biases of {self.layer}"
            case "remove":
                return f"remove {self.layer}"


#: Changes that are made together.
Repair = tuple[Change, ...]


def in_words(repairs: Sequence[Repair]) -> str:
    """A sentence that names every repair."""
    if not repairs:
        return ""
    texts = [" and ".join(map(str, repair)) for repair in repairs]
    return "; or ".join(texts) + (". Each of these alone is enough." if len(texts) > 1 else ".")


def candidates(
    layers: Mapping[str, CoreLayer], paths: Sequence[InputPath], conflict: Sequence[str], fits: Fits, chip: Chip
) -> list[Repair]:
    """Repairs that give every layer room, smallest first: changes of one layer, or of several where one is not enough.

    Args:
        layers: all layers of the network, in network order.
        paths: the network's inputs.
        conflict: names of the layers that conflict.
        fits: whether layers with these needs can be placed.
        chip: whose strides and poolings are allowed.
    """

    def works(repair: Repair) -> bool:
        needs = needs_after(layers, paths, repair)
        return needs is not None and fits(needs)

    near = dict.fromkeys([*conflict, *(source for name in conflict for source in layers[name].sources)])
    found = [repair for name in near for repair in _single(layers, name, works, chip)]
    return found or _several(layers, list(near), works, chip)


def removals(layers: Mapping[str, CoreLayer], count: int) -> Iterator[Repair]:
    """Sets of ``count`` layers to leave out: neighbours first, hidden layers first, from the last one backwards."""
    names = list(layers)
    runs = [tuple(names[i : i + count]) for i in range(len(names) - count, -1, -1)]
    hidden = [name for name in reversed(names) if not (layers[name].is_output or layers[name].takes_input)]
    others = itertools.islice(itertools.combinations(hidden, count), MOST_REMOVALS)
    rest = itertools.islice(itertools.combinations(reversed(names), count), MOST_REMOVALS)
    inner = [run for run in runs if set(run) <= set(hidden)]
    for run in dict.fromkeys([*inner, *others, *runs, *rest]):
        yield tuple(Change(name, "remove") for name in run)


def _single(layers: Mapping[str, CoreLayer], name: str, works: Callable[[Repair], bool], chip: Chip) -> list[Repair]:
    """Changes of ``name`` that, each alone, are enough."""
    layer = layers[name]
    found: list[Repair] = []
    f, stride, side = layer.output_shape[0], max(layer.conv.stride), max(layer.conv.weight.shape[2:])
    if fit := _largest(f - 1, lambda features: works((Change(name, "features", features, f),))):
        found.append((Change(name, "features", fit, f),))
    for change in (
        *(Change(name, "stride", to, stride) for to in sorted(chip.limits.strides.value) if to > stride),
        *((Change(name, "pooling", 2),) if _can_pool(layers, layer, chip) else ()),
        *((Change(name, "bias"),) if layer.has_bias else ()),
        *(Change(name, "kernel", to, side) for to in range(side - 1, 0, -1)),
    ):
        # Of each kind the smallest change; a smaller kernel only where nothing else helps.
        needed = not found if change.what == "kernel" else all(one.what != change.what for (one,) in found)
        if needed and works((change,)):
            found.append((change,))
    return found


def _can_pool(layers: Mapping[str, CoreLayer], layer: CoreLayer, chip: Chip) -> bool:
    poolings = [
        2 * side
        for source in layer.sources
        for end in layers[source].destinations
        if end.layer == layer.name
        for side in end.pooling
    ]
    return bool(poolings) and not layer.takes_input and set(poolings) <= set(chip.limits.poolings.value)


def _several(
    layers: Mapping[str, CoreLayer], names: Sequence[str], works: Callable[[Repair], bool], chip: Chip
) -> list[Repair]:
    """Fewer features in several layers, as many as fit; and where that is not enough, smaller kernels and maps too."""
    largest = max(chip.limits.strides.value)
    stages: list[list[Change]] = [
        [Change(name, "features", 1, layers[name].output_shape[0]) for name in names],
        [Change(name, "bias") for name in layers if layers[name].has_bias],
        [Change(name, "kernel", 1, max(layers[name].conv.weight.shape[2:])) for name in names],
        [Change(name, "stride", largest, max(layers[name].conv.stride)) for name in names],
        [Change(name, "features", 1, layer.output_shape[0]) for name, layer in layers.items() if name not in names],
    ]
    repair: list[Change] = []
    for stage in stages:
        repair += [change for change in stage if change.what == "bias" or change.to != change.was]
        if repair and works(tuple(repair)):
            return [_relaxed(repair, works)]
    return []


def _relaxed(repair: Sequence[Change], works: Callable[[Repair], bool]) -> Repair:
    """The same repair without what is not needed, and with as many features, and kernels as large, as it allows."""
    kept = list(repair)
    for change in repair:
        place = kept.index(change)
        rest = [*kept[:place], *kept[place + 1 :]]
        if rest and works(tuple(rest)):
            kept = rest
        elif change.what in ("features", "kernel"):
            kept[place] = _as_large_as_works(kept, place, works)
    return tuple(kept)


def _as_large_as_works(repair: Sequence[Change], place: int, works: Callable[[Repair], bool]) -> Change:
    """The change at ``place`` with the largest number with which the repair still works."""
    change = repair[place]

    def with_number(to: int) -> bool:
        return works((*repair[:place], replace(change, to=to), *repair[place + 1 :]))

    return replace(change, to=max(_largest(change.was - 1, with_number), change.to))


def _largest(most: int, works: Callable[[int], bool]) -> int:
    """The largest number up to ``most`` that works, where every smaller one does too; 0 for none."""
    if most >= 1 and works(most):
        return most
    fit, too_many = 0, most
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        if works(middle):
            fit = middle
        else:
            too_many = middle
    return fit


def needs_after(layers: Mapping[str, CoreLayer], paths: Sequence[InputPath], repair: Repair) -> Needs | None:
    """What every layer needs once ``repair`` is made.

    The changes are followed through all later layers; a linear layer takes a map of any size. None: some map is then
    too small for its kernel, or branches that meet no longer have one size.
    """
    changes: dict[tuple[str, str], int] = {(change.layer, change.what): change.to for change in repair}
    sizes: dict[str, set[tuple[int, int]]] = {}
    missing: dict[str, dict[int, set[int]]] = {}
    for path in paths:
        for end in path.ends:
            sizes.setdefault(end.layer, set()).add(layers[end.layer].input_shape[1:])
            missing.setdefault(end.layer, {}).setdefault(end.feature_shift, set()).add(0)
    found: dict[str, Mapping[str, int]] = {}
    for name, layer in layers.items():
        arriving = sizes.get(name, {layer.input_shape[1:]})
        # Branches that are added must lose the same features; branches side by side lose theirs each.
        lost = missing.get(name, {})
        if len(arriving) != 1 or any(len(counts) != 1 for counts in lost.values()):
            return None
        ((h, w),) = arriving
        c = layer.input_shape[0] - sum(next(iter(counts)) for counts in lost.values())
        ky, kx = layer.conv.weight.shape[2:]
        (sy, sx), (py, px) = layer.conv.stride, layer.conv.padding
        f = changes.get((name, "features"), layer.output_shape[0])
        pooling = changes.get((name, "pooling"), 1)
        h, w = h // pooling, w // pooling
        if stride := changes.get((name, "stride")):
            sy = sx = stride
        if _is_linear(layer.conv, layer.input_shape):
            ky, kx = h, w
        if side := changes.get((name, "kernel")):
            ky, kx = min(side, ky), min(side, kx)
        output = (f, (h + 2 * py - ky) // sy + 1, (w + 2 * px - kx) // sx + 1)
        if min(h, w, *output) < 1:
            return None
        found[name] = {
            "kernel": kernel_words(c, f, (ky, kx)),
            "neuron": neuron_words(output),
            "bias": f if layer.has_bias and (name, "bias") not in changes else 0,
        }
        for end in layer.destinations:
            y, x = end.pooling
            sizes.setdefault(end.layer, set()).add((output[1] // y, output[2] // x))
            fewer = layer.output_shape[0] - f
            missing.setdefault(end.layer, {}).setdefault(end.feature_shift, set()).add(fewer)
    return found


def _is_linear(conv: Conv2d, input_shape: Shape) -> bool:
    return tuple(conv.weight.shape[2:]) == tuple(input_shape[1:]) and conv.padding == (0, 0)


def repaired(graph: Graph, repair: Repair) -> Graph:
    """The network with ``repair`` made: weights cut (or repeated) to the new shapes, linear layers to the new maps.

    It says nothing about accuracy: the changed network has to be trained. It is what a mapping can be tried on.

    Raises:
        GraphError: the changed network is none; branches that meet no longer have one shape, for example.
    """
    changes: dict[tuple[str, str], int] = {(change.layer, change.what): change.to for change in repair}
    nodes, edges = dict(graph.nodes), list(graph.edges)
    # From the end, so that of a branch that goes as a whole nothing is left hanging.
    for name in reversed([name for name in graph.nodes if (name, "remove") in changes]):
        edges = _without_layer(nodes, edges, name)
    for (name, what), factor in changes.items():
        if what == "pooling":
            (index,) = (i for i, edge in enumerate(edges) if edge[1] == name)
            pool = f"{name}/pooling"
            nodes[pool] = SumPool2d((factor, factor), (factor, factor))
            edges[index : index + 1] = [(edges[index][0], pool), (pool, name)]
    order = [name for name in graph.nodes if name in nodes]
    for name in (name for name, what in changes if what == "pooling"):
        order.insert(order.index(name), f"{name}/pooling")
    made: dict[str, Node] = {}
    shapes: dict[str, Shape] = {}
    for name in order:
        node = nodes[name]
        incoming = [shapes[a] for a, b in edges if b == name and a in shapes]
        if isinstance(node, Conv2d):
            node = _resized(node, name, graph, incoming[0], changes)
        elif isinstance(node, Neuron):
            node = _scalar(node)
        elif isinstance(node, Feedback):
            raise GraphError("a network with loops is not changed.", remedy="change it by hand.", code="repair")
        made[name] = node
        shapes[name] = node.output_shape(name, incoming)
    return Graph(made, tuple(edges))


def _without_layer(nodes: dict[str, Node], edges: list[Edge], name: str) -> list[Edge]:
    """The edges without a convolution and its neurons; what leaves ``nodes`` too is removed there.

    A layer that is one of several branches goes with its branch: an Add or Concat that is left with one input is none.
    Anywhere else, what fed the layer feeds what it fed.
    """
    (neuron,) = (b for a, b in edges if a == name)
    gone = [name, neuron]
    after = [b for a, b in edges if a == neuron]
    while len(after) == 1 and isinstance(nodes[after[0]], SumPool2d):
        gone.append(after[0])
        after = [b for a, b in edges if a == after[0]]
    if len(after) == 1 and isinstance(nodes[after[0]], Add | Concat):
        (join,) = after
        edges = [(a, b) for a, b in edges if a not in gone and b not in gone]
        if sum(b == join for _, b in edges) == 1:
            edges = _bypassed(edges, join)
            gone.append(join)
    else:
        gone = gone[:2]
        edges = _bypassed(_bypassed(edges, name), neuron)
    for other in gone:
        del nodes[other]
    return edges


def _bypassed(edges: Sequence[Edge], name: str) -> list[Edge]:
    """The edges with ``name`` taken out: what fed it feeds what it fed."""
    sources = [a for a, b in edges if b == name]
    return [
        edge for a, b in edges if b != name for edge in ([(source, b) for source in sources] if a == name else [(a, b)])
    ]


def _resized(conv: Conv2d, name: str, graph: Graph, shape: Shape, changes: Mapping[tuple[str, str], int]) -> Conv2d:
    f, _, ky, kx = conv.weight.shape
    before = graph.shapes[graph.predecessors(name)[0]]
    if _is_linear(conv, before):
        ky, kx = shape[1:]
    if side := changes.get((name, "kernel")):
        ky, kx = min(side, ky), min(side, kx)
    new = (changes.get((name, "features"), f), shape[0], ky, kx)
    index = np.ix_(*(np.arange(size) % old for size, old in zip(new, conv.weight.shape, strict=True)))
    bias = None if conv.bias is None or (name, "bias") in changes else conv.bias[: new[0]]
    stride = changes.get((name, "stride"))
    return replace(conv, weight=conv.weight[index], bias=bias, stride=(stride, stride) if stride else conv.stride)


def _scalar(neuron: Neuron) -> Neuron:
    """The neurons with one value for the layer where they have one per neuron; a core has one anyway."""

    def one(value: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if value is None else np.asarray(np.max(value))

    return replace(
        neuron,
        threshold=np.asarray(np.max(neuron.threshold)),
        v_min=one(neuron.v_min),
        decay=np.asarray(np.max(neuron.decay)),
        input_gain=np.asarray(np.max(neuron.input_gain)),
        initial_v=one(neuron.initial_v),
    )


def first_that_map(
    repairs: Iterable[Repair], graph: Graph, maps: Callable[[Graph], bool], most: int = MOST_REPAIRS
) -> tuple[Repair, ...]:
    """Those of ``repairs`` whose changed network was mapped, at most ``most``."""

    def works(repair: Repair) -> bool:
        changed = tried(graph, repair)
        return changed is not None and maps(changed)

    return tuple(itertools.islice(filter(works, repairs), most))


def tried(graph: Graph, repair: Repair) -> Graph | None:
    """The changed network, or None where the changes do not go together."""
    try:
        return repaired(graph, repair)
    except GraphError:
        return None
