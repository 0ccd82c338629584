"""From a float graph to the integers of a chip: folding passes, scales, rounding, and a report of what that cost."""

from neurodeploy.quantize.calibration import Calibration, LayerCalibration, load_calibration
from neurodeploy.quantize.guards import Guard, guard_activity, guard_weight
from neurodeploy.quantize.integers import PASSES, Quantized, load_quantized, quantize, with_v_min
from neurodeploy.quantize.kinds import check_kinds
from neurodeploy.quantize.layer import LayerQuantization, QuantizationSpec

__all__ = [
    "PASSES",
    "Calibration",
    "Guard",
    "LayerCalibration",
    "LayerQuantization",
    "QuantizationSpec",
    "Quantized",
    "check_kinds",
    "guard_activity",
    "guard_weight",
    "load_calibration",
    "load_quantized",
    "quantize",
    "with_v_min",
]
