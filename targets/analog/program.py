"""A configured analog chip as plain data: what its circuits are told, and what they compute if they were perfect."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ProgramError
from neurodeploy.targets.analog.parameters import LayerParameters

#: The name of the source of a layer that takes the host's spikes.
INPUT = "input"


@dataclass(frozen=True, eq=False)
class AnalogLayer:
    """One layer of neurons on a chip.

    Attributes:
        name: of the layer.
        source: :data:`INPUT`, or the layer whose spikes it takes.
        max_spikes: spikes of a neuron that are kept, in one run.
        nominal: what its circuits compute without mismatch: weights and constants as their codes give them.
        neuron_sites: int64 ``[N, merged]``, the circuits that form a neuron; the first is the one that fires.
        synapse_sites: int64 ``[inputs, N]``, the synapse circuit of each connection; -1 where there is none.
        cores: int32 ``[N]``, the core of each neuron.
        rest: the rest in the chip's unit of potentials (lsb, ampere): its leak potential.
        potential_unit: what one unit of the network's potential is in the chip's, > 0.
    """

    name: str
    source: str
    max_spikes: int
    nominal: LayerParameters
    neuron_sites: NDArray[np.int64]
    synapse_sites: NDArray[np.int64]
    cores: NDArray[np.int32]
    rest: float = 0.0
    potential_unit: float = 1.0

    def __post_init__(self) -> None:
        shape = self.nominal.weight.shape
        sites = self.neuron_sites
        if sites.ndim != 2 or sites.shape[0] != shape[1] or not sites.shape[1] or sites.dtype != np.int64:
            _refuse(self.name, "neuron_sites", f"int64 [{shape[1]}, merged]")
        if self.synapse_sites.shape != shape or self.synapse_sites.dtype != np.int64:
            _refuse(self.name, "synapse_sites", f"int64 {list(shape)}")
        if self.cores.shape != shape[1:] or self.cores.dtype != np.int32:
            _refuse(self.name, "cores", f"int32 [{shape[1]}]")
        if self.max_spikes < 1:
            _refuse(self.name, "max_spikes", "at least 1")
        if not (isfinite(self.rest) and isfinite(self.potential_unit) and self.potential_unit > 0):
            _refuse(self.name, "rest and potential_unit", "finite, and finite and above 0")
        if bool((self.nominal.weight[self.synapse_sites < 0] != 0).any()):
            _refuse(self.name, "synapse_sites", "the circuit of every weight that is not 0")

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.nominal.neurons


@dataclass(frozen=True, eq=False)
class AnalogProgram:
    """A feed-forward network on an analog chip; all times are in seconds of the network.

    Attributes:
        target: name of the chip.
        inputs: channels of the host's spikes.
        layers: in network order.
        t_max: length of a run.
        acceleration: how many times faster the chip runs than the network's time; 1000 makes ms of it us.
        timestamp_lsb_s: grid of the times of spikes that enter and leave the chip; 0: none.
        configuration: the digital words of the chip, by its own names (JSON-ready); see the chip's module.
    """

    target: str
    inputs: int
    layers: tuple[AnalogLayer, ...]
    t_max: float
    acceleration: float
    timestamp_lsb_s: float
    configuration: Mapping[str, Any]

    family = "analog"

    def __post_init__(self) -> None:
        widths = {INPUT: self.inputs}
        for layer in self.layers:
            if layer.name in widths:
                _refuse(layer.name, "name", "used once, and not 'input'")
            if widths.get(layer.source) != layer.nominal.inputs:
                _refuse(layer.name, "source", f"'input' or an earlier layer of {layer.nominal.inputs} neurons")
            widths[layer.name] = layer.neurons
        if not self.layers:
            _refuse("program", "layers", "at least one")
        if not (self.t_max > 0 and self.acceleration > 0 and isfinite(self.acceleration) and self.timestamp_lsb_s >= 0):
            _refuse("program", "t_max, acceleration and timestamp_lsb_s", "above 0, above 0 and finite, at least 0")

    def layer(self, name: str) -> AnalogLayer:
        """The layer called ``name``.

        Raises:
            ProgramError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ProgramError(
            f"the program has no layer {name!r}.",
            remedy=f"choose one of: {', '.join(layer.name for layer in self.layers)}.",
            code="unknown-layer",
        )

    def to_dict(self) -> dict[str, Any]:
        """The program as JSON-ready data, without header and hash; ``None`` stands for an endless time."""
        return {
            "target": self.target,
            "inputs": self.inputs,
            "t_max": None if self.t_max == inf else self.t_max,
            "acceleration": self.acceleration,
            "timestamp_lsb_s": self.timestamp_lsb_s,
            "layers": [
                {
                    "name": layer.name,
                    "source": layer.source,
                    "max_spikes": layer.max_spikes,
                    "nominal": {part.name: _plain(getattr(layer.nominal, part.name)) for part in fields(layer.nominal)},
                    "neuron_sites": layer.neuron_sites.tolist(),
                    "synapse_sites": layer.synapse_sites.tolist(),
                    "cores": layer.cores.tolist(),
                    "rest": layer.rest,
                    "potential_unit": layer.potential_unit,
                }
                for layer in self.layers
            ],
            "configuration": dict(self.configuration),
        }


def program_of_dict(data: Mapping[str, Any]) -> AnalogProgram:
    """The program that ``AnalogProgram.to_dict`` described.

    Raises:
        ProgramError: a field is missing, unknown, of the wrong type or shape, or out of range.
    """
    _fields("program", data, [part.name for part in fields(AnalogProgram)])
    layers = []
    if not isinstance(data["layers"], list):
        _refuse("program", "layers", "a list")
    for entry in data["layers"]:
        _fields("layer", entry, [part.name for part in fields(AnalogLayer)])
        name = str(entry["name"])
        _fields(name, entry["nominal"], [part.name for part in fields(LayerParameters)])
        nominal = {key: _array(name, key, value, np.float64) for key, value in entry["nominal"].items()}
        layers.append(
            AnalogLayer(
                name,
                str(entry["source"]),
                _number(name, "max_spikes", entry["max_spikes"], int),
                LayerParameters(**nominal),
                _array(name, "neuron_sites", entry["neuron_sites"], np.int64),
                _array(name, "synapse_sites", entry["synapse_sites"], np.int64),
                _array(name, "cores", entry["cores"], np.int32),
                float(_number(name, "rest", entry["rest"], float)),
                float(_number(name, "potential_unit", entry["potential_unit"], float)),
            )
        )
    if not isinstance(data["configuration"], dict):
        _refuse("program", "configuration", "fields")
    return AnalogProgram(
        str(data["target"]),
        _number("program", "inputs", data["inputs"], int),
        tuple(layers),
        inf if data["t_max"] is None else float(_number("program", "t_max", data["t_max"], float)),
        float(_number("program", "acceleration", data["acceleration"], float)),
        float(_number("program", "timestamp_lsb_s", data["timestamp_lsb_s"], float)),
        data["configuration"],
    )


def _plain(values: NDArray[np.float64]) -> list[Any]:
    return np.where(np.isinf(values), None, values.astype(object)).tolist()  # type: ignore[call-overload, no-any-return]


def _fields(place: str, data: object, names: list[str]) -> None:
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        _refuse(place, "fields", f"exactly {', '.join(names)}")


def _number(place: str, name: str, value: object, kind: type[int] | type[float]) -> Any:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        _refuse(place, name, "a whole number" if kind is int else "a number")
    return value


def _array(place: str, name: str, value: object, dtype: Any) -> NDArray[Any]:
    try:
        if dtype is not np.float64:
            found = np.array(value)
            if found.dtype.kind != "i" and found.size:
                raise ValueError
            return found.astype(dtype)
        items = np.array(value, dtype=object)
        return np.where(items == None, inf, items).astype(np.float64)  # noqa: E711  (element by element)
    except (ValueError, TypeError, OverflowError):
        _refuse(place, name, "numbers in rows of one length")
        raise  # not reached


def _refuse(place: str, name: str, rule: str) -> None:
    raise ProgramError(
        f"{place}: {name} must be {rule}.",
        remedy="compile the network again; a program is not meant to be edited.",
        code="analog-program",
    )
