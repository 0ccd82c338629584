"""Exact error backpropagation through spike times (Bacho & Chu 2022; see README.md).

Not an algorithm of neurons in time steps: what goes from layer to layer are spike times. ``apply`` runs one layer and
is differentiable, ``observe`` gives a chip's spike times the model's gradient, ``reference`` is the readable
definition, :mod:`neurodeploy.nn` has the layers and losses.
"""

from neurodeploy.kernels.spike_time import reference
from neurodeploy.kernels.spike_time.neuron import Reset, SpikeTimeNeuron
from neurodeploy.kernels.spike_time.operators import GRAZING, Output, SpikeOverflowError, apply, observe

__all__ = ["GRAZING", "Output", "Reset", "SpikeOverflowError", "SpikeTimeNeuron", "apply", "observe", "reference"]
