"""DYNAP-SE2's routing: tags, and the destination words that carry spikes to the cores that listen for them.

A spike leaves its neuron once per destination word. The word names another chip (hops), some of its cores (a mask) and
a tag; in these cores, every synapse with that tag takes the spike. A tag therefore must mean one source in each core,
and may mean another one in another core.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neurodeploy.errors import MappingError

#: (chip, core).
Core = tuple[int, int]


@dataclass(frozen=True)
class Destination:
    """One destination word, or the address of one event from the host.

    Attributes:
        tag: 11 bits.
        cores: numbers of the cores of the chip that take the spike.
        x_hop, y_hop: chips to go, from the neuron's own chip or, for the host's events, from where they enter.
    """

    tag: int
    cores: tuple[int, ...]
    x_hop: int
    y_hop: int


@dataclass(frozen=True)
class Source:
    """Something that spikes.

    Attributes:
        name: for messages.
        chip: where it is; None: the host.
        listeners: the cores that have synapses for it, in any order.
    """

    name: str
    chip: int | None
    listeners: tuple[Core, ...]


@dataclass(frozen=True)
class Network:
    """What the chips offer.

    Attributes:
        positions: ``(x, y)`` of each chip, in hops from where the host's events enter.
        cores: of a chip. tags: that synapses tell apart.
        words: destination words of a neuron that are free for spikes to other neurons.
        hops: the farthest a spike goes, in x and in y.
    """

    positions: tuple[tuple[int, int], ...]
    cores: int
    tags: int
    words: int
    hops: int

    def hops_to(self, chip: int | None, other: int) -> tuple[int, int]:
        """Hops in x and y from a chip (None: from where the host's events enter) to another."""
        here, there = (0, 0) if chip is None else self.positions[chip], self.positions[other]
        return there[0] - here[0], there[1] - here[1]

    def arrivals(self, chip: int | None, destination: Destination) -> Iterator[tuple[int, int, int]]:
        """``(chip, core, tag)`` where a spike from ``chip`` (None: the host) arrives; none where there is no chip."""
        for other in range(len(self.positions)):
            if self.hops_to(chip, other) == (destination.x_hop, destination.y_hop):
                for core in destination.cores:
                    yield other, core, destination.tag


def route(sources: Sequence[Source], network: Network) -> list[tuple[Destination, ...]]:
    """For every source, one destination per chip that listens; within a core, every source has a tag of its own.

    Tags are taken in the order of the sources, each time the lowest one that is free in all the cores of the mask.

    Raises:
        MappingError: more chips than words, chips that are too far apart, or a core with more sources than tags.
    """
    taken = np.zeros((len(network.positions), network.cores, network.tags), bool)
    routes = []
    for source in sources:
        masks = _masks(source.listeners)
        if source.chip is not None and len(masks) > network.words:
            raise MappingError(
                f"{source.name}: its spikes go to {len(masks)} chips; a neuron has {network.words} destination words "
                "beside the one for the host.",
                remedy="put fewer neurons into the next layer, so that it needs fewer chips, or prune its weights.",
                code="fan-out",
                need=f"{len(masks)} chips",
                limit=f"{network.words} destination words",
            )
        words = []
        for chip, cores in masks.items():
            free = np.logical_not(np.any(taken[chip, list(cores)], axis=0))
            tag = int(np.argmax(free))
            if not free[tag]:
                raise _too_many_sources(sources, chip, cores, network.tags)
            taken[chip, list(cores), tag] = True
            words.append(Destination(tag, cores, *_hops(source, chip, network)))
        routes.append(tuple(words))
    return routes


def _masks(listeners: Sequence[Core]) -> dict[int, tuple[int, ...]]:
    """Chip -> its cores, both ascending."""
    return {
        chip: tuple(sorted({core for other, core in listeners if other == chip}))
        for chip in sorted({chip for chip, _ in listeners})
    }


def _hops(source: Source, chip: int, network: Network) -> tuple[int, int]:
    hops = network.hops_to(source.chip, chip)
    farthest = max(map(abs, hops))
    if farthest > network.hops:
        raise MappingError(
            f"{source.name}: chip {chip} is {hops[0]} hops away in x and {hops[1]} in y; a spike goes "
            f"{network.hops} at most.",
            remedy="use fewer chips, or chips that are closer.",
            code="hops",
            need=f"{farthest} hops",
            limit=f"{network.hops} hops",
        )
    return hops


def _too_many_sources(sources: Sequence[Source], chip: int, cores: tuple[int, ...], tags: int) -> MappingError:
    count = Counter(core for source in sources for core in source.listeners if core in {(chip, core) for core in cores})
    core, need = max(count.items(), key=lambda item: item[1])
    return MappingError(
        f"core {core[1]} of chip {core[0]} has synapses for {need} different sources, and its neighbours share tags "
        f"with it; a tag tells {tags} apart.",
        remedy="prune inputs that only few neurons of the core use, or spread the layer over more cores.",
        code="tags",
        need=f"{need} sources",
        limit=f"{tags} tags",
    )
