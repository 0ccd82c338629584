"""Packed spikes are the layer's spikes, with a bias in front, on the processor; tests/gpu compares the GPU with it."""

import pytest
import torch

from neurodeploy import kernel, packed_layer
from neurodeploy.errors import KernelError
from neurodeploy.kernel import Neuron, Parameters


def values() -> Parameters:
    one = torch.ones(1)
    return Parameters(one * 0.9, one, one, one)


@pytest.mark.parametrize("spikes", ["single", "multi"])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 32, 71])
def test_packed_spikes_are_the_layers(spikes: str, time_major: bool, steps: int) -> None:
    torch.manual_seed(0)
    neuron = Neuron(spikes=spikes)  # type: ignore[arg-type]
    x, bias, state = torch.randn((steps, 2, 5) if time_major else (2, steps, 5)) * 2, torch.rand(5), torch.rand(2, 5)
    expected = kernel.load("exodus").apply(x + bias, values(), state, neuron, time_major=time_major)
    packed = packed_layer.run(x, bias, values(), state, neuron, time_major=time_major)
    assert packed.words.dtype == torch.int32
    assert packed.words.numel() == -(-steps // (32 if spikes == "single" else 4)) * 10
    assert torch.equal(packed_layer.unpack(packed.words, steps, neuron, time_major=time_major), expected.spikes)
    assert torch.equal(packed.counts, expected.spikes.sum(0 if time_major else 1).long())
    assert torch.equal(packed.state, expected.state)


def test_compiles_as_one_graph() -> None:
    x, state = torch.randn(2, 40, 5), torch.zeros(2, 5)
    packed = packed_layer.run(x, None, values(), state, Neuron())
    compiled = torch.compile(packed_layer.run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, None, values(), state, Neuron()).words, packed.words)


def test_refuses_what_does_not_fit() -> None:
    x, state = torch.full((1, 3, 5), 300.0), torch.zeros(1, 5)
    with pytest.raises(KernelError, match="255") as caught:
        packed_layer.run(x, None, values(), state, Neuron())
    assert caught.value.code == "kernel-packed-spikes"
    with pytest.raises(KernelError, match="bias") as caught:
        packed_layer.run(x, torch.zeros(4), values(), state, Neuron())
    assert caught.value.code == "kernel-shape"
