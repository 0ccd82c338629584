"""The constants of neurons as words of a chip, and what those words give: one word per neuron and parameter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError, QuantizeError
from neurodeploy.targets.analog.chip import AnalogChip, ExactDac
from neurodeploy.targets.analog.dac import LARGEST_ERROR, Setting, setting, value_of
from neurodeploy.targets.analog.mapped import agreed
from neurodeploy.targets.analog.network import Wanted
from neurodeploy.targets.analog.parameters import LayerParameters

Floats = NDArray[np.float64]

#: Constants that are times.
TIMES = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "t_ref")


@dataclass(frozen=True, eq=False)
class NeuronWords:
    """The neurons of one layer.

    Attributes:
        settings: by parameter, in the chip's units; ``requested`` and ``value`` of a time in its own seconds.
        rest: the leak potential, in the chip's unit.
        potential_unit: of the network's potential, in the chip's unit.
        constants: what the words give, in the network's units; names of ``LayerParameters``.
        errors: by constant, relative; those of potentials as a share of the threshold.
    """

    settings: Mapping[str, Setting]
    rest: float
    potential_unit: float
    constants: Mapping[str, Floats]
    errors: Mapping[str, Floats]

    def report(self) -> dict[str, Any]:
        """JSON-ready: what was asked for and what there is, by parameter."""
        return {
            name: {
                "unit": found.unit,
                "requested": agreed(found.requested),
                "realised": agreed(found.value),
                "error": agreed(self.errors.get(name, found.error)),
                "words": agreed(found.words),
            }
            for name, found in self.settings.items()
        }


def neuron_words(layer: Wanted, chip: AnalogChip, *, allow_error: bool = False) -> NeuronWords:
    """Choose the words of every neuron of a layer.

    Args:
        layer: what is wanted.
        chip: with a word per neuron for each parameter, potentials in lsb, or of infinite precision.
        allow_error: accept errors above 5 %.

    Raises:
        QuantizeError: a value is outside the range of its converter, or too far from what was asked for.
        ConfigError: the neurons of the chip share words.
    """
    _require_own_words(chip)
    times = {name: time_setting(layer, chip, name) for name in TIMES}
    acceleration = chip.time.acceleration.value
    constants = {name: found.value * acceleration for name, found in times.items()}
    errors = {name: found.error for name, found in times.items()}
    potentials, rest, unit = _potentials(layer.parameters, chip)
    constants["threshold"] = (potentials["threshold"].value - rest) / unit
    constants["v_reset"] = (potentials["reset"].value - rest) / unit
    wanted = layer.parameters
    errors["threshold"] = np.abs(constants["threshold"] - wanted.threshold) / wanted.threshold
    errors["reset"] = np.abs(constants["v_reset"] - wanted.v_reset) / wanted.threshold
    for name, error in errors.items():
        if error.max(initial=0.0) > LARGEST_ERROR and not allow_error:
            raise QuantizeError(
                f"{layer.name}: {name} of neuron {int(np.argmax(error))} is {100 * error.max():.1f} % from what was "
                f"asked for on {chip.name}; the limit is {100 * LARGEST_ERROR:g} %.",
                remedy="choose another value or unit of time, or allow it: settings allow_error (--allow-error).",
                code="parameter-error",
            )
    return NeuronWords({**times, **potentials}, rest, unit, constants, errors)


def _require_own_words(chip: AnalogChip) -> None:
    scopes = {name: getattr(chip.parameters, name).scope for name in (*TIMES, "threshold")}
    shared = [name for name, scope in scopes.items() if scope not in ("neuron", "receptor")]
    if shared:
        raise ConfigError(
            f"{chip.name}: the neurons of a {scopes[shared[0]]} share {', '.join(shared)}, and the mapper for weights "
            f"whose sign is {chip.weights.sign.value!r} sets every neuron by itself.",
            remedy="in the chip's description, give these parameters scope: neuron.",
            code="chip-yaml",
        )


def time_setting(layer: Wanted, chip: AnalogChip, name: str) -> Setting:
    """The words of one of ``TIMES``; errors of any size are accepted.

    An endless refractory time becomes the longest that the chip has, one below the shortest that.

    Raises:
        QuantizeError: a value is outside the range of its converter.
    """
    asked = getattr(layer.parameters, name) / chip.time.acceleration.value
    dac = getattr(chip.parameters, name).dac
    if isinstance(dac, ExactDac):
        nothing = np.zeros(asked.shape)
        return Setting(name, "s", asked, asked, np.zeros((*asked.shape, 2), np.int64), nothing)
    if name != "t_ref":
        return setting(chip, name, asked, allow_error=True)
    shortest, longest = refractory_range(chip)
    found = setting(chip, name, np.clip(asked, shortest, longest if np.isinf(asked).any() else inf), allow_error=True)
    return replace(found, requested=asked, error=np.where(np.isinf(asked) | (asked < shortest), 0.0, found.error))


def refractory_range(chip: AnalogChip) -> tuple[float, float]:
    """The shortest and the longest refractory time, in the chip's own seconds."""
    parameter = chip.parameters.t_ref
    if isinstance(parameter.dac, ExactDac):
        return 0.0, inf
    if parameter.range is not None:
        return parameter.range.value
    ends = setting(chip, "t_ref", np.array([1e-30, 1e30]), allow_error=True)
    return float(ends.value[0]), float(ends.value[1])


def _potentials(wanted: LayerParameters, chip: AnalogChip) -> tuple[dict[str, Setting], float, float]:
    """Threshold, reset and leak in words; the rest; the unit that makes the threshold as large as it may be."""
    parameters = chip.parameters
    if parameters.leak is None or parameters.reset is None:
        found = {
            "threshold": setting(chip, "threshold", wanted.threshold, allow_error=True),
            "reset": setting(chip, "reset", wanted.v_reset, allow_error=True),
        }
        return found, 0.0, 1.0
    point = chip.operating_point
    leak = setting(chip, "leak", np.full(wanted.threshold.shape, point.leak.value), allow_error=True)
    rest = float(leak.value.flat[0])
    limits = [(point.threshold.value - rest) / float(wanted.threshold.max())]
    if parameters.reset.range is not None:
        low, high = parameters.reset.range.value
        lowest, highest = float(wanted.v_reset.min()), float(wanted.v_reset.max())
        limits += [(low - rest) / lowest] if lowest < 0 else []
        limits += [(high - rest) / highest] if highest > 0 else []
    # The ends of a range are allowed, the next number behind them is not.
    unit = float(np.nextafter(min(limits), 0.0))
    return (
        {
            "leak": leak,
            "threshold": setting(chip, "threshold", rest + unit * wanted.threshold, allow_error=True),
            "reset": setting(chip, "reset", rest + unit * wanted.v_reset, allow_error=True),
        },
        rest,
        unit,
    )


def constants_of(words: Mapping[str, NDArray[np.int64]], chip: AnalogChip, potential_unit: float) -> dict[str, Floats]:
    """What words give, in the network's units: the way back from a configuration.

    Args:
        words: by parameter, int64 ``[N, 2]``; ``threshold``, ``reset`` and ``leak`` among them.
        chip: the chip; none of its parameters is exact.
        potential_unit: of the network's potential, in the chip's unit.

    Raises:
        QuantizeError: a word that the chip does not have.
    """
    values = {name: value_of(getattr(chip.parameters, name).dac, row) for name, row in words.items()}
    constants = {name: values[name] * chip.time.acceleration.value for name in TIMES}
    constants["threshold"] = (values["threshold"] - values["leak"]) / potential_unit
    constants["v_reset"] = (values["reset"] - values["leak"]) / potential_unit
    return constants
