"""``neurodeploy map``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.cli.compile_verb import core_choice, say_mapping
from neurodeploy.cli.model_options import ModelOptions, Steps, quantize_model
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb, write_resolved
from neurodeploy.deployment import MAPPING_FILE
from neurodeploy.files import write_json
from neurodeploy.mapping.placement import Split


class MapOptions(ModelOptions):
    """Options of ``neurodeploy map``."""

    layer2core_map: str = Field("auto", description="'auto', or core numbers in network order: 0,3,5.")
    split: Split = Field("auto", description="split a layer over two cores where there is no placement otherwise.")
    out: Path = Field(Path("build"), description="folder to write to.", json_schema_extra={"short": "-o"})


@verb(MapOptions)
def command(options: MapOptions) -> dict[str, Any]:
    """Place the layers of a network on the chip's cores.

    Writes mapping.json. When no placement exists, says which layers conflict, what they need and what every core has.
    """
    steps = Steps(options.verbose)
    target, quantized = quantize_model(options, steps)
    mapped = target.family.map(quantized.graph, target.chip, core_choice(options.layer2core_map), options.split)
    report = mapped.report()
    write_json(options.out / MAPPING_FILE, report)
    write_resolved(options, options.out / "map.yaml")
    say_mapping(report)
    say(f"wrote {options.out / MAPPING_FILE}")
    return {"steps": steps.done, **report}
