"""EXODUS: exact gradients of spiking layers by the implicit function theorem (Bauer et al. 2023; see README.md).

The functions are those of :class:`neurodeploy.kernel.Kernel`.
"""

from neurodeploy.kernels.exodus import reference
from neurodeploy.native_layer import NativeLayer

__all__ = ["apply", "backward", "forward", "operators", "reference"]

_layer = NativeLayer("exodus")
operators = _layer.operators
apply, forward, backward = _layer.apply, _layer.forward, _layer.backward
