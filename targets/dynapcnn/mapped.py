"""A quantized network whose layers have their cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from neurodeploy.errors import ConfigError, ConstraintError, MappingError
from neurodeploy.graph.graph import Graph
from neurodeploy.mapping.placement import CoreChoice, Item, Shortfall, Split, place, shortfalls
from neurodeploy.target import Finding, Rule
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.constraints import broken
from neurodeploy.targets.dynapcnn.layers import CoreLayer, MapShape, core_layers
from neurodeploy.targets.dynapcnn.memory import needs
from neurodeploy.targets.dynapcnn.shrink import suggest
from neurodeploy.targets.dynapcnn.split import chosen_cuts, obstacle, plan, with_parts

SPLIT = Rule(
    "split",
    "A layer that fits no core, or leaves no core for another, is split by its output features over two cores; every "
    "neuron gets the same events, the next layer takes the spikes of the two parts in another order.",
    "note",
)


@dataclass(frozen=True, eq=False)
class MappedLayer:
    """A layer on its core.

    Attributes:
        layer: what the core holds.
        core: number of the core.
        needs: words of ``kernel``, ``neuron`` and ``bias`` memory.
        lacks: core -> what it has too little of for this layer; empty where the layer fits.
    """

    layer: CoreLayer
    core: int
    needs: Mapping[str, int]
    lacks: Mapping[int, tuple[Shortfall, ...]]

    @property
    def name(self) -> str:
        """Name of the source graph's weight node; of a part ``conv2[0:32]``."""
        return self.layer.name

    @property
    def input_shape(self) -> MapShape:
        """``(C, H, W)`` of the events the layer takes."""
        return self.layer.input_shape

    @property
    def output_shape(self) -> MapShape:
        """``(F, H, W)`` of the layer's neurons, before pooling."""
        return self.layer.output_shape


@dataclass(frozen=True, eq=False)
class MappedNetwork:
    """All layers in network order, and what will run differently on the chip.

    A layer that is split over two cores is there as its two parts.
    """

    chip: Chip
    layers: Mapping[str, MappedLayer]
    notes: tuple[Finding, ...]

    def report(self) -> dict[str, Any]:
        """JSON-ready data for ``mapping.json``."""
        memories = [memory.model_dump() for memory in self.chip.cores.memories]
        return {
            "target": self.chip.name,
            "layers": [
                {
                    "name": mapped.name,
                    "part_of": mapped.layer.part_of,
                    "core": mapped.core,
                    "input_shape": list(mapped.input_shape),
                    "output_shape": list(mapped.output_shape),
                    "needs": dict(mapped.needs),
                    "capacities": memories[mapped.core],
                    "destinations": [
                        {
                            "layer": destination.layer,
                            "core": self.layers[destination.layer].core,
                            "pooling": destination.pooling[0],
                            "feature_shift": destination.feature_shift,
                        }
                        for destination in mapped.layer.destinations
                    ],
                    "is_output": mapped.layer.is_output,
                    "fits": [core for core, lacking in mapped.lacks.items() if not lacking],
                    "lacks": {
                        str(core): [str(shortfall) for shortfall in lacking]
                        for core, lacking in mapped.lacks.items()
                        if lacking
                    },
                }
                for mapped in self.layers.values()
            ],
            # Whether "at most one spike per event" never shows in any layer.
            "fires_once": all(mapped.layer.fires_once for mapped in self.layers.values()),
            "cores": [{"core": core, "capacities": memory} for core, memory in enumerate(memories)],
            "notes": [note.to_dict() for note in self.notes],
        }


def map_network(graph: Graph, chip: Chip, layer2core_map: CoreChoice = "auto", split: Split = "auto") -> MappedNetwork:
    """Check a quantized graph against every rule of ``chip`` and give each layer a core, or two cores its parts.

    Raises:
        ConstraintError: rules are broken; the message lists every breach.
        ConfigError: ``layer2core_map`` is not valid.
        MappingError: there is no placement; the message says why.
    """
    layers = core_layers(graph)
    findings = findings_of(graph, layers, chip)
    refuse([finding for finding in findings if finding.rule.severity == "error"], chip)
    placed, cores, notes = arrange(layers, chip, layer2core_map, split)
    mapped: dict[str, MappedLayer] = {}
    for name, number in cores.items():
        item = Item(name, needs(placed[name]))
        lacks = {core.number: shortfalls(item, core) for core in chip.placement_cores()}
        mapped[name] = MappedLayer(placed[name], number, item.needs, lacks)
    return MappedNetwork(chip, mapped, (*findings, *notes))


def arrange(
    layers: Mapping[str, CoreLayer], chip: Chip, choice: CoreChoice = "auto", split: Split = "auto"
) -> tuple[Mapping[str, CoreLayer], dict[str, int], list[Finding]]:
    """Layers, split where needed; the core of each; and a note for each layer that was split.

    Raises:
        ConfigError: ``choice`` or ``split`` is not valid.
        MappingError: there is no placement; the message says why.
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}.", remedy='use "auto" or "never".', code="split")
    cuts = chosen_cuts(layers, choice, chip)
    try:
        placed = with_parts(layers, cuts)
        cores = _place(placed, chip, choice)
    except MappingError as error:
        if split == "never" or cuts or error.code != "placement" or (isinstance(choice, Sequence) and choice != "auto"):
            raise
        pinned = _by_name(choice, layers)
        found = plan(layers, chip, list(pinned))
        try:
            if found is None:
                raise error
            cuts, placed = found, with_parts(layers, found)
            cores = _place(placed, chip, pinned or "auto")
        except MappingError:
            reasons = [text for name in error.layers if (text := obstacle(layers, name, chip))]
            why = "; ".join(reasons) or "the parts find no cores either"
            remedy = f"{error.remedy} Splitting by output features does not help: {why}."
            raise MappingError(
                error.message, remedy=remedy, code=error.code, layers=error.layers, need=error.need, limit=error.limit
            ) from None
    notes = []
    for name in cuts:
        parts = [part for part, layer in placed.items() if layer.part_of == name]
        value = " and ".join(f"{part} on core {cores[part]}" for part in parts)
        remedy = f'give {name} fewer features to keep it on one core; split="never" refuses it.'
        notes.append(Finding(name, SPLIT, value, "", remedy))
    return placed, cores, notes


def _by_name(choice: CoreChoice, layers: Mapping[str, CoreLayer]) -> dict[str, int]:
    names = list(layers)
    if not isinstance(choice, Mapping):
        return {}
    return {key if isinstance(key, str) else names[key]: core for key, core in choice.items()}


def _place(layers: Mapping[str, CoreLayer], chip: Chip, choice: CoreChoice) -> dict[str, int]:
    cores = chip.placement_cores()
    items = [Item(name, needs(layer)) for name, layer in layers.items()]
    return place(items, cores, choice=choice, remedy=lambda conflict: suggest(layers, conflict, cores, chip))


def findings_of(graph: Graph, layers: Mapping[str, CoreLayer], chip: Chip) -> list[Finding]:
    """Every breach of every rule but the placement."""
    return [
        *broken("graph", graph, chip),
        *(finding for layer in layers.values() for finding in broken("layer", layer, chip)),
        *broken("network", layers, chip),
    ]


def refuse(findings: Sequence[Finding], chip: Chip) -> None:
    """Raise the findings as one error.

    Raises:
        ConstraintError: there is any finding; its code is that of the first.
    """
    if not findings:
        return
    if len(findings) == 1:
        message, remedy = findings[0].message, findings[0].remedy
    else:
        lines = [f"  {finding.message} Remedy: {finding.remedy}" for finding in findings]
        message = "\n".join([f"{len(findings)} rules of {chip.name} are broken.", *lines, ""])
        remedy = "see each line."
    raise ConstraintError(message, remedy=remedy, code=findings[0].rule.code)
