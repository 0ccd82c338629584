"""How many threads a compiled pass takes; its results do not depend on it."""

import torch

LEAST_WORK = 1 << 14
"""Neuron-steps, or meetings of a spike with a neuron, for which another thread is worth its start."""


def threads_for(work: int) -> int:
    """As many of torch's threads as have :data:`LEAST_WORK` to do; at least one."""
    return max(1, min(torch.get_num_threads(), work // LEAST_WORK))
