"""Which chips hold a network, and what limits it on those that do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from neurodeploy.compile_options import DEFAULT, CompileOptions
from neurodeploy.deployment import compile_with
from neurodeploy.errors import MappingError, NeurodeployError
from neurodeploy.graph.graph import Graph
from neurodeploy.target import Finding, Target


@dataclass(frozen=True)
class Fit:
    """One network on one chip.

    Attributes:
        target: name of the chip.
        fits: whether the network can be compiled for it.
        code: the first rule that the network breaks, or ``"placement"`` or ``"too-many-layers"``; empty when it fits.
        layers: the layers concerned; empty for the whole network.
        need, limit: what the network needs or has, and what the chip offers, in a few words.
        remedy: what the user can do.
        on_several_cores: the layers that fit only split over several cores.
    """

    target: str
    fits: bool
    code: str = ""
    layers: tuple[str, ...] = ()
    need: str = ""
    limit: str = ""
    remedy: str = ""
    on_several_cores: tuple[str, ...] = ()


def fit(graph: Graph, target: Target, options: CompileOptions = DEFAULT) -> Fit:
    """Whether ``graph`` can be compiled for ``target`` with ``options``, and if not, what limits it first.

    For an analog chip, of ``options`` only the settings count.
    """
    if target.code.analog:
        family = target.analog_family
        return _by_findings(target, family.check(graph, target.chip, family.settings(options.settings))) or Fit(
            target.name, True
        )
    try:
        program = compile_with(graph, target, options).program
    except MappingError as error:
        return Fit(target.name, False, error.code, error.layers, error.need, error.limit, error.remedy)
    except NeurodeployError as error:
        settings = target.family.settings(options.settings)
        findings = target.family.check(graph, target.chip, settings, options.allow_recurrence)
        return _by_findings(target, findings) or Fit(
            target.name, False, error.code, (), error.message, "", error.remedy
        )
    # A layer that is whole is its own part.
    split = tuple(name for name in program.layers if name not in program.parts)
    return Fit(target.name, True, on_several_cores=split)


def _by_findings(target: Target, findings: Sequence[Finding]) -> Fit | None:
    """What limits the network first; None where nothing does."""
    for found in findings:
        if found.rule.severity == "error":
            layers = (found.layer,) if found.layer else ()
            return Fit(target.name, False, found.rule.code, layers, found.value, found.limit, found.remedy)
    return None
