"""Sums over recordings that become the metrics of an epoch, and can be added across processes in a fixed order."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from neurodeploy.quantize.guards import Guard, guard_activity
from neurodeploy.train.activity import Activity


@dataclass
class Tally:
    """Sums over recordings.

    Attributes:
        recordings, correct: how many there were, and how many were answered with their label.
        loss: sum of the recordings' losses.
        spikes, neuron_steps: per spiking layer, as in ``Activity``.
        synops: per weight layer.
        fed_by: spiking layer -> weight layer before it.
    """

    recordings: int = 0
    correct: int = 0
    loss: float = 0.0
    spikes: dict[str, float] = field(default_factory=dict)
    neuron_steps: dict[str, int] = field(default_factory=dict)
    synops: dict[str, float] = field(default_factory=dict)
    fed_by: dict[str, str] = field(default_factory=dict)

    def add(self, loss: torch.Tensor, counts: torch.Tensor, labels: torch.Tensor, activity: Activity) -> None:
        """Add a batch: its mean loss, output counts ``[B, outputs]``, labels ``[B]`` and what it did in the network."""
        self.merge(
            Tally(
                recordings=labels.numel(),
                correct=int((counts.argmax(1) == labels).sum()),
                loss=loss.item() * labels.numel(),
                spikes={name: spikes.sum().item() for name, spikes in activity.spikes.items()},
                neuron_steps={name: steps * labels.numel() for name, steps in activity.neuron_steps.items()},
                synops={name: synops.sum().item() for name, synops in activity.synops.items()},
                fed_by=dict(activity.fed_by),
            )
        )

    def merge(self, other: "Tally") -> None:
        """Add another tally."""
        self.recordings += other.recordings
        self.correct += other.correct
        self.loss += other.loss
        for sums, more in ((self.spikes, other.spikes), (self.synops, other.synops)):
            for name, value in more.items():
                sums[name] = sums.get(name, 0.0) + value
        for name, steps in other.neuron_steps.items():
            self.neuron_steps[name] = self.neuron_steps.get(name, 0) + steps
        self.fed_by.update(other.fed_by)

    def means(self) -> dict[str, Any]:
        """Loss and accuracy, spikes per neuron and step of each layer, synaptic operations per recording."""
        return {
            "loss": self.loss / self.recordings,
            "accuracy": self.correct / self.recordings,
            "rates": {name: spikes / self.neuron_steps[name] for name, spikes in self.spikes.items()},
            "synops": sum(self.synops.values()) / self.recordings,
            "layer_synops": {name: synops / self.recordings for name, synops in self.synops.items()},
        }

    def guards(self) -> list[Guard]:
        """Warnings about layers that were silent or saturated."""
        return [
            guard
            for name, spikes in self.spikes.items()
            for guard in guard_activity(name, spikes=spikes, updates=self.synops.get(self.fed_by[name], 0.0))
        ]


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum, taken in the given order."""
    result = Tally()
    for tally in tallies:
        result.merge(tally)
    return result
