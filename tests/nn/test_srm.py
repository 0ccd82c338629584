"""SRMAlpha against its definition as convolutions, and its gradient against autograd with the reset detached."""

from math import e

import pytest
import torch

from neurodeploy import nn
from neurodeploy.errors import KernelError
from neurodeploy.kernels.slayer import srm
from neurodeploy.surrogate import PeriodicExponential, SingleExponential
from tests.autograd_loop import Spike


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def layer(**options: object) -> nn.SRMAlpha:
    tau = torch.tensor([6.0, 10.0, 3.0, 8.0, 5.0], dtype=torch.float64)
    return nn.SRMAlpha(tau, 4.0, threshold=1.2, record_v=True, **options).double()  # type: ignore[arg-type]


def values(module: nn.SRMAlpha) -> srm.Kernels:
    return srm.Kernels(module.tau_sr, module.tau_ref, module.scale_ref, module.threshold)


@pytest.mark.parametrize(("spikes", "limit"), [("single", 1), ("multi", 0), (2, 2)])
def test_forward_equals_the_convolutions(spikes: str | int, limit: int) -> None:
    module = layer(spikes=spikes)
    x = torch.randn(4, 150, 5, dtype=torch.float64) * 0.6 + 0.25
    expected, potentials = srm.reference(x, values(module), limit)
    assert torch.equal(module(x), expected)
    assert float(expected.mean()) > 0.02
    assert module.v is not None
    assert torch.allclose(module.v, potentials, rtol=1e-11, atol=1e-11)
    # The original cuts kernels off at a hundredth: what is left out is of that size, not of rounding.
    single = layer(spikes=spikes).float()
    assert float((single(x.float()).double() != expected).double().mean()) < 1e-3  # type: ignore[union-attr]


def loop(
    x: torch.Tensor, state: torch.Tensor, module: nn.SRMAlpha, *, detach_reset: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The recursion of the README for autograd, one operation at a time."""
    trace, response, spike_trace, refractory = state.unbind()
    decay, ref_decay = torch.exp(-1 / module.tau_sr), torch.exp(-1 / module.tau_ref)
    threshold = module.threshold.reshape(1)
    spikes, potentials = [], []
    for t in range(x.shape[1]):
        response = decay * (response + trace)
        refractory = ref_decay * (refractory + spike_trace)
        u = e / module.tau_sr * response - module.scale_ref * threshold * e / module.tau_ref * refractory
        s = Spike.apply(u, threshold, threshold, module.neuron)
        trace = decay * trace + x[:, t]
        spike_trace = ref_decay * spike_trace + (s.detach() if detach_reset else s)
        spikes.append(s)
        potentials.append(u)
    return torch.stack(spikes, 1), torch.stack(potentials, 1), torch.stack([trace, response, spike_trace, refractory])


@pytest.mark.parametrize("surrogate", [SingleExponential(1.0), PeriodicExponential(0.6)])
@pytest.mark.parametrize("algorithm", ["slayer", "exodus"])
def test_gradients_equal_autograd(algorithm: str, surrogate: object) -> None:
    """SLAYER's with the reset detached, EXODUS' in full: of input and state, given spikes, u and final state."""
    module = layer(algorithm=algorithm, surrogate=surrogate, spikes="multi")
    x = (torch.randn(3, 60, 5, dtype=torch.float64) * 0.6 + 0.3).requires_grad_()
    state = (torch.rand(4, 3, 5, dtype=torch.float64) * 0.3).requires_grad_()
    expected_outputs = loop(x, state, module, detach_reset=algorithm == "slayer")
    spikes, end = module(x, nn.SRMState(*state.unbind()), return_state=True)
    outputs = (spikes, module.v, torch.stack(list(end)))
    weights = [torch.randn_like(tensor) for tensor in expected_outputs]
    expected = torch.autograd.grad(expected_outputs, [x, state], weights)
    got = torch.autograd.grad(outputs, [x, state], weights)
    assert torch.equal(spikes, expected_outputs[0])
    for g, ex in zip(got, expected, strict=True):
        assert float((g - ex).abs().max() / ex.abs().max()) <= 1e-12


def test_algorithms_differ_for_random_gradients() -> None:
    x = (torch.randn(3, 120, 5, dtype=torch.float64) * 0.6 + 0.3).requires_grad_()
    g = torch.randn(3, 120, 5, dtype=torch.float64)
    dropped, exact = (torch.autograd.grad(layer(algorithm=a)(x), x, g)[0] for a in ("slayer", "exodus"))
    assert float((dropped - exact).norm() / exact.norm()) > 0.1


@pytest.mark.usefixtures("threads_for_little_work")
def test_chunks_layouts_threads_and_copies() -> None:
    x = (torch.randn(3, 40, 5, dtype=torch.float64) * 0.6 + 0.3).requires_grad_()
    module = layer()
    whole, end = module(x, return_state=True)
    first, state = module(x[:, :17], return_state=True)
    second, last = module(x[:, 17:], state, return_state=True)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(last, end, strict=True))
    g = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, x, g)[0]
    got = torch.autograd.grad(torch.cat([first, second], 1), x, g)[0]
    assert float((got - expected).abs().max() / expected.abs().max()) <= 1e-12
    major = layer(layout="TB")
    assert torch.equal(major(x.transpose(0, 1).contiguous()).transpose(0, 1), whole)  # type: ignore[union-attr]
    assert torch.equal(layer(num_timesteps=40)(x.flatten(0, 1)), whole.flatten(0, 1))
    stateful = layer(stateful=True)
    assert torch.equal(torch.cat([stateful(x[:, :9]), stateful(x[:, 9:])], 1), whole)  # type: ignore[list-item]
    wide = torch.rand(2, 20, 700)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = wide.clone().requires_grad_()
        y = nn.SRMAlpha(5.0)(leaf)
        results.append((y, torch.autograd.grad(y, leaf, torch.ones_like(wide))[0]))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_operators_and_compile() -> None:
    x, state = torch.randn(2, 8, 5), torch.rand(4, 2, 5)
    constants = srm.Kernels(*(torch.full((1,), v) for v in (5.0, 2.0, 1.0, 1.0))).scan()
    options = (1, 0, 1.0, 1.0, False, False)
    torch.library.opcheck(torch.ops.neurodeploy.srm_forward.default, (x, state, *constants, *options, True))
    torch.library.opcheck(torch.ops.neurodeploy.srm_backward.default, (x, None, state, x, *constants, *options))
    module = nn.SRMAlpha(5.0)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(compiled(leaf).sum(), leaf)
    (expected,) = torch.autograd.grad(module(leaf).sum(), leaf)  # type: ignore[union-attr]
    assert torch.allclose(got, expected)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: nn.SRMAlpha(0.0), "layer-tau-sr"),
        (lambda: nn.SRMAlpha(torch.nn.Parameter(torch.ones(1))), "layer-constant"),
        (lambda: nn.SRMAlpha(5.0, algorithm="saf"), "unknown-algorithm"),
        (lambda: nn.SRMAlpha(5.0)(torch.rand(2, 3, 4).half()), "kernel-dtype"),
        (lambda: nn.SRMAlpha(5.0)(torch.rand(2, 3, 4), nn.State(v_mem=torch.rand(2, 4))), "layer-state"),  # type: ignore[arg-type]
    ],
)
def test_errors_have_a_remedy(make: object, code: str) -> None:
    with pytest.raises(KernelError, match=r"Remedy: .{15}") as caught:
        make()  # type: ignore[operator]
    assert caught.value.code == code
