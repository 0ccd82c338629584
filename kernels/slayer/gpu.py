"""SLAYER on the GPU: the layer of ``neurodeploy/gpu/layer.py`` without the reset path in its gradient (README.md)."""

from functools import partial

from neurodeploy.gpu import layer

__all__ = ["backward", "forward"]

forward = partial(layer.forward, False)
backward = partial(layer.backward, False)
