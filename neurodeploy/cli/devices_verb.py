"""``neurodeploy devices``."""

from typing import Any

from pydantic import Field

from neurodeploy.cli.output import say, table
from neurodeploy.cli.verb import Options, verb
from neurodeploy.deploy.deploy import connected
from neurodeploy.target import load_target, target_names


class DevicesOptions(Options):
    """Options of ``neurodeploy devices``."""

    target: str | None = Field(None, description="list the kits of this chip; of all chips without it.")


@verb(DevicesOptions)
def command(options: DevicesOptions) -> dict[str, Any]:
    """List the connected dev kits. Needs the vendor's library (exit code 3 without it)."""
    names = target_names() if options.target is None else [load_target(options.target).name]
    found = connected(names)
    if found:
        table("Kits", ("device", "chip"), found)
    else:
        kinds = [kit.name for name in names for kit in load_target(name).devices]
        say(f"no kit is connected; looked for: {', '.join(kinds)}")
    return {"devices": [{"device": str(kit), "target": name} for kit, name in found]}
