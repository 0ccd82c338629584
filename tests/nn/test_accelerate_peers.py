"""accelerate() against SpikingJelly itself; snnTorch and Norse are refused with the fields that differ."""

import copy
from typing import Any

import pytest
import torch

import neurodeploy as nd
from neurodeploy import nn
from neurodeploy.errors import KernelError

T, B, N = 40, 3, 50


def gradients(net: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    net.zero_grad()
    x = x.clone().requires_grad_()
    out = net(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=x.dtype).reshape(out.shape)).sum().backward()
    assert x.grad is not None
    return out.detach(), [x.grad, *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def jelly_layers() -> dict[str, Any]:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import surrogate

    return {
        "if-soft": neuron.IFNode(v_threshold=0.8, v_reset=None, step_mode="m"),
        "if-hard": neuron.IFNode(v_threshold=1.3, surrogate_function=surrogate.ATan(3.0), step_mode="m"),
        "if-detached": neuron.IFNode(v_reset=None, detach_reset=True, step_mode="m"),
        "if-hard-detached": neuron.IFNode(detach_reset=True, step_mode="m"),
        "lif": neuron.LIFNode(tau=5.0, v_reset=None, surrogate_function=surrogate.PiecewiseExp(2.0), step_mode="m"),
        "lif-hard": neuron.LIFNode(tau=3.0, v_threshold=0.7, step_mode="m"),
        "lif-no-decay": neuron.LIFNode(tau=8.0, decay_input=False, v_reset=None, step_mode="m"),
        "plif": neuron.ParametricLIFNode(init_tau=4.0, v_reset=None, step_mode="m"),
        "plif-no-decay": neuron.ParametricLIFNode(init_tau=4.0, decay_input=False, step_mode="m"),
    }


KINDS = (
    "if-soft",
    "if-hard",
    "if-detached",
    "if-hard-detached",
    "lif",
    "lif-hard",
    "lif-no-decay",
    "plif",
    "plif-no-decay",
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_states_and_gradients(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = jelly_layers()[kind].to(dtype)
    ours = nn.accelerate(copy.deepcopy(theirs))
    assert isinstance(ours, nn.SpikingLayer)
    x = torch.randn(T, B, N, dtype=dtype) * 0.8 + (1.0 if kind in ("lif", "lif-hard", "plif") else 0.2)
    expected, expected_grads = gradients(theirs, x)
    got, got_grads = gradients(ours, x)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(got, expected)
    precision = torch.finfo(dtype).eps
    if kind.startswith("if"):
        assert torch.equal(ours.v_mem, theirs.v.detach())  # type: ignore[arg-type]
    else:  # one more rounding a step than ours, over as many steps as a potential lives
        assert torch.allclose(ours.v_mem, theirs.v.detach(), rtol=0, atol=T * precision)  # type: ignore[arg-type]
    assert len(got_grads) == len(expected_grads) == 1 + kind.startswith("plif")
    for g, e in zip(got_grads, expected_grads, strict=True):
        assert relative(g, e) < 500 * precision  # sums over T steps, and over T * B * N terms for the parameter
    with torch.no_grad():  # the state goes on to the next call, in evaluation mode too
        theirs.v = theirs.v.detach()
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_a_network_is_swapped_in_place_and_their_tools_reach_it() -> None:
    jelly_layers()
    from spikingjelly.activation_based import functional, layer, neuron

    torch.manual_seed(2)
    net = torch.nn.Sequential(
        layer.Conv2d(2, 4, 3, bias=False),
        neuron.IFNode(v_reset=None),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(36, 10),
        neuron.LIFNode(tau=2.0),
    )
    functional.set_step_mode(net, "m")
    net[0].weight.data.uniform_(-0.2, 0.5)
    net[4].weight.data.uniform_(-1.0, 1.5)
    theirs = copy.deepcopy(net)
    functional.reset_net(net)
    kept = net[1]
    assert nn.accelerate(net) is net
    assert net[1] is not kept
    assert net.state_dict().keys() == theirs.state_dict().keys()
    x = (torch.rand(12, 3, 2, 8, 8) < 0.4).float() * 4
    with torch.no_grad():
        first = net(x)
        assert torch.equal(first, theirs(x))
        assert first.any()
        assert torch.equal(net(x), theirs(x))
        functional.reset_net(net)
        assert torch.equal(net(x), first)
        assert torch.equal(copy.deepcopy(net)(x), net(x))
    assert nd.trace(net, x) == nd.trace(theirs, x)
    functional.set_step_mode(net, "m")
    with pytest.raises(ValueError, match="step_mode"):
        functional.set_step_mode(net, "s")


def test_what_spikingjelly_has_and_ours_do_not_is_refused_by_its_field() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import surrogate

    cases = [
        (neuron.IFNode(), "step_mode"),
        (neuron.IFNode(v_reset=-0.5, step_mode="m"), "v_reset"),
        (neuron.IFNode(step_mode="m", store_v_seq=True), "store_v_seq"),
        (neuron.IFNode(step_mode="m", surrogate_function=surrogate.SoftSign()), "surrogate_function"),
        (neuron.IFNode(step_mode="m", surrogate_function=surrogate.Sigmoid(spiking=False)), "surrogate_function"),
        (neuron.QIFNode(step_mode="m"), "type"),
        (type("Own", (neuron.LIFNode,), {})(step_mode="m"), "type"),
    ]
    for layer, field in cases:
        good = neuron.IFNode(step_mode="m")
        net = torch.nn.Sequential(good, layer)
        with pytest.raises(KernelError, match=rf"^1: {field} is .* Remedy: ") as caught:
            nn.accelerate(net)
        assert caught.value.code == f"accelerate-{field.replace('_', '-')}"
        assert net[0] is good


def test_snntorch_is_refused_with_the_fields_that_differ() -> None:
    snn = pytest.importorskip("snntorch")
    with pytest.raises(KernelError, match=r"^0: .*v > threshold.*reset_delay") as caught:
        nn.accelerate(torch.nn.Sequential(snn.Leaky(beta=0.9)))
    assert caught.value.code == "accelerate-fields"
    with pytest.raises(KernelError) as caught:
        nn.accelerate(snn.Leaky(beta=0.9, reset_delay=False, graded_spikes_factor=2.0))
    assert "reset_delay" not in caught.value.message
    assert "graded_spikes_factor" in caught.value.message


def test_norse_is_refused_with_the_fields_that_differ() -> None:
    norse = pytest.importorskip("norse.torch")
    with pytest.raises(KernelError, match=r"^0: .*v > threshold.*'super'.*tau_syn_inv"):
        nn.accelerate(torch.nn.Sequential(norse.LIF()))
    with pytest.raises(KernelError, match=r"v_reset \(not 0\)"):
        nn.accelerate(norse.LIFBoxCell(norse.LIFBoxParameters(v_reset=torch.tensor(0.5))))
