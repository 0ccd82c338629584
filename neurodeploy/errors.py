"""One exception class per stage. Each message names the place, the rule, the value, the limit and the remedy."""

from collections.abc import Mapping, Sequence
from typing import Any


class NeurodeployError(Exception):
    """Base of every error a user can cause.

    Args:
        message: what is wrong: the file, layer or field, the rule, the value found and the limit.
        remedy: what the user can do about it; shown after the message.
        code: a stable identifier such as ``"dilation"``, for programs and for the documentation.
    """

    exit_code = 2

    def __init__(self, message: str, *, remedy: str, code: str) -> None:
        super().__init__(f"{message} Remedy: {remedy}")
        self.message = message
        self.remedy = remedy
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come back from other processes with all they say."""
        return _same_error, (type(self), self.args), self.__dict__


def _same_error(kind: type[NeurodeployError], arguments: tuple[Any, ...]) -> NeurodeployError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class ConfigError(NeurodeployError):
    """A configuration file, command-line option or argument is not valid."""


class EventError(NeurodeployError):
    """Events are malformed: wrong fields, unsorted, outside the sensor."""


class KernelError(NeurodeployError):
    """A training kernel cannot run on these tensors or parameters."""


class TrainError(NeurodeployError):
    """A training run cannot start, continue or be resumed."""


class WorkerStoppedError(TrainError):
    """One process of several stops because of an error that the first process tells the user."""


class GraphError(NeurodeployError):
    """A network cannot be read into the graph, or the graph is not well-formed."""


class ConvertError(NeurodeployError):
    """An ANN cannot be turned into a spiking network."""


class QuantizeError(NeurodeployError):
    """A layer cannot be expressed in the target's integers."""


class ConstraintError(NeurodeployError):
    """A layer breaks a rule of the chip."""


class MappingError(NeurodeployError):
    """The layers cannot be placed on the chip's cores.

    Args:
        message, remedy, code: see ``NeurodeployError``.
        layers: a smallest set of layers that have no place together.
        need, limit: what they need and what there is, in a few words.
        repairs: changes of the network with which it was mapped, as the family describes them.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str,
        code: str,
        layers: Sequence[str] = (),
        need: str = "",
        limit: str = "",
        repairs: Sequence[Any] = (),
    ) -> None:
        super().__init__(message, remedy=remedy, code=code)
        self.repairs = tuple(repairs)
        self.layers = tuple(layers)
        self.need = need
        self.limit = limit


class ProgramError(NeurodeployError):
    """A program file is damaged, edited, of another version, or inconsistent."""


class EmulationError(NeurodeployError):
    """A program cannot be executed on this input."""


class ValidationError(NeurodeployError):
    """A validation cannot be carried out."""


class CheckFailed(NeurodeployError):
    """A check ran to its end and its answer is no (exit code 1).

    Args:
        message, remedy, code: see ``NeurodeployError``.
        result: what the check found, JSON-ready; ``--json`` prints it beside the error.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str, code: str, result: Mapping[str, Any]) -> None:
        super().__init__(message, remedy=remedy, code=code)
        self.result = result


class DeviceError(NeurodeployError):
    """A device or the vendor's library is missing (exit code 3)."""

    exit_code = 3
