"""The gradient through the reset, kept (EXODUS) and left out (SLAYER): four layers, the same spikes, other gradients.

Run it: python examples/04_exodus_and_slayer.py [PICTURE.png]     (the picture needs matplotlib)
"""

import sys
from pathlib import Path
from statistics import median

import torch
from torch import nn

import neurodeploy as nd

WIDTH = 48
LAYERS = 4
SEEDS = range(5)
STEPS = (50, 100, 200)
ALGORITHMS = ("exodus", "slayer")


def gradient_norms(algorithm: str, steps: int, seed: int) -> tuple[list[float], torch.Tensor]:
    """Return the norm of each layer's weight gradient, first layer first, and the output spikes (B, T, N)."""
    torch.manual_seed(seed)
    surrogate = nd.nn.SingleExponential(grad_width=1.0, grad_scale=1.0)
    network = nn.Sequential()
    for _ in range(LAYERS):
        linear = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.normal_(linear.weight, 0.5 / WIDTH, 1.2 / WIDTH**0.5)
        network.append(linear)
        network.append(nd.nn.IAF(spikes="single", surrogate=surrogate, algorithm=algorithm))
    spikes = network((torch.rand(4, steps, WIDTH) < 0.3).float())
    (spikes.mean(1) - 0.1).square().sum().backward()  # a loss on firing rates
    return [float(weight.grad.norm()) for weight in network.parameters()], spikes.detach()


norms = {}
for steps in STEPS:
    for seed in SEEDS:
        for algorithm in ALGORITHMS:
            norms[algorithm, steps, seed], spikes = gradient_norms(algorithm, steps, seed)
            if algorithm == "exodus":
                expected = spikes
        assert torch.equal(spikes, expected)  # the two differ in the backward pass alone

profiles = {  # per layer, relative to the last one
    (algorithm, steps): [
        median(norms[algorithm, steps, s][i] / norms[algorithm, steps, s][-1] for s in SEEDS) for i in range(LAYERS)
    ]
    for algorithm in ALGORITHMS
    for steps in STEPS
}
print(
    f"Norm of each layer's weight gradient over the last layer's; {LAYERS} IAF layers, median of {len(SEEDS)} networks"
)
print(f"{'T':>4}  {'algorithm':<9}" + "".join(f"{f'layer {i + 1}':>11}" for i in range(LAYERS)))
for steps in STEPS:
    for algorithm in ALGORITHMS:
        print(f"{steps:>4}  {algorithm:<9}" + "".join(f"{value:>11.3g}" for value in profiles[algorithm, steps]))

if len(sys.argv) > 1:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        sys.exit("The picture needs matplotlib: pip install matplotlib")
    colours = {"exodus": "tab:blue", "slayer": "tab:orange"}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_layer, by_steps = figure.subplots(1, 2)
    for algorithm in ALGORITHMS:
        style = {"color": colours[algorithm], "marker": "o", "label": algorithm.upper()}
        by_layer.plot(range(1, LAYERS + 1), profiles[algorithm, STEPS[-1]], **style)
        by_steps.plot(STEPS, [profiles[algorithm, steps][0] for steps in STEPS], **style)
        for seed in SEEDS:
            ratios = [norms[algorithm, steps, seed][0] / norms[algorithm, steps, seed][-1] for steps in STEPS]
            by_steps.plot(STEPS, ratios, color=colours[algorithm], linewidth=0.5, alpha=0.5)
    by_layer.set(title=f"T = {STEPS[-1]}", xlabel="layer", ylabel="gradient norm / that of layer 4")
    by_layer.set_xticks(range(1, LAYERS + 1))
    by_steps.set(title="first layer over last", xlabel="time steps T", xscale="log", ylabel="gradient norm ratio")
    by_steps.set_xticks(STEPS, [str(steps) for steps in STEPS], minor=False)
    by_steps.set_xticks([], minor=True)
    for axes in (by_layer, by_steps):
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(loc="center right")
    figure.savefig(Path(sys.argv[1]), dpi=120)
    print(f"wrote {sys.argv[1]}")
