"""Tensors on the GPU, with clear words where they do not fit."""

from collections.abc import Sequence
from math import prod

import torch

from neurodeploy.errors import KernelError


def empty(shape: Sequence[int], dtype: torch.dtype, like: torch.Tensor) -> torch.Tensor:
    """Return an uninitialised contiguous tensor on the device of ``like``.

    Raises:
        KernelError: the device has not that much memory left.
    """
    try:
        return torch.empty(tuple(shape), dtype=dtype, device=like.device)
    except torch.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(like.device)
        raise KernelError(
            f"{like.device} has no room for an array of shape {tuple(shape)} in {dtype}: it needs "
            f"{prod(shape) * dtype.itemsize / 2**20:,.0f} MiB, {free / 2**20:,.0f} of {total / 2**20:,.0f} MiB are "
            f"free, and {torch.cuda.memory_reserved(like.device) / 2**20:,.0f} MiB are reserved by this process.",
            remedy="use memory='recompute', a smaller batch, bfloat16 input, or shorter chunks of time.",
            code="kernel-gpu-memory",
        ) from error
