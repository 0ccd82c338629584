"""``neurodeploy quantize``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.cli.model_options import ModelOptions, Steps, say_notes, say_quantization
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb, write_resolved
from neurodeploy.graph.load import load
from neurodeploy.quantize import quantize
from neurodeploy.target import load_target


class QuantizeOptions(ModelOptions):
    """Options of ``neurodeploy quantize``."""

    out: Path = Field(Path("build"), description="folder to write to.", json_schema_extra={"short": "-o"})


@verb(QuantizeOptions)
def command(options: QuantizeOptions) -> dict[str, Any]:
    """Turn a network's weights, thresholds and bounds into the chip's integers.

    Writes quantized.safetensors and quantize.json.
    """
    steps = Steps(options.verbose)
    target = load_target(options.target)
    spec = target.family.quantization_spec(target.chip)
    quantized = quantize(load(options.model), spec, v_min=options.v_min, on_step=steps)
    quantized.save(options.out)
    write_resolved(options, options.out / "quantize.yaml")
    say_quantization(quantized.layers)
    say_notes(quantized.notes)
    say(f"wrote quantized.safetensors and quantize.json in {options.out}")
    return {"steps": steps.done, **quantized.report()}
