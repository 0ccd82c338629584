"""What calibration on data decided for each layer, and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

from neurodeploy.errors import QuantizeError
from neurodeploy.files import read_json

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class LayerCalibration:
    """How one layer's integers are chosen, other than by the largest weight and the trained threshold.

    Attributes:
        weight_range: share of the layer's largest weight at which the integer range ends, in (0, 1]. 1 clips nothing;
            below 1 the few weights outside are clipped and all others are rounded more finely.
        threshold: factor on the threshold before it is rounded, above 0.

    Raises:
        QuantizeError: a value is outside its range.
    """

    weight_range: float = 1.0
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight_range <= 1:
            raise QuantizeError(
                f"calibration: weight_range is {self.weight_range!r}.",
                remedy="give a share of the largest weight: above 0, at most 1.",
                code="calibration",
            )
        if not (isfinite(self.threshold) and self.threshold > 0):
            raise QuantizeError(
                f"calibration: the factor on the threshold is {self.threshold!r}.",
                remedy="give a number above 0.",
                code="calibration",
            )


#: Layer -> its calibration; layers that are not named are as trained.
Calibration = Mapping[str, LayerCalibration]


def load_calibration(path: str | Path) -> dict[str, LayerCalibration]:
    """Read the ``calibration.json`` that ``neurodeploy calibrate`` wrote.

    Raises:
        ProgramError: the file is missing or not JSON.
        QuantizeError: it holds something else, or a value outside its range.
    """
    values = read_json(Path(path))
    try:
        return {
            name: LayerCalibration(float(layer["weight_range"]), float(layer["threshold"]))
            for name, layer in values["calibration"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QuantizeError(
            f"{path}: not a calibration ({type(error).__name__}: {error}).",
            remedy="write one with: neurodeploy calibrate MODEL --data RECORDINGS --out FOLDER",
            code="calibration",
        ) from error


def to_plain(calibration: Calibration) -> dict[str, dict[str, float]]:
    """JSON-ready data, as ``load_calibration`` reads it."""
    return {name: asdict(layer) for name, layer in calibration.items()}
