"""The options that every verb starting from a network shares, and what they print."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from neurodeploy.cli.output import say, table
from neurodeploy.cli.verb import Options, read_yaml
from neurodeploy.compile_options import CompileOptions
from neurodeploy.deployment import quantize_for
from neurodeploy.graph.fidelity import Fidelity
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.quantize.calibration import load_calibration
from neurodeploy.quantize.integers import Quantized
from neurodeploy.quantize.layer import LayerQuantization
from neurodeploy.target import Target, load_target

BiasBits = Annotated[
    int | None,
    Field(description="bits the biases are scaled to; the chip's description's (8, as sinabs) without it."),
]
CalibrationFile = Annotated[Path | None, Field(description="calibration.json, written by 'neurodeploy calibrate'.")]
SettingsFile = Annotated[
    Path | None,
    Field(description="a YAML file of what else is set on the chip; see the README of its family."),
]
AllowRecurrence = Annotated[
    bool,
    Field(description="take a network with loops, which the chip runs without time steps and which may deadlock it."),
]


class ModelOptions(Options):
    """A network, a chip, and how the network is brought to it."""

    model: Path = Field(description="the network: a .nir file, or an .onnx graph written by train or compile.")
    target: str = Field(
        "speck2f",
        description="name of the chip (see 'neurodeploy targets'), or the path of a chip.yaml.",
        json_schema_extra={"short": "-t"},
    )
    v_min: str | float | None = Field(
        None,
        description="lower bound of the potential: '-threshold', 'lowest' or a number; the network's own without it.",
    )
    bias_bits: BiasBits = None
    calibration: CalibrationFile = None
    allow_recurrence: AllowRecurrence = False
    reset: Literal["subtract", "zero", "none"] | None = Field(
        None, description="what a spike does to the potential, where the .nir file leaves it open."
    )
    dt_us: float | None = Field(
        None, gt=0, description="time step in microseconds, for .nir files with neurons that leak, or delays."
    )
    scheme: Literal["euler", "zoh", "exp_delta"] | None = Field(
        None, description="how neurons that leak become steps; see graph/README.md."
    )
    verbose: bool = Field(False, description="print every step.", json_schema_extra={"short": "-v"})


class ChipOptions(ModelOptions):
    """The same, and what is set on the chip."""

    settings: SettingsFile = None


def compile_options(options: Options) -> CompileOptions:
    """What ``options`` say of compiling a network, as ``neurodeploy.deployment.compile_with`` takes it.

    Raises:
        ConfigError, ProgramError, QuantizeError: a file that they name cannot be read.
    """
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("bias_bits", "calibration", "settings", "allow_recurrence")
        if hasattr(options, name)
    }
    if given.get("settings") is not None:
        given["settings"] = read_yaml(given["settings"])
    if given.get("calibration") is not None:
        given["calibration"] = load_calibration(given["calibration"])
    v_min = getattr(options, "v_min", None)
    return CompileOptions(v_min=v_min if isinstance(v_min, str | float) else None, **given)


def read_model(options: ModelOptions) -> Graph:
    """The network, with what the options say about a .nir file; errors as ``nd.load``."""
    return load_model(options, {key: getattr(options, key) for key in ("reset", "dt_us", "scheme")})


def load_model(options: ModelOptions, given: Mapping[str, Any]) -> Graph:
    """The network, read with those of the options ``given`` that are not None."""
    return load(options.model, **{key: value for key, value in given.items() if value is not None})


class Steps:
    """Prints each step when ``verbose``, and keeps them for the result."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.done: list[dict[str, str]] = []

    def __call__(self, name: str, text: str) -> None:
        """Note a finished step."""
        self.done.append({"step": name, "does": text})
        if self.verbose:
            say(f"  {len(self.done):2d}. {name}: {text}")


def quantize_model(options: ModelOptions, steps: Steps) -> tuple[Target, Quantized]:
    """The chip and the network in its integers, as the options say; errors as ``neurodeploy.deployment.compile``."""
    target = load_target(options.target)
    return target, quantize_for(target, read_model(options), compile_options(options), on_step=steps)


def say_quantization(layers: Mapping[str, LayerQuantization]) -> None:
    """Print the table of ``quantize``."""
    table(
        "Quantization",
        ("layer", "scale", "limited by", "weights", "threshold", "v_min", "largest error (LSB)", "zeroed"),
        [
            (
                name,
                layer.scale,
                layer.limited_by,
                f"{layer.weight_min}..{layer.weight_max}",
                layer.threshold_integer,
                layer.v_min_integer,
                layer.weight_error_lsb,
                f"{layer.zeroed_weights:.1%}",
            )
            for name, layer in layers.items()
        ],
    )


def say_fidelity(report: Sequence[Fidelity]) -> None:
    """Print what became of the nodes of a file, except those that are exact without a remark."""
    rows = [
        (entry.node, entry.kind, entry.status, "; ".join(map(str, entry.remarks))) for entry in report if entry.remarks
    ]
    if rows:
        table("Nodes of the file", ("node", "kind", "meaning", "what was decided"), rows)
    if report:
        counts = Counter(entry.status for entry in report)
        say(f"{len(report)} nodes of the file: " + ", ".join(f"{count} {status}" for status, count in counts.items()))


def say_notes(notes: Any) -> None:
    """Print what was assumed, approximated or dropped."""
    for note in notes:
        say(f"note: {note}")
