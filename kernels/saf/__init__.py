"""SAF: spike accumulation forwarding, and OTTT as its equivalent (Saiin et al. 2024; see README.md).

Not an algorithm of one layer (it has no ``cpu.cpp``): what moves between layers changes, so a whole network is run by
it, :class:`neurodeploy.nn.SAF`. This package has the parts: ``accumulate`` (potentials to accumulations, compiled),
``synapse`` (weights on accumulations), and ``reference``, the readable definition of the compiled part.
"""

from neurodeploy.kernels.saf import reference
from neurodeploy.kernels.saf.accumulation import Clamp, Form, Output, State, accumulate, refuse_neuron, silent
from neurodeploy.kernels.saf.synapse import WeightedMap, accumulate_input, news, replaced, weight_sums

__all__ = [
    "Clamp",
    "Form",
    "Output",
    "State",
    "WeightedMap",
    "accumulate",
    "accumulate_input",
    "news",
    "reference",
    "refuse_neuron",
    "replaced",
    "silent",
    "weight_sums",
]
