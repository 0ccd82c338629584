"""``neurodeploy compile``."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from neurodeploy.cli.analog import ONLY_ANALOG, AnalogOptions, compile_network, refuse_analog_options
from neurodeploy.cli.model_options import Steps, compile_options, read_model, say_notes, say_quantization
from neurodeploy.cli.output import progress, say, table
from neurodeploy.cli.verb import verb, write_resolved
from neurodeploy.deployment import PROGRAM_FILE, Deployment, compile_with
from neurodeploy.errors import ConfigError
from neurodeploy.events.dataset import load_npz
from neurodeploy.mapping.placement import CoreChoice, Split
from neurodeploy.quantize.guards import Guard
from neurodeploy.target import Target, load_target
from neurodeploy.validation.guards import activity_guards

LAYER2CORE_HELP = "'auto'; core numbers in network order: 0,3,5; or the cores of some layers: conv1=0,conv3=5."


class CompileOptions(AnalogOptions):
    """Options of ``neurodeploy compile``."""

    layer2core_map: str = Field("auto", description=LAYER2CORE_HELP)
    split: Split = Field("auto", description="split a layer over several cores where there is no placement otherwise.")
    monitor_layers: tuple[str, ...] = Field((), description="a layer whose spikes the host sees; may be repeated.")
    check_on: Path | None = Field(
        None, description="recordings (.npz) to run on the emulator: warns of layers that are silent or saturated."
    )
    samples: int | None = Field(None, gt=0, description="use only the first so many of these recordings.")
    threads: int = Field(1, gt=0, description="threads of the emulator.")
    slow_clock_hz: float | None = Field(
        None, gt=0, description="ticks per second of the slow clock, for networks with biases."
    )
    nir_tau_unit: Literal["ms", "s"] | None = Field(
        None, description="analog chips: unit of the time constants in NIR files for the vendor's tools; ms without it."
    )
    out: Path = Field(Path("build"), description="folder to write to.", json_schema_extra={"short": "-o"})


#: Fields that an analog chip has no use for.
_ONLY_INTEGERS = ("monitor_layers", "check_on", "samples", "slow_clock_hz")


@verb(CompileOptions)
def command(options: CompileOptions) -> dict[str, Any]:
    """Compile a network for a chip: quantize, map, lower.

    Writes graph.onnx, quantized.onnx, quantize.json, mapping.json, program.json (the chip's
    configuration), compile.json (the options) and deployment.json (the hashes of these files).
    For an analog chip: graph.onnx, quantize.json, program.json and the last two, and in files/ what
    the vendor's tools take.
    """
    target = load_target(options.target)
    if target.code.analog:
        result = compile_network(options, target, options.out, _analog_settings(options, target))
        write_resolved(options, options.out / "compile.yaml")
        return result
    refuse_analog_options(options, target, (*ONLY_ANALOG, "nir_tau_unit"))
    steps = Steps(options.verbose)
    chosen = replace(
        compile_options(options),
        layer2core_map=core_choice(options.layer2core_map),
        split=options.split,
        monitor_layers=options.monitor_layers or None,
    )
    deployment = compile_with(read_model(options), target, chosen, on_step=steps)
    deployment.save(options.out)
    write_resolved(options, options.out / "compile.yaml")
    say_quantization(deployment.quantized.layers)
    say_mapping(deployment.mapping)
    say_notes(deployment.notes)
    guards = _guards(options, deployment)
    for guard in guards:
        say(f"warning: {guard}")
    say(f"wrote {options.out / PROGRAM_FILE}")
    return {
        "target": deployment.target,
        "program": str(options.out / PROGRAM_FILE),
        "layer2core_map": {layer["name"]: layer["core"] for layer in deployment.mapping["layers"]},
        "notes": list(deployment.notes),
        "guards": [guard.to_dict() for guard in guards],
        "steps": steps.done,
    }


def _analog_settings(options: CompileOptions, target: Target) -> dict[str, Any]:
    """The settings that are flags of this verb; refuses what analog chips do not have."""
    given = [name for name in _ONLY_INTEGERS if getattr(options, name) not in (None, ())]
    given += ["layer2core_map"] if options.layer2core_map != "auto" else []
    given += ["split"] if options.split != "auto" else []
    if given:
        raise ConfigError(
            f"{', '.join('--' + name.replace('_', '-') for name in given)}: {target.name} is an analog chip.",
            remedy="leave it out.",
            code="analog-option",
        )
    return {} if options.nir_tau_unit is None else {"nir_tau_unit": options.nir_tau_unit}


def _guards(options: CompileOptions, deployment: Deployment) -> list[Guard]:
    if options.check_on is None:
        return activity_guards(deployment)
    dataset = load_npz(options.check_on, sensor_size=deployment.program.input_shape)[: options.samples]
    with progress("checking activity") as advance:
        return activity_guards(
            deployment,
            dataset,
            threads=options.threads,
            slow_clock_hz=options.slow_clock_hz,
            progress=advance,
        )


def core_choice(text: str) -> CoreChoice:
    """``auto``, a list of core numbers, or a list of ``layer=core``.

    Raises:
        ConfigError: anything else.
    """
    if text == "auto":
        return "auto"
    try:
        if "=" in text:
            pairs = [part.rsplit("=", 1) for part in text.split(",")]
            return {name: int(core) for name, core in pairs}
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"layer2core_map: {text!r} is neither 'auto' nor a list of core numbers.",
            remedy="write, for example, --layer2core-map 0,3,5 or --layer2core-map conv1=0,conv3=5",
            code="layer2core-map",
        ) from None


def say_mapping(report: Any) -> None:
    """Print which layer is on which core and what it needs."""
    table(
        f"Cores of {report['target']}",
        ("layer", "core", "kernel words", "neuron words", "bias words"),
        [
            (layer["name"], layer["core"], layer["needs"]["kernel"], layer["needs"]["neuron"], layer["needs"]["bias"])
            for layer in report["layers"]
        ],
    )
