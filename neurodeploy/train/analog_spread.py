"""What analog circuits made alike differ by, drawn for a network in training: one number of the serial, one chip."""

from collections.abc import Sequence
from math import log1p, sqrt
from typing import Protocol

import numpy as np

from neurodeploy.errors import TrainError
from neurodeploy.targets.analog.calibration import calibrate
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.program import AnalogProgram
from neurodeploy.targets.analog.virtual_chip import LayerDeviations, VirtualChip


class Spread(Protocol):
    """Chips to train for and to test on."""

    def draw(self, serial: int, scale: float = 1.0) -> tuple[LayerDeviations, ...]:
        """The deviations of each layer on the chip with this serial number, all spreads multiplied by ``scale``."""


class UniformSpread:
    """The same spread everywhere: log-normal factors of mean 1 on each weight, time constant and threshold.

    No chip is built so; it is what published experiments have. Factors of the two time constants are independent,
    those of the two receptors equal.

    Args:
        shapes: ``(inputs, neurons)`` of each layer.
        cv: coefficient of variation, sd over mean.

    Raises:
        TrainError: ``cv`` is negative.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], cv: float) -> None:
        if not 0 <= cv < float("inf"):
            raise TrainError(f"cv is {cv}.", remedy="give 0 or more; 0.2 is 20 %.", code="analog-spread")
        self.shapes, self.cv = tuple(shapes), cv

    def draw(self, serial: int, scale: float = 1.0) -> tuple[LayerDeviations, ...]:
        """As :class:`Spread`; one serial has the same normal numbers at every scale."""
        sd = scale * sqrt(log1p(self.cv**2))
        found = []
        for index, (inputs, neurons) in enumerate(self.shapes):
            rng = np.random.default_rng([serial, index])
            tau_mem, tau_syn, threshold = np.exp(sd * rng.standard_normal((3, neurons)) - sd**2 / 2)
            weight = np.exp(sd * rng.standard_normal((inputs, neurons)) - sd**2 / 2)
            one, none = np.ones(neurons), np.zeros(neurons)
            found.append(LayerDeviations(weight, one, one, tau_mem, tau_syn, tau_syn, one, threshold, none, none))
        return tuple(found)


class ChipSpread:
    """Emulated chips of one description, a network placed on them as in a compiled program.

    Args:
        chip: the description.
        program: of the network, compiled for it; weights in it do not matter.
        calibrated: with the residual spread that calibration leaves (mode "residual").
    """

    def __init__(self, chip: AnalogChip, program: AnalogProgram, *, calibrated: bool = False) -> None:
        self.chip, self.program, self.calibrated = chip, program, calibrated

    def draw(self, serial: int, scale: float = 1.0) -> tuple[LayerDeviations, ...]:
        """As :class:`Spread`."""
        chip = VirtualChip(self.chip, serial, scale=scale)
        return chip.deviations(self.program, calibrate(chip, self.program) if self.calibrated else None)
