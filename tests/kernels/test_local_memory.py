"""The memory of local training follows (K / T) x largest block / total, and truncation costs what the README says."""

from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F

from neurodeploy import nn
from neurodeploy.kernels.local import LocalTraining, SavedBytes

B, T = 4, 120
WIDTHS = (6, 200, 320, 150, 90, 10)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def sgd(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


def linear_net() -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(WIDTHS):
        layers += [torch.nn.Linear(before, after), nn.LIF(10.0)]
    return torch.nn.Sequential(*layers)


def conv_net() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 3, padding=1),
        nn.IAF(batch_size=B),
        nn.SumPool2d(2),
        torch.nn.Conv2d(8, 12, 3, padding=1),
        nn.IAF(batch_size=B),
        nn.SumPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(12 * 9, 10),
        nn.IAF(batch_size=B),
    )


#: Network, input, and per neuron layer: what its weight layer keeps (its input) and what the neurons keep (v). The
#: linear network's input is narrow: a segment of it is a view, which keeps the whole recording that is there anyway.
NETS: dict[str, tuple[Callable[[], torch.nn.Sequential], tuple[int, ...], list[int]]] = {
    "linear": (linear_net, (B, T, 6), [before + after for before, after in pairwise(WIDTHS)]),
    "conv": (
        conv_net,
        (B * T, 2, 12, 12),
        [2 * 144 + 8 * 144, 8 * 36 + 12 * 36, 12 * 9 + 10],
    ),
}


def peak(train: Callable[[], object], *without: torch.nn.Module) -> int:
    with SavedBytes(one for module in without for one in module.parameters()) as saved:
        train()
    assert saved.now == 0
    return saved.peak


@pytest.mark.parametrize("name", NETS)
def test_saved_bytes_follow_the_formula(name: str) -> None:
    build, shape, kept = NETS[name]
    x, labels = (torch.rand(shape) < 0.3).float(), torch.randint(10, (B,))
    net = build()

    def whole() -> None:
        F.cross_entropy(net(x).reshape(B, T, 10).mean(1), labels).backward()

    total = peak(whole, net)
    assert total == pytest.approx(4 * B * T * sum(kept), rel=0.1)
    for length, size in product((60, 40, 20), (1, 2, None)):
        local = LocalTraining(net, x, truncation=length, block=size, optimizer=sgd)
        cut = len(kept) if size is None else size
        largest = max(sum(kept[start : start + cut]) for start in range(0, len(kept), cut))
        measured = peak(lambda local=local: local.step(x, labels), net, local.heads)  # type: ignore[misc]
        assert measured / total == pytest.approx(length / T * largest / sum(kept), rel=0.1), (length, size)


def test_saved_bytes_count_a_storage_once_until_it_is_let_go() -> None:
    weight = torch.rand(100, requires_grad=True)
    a = torch.rand(50, requires_grad=True)
    with SavedBytes([weight]) as saved:
        first = (a * a.detach()).sum()  # keeps a, twice, and is one storage
        assert saved.now == saved.peak == 50 * 4
        second = (a[:10] * weight[:10]).sum()  # part of the same storage, and one that does not count
        assert saved.now == 50 * 4
        first.backward()  # type: ignore[no-untyped-call]
        assert saved.now == 50 * 4
        second.backward()  # type: ignore[no-untyped-call]
        assert saved.now == 0
    assert saved.peak == 50 * 4


def gradient_errors(length: int) -> list[float]:
    """Relative L2 error of each layer's weight gradient by cutting time alone: same loss, with and without the cuts."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(4):
        linear = torch.nn.Linear(40, 40, bias=False)
        torch.nn.init.normal_(linear.weight, 0.02, 0.2)
        layers += [linear, nn.LIF(9.5, norm_input=False)]
    net = torch.nn.Sequential(*layers).double()
    x, labels = (torch.rand(8, 24, 40, dtype=torch.float64) < 0.4).double(), torch.randint(40, (8,))
    LocalTraining(net, x, truncation=length, optimizer=sgd, update="accumulate").step(x, labels)
    cut = [one.grad.clone() for one in net.parameters() if one.grad is not None]
    net.zero_grad()
    parts = net(x).split(length, 1)
    losses = [F.cross_entropy(part.mean(1), labels) * part.shape[1] / 24 for part in parts]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    exact = [one.grad for one in net.parameters() if one.grad is not None]
    return [float((c - e).norm() / e.norm()) for c, e in zip(cut, exact, strict=True)]


def test_truncation_error_grows_with_the_cuts_and_towards_the_input() -> None:
    errors = [gradient_errors(length) for length in (24, 12, 4, 1)]
    assert max(errors[0]) <= 1e-12
    for longer, shorter in pairwise(errors):
        assert all(a < b for a, b in zip(longer, shorter, strict=True))
    for first, *_, last in errors[1:]:
        assert last < first < 1
