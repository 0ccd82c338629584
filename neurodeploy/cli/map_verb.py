"""``neurodeploy map``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.cli.compile_verb import LAYER2CORE_HELP, core_choice, say_mapping
from neurodeploy.cli.model_options import ChipOptions, Steps, compile_options, quantize_model
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb, write_resolved
from neurodeploy.deployment import MAPPING_FILE
from neurodeploy.files import write_json
from neurodeploy.mapping.placement import Split


class MapOptions(ChipOptions):
    """Options of ``neurodeploy map``."""

    layer2core_map: str = Field("auto", description=LAYER2CORE_HELP)
    split: Split = Field("auto", description="split a layer over several cores where there is no placement otherwise.")
    out: Path = Field(Path("build"), description="folder to write to.", json_schema_extra={"short": "-o"})


@verb(MapOptions)
def command(options: MapOptions) -> dict[str, Any]:
    """Place the layers of a network on the chip's cores.

    Writes mapping.json. When no placement exists, says which layers conflict, what they need and what every core has.
    """
    steps = Steps(options.verbose)
    target, quantized = quantize_model(options, steps)
    choice, settings = core_choice(options.layer2core_map), target.family.settings(compile_options(options).settings)
    mapped = target.family.map(quantized.graph, target.chip, choice, options.split, settings)
    report = mapped.report()
    write_json(options.out / MAPPING_FILE, report)
    write_resolved(options, options.out / "map.yaml")
    say_mapping(report)
    say(f"wrote {options.out / MAPPING_FILE}")
    return {"steps": steps.done, **report}
