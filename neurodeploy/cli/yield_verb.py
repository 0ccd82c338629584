"""``neurodeploy yield``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.analog.monte_carlo import Conditions, Decode, chip_yield
from neurodeploy.analog.yield_report import check_level, default_level
from neurodeploy.cli.output import progress, say, table
from neurodeploy.cli.verb import Options, verb, write_resolved
from neurodeploy.errors import CheckFailed
from neurodeploy.executor import executor
from neurodeploy.targets.analog.calibration import Mode


class YieldOptions(Options):
    """Options of ``neurodeploy yield``."""

    run: Path = Field(description="folder of a network compiled for an analog chip.")
    data: Path = Field(description="labelled patterns of spike times, .npz.")
    chips: int = Field(100, gt=0, description="number of virtual chips.")
    first_serial: int = Field(0, ge=0, description="serial number of the first; the others follow.")
    samples: int | None = Field(None, gt=0, description="use only the first so many patterns.")
    above: float | None = Field(None, description="the accuracy to stay above; by default 2 points below nominal.")
    min_share: float | None = Field(
        None, ge=0, le=1, description="fail (exit code 1) if a smaller share of the chips stays above."
    )
    calibrate: Mode | None = Field(None, description="calibrate the circuits of every chip first.")
    no_trial_noise: bool = Field(False, description="leave out the noise of trials that the chip's description states.")
    decode: Decode = Field("first", description="the answer is the output that fires first, or most.")
    seed: int = Field(0, ge=0, description="seed of the noise.")
    temperature_c: float | None = Field(None, description="temperature of the chips, in degrees Celsius.")
    causes: int = Field(0, ge=0, description="run so many of the chips with each kind of deviation alone, too.")
    executor: str = Field("processes", description="where chips are emulated: processes, ray, or ray:ADDRESS.")
    workers: int | None = Field(None, gt=0, description="processes; by default one per processor.")
    out: Path | None = Field(
        None,
        description="folder for yield.json, .csv, .svg and .html; by default RUN.",
        json_schema_extra={"short": "-o"},
    )


@verb(YieldOptions)
def command(options: YieldOptions) -> dict[str, Any]:
    """Emulate a network on many virtual chips and report how many stay above an accuracy.

    Each chip has its own mismatch, drawn from its serial number; the result does not depend on where it is emulated.
    """
    if options.above is not None:
        check_level(options.above)
    conditions = Conditions(
        options.calibrate, not options.no_trial_noise, options.decode, options.seed, options.temperature_c
    )
    with progress("emulating chips") as advance:
        result = chip_yield(
            options.run,
            options.data,
            chips=options.chips,
            first_serial=options.first_serial,
            samples=options.samples,
            conditions=conditions,
            study=min(options.causes, options.chips),
            executor=executor(options.executor, options.workers),
            progress=advance,
        )
    level = default_level(result.nominal) if options.above is None else options.above
    out = options.out or options.run
    result.save(out, level)
    write_resolved(options, out / "yield.yaml")
    summary = result.summary()
    table(f"accuracy of {len(result.serials)} chips", list(summary), [[f"{value:.1%}" for value in summary.values()]])
    if result.causes:
        table(
            "only one kind of deviation",
            ("deviates", "mean accuracy"),
            [(name, f"{values.mean():.1%}") for name, values in result.causes.items()],
        )
    say(result.statement(level))
    say(f"wrote {out / 'yield.html'}")
    content = result.to_dict(level)
    if options.min_share is not None and result.share_above(level) < options.min_share:
        raise CheckFailed(
            f"{result.share_above(level):.1%} of the chips stay above {level:.1%}, fewer than {options.min_share:.1%}.",
            remedy="train aware of mismatch, calibrate the chips (--calibrate), or train each in the loop.",
            code="yield",
            result=content,
        )
    return content
