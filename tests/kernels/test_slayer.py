"""SLAYER: the spikes of EXODUS, and the gradient of a network whose reset is a constant."""

from itertools import product

import pytest
import torch

from neurodeploy import nn
from neurodeploy.kernel import Memory, Neuron, Parameters
from neurodeploy.kernels import exodus, slayer
from neurodeploy.kernels.exodus import reference
from neurodeploy.surrogate import KINDS, PeriodicExponential, SingleExponential
from tests.autograd_loop import loop

Case = tuple[torch.Tensor, Parameters, torch.Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def case(batch: int, steps: int, neurons: int, dtype: torch.dtype = torch.float64) -> Case:
    def draw(count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, dtype=dtype) * (high - low) + low

    threshold = draw(neurons, 0.7, 1.3)
    values = Parameters(draw(neurons, 0.7, 1.0), threshold, draw(1, 0.5, 1.5), threshold.clone())
    x = torch.randn(batch, steps, neurons, dtype=dtype) * 0.8 + 0.3
    return x, values, torch.randn(batch, neurons, dtype=dtype) * 0.3


def every_neuron() -> list[Neuron]:
    return [
        Neuron(reset=reset, spikes=spikes, v_min=v_min, v_min_position=position, surrogate=surrogate)
        for reset, spikes, (v_min, position), surrogate in product(
            ("subtract", "zero", "none"),
            ("multi", "single", 3),
            ((None, "after_reset"), (-0.4, "after_reset"), (-0.4, "before_threshold")),
            (SingleExponential(0.6), PeriodicExponential(0.4)),
        )
    ]


def test_spikes_are_those_of_exodus() -> None:
    memories: tuple[Memory, ...] = ("store", "recompute")
    for neuron, memory, dtype in product(every_neuron(), memories, (torch.float32, torch.float64)):
        inputs = case(2, 70, 33, dtype)
        spikes, final, saved = slayer.forward(*inputs, neuron, memory=memory)
        expected_spikes, expected_final, expected_saved = exodus.forward(*inputs, neuron, memory=memory)
        assert torch.equal(spikes, expected_spikes)
        assert torch.equal(final, expected_final)
        assert torch.equal(saved.kept, expected_saved.kept)


@pytest.mark.parametrize("alpha", ["one", "per-neuron"])
@pytest.mark.parametrize(
    "neuron",
    every_neuron(),
    ids=lambda n: f"{n.reset}-{n.spikes}-{n.v_min}-{n.v_min_position}-{n.surrogate.grad_width}",
)
def test_gradients_equal_autograd_with_detached_reset(neuron: Neuron, alpha: str) -> None:
    """Of input, initial state, decay, threshold and input gain; given those of spikes, potentials and final state."""
    x, values, state = case(2, 60, 8)
    decay = torch.ones(1, dtype=x.dtype) if alpha == "one" else values.decay
    leaves = [tensor.requires_grad_() for tensor in (x, state, decay, values.threshold, values.input_gain)]
    values = values._replace(decay=decay)
    expected_outputs = loop(x, state, values, neuron, detach_reset=True)
    weights = [torch.randn_like(tensor) for tensor in expected_outputs]
    expected = torch.autograd.grad(expected_outputs, leaves, weights)
    outputs = slayer.apply(x, values, state, neuron, record_v=True)
    assert outputs.v is not None
    got = torch.autograd.grad((outputs.spikes, outputs.v, outputs.state), leaves, weights)
    assert torch.equal(outputs.spikes, expected_outputs[0])
    for g, e in zip(got, expected, strict=True):
        assert float((g - e).abs().max() / e.abs().max()) <= 1e-12


def test_gradient_is_the_transposed_decaying_sum() -> None:
    """dL/dx = E^T D g, the paper's form, with E as a dense matrix."""
    x, values, state = case(1, 50, 6)
    g = torch.randn_like(x)
    _, v, _ = reference.forward(x, values, state, Neuron())
    slope = reference.surrogate_gradient(SingleExponential(), v - values.threshold, values.unit)
    _, _, saved = slayer.forward(x, values, state, Neuron())
    got = slayer.backward(g, None, torch.zeros_like(state), saved).x
    steps = torch.arange(50)
    age = (steps[:, None] - steps[None, :]).double()
    for n in range(6):
        decaying = torch.where(age >= 0, values.decay[n] ** age.clamp(min=0), 0.0)
        expected = values.input_gain[0] * decaying.T @ (slope * g)[0, :, n]
        assert float((got[0, :, n] - expected).abs().max() / expected.abs().max()) <= 1e-12


@pytest.mark.parametrize("surrogate", KINDS, ids=lambda kind: kind.__name__)
def test_without_reset_nothing_is_dropped(surrogate: type) -> None:
    x, values, state = case(2, 60, 130, torch.float32)
    neuron = Neuron(reset="none", surrogate=surrogate(0.7))
    arguments = (torch.randn_like(x), torch.randn_like(x), torch.randn_like(state))
    grads = [k.backward(*arguments, k.forward(x, values, state, neuron)[2]) for k in (slayer, exodus)]
    assert all(torch.equal(a, b) for a, b in zip(*(g[:5] for g in grads), strict=True))


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_differs_from_exodus_for_random_gradients(reset: str) -> None:
    x, values, state = case(2, 120, 50)
    neuron = Neuron(reset=reset)  # type: ignore[arg-type]
    arguments = (torch.randn_like(x), None, torch.zeros_like(state))
    dropped, exact = (k.backward(*arguments, k.forward(x, values, state, neuron)[2]).x for k in (slayer, exodus))
    assert float((dropped - exact).norm() / exact.norm()) > 0.1


def test_is_a_scale_error_for_rates_and_a_direction_error_for_times() -> None:
    """The README's figures: LIF, tau 20, T = 120, surrogate of width 1."""
    x = torch.randn(4, 120, 50, dtype=torch.float64) * 0.5 + 0.1
    sizes, cosines = [], []
    for weights in (torch.ones_like(x), torch.randn_like(x)):
        grads = []
        for algorithm in ("slayer", "exodus"):
            layer = nn.LIF(
                20.0, norm_input=False, spikes="single", surrogate=SingleExponential(1.0), algorithm=algorithm
            )
            leaf = x.clone().requires_grad_()
            grads.append(torch.autograd.grad(layer.double()(leaf), leaf, weights)[0])
        sizes.append(float(grads[0].norm() / grads[1].norm()))
        cosines.append(float(torch.cosine_similarity(grads[0].flatten(), grads[1].flatten(), dim=0)))
    assert 7 < sizes[0] < 11
    assert cosines[0] > 0.9
    assert 2 < sizes[1] < 4
    assert 0.4 < cosines[1] < 0.6


def test_layers_select_it_and_learn_with_it() -> None:
    layer = nn.LIF(
        torch.rand(5) * 20 + 5, learn_tau=True, learn_threshold=True, threshold=0.5, algorithm="slayer"
    ).double()
    assert "algorithm='slayer'" in repr(layer)
    x = torch.randn(3, 50, 5, dtype=torch.float64) * 4
    weights = torch.randn(3, 50, 5, dtype=torch.float64)
    got = torch.autograd.grad(layer(x), [layer.tau_mem, layer.threshold], weights)
    alpha, threshold = torch.exp(-1 / layer.tau_mem), layer.threshold
    values = Parameters(alpha, threshold, 1 - alpha, threshold.detach())
    spikes, _, _ = loop(x, torch.zeros(3, 5, dtype=torch.float64), values, layer.neuron, detach_reset=True)
    for g, e in zip(got, torch.autograd.grad(spikes, [layer.tau_mem, layer.threshold], weights), strict=True):
        assert float((g - e).abs().max() / e.abs().max()) <= 1e-12
