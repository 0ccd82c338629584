"""What local training computes and moves, counted from the shapes of a network. Used by local_nmnist and local_alexnet.

Per recording and pass over all its steps, for weight layer l with M_l products per step:

- forward, and weight gradient: one operand is a spike (or a small count of them), so M_l each are *additions*;
- propagation of the error to the layer's input: both operands are real numbers: M_l *multiplications* (MACs). The first
  layer of a block needs none, because no gradient goes to a block's input;
- classifiers: forward and two backward products per segment, on the mean over the segment: MACs;
- neurons: with a decay one MAC per neuron and step forward, three backward (surrogate slope, reset path, decay).

Traffic counts every operand that an operation reads or writes once, 4 bytes each (spikes too, as they are stored here):
weight layer forward: input, weights, output; neurons forward: input, spikes, v; neurons backward: gradient, v, input
gradient; weight gradient: output gradient, input, weights; error propagation: output gradient, weights, input gradient;
pooling: input and output, both ways where the error passes; mean over the segment and its gradient: the block's output
each; optimizer: three numbers per weight and update for SGD, seven for Adam. Weights are read once per batch and
segment.
"""

from dataclasses import dataclass
from typing import Any

import torch

from neurodeploy import nn
from neurodeploy.kernels.local import LocalTraining

Weighted = torch.nn.Conv2d | torch.nn.Linear


@dataclass
class Counts:
    """Per recording: multiplications (of the synapses and classifiers, of the neurons), additions, bytes moved."""

    macs: float = 0.0
    neuron_macs: float = 0.0
    additions: float = 0.0
    traffic_bytes: float = 0.0


def shapes_per_step(net: torch.nn.Module, x: torch.Tensor, steps: int) -> dict[torch.nn.Module, tuple[int, int]]:
    """Numbers that enter and leave each layer per recording and step, for folded input of one recording."""
    found: dict[torch.nn.Module, tuple[int, int]] = {}

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        found[module] = (inputs[0].numel() // steps, output.numel() // steps)

    handles = [m.register_forward_hook(note) for m in net.modules() if not list(m.children())]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return found


def products(layer: Weighted, outputs: int) -> int:
    """Products per step of a weight layer."""
    return outputs * layer.weight[0].numel()


def count(local: LocalTraining, x: torch.Tensor, steps: int, batch: int) -> Counts:
    """Count one recording's share of a step on ``batch`` recordings; ``x`` is one recording, folded."""
    sizes = shapes_per_step(local.net, x, steps)
    length = local.truncation or steps
    segments = -(-steps // length)
    updates = 1 if local.update == "accumulate" else segments
    per_update = 7 if isinstance(local.optimizers[-1], torch.optim.Adam) else 3
    total = Counts()
    numbers = 0.0  # moved
    for block, head in zip(local.blocks, local.heads, strict=True):
        error_passes = False  # whether the layer's input needs a gradient
        for layer in block.layers:
            inputs, outputs = sizes[layer]
            if isinstance(layer, Weighted):
                done = products(layer, outputs) * steps
                weights = layer.weight.numel() / batch
                total.additions += 2 * done
                total.macs += done * error_passes
                numbers += (2 * inputs + 2 * outputs) * steps + 2 * weights * segments
                numbers += ((inputs + outputs) * steps + weights * segments) * error_passes
                numbers += per_update * weights * updates
                error_passes = True
            elif isinstance(layer, nn.SpikingLayer):
                leaks = float(layer.decay.detach().max()) < 1
                total.neuron_macs += outputs * steps * ((1 if leaks else 0) + (3 if leaks else 2))
                numbers += 6 * outputs * steps
            elif not isinstance(layer, torch.nn.Flatten):
                numbers += (inputs + outputs) * steps * (2 if error_passes else 1)
        numbers += 2 * outputs * steps  # the mean, and its gradient
        for layer in head.modules():
            if isinstance(layer, torch.nn.Linear):
                total.macs += 3 * layer.weight.numel() * segments
                numbers += (3 * segments + per_update * updates) * layer.weight.numel() / batch
    total.traffic_bytes = 4 * numbers
    return total


def compared(ours: Counts, whole: Counts) -> dict[str, Any]:
    """Relative changes against training the whole network through all of time."""

    def change(a: float, b: float) -> float:
        return a / b - 1

    return {
        "macs": change(ours.macs, whole.macs),
        "macs_with_neurons": change(ours.macs + ours.neuron_macs, whole.macs + whole.neuron_macs),
        "additions": change(ours.additions, whole.additions),
        "traffic": change(ours.traffic_bytes, whole.traffic_bytes),
    }
