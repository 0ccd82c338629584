"""accelerate() against sinabs itself: the same spikes, the same gradients, or a refusal that names the field."""

import copy

import pytest
import torch

from neurodeploy import nn
from neurodeploy.errors import KernelError

sinabs = pytest.importorskip("sinabs")
sl = pytest.importorskip("sinabs.layers")
sa = pytest.importorskip("sinabs.activation")

B, T = 3, 40


def cnn() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, bias=False),
        sl.IAFSqueeze(batch_size=B, spike_threshold=torch.tensor(0.7)),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 9, 10),
        sl.LIFSqueeze(tau_mem=20.0, num_timesteps=T, surrogate_grad_fn=sa.PeriodicExponential(), norm_input=False),
    )


def gradients(net: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    net.zero_grad()
    x = x.clone().requires_grad_()
    out = net(x)
    torch.manual_seed(3)
    (out * torch.randn(out.shape)).sum().backward()
    assert x.grad is not None
    grads = [x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
    return out.detach(), [g.clone() for g in grads]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_network_keeps_spikes_and_gradients() -> None:
    theirs = cnn()
    ours = copy.deepcopy(theirs)
    assert nn.accelerate(ours) is ours
    assert isinstance(ours[1], nn.IAF)
    assert isinstance(ours[5], nn.LIF)
    x = (torch.rand(B * T, 2, 8, 8) < 0.3).float()
    expected, expected_grads = gradients(theirs, x)
    got, got_grads = gradients(ours, x)
    assert expected.sum() > 50
    assert torch.equal(got, expected)
    assert len(got_grads) == len(expected_grads) == 5  # x, conv weight, linear weight and bias, tau
    for g, e in zip(got_grads, expected_grads, strict=True):
        assert relative(g, e) < 5e-6  # float32, through five layers; each layer alone is checked below
    # State is carried to the next call as sinabs does, and both libraries' reset clears it.
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
        sinabs.reset_states(ours)
        assert torch.equal(ours(x), expected)


@pytest.mark.parametrize(
    ("spike_fn", "v_min", "norm_input", "surrogate"),
    [
        (sa.MultiSpike, None, True, sa.SingleExponential()),
        (sa.MultiSpike, -0.25, False, sa.SingleExponential(grad_width=1.0, grad_scale=0.5)),
        (sa.SingleSpike, None, False, sa.PeriodicExponential()),
        (sa.MaxSpike(2), -0.5, False, sa.Heaviside(0.5)),
    ],
)
def test_layer_options_in_float64(spike_fn: object, v_min: float | None, norm_input: bool, surrogate: object) -> None:
    torch.manual_seed(0)
    theirs = sl.LIF(
        tau_mem=15.0,
        spike_fn=spike_fn,
        min_v_mem=v_min,
        norm_input=norm_input,
        surrogate_grad_fn=surrogate,
        spike_threshold=torch.tensor(0.6),
    ).double()
    ours = nn.accelerate(copy.deepcopy(theirs))
    x = torch.randn(4, 50, 30, dtype=torch.float64) * (4.0 if norm_input else 0.7)
    expected, expected_grads = gradients(theirs, x)
    got, got_grads = gradients(ours, x)
    assert 0.01 < expected.mean() < 2
    if v_min is not None:
        assert float(ours.v_mem.min()) >= v_min  # type: ignore[union-attr, arg-type]
    assert torch.equal(got, expected)
    for g, e in zip(got_grads, expected_grads, strict=True):
        assert relative(g, e) < 1e-6  # sinabs casts spikes to float32, hence not better


def test_optimizer_and_state_survive() -> None:
    net = torch.nn.Sequential(sl.LIF(tau_mem=10.0))
    tau = net[0].tau_mem
    x = torch.rand(2, 5, 3)
    net(x)
    carried = net[0].v_mem.clone()
    nn.accelerate(net)
    assert net[0].tau_mem is tau
    assert torch.equal(net[0].v_mem, carried)
    clone = copy.deepcopy(net)
    assert torch.equal(clone(x), net(x))


REFUSED = [
    (sl.LIF(tau_mem=10.0, tau_syn=5.0), "tau_syn"),
    (sl.LIF(tau_mem=10.0, train_alphas=True), "train_alphas"),
    (sl.IAF(reset_fn=sa.MembraneReset()), "reset_fn"),
    (sl.IAF(reset_fn=sa.MembraneSubtract(0.5)), "reset_fn"),
    (sl.IAF(surrogate_grad_fn=sa.Gaussian()), "surrogate_grad_fn"),
    (sl.IAF(spike_fn=None), "spike_fn"),
    (sl.IAF(record_states=True), "record_states"),
    (sl.IAFRecurrent(rec_connect=torch.nn.Linear(3, 3)), "type"),
    (sl.ExpLeak(tau_mem=10.0), "type"),
]


@pytest.mark.parametrize(("layer", "field"), REFUSED, ids=[f"{type(a).__name__}-{b}" for a, b in REFUSED])
def test_refusals_name_layer_and_field_and_change_nothing(layer: torch.nn.Module, field: str) -> None:
    net = torch.nn.Sequential(sl.IAF(), layer)
    first = net[0]
    with pytest.raises(KernelError, match=rf"^1: {field} is .* Remedy: ") as caught:
        nn.accelerate(net)
    assert caught.value.code == f"accelerate-{field.replace('_', '-')}"
    assert net[0] is first
    assert net[1] is layer


def test_networks_without_sinabs_layers_stay() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), nn.IAF())
    layers = list(net)
    assert nn.accelerate(net) is net
    assert list(net) == layers
