"""Triton kernels of spike accumulation, compiled without a GPU, and beside the CPU where there is one."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import neurodeploy as nd
from neurodeploy.gpu.launch import recorded
from neurodeploy.kernel import Neuron
from neurodeploy.kernels import saf
from neurodeploy.kernels.saf import gpu
from neurodeploy.surrogate import KINDS, code
from tests.gpu.ahead_of_time import build
from tests.gpu.saf_cases import check_against_cpu

FORMS: tuple[saf.Form, ...] = ("closed", "recurrent", "lif")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "forms", "kinds"), [(torch.float32, FORMS, KINDS), (torch.float64, ("lif",), KINDS[3:4])]
)
def test_ahead_of_time(
    dtype: torch.dtype, forms: tuple[saf.Form, ...], kinds: tuple[Any, ...], architecture: int
) -> None:
    """Products and sums round apart, quotients to nearest, and registers suffice."""
    z, state, per_neuron = torch.rand(5, 8, 500, dtype=dtype), torch.rand(8, 500, dtype=dtype), torch.ones(500)
    one, each = torch.ones(1, dtype=dtype), per_neuron.to(dtype)
    with recorded() as launches:
        for form, spikes in zip(forms, (1, 0, 2), strict=False):
            gpu.forward(z, state, state, one, each, one, form, spikes, True)
        for kind in kinds:
            gpu.backward(z, z, each, one, one, *code(kind(0.7)))
    assert len(launches) == len(forms) + len(kinds)
    for launch in launches:
        compiled = build(launch, architecture)
        assert compiled.count(r"fma\.") == 0, launch
        assert compiled.count(r"(atom|red)\.") == 0, launch
        assert compiled.count(r"div\.(approx|full)") == 0, launch
        assert compiled.spilled_bytes == 0, launch


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spikes", ["single", "multi", 2])
def test_bits_of_the_cpu(form: saf.Form, spikes: object) -> None:
    torch.manual_seed(0)
    neuron = Neuron(spikes=spikes)  # type: ignore[arg-type]
    for dtype in (torch.float32, torch.float64):
        for per_neuron in (False, True):
            for shape in ((50, 7, 1013), (1, 64, 4096)):
                check_against_cpu(form, neuron, dtype, shape, per_neuron=per_neuron, device="cuda")


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers: dict[str, Any] = {"tau_mem": 5.0, "spikes": "single"}
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nd.nn.LIF(**layers, num_timesteps=10),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 16, 5),
        nd.nn.LIF(**layers, num_timesteps=10),
    ).double()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("method", ["saf_e", "saf_f", "ottt"])
def test_trains_as_on_the_cpu(method: str) -> None:
    """Equal spikes; gradients differ by the order of sums in the GPU's convolutions and products."""
    x = (torch.rand(3, 10, 2, 8, 8) < 0.4).double()
    results = []
    for device in ("cpu", "cuda"):
        trained = nd.nn.SAF(network(), method).to(device)  # type: ignore[arg-type]
        trained.reset_states()
        output = trained(x.to(device))
        output.square().sum().backward()
        results.append((output.detach().cpu(), [p.grad.cpu() for p in trained.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=1e-12)
    assert len(results[0][1]) >= 3
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * float(a.abs().max()))
