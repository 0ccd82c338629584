"""A network that answers by its first spike, trained exactly through its spike times: no time steps, no surrogate.

The task is Yin-Yang (Kriener, Goeltz, Petrovici 2022): is a point of the disc in the yin, the yang or one of the dots?

Run it: python examples/07_spike_times.py [EPOCHS]     (30 epochs: 95.8 % with this seed, 93.7 % with seed 1)
"""

import sys
from time import perf_counter

import torch
from torch import nn

import neurodeploy as nd

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 8
TRAIN, TEST, BATCH, HIDDEN = 5000, 1000, 100, 120
T_EARLY, T_LATE, T_MAX = 0.15, 2.0, 6.0  # times are in units of tau_syn


def yin_yang(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points (count, 2) of the disc in the unit square and their classes, each a third: yin, yang, dot."""
    radius, dot = 0.5, 0.1
    points, labels = torch.empty(0, 2), torch.empty(0, dtype=torch.long)
    while min(int((labels == c).sum()) for c in range(3)) < -(-count // 3):
        drawn = torch.rand(4 * count, 2, generator=generator)
        drawn = drawn[(drawn - radius).norm(dim=1) <= radius]
        right = (drawn - torch.tensor([1.5 * radius, radius])).norm(dim=1)
        left = (drawn - torch.tensor([0.5 * radius, radius])).norm(dim=1)
        upper = drawn[:, 1] > radius
        yang = (left <= 0.5 * radius) | (upper & (right > 0.5 * radius))
        points = torch.cat([points, drawn])
        labels = torch.cat([labels, torch.where((right < dot) | (left < dot), 2, yang.long())])
    chosen = torch.cat([(labels == c).nonzero()[: -(-count // 3), 0] for c in range(3)])
    chosen = chosen[torch.randperm(len(chosen), generator=generator)[:count]]
    return points[chosen], labels[chosen]


def spike_times(points: torch.Tensor) -> torch.Tensor:
    """One spike per input: x, y, 1 - x, 1 - y, and one at the start in the place of a bias; (B, 5, 1)."""
    values = torch.cat([points, 1 - points, torch.zeros(len(points), 1)], 1)
    times = T_EARLY + values * (T_LATE - T_EARLY)
    return times[..., None]


generator = torch.Generator().manual_seed(0)
torch.manual_seed(0)
train, test = yin_yang(TRAIN, generator), yin_yang(TEST, generator)

# tau_mem = 2 tau_syn: crossings in closed form. An endless refractory time: every neuron fires once at most.
neuron = nd.nn.SpikeTimeNeuron(tau_mem=2.0, tau_syn=1.0, reset="value", t_ref=torch.inf)
network = nn.Sequential(
    nd.nn.SpikeTimeLinear(5, HIDDEN, neuron, max_spikes=1, t_max=T_MAX, revive=0.01),
    nd.nn.SpikeTimeLinear(HIDDEN, 3, neuron, max_spikes=1, t_max=T_MAX, revive=0.3),
)
network[0].reset_parameters(mean=2.8, std=0.7)  # multiples of the threshold: strong enough that few are silent
network[1].reset_parameters(mean=22.0, std=3.2)


def accuracy(points: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of points where the right neuron fires first."""
    with torch.no_grad():
        first = network(spike_times(points))[..., 0]
    return float((first.argmin(1) == labels).float().mean())


optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
for epoch in range(EPOCHS):
    start = perf_counter()
    for batch in torch.randperm(TRAIN, generator=generator).split(BATCH):
        times = network(spike_times(train[0][batch]))
        right = times[torch.arange(len(batch)), train[1][batch], 0].clamp(max=T_MAX)
        loss = nd.nn.first_spike_loss(times, train[1][batch], temperature=0.2, t_silent=T_MAX) + 0.01 * right.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)  # a spike that grazes the threshold has a long gradient
        optimizer.step()
    schedule.step()
    silent = network[0].silent / (len(batch) * HIDDEN)
    print(
        f"epoch {epoch + 1:>3}  loss {loss.item():.3f}  test accuracy {accuracy(*test):.3f}  "
        f"silent in the hidden layer {silent:.0%}  {perf_counter() - start:.1f} s"
    )
