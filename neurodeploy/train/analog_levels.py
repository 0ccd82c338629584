"""Weights in an analog chip's levels in the forward pass, straight-through in the backward pass."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from neurodeploy.errors import TrainError
from neurodeploy.targets.analog.four_currents import four_currents, levels, masks_of
from neurodeploy.targets.analog.parameters import Floats
from neurodeploy.targets.analog.program import AnalogProgram
from neurodeploy.targets.analog.weights import signed_levels, to_codes


class Levels(Protocol):
    """Weights that a chip can have."""

    def round(self, weights: Sequence[Floats], search: bool) -> list[Floats]:
        """The weights ``[inputs, N]`` of all layers as the chip has them.

        Args:
            weights: float64 ``[inputs, N]``, signed.
            search: choose the levels anew, as compiling does; else those of the last search may be used.
        """


class SignedLevels:
    """Whole multiples of one level for the whole chip (BrainScaleS-2: 6 bits and a sign).

    Args:
        magnitude_bits: bits beside the sign.
        units: for each layer what a unit of its weight is in the chip's; 1 for all where the layers share a threshold.
    """

    def __init__(self, magnitude_bits: int = 6, units: Sequence[float] | None = None) -> None:
        self.magnitude_bits = magnitude_bits
        self._units = None if units is None else list(units)
        self._level: float | None = None

    @classmethod
    def of_program(cls, program: AnalogProgram, magnitude_bits: int = 6) -> "SignedLevels":
        """The units of a compiled network: its codes are then those of compiling the trained weights."""
        merged = [layer.neuron_sites.shape[1] for layer in program.layers]
        pairs = zip(program.layers, merged, strict=True)
        return cls(
            magnitude_bits, [layer.potential_unit * circuits * program.acceleration for layer, circuits in pairs]
        )

    def round(self, weights: Sequence[Floats], search: bool) -> list[Floats]:
        """As :class:`Levels`; see ``targets/analog/weights.py``."""
        units = [1.0] * len(weights) if self._units is None else self._units
        scaled = [weight * unit for weight, unit in zip(weights, units, strict=True)]
        if search or self._level is None:
            found = signed_levels(scaled, magnitude_bits=self.magnitude_bits)
            self._level, codes = found.level, list(found.codes)
        else:
            codes = [to_codes(weight, self._level, self.magnitude_bits) for weight in scaled]
        return [code.astype(np.float64) * self._level / unit for code, unit in zip(codes, units, strict=True)]


class FourCurrentLevels:
    """Sums of four currents, chosen for each layer (DYNAP-SE2: 4 bits, four currents per core).

    Any current is taken for possible; compiling puts them on the converter's, which moves them a little.
    """

    def __init__(self) -> None:
        self._currents: list[Floats] | None = None

    def round(self, weights: Sequence[Floats], search: bool) -> list[Floats]:
        """As :class:`Levels`; see ``targets/analog/four_currents.py``."""
        if search or self._currents is None:
            found = [four_currents(weight) for weight in weights]
            self._currents = [one.currents for one in found]
            return [one.realised for one in found]
        return [
            np.sign(weight) * levels(currents)[masks_of(np.abs(weight), currents)]
            for weight, currents in zip(weights, self._currents, strict=True)
        ]


class _StraightThrough(torch.autograd.Function):
    """The chip's weights forward; backward the gradient as it is."""

    @staticmethod
    def forward(ctx: object, weight: torch.Tensor, on_chip: torch.Tensor) -> torch.Tensor:
        """Return the chip's weights."""
        return on_chip.view_as(on_chip)

    @staticmethod
    def backward(ctx: object, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Rounding counts as the identity."""
        return grads[0], None


def on_levels(weights: Sequence[torch.Tensor], rule: Levels, search: bool) -> list[torch.Tensor]:
    """Parameters ``[N, inputs]`` as the chip has them; gradients go to the parameters unchanged.

    Raises:
        TrainError: a weight is not finite.
    """
    tables = [weight.detach().double().numpy().T for weight in weights]
    for index, table in enumerate(tables):
        if not np.isfinite(table).all():
            raise TrainError(
                f"layer {index} has a weight that is not finite.",
                remedy="lower the learning rate or clip gradients.",
                code="analog-weights",
            )
    rounded = rule.round([np.ascontiguousarray(table) for table in tables], search)
    return [
        _StraightThrough.apply(weight, torch.from_numpy(np.ascontiguousarray(table.T)).to(weight))  # type: ignore[no-untyped-call]
        for weight, table in zip(weights, rounded, strict=True)
    ]
