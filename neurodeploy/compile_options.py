"""Everything that decides what a network is compiled to, beside the network and the chip; kept with the deployment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from neurodeploy.errors import ProgramError
from neurodeploy.files import read_json, write_json
from neurodeploy.mapping.placement import CoreChoice, Split
from neurodeploy.quantize.calibration import Calibration, LayerCalibration, to_plain

OPTIONS_FILE = "compile.json"


@dataclass(frozen=True)
class CompileOptions:
    """The options of ``nd.compile`` as one value, for what compiles a network more than once.

    Attributes:
        v_min, bias_bits, layer2core_map, split, monitor_layers, settings, allow_recurrence: as for ``nd.compile``.
        calibration: layer -> its calibration (``load_calibration`` reads a file); None: as trained.
    """

    v_min: str | float | None = None
    bias_bits: int | None = None
    calibration: Calibration | None = None
    layer2core_map: CoreChoice = "auto"
    split: Split = "auto"
    monitor_layers: Sequence[str] | None = None
    settings: Mapping[str, Any] | None = None
    allow_recurrence: bool = False

    def save(self, path: str | Path) -> None:
        """Write them as JSON; ``load_options`` reads them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.calibration is not None:
            values["calibration"] = to_plain(self.calibration)
        if isinstance(self.layer2core_map, Mapping):
            # As pairs: a layer is a name or a number, which the keys of JSON do not tell apart.
            values["layer2core_map"] = list(self.layer2core_map.items())
        write_json(path, _plain(values))


#: What ``nd.compile`` does when nothing else is asked for.
DEFAULT = CompileOptions()


def load_options(path: str | Path) -> CompileOptions:
    """Read what ``CompileOptions.save`` wrote.

    Raises:
        ProgramError: the file is missing or holds something else.
    """
    values = read_json(Path(path))
    try:
        if values["calibration"] is not None:
            values["calibration"] = {name: LayerCalibration(**one) for name, one in values["calibration"].items()}
        choice = values["layer2core_map"]
        if isinstance(choice, list) and choice and isinstance(choice[0], list):
            values["layer2core_map"] = dict(map(tuple, choice))
        return CompileOptions(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProgramError(
            f"{path}: not the options of a compilation ({type(error).__name__}: {error}).",
            remedy="compile the network again.",
            code="compile-options",
        ) from error


def _plain(value: Any) -> Any:
    """``value`` in the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
