"""Spiking layers as ``torch.nn.Module``s: drop-in beside ``Conv2d``, ``Linear`` and ``AvgPool2d``."""

from neurodeploy.kernels.spike_time import SpikeTimeNeuron
from neurodeploy.nn.accelerate import accelerate
from neurodeploy.nn.layer import State, TimeLayer, reset_states
from neurodeploy.nn.merge import Merge
from neurodeploy.nn.over_time import OverTime
from neurodeploy.nn.pooling import SumPool2d
from neurodeploy.nn.recurrent import ALIFRecurrent, CubaLIFRecurrent, IAFRecurrent, LIFRecurrent
from neurodeploy.nn.saf import SAF, Feedback
from neurodeploy.nn.spike_time import SpikeTimeConv2d, SpikeTimeLayer, SpikeTimeLinear
from neurodeploy.nn.spike_time_losses import first_spike_loss, spike_count_loss, spike_time_loss
from neurodeploy.nn.spiking import IAF, LIF, NeuronLayer, SpikingLayer
from neurodeploy.nn.srm import SRMAlpha, SRMState
from neurodeploy.nn.synaptic import ALIF, LI, CubaLIF, SynapseFilter
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
    "ALIF",
    "IAF",
    "LI",
    "LIF",
    "SAF",
    "ALIFRecurrent",
    "Arctan",
    "Box",
    "CubaLIF",
    "CubaLIFRecurrent",
    "Feedback",
    "Heaviside",
    "IAFRecurrent",
    "LIFRecurrent",
    "Merge",
    "NeuronLayer",
    "OverTime",
    "PeriodicExponential",
    "SRMAlpha",
    "SRMState",
    "Sigmoid",
    "SingleExponential",
    "SpikeTimeConv2d",
    "SpikeTimeLayer",
    "SpikeTimeLinear",
    "SpikeTimeNeuron",
    "SpikingLayer",
    "State",
    "SumPool2d",
    "Surrogate",
    "SynapseFilter",
    "TimeLayer",
    "accelerate",
    "first_spike_loss",
    "reset_states",
    "spike_count_loss",
    "spike_time_loss",
]
