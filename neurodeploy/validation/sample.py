"""One recording with every layer's spikes, kept for pictures."""

from pathlib import Path

import numpy as np

from neurodeploy.deployment import Deployment
from neurodeploy.events.dataset import EventDataset, write_npz
from neurodeploy.program_file import program_hash


def write_sample(
    folder: str | Path,
    deployment: Deployment,
    dataset: EventDataset,
    *,
    index: int = 0,
    slow_clock_hz: float | None = None,
) -> None:
    """Emulate recording ``index`` and write its events and the spikes of all layers to ``folder/sample.npz``.

    Keys: ``t, x, y, p`` of the recording; ``layer, spike_t, c, spike_y, spike_x``; ``layers`` (names), ``shapes``
    ``[layers, 3]``, ``input_shape``, ``index``, ``label``, ``answer``, ``duration_us``, ``program_sha256``.
    """
    events, label = dataset[index]
    run = deployment.emulate(events, slow_clock_hz=slow_clock_hz, until_us=dataset.duration_us)
    program = deployment.program
    write_npz(
        Path(folder) / "sample.npz",
        {
            **{name: events[name] for name in ("t", "x", "y", "p")},
            "layer": run.spikes["layer"],
            "spike_t": run.spikes["t"],
            "c": run.spikes["c"],
            "spike_y": run.spikes["y"],
            "spike_x": run.spikes["x"],
            "layers": np.array(program.layers),
            "shapes": np.array([program.layer_shape(layer) for layer in program.layers]),
            "input_shape": np.array(program.input_shape),
            "index": np.array(index),
            "label": np.array(label),
            "answer": np.array(run.prediction),
            "duration_us": np.array(dataset.duration_us),
            "program_sha256": np.array(program_hash(program)),
        },
    )
