"""``neurodeploy emulate``."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurodeploy.cli.analog_run import emulate_analog
from neurodeploy.cli.output import say, table
from neurodeploy.cli.recordings import RecordingOptions, one_recording
from neurodeploy.cli.verb import verb
from neurodeploy.deployment import PROGRAM_FILE, open_deployment
from neurodeploy.emulate.run import Run
from neurodeploy.emulate.stream import joined
from neurodeploy.emulate.workload import Workload
from neurodeploy.errors import ConfigError
from neurodeploy.events.array import EVENT_DTYPE, EventArray
from neurodeploy.events.dataset import write_npz
from neurodeploy.events.formats import iter_events
from neurodeploy.files import write_json
from neurodeploy.program_file import program_target
from neurodeploy.target import DEFAULT_WORK_LIMIT

Neuron = tuple[int, int, int]


class EmulateOptions(RecordingOptions):
    """Options of ``neurodeploy emulate``."""

    out: Path | None = Field(
        None, description="write the spikes of all layers to this .npz.", json_schema_extra={"short": "-o"}
    )
    probe: tuple[str, ...] = Field(
        (), description="keep the potential of a neuron, LAYER:c,y,x; goes into --out; may be repeated."
    )
    switch: tuple[str, ...] = Field(
        (), description="NAME=VALUE of what the chip's documents leave open, e.g. interleaving=fifo; may be repeated."
    )
    load: bool = Field(False, description="show SynOps/s per core over time, with a model of latency and energy.")
    bin_us: int = Field(1000, gt=0, description="length of a bin of --load, in microseconds.")
    pj_per_synop: float | None = Field(None, ge=0, description="energy of a SynOp for --load; none is published.")
    pj_per_spike: float | None = Field(None, ge=0, description="energy of a spike for --load; none is published.")
    load_out: Path | None = Field(None, description="with --load: write the bins of every core to this .json.")
    work_limit: int = Field(
        DEFAULT_WORK_LIMIT, gt=0, lt=2**63, description="refuse a piece that takes more updates of neurons than this."
    )
    chunk_events: int = Field(
        1 << 20, gt=0, description="events held in memory at a time; results do not depend on it."
    )
    serial: int | None = Field(None, ge=0, description="analog chips: the serial number of the emulated chip.")
    calibrate: Literal["residual", "search"] | None = Field(
        None, description="analog chips: calibrate the circuits of that chip first."
    )
    calibration: Path | None = Field(None, description="analog chips: a file with the calibration of that chip.")
    trial_noise: bool = Field(False, description="analog chips: runs differ, as the chip's description says.")
    seed: int | None = Field(None, ge=0, description="analog chips: of the noise of trials and of calibration.")
    decode: Literal["first", "count"] | None = Field(
        None, description="analog chips: the answer is the output that fires first (without it), or most."
    )
    threads: int = Field(1, gt=0, description="analog chips: threads of the emulator.")


#: Fields that say nothing about an analog chip, and those that say nothing about another.
_ONLY_INTEGERS = (
    *("probe", "switch", "load", "bin_us", "pj_per_synop", "pj_per_spike", "load_out"),
    *("work_limit", "chunk_events", "slow_clock_hz"),
)
_ONLY_ANALOG = ("serial", "calibrate", "calibration", "trial_noise", "seed", "decode", "threads")


@verb(EmulateOptions)
def command(options: EmulateOptions) -> dict[str, Any]:
    """Run one recording through the event-driven emulator, which is bit-accurate for chips of integers.

    A recording of its own file is read piece by piece and may be larger than memory.

    For an analog chip the recording holds spike times (.npz, see 'neurodeploy data'); without --index all patterns
    are run. --serial takes the chip of that number, with deviations of its own; without it, circuits are perfect.
    """
    _check_outputs(options)
    if _is_analog(options.run):
        _refuse(options, _ONLY_INTEGERS, "an analog chip")
        return emulate_analog(options)
    _refuse(options, _ONLY_ANALOG, "no analog chip")
    deployment = open_deployment(options.run)
    pieces, label, until_us = _recording(options, deployment.program.input_shape)
    settings: dict[str, Any] = {
        "switches": dict(map(_switch, options.switch)) or None,
        "slow_clock_hz": options.slow_clock_hz,
        "until_us": until_us,
    }
    count = 0

    def counted() -> Iterator[EventArray]:
        nonlocal count
        for piece in pieces:
            count += len(piece)
            yield piece

    runs = deployment.emulate_stream(
        counted(),
        record=() if options.out is None else None,
        probe=_probes(options.probe),
        work_limit=options.work_limit,
        **settings,
    )
    result = Run(deployment.program, joined(run.execution for run in runs))
    stats = result.stats
    table(
        f"{options.events}: {count} events",
        ("layer", "events in", "SynOps", "spikes", "dropped"),
        [(name, c["events"], c["synops"], c["spikes"], c["dropped"]) for name, c in stats["layers"].items()],
    )
    answer = f"most spikes: class {result.prediction}"
    say(answer if label is None else f"{answer} (label: {label})")
    content = {
        "events": count,
        "label": label,
        "prediction": result.prediction,
        "output_counts": result.output_counts.tolist(),
        "stats": stats,
    }
    if options.out is not None:
        _write(options.out.with_suffix(".npz"), result)
    if options.load:
        again, _, _ = _recording(options, deployment.program.input_shape)
        load = deployment.workload(
            again,
            bin_us=options.bin_us,
            pj_per_synop=options.pj_per_synop,
            pj_per_spike=options.pj_per_spike,
            **settings,
        )
        _say_load(load)
        content["load"] = load.to_dict()
        if options.load_out is not None:
            write_json(options.load_out, load.to_dict())
            say(f"wrote {options.load_out}")
    return content


def _is_analog(run: Path) -> bool:
    program = run / PROGRAM_FILE
    return program.is_file() and program_target(program).code.analog


def _refuse(options: EmulateOptions, names: Sequence[str], what: str) -> None:
    fields = type(options).model_fields
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != fields[name].default]
    if given:
        raise ConfigError(f"{', '.join(given)}: {options.run} is for {what}.", remedy="leave it out.", code="run-kind")


def _check_outputs(options: EmulateOptions) -> None:
    """Refuse options whose result would go nowhere."""
    if options.out is not None and options.out.suffix not in ("", ".npz"):
        raise ConfigError(f"--out {options.out}: spikes are written as .npz.", remedy="name it .npz.", code="out")
    if options.probe and options.out is None:
        raise ConfigError("--probe without --out.", remedy="add --out FILE.npz.", code="probe")
    for name in ("load_out", "pj_per_synop", "pj_per_spike"):
        if getattr(options, name) is not None and not options.load:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} without --load.", remedy="add --load.", code="load")


def _recording(options: EmulateOptions, shape: Neuron) -> tuple[Iterable[EventArray], int | None, int | None]:
    """The recording's pieces; label and length where it is one of a data set."""
    if options.index is None:
        pieces = iter_events(options.events, chunk_events=options.chunk_events, sensor_size=shape)
        return chain([np.empty(0, EVENT_DTYPE)], pieces), None, None  # a recording without events is one, too
    events, label, until_us = one_recording(options.events, options.index, shape)
    return [events], label, until_us


def _probes(texts: Iterable[str]) -> dict[str, list[Neuron]] | None:
    probes: dict[str, list[Neuron]] = {}
    for text in texts:
        layer, _, place = text.rpartition(":")
        numbers = place.split(",")
        if not layer or len(numbers) != 3 or not all(number.strip().isdecimal() for number in numbers):
            raise ConfigError(
                f"--probe {text!r} names no neuron.", remedy="give LAYER:c,y,x, e.g. conv1:0,5,7.", code="probe"
            )
        c, y, x = (int(number) for number in numbers)
        probes.setdefault(layer, []).append((c, y, x))
    return probes or None


def _switch(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"--switch {text!r} has no value.", remedy="give NAME=VALUE, e.g. interleaving=fifo.", code="switch"
        )
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value.lower(), value)


def _write(path: Path, result: Run) -> None:
    arrays = {"spikes": result.spikes, "layers": np.array(result.program.layers)}
    for number, (layer, probe) in enumerate(result.probes.items()):
        arrays |= {
            f"probe{number}_layer": np.array(layer),
            f"probe{number}_neurons": np.array(probe.neurons, np.int64),
            f"probe{number}_t_us": probe.t_us,
            f"probe{number}_v": probe.v,
        }
    write_npz(path, arrays)
    say(f"wrote {path}")


def _say_load(load: Workload) -> None:
    table(
        f"Load, bins of {load.bin_us} us",
        ("layer", "core", "mean M SynOps/s", "peak M SynOps/s", "at ms", "published M SynOps/s", "largest delay us"),
        [
            (
                core.part,
                core.core,
                float(load.rate(core).mean()) / 1e6,
                load.peak(core)[0] / 1e6,
                load.peak(core)[1] / 1e3,
                core.limit.value / 1e6,
                f"{core.largest_delay_us:.1f}",
            )
            for core in load.cores
        ],
    )
    for warning in load.warnings:
        say(f"warning: {warning}")
    if load.latency is not None:
        say(
            f"modelled latency to the last layer: median {load.latency.median_us:,.1f} us, 99 % within "
            f"{load.latency.p99_us:,.1f} us, largest {load.latency.largest_us:,.1f} us"
        )
    table("Energy: what is known", ("quantity", "value", "source"), load.energy.rows())
