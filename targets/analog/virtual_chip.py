"""One chip out of many: the same description, circuits of its own."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError, ProgramError
from neurodeploy.targets.analog.calibration import Calibration, targets_of
from neurodeploy.targets.analog.chip import AnalogChip, Normal, Parameter
from neurodeploy.targets.analog.dac import value_of
from neurodeploy.targets.analog.deviations import chip_key, deviation
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram

Floats = NDArray[np.float64]

#: A neuron whose threshold would be below this share of the nominal one, and that would fire without input, gets it.
LOWEST_THRESHOLD = 0.01


@dataclass(frozen=True, eq=False)
class LayerDeviations:
    """What the neurons of a layer differ by from the program; float64, factors unless they are called shifts.

    Attributes:
        weight: ``[inputs, N]``, of single synapses. gain_exc, gain_inh: ``[N]``, of all that meet at one receptor.
        tau_mem, tau_syn_exc, tau_syn_inh, t_ref, threshold: ``[N]``.
        threshold_shift, reset_shift: ``[N]``, in the network's unit of potentials, after the factor.
    """

    weight: Floats
    gain_exc: Floats
    gain_inh: Floats
    tau_mem: Floats
    tau_syn_exc: Floats
    tau_syn_inh: Floats
    t_ref: Floats
    threshold: Floats
    threshold_shift: Floats
    reset_shift: Floats

    def apply(self, nominal: LayerParameters) -> LayerParameters:
        """The layer as these circuits compute it.

        A threshold below ``LOWEST_THRESHOLD`` of the nominal one is raised to it, and a reset to above the threshold
        is lowered to just below it: such neurons fire all the time, with or without input.
        """
        threshold = nominal.threshold * self.threshold + self.threshold_shift
        threshold = np.maximum(threshold, LOWEST_THRESHOLD * nominal.threshold)
        highest = threshold - 0.5 * LOWEST_THRESHOLD * nominal.threshold
        return LayerParameters(
            weight=nominal.weight * self.weight * np.where(nominal.weight > 0, self.gain_exc, self.gain_inh),
            tau_mem=nominal.tau_mem * self.tau_mem,
            tau_syn_exc=nominal.tau_syn_exc * self.tau_syn_exc,
            tau_syn_inh=nominal.tau_syn_inh * self.tau_syn_inh,
            threshold=threshold,
            v_reset=np.minimum(nominal.v_reset + self.reset_shift, highest),
            t_ref=nominal.t_ref * self.t_ref,
        )


class VirtualChip:
    """The chip with a serial number: every circuit has deviations of its own, the same on every machine.

    They belong to physical sites: the same network placed elsewhere meets other circuits.

    Args:
        chip: the description.
        serial: 0 to 2^63 - 1.
        scale: factor of all spreads, at least 0: 0.5 halves them on the same circuits.
        temperature_c: of the run; ``None``: that of the description.

    Raises:
        ConfigError: an argument is outside its range, or a temperature is given for a chip that has no coefficient.
    """

    def __init__(
        self, chip: AnalogChip, serial: int, *, scale: float = 1.0, temperature_c: float | None = None
    ) -> None:
        if not 0 <= serial < 1 << 63:
            raise ConfigError(f"serial is {serial}.", remedy="choose one from 0 to 2^63 - 1.", code="analog-serial")
        if not 0 <= scale < float("inf"):
            raise ConfigError(f"scale is {scale}.", remedy="choose one of at least 0.", code="analog-scale")
        environment = chip.environment
        coefficients = environment.tau_tempco.value, environment.gain_tempco.value
        if temperature_c is not None and coefficients == (0, 0):
            raise ConfigError(
                f"{chip.name} has no temperature coefficient: a temperature would change nothing.",
                remedy="set environment.tau_tempco or gain_tempco in a chip.yaml of your own.",
                code="analog-temperature",
            )
        self.chip = chip
        self.serial = int(serial)
        self.scale = float(scale)
        self.temperature_c = environment.temperature_c.value if temperature_c is None else temperature_c
        above = self.temperature_c - environment.reference_c.value
        tau, gain = (1.0 + coefficient * above for coefficient in coefficients)
        if min(tau, gain) <= 0:
            raise ConfigError(
                f"at {self.temperature_c:g} degrees the time constants or gains of {chip.name} would not be positive.",
                remedy="choose a temperature closer to the reference.",
                code="analog-temperature",
            )
        self._temperature_factors = {
            **dict.fromkeys(("tau_mem", "tau_syn_exc", "tau_syn_inh"), tau),
            **dict.fromkeys(("gain_exc", "gain_inh"), gain),
        }
        self.key = chip_key(chip, self.serial)

    @cached_property
    def digest(self) -> str:
        """The digest of the description."""
        return self.chip.digest

    def realise(self, program: AnalogProgram, calibration: Calibration | None = None) -> tuple[LayerParameters, ...]:
        """What the layers of a program compute on this chip.

        Raises:
            ProgramError: the program is for another chip, or the calibration is of another chip or program.
        """
        found = self.deviations(program, calibration)
        return tuple(one.apply(layer.nominal) for one, layer in zip(found, program.layers, strict=True))

    def deviations(self, program: AnalogProgram, calibration: Calibration | None = None) -> tuple[LayerDeviations, ...]:
        """The deviations of each layer: they depend on the placement, not on the weights.

        Raises:
            ProgramError: as ``realise``.
        """
        self.require(program)
        if calibration is not None:
            calibration.require(self, program)
        return tuple(self._layer(layer, program.acceleration, calibration) for layer in program.layers)

    def describe(self, program: AnalogProgram, calibration: Calibration | None = None) -> dict[str, Any]:
        """The spread that was drawn, JSON-ready: mean, sd, least and largest deviation of each quantity and layer.

        Raises:
            ProgramError: as ``realise``.
        """
        layers = []
        for found, layer in zip(self.deviations(program, calibration), program.layers, strict=True):
            spreads = {
                name: row[layer.synapse_sites >= 0] if name == "weight" else row for name, row in vars(found).items()
            }
            threshold = layer.nominal.threshold * found.threshold + found.threshold_shift
            layers.append(
                {
                    "layer": layer.name,
                    "spread": {name: _spread(row) for name, row in spreads.items() if row.size},
                    "firing_without_input": int((threshold < LOWEST_THRESHOLD * layer.nominal.threshold).sum()),
                }
            )
        return {
            "chip": self.chip.name,
            "digest": self.digest,
            "serial": self.serial,
            "scale": self.scale,
            "temperature_c": self.temperature_c,
            "calibration": None if calibration is None else calibration.mode,
            "layers": layers,
            "assumptions": self.chip.assumptions(),
        }

    def of_circuits(self, name: str, sites: NDArray[np.int64], value: Floats, residual: float = 1.0) -> Floats:
        """What circuits do when they are told ``value`` of a parameter, in its unit.

        Args:
            name: of the parameter.
            sites: int64, circuits.
            value: float64, of their shape.
            residual: factor of the spread.
        """
        parameter: Parameter | None = getattr(self.chip.parameters, name)
        spread = None if parameter is None else parameter.spread
        found = deviation(spread, self.key, name, sites, self.scale * residual)
        value = value + found if isinstance(spread, Normal) else value * found
        return value * self._temperature_factors.get(name, 1.0)

    def require(self, program: AnalogProgram) -> None:
        """Check that the program is for this kind of chip.

        Raises:
            ProgramError: it is for another.
        """
        if program.target != self.chip.name:
            raise ProgramError(
                f"the program is for {program.target!r}, the virtual chip is {self.chip.name!r}.",
                remedy="compile the network for this chip, or make a virtual chip of the program's target.",
                code="analog-target",
            )

    def _layer(self, layer: AnalogLayer, acceleration: float, calibration: Calibration | None) -> LayerDeviations:
        targets, sites = targets_of(layer, acceleration), layer.neuron_sites
        words = {} if calibration is None else calibration.words.get(layer.name, {})

        def circuits(name: str) -> Floats:
            """The values of the circuits, [N, merged], in the parameter's unit."""
            parameter = getattr(self.chip.parameters, name)
            if name in words:
                return self.of_circuits(name, sites, value_of(parameter.dac, words[name]))
            trim = parameter.trim if parameter is not None and calibration and calibration.mode == "residual" else None
            residual = trim.residual.value if trim is not None else 1.0
            return self.of_circuits(name, sites, np.broadcast_to(targets[name][:, None], sites.shape), residual)

        def factor(name: str) -> Floats:
            return circuits(name) / targets[name][:, None]

        conductance = 1.0 / factor("tau_mem")
        rest_shift = ((circuits("leak") - layer.rest) * conductance).sum(1) / conductance.sum(1)
        parameters = self.chip.parameters
        first, threshold, threshold_shift = sites[:, 0], np.ones(layer.neurons), np.zeros(layer.neurons)
        if isinstance(parameters.threshold.spread, Normal):
            threshold_shift = circuits("threshold")[:, 0] - targets["threshold"]
        else:
            threshold = deviation(parameters.threshold.spread, self.key, "threshold", first, self.scale)
        return LayerDeviations(
            weight=deviation(self.chip.synapses.weight, self.key, "weight", layer.synapse_sites, self.scale),
            gain_exc=factor("gain_exc").mean(1),
            gain_inh=factor("gain_inh").mean(1),
            tau_mem=1.0 / conductance.mean(1),
            tau_syn_exc=factor("tau_syn_exc").mean(1),
            tau_syn_inh=factor("tau_syn_inh").mean(1),
            t_ref=deviation(parameters.t_ref.spread, self.key, "t_ref", first, self.scale),
            threshold=threshold,
            threshold_shift=(threshold_shift - rest_shift) / layer.potential_unit,
            reset_shift=(circuits("reset")[:, 0] - targets["reset"] - rest_shift) / layer.potential_unit,
        )


def _spread(row: Floats) -> dict[str, float]:
    return {"mean": float(row.mean()), "sd": float(row.std()), "least": float(row.min()), "largest": float(row.max())}
