"""Spiking layers as ``torch.nn.Module``s: drop-in beside ``Conv2d``, ``Linear`` and ``AvgPool2d``."""

from neurodeploy.nn.accelerate import accelerate
from neurodeploy.nn.merge import Merge
from neurodeploy.nn.over_time import OverTime
from neurodeploy.nn.pooling import SumPool2d
from neurodeploy.nn.saf import SAF, Feedback
from neurodeploy.nn.spiking import IAF, LIF, SpikingLayer, reset_states
from neurodeploy.surrogate import (
    Arctan,
    Box,
    Heaviside,
    PeriodicExponential,
    Sigmoid,
    SingleExponential,
    Surrogate,
)

__all__ = [
    "IAF",
    "LIF",
    "SAF",
    "Arctan",
    "Box",
    "Feedback",
    "Heaviside",
    "Merge",
    "OverTime",
    "PeriodicExponential",
    "Sigmoid",
    "SingleExponential",
    "SpikingLayer",
    "SumPool2d",
    "Surrogate",
    "accelerate",
    "reset_states",
]
