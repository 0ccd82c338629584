"""What a layer of analog neurons computes with, on a chip without mismatch or on one with it."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ProgramError

Floats = NDArray[np.float64]

#: The constants of a neuron, in the order in which compiled code takes them.
CONSTANTS = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold", "v_reset", "t_ref")


@dataclass(frozen=True, eq=False)
class LayerParameters:
    """Weights and constants of ``du/dt = -u / tau_mem + i_exc - i_inh``, ``di_r/dt = -i_r / tau_syn_r``.

    At an input spike, the current of the receptor that the weight's sign chooses rises by the weight's magnitude. When
    ``u`` reaches the threshold from below, the neuron fires; ``u`` is ``v_reset`` for ``t_ref``, while the currents
    flow on. All arrays are float64; times are in seconds of the network, potentials are relative to the rest.

    Attributes:
        weight: ``[inputs, N]``, a potential per second; > 0 excites, < 0 inhibits.
        tau_mem, tau_syn_exc, tau_syn_inh: ``[N]``, > 0.
        threshold: ``[N]``, > 0.
        v_reset: ``[N]``, < threshold.
        t_ref: ``[N]``, >= 0; ``inf``: one spike at most.

    Raises:
        ProgramError: an array has another type or shape, or a value is out of its range.
    """

    weight: Floats
    tau_mem: Floats
    tau_syn_exc: Floats
    tau_syn_inh: Floats
    threshold: Floats
    v_reset: Floats
    t_ref: Floats

    def __post_init__(self) -> None:
        if self.weight.dtype != np.float64 or self.weight.ndim != 2:
            _refuse("weight", f"is {self.weight.dtype} of shape {self.weight.shape}", "float64 [inputs, neurons]")
        if not np.isfinite(self.weight).all():
            _refuse("weight", "has a value that is not finite", "finite")
        for name in CONSTANTS:
            row = getattr(self, name)
            if row.dtype != np.float64 or row.shape != (self.neurons,):
                _refuse(name, f"is {row.dtype} of shape {row.shape}", f"float64 [{self.neurons}]")
        for name in ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold"):
            row = getattr(self, name)
            if not ((row > 0) & np.isfinite(row)).all():
                _refuse(name, f"is {_worst(row, (row > 0) & np.isfinite(row))}", "above 0 and finite")
        below = (self.v_reset < self.threshold) & np.isfinite(self.v_reset)
        if not below.all():
            _refuse("v_reset", f"is {_worst(self.v_reset, below)}", "below the threshold and finite")
        if not (self.t_ref >= 0).all():
            _refuse("t_ref", f"is {_worst(self.t_ref, self.t_ref >= 0)}", "at least 0")

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[0])

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[1])

    def constants(self) -> Floats:
        """The constants as one array ``[6, N]``, in the order of :data:`CONSTANTS`."""
        return np.stack([getattr(self, name) for name in CONSTANTS])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerParameters) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


def _worst(row: Floats, fits: NDArray[np.bool_]) -> str:
    neuron = int(np.argmin(fits))
    return f"{row[neuron]:g} for neuron {neuron}"


def _refuse(name: str, found: str, rule: str) -> None:
    raise ProgramError(
        f"{name} {found}; it must be {rule}.",
        remedy="check the constants of the layer; with mismatch, the spread may be larger than the value itself.",
        code="analog-parameters",
    )
