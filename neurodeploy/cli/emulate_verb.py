"""``neurodeploy emulate``."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.output import say, table
from neurodeploy.cli.recordings import RecordingOptions, one_recording
from neurodeploy.cli.verb import verb
from neurodeploy.events.dataset import write_npz


class EmulateOptions(RecordingOptions):
    """Options of ``neurodeploy emulate``."""

    out: Path | None = Field(
        None, description="write the spikes of all layers to this .npz.", json_schema_extra={"short": "-o"}
    )


@verb(EmulateOptions)
def command(options: EmulateOptions) -> dict[str, Any]:
    """Run one recording through the bit-accurate event-driven emulator."""
    deployment = nd.open(options.run)
    events, label, until_us = one_recording(options.events, options.index, deployment.program.input_shape)
    result = deployment.emulate(events, slow_clock_hz=options.slow_clock_hz, until_us=until_us)
    stats = result.stats
    table(
        f"{options.events}: {len(events)} events",
        ("layer", "events in", "SynOps", "spikes", "dropped"),
        [(name, c["events"], c["synops"], c["spikes"], c["dropped"]) for name, c in stats["layers"].items()],
    )
    answer = f"most spikes: class {result.prediction}"
    say(answer if label is None else f"{answer} (label: {label})")
    if options.out is not None:
        write_npz(
            options.out.with_suffix(".npz"), {"spikes": result.spikes, "layers": np.array(deployment.program.layers)}
        )
        say(f"wrote {options.out.with_suffix('.npz')}")
    return {
        "events": len(events),
        "label": label,
        "prediction": result.prediction,
        "output_counts": result.output_counts.tolist(),
        "stats": stats,
    }
