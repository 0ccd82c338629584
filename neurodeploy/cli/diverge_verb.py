"""``neurodeploy diverge``."""

from pathlib import Path
from typing import Any

from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.output import say
from neurodeploy.cli.recordings import RecordingOptions, one_recording
from neurodeploy.cli.verb import verb
from neurodeploy.deployment import open_deployment
from neurodeploy.errors import ConfigError
from neurodeploy.events.dataset import read_npz
from neurodeploy.target import SpikeArray
from neurodeploy.validation.divergence import ComparedRun


class DivergeOptions(RecordingOptions):
    """Options of ``neurodeploy diverge``."""

    a: ComparedRun = Field("float", description="the first run.")
    b: ComparedRun = Field("event_driven", description="the second run.")
    dt_us: int = Field(1000, gt=0, description="length of a time step, in microseconds.")
    recorded: Path | None = Field(
        None,
        description="spikes of a chip: .npz with the array 'spikes', as deploy and emulate -o write.",
    )
    tolerance_us: int = Field(
        0, ge=0, description="spikes of event_driven and recorded this far apart count as the same."
    )


@verb(DivergeOptions)
def command(options: DivergeOptions) -> dict[str, Any]:
    """Find the first neuron and time at which two runs of a recording differ, and the cause."""
    deployment = open_deployment(options.run)
    events, *_ = one_recording(options.events, options.index, deployment.program.input_shape)
    recorded, monitored = (None, None) if options.recorded is None else _recorded(options.recorded)
    found = nd.first_divergence(
        deployment,
        events,
        options.a,
        options.b,
        dt_us=options.dt_us,
        recorded=recorded,
        recorded_layers=monitored,
        tolerance_us=options.tolerance_us,
        slow_clock_hz=options.slow_clock_hz,
    )
    say(f"{options.a} and {options.b} do the same." if found is None else str(found))
    return {"divergence": None if found is None else found.to_dict()}


def _recorded(path: Path) -> tuple[SpikeArray, list[str] | None]:
    """The chip's spikes, and the monitored layers where the file names them: a silent one is a difference too."""
    arrays = read_npz(path)
    if "spikes" not in arrays:
        raise ConfigError(
            f"{path}: holds no array 'spikes' (found: {', '.join(sorted(arrays)) or 'none'}).",
            remedy="write a structured array with the fields layer, t, c, y, x under that name.",
            code="recorded-file",
        )
    monitored = arrays.get("monitored")
    return arrays["spikes"], None if monitored is None else [str(name) for name in monitored]
