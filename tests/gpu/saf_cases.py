"""Spike accumulation on a GPU, or in Triton's interpreter, beside the CPU: the same cases for both."""

import torch

from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels import saf
from neurodeploy.kernels.saf import gpu
from neurodeploy.surrogate import code


def check_against_cpu(
    form: saf.Form, neuron: Neuron, dtype: torch.dtype, shape: tuple[int, int, int], *, per_neuron: bool, device: str
) -> None:
    """Run both halves on [T, B, N] on the device and on the CPU: every result has the same bits."""
    batch, neurons = shape[1:]

    def draw(low: float, high: float, size: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(size, dtype=dtype) * (high - low) + low

    count = (neurons if per_neuron else 1,)
    values = Parameters(draw(0.9, 0.9, (1,)), draw(0.7, 1.3, count), draw(0.5, 1.5, count), draw(0.7, 1.3, count))
    z = torch.randn(shape, dtype=dtype) + 1
    potential = draw(0, 1, (0,) if form == "closed" else (batch, neurons))
    tensors = (z, potential, draw(0, 1, (batch, neurons)), values.decay, values.threshold, values.input_gain)
    there = tuple(tensor.to(device) for tensor in tensors)
    for keep in (False, True):
        expected = torch.ops.neurodeploy.saf_forward(*tensors, form, neuron.max_spikes, keep)
        found = gpu.forward(*there, form, neuron.max_spikes, keep)
        for name, a, b in zip(("a", "spikes", "kept", "potential"), expected, found, strict=True):
            assert torch.equal(a, b.cpu()), name
    grad, kept = torch.randn(shape, dtype=dtype), expected[2]
    rest = values.threshold, values.input_gain, values.unit
    wanted = torch.ops.neurodeploy.saf_backward(grad, kept, *rest, *code(neuron.surrogate))
    on_device = (tensor.to(device) for tensor in (grad, kept, *rest))
    assert torch.equal(wanted, gpu.backward(*on_device, *code(neuron.surrogate)).cpu())
