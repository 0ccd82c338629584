"""``neurodeploy quantize``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.cli.model_options import ModelOptions, Steps, quantize_model, say_notes, say_quantization
from neurodeploy.cli.output import say
from neurodeploy.cli.verb import verb, write_resolved


class QuantizeOptions(ModelOptions):
    """Options of ``neurodeploy quantize``."""

    out: Path = Field(Path("build"), description="folder to write to.", json_schema_extra={"short": "-o"})
    qdq: bool = Field(False, description="also write qdq.onnx: float32 with DequantizeLinear before every integer.")


@verb(QuantizeOptions)
def command(options: QuantizeOptions) -> dict[str, Any]:
    """Turn a network's weights, thresholds and bounds into the chip's integers.

    Writes quantized.onnx and quantize.json.
    """
    steps = Steps(options.verbose)
    _, quantized = quantize_model(options, steps)
    quantized.save(options.out)
    if options.qdq:
        quantized.save_qdq(options.out / "qdq.onnx")
    write_resolved(options, options.out / "quantize.yaml")
    say_quantization(quantized.layers)
    say_notes(quantized.notes)
    say(f"wrote quantized.onnx and quantize.json in {options.out}")
    return {"steps": steps.done, **quantized.report()}
