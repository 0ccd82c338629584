"""Activity guards: warnings about layers that are silent, saturated, or whose weights jump over the threshold."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

#: A neuron that spikes on more than this share of its updates mostly passes its input on.
SPIKES_PER_UPDATE = 0.5

#: A weight above this many thresholds leaves a remainder that one spike per event does not work off for several events.
THRESHOLDS_PER_WEIGHT = 2.0


@dataclass(frozen=True)
class Guard:
    """One warning.

    Attributes:
        layer: name of the layer.
        code: ``silent``, ``saturated`` or ``weight-above-threshold``.
        value, limit: what was found and from where on it is a warning.
        message: in words, without the layer's name.
        remedy: what the user can do.
    """

    layer: str
    code: Literal["silent", "saturated", "weight-above-threshold"]
    value: float
    limit: float
    message: str
    remedy: str

    def __str__(self) -> str:
        """The layer, the message and the remedy."""
        return f"{self.layer}: {self.message} Remedy: {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)


def guard_activity(layer: str, *, spikes: float, updates: float, saturated: int = 0) -> list[Guard]:
    """Warnings about what one layer did on recordings.

    Args:
        layer: its name.
        spikes: spikes of the layer.
        updates: synaptic operations into it: one event added to one neuron.
        saturated: potentials that met the largest number of the chip's state word; 0 where that cannot happen.
    """
    if saturated:
        return [
            Guard(
                layer,
                "saturated",
                saturated,
                0,
                f"{saturated} times a potential met the largest number of its word and the rest was lost.",
                "train with smaller weights (max_weight) or a penalty on this layer's rate, or raise its threshold.",
            )
        ]
    if spikes == 0:
        return [
            Guard(
                layer,
                "silent",
                0,
                0,
                "no neuron fired in any recording" + ("." if updates else ", because no event reached the layer."),
                "lower its threshold, or train with a rate target for it (loss.activity); if it fires in float, "
                "fine-tune on the chip's integers (quantize_aware).",
            )
        ]
    share = spikes / updates if updates else float("inf")
    if share > SPIKES_PER_UPDATE:
        return [
            Guard(
                layer,
                "saturated",
                share,
                SPIKES_PER_UPDATE,
                f"it fires on {share:.0%} of its neurons' updates (an update gives one spike at most).",
                "raise its threshold, or train with a limit on its rate (loss.activity).",
            )
        ]
    return []


def guard_weight(layer: str, largest: float, threshold: float) -> list[Guard]:
    """A warning where the largest weight of a layer, as one event feels it, is above twice the threshold behind it."""
    ratio = largest / threshold
    if ratio <= THRESHOLDS_PER_WEIGHT:
        return []
    return [
        Guard(
            layer,
            "weight-above-threshold",
            ratio,
            THRESHOLDS_PER_WEIGHT,
            f"its largest weight {largest:.4g} is {ratio:.3g} times the threshold {threshold:.4g}; a chip neuron fires "
            "once per event and keeps the rest.",
            "train with max_weight at the threshold, or raise the threshold.",
        )
    ]
