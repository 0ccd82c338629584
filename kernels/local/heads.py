"""Auxiliary classifiers: what a block learns from when no gradient comes from the blocks after it."""

from math import prod

import torch

POOLED = 4
"""Height and width, at most, of the map that an auxiliary head sees."""


def auxiliary_head(shape: tuple[int, ...], n_classes: int) -> torch.nn.Module:
    """Build the default head: maps averaged to at most 4 x 4, then one linear layer.

    Args:
        shape: of the block's output without batch and time: ``(C, H, W)`` or ``(N,)``.
        n_classes: number of logits.

    Returns:
        a module from the mean output ``(B, *shape)`` to logits ``(B, n_classes)``.
    """
    if len(shape) != 3:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(prod(shape), n_classes))
    channels, height, width = shape
    size = (min(height, POOLED), min(width, POOLED))
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(size),
        torch.nn.Flatten(),
        torch.nn.Linear(channels * size[0] * size[1], n_classes),
    )
