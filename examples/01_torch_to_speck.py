"""A torch network with spiking layers: trace it, compile it for a Speck, run events through the chip's integers.

Run it: python examples/01_torch_to_speck.py
"""

import numpy as np
import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.events import simulate_digit_events

# A network as any torch user writes one; IAF neurons stand where an ANN has its ReLUs. (Random weights: this example
# is about the way to the chip, `make demo` trains.)
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(2, 8, kernel_size=5, stride=2, padding=1, bias=False),
    nd.nn.IAF(threshold=1.0, v_min=-1.0, batch_size=1),
    nd.nn.SumPool2d(2),
    nn.Flatten(),
    nn.Linear(8 * 8 * 8, 10, bias=False),
    nd.nn.IAF(threshold=1.0, v_min=-1.0, batch_size=1),
)

graph = nd.trace(network, torch.zeros(1, 2, 34, 34))
deployment = nd.compile(graph, target="speck2f")
for name, core in deployment.layers.items():
    print(f"layer {name} is on core {core.core}: {core.output_shape} neurons, threshold {core.threshold_high}")

# Two handwritten digits, seen by a simulated event camera.
recordings, _ = simulate_digit_events(2, 1, seed=0)
events, label = recordings[0]
run = deployment.emulate(events)
print(f"digit {label}: {len(events)} events in, {run.stats['synops']:,} SynOps")
print(f"spikes per output neuron: {run.output_counts.tolist()}")

# The emulator is exact: the same events in two pieces, streamed through one executor, give the same spikes.
stream = deployment.executor()
pieces = [stream.run(events[:1000]), stream.run(events[1000:])]
np.testing.assert_array_equal(np.concatenate([piece.spikes for piece in pieces]), run.spikes)
print("streamed in two pieces: the same spikes")
