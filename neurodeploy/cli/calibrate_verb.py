"""``neurodeploy calibrate``."""

from pathlib import Path
from typing import Any

from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.model_options import AllowRecurrence, BiasBits, SettingsFile, compile_options
from neurodeploy.cli.output import progress, say, table
from neurodeploy.cli.recordings import labelled_recordings
from neurodeploy.cli.verb import Options, verb, write_resolved
from neurodeploy.quantize.calibration import CALIBRATION_FILE
from neurodeploy.validation.calibrate import WEIGHT_RANGES


class CalibrateOptions(Options):
    """Options of ``neurodeploy calibrate``."""

    model: Path = Field(description="the float network, as for compile.")
    data: Path = Field(description="labelled recordings, .npz; none of those the result is judged on.")
    dt_us: int = Field(gt=0, description="length of a time step in microseconds: that of the training.")
    out: Path = Field(description="folder for calibration.json.", json_schema_extra={"short": "-o"})
    target: str = Field(
        "speck2f",
        description="name of the chip (see 'neurodeploy targets'), or the path of a chip.yaml.",
        json_schema_extra={"short": "-t"},
    )
    v_min: str | float | None = Field(None, description="lower bound of the potential, as for compile.")
    bias_bits: BiasBits = None
    settings: SettingsFile = None
    allow_recurrence: AllowRecurrence = False
    weight_ranges: tuple[float, ...] = Field(
        WEIGHT_RANGES, description="ends of the integer range to try, as shares of the largest weight; may be repeated."
    )
    samples: int | None = Field(None, gt=0, description="use only the first so many recordings.")
    threads: int = Field(1, gt=0, description="threads of the event-driven runs.")
    slow_clock_hz: float | None = Field(
        None, gt=0, description="ticks per second of the slow clock, for networks with biases."
    )


@verb(CalibrateOptions)
def command(options: CalibrateOptions) -> dict[str, Any]:
    """Choose every layer's weight range and threshold on recordings, so that the chip fires as the trained network.

    Writes calibration.json, for --calibration of quantize, map, check and compile.
    """
    graph = nd.load(options.model)
    dataset = labelled_recordings(options.data, graph, options.samples)
    with progress("calibrating") as advance:
        result = nd.calibrate(
            graph,
            dataset,
            dt_us=options.dt_us,
            target=options.target,
            weight_ranges=options.weight_ranges,
            options=compile_options(options),
            threads=options.threads,
            slow_clock_hz=options.slow_clock_hz,
            progress=advance,
        )
    result.save(options.out)
    write_resolved(options, options.out / "calibrate.yaml")
    table(
        f"{result.recordings} recordings, layer by layer",
        ("layer", "weight range", "threshold x", "rate trained", "before", "after", "error before", "after"),
        [
            (
                row.layer,
                row.weight_range,
                row.threshold,
                row.rate_trained,
                row.rate_before,
                row.rate_after,
                f"{row.error_before:.1%}",
                f"{row.error_after:.1%}",
            )
            for row in result.layers
        ],
    )
    say(f"accuracy, event by event: {result.accuracy_before:.1%} before, {result.accuracy_after:.1%} calibrated")
    say(f"wrote {options.out / CALIBRATION_FILE}")
    return result.to_dict()
