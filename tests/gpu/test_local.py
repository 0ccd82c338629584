"""Local training on a GPU: the schedule is torch's and the layers', so it follows the network's device."""

import pytest
import torch

import neurodeploy as nd
from neurodeploy.kernels.local import LocalTraining


def train(device: str, pipelined: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Losses of three steps, and the weights after them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(20, 30), nd.nn.LIF(tau_mem=5.0), torch.nn.Linear(30, 10), nd.nn.IAF(), torch.nn.Linear(10, 3)
    ).double()
    x, labels = torch.rand(4, 11, 20, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    training = LocalTraining(
        net.to(device),
        x.to(device),
        truncation=4,
        block=1,
        pipelined=pipelined,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
    )
    losses = torch.stack([training.step(x.to(device), labels.to(device)).losses for _ in range(3)])
    assert losses.device.type == device
    return losses.cpu(), [parameter.detach().cpu() for parameter in net.parameters()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("pipelined", [False, True])
def test_trains_as_on_the_cpu(pipelined: bool) -> None:
    """Heads are drawn on the CPU and moved, so all begins alike; products round differently."""
    expected, found = train("cpu", False), train("cuda", pipelined)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=0)
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
