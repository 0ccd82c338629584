"""``neurodeploy targets``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from neurodeploy.cli.model_options import AllowRecurrence, SettingsFile, compile_options
from neurodeploy.cli.output import say, table
from neurodeploy.cli.verb import Options, verb
from neurodeploy.errors import ConfigError
from neurodeploy.fit import Fit, fit
from neurodeploy.graph.load import load
from neurodeploy.target import load_target, target_names


class TargetsOptions(Options):
    """Options of ``neurodeploy targets``."""

    name: str | None = Field(None, description="a chip, to see its cores and limits; all chips without it; or 'fit'.")
    network: Path | None = Field(None, description="after 'fit': a .nir file or an .onnx graph.")
    target: tuple[str, ...] = Field(
        (),
        description="with 'fit': a chip, or the path of a chip.yaml; may be repeated.",
        json_schema_extra={"short": "-t"},
    )
    all: bool = Field(False, description="with 'fit': every known chip, which is the default without --target.")
    settings: SettingsFile = None
    allow_recurrence: AllowRecurrence = False


@verb(TargetsOptions, arguments=2)
def command(options: TargetsOptions) -> dict[str, Any]:
    """List the chips, show one chip's cores and limits, or show which chips hold a network.

    'targets fit NETWORK' says for each chip whether the network fits, and if not, what limits it first.
    """
    if options.name == "fit":
        return _fit(options)
    if options.network or options.target or options.all or options.settings or options.allow_recurrence:
        raise ConfigError(
            "NETWORK and all options belong to 'neurodeploy targets fit'.",
            remedy="write: neurodeploy targets fit NETWORK [--all | --target NAME ...]",
            code="usage",
        )
    if options.name is None:
        targets = [load_target(name) for name in target_names()]
        table("Targets", ("name", "family", "chip"), [(t.name, t.family_name, t.chip.title) for t in targets])
        return {"targets": [{"name": t.name, "family": t.family_name, "title": t.chip.title} for t in targets]}
    target = load_target(options.name)
    description = target.chip.model_dump(mode="json")
    say(yaml.safe_dump(description, sort_keys=False, width=120).rstrip())
    rules = target.code.rules(target.chip)
    table("Rules", ("code", "severity", "rule"), [(rule.code, rule.severity, rule.text) for rule in rules])
    return {"name": target.name, "family": target.family_name, "chip": description, "rules": [asdict(r) for r in rules]}


def _fit(options: TargetsOptions) -> dict[str, Any]:
    if options.network is None:
        raise ConfigError(
            "'neurodeploy targets fit' needs a network.",
            remedy="write: neurodeploy targets fit NETWORK [--all | --target NAME ...]",
            code="usage",
        )
    names = [*(target_names() if options.all or not options.target else []), *options.target]
    targets = [load_target(name) for name in dict.fromkeys(names)]
    graph = load(options.network)
    chosen = compile_options(options)
    fits = [fit(graph, target, chosen) for target in targets]
    table(
        f"Where {options.network} fits",
        ("target", "fits", "limited by", "layer", "needs", "limit"),
        [(one.target, _answer(one), one.code, ", ".join(one.layers), one.need, one.limit) for one in fits],
    )
    for one in fits:
        if not one.fits:
            say(f"{one.target}: {one.remedy}")
    return {"network": str(options.network), "targets": [asdict(one) for one in fits]}


def _answer(one: Fit) -> str:
    if one.on_several_cores:
        return f"yes, with {', '.join(one.on_several_cores)} split over several cores"
    return "yes" if one.fits else "no"
