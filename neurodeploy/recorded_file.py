"""Spikes recorded on a chip, as a file: the spikes, the names of their layers, and the program they are of."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray
from neurodeploy.events.dataset import read_npz, write_npz
from neurodeploy.target import SPIKE_DTYPE, SpikeArray


@dataclass(frozen=True, eq=False)
class Recorded:
    """Spikes of one recording, seen on a chip.

    Attributes:
        spikes: ``SPIKE_DTYPE``; ``layer`` indexes ``layers``.
        layers: names of all layers of the program, in network order.
        monitored: the layers whose spikes the host saw; a layer that is not among them is unknown, not silent.
        program_sha256: hash of the program that ran.
        events_sha256: hash of the recording it was given, see ``events_hash``.
    """

    spikes: SpikeArray
    layers: tuple[str, ...]
    monitored: tuple[str, ...]
    program_sha256: str
    events_sha256: str

    def counts(self, layer: str, shape: tuple[int, int, int]) -> NDArray[np.uint32]:
        """Spikes per neuron of ``layer``, ``(C, H, W)``.

        Raises:
            EventError: a spike lies outside ``shape``.
        """
        own = self.spikes[self.spikes["layer"] == self.layers.index(layer)]
        for name, size in zip("cyx", shape, strict=True):
            if own.size and int(own[name].max()) >= size:
                raise EventError(
                    f"layer {layer!r}: a recorded spike has {name} = {own[name].max()}, the layer's neurons are "
                    f"{name} = 0..{size - 1} (channels, height, width = {shape}).",
                    remedy="compare the recording with the program that ran.",
                    code="recorded-outside",
                )
        counts = np.zeros(shape, np.uint32)
        np.add.at(counts, (own["c"], own["y"], own["x"]), 1)
        return counts


def events_hash(events: EventArray) -> str:
    """SHA-256 of a recording's events (``EVENT_DTYPE``), in hexadecimal."""
    return hashlib.sha256(events.tobytes()).hexdigest()


def write_recorded(path: str | Path, recorded: Recorded) -> None:
    """Write ``recorded`` as .npz, all or nothing."""
    arrays = {
        "spikes": recorded.spikes,
        "layers": np.array(recorded.layers),
        "monitored": np.array(recorded.monitored, np.str_),
        "program_sha256": np.array(recorded.program_sha256),
        "events_sha256": np.array(recorded.events_sha256),
    }
    write_npz(path, arrays)


def read_recorded(path: str | Path) -> Recorded:
    """Read what ``write_recorded`` wrote.

    Raises:
        EventError: the file is missing or damaged, or its arrays are not those of recorded spikes.
    """
    arrays = read_npz(Path(path))
    hashes = ("program_sha256", "events_sha256")
    kinds = {"spikes": ("V", 1), "layers": ("U", 1), "monitored": ("U", 1), **dict.fromkeys(hashes, ("U", 0))}
    for name, (kind, axes) in kinds.items():
        if name not in arrays or arrays[name].dtype.kind != kind or arrays[name].ndim != axes:
            _refuse(path, f"{name} is {'missing' if name not in arrays else 'of another type'}")
    spikes = arrays["spikes"]
    layers, monitored = tuple(map(str, arrays["layers"])), tuple(map(str, arrays["monitored"]))
    if spikes.dtype != SPIKE_DTYPE:
        _refuse(path, f"spikes has the fields {spikes.dtype}")
    if not set(monitored) <= set(layers) or (spikes.size and int(spikes["layer"].max()) >= len(layers)):
        _refuse(path, "it has spikes or monitors of layers that it does not name")
    return Recorded(spikes, layers, monitored, *(str(arrays[name]) for name in hashes))


def _refuse(path: str | Path, problem: str) -> None:
    raise EventError(
        f"{path} does not hold recorded spikes: {problem}.",
        remedy="give the events_hw.npz that neurodeploy deploy wrote.",
        code="recorded-file",
    )
