"""Temporally truncated local backpropagation: less memory, block by block and segment by segment (see README.md).

A schedule over the layers of any neuron kernel, not a kernel itself. Guo et al. 2023.
"""

from neurodeploy.kernels.local.heads import auxiliary_head
from neurodeploy.kernels.local.saved_bytes import SavedBytes
from neurodeploy.kernels.local.training import LocalStep, LocalTraining, Update

__all__ = ["LocalStep", "LocalTraining", "SavedBytes", "Update", "auxiliary_head"]
