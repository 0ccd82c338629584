"""IAF and LIF as modules: layouts, folding, state, parameters, and use beside torch's own layers."""

import copy
import io
import math
import time

import pytest
import torch

from neurodeploy import nn
from neurodeploy.errors import KernelError


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_iaf_integrates_fires_and_subtracts() -> None:
    spikes, state = nn.IAF(threshold=1.0)(torch.tensor([[[0.5], [0.75], [2.0], [-3.0]]]), return_state=True)
    assert spikes.flatten().tolist() == [0.0, 1.0, 2.0, 0.0]
    assert state.item() == -2.75


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"spikes": "single"}, [0.0, 1.0, 1.0, 0.0]),
        ({"spikes": 2, "reset": "zero"}, [0.0, 1.0, 2.0, 0.0]),
        ({"v_min": -1.0}, [0.0, 1.0, 2.0, 0.0]),
        ({"threshold": 0.5}, [1.0, 1.0, 4.0, 0.0]),
    ],
)
def test_options_reach_the_kernel(options: dict[str, object], expected: list[float]) -> None:
    x = torch.tensor([[[0.5], [0.75], [2.0], [-3.0]]])
    assert nn.IAF(**options)(x).flatten().tolist() == expected  # type: ignore[arg-type, union-attr]


def test_lif_leaks_and_normalises() -> None:
    layer = nn.LIF(10.0, threshold=1e9, record_v=True)
    layer(torch.ones(1, 200, 1))
    assert layer.v is not None
    alpha = math.exp(-0.1)
    expected = 1 - alpha ** torch.arange(1, 201)
    assert torch.allclose(layer.v[0, :, 0], expected, atol=1e-5)
    plain = nn.LIF(10.0, threshold=1e9, norm_input=False, record_v=True)
    plain(torch.ones(1, 200, 1))
    assert plain.v is not None
    assert torch.allclose(plain.v[0, :, 0], expected / (1 - alpha), atol=1e-4)


def test_layouts_and_folding_agree() -> None:
    x = torch.rand(3, 20, 2, 4, 5)
    expected = nn.IAF()(x)
    assert expected.shape == x.shape
    time_major = nn.IAF(layout="TB")(x.transpose(0, 1))
    assert torch.equal(time_major.transpose(0, 1), expected)
    folded = x.flatten(0, 1)
    for layer in (nn.IAF(num_timesteps=20), nn.IAF(batch_size=3), nn.IAF(batch_size=3, num_timesteps=20)):
        assert torch.equal(layer(folded), expected.flatten(0, 1))
    channels_last = folded.contiguous(memory_format=torch.channels_last)
    assert torch.equal(nn.IAF(batch_size=3)(channels_last), expected.flatten(0, 1))


def test_stands_beside_torch_layers() -> None:
    x = (torch.rand(2, 15, 2, 10, 10) < 0.3).float()
    conv, linear = torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.Linear(3 * 16, 4)
    folded = torch.nn.Sequential(
        conv,
        nn.IAF(num_timesteps=15, threshold=0.2),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        linear,
        nn.LIF(20.0, num_timesteps=15),
    )
    unfolded = torch.nn.Sequential(
        nn.OverTime(conv),
        nn.IAF(threshold=0.2),
        nn.OverTime(torch.nn.AvgPool2d(2)),
        torch.nn.Flatten(2),
        linear,
        nn.LIF(20.0),
    )
    got = folded(x.flatten(0, 1))
    assert got.shape == (30, 4)
    assert torch.equal(got.unflatten(0, (2, 15)), unfolded(x))
    got.sum().backward()
    assert float(conv.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_streaming_equals_one_call_and_carries_gradient() -> None:
    x = torch.randn(2, 30, 3, dtype=torch.float64, requires_grad=True)
    layer = nn.LIF(8.0, norm_input=False).double()
    whole = layer(x)
    first, state = layer(x[:, :11], return_state=True)
    second = layer(x[:, 11:], initial_state=state)
    assert torch.equal(torch.cat([first, second], 1), whole)
    weights = torch.randn_like(whole)
    (expected,) = torch.autograd.grad(whole, x, weights)
    (got,) = torch.autograd.grad(torch.cat([first, second], 1), x, weights)
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_calls_are_independent_unless_stateful() -> None:
    x = torch.full((2, 3, 1), 0.4)
    layer = nn.IAF()
    assert torch.equal(layer(x), layer(x))
    stateful = torch.nn.Sequential(nn.IAF(stateful=True))
    whole = nn.IAF()(torch.cat([x, x], 1))
    assert torch.equal(torch.cat([stateful(x), stateful(x)], 1), whole)
    nn.reset_states(stateful)
    assert torch.equal(stateful(x), layer(x))
    with pytest.raises(KernelError, match="reset_states") as caught:
        stateful(x[:1])
    assert caught.value.code == "layer-state"


def test_parameters_per_neuron_and_learnt() -> None:
    x = torch.rand(2, 25, 3, 4, 4, dtype=torch.float64)
    layer = nn.LIF(
        torch.tensor([5.0, 10.0, 20.0]).reshape(3, 1, 1),
        threshold=torch.tensor([0.2, 0.3, 0.4]).reshape(3, 1, 1),
        learn_tau=True,
        learn_threshold=True,
    ).double()
    assert {name for name, _ in layer.named_parameters()} == {"threshold", "tau_mem"}
    out = layer(x)
    for channel, (tau, threshold) in enumerate(((5.0, 0.2), (10.0, 0.3), (20.0, 0.4))):
        alone = nn.LIF(tau, threshold=threshold).double()
        assert torch.equal(alone(x[:, :, channel]), out[:, :, channel])
    out.sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == (3, 1, 1)
        assert bool((parameter.grad != 0).all())
    constant = nn.LIF(10.0)
    assert list(constant.parameters()) == []
    assert set(constant.state_dict()) == {"threshold", "tau_mem"}


def test_attributes_a_tracer_reads() -> None:
    layer = nn.LIF(20.0, threshold=0.7, v_min=-0.7, reset="zero", spikes=3, v_min_position="before_threshold")
    assert layer.threshold.item() == pytest.approx(0.7)
    assert (layer.v_min, layer.reset, layer.spikes, layer.v_min_position) == (-0.7, "zero", 3, "before_threshold")
    assert layer.decay.item() == pytest.approx(math.exp(-1 / 20))
    assert layer.input_gain.item() == pytest.approx(1 - math.exp(-1 / 20))
    iaf = nn.IAF()
    assert (iaf.decay.item(), iaf.input_gain.item()) == (1.0, 1.0)
    assert nn.LIF(20.0, norm_input=False).input_gain.item() == 1.0


def test_gradient_of_recorded_potential() -> None:
    """Where neither spikes nor the surrogate act v is linear in x: dv_T/dx_t = decay^(T-t) gain."""
    layer = nn.LIF(6.0, threshold=1e6, surrogate=nn.Box(0.1), record_v=True).double()
    x = torch.rand(1, 9, 1, dtype=torch.float64, requires_grad=True)
    layer(x)
    assert layer.v is not None
    (grad,) = torch.autograd.grad(layer.v[0, -1, 0], x)
    decay = float(layer.decay)
    expected = torch.tensor([decay ** (8 - t) * (1 - decay) for t in range(9)], dtype=torch.float64)
    assert torch.allclose(grad.flatten(), expected, rtol=1e-12)


def test_copies_saves_and_compiles() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), nn.LIF(10.0, threshold=0.1), torch.nn.Linear(5, 2), nn.IAF())
    x = torch.rand(2, 12, 6)
    expected = net(x)
    assert torch.equal(copy.deepcopy(net)(x), expected)
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    stream.seek(0)
    other = torch.nn.Sequential(torch.nn.Linear(6, 5), nn.LIF(3.0), torch.nn.Linear(5, 2), nn.IAF())
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(other(x), expected)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), expected)


def test_saved_bytes_follow_the_formula() -> None:
    """store: v and the initial state; recompute: the input and a checkpoint every 32 steps."""
    B, T, N = 4, 100, 64
    for memory, elements in (
        ("store", B * T * N + B * N),
        ("recompute", B * T * N + math.ceil(T / 32) * B * N + B * N),
    ):
        saved: dict[int, int] = {}

        def keep(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        x = torch.rand(B, T, N, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            nn.IAF(memory=memory)(x)  # type: ignore[arg-type]
        assert sum(saved.values()) == pytest.approx(4 * elements, rel=0.1)
        assert sum(saved.values()) >= 4 * elements


def test_time_grows_linearly_with_the_recording() -> None:
    """Twice the steps take at most 2.3 times as long: the scan is linear, where a double sum over time would be not.

    Processor time, so that other work on the machine does not count.
    """
    torch.set_num_threads(1)
    layer = nn.LIF(20.0, threshold=0.2)

    def seconds(steps: int) -> float:
        x = torch.rand(1, steps, 512, requires_grad=True)
        best = math.inf
        for _ in range(15):
            began = time.process_time()
            layer(x).sum().backward()
            best = min(best, time.process_time() - began)
        return best

    lengths = [500, 1000, 2000, 4000]
    rounds = [[seconds(steps) for steps in lengths] for _ in range(3)]
    times = [min(column) for column in zip(*rounds, strict=True)]
    assert times[-1] / times[0] <= 2.3**3


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: nn.IAF(threshold=0.0), "layer-threshold"),
        (lambda: nn.IAF(threshold=torch.tensor([1.0, -1.0])), "layer-threshold"),
        (lambda: nn.IAF(threshold=math.nan), "layer-threshold"),
        (lambda: nn.LIF(0.0), "layer-tau-mem"),
        (lambda: nn.IAF(reset="hard"), "neuron-reset"),  # type: ignore[arg-type]
        (lambda: nn.IAF(spikes=0), "neuron-spikes"),
        (lambda: nn.IAF(spikes=True), "neuron-spikes"),
        (lambda: nn.IAF(v_min=math.inf), "neuron-v-min"),
        (lambda: nn.IAF(v_min_position="first"), "neuron-v-min-position"),  # type: ignore[arg-type]
        (lambda: nn.IAF(surrogate=abs), "neuron-surrogate"),  # type: ignore[arg-type]
        (lambda: nn.IAF(layout="NT"), "layer-layout"),  # type: ignore[arg-type]
        (lambda: nn.IAF(num_timesteps=0), "layer-fold"),
        (lambda: nn.IAF(num_timesteps=2.5), "layer-fold"),  # type: ignore[arg-type]
        (lambda: nn.IAF(batch_size="3"), "layer-fold"),  # type: ignore[arg-type]
        (lambda: nn.IAF(algorithm="none-such"), "unknown-algorithm"),
        (lambda: nn.Box(grad_width=0.0), "surrogate-width"),
        (lambda: nn.Sigmoid(grad_scale=math.nan), "surrogate-scale"),
        (lambda: nn.IAF()(torch.rand(3)), "layer-shape"),
        (lambda: nn.IAF(num_timesteps=4)(torch.rand(6, 2)), "layer-fold"),
        (lambda: nn.IAF(batch_size=2, num_timesteps=4)(torch.rand(16, 2)), "layer-fold"),
        (lambda: nn.IAF(threshold=torch.ones(3))(torch.rand(2, 4, 5)), "layer-parameter-shape"),
        (lambda: nn.IAF()(torch.rand(2, 4, 5), initial_state=torch.zeros(2, 4)), "layer-state"),
        (lambda: nn.IAF()(torch.ones(2, 4, 5, dtype=torch.int32)), "kernel-dtype"),
        (lambda: nn.IAF(memory="recompute", record_v=True)(torch.rand(2, 4, 5)), "record-v-recompute"),
        (lambda: nn.IAF(memory="all")(torch.rand(2, 4, 5)), "kernel-memory"),  # type: ignore[arg-type]
        (lambda: nn.IAF().to("meta")(torch.rand(2, 4, 5)), "layer-device"),
        (lambda: nn.IAF()(torch.rand(2, 4, 5), initial_state=torch.zeros(2, 5, device="meta")), "layer-device"),
        (lambda: nn.IAF().to("meta")(torch.rand(2, 4, 5, device="meta")), "kernel-device"),
        (lambda: nn.Merge()(torch.rand(2, 3), torch.rand(2, 1)), "merge-shape"),
    ],
)
def test_errors_have_a_remedy(build: object, code: str) -> None:
    with pytest.raises(KernelError, match=r"Remedy: .{15}") as caught:
        build()  # type: ignore[operator]
    assert caught.value.code == code


@pytest.mark.parametrize("value", [0.0, -0.5, math.nan])
def test_a_threshold_that_learning_drove_below_zero_is_refused(value: float) -> None:
    layer = nn.IAF(threshold=torch.ones(3), learn_threshold=True)
    with torch.no_grad():
        layer.threshold[1] = value
    with pytest.raises(KernelError, match="threshold") as caught:
        layer(torch.rand(2, 4, 3))
    assert caught.value.code == "kernel-threshold"


def test_layers_built_from_one_tensor_learn_apart() -> None:
    values = torch.ones(3)
    first, second = (nn.LIF(values, threshold=values, learn_threshold=True) for _ in range(2))
    with torch.no_grad():
        first.threshold.fill_(0.25)
        first.tau_mem.fill_(5.0)
    assert (second.threshold == 1).all()
    assert (second.tau_mem == 1).all()
    assert (values == 1).all()
    shared = torch.nn.Parameter(torch.tensor(0.5))
    assert nn.IAF(threshold=shared).threshold is nn.IAF(threshold=shared).threshold


def test_nan_silences_its_neuron_alone() -> None:
    x = torch.ones(1, 4, 3)
    x[0, 1, 1] = math.nan
    assert nn.IAF()(x)[0].sum(0).tolist() == [4.0, 1.0, 4.0]


def test_empty_batch_passes_through() -> None:
    assert nn.IAF(num_timesteps=5)(torch.rand(0, 3)).shape == (0, 3)
    assert nn.IAF()(torch.rand(0, 5, 3)).shape == (0, 5, 3)


@pytest.mark.parametrize("shape", [(3, 2, 12, 24), (2, 12, 24), (2, 3, 2, 12, 24), (0, 2, 12, 24), (3, 2, 13, 25)])
@pytest.mark.parametrize("kernel", [2, 3, (4, 1), (1, 3), (12, 24)])
def test_sum_pool_equals_average_pooling(shape: tuple[int, ...], kernel: int | tuple[int, int]) -> None:
    """Tiles that cover the map take another way than windows that do not: the values and gradients are the same."""
    x = torch.randint(-3, 9, shape).double().requires_grad_()
    folded = x.flatten(0, -3).unsqueeze(1)
    expected = torch.nn.functional.avg_pool2d(folded, kernel, divisor_override=1)
    got = nn.SumPool2d(kernel)(x)
    assert torch.equal(got, expected.reshape(got.shape))
    weights = torch.randn_like(got)
    (grad,) = torch.autograd.grad(got, x, weights)
    (expected_grad,) = torch.autograd.grad(expected, x, weights.reshape(expected.shape))
    assert torch.equal(grad, expected_grad)


def test_sum_pool_of_fractions_strided_maps_and_under_compile() -> None:
    x = torch.rand(3, 2, 8, 8)
    expected = 4 * torch.nn.functional.avg_pool2d(x, 2)
    pool = nn.SumPool2d(2)
    assert torch.allclose(pool(x), expected, rtol=1e-6)
    assert torch.equal(pool(x.contiguous(memory_format=torch.channels_last)), pool(x))
    assert torch.allclose(pool(x.transpose(2, 3)), expected.transpose(2, 3), rtol=1e-6)
    assert torch.equal(pool(x.half()), 4 * torch.nn.functional.avg_pool2d(x.half(), 2))
    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(compiled(leaf).sum(), leaf)
    assert torch.equal(grad, torch.ones_like(x))
    assert torch.equal(compiled(x), pool(x))
    assert torch.autograd.gradcheck(pool, x[:1, :1].double().requires_grad_())


def test_sum_pool_and_merge() -> None:
    x = torch.arange(32.0).reshape(2, 1, 4, 4)
    assert torch.equal(nn.SumPool2d(2)(x), 4 * torch.nn.AvgPool2d(2)(x))
    assert torch.equal(nn.SumPool2d((2, 1), stride=1)(x), x[:, :, :-1] + x[:, :, 1:])
    over_time = x.reshape(1, 2, 1, 4, 4)
    assert torch.equal(nn.SumPool2d(2)(over_time), nn.SumPool2d(2)(x).reshape(1, 2, 1, 2, 2))
    assert torch.equal(nn.Merge()(x, x), 2 * x)
