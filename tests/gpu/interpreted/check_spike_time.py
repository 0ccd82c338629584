"""The kernels of spike times under Triton's interpreter, against the processor's and the definition.

Run by tests/gpu/test_interpreter.py, in a process whose environment says TRITON_INTERPRET=1.
"""

from math import inf
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from neurodeploy.errors import KernelError
from neurodeploy.gpu import launch
from neurodeploy.kernels.spike_time import SpikeOverflowError, gpu, gpu_cell, reference
from tests.gpu.spike_time_cases import HARD, ONCE, SOFT, TAU_SYN, case, check_against_cpu, neurons

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy on lanes whose value is not taken


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


@pytest.mark.parametrize(("options", "dtype"), [(SOFT, torch.float32), (HARD, torch.float64)], ids=["soft", "hard"])
def test_quadratic_has_the_bits_of_the_cpu(options: dict[str, Any], dtype: torch.dtype) -> None:
    neuron = neurons(2.0, 0, False, options)
    counts = check_against_cpu(*case(neuron, dtype, batch=1, inputs=6, slots=2, count=33), neuron, device="cpu")
    assert int(counts.max()) >= 3


@pytest.mark.parametrize(("ratio", "inputs"), [(1.0, 4), (3.3, 3)])
def test_other_solvers_have_the_bits_of_the_cpu(ratio: float, inputs: int) -> None:
    neuron = neurons(ratio, 0, False, {})
    times, weight = case(neuron, torch.float64, batch=1, inputs=inputs, slots=1, count=4)
    counts = check_against_cpu(times, 3 * weight.abs(), neuron, device="cpu")
    assert int(counts.sum()) >= 2


def test_different_neurons_in_one_block() -> None:
    neuron = neurons(3.3, 5, True, HARD)
    times, weight = case(neuron, torch.float32, batch=1, inputs=4, slots=1, count=5)
    counts = check_against_cpu(times, 3 * weight.abs(), neuron, device="cpu")
    assert int(counts.min()) >= 1


@pytest.mark.parametrize("t_max", [0.03, inf])
def test_one_spike_at_most_and_the_end_of_a_run(t_max: float) -> None:
    neuron = neurons(2.0, 0, False, ONCE)
    times, weight = case(neuron, torch.float64, batch=1, inputs=6, slots=1, count=8)
    counts = check_against_cpu(times, weight, neuron, device="cpu", t_max=t_max, max_spikes=1)
    assert int(counts.sum()) >= 1


def test_equals_the_reference() -> None:
    neuron = neurons(2.0, 0, False, HARD)
    times, weight = case(neuron, torch.float64, batch=1, inputs=6, slots=2, count=4)
    cells = neuron.rows(4)
    rows = [reference.Cell(m, s, v, True, a, r) for m, s, v, a, r in cells.expand(5, 4).T.tolist()]
    out, by_weight, _ = reference.layer(times.numpy(), weight.numpy(), rows, 20, 0.1)
    found, counts, _, *kept = gpu.forward(times, weight, cells, True, 20, 0.1, 1e-3, True)
    np.testing.assert_allclose(found, out, rtol=0, atol=1e-13)
    grad = torch.randn(found.shape, dtype=torch.float64)
    grad_weight, _ = gpu.backward(grad, times, weight, cells, counts, *kept, True, 0.1, 1e-3, False)
    wanted = np.einsum("bnk,bnki->in", grad.numpy(), by_weight)
    np.testing.assert_allclose(grad_weight, wanted, rtol=1e-9, atol=1e-9 * abs(wanted).max())


def test_samples_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PROGRAMS", 3)
    neuron = neurons(2.0, 0, False, {})
    check_against_cpu(*case(neuron, torch.float64, batch=5, inputs=4, slots=1, count=3), neuron, device="cpu")


def test_silent_and_grazing_neurons() -> None:
    """A peak just above the threshold: the slope is about sqrt(2 * excess) in units of its two parts."""
    neuron = neurons(2.0, 0, False, {})
    excess = torch.tensor([-1e-9, 1e-13, 1e-9, 1e-2], dtype=torch.float64)
    weight = ((1 + excess) / neuron.peak_response())[None]
    times = torch.zeros(1, 1, 1, dtype=torch.float64)
    check_against_cpu(times, weight, neuron, device="cpu")
    _, counts, grazing, *_ = gpu.forward(times, weight, neuron.rows(4), False, 2, inf, 1e-3, False)
    assert counts.tolist() == [[0, 1, 1, 1]]
    assert grazing.tolist() == [[0, 1, 1, 0]]


def test_overflow_and_values_that_cannot_be_run() -> None:
    neuron = neurons(2.0, 0, False, {})
    times = torch.rand(3, 4, 2, dtype=torch.float64) * TAU_SYN
    weight = torch.full((4, 5), 0.01, dtype=torch.float64) / neuron.peak_response()
    weight[:, 3] *= 400
    with pytest.raises(SpikeOverflowError, match=r"Neuron 3 fires more than max_spikes=2 times in sample 0"):
        gpu.forward(times, weight, neuron.rows(5), False, 2, inf, 1e-3, False)
    for bad_times, bad_weight, code in (
        (torch.full_like(times, torch.nan), weight, "spike-time-input"),
        (torch.full_like(times, -inf), weight, "spike-time-input"),
        (times, torch.full_like(weight, torch.nan), "spike-time-weight"),
        (times, torch.full_like(weight, inf), "spike-time-weight"),
    ):
        with pytest.raises(KernelError) as raised:
            gpu.forward(bad_times, bad_weight, neuron.rows(5), False, 2, inf, 1e-3, False)
        assert raised.value.code == code


@pytest.mark.parametrize("shape", [(0, 3, 1, 2), (2, 0, 1, 2), (2, 3, 1, 0), (2, 3, 0, 2)])
def test_nothing_to_do(shape: tuple[int, int, int, int]) -> None:
    batch, inputs, slots, count = shape
    neuron = neurons(2.0, 0, False, {})
    times, weight = torch.zeros(batch, inputs, slots), torch.zeros(inputs, count)
    out, *kept = gpu.forward(times, weight, neuron.rows(count), False, 4, inf, 1e-3, True)
    assert out.shape == (batch, count, 4)
    assert (out == inf).all()
    grads = gpu.backward(out, times, weight, neuron.rows(count), kept[0], *kept[2:], False, inf, 1e-3, True)
    assert [grad.shape for grad in grads] == [weight.shape, times.shape]
    assert all((grad == 0).all() for grad in grads)


@triton.jit
def logarithms(x, of_one_plus, of_it, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    value = tl.load(x + at)
    tl.store(of_one_plus + at, gpu_cell.log_one_plus(value))
    tl.store(of_it + at, gpu_cell.log_of_sum(tl.abs(value), 0.0))


@pytest.mark.parametrize("kind", ["near 0", "near -1", "negative", "large"])
def test_logarithms_are_within_one_unit_in_the_last_place(kind: str) -> None:
    uniform = torch.rand(512, dtype=torch.float64)
    x = {
        "near 0": (uniform - 0.5) * 10.0 ** torch.linspace(-17, 0, 512, dtype=torch.float64),
        "near -1": 10.0 ** (-15 * uniform) - 1,
        "negative": -uniform,
        "large": 10.0 ** (300 * uniform),
    }[kind]
    found = torch.empty_like(x), torch.empty_like(x)
    launch.run(logarithms, (1,), (x, *found), 4, BLOCK=512)
    with mpmath.workdps(40):
        for values, exact in zip(found, (mpmath.log1p, lambda v: mpmath.log(abs(v))), strict=True):
            for value, argument in zip(values.tolist(), x.tolist(), strict=True):
                assert abs(mpmath.mpf(value) - exact(mpmath.mpf(argument))) <= np.spacing(abs(value))
