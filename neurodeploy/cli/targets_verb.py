"""``neurodeploy targets``."""

from typing import Any

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
        rows = [(target.name, target.family_name, target.description) for target in targets]
        table("Targets", ("name", "family", "description"), rows)
        return {"targets": [{"name": n, "family": f, "description": d} for n, f, d in rows]}
    target = load_target(options.name)
    summary = target.summary()
    say(f"{target.name} ({target.family_name}): {target.description}")
    for title, rows in summary.items():
        table(title, list(rows[0]), [list(row.values()) for row in rows])
    return {"name": target.name, "family": target.family_name, "description": target.description, **summary}
