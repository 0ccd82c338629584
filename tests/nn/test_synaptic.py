"""CubaLIF, ALIF, LI, SynapseFilter and the recurrent layers as modules: state, layouts, chunks, learning, refusals."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import neurodeploy
from neurodeploy import native_filter, nn
from neurodeploy.errors import GraphError, KernelError

N = 6


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def weights(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(N, N, generator=torch.Generator().manual_seed(1), dtype=dtype) * 0.3


LAYERS: dict[str, Callable[..., nn.TimeLayer]] = {
    "cuba": lambda **options: nn.CubaLIF(8.0, 4.0, norm_input=False, **options),
    "alif": lambda **options: nn.ALIF(8.0, 20.0, norm_input=False, **options),
    "li": lambda **options: nn.LI(8.0, **options),
    "synapse": lambda **options: nn.SynapseFilter(5.0, **options),
    "iaf-rec": lambda **options: nn.IAFRecurrent(weights(), **options),
    "lif-rec": lambda **options: nn.LIFRecurrent(8.0, weights(), norm_input=False, **options),
    "cuba-rec": lambda **options: nn.CubaLIFRecurrent(8.0, 4.0, weights(), norm_input=False, **options),
    "alif-rec": lambda **options: nn.ALIFRecurrent(8.0, 20.0, weights(), norm_input=False, **options),
    "module-rec": lambda **options: nn.LIFRecurrent(
        8.0, torch.nn.Sequential(torch.nn.Linear(N, N), torch.nn.Tanh()).double(), norm_input=False, **options
    ),
}


@pytest.fixture(params=LAYERS)
def build(request: pytest.FixtureRequest) -> Callable[..., nn.TimeLayer]:
    def seeded_build(**options: Any) -> nn.TimeLayer:
        torch.manual_seed(7)
        return LAYERS[request.param](**options).double()

    return seeded_build


def test_layouts_folding_and_axes_agree(build: Callable[..., nn.TimeLayer]) -> None:
    x = torch.randn(3, 20, N, dtype=torch.float64) + 0.3
    expected = build()(x)
    assert expected.shape == x.shape
    assert float(expected.detach().abs().sum()) > 0
    assert torch.equal(build(layout="TB")(x.transpose(0, 1).contiguous()).transpose(0, 1), expected)
    assert torch.equal(build(num_timesteps=20)(x.flatten(0, 1)), expected.flatten(0, 1))
    for none in (x[:, :0], x[:0]):
        assert build()(none).shape == none.shape


def test_chunks_equal_one_call_with_gradient(build: Callable[..., nn.TimeLayer]) -> None:
    x = torch.randn(2, 30, N, dtype=torch.float64) + 0.3
    x.requires_grad_()
    layer = build()
    whole, end = layer(x, return_state=True)
    first, state = layer(x[:, :11], return_state=True)
    second, last = layer(x[:, 11:], initial_state=state, return_state=True)
    assert torch.equal(torch.cat([first, second], 1), whole)
    rows = zip(last, end, strict=True) if isinstance(end, tuple) else [(last, end)]
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in rows)
    leaves = [x, *layer.parameters()]
    g = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, leaves, g)
    for got, e in zip(torch.autograd.grad(torch.cat([first, second], 1), leaves, g), expected, strict=True):
        assert float((got - e).abs().max() / e.abs().max()) <= 1e-12


def test_stateful_layers_go_on_until_reset(build: Callable[..., nn.TimeLayer]) -> None:
    x = torch.randn(2, 10, N, dtype=torch.float64) + 0.3
    whole = build()(torch.cat([x, x], 1))
    net = torch.nn.Sequential(build(stateful=True))
    assert torch.equal(torch.cat([net(x), net(x)], 1), whole)
    nn.reset_states(net)
    assert torch.equal(net(x), whole[:, :10])
    _, state = net[0](x, return_state=True)
    carried = [getattr(net[0], name).clone() for name in net[0].state_rows]
    with torch.no_grad():
        for row in [state] if isinstance(state, torch.Tensor) else [row for row in state if row is not None]:
            row.zero_()  # the caller's own
    assert all(torch.equal(getattr(net[0], name), c) for name, c in zip(net[0].state_rows, carried, strict=True))
    with pytest.raises(KernelError, match="reset_states"):
        net(x[:1])


def test_copies_and_saves(build: Callable[..., nn.TimeLayer]) -> None:
    layer = build()
    x = torch.randn(2, 6, N, dtype=torch.float64) + 0.3
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    other = build()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), expected)
    assert "=" in repr(layer)


@pytest.mark.parametrize("name", ["li", "alif", "cuba-rec", "module-rec"])
def test_compiles_as_one_graph(name: str) -> None:
    layer = LAYERS[name]().double()
    x = torch.randn(2, 4, N, dtype=torch.float64) + 0.3
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), layer(x))


def test_state_is_named_and_checked() -> None:
    x = torch.rand(2, 5, N)
    _, state = nn.CubaLIF(10.0, 5.0)(x, return_state=True)
    assert isinstance(state, nn.State)
    assert state.i_syn is not None
    assert state.b is None
    assert state.i_syn.shape == (2, N)
    only_v = nn.CubaLIF(10.0, 5.0)(x, nn.State(v_mem=torch.ones(2, N)))
    assert not torch.equal(only_v, nn.CubaLIF(10.0, 5.0)(x))
    for wrong in (torch.zeros(2, N), nn.State(b=torch.zeros(2, N)), nn.State(v_mem=torch.zeros(2, N + 1))):
        with pytest.raises(KernelError, match=r"Remedy: .{15}") as caught:
            nn.CubaLIF(10.0, 5.0)(x, wrong)
        assert caught.value.code == "layer-state"


def test_a_synapse_and_a_lif_are_a_cuba_lif() -> None:
    x = torch.randn(2, 50, N) + 0.2
    x.requires_grad_()
    options = {"threshold": 0.7, "norm_input": False}
    synapse, lif, cuba = nn.SynapseFilter(4.0), nn.LIF(9.0, **options), nn.CubaLIF(9.0, 4.0, **options)  # type: ignore[arg-type]
    assert torch.equal(lif(synapse(x)), cuba(x))
    g = torch.randn_like(x)
    apart, together = (torch.autograd.grad(y, x, g)[0] for y in (lif(synapse(x)), cuba(x)))
    assert torch.equal(apart, together)


def test_filters_equal_their_definition() -> None:
    x = torch.randn(2, 40, N, dtype=torch.float64, requires_grad=True)
    tau = torch.rand(N, dtype=torch.float64) * 10 + 2
    for kind in ("leak", "synapse"):
        layer = nn.LI(tau, norm_input=True, learn_tau=True) if kind == "leak" else nn.SynapseFilter(tau, learn_tau=True)
        start = torch.randn(2, N, dtype=torch.float64, requires_grad=True)
        y, values = start, []
        decay = torch.exp(-1 / next(layer.parameters()))
        for t in range(40):
            y = decay * y + (1 - decay) * x[:, t] if kind == "leak" else decay * (y + x[:, t])
            values.append(y)
        expected = torch.stack(values, 1)
        got, end = layer(x, start, return_state=True)
        assert torch.equal(got, expected)
        assert torch.equal(end, y)
        leaves = [x, start, *layer.parameters()]
        g = (torch.randn_like(expected), torch.randn_like(start))
        for a, e in zip(
            torch.autograd.grad((got, end), leaves, g), torch.autograd.grad((expected, y), leaves, g), strict=True
        ):
            assert float((a - e).abs().max() / e.abs().max()) <= 1e-12


@pytest.mark.usefixtures("threads_for_little_work")
def test_filter_operators() -> None:
    for time_major, synapse in ((False, False), (True, True)):
        x, state = torch.randn(3, 3, 5), torch.randn(3, 5)
        decay, gain = torch.rand(5), torch.ones(1)
        torch.library.opcheck(
            torch.ops.neurodeploy.filter_forward.default, (x, state, decay, gain, synapse, time_major)
        )
        torch.library.opcheck(
            torch.ops.neurodeploy.filter_backward.default, (x, state, x, x, state, decay, gain, synapse, time_major)
        )
    x = torch.randn(5, 30, 700)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = x.clone().requires_grad_()
        decay = torch.full((1,), 0.9, requires_grad=True)
        y, _ = native_filter.apply(leaf, torch.zeros(5, 700), decay, torch.ones(1), kind="leak")
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), [leaf, decay])))
    torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_readout_saves_nothing_it_does_not_need() -> None:
    """Without learnt time constants the scan is linear with known factors: only the state's shape is kept."""
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nn.LI(10.0)(torch.rand(4, 100, 64, requires_grad=True))
    assert sum(saved.values()) <= 4 * 64 + 2


@pytest.mark.parametrize(
    ("make", "memory", "arrays"),
    [
        (lambda **_: nn.SRMAlpha(10.0), "store", 1),
        (lambda **_: nn.LI(10.0, learn_tau=True), "store", 2),
        (lambda **options: nn.CubaLIF(10.0, 5.0, **options), "store", 1),
        (lambda **options: nn.CubaLIF(10.0, 5.0, **options), "recompute", 1 + 2 / 32),
        (lambda **options: nn.CubaLIF(10.0, 5.0, learn_tau=True, **options), "store", 2),  # and what enters the synapse
        (lambda **options: nn.ALIF(10.0, 5.0, **options), "store", 2),  # and b
        (lambda **options: nn.ALIF(10.0, 5.0, **options), "recompute", 1 + 2 / 32),
        # and what enters the neurons, and spikes
        (lambda **options: nn.LIFRecurrent(10.0, torch.zeros(64, 64), **options), "store", 3),
        (lambda **options: nn.LIFRecurrent(10.0, torch.zeros(64, 64), **options), "recompute", 2 + 2 / 32),
    ],
    ids=[
        "srm",
        "li-learnt",
        "cuba",
        "cuba-recompute",
        "cuba-learnt",
        "alif",
        "alif-recompute",
        "lif-rec",
        "lif-rec-recompute",
    ],
)
def test_saved_bytes_are_linear_in_steps(make: Callable[..., Any], memory: str, arrays: float) -> None:
    """v alone, or the input and the states of every 32nd step; and what the comments name."""
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        make(memory=memory)(torch.rand(4, 128, 64, requires_grad=True))
    assert sum(saved.values()) == pytest.approx(4 * 128 * 64 * arrays, rel=0.1)


def test_recurrent_weights_learn_and_any_module_connects() -> None:
    """A Linear inside the kernel, and the same matrix as a module that is called step by step."""
    x = torch.randn(3, 25, N, dtype=torch.float64) + 0.2
    linear = torch.nn.Linear(N, N, dtype=torch.float64)
    inside = nn.CubaLIFRecurrent(8.0, 4.0, linear, norm_input=False, learn_tau=True).double()
    outside = nn.CubaLIFRecurrent(8.0, 4.0, torch.nn.Sequential(linear), norm_input=False, learn_tau=True).double()
    g = torch.randn_like(x)
    results = []
    for layer in (inside, outside):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        leaves = [leaf, linear.weight, linear.bias, layer.tau_mem, layer.tau_syn]
        results.append((y, torch.autograd.grad(y, leaves, g)))
    assert torch.equal(results[0][0], results[1][0])
    assert float(results[0][0].detach().mean()) > 0.05
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert float((a - b).abs().max() / b.abs().max()) <= 1e-12
    shared = torch.nn.Parameter(weights())
    assert next(nn.LIFRecurrent(5.0, shared).rec_connect.parameters()) is shared


def test_maps_of_neurons_connect_through_a_convolution() -> None:
    conv = torch.nn.Conv2d(2, 2, 3, padding=1)
    layer = nn.LIFRecurrent(8.0, conv, norm_input=False, record_v=True)
    x = torch.rand(2, 5, 2, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert layer.v is not None
    assert layer.v.shape == x.shape
    assert conv.weight.grad is not None
    assert float(conv.weight.grad.abs().sum()) > 0


def test_adaptation_slows_firing() -> None:
    x = torch.full((1, 200, 1), 0.4)
    fast = nn.LIF(20.0, norm_input=False, spikes="single")(x)
    slow = nn.ALIF(20.0, 50.0, norm_input=False)(x)
    assert float(slow.sum()) < 0.8 * float(fast.sum())  # type: ignore[union-attr]
    assert torch.equal(slow[0, :3], fast[0, :3])  # type: ignore[index]


def test_an_infinite_time_constant_is_no_leak() -> None:
    x = torch.rand(2, 30, N)
    cuba = nn.CubaLIF(math.inf, 5.0, norm_input=False)(x)
    assert torch.equal(cuba, nn.IAF()(nn.SynapseFilter(5.0)(x)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: nn.CubaLIF(10.0, 0.0), "layer-tau-syn"),
        (lambda: nn.CubaLIF(math.inf, 5.0), "layer-tau-mem"),
        (lambda: nn.ALIF(10.0, -1.0), "layer-tau-adapt"),
        (lambda: nn.ALIF(10.0, 5.0, adapt_scale=0.0), "layer-adapt-scale"),
        (lambda: nn.LI(math.nan), "layer-tau-mem"),
        (lambda: nn.LIFRecurrent(10.0, torch.ones(2, 3)), "layer-lateral"),
        (lambda: nn.LIFRecurrent(10.0, None), "layer-lateral"),  # type: ignore[arg-type]
        (lambda: nn.LIFRecurrent(10.0, torch.nn.Linear(4, 4))(torch.rand(2, 5, 3)), "kernel-shape"),
        (lambda: nn.LIFRecurrent(10.0, torch.nn.Flatten(0))(torch.rand(2, 5, 3)), None),
        (lambda: nn.LIFRecurrent(10.0, torch.nn.AvgPool1d(2))(torch.rand(2, 5, 4)), "layer-lateral"),
        (lambda: nn.LI(10.0)(torch.rand(3)), "layer-shape"),
        (lambda: nn.LI(10.0)(torch.ones(2, 3, 4, dtype=torch.int32)), "kernel-dtype"),
    ],
)
def test_errors_have_a_remedy(make: Callable[[], Any], code: str | None) -> None:
    if code is None:  # as many currents as neurons, in whatever shape
        make()
        return
    with pytest.raises(KernelError, match=r"Remedy: .{15}") as caught:
        make()
    assert caught.value.code == code


def test_graphs_refuse_adapting_thresholds_and_lateral_connections() -> None:
    for name in LAYERS.keys() - {"cuba", "li", "synapse"}:
        layer = LAYERS[name]().double()
        net = torch.nn.Sequential(torch.nn.Linear(3, N).double(), layer)
        with pytest.raises(GraphError, match=f"a {type(layer).__name__} is not supported"):
            neurodeploy.trace(net, torch.rand(1, 5, 3, dtype=torch.float64))
