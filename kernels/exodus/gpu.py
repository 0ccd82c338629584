"""EXODUS on the GPU: the layer of ``neurodeploy/gpu/layer.py`` with the exact backward scan (README.md derives it)."""

from functools import partial

from neurodeploy.gpu import layer

__all__ = ["backward", "forward"]

forward = partial(layer.forward, True)
backward = partial(layer.backward, True)
