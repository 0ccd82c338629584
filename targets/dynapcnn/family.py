"""What the family provides to the pipeline: the methods of ``neurodeploy.target.Family``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from neurodeploy.device import Route, Vendor
from neurodeploy.errors import ConfigError, MappingError, NeurodeployError
from neurodeploy.events.array import EventArray
from neurodeploy.graph.graph import Graph
from neurodeploy.mapping.placement import CoreChoice, Split
from neurodeploy.target import (
    DEFAULT_WORK_LIMIT,
    CoreWork,
    Executor,
    Finding,
    Performance,
    Published,
    PublishedLatency,
    Rule,
    SpikeArray,
)
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.constraints import CONSTRAINTS, broken
from neurodeploy.targets.dynapcnn.input_paths import input_paths
from neurodeploy.targets.dynapcnn.layers import core_layers
from neurodeploy.targets.dynapcnn.lower import lower
from neurodeploy.targets.dynapcnn.mapped import DECIMATOR, SPLIT, MappedNetwork, arrange, findings_of, map_network
from neurodeploy.targets.dynapcnn.program import DynapcnnProgram
from neurodeploy.targets.dynapcnn.read_program import read_program
from neurodeploy.targets.dynapcnn.readout import READOUT
from neurodeploy.targets.dynapcnn.settings import Settings, read_settings

if TYPE_CHECKING:
    from neurodeploy.quantize import QuantizationSpec
    from neurodeploy.targets.dynapcnn.switches import Switches

PLACEMENT = "Every layer has a core of its own, whose kernel, neuron and bias memory hold it; there are {cores} cores."


class DynapcnnFamily:
    """Convolution, integrate-and-fire neurons and sum-pooling per core."""

    analog: Literal[False] = False
    chip_model = Chip

    def rules(self, chip: Chip) -> list[Rule]:
        """Every rule, the placement last."""
        return [
            *(constraint.rule(chip) for constraint in CONSTRAINTS),
            _placement(chip, "placement"),
            SPLIT,
            DECIMATOR,
            READOUT,
        ]

    def quantization_spec(self, chip: Chip) -> "QuantizationSpec":
        """The widths in the chip's description."""
        from neurodeploy.quantize import QuantizationSpec

        widths = chip.quantization
        return QuantizationSpec(widths.weight_bits.value, widths.bias_bits.value, widths.state_bits.value)

    def settings(self, data: Mapping[str, Any] | None) -> Settings:
        """What the user sets on the chip beyond the network; see ``settings.py``."""
        return read_settings(data)

    def check(
        self, graph: Graph, chip: Chip, settings: Settings | None = None, allow_recurrence: bool = False
    ) -> list[Finding]:
        """All rules that ``graph`` breaks, placement included; passes that cannot run are findings too."""
        from neurodeploy.quantize import PASSES, check_kinds

        settings = settings or Settings()

        try:
            check_kinds(graph, allow_recurrence)
        except NeurodeployError as error:
            # The rule on loops is a note for those who asked for them.
            known = [constraint.rule(chip).text for constraint in CONSTRAINTS if constraint.code == error.code]
            text = known[0] if known else "A network consists of layers that have integers."
            return [Finding("", Rule(error.code, text, "error"), error.message.rstrip("."), "", error.remedy)]
        findings: list[Finding] = []
        for step in PASSES:
            try:
                graph = step(graph)
            except NeurodeployError as error:
                text = (step.__doc__ or step.__name__).strip().splitlines()[0]
                findings.append(Finding("", Rule(error.code, text, "error"), error.message, "", error.remedy))
        layers = core_layers(graph)
        if findings:
            # A graph that the passes left half-way breaks rules about kinds of nodes: only the layers say something.
            return [*findings, *(finding for layer in layers.values() for finding in broken("layer", layer, chip))]
        paths = input_paths(graph, settings)
        findings = findings_of(graph, layers, paths, chip)
        try:
            findings += arrange(graph, chip, settings=settings).notes
        except MappingError as error:
            findings.append(Finding("", _placement(chip, error.code), error.message, "", error.remedy))
        return findings

    def map(
        self,
        graph: Graph,
        chip: Chip,
        layer2core_map: CoreChoice = "auto",
        split: Split = "auto",
        settings: Settings | None = None,
    ) -> MappedNetwork:
        """Give each layer of a quantized graph a core, or several cores its parts; see ``map_network``."""
        return map_network(graph, chip, layer2core_map, split, settings)

    def lower(self, mapped: MappedNetwork, monitor_layers: Sequence[str] | None = None) -> DynapcnnProgram:
        """The chip's configuration; see ``lower.py``."""
        return lower(mapped, monitor_layers)

    def read_program(self, data: Mapping[str, Any], chip: Chip) -> DynapcnnProgram:
        """A program from its data, every field checked; see ``read_program.py``."""
        return read_program(data, chip)

    def executor(
        self,
        program: DynapcnnProgram,
        *,
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
        work_limit: int = DEFAULT_WORK_LIMIT,
    ) -> Executor:
        """The event-driven emulator."""
        from neurodeploy.targets.dynapcnn.emulator import Emulator

        return Emulator(program, _switches(switches, program), slow_clock_hz, work_limit=work_limit)

    def delivery_orders(self, count: int, seed: int) -> Mapping[str, Mapping[str, Any]]:
        """Depth first, breadth first, then spikes in random order on connections of random delay."""
        named: dict[str, Mapping[str, Any]] = {
            "depth_first": {"interleaving": "depth_first"},
            "breadth_first": {"interleaving": "fifo"},
        }
        for number in range(count - len(named)):
            random = {"emission_order": "random", "interleaving": "random", "seed": seed + number}
            named[f"random_{seed + number}"] = random
        return dict(list(named.items())[:count])

    def imperfections(self, initial_state: bool, lost_events: float, seed: int) -> Mapping[str, Any]:
        """See ``switches.py``."""
        state = "random" if initial_state else "program"
        return {"initial_state": state, "lost_events": lost_events, "seed": seed}

    def performance(self, chip: Chip) -> Performance:
        """The figures of ``chip.yaml``."""
        rates = [chip.synops_per_second(core) for core in range(len(chip.cores.memories))]
        rest, one, nine = chip.energy.resting_power_mw, chip.latency.one_core_us, chip.latency.nine_cores_us
        core_us = (nine.value - one.value) / 8
        return Performance(
            tuple(Published(rate.value, rate.source) for rate in rates),
            Published(rest.value, rest.source),
            PublishedLatency(one.value - core_us, core_us, f"{one.source}; {nine.source}"),
        )

    def work(
        self,
        program: DynapcnnProgram,
        events: EventArray,
        spikes: SpikeArray,
        switches: Mapping[str, Any] | None = None,
    ) -> list[CoreWork]:
        """See ``workload.py``."""
        from neurodeploy.targets.dynapcnn.workload import core_work

        return core_work(program, events, spikes, _switches(switches, program))

    def routes(self, program: DynapcnnProgram) -> list[Route]:
        """Where each layer is and where its spikes go."""
        names = {core.core: core.name for core in program.cores}
        entered = {entry.core for port in program.inputs for entry in port.entries}
        return [
            Route(
                core.layer,
                core.core,
                tuple(
                    f"{names[end.core]} (core {end.core}, pooling {end.pooling}, feature shift {end.feature_shift})"
                    for end in core.destinations
                ),
                core.monitor_enable,
                core.core in entered,
            )
            for core in program.cores
        ]

    def vendor(self, chip: Chip) -> Vendor:
        """samna, loaded; see ``samna_adapter.py``."""
        from neurodeploy.targets.dynapcnn.samna_adapter import SamnaVendor

        return SamnaVendor(chip)


def _switches(given: Mapping[str, Any] | None, program: DynapcnnProgram) -> "Switches":
    """The switches by name; loops are worked off breadth first where nothing else is asked for."""
    from neurodeploy.targets.dynapcnn.switches import Switches

    names = list(Switches.__dataclass_fields__)
    for name in given or ():
        if name not in names:
            raise ConfigError(
                f"there is no switch {name!r}.", remedy=f"the switches are: {', '.join(names)}.", code="switch"
            )
    default = {"interleaving": "fifo"} if program.loops else {}
    return Switches(**{**default, **(given or {})})


def _placement(chip: Chip, code: str) -> Rule:
    return Rule(code, PLACEMENT.format(cores=len(chip.cores.memories)), "error")


family = DynapcnnFamily()
