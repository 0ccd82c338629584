"""The configuration of a DynapCNN-family chip as plain data, with the vendor's field names on disk."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ProgramError
from neurodeploy.targets.dynapcnn.dvs import DvsLayer

Pair = tuple[int, int]
MapShape = tuple[int, int, int]

#: One spike of this many passes a decimator, by the number in its interval field (Datasheet V1.0; 64 is not there).
DECIMATION = (2, 4, 8, 16, 32, 128, 256, 512)


@dataclass(frozen=True)
class Destination:
    """Where a core's spikes go: ``(c + feature_shift, y // pooling, x // pooling)`` of core ``core``."""

    core: int
    pooling: int = 1
    feature_shift: int = 0


@dataclass(frozen=True)
class Entry:
    """A core that takes an input's events, with ``feature_shift`` added to their feature."""

    core: int
    feature_shift: int = 0


@dataclass(frozen=True)
class InputPort:
    """One input of the network.

    Attributes:
        name: of the input.
        shape: ``(C, H, W)`` of the events that the user gives.
        entries: the cores that take them. The host sends an event to each; or the pre-processing does, to at most two.
        dvs: the pre-processing that the events pass first, or None where the host writes to the cores.
    """

    name: str
    shape: MapShape
    entries: tuple[Entry, ...]
    dvs: DvsLayer | None = None


@dataclass(frozen=True)
class ReadoutProgram:
    """The readout block behind one core; names and values as in ``settings.ReadoutSettings``."""

    core: int
    threshold: int
    average_ticks: int
    output: str
    output_class: int
    monitor_enable: bool


@dataclass(frozen=True, eq=False)
class CoreProgram:
    """One configured core.

    Attributes:
        layer: name of the layer it holds, or holds a part of.
        core: number of the core on the chip.
        input_shape: ``(C, H, W)`` of the events it takes.
        output_shape: ``(F, H, W)`` of its neurons, before pooling.
        kernel_size: side of the square kernel.
        stride, padding: ``(y, x)``.
        weights: int8 ``[F, C, ky, kx]``.
        biases: int16 ``[F]``, added on every tick of the slow clock when ``leak_enable``.
        threshold_high, threshold_low: firing threshold and lower bound of the potential (int16).
        return_to_zero: a spike sets the potential to 0 (True) or subtracts the threshold (False).
        leak_enable: whether the slow clock adds the biases.
        monitor_enable: whether the core's spikes are copied to the host.
        neurons_initial_value: int16 ``[F, H, W]``, or None for all zero.
        destinations: at most two.
        first_feature: None when it holds the whole layer; else the feature of the layer that is its feature 0.
        feature_step: feature f of the layer is feature ``f * feature_step`` of the core; those between never fire.
        output_decimator_interval: one spike of ``DECIMATION[interval]`` leaves the core; None: the decimator is off.
    """

    layer: str
    core: int
    input_shape: MapShape
    output_shape: MapShape
    kernel_size: int
    stride: Pair
    padding: Pair
    weights: NDArray[np.int8]
    biases: NDArray[np.int16]
    threshold_high: int
    threshold_low: int
    return_to_zero: bool
    leak_enable: bool
    monitor_enable: bool
    destinations: tuple[Destination, ...]
    neurons_initial_value: NDArray[np.int16] | None = None
    first_feature: int | None = None
    feature_step: int = 1
    output_decimator_interval: int | None = None

    @property
    def name(self) -> str:
        """The layer's name, for a part with its features: ``conv2[0:32]``."""
        return self.layer if self.first_feature is None else part_name(self.layer, self.first_feature, self.features)

    @property
    def features(self) -> int:
        """Number of the layer's features that it holds."""
        return (self.output_shape[0] - 1) // self.feature_step + 1


def part_name(layer: str, first: int, features: int) -> str:
    """Name of the part of ``layer`` that begins with feature ``first`` and has ``features`` of them."""
    return f"{layer}[{first}:{first + features}]"


@dataclass(frozen=True, eq=False)
class DynapcnnProgram:
    """A whole chip configuration.

    Attributes:
        target: name of the chip.
        cores: the configured cores in network (topological) order; the parts of one layer follow each other, in the
            order of their features.
        entry_core: the core that takes the host's events, with ``p`` as the feature; the first one of several.
        ports: the inputs; empty for one input that goes straight into ``entry_core``.
        readout: the readout block, or None where it is not used.
    """

    target: str
    cores: tuple[CoreProgram, ...]
    entry_core: int
    ports: tuple[InputPort, ...] = ()
    readout: ReadoutProgram | None = None

    family: ClassVar[str] = "dynapcnn"

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in network order; a layer that is split over several cores is named once."""
        return tuple(dict.fromkeys(core.layer for core in self.cores))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what the cores hold, in network order: layers, and parts of layers such as ``conv2[0:32]``."""
        return tuple(core.name for core in self.cores)

    @property
    def loops(self) -> tuple[tuple[CoreProgram, Destination], ...]:
        """Cores that send to themselves or to an earlier core, and that destination: recurrent connections."""
        rank = {core.core: index for index, core in enumerate(self.cores)}
        return tuple(
            (core, end)
            for index, core in enumerate(self.cores)
            for end in core.destinations
            if rank.get(end.core, index + 1) <= index
        )

    def leads_to(self, core: int, other: int) -> bool:
        """Whether spikes of ``core`` reach ``other``, directly or through other cores; True for itself."""
        ends = {each.core: [end.core for end in each.destinations] for each in self.cores}
        seen, new = {core}, [core]
        while new:
            new = [end for end in ends.get(new.pop(), ()) if end not in seen] + new
            seen.update(new)
        return other in seen

    @property
    def inputs(self) -> tuple[InputPort, ...]:
        """Every input, in the order of their features in the user's events."""
        if self.ports:
            return self.ports
        shape = next(core.input_shape for core in self.cores if core.core == self.entry_core)
        return (InputPort("input", shape, (Entry(self.entry_core),)),)

    @property
    def input_shape(self) -> MapShape:
        """``(C, H, W)`` of the user's events.

        Several inputs share one stream: the features of the second begin where those of the first end, and the map is
        as large as the largest.
        """
        shapes = [port.shape for port in self.inputs]
        return sum(c for c, _, _ in shapes), max(h for _, h, _ in shapes), max(w for _, _, w in shapes)

    def layer_shape(self, layer: str) -> MapShape:
        """``(F, H, W)`` of a layer's neurons, all parts together.

        Raises:
            ProgramError: there is no such layer.
        """
        cores = [core for core in self.cores if core.layer == layer]
        if not cores:
            raise _unknown(layer, self.layers)
        return sum(core.features for core in cores), *cores[0].output_shape[1:]

    def configuration(self, part: str) -> CoreProgram:
        """The core that holds a layer or a part of one.

        Raises:
            ProgramError: there is no such part.
        """
        for core in self.cores:
            if core.name == part:
                return core
        raise _unknown(part, self.parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data with the field names of samna's configuration object; see ``README.md``."""
        data: dict[str, Any] = {
            "target": self.target,
            "entry_core": self.entry_core,
            "layers": [_place(core) for core in self.cores],
            "cnn_layers": {str(core.core): cnn_layer(core) for core in self.cores},
        }
        if self.ports:
            data["inputs"] = [input_port(port) for port in self.ports]
        if self.readout:
            data["readout"] = asdict(self.readout)
        return data


def _unknown(name: str, names: Iterable[str]) -> ProgramError:
    return ProgramError(
        f"there is no layer {name!r}.", remedy=f"the layers are: {', '.join(names)}.", code="unknown-layer"
    )


def _place(core: CoreProgram) -> dict[str, Any]:
    place: dict[str, Any] = {"name": core.layer, "core": core.core}
    if core.first_feature is not None:
        place["first_feature"] = core.first_feature
    if core.feature_step != 1:
        place["feature_step"] = core.feature_step
    return place


def input_port(port: InputPort) -> dict[str, Any]:
    """One input as JSON-ready data."""
    entries = [{"layer": entry.core, "feature_shift": entry.feature_shift} for entry in port.entries]
    data = {"name": port.name, "shape": _shape(port.shape), "entries": entries}
    return data if port.dvs is None else {**data, "dvs_layer": dvs_layer(port.dvs)}


def dvs_layer(dvs: DvsLayer) -> dict[str, Any]:
    """The pre-processing as JSON-ready data, with the vendor's names; the event filter is beside it there."""
    found = dvs.event_filter
    return {
        "pooling": _xy(dvs.pooling),
        "origin": _xy(dvs.origin),
        "cut": _xy(dvs.cut),
        "on_channel": dvs.on_channel,
        "off_channel": dvs.off_channel,
        "merge": dvs.merge,
        "mirror": {"x": dvs.mirror[1], "y": dvs.mirror[0]},
        "mirror_diagonal": dvs.mirror_diagonal,
        "pass_sensor_events": dvs.pass_sensor_events,
        "monitor_enable": dvs.monitor_enable,
        "raw_monitor_enable": dvs.raw_monitor_enable,
        "dvs_filter": None
        if found is None
        else {"mode": found.mode, "filter_size": _xy(found.size), "threshold": found.threshold},
    }


def cnn_layer(core: CoreProgram) -> dict[str, Any]:
    """One core as JSON-ready data, with the vendor's names and its order of axes."""
    interval = core.output_decimator_interval
    # Left out where it is off: not every chip of the family is known to have one.
    decimator = {} if interval is None else {"output_decimator_enable": True, "output_decimator_interval": interval}
    initial = core.neurons_initial_value
    unused = {"enable": False, "layer": 0, "pooling": 1, "feature_shift": 0}
    return {
        "dimensions": {
            "input_shape": _shape(core.input_shape),
            "output_shape": _shape(core.output_shape),
            "padding": _xy(core.padding),
            "stride": _xy(core.stride),
            "kernel_size": core.kernel_size,
        },
        # The chip's order is [out][in][x][y] and [feature][x][y].
        "weights": core.weights.transpose(0, 1, 3, 2).tolist(),
        "biases": core.biases.tolist(),
        "neurons_initial_value": None if initial is None else initial.transpose(0, 2, 1).tolist(),
        "threshold_high": core.threshold_high,
        "threshold_low": core.threshold_low,
        "return_to_zero": core.return_to_zero,
        "leak_enable": core.leak_enable,
        "monitor_enable": core.monitor_enable,
        "destinations": [
            {"enable": True, "layer": end.core, "pooling": end.pooling, "feature_shift": end.feature_shift}
            for end in core.destinations
        ]
        + [unused] * (2 - len(core.destinations)),
        **decimator,
    }


def _xy(pair: Pair) -> dict[str, int]:
    return {"x": pair[1], "y": pair[0]}


def _shape(shape: MapShape) -> dict[str, Any]:
    return {"feature_count": shape[0], "size": _xy(shape[1:])}
