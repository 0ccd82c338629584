"""What the verbs do for analog chips: options of their own, the network in continuous time, tables of words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurodeploy.analog.deployment import FILES_FOLDER, compile_analog
from neurodeploy.cli.model_options import ChipOptions, Steps, compile_options, load_model, say_notes
from neurodeploy.cli.output import say, table
from neurodeploy.compilation import refuse_options
from neurodeploy.compile_options import CompileOptions as DigitalOptions
from neurodeploy.deployment import PROGRAM_FILE
from neurodeploy.errors import ConfigError
from neurodeploy.graph.graph import Graph
from neurodeploy.target import Target


class AnalogOptions(ChipOptions):
    """The options of a network for any chip; those from ``tau_unit`` on are for analog ones."""

    tau_unit: Literal["s", "ms"] | None = Field(
        None, description="analog chips: unit of the time constants in a .nir file of another tool; s without it."
    )
    max_spikes: int | None = Field(
        None, gt=0, description="analog chips: spikes of a neuron in a run, for a .nir file of another tool."
    )
    t_max: float | None = Field(
        None, gt=0, description="analog chips: length of a run in seconds, for a .nir file of another tool."
    )
    allow_error: bool = Field(
        False, description="analog chips: take parameters that are more than 5 % from what was asked for."
    )


#: Fields of ``AnalogOptions`` that a chip of integers has no use for.
ONLY_ANALOG = ("tau_unit", "max_spikes", "t_max", "allow_error")


def refuse_analog_options(options: Any, target: Target, names: tuple[str, ...] = ONLY_ANALOG) -> None:
    """Refuse options of analog chips for another chip.

    Raises:
        ConfigError: one is given.
    """
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False, ())]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: {target.name} is no analog chip.", remedy="leave it out.", code="analog-option"
        )


def read_network(options: AnalogOptions) -> Graph:
    """The network for an analog chip: neurons of a .nir file are read in continuous time. Errors as ``nd.load``."""
    given = {key: getattr(options, key) for key in ("reset", "tau_unit", "max_spikes", "t_max")}
    if options.model.suffix == ".nir":
        given["continuous_time"] = True
    return load_model(options, given)


def settings_of(options: AnalogOptions, target: Target, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a YAML file, with flags on top.

    Raises:
        ConfigError: an option is given that analog chips do not have, or the file cannot be read.
    """
    chosen: DigitalOptions = compile_options(options)
    refuse_options(chosen, target)
    for name in ("dt_us", "scheme"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: {target.name} is an analog chip, which has no time steps.",
                remedy="leave it out.",
                code="analog-option",
            )
    flags = {**({"allow_error": True} if options.allow_error else {}), **(more or {})}
    return {**(chosen.settings or {}), **flags}


def compile_network(options: AnalogOptions, target: Target, out: Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """Compile, write the run folder and print what became of every parameter; ``more``: further settings."""
    steps = Steps(options.verbose)
    deployment = compile_analog(read_network(options), target, settings_of(options, target, more), on_step=steps)
    deployment.save(out)
    files = deployment.write_files(out / FILES_FOLDER)
    say_report(deployment.report)
    say_notes(deployment.notes)
    say(f"wrote {out / PROGRAM_FILE}" + (f" and {len(files)} files in {out / FILES_FOLDER}" if files else ""))
    return {
        "target": deployment.target,
        "program": str(out / PROGRAM_FILE),
        "files": [str(path) for path in files],
        "layers": deployment.report["layers"],
        "placement": deployment.report["placement"],
        "notes": list(deployment.notes),
        "steps": steps.done,
    }


def say_report(report: Mapping[str, Any]) -> None:
    """Print parameters and weights as asked for and as they are."""
    rows = [
        (
            layer["name"],
            name,
            _span(entry["requested"]),
            _span(entry["realised"]),
            entry["unit"],
            _percent(entry["error"]),
        )
        for layer in report["layers"]
        for name, entry in layer["parameters"].items()
    ]
    table(f"Parameters of {report['target']}", ("layer", "parameter", "asked for", "chip has", "unit", "error"), rows)
    table(
        "Weights",
        ("layer", "error (share of rms)", "beyond the highest level", "circuits per neuron"),
        [
            (
                layer["name"],
                _percent(layer["weights"]["nrmse"]),
                _percent(layer["weights"]["clipped"]),
                layer.get("circuits_per_neuron", 1),
            )
            for layer in report["layers"]
        ],
    )
    placement = report["placement"]
    numbers = [f"{name.replace('_', ' ')} {value}" for name, value in placement.items() if not isinstance(value, list)]
    say(f"placement: {', '.join(numbers)}")
    for name, entries in placement.items():
        if isinstance(entries, list) and entries:
            columns = tuple(column.replace("_", " ") for column in entries[0])
            table(name, columns, [[_cell(value) for value in entry.values()] for entry in entries])


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(f"{part:.4g}" for part in value) if isinstance(value, list) else value


def _span(values: Any) -> str:
    """One number, or the smallest and the largest of several; nothing stands for an endless time."""
    numbers = [np.inf if value is None else float(value) for value in np.ravel(np.array(values, dtype=object))]
    low, high = min(numbers), max(numbers)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _percent(values: Any) -> str:
    return f"{100 * float(np.max(values)):.2g}%"
