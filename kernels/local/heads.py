"""Auxiliary classifiers: what a block learns from when no gradient comes from the blocks after it."""

from math import prod

import torch

POOLED = 4
"""Height and width, at most, of the map that an auxiliary head sees."""


def auxiliary_head(shape: tuple[int, ...], n_classes: int) -> torch.nn.Module:
    """Build the default head: maps averaged to at most 4 x 4, normalized over the features, then one linear layer.

    Without the normalization a block lowers its loss by firing more, which gives the blocks after it dense input that
    drives their neurons far from the threshold, where they have no gradient.

    Args:
        shape: of the block's output without batch and time: ``(C, H, W)`` or ``(N,)``.
        n_classes: number of logits.

    Returns:
        a module from the mean output ``(B, *shape)`` to logits ``(B, n_classes)``.
    """
    layers: list[torch.nn.Module] = []
    if len(shape) == 3:
        channels, height, width = shape
        shape = (channels, min(height, POOLED), min(width, POOLED))
        layers.append(torch.nn.AdaptiveAvgPool2d(shape[1:]))
    features = prod(shape)
    return torch.nn.Sequential(
        *layers, torch.nn.Flatten(), torch.nn.LayerNorm(features), torch.nn.Linear(features, n_classes)
    )
