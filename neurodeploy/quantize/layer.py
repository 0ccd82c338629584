"""One weight layer and its neurons in integers: scale, rounding, and the refusal of values that lose their meaning."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.nodes import Array, Conv2d, Neuron
from neurodeploy.quantize.calibration import LayerCalibration

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class QuantizationSpec:
    """The integer widths of a target, in bits, sign included.

    Attributes:
        weight_bits: weights.
        bias_bits: range the biases are scaled to; they are stored in ``state_bits``.
        state_bits: potential, threshold and lower bound.

    Raises:
        QuantizeError: fewer than 2 bits, or more than the word that holds them.
    """

    weight_bits: int = 8
    bias_bits: int = 8
    state_bits: int = 16

    def __post_init__(self) -> None:
        for name, bits, most in (
            ("weight_bits", self.weight_bits, self.state_bits),
            ("bias_bits", self.bias_bits, self.state_bits),
            ("state_bits", self.state_bits, 32),
        ):
            if not 2 <= bits <= most:
                raise QuantizeError(f"{name} is {bits}.", remedy=f"give 2 to {most}.", code="bits")


@dataclass(frozen=True)
class LayerQuantization:
    """What quantization did to one weight layer and the neurons behind it.

    Attributes:
        layer, neuron: names of the two nodes.
        scale: integer = round(float * scale), rounding half to even; one scale for the whole layer.
        limited_by: the quantity that sets the scale: ``weight``, ``bias``, ``threshold``, ``v_min`` or ``initial_v``.
        weight_min, weight_max: range of the integer weights.
        bias_min, bias_max: range of the integer biases; 0 without a bias.
        threshold, threshold_integer: before and after.
        threshold_error: ``threshold_integer / scale - threshold``.
        v_min, v_min_integer: before (None where the potential had no bound) and after.
        weight_error: largest rounding error of a weight, in units of the float weights.
        weight_error_lsb: the same in integer steps; at most 0.5 unless weights are clipped.
        zeroed_weights: share of the non-zero weights that became 0.
        weight_range, threshold_factor: the layer's calibration, 1 and 1 without; see ``LayerCalibration``.
        clipped_weights: share of the weights that the range cut; 0 unless calibration chose a smaller range.
        dead_outputs: output channels without a weight above 0 and without a bias above 0; they never fire.
        within_threshold: whether no weight exceeds the threshold, no bias is positive and no potential starts at the
            threshold or above; then one spike per event and neuron is all there can be.
        warnings: in words, with the layer's name.
    """

    layer: str
    neuron: str
    scale: float
    limited_by: str
    weight_min: int
    weight_max: int
    bias_min: int
    bias_max: int
    threshold: float
    threshold_integer: int
    threshold_error: float
    v_min: float | None
    v_min_integer: int
    weight_error: float
    weight_error_lsb: float
    zeroed_weights: float
    weight_range: float
    threshold_factor: float
    clipped_weights: float
    dead_outputs: int
    within_threshold: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LayerQuantization":
        """The inverse of ``to_dict``.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{**values, "warnings": tuple(values["warnings"])})


def scale_to_bits(values: Floats, bits: int) -> np.float32:
    """Largest factor with which all ``values`` fit a signed integer of ``bits`` bits; infinite for all zero.

    ``(2**(bits-1) - 1) / max`` or ``2**(bits-1) / |min|``, whichever end binds, in the float32 arithmetic of sinabs'
    ``determine_discretization_scale``: torch divides a number by a tensor as the product with its reciprocal.
    """
    high, low = 2 ** (bits - 1) - 1, -(2 ** (bits - 1))
    least, most = np.float32(values.min()), np.float32(values.max())
    one = np.float32(1)
    with np.errstate(divide="ignore", over="ignore"):
        if abs(least) <= abs(most) * np.float32(abs(low / high)):
            return np.float32(abs(one / most * np.float32(high)))
        return np.float32(abs(one / least * np.float32(low)))


def quantize_layer(
    layer_name: str,
    layer: Conv2d,
    neuron_name: str,
    neuron: Neuron,
    spec: QuantizationSpec,
    calibration: LayerCalibration,
) -> tuple[Conv2d, Neuron, LayerQuantization]:
    """Integers of one layer: weights, bias, threshold, lower bound and initial potential by one scale.

    A neuron without ``v_min`` gets the lowest number of the state word after scaling, so that it does not limit the
    scale. ``calibration`` may end the weights' range below the largest weight and move the threshold.

    Raises:
        QuantizeError: a threshold or lower bound is 0, rounds to 0 or differs from neuron to neuron; all weights are or
            become 0; a value is not finite.
    """
    _check_finite(layer_name, layer, neuron_name, neuron)
    threshold = _one_per_layer(neuron_name, "threshold", neuron.threshold)
    v_min = None if neuron.v_min is None else _one_per_layer(neuron_name, "v_min", neuron.v_min)
    _check_signs(neuron_name, threshold, v_min)
    moved = threshold * calibration.threshold
    scale, limited_by = _scale(layer, moved, v_min, neuron.initial_v, spec, calibration.weight_range)
    if not np.isfinite(scale):
        raise QuantizeError(
            f"{layer_name}: no finite scale exists for weights this small (threshold {threshold:g}).",
            remedy="multiply weights, bias, threshold and v_min of the layer by a common factor.",
            code="scale",
        )

    def integers(values: Array, bits: int) -> Array:
        rounded: Array = np.rint(np.asarray(values, np.float32) * scale)
        return rounded.astype(_integer_type(bits))

    clipped = np.clip(np.rint(layer.weight * scale), -(2 ** (spec.weight_bits - 1)), 2 ** (spec.weight_bits - 1) - 1)
    clipped_weights = float((clipped != np.rint(layer.weight * scale)).mean())
    weight = clipped.astype(_integer_type(spec.weight_bits))
    bias = None if layer.bias is None else integers(layer.bias, spec.state_bits)
    threshold_integer = integers(np.array(moved), spec.state_bits)
    lowest = -(2 ** (spec.state_bits - 1))
    v_min_integer = (
        np.array(lowest, _integer_type(spec.state_bits))
        if v_min is None
        else integers(np.array(v_min), spec.state_bits)
    )
    initial_v = None if neuron.initial_v is None else integers(neuron.initial_v, spec.state_bits)

    limit = f"the scale of {layer_name} is {scale:.6g}, limited by its {limited_by}"
    if not weight.any() and (bias is None or not (bias > 0).any()):
        raise QuantizeError(
            f"{layer_name}: all its weights are 0 after rounding; the layer is dead ({limit}).",
            remedy="train it, remove it, or bring its weights, bias and thresholds to one order of magnitude.",
            code="dead-layer",
        )
    if threshold_integer == 0:
        raise QuantizeError(
            f"{neuron_name}: the threshold {threshold:g} rounds to 0 ({limit}); the chip would fire without end.",
            remedy=f"raise the threshold above {0.5 / scale:.6g} or make the largest weights smaller.",
            code="threshold-zero",
        )
    if v_min_integer == 0:
        raise QuantizeError(
            f"{neuron_name}: v_min {v_min:g} rounds to 0 ({limit}); a lower bound of 0 is a known fault of the chip.",
            remedy=f"give v_min = {-1 / scale:.6g} (one integer step) or lower, '-threshold' or 'lowest'.",
            code="v-min-zero",
        )
    error_lsb = float(np.abs(layer.weight.astype(np.float64) * float(scale) - weight).max())
    positive_bias = bias is not None and bool((bias > 0).any())
    starts_below = initial_v is None or bool((initial_v < threshold_integer).all())
    alive = (weight > 0).any(axis=(1, 2, 3)) | (False if bias is None else bias > 0)
    nonzero = layer.weight != 0
    outcome = LayerQuantization(
        layer=layer_name,
        neuron=neuron_name,
        scale=float(scale),
        limited_by=limited_by,
        weight_min=int(weight.min()),
        weight_max=int(weight.max()),
        bias_min=0 if bias is None else int(bias.min()),
        bias_max=0 if bias is None else int(bias.max()),
        threshold=threshold,
        threshold_integer=int(threshold_integer),
        threshold_error=int(threshold_integer) / float(scale) - threshold,
        v_min=v_min,
        v_min_integer=int(v_min_integer),
        weight_error=error_lsb / float(scale),
        weight_error_lsb=error_lsb,
        zeroed_weights=float((weight[nonzero] == 0).mean()) if nonzero.any() else 0.0,
        weight_range=calibration.weight_range,
        threshold_factor=calibration.threshold,
        clipped_weights=clipped_weights,
        dead_outputs=int((~alive).sum()),
        within_threshold=bool(weight.max() <= threshold_integer and not positive_bias and starts_below),
        warnings=(),
    )
    outcome = replace(
        outcome, warnings=tuple(f"{layer_name}: {text}" for text in _warnings(outcome, bias, starts_below))
    )
    quantized_neuron = replace(neuron, threshold=threshold_integer, v_min=v_min_integer, initial_v=initial_v)
    return replace(layer, weight=weight, bias=bias), quantized_neuron, outcome


def _integer_type(bits: int) -> np.dtype[Any]:
    return np.dtype(f"int{next(width for width in (8, 16, 32) if bits <= width)}")


def _scale(
    layer: Conv2d,
    threshold: float,
    v_min: float | None,
    initial_v: Array | None,
    spec: QuantizationSpec,
    weight_range: float,
) -> tuple[np.float32, str]:
    bounds = np.array([threshold] if v_min is None else [v_min, threshold], np.float32)
    below = v_min is not None and abs(np.float32(v_min)) > abs(np.float32(threshold)) * (
        2 ** (spec.state_bits - 1) / (2 ** (spec.state_bits - 1) - 1)
    )
    limits = {"weight": scale_to_bits(layer.weight * np.float32(weight_range), spec.weight_bits)}
    if layer.bias is not None:
        limits["bias"] = scale_to_bits(layer.bias, spec.bias_bits)
    limits["v_min" if below else "threshold"] = scale_to_bits(bounds, spec.state_bits)
    if initial_v is not None:
        limits["initial_v"] = scale_to_bits(np.asarray(initial_v, np.float32), spec.state_bits)
    limited_by = min(limits, key=lambda name: limits[name])
    return limits[limited_by], limited_by


def _check_finite(layer_name: str, layer: Conv2d, neuron_name: str, neuron: Neuron) -> None:
    for name, field, value in (
        (layer_name, "weight", layer.weight),
        (layer_name, "bias", layer.bias),
        (neuron_name, "threshold", neuron.threshold),
        (neuron_name, "v_min", neuron.v_min),
        (neuron_name, "initial_v", neuron.initial_v),
    ):
        if value is not None and not np.isfinite(value).all():
            raise QuantizeError(
                f"{name}: {field} holds values that are not finite.",
                remedy="train again; for an unbounded potential leave v_min out.",
                code="not-finite",
            )


def _one_per_layer(name: str, field: str, value: Array) -> float:
    values = np.ravel(value)
    if (values != values[0]).any():
        raise QuantizeError(
            f"{name}: {field} differs from neuron to neuron ({values.min():g} to {values.max():g}); a core has one.",
            remedy=f"train with one {field} for the layer.",
            code=f"{field.replace('_', '-')}-per-neuron",
        )
    return float(values[0])


def _check_signs(name: str, threshold: float, v_min: float | None) -> None:
    if threshold <= 0:
        raise QuantizeError(
            f"{name}: the threshold is {threshold:g}; it must be positive.",
            remedy="train with a positive threshold.",
            code="threshold-zero",
        )
    if v_min is not None and v_min >= 0:
        raise QuantizeError(
            f"{name}: v_min is {v_min:g}; it must be negative: a lower bound of 0 is a known fault of the chip.",
            remedy="give a v_min that is at least one integer step below 0: '-threshold', a negative number, 'lowest'.",
            code="v-min-zero",
        )


def _warnings(outcome: LayerQuantization, bias: Array | None, starts_below: bool) -> Sequence[str]:
    warnings: list[str] = []
    if bias is not None:
        warnings.append(
            "its bias becomes a leak on the chip's slow clock, once per tick, not once per time step"
            + ("; positive biases can fire neurons without input." if outcome.bias_max > 0 else ".")
        )
    if outcome.weight_max <= 0 and outcome.bias_max <= 0:
        warnings.append("no weight is positive: the layer never fires.")
    elif outcome.dead_outputs:
        warnings.append(f"{outcome.dead_outputs} output channels have no positive weight and never fire.")
    if outcome.clipped_weights:
        warnings.append(
            f"calibration clips {outcome.clipped_weights:.2%} of the weights, those beyond {outcome.weight_range:g} of "
            "the largest."
        )
    if outcome.threshold_factor != 1:
        warnings.append(f"calibration multiplies the threshold by {outcome.threshold_factor:g}.")
    if outcome.weight_max > outcome.threshold_integer:
        warnings.append(
            f"the largest weight {outcome.weight_max} exceeds the threshold {outcome.threshold_integer}: the chip "
            "fires once per event and neuron and keeps the rest."
        )
    if not starts_below:
        warnings.append("some neurons start at the threshold or above.")
    return warnings
