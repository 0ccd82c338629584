"""The spiking network in time steps on encoded images: spikes so far, as time goes on."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from neurodeploy.conversion.images import EncodedImages
from neurodeploy.events.raster import events_to_raster
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Neuron
from neurodeploy.graph.torch_writer import to_torch

_BATCH = 8

#: Called with (images done, images in all).
Progress = Callable[[int, int], None]


def simulate(
    graph: Graph,
    recordings: EncodedImages,
    steps: Sequence[int],
    *,
    progress: Progress = lambda done, total: None,
) -> dict[str, NDArray[np.float32]]:
    """Run every image for ``max(steps)`` time steps.

    Returns:
        Neuron node -> spikes so far after each of ``steps``, float32 ``[steps, images, ...]``.
    """
    network = to_torch(graph)
    counts: dict[str, list[NDArray[np.float32]]] = {
        name: [] for name, node in graph.nodes.items() if isinstance(node, Neuron)
    }
    looks = np.asarray(steps) - 1
    with torch.inference_mode():
        for first in range(0, len(recordings), _BATCH):
            indices = range(first, min(first + _BATCH, len(recordings)))
            rasters = [
                events_to_raster(
                    recordings[i][0],
                    dt_us=recordings.coding.dt_us,
                    n_time_steps=max(steps),
                    sensor_size=recordings.images.shape,
                )
                for i in indices
            ]
            for name, spikes in network.record(torch.from_numpy(np.stack(rasters).astype(np.float32))).items():
                counts[name].append(spikes.cumsum(1)[:, looks].transpose(0, 1).numpy())
            progress(indices[-1] + 1, len(recordings))
    return {name: np.concatenate(parts, axis=1) for name, parts in counts.items()}
