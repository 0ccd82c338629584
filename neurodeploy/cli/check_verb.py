"""``neurodeploy check``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from neurodeploy.cli.analog import AnalogOptions, read_network, refuse_analog_options, settings_of
from neurodeploy.cli.model_options import compile_options, read_model, say_fidelity
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb
from neurodeploy.conversion.balance import ann_layers, spiking_graph
from neurodeploy.conversion.pooling import pool_into_linear
from neurodeploy.deployment import compile_with
from neurodeploy.errors import CheckFailed, ConstraintError, MappingError, QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Relu
from neurodeploy.quantize import with_v_min
from neurodeploy.target import Finding, Target, load_target


class CheckOptions(AnalogOptions):
    """Options of ``neurodeploy check``."""

    strict: bool = Field(False, description="fail on notes too, not only on errors.")


@verb(CheckOptions)
def command(options: CheckOptions) -> dict[str, Any]:
    """Check a network against a chip: what its file means, every rule it breaks, whether it can be placed.

    An ANN is checked as the spiking network that it would be converted to. Exit code 1 if it does not fit, or has to be
    converted first.
    """
    target = load_target(options.target)
    if target.code.analog:
        return _check_analog(options, target)
    refuse_analog_options(options, target)
    graph = with_v_min(read_model(options), options.v_min)
    say_fidelity(graph.fidelity)
    ann = any(isinstance(node, Relu) for node in graph.nodes.values())
    if ann:
        say(f"{options.model} is an ANN; checked is the structure of the spiking network that it is converted to.")
        graph = _as_spikes(graph)
    chosen = replace(compile_options(options), v_min=None)  # the graph has it
    settings = target.family.settings(chosen.settings)
    findings = target.family.check(graph, target.chip, settings, options.allow_recurrence)
    problem = remedy = None
    if not any(finding.rule.severity == "error" for finding in findings):
        try:
            compile_with(graph, target, chosen)
        except (QuantizeError, ConstraintError, MappingError) as error:
            if not (
                ann and isinstance(error, QuantizeError)
            ):  # conversion balances the weights before they are rounded
                problem, remedy = error.message, error.remedy
    failing = _failing(findings, options)
    if problem is not None:
        failing.append(problem)
    result = {
        "model": str(options.model),
        "target": target.name,
        "ann": ann,
        "fidelity": [entry.to_dict() for entry in graph.fidelity],
        "findings": [finding.to_dict() for finding in findings],
        "fits": not failing and not ann,
    }
    if failing:
        raise _does_not_fit(options, f"{target.name}{', once converted' if ann else ''}", failing, remedy, result)
    if ann:
        raise CheckFailed(
            f"{options.model} is an ANN; once converted, its layers fit {target.name}.",
            remedy=f"convert it: neurodeploy convert {options.model} --images TRAIN.npz --test-images TEST.npz "
            f"--target {options.target} --out RUN (see 'neurodeploy convert --help').",
            code="convert-first",
            result=result,
        )
    say(f"{options.model} fits {target.name}.")
    return result


def _check_analog(options: CheckOptions, target: Target) -> dict[str, Any]:
    """The same for an analog chip, whose networks are in continuous time."""
    family, settings = target.analog_family, settings_of(options, target)
    graph = read_network(options)
    say_fidelity(graph.fidelity)
    findings = family.check(graph, target.chip, family.settings(settings))
    failing = _failing(findings, options)
    result = {
        "model": str(options.model),
        "target": target.name,
        "fidelity": [entry.to_dict() for entry in graph.fidelity],
        "findings": [finding.to_dict() for finding in findings],
        "fits": not failing,
    }
    if failing:
        raise _does_not_fit(options, target.name, failing, None, result)
    say(f"{options.model} fits {target.name}.")
    return result


def _failing(findings: Sequence[Finding], options: CheckOptions) -> list[str]:
    """Print all findings; the messages of those that fail the check."""
    for finding in findings:
        say(f"{finding.rule.severity}[{finding.rule.code}] {finding.message} Remedy: {finding.remedy}")
    return [finding.message for finding in findings if options.strict or finding.rule.severity == "error"]


def _does_not_fit(
    options: CheckOptions, where: str, failing: Sequence[str], remedy: str | None, result: dict[str, Any]
) -> CheckFailed:
    more = f" And {len(failing) - 2} more, listed above (or in findings, with --json)." if len(failing) > 2 else ""
    return CheckFailed(
        f"{options.model} does not fit {where}: " + " ".join(failing[:2]) + more,
        remedy=remedy or "see the remedy of each finding.",
        code="does-not-fit",
        result=result,
    )


def _as_spikes(graph: Graph) -> Graph:
    """The network that conversion makes of it, with weights that are not balanced yet.

    Raises:
        ConvertError: it cannot be converted; the message names the layer and the remedy.
    """
    ann, layers = ann_layers(pool_into_linear(graph))
    scales = {units.layer: np.ones(ann.shapes[units.layer][0]) for units in layers}
    return spiking_graph(ann, layers, scales, {}, input_scale=1.0, spikes_per_step=1.0, initial_v=0.0)
