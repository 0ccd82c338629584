"""Output tensors of the CPU kernels: large ones come from a pool, because fresh memory costs more than the kernel."""

from collections.abc import Sequence
from math import prod

import torch

from neurodeploy.extension import native

_native = native.buffers

POOLED_BYTES = 1 << 20
"""Tensors of at least this many bytes come from the pool; below, torch's own allocator reuses memory well."""


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return an uninitialised contiguous CPU tensor (float32 or float64).

    The memory of a large tensor goes back to the pool when its last reference, autograd's included, is gone.
    """
    if prod(shape) * dtype.itemsize < POOLED_BYTES:
        return torch.empty(shape, dtype=dtype)
    tensor: torch.Tensor = _native.tensor(list(shape), dtype == torch.float64)
    return tensor


def release() -> None:
    """Give the memory of all unused buffers back to the operating system."""
    _native.empty()


def used_bytes() -> int:
    """Bytes of pooled buffers that tensors hold now."""
    return int(_native.used_bytes())


def free_bytes() -> int:
    """Bytes of pooled buffers that wait to be used again."""
    return int(_native.free_bytes())
