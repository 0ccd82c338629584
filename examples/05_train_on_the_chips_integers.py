"""Few bits per weight cost a trained network its accuracy; a few more steps on the chip's integers bring it back.

python examples/05_train_on_the_chips_integers.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.events import dataset_to_raster, simulate_digit_events
from neurodeploy.train import OnChip

DT_US = 20_000
train, test = simulate_digit_events(800, 200, seed=0)
T = -(-max(train.duration_us, test.duration_us) // DT_US)

# A chip like Speck2f, but with 3 bits per weight: one file describes it.
chip = Path(tempfile.mkdtemp()) / "chip.yaml"
bits = "{weight_bits: {value: 3, source: invented}}"
chip.write_text(f"family: dynapcnn\nname: three-bits\ntitle: Three bits\nlimits: {bits}\nquantization: {bits}\n")

torch.manual_seed(0)
surrogate = nd.nn.PeriodicExponential(grad_width=0.5, grad_scale=2.0)
network = nn.Sequential(
    nn.Conv2d(2, 8, 5, stride=2, padding=1, bias=False),
    nd.nn.IAF(num_timesteps=T, surrogate=surrogate),
    nd.nn.SumPool2d(2),
    nn.Flatten(),
    nn.Linear(512, 10, bias=False),
    nd.nn.IAF(num_timesteps=T, surrogate=surrogate),
)
on_chip = OnChip(network, torch.zeros(T, 2, 34, 34), target=chip)


def train_epochs(forward, epochs, lr):
    """Train the weights of ``network`` through ``forward``: the network, or its integers."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for _ in range(epochs):
        for chosen in torch.randperm(len(train)).split(20):
            raster = dataset_to_raster(train, chosen.numpy(), dt_us=DT_US, n_time_steps=T)
            counts = forward(torch.from_numpy(raster).flatten(0, 1)).reshape(len(chosen), T, 10).sum(1)
            loss = nn.functional.cross_entropy(0.5 * counts, torch.from_numpy(train.labels[chosen.numpy()]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def accuracies():
    """In float, and event by event on the chip."""
    deployment = nd.compile(nd.trace(network, torch.zeros(T, 2, 34, 34)), target=chip)
    return nd.validate(deployment, test, dt_us=DT_US, explain=False).accuracy, deployment


train_epochs(network, epochs=4, lr=0.005)
before, _ = accuracies()
train_epochs(on_chip, epochs=2, lr=0.002)
after, deployment = accuracies()
print(f"trained in float:            {before['float']:.1%}, on the chip {before['event_driven']:.1%}")
print(f"then on the chip's integers: on the chip {after['event_driven']:.1%}")

# What trained is what ships: the integers of the compiled network are those of the forward pass.
shipped, trained = deployment.quantized.graph, on_chip.quantize().graph
assert all(np.array_equal(shipped.nodes[name].weight, trained.nodes[name].weight) for name in on_chip.quantized.layers)

for guard in nd.activity_guards(deployment, test[:20]):
    print(f"warning: {guard}")
chip.unlink()
chip.parent.rmdir()
