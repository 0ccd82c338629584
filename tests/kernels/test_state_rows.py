"""Synaptic currents, adapting thresholds and lateral connections against autograd through a loop over time."""

import pytest
import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels import exodus, slayer
from neurodeploy.surrogate import SingleExponential
from tests.autograd_loop import loop

NEURONS = {
    "soft": Neuron(surrogate=SingleExponential(0.6)),
    "single": Neuron(spikes="single", v_min=-0.4),
    "hard": Neuron(reset="zero", spikes=3, v_min=-0.4, v_min_position="before_threshold"),
    "detached": Neuron(detach_threshold=True),
    "none": Neuron(reset="none", spikes="single"),
}
ROWS = [("i_syn",), ("b",), ("i_rec",), ("i_syn", "b"), ("i_syn", "b", "i_rec")]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def case(rows: tuple[str, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, Parameters]:
    def draw(count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, dtype=dtype) * (high - low) + low

    threshold = draw(8, 0.7, 1.2)
    values = Parameters(draw(8, 0.7, 0.95), threshold, draw(1, 0.5, 1.5), threshold.clone())
    if "i_syn" in rows:
        values = values._replace(syn_decay=draw(8, 0.4, 0.8))
    if "b" in rows:
        values = values._replace(adapt_decay=draw(1, 0.8, 0.95), adapt_scale=draw(8, 0.5, 2.0))
    if "i_rec" in rows:
        values = values._replace(weight=torch.randn(8, 8, dtype=dtype) * 0.1, bias=torch.randn(8, dtype=dtype) * 0.1)
    x = torch.randn(2, 60, 8, dtype=dtype) * 0.8 + 0.3
    return x, torch.rand(len(rows) + 1, 2, 8, dtype=dtype) * 0.3, values


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: "-".join(rows))
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
@pytest.mark.parametrize("kernel", [exodus, slayer], ids=["exodus", "slayer"])
def test_gradients_equal_autograd_through_the_loop(kernel, neuron: Neuron, rows: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """Of input, initial state and every parameter, given those of spikes, potentials and final state."""
    x, state, values = case(rows)
    learnt = [name for name, value in values._asdict().items() if value is not None and name != "unit"]
    leaves = [tensor.requires_grad_() for tensor in (x, state, *(getattr(values, name) for name in learnt))]
    expected_outputs = loop(x, state, values, neuron, detach_reset=kernel is slayer)
    weights = [torch.randn_like(tensor) for tensor in expected_outputs]
    expected = torch.autograd.grad(expected_outputs, leaves, weights)
    outputs = kernel.apply(x, values, state, neuron, record_v=True)
    got = torch.autograd.grad(tuple(outputs), leaves, weights)
    assert torch.equal(outputs.spikes, expected_outputs[0])
    assert 0.02 < float(outputs.spikes.detach().mean()) < 2
    for name, g, e in zip(("x", "state", *learnt), got, expected, strict=True):
        assert float((g - e).abs().max() / e.abs().max()) <= 1e-12, name


def test_detaching_the_threshold_changes_the_gradient() -> None:
    x, state, values = case(("b",))
    x.requires_grad_()
    weights = torch.randn_like(x)
    grads = [
        torch.autograd.grad(exodus.apply(x, values, state, neuron).spikes, x, weights)[0]
        for neuron in (Neuron(), Neuron(detach_threshold=True))
    ]
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) > 0.05


def test_float32_is_float64_rounded() -> None:
    x, state, values = case(("i_syn", "b"))
    g = torch.rand_like(x)
    results = []
    for dtype in (torch.float32, torch.float64):
        converted = Parameters(*(None if value is None else value.to(dtype) for value in values))
        spikes, _, saved = exodus.forward(x.to(dtype), converted, state.to(dtype), Neuron())
        results.append((spikes, exodus.backward(g.to(dtype), None, torch.zeros_like(state).to(dtype), saved)))
    assert torch.equal(results[0][0].double(), results[1][0])
    for single, double in zip(results[0][1], results[1][1], strict=True):
        if double is not None:
            assert single is not None
            assert float((single.double() - double).norm() / double.norm()) <= 1e-6


def test_absent_rows_leave_the_plain_neuron() -> None:
    """Neither adaptation nor lateral weights: the spikes and gradients of a plain neuron."""
    x, _, values = case(())
    plain = torch.rand(2, 8, dtype=x.dtype) * 0.3
    zero, one = torch.zeros(1, dtype=x.dtype), torch.ones(1, dtype=x.dtype)
    full = values._replace(adapt_decay=one * 0.9, adapt_scale=zero, weight=torch.zeros(8, 8, dtype=x.dtype))
    rows = torch.stack([plain, torch.zeros_like(plain), torch.zeros_like(plain)])
    spikes, _, saved = exodus.forward(x, values, plain, Neuron())
    got, _, got_saved = exodus.forward(x, full, rows, Neuron())
    assert torch.equal(got, spikes)
    g = torch.randn_like(x)
    expected = exodus.backward(g, None, torch.zeros_like(plain), saved)
    gradients = exodus.backward(g, None, torch.zeros_like(rows), got_saved)
    assert torch.equal(gradients.x, expected.x)
    assert torch.equal(gradients.threshold, expected.threshold)


def test_refusals() -> None:
    x, state, values = case(("b",))
    with pytest.raises(KernelError, match="below 0"):
        exodus.apply(x, values, -state, Neuron())
    with pytest.raises(KernelError, match="adapts upwards"):
        exodus.apply(x, values._replace(adapt_scale=-torch.ones(1, dtype=x.dtype)), state, Neuron())
    with pytest.raises(KernelError, match="one of a pair"):
        exodus.apply(x, values._replace(adapt_scale=None), state, Neuron())
