"""Sum pooling: what a chip that adds events does."""

import torch
import torch.nn.functional as F


class SumPool2d(torch.nn.Module):
    """Sum of each window, without padding: (..., C, H, W) to (..., C, H', W').

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
        folded = x.flatten(0, -4) if x.dim() > 4 else x
        pooled = F.avg_pool2d(folded, self.kernel_size, self.stride, divisor_override=1)
        return pooled.reshape(*x.shape[:-3], *pooled.shape[1:]) if x.dim() > 4 else pooled

    def extra_repr(self) -> str:
        """Show the window in ``repr``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"
