"""Calibration: trims of single circuits that bring them back to what the program asks for, and their file."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError, ProgramError
from neurodeploy.files import read_json, write_json
from neurodeploy.targets.analog import philox
from neurodeploy.targets.analog.chip import LinearDac, LogNormal, Parameter, Trim
from neurodeploy.targets.analog.dac import finest_gear, setting, value_of
from neurodeploy.targets.analog.deviations import NUMBERS
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram

if TYPE_CHECKING:
    from neurodeploy.targets.analog.virtual_chip import VirtualChip

Floats = NDArray[np.float64]
Words = NDArray[np.int64]
Mode = Literal["residual", "search"]

#: Version of the file.
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Calibration:
    """The trims of one chip for one program's targets.

    Attributes:
        mode: "residual": the spreads of the parameters that have a trim are multiplied by their ``residual``;
            "search": ``words`` says what every circuit is told.
        chip: name of the chip. digest: of its description. serial: of the chip. scale: of its spreads.
        targets: SHA-256 of the sites and of what they are to have; weights do not count.
        seed: of the noise of the measurements.
        words: by layer and parameter, int64 ``[N, merged, 2]``; empty with "residual", or where nothing can be trimmed.
    """

    mode: Mode
    chip: str
    digest: str
    serial: int
    scale: float
    targets: str
    seed: int
    words: Mapping[str, Mapping[str, Words]]

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON.

        Raises:
            ConfigError: the file cannot be written.
        """
        write_json(path, {"schema": SCHEMA, **self.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """The calibration as JSON-ready data."""
        words = {layer: {name: row.tolist() for name, row in rows.items()} for layer, rows in self.words.items()}
        return {
            "mode": self.mode,
            "chip": self.chip,
            "digest": self.digest,
            "serial": self.serial,
            "scale": self.scale,
            "targets": self.targets,
            "seed": self.seed,
            "words": words,
        }

    def require(self, virtual_chip: "VirtualChip", program: AnalogProgram) -> None:
        """Check that this is the calibration of this chip for the targets of this program.

        Raises:
            ProgramError: it is of another chip, serial number or targets.
        """
        for what, own, other in (
            ("chip description", self.digest, virtual_chip.digest),
            ("serial number", self.serial, virtual_chip.serial),
            ("scale of the spreads", self.scale, virtual_chip.scale),
            ("set of circuits and targets", self.targets, targets_digest(program)),
        ):
            if own != other:
                raise ProgramError(
                    f"the calibration belongs to another {what}.",
                    remedy="calibrate this chip for this program.",
                    code="analog-calibration",
                )
        for layer, rows in self.words.items():
            shape = (*program.layer(layer).neuron_sites.shape, 2)
            for name, row in rows.items():
                parameter = getattr(virtual_chip.chip.parameters, name, None)
                if not parameter or parameter.trim is None or row.shape != shape:
                    raise ProgramError(
                        f"the calibration has words for {name} of {layer} that the program has no circuits for.",
                        remedy="calibrate this chip for this program.",
                        code="analog-calibration",
                    )


def read_calibration(path: str | Path) -> Calibration:
    """Read what :meth:`Calibration.save` wrote.

    Raises:
        ProgramError: the file cannot be read, or is no calibration of this version.
    """
    data = read_json(path)
    texts, numbers = ("mode", "chip", "digest", "targets"), ("schema", "serial", "seed")
    kinds = {**dict.fromkeys(texts, str), **dict.fromkeys(numbers, int), "scale": float}
    fits = sorted(data) == sorted([*kinds, "words"]) and all(type(data[name]) is kind for name, kind in kinds.items())
    if not fits or data["schema"] != SCHEMA or data["mode"] not in ("residual", "search"):
        _refuse_file(path)
    try:
        words = {
            layer: {name: _words(row) for name, row in rows.items()} for layer, rows in dict(data["words"]).items()
        }
    except (AttributeError, TypeError, ValueError):
        _refuse_file(path)
    del data["schema"]
    return Calibration(**{**data, "words": words})


def calibrate(
    virtual_chip: "VirtualChip", program: AnalogProgram, mode: Mode = "residual", seed: int = 0
) -> Calibration:
    """Calibrate the circuits of a program.

    "residual" takes the description's word for what calibration reaches. "search" does it: for every circuit and
    parameter a binary search over the converter's word, each step against one measurement with the description's noise,
    and a last choice between two neighbours; the finite word and the noise leave the rest. A chip without trims
    keeps its deviations, with a warning.

    Args:
        virtual_chip: the chip.
        program: whose circuits and values are the targets.
        mode: see above.
        seed: of the noise of the measurements, 0 to 2^63 - 1.

    Raises:
        ConfigError: the mode or the seed is not valid.
        ProgramError: the program is for another chip.
        QuantizeError: a target is outside its parameter's range.
    """
    if mode not in ("residual", "search"):
        raise ConfigError(f"mode is {mode!r}.", remedy="choose 'residual' or 'search'.", code="analog-calibration-mode")
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed is {seed}.", remedy="choose one from 0 to 2^63 - 1.", code="analog-seed")
    chip = virtual_chip.chip
    virtual_chip.require(program)
    words: dict[str, dict[str, Words]] = {}
    if not chip.calibratable:
        warnings.warn(
            f"{chip.name} has no parameter that can be set circuit by circuit: calibration changes nothing.",
            stacklevel=2,
        )
    elif mode == "search":
        words = {layer.name: _search_layer(virtual_chip, program, layer, seed) for layer in program.layers}
    return Calibration(
        mode=mode,
        chip=chip.name,
        digest=virtual_chip.digest,
        serial=virtual_chip.serial,
        scale=virtual_chip.scale,
        targets=targets_digest(program),
        seed=seed,
        words=words,
    )


def targets_of(layer: AnalogLayer, acceleration: float) -> dict[str, Floats]:
    """What the circuits of a layer are to have, by parameter, float64 ``[N]``, in its unit; gains are relative."""
    nominal = layer.nominal
    return {
        "tau_mem": nominal.tau_mem / acceleration,
        "tau_syn_exc": nominal.tau_syn_exc / acceleration,
        "tau_syn_inh": nominal.tau_syn_inh / acceleration,
        "threshold": layer.rest + layer.potential_unit * nominal.threshold,
        "leak": np.full(layer.neurons, layer.rest),
        "reset": layer.rest + layer.potential_unit * nominal.v_reset,
        "gain_exc": np.ones(layer.neurons),
        "gain_inh": np.ones(layer.neurons),
    }


def targets_digest(program: AnalogProgram) -> str:
    """SHA-256 (hexadecimal) of the circuits of a program and of what they are to have; weights do not count."""
    found = hashlib.sha256()
    for layer in program.layers:
        found.update(f"{layer.name} {layer.neuron_sites.shape}".encode())
        found.update(layer.neuron_sites.astype("<i8").tobytes())
        for name, row in targets_of(layer, program.acceleration).items():
            found.update(name.encode())
            found.update(row.astype("<f8").tobytes())
    return found.hexdigest()


def _search_layer(
    virtual_chip: "VirtualChip", program: AnalogProgram, layer: AnalogLayer, seed: int
) -> dict[str, Words]:
    found = {}
    for name, target in targets_of(layer, program.acceleration).items():
        parameter: Parameter | None = getattr(virtual_chip.chip.parameters, name)
        if parameter is not None and parameter.trim is not None and isinstance(parameter.dac, LinearDac):
            measure = _Measurement(virtual_chip, name, parameter, parameter.trim, layer.neuron_sites, seed)
            requested = np.broadcast_to(target[:, None], layer.neuron_sites.shape)
            setting(virtual_chip.chip, name, target, allow_error=True)  # refuses what is outside the range
            found[name] = _search(parameter.dac, requested, finest_gear(parameter.dac, requested), measure)
    return found


class _Measurement:
    """Noisy measurements of a parameter of circuits, one after the other."""

    def __init__(
        self, virtual_chip: "VirtualChip", name: str, parameter: Parameter, trim: Trim, sites: Words, seed: int
    ) -> None:
        self.dac, self.noise, self.relative = parameter.dac, trim.noise.value, isinstance(parameter.spread, LogNormal)
        self.virtual_chip, self.name, self.sites = virtual_chip, name, sites
        numbers = np.ascontiguousarray(sites).reshape(-1).astype(np.uint64)
        self.counters = np.zeros((sites.size, 4), np.uint32)  # site, low and high word; parameter; measurement
        self.counters[:, 0], self.counters[:, 1] = numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)
        self.counters[:, 2] = NUMBERS[name]
        digest = hashlib.sha256(f"measurement {virtual_chip.key} {seed}".encode()).digest()
        self.key = int.from_bytes(digest[:8], "little")

    def __call__(self, words: Words) -> Floats:
        value = self.virtual_chip.of_circuits(self.name, self.sites, value_of(self.dac, words))
        error = self.noise * philox.normal(self.key, self.counters).reshape(self.sites.shape)
        self.counters[:, 3] += 1
        return value * (1.0 + error) if self.relative else value + error


def _search(dac: LinearDac, target: Floats, gears: Words, measure: _Measurement) -> Words:
    """The words, int64 ``[N, merged, 2]``, that a binary search with these measurements ends at."""
    code = np.zeros_like(gears)
    for bit in reversed(range(dac.top.value.bit_length())):
        tried = code | (1 << bit)
        measured = measure(_word(np.minimum(tried, dac.top.value), gears))
        short = measured >= target if dac.law == "inverse" else measured <= target
        code = np.where(short & (tried <= dac.top.value), tried, code)
    lower = _word(np.maximum(code, 1 if dac.law == "inverse" else 0), gears)
    upper = _word(np.minimum(lower[..., 0] + 1, dac.top.value), gears)
    nearer = np.abs(measure(upper) - target) < np.abs(measure(lower) - target)
    return np.where(nearer[..., None], upper, lower)


def _word(code: Words, gears: Words) -> Words:
    return np.stack([code, gears], axis=-1)


def _words(row: Any) -> Words:
    found = np.array(row)
    if found.dtype.kind != "i" or found.ndim != 3 or found.shape[2] != 2:
        raise ValueError
    return found.astype(np.int64)


def _refuse_file(path: str | Path) -> None:
    raise ProgramError(
        f"{path} is not a calibration of version {SCHEMA}.",
        remedy="calibrate the chip again.",
        code="analog-calibration",
    )
