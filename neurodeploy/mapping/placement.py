"""Layers with needs on cores with capacities: a placement whenever one exists, the reason when none does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from neurodeploy.errors import ConfigError, MappingError
from neurodeploy.mapping.matching import cheapest, conflict, match

#: "auto"; or core numbers in layer order; or layer (name or index in layer order) -> core, the others placed freely.
CoreChoice = str | Sequence[int] | Mapping[str, int] | Mapping[int, int]

#: Whether a layer may be split over several cores: "auto", when there is no placement otherwise; or "never".
Split = Literal["auto", "never"]


@dataclass(frozen=True)
class Item:
    """A layer to place. ``needs``: resource -> amount."""

    name: str
    needs: Mapping[str, int]


@dataclass(frozen=True)
class Core:
    """A place for one item. ``capacities``: resource -> amount, the same resources as the items'."""

    number: int
    capacities: Mapping[str, int]


@dataclass(frozen=True)
class Shortfall:
    """A resource that a core has too little of."""

    resource: str
    need: int
    limit: int

    def __str__(self) -> str:
        if not self.limit:
            return f"{self.resource} {self.need} words, the core has none"
        excess = 100 * (self.need - self.limit) / self.limit
        return f"{self.resource} {self.need} > {self.limit} words ({excess:.0f} % too big)"


def shortfalls(item: Item, core: Core) -> tuple[Shortfall, ...]:
    """What ``core`` lacks for ``item``; empty when it fits."""
    return tuple(
        Shortfall(resource, need, core.capacities[resource])
        for resource, need in item.needs.items()
        if need > core.capacities[resource]
    )


def fitting(item: Item, cores: Sequence[Core]) -> list[int]:
    """Numbers of the cores that hold ``item``, in the order given."""
    return [core.number for core in cores if not shortfalls(item, core)]


def placeable(items: Sequence[Item], cores: Sequence[Core], pinned: Mapping[str, int] | None = None) -> bool:
    """Whether every item can have a core of its own, those in ``pinned`` the one given there."""
    choices = [fitting(item, cores) for item in items]
    for item, choice in zip(items, choices, strict=True):
        if pinned and item.name in pinned:
            choice[:] = [core for core in choice if core == pinned[item.name]]
    return None not in match(choices)


def place(
    items: Sequence[Item],
    cores: Sequence[Core],
    *,
    choice: CoreChoice = "auto",
    work: Mapping[str, float] | None = None,
    fast: Sequence[int] = (),
) -> dict[str, int]:
    """Give every item a core of its own that holds it.

    With ``work`` and ``fast`` as much work as possible is done on the fast cores: the cheapest complete matching, where
    an item that is not on a fast core costs its work.

    Args:
        items: what to place; names are unique.
        cores: where; in order of preference.
        choice: the user's choice of cores, see ``CoreChoice``.
        work: item name -> how much it has to do, in any unit; items left out, or with 0, have no preference.
        fast: numbers of the cores that busy items should be on.

    Returns:
        Item name -> core number, in item order.

    Raises:
        ConfigError: ``choice`` names no item or no core, or one core twice.
        MappingError: there is no placement. The message lists a smallest set of items that conflict, and for each item
            and each core the resource, the need and the limit.
    """
    pinned = _pinned(choice, items, cores)
    choices = [[pinned[item.name]] if item.name in pinned else fitting(item, cores) for item in items]
    for item in items:
        if item.name in pinned:
            core = next(core for core in cores if core.number == pinned[item.name])
            if short := shortfalls(item, core):
                fits = fitting(item, cores)
                raise MappingError(
                    f"layer2core_map puts {item.name} on core {core.number}, which is too small: "
                    f"{', '.join(map(str, short))}.",
                    remedy=f"use core {_listed(fits)} for it." if fits else _smaller([item.name]),
                    code="pinned-core",
                )
    matching = match(choices)
    if None not in matching:
        if any((work or {}).values()) and fast:
            matching = _busy_on_fast(items, choices, cores, work or {}, fast)
        return {item.name: core for item, core in zip(items, matching, strict=True) if core is not None}
    members = conflict(choices, matching)
    names = [items[index].name for index in members]
    reachable = sorted({core for index in members for core in choices[index]})
    if not reachable:
        summary = f"{names[0]} fits none of the {len(cores)} cores."
        closest = min((shortfalls(items[members[0]], core) for core in cores), key=_excess)
        need = ", ".join(f"{short.resource} {short.need}" for short in closest) + " words"
        limit = ", ".join(f"{short.resource} {short.limit}" for short in closest) + " words"
    else:
        need, limit = f"{len(names)} cores", f"{len(reachable)} cores ({_listed(reachable)})"
        summary = (
            f"{len(names)} layers ({', '.join(names)}) need a core each, and only {len(reachable)} "
            f"({_listed(reachable)}) can hold any of them."
        )
    details = [_details(items[index], cores, pinned) for index in members]
    if len(items) > len(cores):
        count = f"the network has {len(items)} layers, the chip has {len(cores)} cores."
        # With every layer in the conflict, the count is the whole reason.
        summary, details = (count, []) if len(members) == len(items) else (f"{count} {summary}", details)
        need, limit = f"{len(items)} cores", f"{len(cores)} cores"
    # Layers that fit nowhere are conflicts of their own: name them all, not only the first.
    others = [item for i, item in enumerate(items) if not choices[i] and i not in members]
    details += [_details(item, cores, pinned) for item in others]
    if pinned and placeable(items, cores):
        advice = 'use layer2core_map="auto", or fix fewer layers: without it there is a placement.'
    else:
        advice = _smaller([*names, *(item.name for item in others)])
    raise MappingError(
        "\n".join([summary, *details, ""]),
        remedy=advice,
        code="too-many-layers" if len(items) > len(cores) else "placement",
        layers=names,
        need=need,
        limit=limit,
    )


def _busy_on_fast(
    items: Sequence[Item],
    choices: Sequence[Sequence[int]],
    cores: Sequence[Core],
    work: Mapping[str, float],
    fast: Sequence[int],
) -> list[int | None]:
    numbers = [core.number for core in cores]
    # In parts of the whole, so that what is forbidden costs more than everything that is not.
    total = sum(work.get(item.name, 0) for item in items) or 1.0
    cost = [
        [
            2.0 + len(items) if number not in choice else 0.0 if number in fast else work.get(item.name, 0) / total
            for number in numbers
        ]
        for item, choice in zip(items, choices, strict=True)
    ]
    return [numbers[place] for place in cheapest(cost)]


def _excess(lacking: Sequence[Shortfall]) -> float:
    """How far a core is from holding an item: the largest need per word there is."""
    return max(short.need / max(short.limit, 0.5) for short in lacking)


def _smaller(names: Sequence[str]) -> str:
    return f"make {_listed(names)} smaller, or use fewer layers."


def _details(item: Item, cores: Sequence[Core], pinned: Mapping[str, int]) -> str:
    groups: dict[str, list[int]] = {}
    for core in cores:
        groups.setdefault(", ".join(map(str, shortfalls(item, core))) or "fits", []).append(core.number)
    needs = ", ".join(f"{resource} {need}" for resource, need in item.needs.items())
    pin = f" (fixed to core {pinned[item.name]} by layer2core_map)" if item.name in pinned else ""
    lines = [f"  {item.name} needs words: {needs}{pin}"]
    lines += [f"    core {_listed(numbers)}: {reason}" for reason, numbers in groups.items()]
    return "\n".join(lines)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _pinned(choice: CoreChoice, items: Sequence[Item], cores: Sequence[Core]) -> dict[str, int]:
    """The user's choice as item name -> core number, checked."""
    names = [item.name for item in items]
    numbers = [core.number for core in cores]
    if choice == "auto":
        return {}
    if not isinstance(choice, Sequence | Mapping) or isinstance(choice, str):
        raise ConfigError(
            f"layer2core_map is {choice!r}.",
            remedy='use "auto", a list of core numbers, or a mapping from layer to core number.',
            code="layer2core-map",
        )
    if isinstance(choice, Mapping):
        pinned: dict[str, int] = {}
        for key, core in choice.items():
            if isinstance(key, str) and key in names:
                pinned[key] = core
            elif isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(names):
                pinned[names[key]] = core
            else:
                raise ConfigError(
                    f"layer2core_map names the layer {key!r}, which does not exist.",
                    remedy=f"the layers are: {_listed(names)} (or 0 to {len(names) - 1}).",
                    code="layer2core-map",
                )
    else:
        if len(choice) != len(names):
            raise ConfigError(
                f"layer2core_map lists {len(choice)} cores for {len(names)} layers.",
                remedy=f"give one core per layer, in this order: {_listed(names)}.",
                code="layer2core-map",
            )
        pinned = dict(zip(names, choice, strict=True))
    for name, core in pinned.items():
        # type, not isinstance: True, 3.0 and numpy's integers are equal to numbers, but do not belong in a file.
        if type(core) is not int or core not in numbers:
            raise ConfigError(
                f"layer2core_map gives {name} the core {core!r}, which does not exist.",
                remedy=f"the cores are: {_listed(numbers)}.",
                code="layer2core-map",
            )
    if len(set(pinned.values())) != len(pinned):
        twice = next(core for core in pinned.values() if list(pinned.values()).count(core) > 1)
        raise ConfigError(
            f"layer2core_map gives core {twice} to {_listed([n for n, c in pinned.items() if c == twice])}.",
            remedy="a core holds one layer: give each another core.",
            code="layer2core-map",
        )
    return pinned
