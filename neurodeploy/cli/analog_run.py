"""``neurodeploy emulate`` on a run folder of an analog chip."""

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from neurodeploy.analog.deployment import AnalogDeployment, AnalogRun, open_analog
from neurodeploy.cli.output import say, table
from neurodeploy.errors import ConfigError
from neurodeploy.events.dataset import write_npz
from neurodeploy.events.formats import read_events
from neurodeploy.events.spike_times import SpikeTimes, load_spike_times
from neurodeploy.targets.analog.calibration import Calibration, read_calibration


class AnalogRunOptions(Protocol):
    """The options of the verb that are used here; see ``EmulateOptions``."""

    run: Path
    events: Path
    index: int | None
    out: Path | None
    serial: int | None
    calibrate: Literal["residual", "search"] | None
    calibration: Path | None
    trial_noise: bool
    seed: int | None
    decode: Literal["first", "count"] | None
    threads: int


def emulate_analog(options: AnalogRunOptions) -> dict[str, Any]:
    """Run patterns of spike times, print what fired, and write the spikes of all layers.

    Raises:
        ConfigError, EventError, EmulationError, ProgramError: as ``AnalogDeployment.emulate``; no such pattern; two
            calibrations.
    """
    deployment = open_analog(options.run)
    patterns, first, labelled = _patterns(options, deployment)
    result = deployment.emulate(
        patterns,
        serial=options.serial,
        calibration=_calibration(options, deployment),
        noise=options.trial_noise,
        seed=options.seed or 0,
        trials=first + np.arange(len(patterns)),
        threads=options.threads,
    )
    return _tell(options, result, patterns, labelled)


def _patterns(options: AnalogRunOptions, deployment: AnalogDeployment) -> tuple[SpikeTimes, int, bool]:
    """The patterns, the number of the first one, and whether they have labels."""
    if options.events.suffix == ".npz":
        patterns = load_spike_times(options.events)
        if options.index is None:
            return patterns, 0, True
        if options.index >= len(patterns):
            raise ConfigError(
                f"{options.events} has {len(patterns)} patterns; index {options.index} is not among them.",
                remedy=f"choose one: --index 0..{len(patterns) - 1}.",
                code="recording-index",
            )
        return patterns[options.index : options.index + 1], options.index, True
    if options.index is not None:
        raise ConfigError(
            f"--index: {options.events} is one recording.", remedy="leave it out.", code="recording-index"
        )
    times = deployment.times_of(read_events(options.events))
    return SpikeTimes(times, np.zeros(1, np.int64), str(options.events)), 0, False


def _calibration(options: AnalogRunOptions, deployment: AnalogDeployment) -> Calibration | None:
    if options.calibrate and options.calibration:
        raise ConfigError(
            "--calibrate and --calibration are two calibrations.", remedy="leave one out.", code="analog-calibration"
        )
    if (options.calibrate or options.calibration) and options.serial is None:
        raise ConfigError(
            "a calibration belongs to one chip.", remedy="add --serial NUMBER.", code="analog-calibration"
        )
    if options.calibration:
        return read_calibration(options.calibration)
    if options.calibrate and options.serial is not None:
        return deployment.calibrate(options.serial, options.calibrate, options.seed or 0)
    return None


def _tell(options: AnalogRunOptions, result: AnalogRun, patterns: SpikeTimes, labelled: bool) -> dict[str, Any]:
    chip = "circuits without mismatch" if options.serial is None else f"chip {options.serial}"
    rows = []
    for layer in result.times:
        counts, firsts = result.counts(layer), result.first_spikes(layer)
        fired = np.isfinite(firsts)
        rows.append(
            (
                layer,
                int(counts.sum()),
                f"{(counts.sum() / max(1, counts.size)):.3g}",
                f"{1 - fired.mean():.1%}" if fired.size else "",
                f"{1e3 * float(np.median(firsts[fired])):.4g}" if fired.any() else "",
            )
        )
    columns = ("layer", "spikes", "per neuron and pattern", "silent", "median first spike, ms")
    table(f"{options.events}: {len(patterns)} patterns on {chip}", columns, rows)
    found = result.answers(options.decode or "first")
    accuracy = float((found == patterns.labels).mean()) if labelled and len(patterns) else None
    if len(patterns) == 1:
        answer = "no output fires" if found[0] < 0 else f"answer: class {found[0]}"
        say(answer + (f" (label: {patterns.labels[0]})" if labelled else ""))
    elif accuracy is not None:
        say(f"accuracy {accuracy:.2%}; no answer to {float((found < 0).mean()):.2%}")
    if options.out is not None:
        path = options.out.with_suffix(".npz")
        arrays = {"layers": np.array(list(result.times)), "answers": found}
        write_npz(path, arrays | {f"times{n}": times for n, times in enumerate(result.times.values())})
        say(f"wrote {path}")
    return {
        "patterns": len(patterns),
        "serial": options.serial,
        "answers": found.tolist(),
        "accuracy": accuracy,
        "spikes": {layer: int(result.counts(layer).sum()) for layer in result.times},
    }
