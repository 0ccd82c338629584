"""``neurodeploy compare``."""

from pathlib import Path
from typing import Any

from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.output import say, table
from neurodeploy.cli.recordings import one_recording
from neurodeploy.cli.verb import Options, verb
from neurodeploy.errors import CheckFailed
from neurodeploy.recorded_file import read_recorded


class CompareOptions(Options):
    """Options of ``neurodeploy compare``."""

    run: Path = Field(description="the folder of the program that ran on the chip.")
    recorded: Path = Field(description="events_hw.npz, written by 'neurodeploy deploy'.")
    events: Path = Field(description="the recording that the chip was given.")
    index: int | None = Field(None, ge=0, description="which recording of a data set.")
    slow_clock_hz: float | None = Field(None, gt=0, description="rate of the slow clock, for networks with biases.")
    min_equal: float | None = Field(
        None, ge=0, le=1, description="fail (exit code 1) below this share of neurons with equal counts in any layer."
    )


@verb(CompareOptions, arguments=2)
def command(options: CompareOptions) -> dict[str, Any]:
    """Compare the spikes that a chip recorded with the emulator's, neuron by neuron, in every monitored layer."""
    deployment = nd.open(options.run)
    events, _, until_us = one_recording(options.events, options.index, deployment.program.input_shape)
    comparison = nd.compare_with_chip(
        deployment, read_recorded(options.recorded), events, slow_clock_hz=options.slow_clock_hz, until_us=until_us
    )
    table(
        f"{options.recorded}: {len(events)} events",
        ("layer", "chip spikes", "emulated", "sum abs diff", "largest", "at (c, y, x)", "neurons equal"),
        [
            (
                row.layer,
                row.chip_spikes,
                row.emulated_spikes,
                row.sum_abs_difference,
                row.max_abs_difference,
                row.worst or "none",
                f"{100 * row.equal_share:.2f} %",
            )
            for row in comparison.layers.values()
        ],
    )
    result = comparison.to_dict()
    if options.min_equal is not None and comparison.equal_share < options.min_equal:
        raise CheckFailed(
            f"{100 * comparison.equal_share:.2f} % of a layer's neurons fired as often as in the emulator; "
            f"--min-equal asks for {100 * options.min_equal:.2f} %.",
            remedy="see the table for the layer and the neuron; a silent or shifted layer is an error.",
            code="min-equal",
            result=result,
        )
    say("spike times are not compared: the kit's include the transfer")
    return result
