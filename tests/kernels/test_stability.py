"""The central claim of the EXODUS paper: through deep networks its gradients keep their size, SLAYER's explode."""

import pytest
import torch

from neurodeploy import nn
from neurodeploy.surrogate import SingleExponential

WIDTH = 48


def first_to_last(algorithm: str, steps: int) -> tuple[float, torch.Tensor]:
    """Norm of the first layer's weight gradient over the last one's, and the output [B, T, N], for a rate loss."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    linears = [torch.nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64) for _ in range(4)]
    layers: list[torch.nn.Module] = []
    for linear in linears:
        torch.nn.init.normal_(linear.weight, 0.5 / WIDTH, 1.2 / WIDTH**0.5)
        neurons = nn.IAF(surrogate=SingleExponential(1.0, 1.0), spikes="single", algorithm=algorithm)
        layers += [linear, neurons.double()]
    x = (torch.rand(4, steps, WIDTH, dtype=torch.float64) < 0.3).double()
    out = torch.nn.Sequential(*layers)(x)
    assert 0.02 < float(out.detach().mean()) < 0.9
    (out.mean(1) - 0.1).square().sum().backward()
    first, last = (float(linear.weight.grad.norm()) for linear in (linears[0], linears[-1]))  # type: ignore[union-attr]
    return first / last, out.detach()


@pytest.mark.parametrize("steps", [50, 200])
def test_exodus_gradients_keep_their_size(steps: int) -> None:
    assert 0.1 <= first_to_last("exodus", steps)[0] <= 10


def test_slayer_gradients_explode_on_the_same_spikes() -> None:
    (short, _), (ratio, spikes) = first_to_last("slayer", 50), first_to_last("slayer", 200)
    assert torch.equal(spikes, first_to_last("exodus", 200)[1])
    assert ratio > 1e3
    assert ratio > 10 * short
