"""A quantized network whose layers have their cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neurodeploy.errors import ConstraintError
from neurodeploy.graph.graph import Graph
from neurodeploy.mapping.placement import CoreChoice, Item, Shortfall, place, shortfalls
from neurodeploy.target import Finding
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.constraints import broken
from neurodeploy.targets.dynapcnn.layers import CoreLayer, MapShape, core_layers
from neurodeploy.targets.dynapcnn.memory import needs
from neurodeploy.targets.dynapcnn.shrink import suggest


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
        """Name of the source graph's weight node."""
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
    """All layers in network order, and what will run differently on the chip."""

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


def map_network(graph: Graph, chip: Chip, layer2core_map: CoreChoice = "auto") -> MappedNetwork:
    """Check a quantized graph against every rule of ``chip`` and give each layer a core.

    Raises:
        ConstraintError: rules are broken; the message lists every breach.
        ConfigError: ``layer2core_map`` is not valid.
        MappingError: there is no placement; the message says why.
    """
    layers = core_layers(graph)
    findings = findings_of(graph, layers, chip)
    refuse([finding for finding in findings if finding.rule.severity == "error"], chip)
    mapped: dict[str, MappedLayer] = {}
    for name, number in place_layers(layers, chip, layer2core_map).items():
        item = Item(name, needs(layers[name]))
        lacks = {core.number: shortfalls(item, core) for core in chip.placement_cores()}
        mapped[name] = MappedLayer(layers[name], number, item.needs, lacks)
    return MappedNetwork(chip, mapped, tuple(findings))


def place_layers(layers: Mapping[str, CoreLayer], chip: Chip, choice: CoreChoice = "auto") -> dict[str, int]:
    """Layer name -> core.

    Raises:
        ConfigError: ``choice`` is not valid.
        MappingError: there is no placement; the message says why.
    """
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
