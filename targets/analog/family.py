"""What the family provides to the pipeline: the methods of ``neurodeploy.target.AnalogFamily``."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from neurodeploy.errors import ConstraintError, MappingError, QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.target import AnalogCompiled, Finding, Rule
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.constraints import Case, broken, placement_rules, refusal, rule_of, rules_of
from neurodeploy.targets.analog.mapped import Mapped
from neurodeploy.targets.analog.network import AnalogNetwork, network_of
from neurodeploy.targets.analog.program import AnalogProgram, program_of_dict
from neurodeploy.targets.analog.settings import Settings, read_settings

_HERE = "neurodeploy.targets.analog"

#: The mapper for the way in which a chip's synapses have a sign, and what writes files for its vendor's tools.
_MAPPERS = {"free": f"{_HERE}.plain", "row_pair": f"{_HERE}.bss2", "dendrite": f"{_HERE}.dynapse2"}
_FILES = {"row_pair": f"{_HERE}.bss2_files", "dendrite": f"{_HERE}.dynapse2_files"}


class AnalogCores:
    """Neurons that are circuits in continuous time."""

    analog: Literal[True] = True
    chip_model = AnalogChip

    def rules(self, chip: AnalogChip) -> list[Rule]:
        """Every rule, those of the placement last."""
        return [*(constraint.rule(chip) for constraint in rules_of(chip)), *placement_rules(chip)]

    def settings(self, data: Mapping[str, Any] | None) -> Settings:
        """See ``settings.py``."""
        return read_settings(data)

    def check(self, graph: Graph, chip: AnalogChip, settings: Settings | None = None) -> list[Finding]:
        """All rules that ``graph`` breaks, placement included."""
        settings = settings or Settings()
        findings, network = _findings(graph, chip, settings)
        if network is None:
            return findings
        try:
            return [*findings, *_mapper(chip)(network, chip, settings).notes]
        except (ConstraintError, MappingError, QuantizeError) as error:
            return [*findings, Finding("", rule_of(error, chip), error.message, "", error.remedy)]

    def compile(self, graph: Graph, chip: AnalogChip, settings: Settings | None = None) -> AnalogCompiled:
        """Check every rule, then choose levels, words and places; see the mappers."""
        settings = settings or Settings()
        findings, network = _findings(graph, chip, settings)
        if network is None:
            raise refusal(findings, chip)
        mapped = _mapper(chip)(network, chip, settings)
        return AnalogCompiled(mapped.program, mapped.report, [*findings, *mapped.notes])

    def read_program(self, data: Mapping[str, Any], chip: AnalogChip) -> AnalogProgram:
        """A program from its data, every field checked; see ``program.py``."""
        return program_of_dict(data)

    def files(
        self, program: AnalogProgram, graph: Graph, chip: AnalogChip, folder: Path, settings: Settings | None = None
    ) -> list[Path]:
        """What the vendor's tools of the chip take; a chip that nobody makes has none."""
        own = _FILES.get(chip.weights.sign.value)
        if own is None:
            return []
        written: list[Path] = import_module(own).write_files(program, graph, chip, folder, settings or Settings())
        return written


def _findings(graph: Graph, chip: AnalogChip, settings: Settings) -> tuple[list[Finding], AnalogNetwork | None]:
    """What is known before anything is placed; the layers, if nothing of it is an error."""
    findings = broken("graph", Case(graph, AnalogNetwork(0, (), 0.0), chip, settings))
    if any(finding.rule.severity == "error" for finding in findings):
        return findings, None
    network = network_of(graph)
    findings += broken("network", Case(graph, network, chip, settings))
    return findings, None if any(finding.rule.severity == "error" for finding in findings) else network


def _mapper(chip: AnalogChip) -> Callable[[AnalogNetwork, AnalogChip, Settings], Mapped]:
    mapper: Callable[[AnalogNetwork, AnalogChip, Settings], Mapped]
    mapper = import_module(_MAPPERS[chip.weights.sign.value]).map_network
    return mapper


family = AnalogCores()
