"""``neurodeploy targets``."""

from dataclasses import asdict
from typing import Any

import yaml
from pydantic import Field

from neurodeploy.cli.output import say, table
from neurodeploy.cli.verb import Options, verb
from neurodeploy.target import load_target, target_names


class TargetsOptions(Options):
    """Options of ``neurodeploy targets``."""

    name: str | None = Field(None, description="a chip, to see its cores and limits; all chips without it.")


@verb(TargetsOptions)
def command(options: TargetsOptions) -> dict[str, Any]:
    """List the chips, or show one chip's cores and limits."""
    if options.name is None:
        targets = [load_target(name) for name in target_names()]
        table("Targets", ("name", "family", "chip"), [(t.name, t.family_name, t.chip.title) for t in targets])
        return {"targets": [{"name": t.name, "family": t.family_name, "title": t.chip.title} for t in targets]}
    target = load_target(options.name)
    description = target.chip.model_dump(mode="json")
    say(yaml.safe_dump(description, sort_keys=False, width=120).rstrip())
    rules = target.family.rules(target.chip)
    table("Rules", ("code", "severity", "rule"), [(rule.code, rule.severity, rule.text) for rule in rules])
    return {"name": target.name, "family": target.family_name, "chip": description, "rules": [asdict(r) for r in rules]}
