"""Triton kernels of spike times, compiled without a GPU, and beside the CPU where there is one."""

import struct
from math import factorial, inf
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import neurodeploy as nd
from neurodeploy.errors import KernelError
from neurodeploy.gpu.launch import Launch, recorded
from neurodeploy.kernels import spike_time
from neurodeploy.kernels.spike_time import SpikeOverflowError, gpu
from tests.gpu.ahead_of_time import build
from tests.gpu.spike_time_cases import HARD, ONCE, SOFT, TAU_SYN, case, check_against_cpu, neurons

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def launches(neuron: spike_time.SpikeTimeNeuron, dtype: torch.dtype, count: int) -> list[Launch]:
    """What both passes start."""
    times, weight = case(neuron, dtype, batch=2, inputs=20, slots=3, count=count)
    cells, hard = neuron.rows(count), neuron.reset == "value"
    with recorded() as found:
        out, counts, _, *kept = gpu.forward(times, weight, cells, hard, 60, inf, 1e-3, True)
        gpu.backward(out, times, weight, cells, counts, *kept, hard, inf, 1e-3, True)
    return found


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("each", "ratio", "options", "dtype"),
    [
        (False, 2.0, SOFT, torch.float32),
        (False, 3.3, HARD, torch.float64),
        (True, 3.3, HARD, torch.float32),
    ],
    ids=["quadratic", "newton", "all"],
)
def test_ahead_of_time(
    each: bool, ratio: float, options: dict[str, Any], dtype: torch.dtype, architecture: int
) -> None:
    """Products and sums round apart, quotients and roots to nearest, constants are float64, registers suffice."""
    names = set()
    for launch in launches(neurons(ratio, 40, each, options), dtype, 40):
        compiled = build(launch, architecture)
        name = launch.kernel.__name__
        names.add(name)
        assert compiled.count(r"fma\.") == 0, name
        assert compiled.count(r"(atom|red)\.") == 0, name
        assert compiled.spilled_bytes == 0, name
        assert compiled.count(r"(div|sqrt|rcp)\.(approx|full)") == 0, name
        constants = (1 / factorial(13), 1 / factorial(7), 1.90821492927058770002e-10) if name != "fold_kernel" else ()
        for constant in (*constants, *((0.8, -1e-7, 1e-16) if launch.constants.get("LAMBERT") else ())):
            assert f"0d{struct.unpack('<Q', struct.pack('<d', constant))[0]:016X}" in compiled.ptx, (name, constant)
    assert names == {"forward_kernel", "backward_kernel", "fold_kernel"} | (set() if each else {"steps_kernel"})


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("options", [SOFT, HARD, ONCE], ids=["soft", "hard", "once"])
@pytest.mark.parametrize("ratio", [2.0, 1.0, 1.0 + 1e-9, 3.3, 0.6])
def test_the_bits_of_the_cpu(ratio: float, options: dict[str, Any], each: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    neuron = neurons(ratio, 150, each, options)
    tensors = case(neuron, dtype, batch=5, inputs=40, slots=3, count=150)
    counts = check_against_cpu(*tensors, neuron, device="cuda", max_spikes=400)
    assert int(counts.max()) >= 1


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
def test_repeated_runs_have_the_same_bits(options: dict[str, Any]) -> None:
    neuron = neurons(2.0, 0, False, options)
    times, weight = case(neuron, torch.float32, batch=64, inputs=300, slots=2, count=500)
    results = []
    for _ in range(5):
        leaves = times.cuda().requires_grad_(), weight.cuda().requires_grad_()
        found = spike_time.apply(*leaves, neuron, max_spikes=300)
        torch.where(found.times < inf, found.times, 0.0).square().sum().backward()
        results.append((found.times, found.counts, leaves[0].grad, leaves[1].grad))
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], again, strict=True))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("reset", [SOFT, HARD], ids=["soft", "hard"])
def test_layers_train_as_on_the_cpu(reset: dict[str, Any]) -> None:
    """A convolution and a linear layer: equal spikes, gradients but for the order of their sums."""
    neuron = neurons(2.0, 0, False, reset)
    net = torch.nn.Sequential(
        nd.nn.SpikeTimeConv2d(2, 4, 3, neuron, padding=1, max_spikes=30),
        torch.nn.Flatten(1, 3),
        nd.nn.SpikeTimeLinear(4 * 36, 5, neuron, max_spikes=60),
    ).double()
    times = torch.rand(3, 2, 6, 6, 1, dtype=torch.float64) * 4 * TAU_SYN
    results = []
    for device in ("cpu", "cuda"):
        net.to(device).zero_grad()
        out = net(times.to(device))
        nd.nn.first_spike_loss(
            out, torch.tensor([0, 1, 2], device=device), temperature=TAU_SYN, t_silent=12 * TAU_SYN
        ).backward()
        results.append((out.detach().cpu(), [parameter.grad.cpu() for parameter in net.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * float(a.abs().max()))


@pytest.mark.gpu
@needs_gpu
def test_errors_and_observed_spikes() -> None:
    neuron = neurons(2.0, 0, False, {})
    times, weight = case(neuron, torch.float64, batch=3, inputs=20, slots=2, count=9)
    with pytest.raises(SpikeOverflowError) as raised:
        spike_time.apply(times.cuda(), weight.cuda(), neuron, max_spikes=1)
    with pytest.raises(SpikeOverflowError) as expected:
        spike_time.apply(times, weight, neuron, max_spikes=1)
    assert (raised.value.sample, raised.value.neuron) == (expected.value.sample, expected.value.neuron)
    with pytest.raises(KernelError, match="weight is on cpu"):
        spike_time.apply(times.cuda(), weight, neuron, max_spikes=60)
    leaf = weight.cuda().requires_grad_()
    own = spike_time.apply(times.cuda(), leaf, neuron, max_spikes=90)
    torch.where(own.times < inf, own.times, 0.0).sum().backward()
    wanted, leaf.grad = leaf.grad, None
    seen = spike_time.observe(times.cuda(), leaf, own.times.detach(), neuron)
    torch.where(seen.times < inf, seen.times, 0.0).sum().backward()
    assert torch.equal(leaf.grad, wanted)
