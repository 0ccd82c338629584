"""A network that answers by its first spike, trained exactly through its spike times: no time steps, no surrogate.

The task is Yin-Yang (Kriener, Goeltz, Petrovici 2022): is a point of the disc in the yin, the yang or one of the dots?

Run it: python examples/07_spike_times.py [EPOCHS]
"""

import sys
from time import perf_counter

import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.events import yin_yang, yin_yang_times

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 8
TRAIN, TEST, BATCH, HIDDEN = 5000, 1000, 100, 120
T_EARLY, T_LATE, T_MAX = 0.15, 2.0, 6.0  # times are in units of tau_syn


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spike times of points (count, 5, 1), and their classes."""
    points, labels = yin_yang(count, seed=seed)
    times = yin_yang_times(points, t_early=T_EARLY, t_late=T_LATE)
    return torch.from_numpy(times).float(), torch.from_numpy(labels)


generator = torch.Generator().manual_seed(0)
torch.manual_seed(0)
train, test = data(TRAIN, seed=0), data(TEST, seed=1)

# tau_mem = 2 tau_syn: crossings in closed form. An endless refractory time: every neuron fires once at most.
neuron = nd.nn.SpikeTimeNeuron(tau_mem=2.0, tau_syn=1.0, reset="value", t_ref=torch.inf)
network = nn.Sequential(
    nd.nn.SpikeTimeLinear(5, HIDDEN, neuron, max_spikes=1, t_max=T_MAX, revive=0.01),
    nd.nn.SpikeTimeLinear(HIDDEN, 3, neuron, max_spikes=1, t_max=T_MAX, revive=0.3),
)
network[0].reset_parameters(mean=2.8, std=0.7)  # multiples of the threshold: strong enough that few are silent
network[1].reset_parameters(mean=22.0, std=3.2)


def accuracy(times: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of points where the right neuron fires first."""
    with torch.no_grad():
        first = network(times)[..., 0]
    return float((first.argmin(1) == labels).float().mean())


optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
for epoch in range(EPOCHS):
    start = perf_counter()
    for batch in torch.randperm(TRAIN, generator=generator).split(BATCH):
        times = network(train[0][batch])
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
