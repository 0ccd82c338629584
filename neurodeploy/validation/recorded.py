"""What a chip recorded beside what the emulator says: spikes per neuron of every monitored layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.errors import ValidationError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.program_file import program_hash
from neurodeploy.recorded_file import Recorded, events_hash


@dataclass(frozen=True)
class LayerComparison:
    """Spike counts of one layer.

    Attributes:
        layer: its name.
        chip_spikes, emulated_spikes: totals.
        sum_abs_difference, max_abs_difference: over the neurons.
        neurons, equal_neurons: how many there are, and how many fired equally often.
        worst: the neuron with the largest difference, ``(c, y, x)``; None where all are equal.
    """

    layer: str
    chip_spikes: int
    emulated_spikes: int
    sum_abs_difference: int
    max_abs_difference: int
    neurons: int
    equal_neurons: int
    worst: tuple[int, int, int] | None

    @property
    def equal_share(self) -> float:
        """Share of neurons with equal counts, 0..1."""
        return self.equal_neurons / self.neurons


@dataclass(frozen=True, eq=False)
class ChipComparison:
    """Chip against emulator for one recording.

    Attributes:
        layers: layer name -> its counts compared, in network order; only layers that were recorded.
        differences: layer name -> chip minus emulator per neuron, int64 ``(C, H, W)``.
    """

    layers: Mapping[str, LayerComparison]
    differences: Mapping[str, NDArray[np.int64]]

    @property
    def equal_share(self) -> float:
        """Smallest share of neurons with equal counts among the layers."""
        return min(row.equal_share for row in self.layers.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, without the neurons."""
        rows = {name: {**asdict(row), "equal_share": row.equal_share} for name, row in self.layers.items()}
        return {"layers": rows, "equal_share": self.equal_share}


def compare_with_chip(
    deployment: Deployment,
    recorded: Recorded | Mapping[str, ArrayLike],
    events: EventArray | Any,
    *,
    slow_clock_hz: float | None = None,
    until_us: int | None = None,
    switches: Mapping[str, Any] | None = None,
) -> ChipComparison:
    """Emulate the recording that a chip was given, and compare the spike counts.

    Args:
        deployment: what ran on the chip.
        recorded: what the chip sent, or layer name -> spikes per neuron ``(C, H, W)``. Spike times are not compared:
            the kit's include the transfer.
        events: the recording.
        slow_clock_hz, until_us, switches: see ``Deployment.emulate``.

    Raises:
        ValidationError: another program ran or another recording was given, nothing was recorded, or counts of another
            shape or of an unknown layer.
        EventError, EmulationError: see ``Deployment.emulate``; or a spike lies outside its layer.
    """
    events = as_events(events, sensor_size=deployment.program.input_shape)
    if isinstance(recorded, Recorded) and recorded.events_sha256 != events_hash(events):
        raise ValidationError(
            "the chip was given another recording than this one: their hashes differ.",
            remedy="give the recording that was deployed, with the same --index of a data set.",
            code="recorded-events",
        )
    counts = _counts(deployment, recorded)
    run = deployment.emulate(events, record=(), switches=switches, slow_clock_hz=slow_clock_hz, until_us=until_us)
    rows, differences = {}, {}
    for layer, chip in counts.items():
        emulated = run.counts(layer).astype(np.int64)
        difference = chip - emulated
        size = np.abs(difference)
        place = np.unravel_index(int(size.argmax()), size.shape)
        differences[layer] = difference
        rows[layer] = LayerComparison(
            layer=layer,
            chip_spikes=int(chip.sum()),
            emulated_spikes=int(emulated.sum()),
            sum_abs_difference=int(size.sum()),
            max_abs_difference=int(size.max()),
            neurons=size.size,
            equal_neurons=int((size == 0).sum()),
            worst=(int(place[0]), int(place[1]), int(place[2])) if size.any() else None,
        )
    return ChipComparison(rows, differences)


def _counts(deployment: Deployment, recorded: Recorded | Mapping[str, ArrayLike]) -> dict[str, NDArray[np.int64]]:
    program = deployment.program
    if isinstance(recorded, Recorded):
        if recorded.program_sha256 != program_hash(program):
            raise ValidationError(
                f"the recorded spikes are of another program ({recorded.program_sha256[:12]}) than the one in this run "
                f"folder ({program_hash(program)[:12]}).",
                remedy="compare them with the run folder that was deployed, or deploy this one.",
                code="recorded-program",
            )
        given = {name: recorded.counts(name, program.layer_shape(name)) for name in recorded.monitored}
    else:
        given = {name: np.asarray(counts) for name, counts in recorded.items()}
    if not given:
        raise ValidationError(
            "the chip recorded no layer.",
            remedy="compile with monitor_layers=[...], so that the host sees spikes.",
            code="recorded-nothing",
        )
    for name, counts in given.items():
        if name not in program.layers or counts.shape != program.layer_shape(name):
            found = f"shape {counts.shape}" if name in program.layers else "no such layer"
            shapes = ", ".join(f"{layer} {program.layer_shape(layer)}" for layer in program.layers)
            raise ValidationError(
                f"recorded counts of {name!r}: {found} in this program.",
                remedy=f"the layers are: {shapes}.",
                code="recorded-shape",
            )
    return {name: given[name].astype(np.int64) for name in program.layers if name in given}
