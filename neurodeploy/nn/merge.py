"""The sum of two branches."""

import torch

from neurodeploy.errors import KernelError


class Merge(torch.nn.Module):
    """Add two tensors of one shape: where spikes of two branches meet."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return ``first + second``.

        Raises:
            KernelError: the shapes differ (broadcasting would hide a mistake in a branch).
        """
        if first.shape != second.shape:
            raise KernelError(
                f"Merge got shapes {tuple(first.shape)} and {tuple(second.shape)}.",
                remedy="give both branches the same kernel, stride and padding, so that their outputs have one shape.",
                code="merge-shape",
            )
        return first + second
