"""What the user decides about an analog chip beyond the network."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from neurodeploy.errors import ConfigError


class Settings(BaseModel):
    """All of them.

    Attributes:
        allow_error: take parameters that are more than 5 % from what was asked for; notes say which.
        nir_tau_unit: unit of the time constants in NIR files for the vendor's tools; hxtorch and jaxsnn read ms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_error: bool = False
    nir_tau_unit: Literal["ms", "s"] = "ms"


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
        raise ConfigError(
            f"settings: {'; '.join(problems)}.",
            remedy=f"the settings are: {', '.join(Settings.model_fields)}; see targets/analog/README.md.",
            code="settings",
        ) from None
