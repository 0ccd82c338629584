"""Layers of spike times on a GPU, or in Triton's interpreter, beside the CPU: the same cases for both."""

from math import inf
from typing import Any

import torch

from neurodeploy.kernels.spike_time import SpikeTimeNeuron, gpu

TAU_SYN = 0.01
SOFT: dict[str, Any] = {"drop": 0.6}
HARD: dict[str, Any] = {"reset": "value", "v_reset": -0.3, "t_ref": 0.003}
ONCE: dict[str, Any] = {"reset": "value", "t_ref": inf}


def neurons(ratio: float, count: int, each: bool, options: dict[str, Any]) -> SpikeTimeNeuron:
    """Neurons of one ratio of time constants; ``each``: with one constant per neuron, all three solvers among them."""
    if not each:
        return SpikeTimeNeuron(tau_mem=ratio * TAU_SYN, tau_syn=TAU_SYN, **options)
    ratios = torch.tensor([2.0, 1.0, ratio]).double().repeat(count)[:count]
    return SpikeTimeNeuron(tau_mem=ratios * TAU_SYN, tau_syn=TAU_SYN, **options)


def case(
    neuron: SpikeTimeNeuron, dtype: torch.dtype, batch: int, inputs: int, slots: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Times over eight synaptic time constants, a fifth of the slots empty, two together; weights of both signs."""
    times = torch.rand(batch, inputs, slots, dtype=torch.float64) * 8 * TAU_SYN
    times[torch.rand(times.shape) < 0.2] = inf
    times[:, 1] = times[:, 0]
    weight = (0.4 * torch.randn(inputs, count, dtype=torch.float64) + 0.2) / neuron.peak_response()
    return times.to(dtype), weight.to(dtype)


def check_against_cpu(
    times: torch.Tensor,
    weight: torch.Tensor,
    neuron: SpikeTimeNeuron,
    *,
    device: str,
    max_spikes: int = 60,
    t_max: float = 0.1,
) -> torch.Tensor:
    """Run both halves on the device and on the CPU and compare; return the counts.

    Spikes, their times and all that is kept of them have the same bits. So have the terms of the gradients, but not
    their sums: n numbers added in two orders differ by at most 2 n 2^-53 times the sum of their sizes.
    """
    cells = neuron.rows(weight.shape[1]).contiguous()
    hard = neuron.reset == "value"
    run = (hard, t_max, 1e-3)
    there = times.to(device), weight.to(device), cells
    expected = torch.ops.neurodeploy.spike_time_forward(times, weight, cells, hard, max_spikes, t_max, 1e-3, True)
    found = gpu.forward(*there, hard, max_spikes, t_max, 1e-3, True)
    for name, a, b in zip(("times", "counts", "grazing", "interval", "offset", "drive"), expected, found, strict=True):
        assert torch.equal(a, b.cpu()), name
    quick = gpu.forward(*there, hard, max_spikes, t_max, 1e-3, False)
    assert torch.equal(quick[0], found[0])

    grad = torch.randn_like(expected[0])
    kept = [expected[k] for k in (1, 3, 4, 5)]
    by_weight, by_time = gpu.backward(grad.to(device), *there, *(tensor.to(device) for tensor in kept), *run, True)
    alone = _terms(grad, times, weight, cells, kept, run)
    batch, inputs, slots = times.shape
    terms_of_weights = alone[0].permute(3, 1, 0, 2).reshape(inputs, -1, batch * slots)
    terms_of_times = alone[1].permute(0, 3, 2, 1)
    for terms, actual in ((terms_of_weights, by_weight), (terms_of_times, by_time)):
        sums = terms.sum(-1)
        rounding = torch.finfo(actual.dtype).eps * sums.abs() + 2 * terms.shape[-1] * 2.0**-53 * terms.abs().sum(-1)
        assert ((actual.cpu().double() - sums).abs() <= rounding).all()
    only_weight, nothing = gpu.backward(grad.to(device), *there, *(tensor.to(device) for tensor in kept), *run, False)
    assert torch.equal(only_weight, by_weight)
    assert nothing.numel() == 0
    return expected[1]


def _terms(
    grad: torch.Tensor,
    times: torch.Tensor,
    weight: torch.Tensor,
    cells: torch.Tensor,
    kept: list[torch.Tensor],
    run: tuple[bool, float, float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each input slot of each sample adds to the gradients, neuron by neuron: [B, N, slots, inputs] twice."""
    batch, inputs, slots = times.shape
    apart = times.double().reshape(batch, -1, 1)  # every slot an input of its own
    rows = weight.double().repeat_interleave(slots, 0)
    parts = []
    for b in range(batch):
        for n in range(weight.shape[1]):
            at = slice(b, b + 1), slice(n, n + 1)
            of_neuron = [kept[0][at].contiguous(), *(tensor[:, *at].contiguous() for tensor in kept[1:])]
            cell = cells[:, n : n + 1].contiguous() if cells.shape[1] > 1 else cells
            own = grad[at].double().contiguous(), apart[at[0]], rows[:, at[1]].contiguous(), cell
            by_weight, by_time = torch.ops.neurodeploy.spike_time_backward(*own, *of_neuron, *run, True)
            parts.append(torch.stack([by_weight[:, 0], by_time[0, :, 0]]))
    both = torch.stack(parts).reshape(batch, weight.shape[1], 2, inputs, slots).transpose(3, 4)
    return both[:, :, 0], both[:, :, 1]
