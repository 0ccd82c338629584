"""Analog chips differ from each other: train for that, compile, and say how many of them will work.

A network of spike times learns Yin-Yang twice: as it is, and with a fresh virtual chip for every batch. Both are
compiled for BrainScaleS-2; the second one, with fewer connections, for DYNAP-SE2 as well. The defaults are for a quick
look: 40 epochs and 100 chips take some minutes.

Run it: python examples/08_analog_chips.py [EPOCHS] [CHIPS] [FOLDER]
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.analog.monte_carlo import Conditions
from neurodeploy.events import SpikeTimes, save_spike_times, yin_yang, yin_yang_times
from neurodeploy.graph.pruning import fan_in_mask
from neurodeploy.train.analog import AnalogTraining
from neurodeploy.train.analog_levels import FourCurrentLevels, SignedLevels
from neurodeploy.train.analog_spread import UniformSpread

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
CHIPS = int(sys.argv[2]) if len(sys.argv) > 2 else 16
OUT = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(tempfile.mkdtemp())
TRAIN, TEST, BATCH, HIDDEN, FAN_IN = 3000, 300, 100, 120, 60
T_EARLY, T_LATE, T_MAX = 0.15, 2.0, 6.0  # in units of tau_syn
UNIT_S = {"bss2": 5e-3, "dynapse2": 20e-3}  # of the network's time: BrainScaleS-2 runs it 1,000 times faster


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spike times of points (count, 5, 1), and their classes."""
    points, labels = yin_yang(count, seed=seed)
    times = yin_yang_times(points, t_early=T_EARLY, t_late=T_LATE)
    return torch.from_numpy(times).float(), torch.from_numpy(labels)


def new_network() -> nn.Sequential:
    """5-120-3 neurons that fire once at most; weights are strong enough that few of them are silent."""
    torch.manual_seed(0)
    neuron = nd.nn.SpikeTimeNeuron(tau_mem=2.0, tau_syn=1.0, reset="value", t_ref=torch.inf)
    network = nn.Sequential(
        nd.nn.SpikeTimeLinear(5, HIDDEN, neuron, max_spikes=1, t_max=T_MAX, revive=0.01),
        nd.nn.SpikeTimeLinear(HIDDEN, 3, neuron, max_spikes=1, t_max=T_MAX, revive=0.3),
    )
    network[0].reset_parameters(mean=2.8, std=0.7)
    network[1].reset_parameters(mean=22.0, std=3.2)
    return network


def learn(training: AnalogTraining, epochs: int, lr: float) -> None:
    """Adam on the loss of the first spike; the chips' spread grows during the first half."""
    generator = torch.Generator().manual_seed(0)
    times, labels = data(TRAIN, seed=0)
    optimizer = torch.optim.Adam(training.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    training.train()
    for epoch in range(epochs):
        training.anneal((epoch + 1) / epochs)
        for batch in torch.randperm(TRAIN, generator=generator).split(BATCH):
            loss = nd.nn.first_spike_loss(training(times[batch]), labels[batch], temperature=0.2, t_silent=T_MAX)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(training.parameters(), 10.0)
            optimizer.step()
        schedule.step()
    training.eval()


def accuracy(training: AnalogTraining) -> float:
    """Share of points where the right neuron fires first, without mismatch."""
    times, labels = data(TEST, seed=1)
    with torch.no_grad():
        first = training(times)[..., 0]
    return float((first.argmin(1) == labels).float().mean())


def deploy(network: nn.Sequential, target: str, name: str, **conditions: str) -> None:
    """Compile, write what the kits take, and count the chips on which it works."""
    graph = nd.trace(network, torch.full((1, 5, 1), torch.inf), time_unit_s=UNIT_S[target])
    deployment = nd.compile(graph, target=target)
    deployment.save(OUT / name)
    files = [path.name for path in deployment.write_files(OUT / name / "files")]
    times, labels = data(TEST, seed=1)
    save_spike_times(OUT / f"{target}.npz", SpikeTimes(times.double().numpy() * UNIT_S[target], labels.numpy()))
    result = nd.chip_yield(OUT / name, OUT / f"{target}.npz", chips=CHIPS, conditions=Conditions(**conditions))
    level = round(result.nominal - 0.05, 3)
    result.save(OUT / name, level)
    print(f"{name}: {result.nominal:.1%} without mismatch, {result.summary()['mean']:.1%} on the average chip")
    print(f"  {result.statement(level)}")
    print(f"  for the kit: {', '.join(files)}")


plain = AnalogTraining(new_network())
learn(plain, EPOCHS, 5e-3)
print(f"trained as it is: {accuracy(plain):.1%}")

network = new_network()
aware = AnalogTraining(network, levels=SignedLevels(6), spread=UniformSpread([(5, HIDDEN), (HIDDEN, 3)], cv=0.1))
learn(aware, EPOCHS, 5e-3)
print(f"trained on virtual chips, weights of 6 bits: {accuracy(aware):.1%}")

deploy(plain.network, "bss2", "bss2_plain", calibration="residual")
deploy(network, "bss2", "bss2_aware", calibration="residual")

# A neuron of DYNAP-SE2 has 64 synapses, and weights of four currents: keep the largest, train on with the others at 0.
for layer in network:
    kept = torch.from_numpy(fan_in_mask(layer.weight.detach().numpy(), FAN_IN))
    layer.weight.data.mul_(kept)
    layer.weight.register_hook(lambda gradient, kept=kept: gradient * kept)
pruned = AnalogTraining(network, levels=FourCurrentLevels(), spread=aware.spread)
learn(pruned, max(1, EPOCHS // 3), 2e-3)
print(f"{FAN_IN} inputs per neuron, weights of four currents: {accuracy(pruned):.1%}")
deploy(network, "dynapse2", "dynapse2")
if len(sys.argv) > 3:
    print(f"reports: {OUT}/*/yield.html")
else:
    shutil.rmtree(OUT)
