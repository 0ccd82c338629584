"""What activity costs: the terms of the loss that make a network quieter, or louder."""

import torch

from neurodeploy.errors import ConfigError
from neurodeploy.train.activity import Activity
from neurodeploy.train.config import ActivityPenalty, LossConfig


def priced(config: LossConfig) -> bool:
    """Whether the loss has such a term."""
    return config.synops_weight > 0 or bool(config.activity)


def activity_penalty(config: LossConfig, activity: Activity, duration_us: int) -> torch.Tensor:
    """The price of the activity of one forward pass, mean over recordings, float64 scalar; differentiable.

    Args:
        config: ``synops_weight`` and ``activity``.
        activity: the counts, differentiable.
        duration_us: length of a recording in microseconds.

    Raises:
        ConfigError: a penalty names a layer that the network does not have.
    """
    total = config.synops_weight * 1e-6 * activity.total_synops.mean()
    for penalty in config.activity:
        total = total + _penalty(penalty, activity, duration_us)
    return total


def _penalty(penalty: ActivityPenalty, activity: Activity, duration_us: int) -> torch.Tensor:
    known = activity.spikes if penalty.quantity == "rate" else activity.synops
    if penalty.layer is not None and penalty.layer not in known:
        raise ConfigError(
            f"loss.activity: there is no layer {penalty.layer!r} to take the {penalty.quantity} of.",
            remedy=f"the layers are: {', '.join(known)}.",
            code="activity-layer",
        )
    if penalty.quantity == "rate":
        names = list(activity.spikes) if penalty.layer is None else [penalty.layer]
        amounts = [activity.spikes[name] / activity.neuron_steps[name] for name in names]
    else:
        synops = activity.total_synops if penalty.layer is None else activity.synops[penalty.layer]
        amounts = [synops if penalty.quantity == "synops" else synops / (1e-6 * duration_us)]
    if penalty.target is not None:
        misses = [(amount / penalty.target - 1).square() for amount in amounts]
    else:
        misses = [(amount / (penalty.limit or 1) - 1).relu().square() for amount in amounts]
    return penalty.weight * torch.stack(misses).mean()
