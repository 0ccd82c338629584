"""What a user sets on the chip beyond the network: the sensor's pre-processing, readout, decimators, placement."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from neurodeploy.errors import ConfigError
from neurodeploy.targets.dynapcnn.program import DECIMATION

Side = Annotated[int, Field(ge=0, le=127, strict=True)]
Size = Annotated[int, Field(ge=1, le=128, strict=True)]
Pooling = Literal[1, 2, 4]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Region(_Settings):
    """Rows ``y`` to ``y + height - 1`` and columns ``x`` to ``x + width - 1``, after pooling."""

    y: Side
    x: Side
    height: Size
    width: Size


class FilterSettings(_Settings):
    """The event filter behind the pre-processing.

    Attributes:
        mode: one at a time: noise (an event needs neighbours), low-pass, or noise with hot pixels taken out.
        size: neighbourhood (y, x) of the noise modes.
        threshold: in ticks of the slow clock.
    """

    mode: Literal["noise", "low_pass", "noise_and_hot_pixel"]
    size: tuple[Annotated[int, Field(ge=1, le=15)], Annotated[int, Field(ge=1, le=15)]] | None = None
    threshold: Annotated[int, Field(ge=0, le=65535, strict=True)]

    @model_validator(mode="after")
    def _size_belongs_to_noise(self) -> "FilterSettings":
        if (self.size is None) != (self.mode == "low_pass"):
            raise ValueError("size is given with the noise modes, and not with low_pass")
        return self


class DvsSettings(_Settings):
    """The sensor's pre-processing; what leaves it is the network's input.

    Attributes:
        input: name of the network's input; may be left out when there is one.
        sensor_size: (height, width) of what enters.
        polarity: which events pass. A network with one input feature gets all of them as feature 0.
        pooling: (y, x).
        region: what is kept, after pooling; None for everything.
        mirror_y, mirror_x: turn rows, and columns, around.
        swap_xy: exchange rows and columns, after the mirrors.
        live: connect the sensor.
        monitor: the host sees what leaves the pre-processing (layer 13).
        raw_monitor: the host sees what the sensor sends.
        filter: None for none.
    """

    input: str | None = None
    sensor_size: tuple[Size, Size] = (128, 128)
    polarity: Literal["both", "on", "off"] = "both"
    pooling: tuple[Pooling, Pooling] = (1, 1)
    region: Region | None = None
    mirror_y: bool = False
    mirror_x: bool = False
    swap_xy: bool = False
    live: bool = False
    monitor: bool = False
    raw_monitor: bool = False
    filter: FilterSettings | None = None


class ReadoutSettings(_Settings):
    """The readout block behind the last layer.

    Attributes:
        threshold: a class is reported when its average exceeds it.
        average_ticks: ticks of the slow clock that the moving average runs over.
        output: what a readout value holds: nothing, the bits of the classes over the threshold, the average of
            ``output_class``, or the average of the class with the largest one.
        output_class: for ``"selected"``.
        monitor: the host sees the readout values; then it sees no spikes.
    """

    threshold: Annotated[int, Field(ge=0, le=65535, strict=True)] = 0
    average_ticks: Literal[1, 16, 32] = 16
    output: Literal["nothing", "threshold", "selected", "maximum"] = "maximum"
    output_class: Annotated[int, Field(ge=0, le=14, strict=True)] = 0
    monitor: bool = False


class Settings(_Settings):
    """All of them.

    Attributes:
        dvs: None: an input that is pooled before its first layer goes through the pre-processing, others do not.
        readout: None: the block is not used; the host counts the spikes of the last layer.
        decimators: layer -> one spike of how many leaves its core.
        synops: how busy the layers are, so that the busiest go to the fast cores: synaptic operations (per second, or
            of a recording) by layer; or ``"estimate"``, from equal rates of all neurons. None: no preference.
    """

    dvs: DvsSettings | None = None
    readout: ReadoutSettings | None = None
    decimators: Mapping[str, int] = Field(default_factory=dict)
    synops: Literal["estimate"] | Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None

    @field_validator("decimators")
    @classmethod
    def _known_decimations(cls, decimators: Mapping[str, int]) -> Mapping[str, int]:
        for layer, count in decimators.items():
            if count not in DECIMATION:
                raise ValueError(f"{layer}: a decimator passes one spike of {', '.join(map(str, DECIMATION))}")
        return decimators


def read_settings(data: Mapping[str, Any] | None) -> Settings:
    """The settings in plain data.

    Raises:
        ConfigError: an unknown field or a value that is not allowed; the message names the field.
    """
    try:
        return Settings.model_validate(dict(data or {}))
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or '(top level)'}: {problem['msg']}" for problem in error.errors()
        ]
        group = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
        kinds: dict[str, type[_Settings]] = {"dvs": DvsSettings, "readout": ReadoutSettings}
        fields = f"the settings are: {', '.join(Settings.model_fields)}"
        if group in kinds:
            fields = f"the fields of {group} are: {', '.join(kinds[group].model_fields)}"
        raise ConfigError(
            f"settings: {'; '.join(problems)}.", remedy=f"{fields}; see targets/dynapcnn/README.md.", code="settings"
        ) from None
