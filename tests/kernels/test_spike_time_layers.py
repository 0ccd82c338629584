"""Layers of spike times and their losses."""

from collections.abc import Iterator
from math import inf

import pytest
import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernels import spike_time
from neurodeploy.kernels.spike_time import SpikeOverflowError, SpikeTimeNeuron
from neurodeploy.nn import SpikeTimeConv2d, SpikeTimeLinear, first_spike_loss, spike_count_loss, spike_time_loss

NEURON = SpikeTimeNeuron(tau_mem=0.02, tau_syn=0.01)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def test_a_linear_layer_runs_its_weights_and_tells_what_it_found() -> None:
    layer = SpikeTimeLinear(5, 4, NEURON, max_spikes=20)
    with torch.no_grad():
        layer.weight[1] = -1.0
    times = torch.rand(3, 5, 2) * 0.02
    out = layer(times)
    found = spike_time.apply(times, layer.weight.t(), NEURON, max_spikes=20)
    assert out.dtype == torch.float32
    assert torch.equal(out, found.times)
    assert layer.silent == int((found.counts == 0).sum()) >= 3
    assert layer.grazing == int(found.grazing.sum())
    assert "max_spikes=20" in repr(layer)


def test_initial_weights_put_the_peak_at_multiples_of_the_threshold() -> None:
    """mean 2, std 1: of neurons whose inputs fire together, those drawn above the threshold fire: 84 %."""
    layer = SpikeTimeLinear(50, 4000, SpikeTimeNeuron(tau_mem=0.03, tau_syn=0.01, threshold=3.0))
    layer(torch.zeros(1, 50, 1))
    assert abs(1 - layer.silent / 4000 - 0.841) < 4 * (0.841 * 0.159 / 4000) ** 0.5


def test_training_moves_a_spike_to_its_target() -> None:
    once = SpikeTimeNeuron(tau_mem=0.02, tau_syn=0.01, reset="value", t_ref=inf)
    hidden, output = (SpikeTimeLinear(*size, once, max_spikes=1).double() for size in ((6, 20), (20, 3)))
    times = torch.rand(1, 6, 1).double() * 0.005
    output.reset_parameters(mean=4.0)
    targets = output(hidden(times)).detach() + torch.tensor([[-1e-3], [0.0], [1e-3]])
    assert targets.isfinite().all()
    optimizer = torch.optim.Adam([hidden.weight, output.weight], lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        loss = 1e6 * spike_time_loss(output(hidden(times)), targets, t_silent=0.03)  # in milliseconds
        loss.backward()
        optimizer.step()
    assert (output(hidden(times)) - targets).abs().max() < 1e-5


def test_convolution_is_the_linear_layer_at_every_position() -> None:
    layer = SpikeTimeConv2d(2, 3, 3, NEURON, stride=2, padding=1, max_spikes=12)
    times = torch.rand(2, 2, 6, 5, 2) * 0.02
    times[torch.rand(times.shape) < 0.3] = inf
    times.requires_grad_()
    out = layer(times)
    assert out.shape == (2, 3, 3, 3, 12)
    grad = torch.randn(out.shape)
    (torch.where(out < inf, out, 0.0) * grad).sum().backward()
    assert times.grad is not None
    padded = torch.full((2, 2, 8, 7, 2), inf)
    padded[:, :, 1:7, 1:6] = times.detach()
    padded.requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    linear = SpikeTimeLinear(18, 3, NEURON, max_spikes=12)
    for y in range(3):
        for x in range(3):
            window = padded[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3].flatten(1, 3)
            one = torch.func.functional_call(linear, {"weight": weight.flatten(1)}, (window,))
            assert torch.equal(one, out[:, :, y, x])
            (torch.where(one < inf, one, 0.0) * grad[:, :, y, x]).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-6)
    assert padded.grad is not None
    torch.testing.assert_close(times.grad, padded.grad[:, :, 1:7, 1:6], rtol=1e-4, atol=1e-5)


def test_convolution_names_the_place_of_an_overflow() -> None:
    layer = SpikeTimeConv2d(1, 2, 2, NEURON, max_spikes=3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1] = 4000.0
    times = torch.full((2, 1, 4, 3, 1), inf)
    times[1, 0, 3, 1] = 0.0
    with pytest.raises(SpikeOverflowError, match=r"Neuron 1 .*max_spikes=3 times in row 2, column 0 of sample 1"):
        layer(times)
    with pytest.raises(KernelError, match="windows of 2 x 2"):
        layer(times[:, :, :1])


def test_reviving_is_off_by_default_and_raises_only_silent_neurons() -> None:
    for revive in (0.0, 0.5):
        layer = SpikeTimeLinear(3, 4, NEURON, revive=revive)
        with torch.no_grad():
            layer.weight.fill_(100.0)
            layer.weight[2] = -1.0
        plain = SpikeTimeLinear(3, 4, NEURON)
        plain.load_state_dict(layer.state_dict())
        for one in (layer, plain):
            out = one(torch.tensor([0.0, 0.0, inf, 0.0])[:, None, None].expand(4, 3, 1))
            torch.where(out < inf, out, 0.0).sum().backward()
        assert layer.weight.grad is not None
        assert plain.weight.grad is not None
        assert (plain.weight.grad[2] == 0).all()
        silent = torch.tensor([0.25, 0.25, 1.0, 0.25])[:, None]  # no neuron fires in the sample without input
        assert torch.equal(layer.weight.grad, plain.weight.grad - revive * silent)
    with pytest.raises(KernelError, match="revive"):
        SpikeTimeLinear(3, 4, NEURON, revive=-1.0)


def test_first_spike_loss_is_exact_and_finite_for_silent_neurons() -> None:
    times = torch.tensor([[[0.02, 0.03], [0.01, inf], [inf, inf]]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0])
    first_spike_loss(times, labels, temperature=0.005, t_silent=0.05).backward()
    score = torch.softmax(torch.tensor([-4.0, -2.0, -10.0], dtype=torch.float64), 0)
    expected = torch.zeros(1, 3, 2, dtype=torch.float64)
    expected[0, 0, 0], expected[0, 1, 0] = (1 - score[0]) / 0.005, -score[1] / 0.005
    assert times.grad is not None
    torch.testing.assert_close(times.grad, expected, rtol=1e-12, atol=0)
    with pytest.raises(KernelError, match="temperature"):
        first_spike_loss(times, labels, temperature=0.0, t_silent=0.05)


def test_spike_time_loss_treats_missing_spikes_as_late_ones() -> None:
    times = torch.tensor([[[0.02, 0.03, inf], [0.01, inf, inf]]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[[0.01], [inf]]], dtype=torch.float64)
    loss = spike_time_loss(times, targets, t_silent=0.05)
    assert loss.item() == pytest.approx(0.5 * (0.01**2 + 0.02**2 + 0.04**2))
    loss.backward()
    assert times.grad is not None
    expected = torch.tensor([[[0.01, -0.02, 0.0], [-0.04, 0.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(times.grad, expected, rtol=1e-12, atol=1e-18)
    with pytest.raises(KernelError, match="Targets have shape"):
        spike_time_loss(times, targets[:, :1], t_silent=0.05)


def test_spike_count_loss_pulls_spikes_by_the_error_of_the_count() -> None:
    times = torch.tensor([[[0.02, 0.03], [0.01, inf]]] * 2, requires_grad=True)
    targets = torch.tensor([[1, 4]] * 2)
    loss = spike_count_loss(times, targets)
    assert loss.item() == 0.5 * (1 + 9)
    (3 * loss).backward()
    assert times.grad is not None
    assert times.grad.tolist() == [[[-1.5, -1.5], [4.5, 0.0]]] * 2
    for bad in (times[0], times):
        with pytest.raises(KernelError, match="shape"):
            spike_count_loss(bad, targets[:1])
