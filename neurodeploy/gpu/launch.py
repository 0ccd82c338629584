"""Launching Triton kernels: one place for what they have in common, and for what a user has to know when it fails.

Kernels are compiled without contraction (``enable_fp_fusion=False``): products and sums round separately, as on the
processor. Nothing here waits for the device, so that launches can be captured in CUDA graphs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
import triton

from neurodeploy.errors import KernelError

OLDEST = (3, 5)
"""Version of triton from which on the kernels compile; torch 2.9 came with it."""

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST:
    raise KernelError(
        f"triton {triton.__version__} is installed; the kernels need {OLDEST[0]}.{OLDEST[1]} or newer.",
        remedy="pip install 'torch>=2.9', which brings a triton that fits, or move the network to the CPU.",
        code="kernel-triton",
    )

CHIP_LANES = 132 * 384
"""Lanes that keep the memory of a large chip busy, if each has sixteen steps of float32 on their way."""


class Block(NamedTuple):
    """Shape of a program: lanes (neurons of samples), and warps of 32 threads that share them."""

    lanes: int
    warps: int

    @property
    def per_thread(self) -> int:
        """Lanes of one thread, next to each other in memory: read with one instruction."""
        return self.lanes // (32 * self.warps)


def block(lanes: int, widest: int) -> Block:
    """The shape of programs for ``lanes`` in all, with up to ``widest`` (a power of two) of them per thread.

    It depends on sizes alone, not on the device: results that depend on it (sums of gradients) are the same everywhere.
    """
    per_thread = widest
    while per_thread > 1 and lanes < CHIP_LANES * per_thread:
        per_thread //= 2
    warps = 4
    while warps > 1 and lanes < CHIP_LANES * warps // 12:
        warps //= 2
    return Block(32 * warps * per_thread, warps)


def rows(steps: int, most: int) -> int:
    """Steps that a program has in registers at once: a power of two, at most ``most``, not far beyond ``steps``."""
    return min(most, 1 << max(steps - 1, 0).bit_length())


class Launch(NamedTuple):
    """One launch, as :func:`recorded` lists it."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int


_recording: list[list[Launch]] = []


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """List launches instead of carrying them out: how tests see what is compiled for which shapes. Not thread-safe."""
    launches: list[Launch] = []
    _recording.append(launches)
    try:
        yield launches
    finally:
        _recording.remove(launches)


def run(kernel: Any, grid: tuple[int, ...], arguments: Sequence[Any], warps: int, **constants: Any) -> None:
    """Launch ``kernel[grid](*arguments, **constants)`` on the device of the first tensor.

    ``maxnreg`` among the constants is the compiler's: how many registers a thread may take.

    Raises:
        KernelError: the kernel needs more of a resource than the device has.
    """
    if prod(grid) == 0:
        return
    if _recording:
        _recording[-1].append(Launch(kernel, grid, tuple(arguments), constants, warps))
        return
    device = next(value.device for value in arguments if isinstance(value, torch.Tensor))
    with torch.cuda.device(device if device.type == "cuda" else -1):
        try:
            kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)
        except triton.OutOfResources as error:
            raise KernelError(
                f"The GPU {device} cannot run this kernel: {error}.",
                remedy="use float32 instead of float64, or move the layer to the CPU.",
                code="kernel-gpu-resources",
            ) from error
