"""``neurodeploy quantize``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.cli.model_options import ModelOptions, Steps, say_notes, say_quantization
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb, write_resolved
from neurodeploy.deployment import QUANTIZE_REPORT, QUANTIZED_FILE, quantize_for
from neurodeploy.files import write_json
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.load import load
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
    quantized = quantize_for(
        load(options.model), load_target(options.target), v_min=options.v_min_value(), on_step=steps
    )
    save_graph(quantized.graph, options.out / QUANTIZED_FILE)
    report = quantized.report()
    write_json(options.out / QUANTIZE_REPORT, report)
    write_resolved(options, options.out / "quantize.yaml")
    say_quantization(dict(quantized.layers))
    say_notes(quantized.notes)
    say(f"wrote {options.out / QUANTIZED_FILE} and {options.out / QUANTIZE_REPORT}")
    return {"steps": steps.done, **report}
