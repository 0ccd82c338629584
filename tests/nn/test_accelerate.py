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


def lateral(bias: bool = True, scale: float = 1.0) -> torch.nn.Linear:
    torch.manual_seed(5)
    linear = torch.nn.Linear(12, 12, bias=bias)
    torch.nn.init.normal_(linear.weight, 0.05 * scale, 0.15 * scale)
    return linear


ACCEPTED = {
    "lif-syn": lambda: sl.LIF(tau_mem=15.0, tau_syn=6.0, norm_input=False),
    "lif-syn-norm": lambda: sl.LIF(tau_mem=15.0, tau_syn=torch.tensor(4.0), min_v_mem=-0.2),
    "iaf-syn": lambda: sl.IAF(tau_syn=5.0, min_v_mem=-0.5),
    "leak": lambda: sl.ExpLeak(tau_mem=10.0),
    "leak-norm": lambda: sl.ExpLeak(tau_mem=10.0, norm_input=True),
    "alif": lambda: sl.ALIF(tau_mem=15.0, tau_adapt=30.0, norm_input=False),
    "alif-multi": lambda: sl.ALIF(
        tau_mem=15.0,
        tau_adapt=30.0,
        adapt_scale=0.7,
        spike_fn=sa.MultiSpike,
        min_v_mem=-0.5,
        surrogate_grad_fn=sa.PeriodicExponential(),
        spike_threshold=torch.tensor(0.6),
    ),
    "iaf-rec": lambda: sl.IAFRecurrent(rec_connect=lateral()),
    "lif-rec": lambda: sl.LIFRecurrent(tau_mem=15.0, rec_connect=lateral(False), norm_input=False, min_v_mem=-0.5),
    "lif-rec-syn": lambda: sl.LIFRecurrent(tau_mem=15.0, tau_syn=5.0, rec_connect=lateral(scale=0.1), norm_input=False),
    "iaf-rec-syn": lambda: sl.IAFRecurrent(tau_syn=5.0, rec_connect=lateral(scale=0.1)),
    "lif-rec-module": lambda: sl.LIFRecurrent(
        tau_mem=15.0, rec_connect=torch.nn.Sequential(torch.nn.Flatten(), lateral()), norm_input=False
    ),
    "alif-rec": lambda: sl.ALIFRecurrent(tau_mem=15.0, tau_adapt=30.0, rec_connect=lateral(), norm_input=False),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_layers_with_more_than_a_potential(name: str) -> None:
    """Spikes equal; gradients of input, time constants and weights to what sinabs' float32 spikes allow.

    In float64, but for recurrent layers: there sinabs multiplies its float32 spikes with weights of another type.
    """
    dtype = torch.float32 if "rec" in name else torch.float64
    theirs, ours = ACCEPTED[name]().to(dtype), nn.accelerate(ACCEPTED[name]().to(dtype))  # sinabs' copies lose options
    assert type(ours).__module__.startswith("neurodeploy")
    torch.manual_seed(0)
    x = torch.randn(4, 50, 12, dtype=dtype) * (5.0 if getattr(theirs, "norm_input", False) else 0.6) + 0.1
    expected, expected_grads = gradients(theirs, x)
    got, got_grads = gradients(ours, x)
    if "leak" in name:
        assert relative(got, expected) < 1e-14
    else:
        assert 0.01 < float(expected.mean()) < 2
        assert torch.equal(got, expected)
    assert len(got_grads) == len(expected_grads) >= 2 - name.startswith(("iaf-rec", "leak"))
    for g, e in zip(got_grads, expected_grads, strict=True):
        assert relative(g, e) < (1e-6 if dtype == torch.float64 else 2e-5)
    with torch.no_grad():  # the state goes on to the next call, and what the last spikes sent back does not
        assert relative(ours(x), theirs(x)) < 1e-14
        copied = copy.deepcopy(ours)
        assert torch.equal(copied(x), ours(x))
        ours.reset_states()  # type: ignore[operator]
        assert torch.equal(ours(x), got)


def test_adaptive_layers_carry_their_threshold() -> None:
    theirs, ours = ACCEPTED["alif"]().double(), nn.accelerate(ACCEPTED["alif"]().double())
    x = torch.rand(2, 20, 12, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(ours(x), theirs(x))
        assert relative(ours.b, theirs.b) < 1e-6  # type: ignore[arg-type]


REFUSED = [
    (sl.LIF(tau_mem=10.0, train_alphas=True), "train_alphas"),
    (sl.IAF(reset_fn=sa.MembraneReset()), "reset_fn"),
    (sl.IAF(reset_fn=sa.MembraneSubtract(0.5)), "reset_fn"),
    (sl.IAF(surrogate_grad_fn=sa.Gaussian()), "surrogate_grad_fn"),
    (sl.IAF(spike_fn=None), "spike_fn"),
    (sl.IAF(record_states=True), "record_states"),
    (sl.ExpLeak(tau_mem=10.0, min_v_mem=-1.0), "min_v_mem"),
    (sl.ALIF(tau_mem=10.0, tau_adapt=10.0, tau_syn=5.0), "tau_syn"),
    (sl.ALIF(tau_mem=10.0, tau_adapt=10.0, reset_fn=sa.MembraneReset()), "reset_fn"),
    (type("Own", (sl.LIF,), {})(tau_mem=10.0), "type"),
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
