"""``neurodeploy check``."""

from typing import Any

from pydantic import Field

from neurodeploy.cli.model_options import ChipOptions, chip_settings, read_model, say_fidelity
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb
from neurodeploy.deployment import compile
from neurodeploy.errors import CheckFailed, ConstraintError, MappingError, QuantizeError
from neurodeploy.quantize import with_v_min
from neurodeploy.target import load_target


class CheckOptions(ChipOptions):
    """Options of ``neurodeploy check``."""

    strict: bool = Field(False, description="fail on notes too, not only on errors.")


@verb(CheckOptions)
def command(options: CheckOptions) -> dict[str, Any]:
    """Check a network against a chip: what its file means, every rule it breaks, whether it can be placed.

    Exit code 1 if it does not fit.
    """
    target = load_target(options.target)
    graph = with_v_min(read_model(options), options.v_min)
    say_fidelity(graph.fidelity)
    settings = chip_settings(options)
    findings = target.family.check(graph, target.chip, target.family.settings(settings))
    problem = remedy = None
    if not any(finding.rule.severity == "error" for finding in findings):
        try:
            compile(
                graph,
                target=target,
                bias_bits=options.bias_bits,
                calibration=options.calibration,
                settings=settings,
            )
        except (QuantizeError, ConstraintError, MappingError) as error:
            problem, remedy = error.message, error.remedy
    for finding in findings:
        say(f"{finding.rule.severity}[{finding.rule.code}] {finding.message} Remedy: {finding.remedy}")
    failing = [finding.message for finding in findings if options.strict or finding.rule.severity == "error"]
    if problem is not None:
        failing.append(problem)
    result = {
        "model": str(options.model),
        "target": target.name,
        "fidelity": [entry.to_dict() for entry in graph.fidelity],
        "findings": [finding.to_dict() for finding in findings],
        "fits": not failing,
    }
    if failing:
        raise CheckFailed(
            f"{options.model} does not fit {target.name}: " + " ".join(failing),
            remedy=remedy or "see the remedy of each finding.",
            code="does-not-fit",
            result=result,
        )
    say(f"{options.model} fits {target.name}.")
    return result
