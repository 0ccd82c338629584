"""EXODUS against oracles that share no loop with it: sinabs' layers, and autograd through a loop over time."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch

from neurodeploy import nn
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels import exodus
from neurodeploy.surrogate import PeriodicExponential, SingleExponential
from tests.autograd_loop import loop

B, T, N = 6, 100, 200


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# --- forward parity -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerCase:
    tau: float | None
    norm_input: bool
    spikes: Any
    v_min: float | None

    def ours(self) -> nn.SpikingLayer:
        options: dict[str, Any] = {"spikes": self.spikes, "v_min": self.v_min, "threshold": 0.75, "record_v": True}
        return nn.IAF(**options) if self.tau is None else nn.LIF(self.tau, norm_input=self.norm_input, **options)

    def theirs(self) -> Any:
        layers, activation = pytest.importorskip("sinabs.layers"), pytest.importorskip("sinabs.activation")
        spike_fn = {"multi": activation.MultiSpike, "single": activation.SingleSpike}.get(self.spikes)
        options: dict[str, Any] = {
            "spike_fn": spike_fn or activation.MaxSpike(self.spikes),
            "min_v_mem": self.v_min,
            "spike_threshold": torch.tensor(0.75, dtype=torch.float64),
            "record_states": True,
        }
        if self.tau is None:
            return layers.IAF(**options)
        return layers.LIF(tau_mem=self.tau, norm_input=self.norm_input, **options)

    def input(self) -> torch.Tensor:
        scale = 6.0 if self.tau is not None and self.norm_input else 1.0
        return (torch.randn(B, T, N, dtype=torch.float64) * 0.8 + 0.2) * scale


LAYER_CASES = [
    LayerCase(None, False, "multi", None),
    LayerCase(None, False, "single", None),
    LayerCase(None, False, "multi", -0.5),
    LayerCase(None, False, 2, -1.0),
    LayerCase(12.0, True, "multi", None),
    LayerCase(12.0, True, "single", -0.25),
    LayerCase(30.0, False, "multi", -1.0),
    LayerCase(30.0, False, 3, None),
    LayerCase(5.0, True, 2, -0.5),
    LayerCase(100.0, False, "single", None),
]


def test_forward_cases_cover_a_million_neuron_steps() -> None:
    assert len(LAYER_CASES) * B * T * N >= 1_000_000


@pytest.mark.parametrize("case", LAYER_CASES, ids=str)
def test_forward_equals_sinabs_in_float64(case: LayerCase) -> None:
    x = case.input()
    ours, theirs = case.ours().double(), case.theirs().double()
    with torch.no_grad():
        spikes, state = ours(x, return_state=True)
        expected = theirs(x)
    assert int((spikes != expected).sum()) == 0
    assert float(expected.max()) >= (1 if case.spikes == "single" else 2)
    # sinabs records the potential after reset and clip, rounding at its clip; ours records it before the reset.
    assert torch.allclose(state, theirs.v_mem, rtol=0, atol=1e-12)
    assert ours.v is not None
    after = ours.v - 0.75 * spikes
    if case.v_min is not None:
        assert float((after < case.v_min).double().mean()) > 0.001
        after = after.clamp(min=case.v_min)
    assert torch.allclose(after, theirs.recordings["v_mem"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", LAYER_CASES, ids=str)
def test_forward_float32_equals_sinabs_and_float64(case: LayerCase) -> None:
    """At most one mismatch in a million neuron-steps is allowed: none in the 120,000 of each case."""
    x = case.input().float()
    with torch.no_grad():
        spikes = case.ours()(x)
        assert int((spikes != case.theirs().float()(x)).sum()) == 0
        assert int((spikes != case.ours().double()(x.double())).sum()) == 0


def test_forward_float32_is_exact_for_integers() -> None:
    """Integer inputs and threshold with decay 1: sums are exact, so float32 has to equal integer arithmetic."""
    x = torch.randint(-6, 8, (B, 2 * T, N))
    spikes = nn.IAF(threshold=7.0, v_min=-11.0)(x.float())
    v = torch.zeros(B, N, dtype=torch.int64)
    for t in range(2 * T):
        v = v + x[:, t]
        s = torch.where(v > 0, v // 7, 0)
        v = (v - 7 * s).clamp(min=-11)
        assert torch.equal(spikes[:, t].long(), s)


# --- gradients: autograd through the loop -------------------------------------------------------------------------


GRADIENT_CASES = [
    Neuron(reset=reset, spikes=spikes, v_min=v_min, v_min_position=position, surrogate=surrogate)
    for (reset, spikes), (v_min, position), surrogate in product(
        (("subtract", "multi"), ("subtract", "single"), ("subtract", 3), ("zero", "single"), ("zero", "multi")),
        ((None, "after_reset"), (-0.4, "after_reset"), (-0.4, "before_threshold")),
        (SingleExponential(0.6), PeriodicExponential(0.4)),
    )
]


@pytest.mark.parametrize("alpha", ["one", "per-neuron"])
@pytest.mark.parametrize(
    "neuron",
    GRADIENT_CASES,
    ids=lambda n: f"{n.reset}-{n.spikes}-{n.v_min}-{n.v_min_position}-{n.surrogate.grad_width}",
)
def test_gradients_equal_autograd_through_the_loop(neuron: Neuron, alpha: str) -> None:
    kind = {"dtype": torch.float64}
    x, state = torch.randn(2, 60, 8, **kind) * 0.8 + 0.3, torch.randn(2, 8, **kind) * 0.3  # type: ignore[call-overload]
    decay = torch.ones(1, **kind) if alpha == "one" else torch.rand(8, **kind) * 0.3 + 0.7  # type: ignore[call-overload]
    threshold = torch.rand(8, **kind) * 0.5 + 0.7  # type: ignore[call-overload]
    gain = torch.rand(1, **kind) + 0.5  # type: ignore[call-overload]
    leaves = [tensor.requires_grad_() for tensor in (x, state, decay, threshold, gain)]
    values = Parameters(decay, threshold, gain, threshold.detach())
    expected_outputs = loop(x, state, values, neuron)
    weights = [torch.randn_like(tensor) for tensor in expected_outputs]
    expected = torch.autograd.grad(expected_outputs, leaves, weights)
    got_outputs = exodus.apply(x, values, state, neuron, record_v=True)
    assert got_outputs.v is not None
    got = torch.autograd.grad((got_outputs.spikes, got_outputs.v, got_outputs.state), leaves, weights)
    assert torch.equal(got_outputs.spikes, expected_outputs[0])
    for g, e in zip(got, expected, strict=True):
        assert float((g - e).abs().max() / e.abs().max()) <= 1e-12


def test_gradient_of_tau_through_the_layer() -> None:
    layer = nn.LIF(torch.rand(5) * 20 + 5, learn_tau=True, learn_threshold=True, threshold=0.5).double()
    x = torch.randn(3, 50, 5, dtype=torch.float64) * 4
    weights = torch.randn(3, 50, 5, dtype=torch.float64)
    got = torch.autograd.grad(layer(x), [layer.tau_mem, layer.threshold], weights)
    alpha = torch.exp(-1 / layer.tau_mem)
    threshold = layer.threshold
    values = Parameters(alpha, threshold, 1 - alpha, threshold.detach())
    spikes, _, _ = loop(x, torch.zeros(3, 5, dtype=torch.float64), values, layer.neuron)
    for g, e in zip(got, torch.autograd.grad(spikes, [layer.tau_mem, layer.threshold], weights), strict=True):
        assert float((g - e).abs().max() / e.abs().max()) <= 1e-12


def test_float32_gradients_are_those_of_float64() -> None:
    x = torch.randn(4, 200, 64) * 0.6 + 0.2
    decay, threshold, gain = torch.rand(64) * 0.2 + 0.8, torch.rand(64) * 0.5 + 0.7, torch.ones(1)
    weights = torch.rand_like(x)  # of one sign: sums over time would cancel otherwise, and their relative error grow
    results = []
    for dtype in (torch.float32, torch.float64):
        values = Parameters(*(p.to(dtype) for p in (decay, threshold, gain, threshold)))
        state = torch.zeros(4, 64, dtype=dtype)
        spikes, _, saved = exodus.forward(x.to(dtype), values, state, Neuron())
        results.append((spikes, exodus.backward(weights.to(dtype), None, state, saved)))
    (spikes, single), (expected_spikes, double) = results
    assert torch.equal(spikes.double(), expected_spikes)
    for g, e in zip(single[:5], double[:5], strict=True):
        assert float((g.double() - e).norm() / e.norm()) <= 1e-6


# --- gradients: sinabs' layers ------------------------------------------------------------------------------------


def layer_gradients(layer: Callable[[torch.Tensor], Any], x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(x), x, weights.to(layer(x[:, :1]).dtype))
    return grad


@pytest.mark.parametrize("v_min", [None, -0.2])
@pytest.mark.parametrize("tau", [None, 15.0])
def test_gradients_equal_sinabs_and_show_the_clip_position(tau: float | None, v_min: float | None) -> None:
    case = LayerCase(tau, False, "multi", v_min)
    x = torch.randn(2, 60, 40, dtype=torch.float64) * 0.8 + 0.1
    weights = torch.randn_like(x)
    theirs = case.theirs().double()
    expected = layer_gradients(copy.deepcopy(theirs), x, weights)
    ours = layer_gradients(case.ours().double(), x, weights)

    def relative(grad: torch.Tensor) -> float:
        return float((grad - expected).abs().max() / expected.abs().max())

    assert relative(ours) <= 1e-6
    if v_min is not None:
        options: dict[str, Any] = {"threshold": 0.75, "v_min": v_min, "v_min_position": "before_threshold"}
        early = (nn.IAF(**options) if tau is None else nn.LIF(tau, norm_input=False, **options)).double()
        assert torch.equal(early(x), case.ours().double()(x))  # the spikes do not tell the positions apart
        assert relative(layer_gradients(early, x, weights)) > 1e-3
