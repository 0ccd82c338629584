"""A quantized network whose layers have their cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from neurodeploy.errors import ConfigError, ConstraintError, MappingError
from neurodeploy.graph.graph import Graph
from neurodeploy.mapping.placement import CoreChoice, Item, Shortfall, Split, fitting, place, placeable, shortfalls
from neurodeploy.target import Finding, Rule
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.constraints import broken
from neurodeploy.targets.dynapcnn.input_paths import InputPath, input_paths
from neurodeploy.targets.dynapcnn.layers import CoreLayer, MapShape, core_layers
from neurodeploy.targets.dynapcnn.memory import needs
from neurodeploy.targets.dynapcnn.readout import READOUT, with_readout
from neurodeploy.targets.dynapcnn.repair import Needs, Repair, candidates, first_that_map, in_words, removals, tried
from neurodeploy.targets.dynapcnn.settings import Settings
from neurodeploy.targets.dynapcnn.split import Cuts, chosen_cuts, obstacle, part_names, plan, with_parts
from neurodeploy.targets.dynapcnn.work import Synops, work_of

SPLIT = Rule(
    "split",
    "A layer that fits no core, or leaves no core for another, is split by its output features over several cores: two "
    "where a core or the sensor feeds it, more where only the host does; every neuron gets the same events, the next "
    "layer takes the spikes of the parts in another order.",
    "note",
)
DECIMATOR = Rule(
    "decimator",
    "A decimator lets one of every n spikes of a layer leave its core; the network that was trained has none.",
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

    A layer that is split over several cores is there as its parts.
    """

    chip: Chip
    layers: Mapping[str, MappedLayer]
    inputs: tuple[InputPath, ...]
    settings: Settings
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
            "inputs": [
                {
                    "name": path.name,
                    "shape": list(path.given_shape),
                    "as_given": path.as_given,
                    "through_sensor": path.before is not None,
                    "layers": [end.layer for end in path.ends],
                }
                for path in self.inputs
            ],
            "cores": [{"core": core, "capacities": memory} for core, memory in enumerate(memories)],
            "notes": [note.to_dict() for note in self.notes],
        }


def map_network(
    graph: Graph,
    chip: Chip,
    layer2core_map: CoreChoice = "auto",
    split: Split = "auto",
    settings: Settings | None = None,
) -> MappedNetwork:
    """Check a quantized graph against every rule of ``chip`` and give each layer a core, or several cores its parts.

    Raises:
        ConstraintError: rules are broken; the message lists every breach.
        ConfigError: ``layer2core_map`` or a setting is not valid.
        MappingError: there is no placement; the message says why.
    """
    settings = settings or Settings()
    layers, paths = core_layers(graph), input_paths(graph, settings)
    findings = findings_of(graph, layers, paths, chip)
    refuse([finding for finding in findings if finding.rule.severity == "error"], chip)
    arranged = arrange(graph, chip, layer2core_map, split, settings)
    mapped: dict[str, MappedLayer] = {}
    for name, number in arranged.cores.items():
        item = Item(name, needs(arranged.layers[name]))
        lacks = {core.number: shortfalls(item, core) for core in chip.placement_cores()}
        mapped[name] = MappedLayer(arranged.layers[name], number, item.needs, lacks)
    return MappedNetwork(chip, mapped, arranged.inputs, settings, (*findings, *arranged.notes))


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Layers, split where needed; the core of each; the inputs that lead to them; and what to know about it."""

    layers: Mapping[str, CoreLayer]
    cores: Mapping[str, int]
    inputs: tuple[InputPath, ...]
    notes: tuple[Finding, ...]


def arrange(
    graph: Graph,
    chip: Chip,
    choice: CoreChoice = "auto",
    split: Split = "auto",
    settings: Settings | None = None,
) -> Arrangement:
    """Give every layer a core; where that is not possible, and ``split`` allows it, several cores to some.

    Args:
        graph: a graph that breaks no rule.
        chip, choice, split, settings: as for ``map_network``.

    Raises:
        ConfigError: ``choice``, ``split`` or a setting is not valid.
        MappingError: there is no placement; the message says why, and the remedy names changes of the network with
            which there is one.
    """
    settings = settings or Settings()
    layers, paths = core_layers(graph), input_paths(graph, settings)
    try:
        return _arranged(layers, paths, chip, choice, split, settings)
    except MappingError as error:
        if error.code not in ("placement", "too-many-layers"):
            raise
        repairs = _repairs(graph, layers, paths, chip, choice, split, settings, error.layers)
        if not repairs:
            raise
        remedy = in_words(repairs)
        if split == "auto" and error.code == "placement":
            remedy += f" {_no_split(layers, paths, chip, error.layers)}"
        raise MappingError(
            error.message,
            remedy=remedy,
            code=error.code,
            layers=error.layers,
            need=error.need,
            limit=error.limit,
            repairs=repairs,
        ) from None


def _repairs(
    graph: Graph,
    layers: Mapping[str, CoreLayer],
    paths: Sequence[InputPath],
    chip: Chip,
    choice: CoreChoice,
    split: Split,
    settings: Settings,
    conflict: Sequence[str],
) -> tuple[Repair, ...]:
    """Changes of the network with which it was mapped; none where other cores are enough."""
    cores = chip.placement_cores()
    pinned = _by_name(choice, layers)
    if choice != "auto" and placeable([Item(name, needs(layer)) for name, layer in layers.items()], cores):
        return ()

    def maps(changed: Graph) -> bool:
        findings = findings_of(changed, core_layers(changed), input_paths(changed, settings), chip)
        if any(finding.rule.severity == "error" for finding in findings):
            return False
        try:
            _arranged(core_layers(changed), input_paths(changed, settings), chip, choice, split, settings)
        except (MappingError, ConfigError):
            return False
        return True

    def changes(changed: Graph) -> list[Repair]:
        left, ways = core_layers(changed), input_paths(changed, settings)
        homeless = [name for name, layer in left.items() if not fitting(Item(name, needs(layer)), cores)]
        conflicting = [name for name in conflict if name in left]
        return candidates(left, ways, list(dict.fromkeys([*conflicting, *homeless])), fits, chip)

    def fits(needed: Needs) -> bool:
        return placeable([Item(name, need) for name, need in needed.items()], cores, pinned)

    if len(layers) <= len(cores):
        return first_that_map(changes(graph), graph, maps)
    sets = list(removals(layers, len(layers) - len(cores)))
    if found := first_that_map(sets, graph, maps, most=2):
        return found
    # Fewer layers alone are not enough.
    both = ((*first, *then) for first in sets if (less := tried(graph, first)) for then in changes(less))
    return first_that_map(both, graph, maps, most=1)


def _no_split(layers: Mapping[str, CoreLayer], paths: Sequence[InputPath], chip: Chip, conflict: Sequence[str]) -> str:
    reasons = [text for name in conflict if name in layers and (text := obstacle(layers, name, chip, paths))]
    why = "; ".join(reasons) or "the parts find no cores either"
    return f"Splitting by output features does not help: {why}."


def _arranged(
    layers: Mapping[str, CoreLayer],
    paths: Sequence[InputPath],
    chip: Chip,
    choice: CoreChoice,
    split: Split,
    settings: Settings,
) -> Arrangement:
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}.", remedy='use "auto" or "never".', code="split")
    layers = with_readout(layers, settings.readout, chip)
    notes = _noted(layers, settings)
    cuts = chosen_cuts(layers, choice, chip, paths)
    try:
        cores = _place(layers, cuts, paths, chip, choice, settings.synops)
    except MappingError as error:
        if split == "never" or cuts or error.code != "placement" or (isinstance(choice, Sequence) and choice != "auto"):
            raise
        pinned = _by_name(choice, layers)
        found = plan(layers, chip, paths, list(pinned))
        if found is None:
            raise
        try:
            cores = _place(layers, found, paths, chip, pinned or "auto", settings.synops)
        except MappingError:
            raise error from None
        cuts = found
    placed, entered = with_parts(layers, cuts), _inputs(layers, cuts, paths)
    for name in cuts:
        value = " and ".join(f"{part} on core {cores[part]}" for part in part_names(layers, cuts, name))
        remedy = f'give {name} fewer features to keep it on one core; split="never" refuses it.'
        notes.append(Finding(name, SPLIT, value, "", remedy))
    return Arrangement(placed, cores, entered, tuple(notes))


def _noted(layers: Mapping[str, CoreLayer], settings: Settings) -> list[Finding]:
    notes = []
    for name, count in settings.decimators.items():
        if name not in layers:
            raise ConfigError(
                f"settings: decimators names the layer {name!r}, which does not exist.",
                remedy=f"the layers are: {', '.join(layers)}.",
                code="decimators",
            )
        notes.append(Finding(name, DECIMATOR, f"1 of {count}", "all", "validate: the next layer gets fewer spikes."))
    for name, layer in layers.items():
        if layer.feature_step > 1:
            value = f"class i is feature {layer.feature_step} i of {layer.output_shape[0]}"
            notes.append(Finding(name, READOUT, value, "", "nothing to do: results have the layer's own features."))
    return notes


def _by_name(choice: CoreChoice, layers: Mapping[str, CoreLayer]) -> dict[str, int]:
    names = list(layers)
    if not isinstance(choice, Mapping):
        return {}
    return {key if isinstance(key, str) else names[key]: core for key, core in choice.items()}


def _inputs(layers: Mapping[str, CoreLayer], cuts: Cuts, paths: Sequence[InputPath]) -> tuple[InputPath, ...]:
    """The inputs, leading to the parts of layers that are split."""
    return tuple(
        replace(
            path,
            ends=tuple(replace(end, layer=part) for end in path.ends for part in part_names(layers, cuts, end.layer)),
        )
        for path in paths
    )


def _place(
    layers: Mapping[str, CoreLayer],
    cuts: Cuts,
    paths: Sequence[InputPath],
    chip: Chip,
    choice: CoreChoice,
    synops: Synops,
) -> dict[str, int]:
    placed = with_parts(layers, cuts)
    return place(
        [Item(name, needs(layer)) for name, layer in placed.items()],
        chip.placement_cores(),
        choice=choice,
        work=work_of(placed, _inputs(layers, cuts, paths), synops),
        fast=chip.throughput.first_cores.value,
    )


def findings_of(graph: Graph, layers: Mapping[str, CoreLayer], paths: Sequence[InputPath], chip: Chip) -> list[Finding]:
    """Every breach of every rule but the placement."""
    return [
        *broken("graph", graph, chip),
        *broken("inputs", paths, chip),
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
