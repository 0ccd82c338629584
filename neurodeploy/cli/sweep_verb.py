"""``neurodeploy sweep``."""

from pathlib import Path
from typing import Any

from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.model_options import AllowRecurrence, BiasBits, CalibrationFile, SettingsFile, compile_options
from neurodeploy.cli.output import progress, say, table
from neurodeploy.cli.recordings import labelled_recordings
from neurodeploy.cli.verb import Options, verb, write_resolved
from neurodeploy.validation.sweep import Sweep


class SweepOptions(Options):
    """Options of ``neurodeploy sweep``."""

    model: Path = Field(description="the network: a .nir file, or an .onnx graph written by train or compile.")
    data: Path = Field(description="labelled recordings, .npz.")
    out: Path = Field(description="folder for sweep.csv and sweep.json.", json_schema_extra={"short": "-o"})
    target: str = Field(
        "speck2f",
        description="name of the chip (see 'neurodeploy targets'), or the path of a chip.yaml.",
        json_schema_extra={"short": "-t"},
    )
    bias_bits: BiasBits = None
    calibration: CalibrationFile = None
    settings: SettingsFile = None
    allow_recurrence: AllowRecurrence = False
    v_min: tuple[str, ...] = Field(
        ("own",), description="lower bounds: 'own', '-threshold', 'lowest' or a number; may be repeated."
    )
    weight_bits: tuple[int, ...] = Field((), description="bits of a weight; the chip's by default; may be repeated.")
    threshold_scale: tuple[float, ...] = Field((1.0,), description="factors on every threshold; may be repeated.")
    dt_us: tuple[int, ...] = Field(
        (), description="lengths of a time step to compare with the event-driven run; may be repeated."
    )
    min_agreement: float = Field(0.98, ge=0, le=1, description="a time step is good if so many answers agree.")
    max_rate_difference: float = Field(
        0.1, ge=0, description="a time step is good if the layers' spike counts differ by no more than this share."
    )
    samples: int | None = Field(None, gt=0, description="use only the first so many recordings.")
    threads: int = Field(1, gt=0, description="threads of the event-driven runs.")
    slow_clock_hz: float | None = Field(
        None, gt=0, description="ticks per second of the slow clock, for networks with biases."
    )


@verb(SweepOptions)
def command(options: SweepOptions) -> dict[str, Any]:
    """Compile a network in many ways and compare accuracy and load on labelled recordings.

    Every combination of the repeated options is one row of sweep.csv and sweep.json.
    """
    graph = nd.load(options.model)
    dataset = labelled_recordings(options.data, graph, options.samples)
    with progress("sweeping") as advance:
        result = nd.sweep(
            graph,
            dataset,
            target=options.target,
            v_min=[None if v_min == "own" else v_min for v_min in options.v_min],
            weight_bits=options.weight_bits or None,
            threshold_scale=options.threshold_scale,
            options=compile_options(options),
            dt_us=options.dt_us,
            min_agreement=options.min_agreement,
            max_rate_difference=options.max_rate_difference,
            threads=options.threads,
            slow_clock_hz=options.slow_clock_hz,
            progress=advance,
        )
    result.save(options.out)
    write_resolved(options, options.out / "sweep.yaml")
    _say(result)
    say(f"wrote {options.out / 'sweep.csv'} and sweep.json")
    return result.to_dict()


def _say(result: Sweep) -> None:
    table(
        f"{result.recordings} recordings, event by event",
        (
            "v_min",
            "weight bits",
            "threshold x",
            "accuracy",
            "SynOps",
            "spikes of the last layer",
            "largest dt_us",
            "error",
        ),
        [
            (
                "own" if row.v_min is None else row.v_min,
                row.weight_bits,
                row.threshold_scale,
                None if row.accuracy is None else f"{row.accuracy:.1%}",
                None if row.synops is None else f"{row.synops:,.0f}",
                None if not row.spikes else list(row.spikes.values())[-1],
                None if row.time_steps is None else row.time_steps.dt_us or "none",
                row.error,
            )
            for row in result.rows
        ],
    )
