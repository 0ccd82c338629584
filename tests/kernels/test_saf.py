"""Spike accumulation: the spikes of LIF neurons and the gradients of OTTT, and what is refused."""

from math import log

import pytest
import torch

from neurodeploy import nn

DTYPE = torch.float64


def neurons(decay: float, threshold: float = 1.0, norm_input: bool = False) -> nn.SpikingLayer:
    surrogate = nn.Sigmoid()
    if decay == 1.0:
        return nn.IAF(threshold=threshold, spikes="single", surrogate=surrogate)
    return nn.LIF(-1 / log(decay), norm_input=norm_input, threshold=threshold, spikes="single", surrogate=surrogate)


def network(decay: float, threshold: float = 1.0, norm_input: bool = False) -> torch.nn.Sequential:
    """Three layers whose neurons fire in a fair share of the steps."""
    torch.manual_seed(0)
    modules: list[torch.nn.Module] = []
    for inputs, outputs in ((12, 30), (30, 20), (20, 7)):
        linear = torch.nn.Linear(inputs, outputs)
        scale = 1 / (1 - decay) if norm_input else 1.0
        torch.nn.init.normal_(linear.weight, 0.2 * scale * threshold / inputs**0.5, scale * threshold / inputs**0.5)
        modules += [linear, neurons(decay, threshold, norm_input)]
    return torch.nn.Sequential(*modules).to(DTYPE)


@pytest.mark.parametrize(("method", "form"), [("saf_e", "closed"), ("saf_e", "recurrent"), ("ottt", "auto")])
@pytest.mark.parametrize("steps", [6, 32, 500])
@pytest.mark.parametrize(("decay", "norm_input"), [(0.5, False), (0.9, False), (0.9, True), (1.0, False)])
def test_spikes_are_those_of_the_network(decay: float, norm_input: bool, steps: int, method: str, form: str) -> None:
    net = network(decay, 0.7, norm_input)
    x = torch.rand(8, steps, 12, dtype=DTYPE)
    spikes = net(x)
    assert 0.01 < float(spikes.mean()) < 0.9
    with torch.no_grad():
        for block in (1, 7, None):
            assert torch.equal(nn.SAF(net, method, form=form, block=block)(x), spikes)  # type: ignore[arg-type]
