"""Each surrogate is the derivative of its primitive, in the compiled code and in the reference."""

import importlib

import pytest
import torch

from neurodeploy import surrogate as surrogates
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels import exodus
from neurodeploy.kernels.exodus import reference

_native = importlib.import_module("neurodeploy._ext").layer

CASES = [
    surrogates.SingleExponential(),
    surrogates.SingleExponential(0.25, 2.0),
    surrogates.PeriodicExponential(),
    surrogates.PeriodicExponential(0.2, 1.5),
    surrogates.Box(),
    surrogates.Box(0.4, 3.0),
    surrogates.Sigmoid(),
    surrogates.Sigmoid(1.0, 0.5),
    surrogates.Arctan(),
    surrogates.Arctan(0.2, 2.0),
    surrogates.Heaviside(),
    surrogates.Heaviside(0.3),
]


def compiled_gradient(surrogate: surrogates.Surrogate, d: torch.Tensor, unit: float) -> torch.Tensor:
    """ds/dv through the kernel: one step without reset, so dL/dx = sg."""
    one = torch.ones(1, dtype=d.dtype)
    parameters = Parameters(one, unit * one, one, unit * one)
    x = (d + unit).reshape(1, 1, -1)
    state = torch.zeros(1, len(d), dtype=d.dtype)
    neuron = Neuron(reset="none", surrogate=surrogate)
    _, _, saved = exodus.forward(x, parameters, state, neuron)
    return exodus.backward(torch.ones_like(x), None, state, saved).x.flatten()


@pytest.mark.parametrize("surrogate", CASES, ids=str)
@pytest.mark.parametrize("unit", [1.0, 0.6])
def test_gradient_is_derivative_of_primitive(surrogate: surrogates.Surrogate, unit: float) -> None:
    kind, width, scale = surrogates.code(surrogate)
    # Off the grid of the kinks (|d| = w u / 2, d = -window, d = (k + 1/2) u), where a derivative does not exist.
    d = torch.linspace(-3.0, 4.0, 701, dtype=torch.float64) + 0.00137
    step = 1e-6

    def primitive(values: torch.Tensor) -> torch.Tensor:
        return torch.tensor([_native.primitive(kind, v, unit, width, scale) for v in values.tolist()], dtype=d.dtype)

    difference = (primitive(d + step) - primitive(d - step)) / (2 * step)
    gradient = compiled_gradient(surrogate, d, unit)
    assert float(gradient.max()) > 0
    assert torch.allclose(gradient, difference, rtol=1e-6, atol=1e-8)
    unit_tensor = torch.tensor(unit, dtype=d.dtype)
    assert torch.allclose(reference.surrogate_gradient(surrogate, d, unit_tensor), gradient, rtol=1e-12, atol=1e-13)
    assert torch.allclose(
        reference.surrogate_primitive(surrogate, d, unit_tensor), primitive(d), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("surrogate", CASES, ids=str)
def test_single_precision_and_far_tails(surrogate: surrogates.Surrogate) -> None:
    d = torch.cat([torch.linspace(-3.0, 4.0, 701) + 0.00137, torch.tensor([-1e4, -300.0, 1e30, -1e30])])
    expected = compiled_gradient(surrogate, d.double(), 0.75)
    got = compiled_gradient(surrogate, d, 0.75)
    assert got.isfinite().all()
    assert torch.allclose(got[:701].double(), expected[:701], rtol=3e-5, atol=1e-6)
    if not isinstance(surrogate, surrogates.Heaviside | surrogates.PeriodicExponential):
        assert float(got[701:].abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["SingleExponential", "PeriodicExponential", "Heaviside"])
@pytest.mark.parametrize("threshold", [1.0, 0.6])
def test_equal_those_of_sinabs(name: str, threshold: float) -> None:
    activation = pytest.importorskip("sinabs.activation")
    v = torch.linspace(-2.0, 5.0, 777, dtype=torch.float64)
    theirs = getattr(activation, name)()(v, torch.tensor(threshold, dtype=torch.float64))
    ours = reference.surrogate_gradient(
        getattr(surrogates, name)(), v - threshold, torch.tensor(threshold, dtype=torch.float64)
    )
    # sinabs' Heaviside comes in float32 whatever the input
    assert torch.allclose(ours, theirs.double(), rtol=1e-7 if theirs.dtype == torch.float32 else 1e-12, atol=1e-14)
