"""One core of DYNAP-SE2: the words of its biases, and the four currents that the weights of its neurons are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import QuantizeError
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.dac import Setting, setting, value_of
from neurodeploy.targets.analog.dynapse2_nominal import converter, core_values, leak_current
from neurodeploy.targets.analog.dynapse2_placement import SHARED, Piece
from neurodeploy.targets.analog.dynapse2_words import BIAS_OF, WEIGHTS, CoreWords
from neurodeploy.targets.analog.four_currents import FourCurrents, four_currents
from neurodeploy.targets.analog.mapped import agreed
from neurodeploy.targets.analog.network import Wanted
from neurodeploy.targets.analog.neuron_words import TIMES, refractory_range
from neurodeploy.targets.analog.parameters import LayerParameters

#: Gains of the DPI circuits, gain current over leak current, and the length of a synapse's pulse: rockpool's defaults
#: (``lookup/defaults.py``). Weights are scaled to what results: other values would move the weight currents alone.
GAIN_MEM, GAIN_SYN, PULSE_S = 4.0, 100.0, 10e-6

#: Steps of the largest weight: four currents in the ratios 1:2:4:8 add up to 15 of the smallest.
_LEVELS = 15


@dataclass(frozen=True, eq=False)
class FittedCore:
    """A core in use.

    Attributes:
        pieces: its neurons. masks: int64 ``[inputs, neurons]`` of each piece, 0 for no synapse.
        biases: ``(coarse, fine)`` of each bias. potential_per_ampere: see ``CoreWords``.
        settings: by parameter, requested and realised values, in seconds of the chip and amperes.
        fit: the four currents, in amperes.
    """

    pieces: Sequence[Piece]
    masks: tuple[NDArray[np.int64], ...]
    biases: Mapping[str, tuple[int, int]]
    potential_per_ampere: float
    settings: Mapping[str, Setting]
    fit: FourCurrents


def fit_core(
    pieces: Sequence[Piece], asked: Mapping[str, LayerParameters], chip: AnalogChip, *, allow_error: bool
) -> FittedCore:
    """Choose all words of a core: ``pieces`` have equal parameters, and ``asked`` has their weights.

    Raises:
        QuantizeError: a value is outside its range, or the nearest is more than 5 % away and ``allow_error`` not set.
    """
    try:
        return _fit_core(pieces, asked, chip, allow_error)
    except QuantizeError as error:
        layers = ", ".join(dict.fromkeys(piece.layer for piece in pieces))
        raise QuantizeError(f"{layers}: {error.message}", remedy=error.remedy, code=error.code) from None


def _fit_core(
    pieces: Sequence[Piece], asked: Mapping[str, LayerParameters], chip: AnalogChip, allow_error: bool
) -> FittedCore:
    shared = dict(zip(SHARED, pieces[0].values, strict=True))
    faster = chip.time.acceleration.value
    settings = _settings(shared, chip, allow_error)
    unit = shared["threshold"] / float(settings["threshold"].value)
    table, currents = _weight_currents(chip)
    biases = {BIAS_OF[name]: _word(found.words) for name, found in settings.items()}
    some = CoreWords(0, 0, biases | dict.fromkeys(WEIGHTS, _word(table[0])), unit, ())
    per_ampere = core_values(some, chip).per_ampere
    parts = [asked[piece.layer].weight[:, piece.neurons] for piece in pieces]
    weights = np.concatenate([part.ravel() for part in parts]) * faster
    scale = np.where(weights > 0, per_ampere["ampa"], per_ampere["gaba"])
    largest = float(np.max(np.abs(weights) / scale, initial=0.0))
    low, high = _LEVELS * currents[0], _LEVELS / 8 * currents[-1]
    if largest and not low <= largest <= high:
        raise QuantizeError(
            f"the largest weight, at a threshold of {shared['threshold']:g}, is a current of {largest:.2g} A; sums of "
            f"four currents of {chip.name} are good for {low:.2g} to {high:.2g} A.",
            remedy="check the unit of time and the weights: one spike should move a neuron by about its threshold.",
            code="weight-range",
        )
    # It is the errors of the weights that count, not those of their currents.
    fit = four_currents((weights / scale)[:, None], currents, (scale[:, None] / max(per_ampere.values())) ** 2)
    biases |= {name: _word(table[choice]) for name, choice in zip(WEIGHTS, fit.choices, strict=True)}
    masks = np.split(fit.masks[:, 0].astype(np.int64), np.cumsum([part.size for part in parts])[:-1])
    shaped = tuple(mask.reshape(part.shape) for mask, part in zip(masks, parts, strict=True))
    return FittedCore(pieces, shaped, biases, unit, settings, fit)


def _settings(shared: Mapping[str, float], chip: AnalogChip, allow_error: bool) -> dict[str, Setting]:
    """The words of what neurons share: times as asked for, and the currents that only scale their weights."""
    found = {}
    for name in TIMES:
        seconds = shared[name] / chip.time.acceleration.value
        if name == "t_ref":  # 0 asks for the shortest there is
            seconds = max(seconds, refractory_range(chip)[0])
        found[name] = setting(chip, name, seconds, allow_error=allow_error)

    def leak(tau: str) -> float:
        return leak_current(chip, tau, float(found[tau].value))

    rest = {
        "threshold": chip.operating_point.threshold.value,
        "pulse": PULSE_S,
        "gain_mem": GAIN_MEM * leak("tau_mem"),
        "gain_exc": GAIN_SYN * leak("tau_syn_exc"),
        "gain_inh": GAIN_SYN * leak("tau_syn_inh"),
    }
    # How near these are does not matter: the weights are scaled to what they are.
    return found | {name: setting(chip, name, value, allow_error=True) for name, value in rest.items()}


def _weight_currents(chip: AnalogChip) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Words ``[K, 2]`` and currents ``[K]`` of all different currents that a weight can be made of, ascending."""
    dac = converter(chip, "weight_current")
    codes = np.meshgrid(np.arange(dac.coarse_codes.value), np.arange(dac.fine_top.value + 1), indexing="ij")
    words = np.stack(codes, axis=-1).reshape(-1, 2)
    currents, first = np.unique(value_of(dac, words), return_index=True)
    return words[first], currents


def _word(word: NDArray[np.int64]) -> tuple[int, int]:
    coarse, fine = word.tolist()
    return coarse, fine


def parameter_report(cores: Sequence[FittedCore], layer: Wanted) -> dict[str, Any]:
    """JSON-ready: for each parameter of a layer's neurons its unit, requested and realised value, error and words."""
    report = {}
    for name in cores[0].settings:
        rows = {part: np.zeros(layer.parameters.neurons) for part in ("requested", "value", "error")}
        words = np.zeros((layer.parameters.neurons, 2), np.int64)
        for core in cores:
            for piece in core.pieces:
                if piece.layer == layer.name:
                    for part, row in rows.items():
                        row[piece.neurons] = getattr(core.settings[name], part)
                    words[piece.neurons] = core.settings[name].words
        if name == "t_ref":
            once = np.isinf(layer.parameters.t_ref)
            rows["requested"][once] = np.inf
            rows["error"][once] = 0.0
        report[name] = {
            "unit": cores[0].settings[name].unit,
            "requested": agreed(rows["requested"]),
            "realised": agreed(rows["value"]),
            "error": agreed(rows["error"]),
            "words": agreed(words),
        }
    return report


def weight_report(cores: Sequence[FittedCore], layer: Wanted, nominal: LayerParameters) -> dict[str, float]:
    """JSON-ready: error of a layer's weights as a share of their root mean square, and the share beyond all levels."""
    wanted = layer.parameters.weight
    energy = float(np.sum(wanted**2))
    error = float(np.sum((nominal.weight - wanted) ** 2))
    clipped = sum(
        int(np.count_nonzero(mask[np.abs(wanted[:, piece.neurons]) > np.abs(nominal.weight[:, piece.neurons])] == 15))
        for core in cores
        for piece, mask in zip(core.pieces, core.masks, strict=True)
        if piece.layer == layer.name
    )
    return {"nrmse": (error / energy) ** 0.5 if energy else 0.0, "clipped": clipped / max(wanted.size, 1)}
