"""Sum pooling: what a chip that adds events does."""

from typing import Any

import torch
import torch.nn.functional as F


class SumPool2d(torch.nn.Module):
    """Sum of each window, without padding: (..., C, H, W) to (..., C, H', W').

    Rows and columns at the end that do not fill a window are left out. Sums of whole numbers, as spike counts are, are
    exact; others are rounded in an order that depends on the window.

    Args:
        kernel_size: height and width of the window, or one number for both.
        stride: step of the window; None means the window's size.
    """

    def __init__(self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None) -> None:
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        chosen = self.kernel_size if stride is None else stride
        self.stride = (chosen, chosen) if isinstance(chosen, int) else chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sums; x has at least the three axes C, H, W."""
        if self._tiles(x):
            tiled: torch.Tensor = _SumOfTiles.apply(x, *self.kernel_size)  # type: ignore[no-untyped-call]
            return tiled
        folded = x.flatten(0, -4) if x.dim() > 4 else x
        pooled = F.avg_pool2d(folded, self.kernel_size, self.stride, divisor_override=1)
        return pooled.reshape(*x.shape[:-3], *pooled.shape[1:]) if x.dim() > 4 else pooled

    def extra_repr(self) -> str:
        """Show the window in ``repr``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"

    def _tiles(self, x: torch.Tensor) -> bool:
        """Whether the windows cover the map without gap or overlap, in a type that is added as it is."""
        height, width = self.kernel_size
        return (
            self.stride == self.kernel_size
            and height * width > 1
            and x.dim() >= 3
            and x.dtype in (torch.float32, torch.float64)
            and x.shape[-2] > 0
            and x.shape[-1] > 0
            and x.shape[-2] % height == 0
            and x.shape[-1] % width == 0
        )


class _SumOfTiles(torch.autograd.Function):
    """Sums as long additions of rows, then of columns: half the time of ``avg_pool2d``, forward and backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        rows = x.reshape(-1, height, x.shape[-1])
        total = _add([rows[:, i] for i in range(height)])
        columns = total.reshape(-1, width)
        total = _add([columns[:, i] for i in range(width)])
        return total.reshape(*x.shape[:-2], x.shape[-2] // height, x.shape[-1] // width)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, int, int], output: torch.Tensor) -> None:
        _, ctx.height, ctx.width = inputs

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0].repeat_interleave(ctx.width, -1).repeat_interleave(ctx.height, -2), None, None


def _add(parts: list[torch.Tensor]) -> torch.Tensor:
    """Sum into one new tensor; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total
