"""SLAYER: gradients of spiking layers without the path through the reset (Shrestha & Orchard 2018; see README.md).

The functions are those of :class:`neurodeploy.kernel.Kernel`.
"""

from neurodeploy.kernels.slayer import reference
from neurodeploy.native_layer import NativeLayer

__all__ = ["apply", "backward", "forward", "operators", "reference"]

_layer = NativeLayer("slayer")
operators = _layer.operators
apply, forward, backward = _layer.apply, _layer.forward, _layer.backward
