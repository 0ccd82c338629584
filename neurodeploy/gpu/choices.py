"""The choices of one neuron step as compile-time constants of a kernel."""

from typing import NamedTuple

import numpy as np
import torch

NO_LIMIT = float("-inf")


class Choices(NamedTuple):
    """What a kernel is compiled for. Kernels see it as ``C: tl.constexpr``; numbers take the state's precision.

    Attributes:
        reset: 0 subtract, 1 zero, 2 none (the position in ``native_layer.RESETS``).
        max_spikes: spikes per step at most; 0 means no limit.
        v_min_before, v_min_after: lower limits before the threshold and after the reset; -inf for none.
        surrogate: the position in ``neurodeploy.surrogate.KINDS``.
        width, scale, inverse_width: of the surrogate; the last one rounded like the processor's.
        soft: spikes are the surrogate's primitive (float64).
        reset_path: gradients flow through the reset (EXODUS), or not (SLAYER).
        threshold_level: 0.0 where the gradient leaves out that an adapting threshold's level moves, else 1.0.
    """

    reset: int
    max_spikes: int
    v_min_before: float
    v_min_after: float
    surrogate: int
    width: float
    scale: float
    inverse_width: float
    soft: bool
    reset_path: bool
    threshold_level: float


def inverse(width: float, dtype: torch.dtype) -> float:
    """``1 / width`` computed in ``dtype`` (float32 or float64), as native code does."""
    if dtype == torch.float64:
        return 1.0 / width
    return float(np.float32(1) / np.float32(width))
