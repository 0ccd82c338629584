"""What the scans of all algorithms over ``[B, T, N]`` have in common on the host: launches, sums of lanes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from neurodeploy.gpu import launch


class Scan(NamedTuple):
    """How one array is walked: its lanes (neurons of samples), and the programs that walk them.

    Attributes:
        sizes: the kernel's integer arguments: lanes, neurons, steps, stride of samples, stride of steps.
        constants: the kernel's constants ``STEPS``, ``TAIL``, ``BLOCK``, ``WIDE``.
        grid: number of programs.
        warps: of a program.
    """

    sizes: tuple[int, int, int, int, int]
    constants: dict[str, Any]
    grid: tuple[int]
    warps: int

    @property
    def lanes(self) -> int:
        """Neurons of all samples."""
        return self.sizes[0]


def scan(x: torch.Tensor, time_major: bool, *, widest: int, rows: int) -> Scan:
    """Plan the walk over x [B, T, N], or [T, B, N] with ``time_major``.

    Args:
        x: only its shape is used.
        time_major: order of the axes.
        widest: lanes of one thread at most.
        rows: lanes of one thread times steps that it has in registers.
    """
    first, second, neurons = x.shape
    batch, steps = (second, first) if time_major else (first, second)
    lanes = batch * neurons
    strides = (neurons, lanes) if time_major else (steps * neurons, neurons)
    block = launch.block(lanes, widest)
    together = launch.rows(steps, min(16, rows // block.per_thread))  # compiling more takes too long
    constants = {
        "STEPS": together,
        "TAIL": steps % together != 0,
        "BLOCK": block.lanes,
        "WIDE": lanes + block.lanes >= 2**31,
    }
    return Scan((lanes, neurons, steps, *strides), constants, (-(-lanes // block.lanes),), block.warps)


class Chunks(NamedTuple):
    """How the time axis is split: ``number`` chunks of ``steps``, the last one shorter."""

    number: int
    steps: int


WHOLE = 1 << 30
"""Steps of the only chunk where time is not split."""


BACKWARD_CHUNK = 64
"""Steps of a chunk of the backward pass at least."""


def backward_chunks(walk: Scan) -> Chunks:
    """Split time where lanes alone leave the chip idle; the gradient's scan is linear, so that chunks can be joined.

    A split reads everything twice, so it takes at least four chunks to pay.
    """
    steps = walk.sizes[2]
    count = min(launch.CHIP_LANES // max(walk.lanes, 1), steps // BACKWARD_CHUNK)
    if count < 4:
        return Chunks(1, WHOLE)
    length = -(-steps // count // 32) * 32
    return Chunks(-(-steps // length), length)


FORWARD_CHUNK = 512
"""Steps of a chunk of the forward pass, and of the warm-up before it."""


def forward_chunks(walk: Scan) -> Chunks:
    """Split time for a forward pass whose chunks start from a guess; with a warm-up that costs twice the steps."""
    steps = walk.sizes[2]
    if walk.lanes * 4 > launch.CHIP_LANES or steps < 4 * FORWARD_CHUNK:
        return Chunks(1, WHOLE)
    return Chunks(-(-steps // FORWARD_CHUNK), FORWARD_CHUNK)


def slowest_decay(dtype: torch.dtype) -> float:
    """The decay per step with which a chunk's warm-up still forgets where it started from, to the last bit."""
    return float((torch.finfo(dtype).eps / 2) ** (1 / FORWARD_CHUNK))


def widest(dtype: torch.dtype) -> int:
    """Lanes of one thread that are read with one instruction, of 16 bytes, in the precision of the state."""
    return 16 // dtype.itemsize


def shared(values: Sequence[torch.Tensor | None]) -> int:
    """Bit k is set where number k is one for all neurons."""
    return sum(1 << k for k, value in enumerate(values) if value is not None and value.shape[0] == 1)


def add_up(of_lanes: torch.Tensor, neurons: int, value: torch.Tensor) -> torch.Tensor:
    """The gradient of ``value`` ([N] or [1]) from the sums of all lanes, float64: added in torch's fixed order."""
    per_sample = of_lanes.reshape(-1, neurons) if neurons else of_lanes.reshape(0, 0)
    total = per_sample.sum().reshape(1) if value.shape[0] == 1 else per_sample.sum(0)
    return total.to(value.dtype)
