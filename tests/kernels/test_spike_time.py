"""Event-based backpropagation: spike times against high precision, gradients against differences, limits, errors."""

from collections.abc import Iterator
from itertools import pairwise, product
from math import inf, nan
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from neurodeploy import kernel
from neurodeploy.errors import KernelError
from neurodeploy.kernels import spike_time
from neurodeploy.kernels.spike_time import SpikeOverflowError, SpikeTimeNeuron, reference

TAU_SYN = 0.01
SOFT: dict[str, Any] = {}
HARD: dict[str, Any] = {"reset": "value", "v_reset": -0.3, "t_ref": 0.003}
RATIOS = (2.0, 1.0, 1.0 + 1e-9, 3.3, 0.6)


@pytest.fixture(autouse=True)
def one_thread_and_poison() -> Iterator[None]:
    """torch.empty is filled with NaN under deterministic algorithms: reading memory nobody wrote shows up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def neurons(ratio: float = 2.0, **options: Any) -> SpikeTimeNeuron:
    return SpikeTimeNeuron(tau_mem=ratio * TAU_SYN, tau_syn=TAU_SYN, **options)


def cells(neuron: SpikeTimeNeuron, count: int) -> list[reference.Cell]:
    rows = neuron.rows(count).expand(5, count).T.tolist()
    return [reference.Cell(m, s, v, neuron.reset == "value", a, r) for m, s, v, a, r in rows]


def case(
    neuron: SpikeTimeNeuron, batch: int = 2, inputs: int = 20, slots: int = 2, count: int = 6, mean: float = 0.12
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input times over eight synaptic time constants, a fifth of the slots empty; weights of both signs."""
    times = torch.rand(batch, inputs, slots, dtype=torch.float64) * 8 * TAU_SYN
    times[torch.rand(times.shape) < 0.2] = inf
    weight = (0.4 * torch.randn(inputs, count, dtype=torch.float64) + mean) / neuron.peak_response()
    return times, weight


def finite(times: torch.Tensor) -> torch.Tensor:
    return torch.where(times < inf, times, 0.0)


class HighPrecision:
    """One neuron with 40 digits: sums over all spikes, crossings by bisection; no closed form."""

    def __init__(self, cell: reference.Cell, arrivals: list[float], weights: list[float]) -> None:
        self.cell, self.spikes = cell, []
        self.mem, self.syn = mpmath.mpf(cell.tau_mem), mpmath.mpf(cell.tau_syn)
        self.inputs = [(mpmath.mpf(t), mpmath.mpf(w)) for t, w in zip(arrivals, weights, strict=True)]

    def start(self) -> Any:
        return self.spikes[-1] + mpmath.mpf(self.cell.t_ref) if self.cell.hard and self.spikes else -mpmath.inf

    def state(self, t: Any) -> tuple[Any, Any]:
        """u, and u' just after t."""
        u = i = mpmath.mpf(0)
        for arrival, weight in self.inputs:
            if arrival > t:
                break
            since = max(arrival, self.start())
            x, w = t - since, weight * mpmath.exp(-(since - arrival) / self.syn)
            fast = mpmath.exp(-x / self.syn)
            i += w * fast
            if self.mem == self.syn:
                u += w * x * fast
            else:
                u += w * self.mem * self.syn / (self.mem - self.syn) * (mpmath.exp(-x / self.mem) - fast)
        for spike in self.spikes[-1:] if self.cell.hard else self.spikes:
            since, size = (self.start(), self.cell.after) if self.cell.hard else (spike, -self.cell.after)
            u += size * mpmath.exp(-(t - since) / self.mem)
        return u, i - u / self.mem

    def crossing(self, low: Any, high: Any) -> Any:
        """First crossing between two inputs, or None: it lies before the only peak."""
        u, slope = self.state(low)
        if slope <= 0 or u + slope * (high - low) < self.cell.threshold:
            return None
        before = high - mpmath.mpf(10) ** -35  # a slope without what arrives at the end
        peak = self.bisect(lambda t: self.state(t)[1] < 0, low, before)
        if self.state(peak)[0] < self.cell.threshold:
            return None
        return self.bisect(lambda t: self.state(t)[0] >= self.cell.threshold, low, peak)

    @staticmethod
    def bisect(holds: Any, low: Any, high: Any) -> Any:
        """Where a condition begins to hold, or high, to 1e-17 of the interval."""
        for _ in range(57):
            middle = (low + high) / 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        return high

    def run(self, t_max: float) -> list[Any]:
        edges = [t for t, _ in self.inputs] + [mpmath.mpf(t_max)]
        for low, high in pairwise(edges):
            while True:
                free = max(low, self.start(), *(self.spikes[-1:]))
                spike = self.crossing(free, high) if free < high else None
                if spike is None:
                    break
                self.spikes.append(spike)
        return self.spikes


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_spike_times_to_1e_12_seconds(ratio: float, options: dict[str, Any]) -> None:
    neuron = neurons(ratio, **options)
    times, weight = case(neuron, batch=1, inputs=12, slots=1, count=4, mean=0.4)
    found = spike_time.apply(times, weight, neuron, max_spikes=30, t_max=0.12)
    assert int(found.counts.sum()) >= 6
    flat = times[0, :, 0]
    order = [int(j) for j in flat.argsort() if flat[j] < inf]
    with mpmath.workdps(40):
        for n, cell in enumerate(cells(neuron, 4)):
            exact = HighPrecision(cell, flat[order].tolist(), weight[order, n].tolist()).run(0.12)
            assert len(exact) == int(found.counts[0, n])
            assert all(abs(a - mpmath.mpf(b)) <= 1e-12 for a, b in zip(exact, found.times[0, n].tolist(), strict=False))


def test_the_response_of_a_synapse_where_its_formula_changes() -> None:
    """(1 - exp(-z)) / z is a series below z = 0.5; with tau_mem = 2 tau_syn, z is a time over tau_mem."""
    x = 2 * TAU_SYN * np.array([0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)])
    times = torch.zeros(1, 1, 1, dtype=torch.float64)
    neuron = neurons()
    for since in x.tolist():
        weight = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        seen = torch.tensor([[[since]]], dtype=torch.float64)
        spike_time.observe(times, weight, seen, neuron, grazing=1.0).times.sum().backward()
        response = 2 * TAU_SYN * (np.exp(-since / (2 * TAU_SYN)) - np.exp(-since / TAU_SYN))
        assert weight.grad is not None
        assert weight.grad.item() == pytest.approx(
            -response / (np.exp(-since / TAU_SYN) + 1 / (2 * TAU_SYN)), rel=1e-13
        )


@pytest.mark.parametrize("options", [SOFT, HARD, {"drop": 0.6}], ids=["soft", "hard", "drop"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_equals_reference(ratio: float, options: dict[str, Any]) -> None:
    neuron = neurons(ratio, **options)
    times, weight = case(neuron, count=9)
    expected, by_weight, by_time = (
        torch.from_numpy(a) for a in reference.layer(times.numpy(), weight.numpy(), cells(neuron, 9), 60, 0.1)
    )
    leaves = times.clone().requires_grad_(), weight.clone().requires_grad_()
    found = spike_time.apply(*leaves, neuron, max_spikes=60, t_max=0.1)
    assert int(found.counts.max()) >= 5
    assert torch.equal(found.times < inf, expected < inf)
    assert torch.equal(found.counts, (expected < inf).sum(-1).int())
    torch.testing.assert_close(found.times, expected, rtol=0, atol=1e-13)
    grad = torch.randn_like(expected)
    (finite(found.times) * grad).sum().backward()
    for leaf, jacobian, axes in zip(leaves, (by_time, by_weight), ("bnk,bnkis->bis", "bnk,bnki->in"), strict=True):
        wanted = torch.einsum(axes, grad, jacobian)
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    assert leaves[0].grad is not None
    assert (leaves[0].grad[times == inf] == 0).all()


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("ratio", [2.0, 1.0, 3.3])
def test_gradients_equal_central_differences_through_a_hidden_layer(ratio: float, options: dict[str, Any]) -> None:
    neuron = neurons(ratio, **options)
    times, hidden = case(neuron, batch=1, inputs=10, slots=1, count=8, mean=0.5)
    output = case(neuron, inputs=8, count=3, mean=0.5)[1]
    grad = torch.randn(1, 3, 60, dtype=torch.float64)

    def network(*values: torch.Tensor) -> spike_time.Output:
        between = spike_time.apply(values[0], values[1], neuron, max_spikes=30)
        return spike_time.apply(between.times, values[2], neuron, max_spikes=60)

    values = [times, hidden, output]
    leaves = [value.clone().requires_grad_() for value in values]
    found = network(*leaves)
    assert int(found.counts.sum()) >= 6
    assert int(found.grazing.sum()) == 0
    (finite(found.times) * grad).sum().backward()
    for which, leaf in enumerate(leaves):
        differences = torch.zeros_like(leaf)
        for at in (leaf < inf).nonzero():
            index = tuple(at.tolist())
            step = 1e-5 * (TAU_SYN if which == 0 else float(values[which].std()))
            stencil = []
            for multiple in (-2, -1, 1, 2):
                moved = [value.clone() for value in values]
                moved[which][index] += multiple * step
                other = network(*moved)
                assert torch.equal(other.counts, found.counts)  # exactness is local
                stencil.append(float((finite(other.times) * grad).sum()))
            differences[index] = (stencil[0] - 8 * stencil[1] + 8 * stencil[2] - stencil[3]) / (12 * step)
        assert leaf.grad is not None
        scale = float(leaf.grad.abs().median())
        torch.testing.assert_close(leaf.grad, differences, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
def test_float32_after_a_thousand_time_constants(options: dict[str, Any]) -> None:
    """The float64 run on the same (float32) inputs and weights is the truth."""
    neuron = neurons(**options)
    times = (torch.rand(2, 40, 100) * 1000 * TAU_SYN).requires_grad_()
    weight = ((0.2 * torch.randn(40, 16) + 0.09) / neuron.peak_response().float()).requires_grad_()
    single = spike_time.apply(times, weight, neuron, max_spikes=2000)
    double = spike_time.apply(times.detach().double(), weight.detach().double(), neuron, max_spikes=2000)
    assert int(single.counts.min()) > 20
    late = double.times.where(double.times < inf, torch.tensor(0.0, dtype=torch.float64)).max()
    assert float(late) > 990 * TAU_SYN
    assert torch.equal(single.counts, double.counts)
    error = (finite(single.times).double() - finite(double.times)).abs()
    ulp = torch.nextafter(finite(single.times), torch.tensor(inf)) - finite(single.times)
    assert (error <= 4 * ulp + 1e-6).all()
    finite(single.times).sum().backward()
    for leaf in (times, weight):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_time_has_no_origin() -> None:
    """A million time constants later the same spikes fire, up to the rounding of the times themselves."""
    neuron = neurons()
    times, weight = case(neuron)
    shift = 2.0**14
    shifted = times + shift
    now = spike_time.apply(shifted - shift, weight, neuron, max_spikes=60)
    later = spike_time.apply(shifted, weight, neuron, max_spikes=60)
    assert torch.equal(now.counts, later.counts)
    torch.testing.assert_close(later.times - shift, now.times, rtol=0, atol=2 * shift * 2.0**-52)


def euler(
    times: torch.Tensor, weight: torch.Tensor, cell: reference.Cell, t_max: float, dt: float
) -> list[list[float]]:
    """Clock-driven emulator by exponential Euler steps: current constant over a step, spikes at its end."""
    steps = round(t_max / dt)
    drive = np.zeros((steps + 1, weight.shape[1]))
    for j, k in (times[0] < inf).nonzero().tolist():
        drive[round(float(times[0, j, k]) / dt)] += weight[j].numpy()
    decay, gain, syn = (
        np.exp(-dt / cell.tau_mem),
        -cell.tau_mem * np.expm1(-dt / cell.tau_mem),
        np.exp(-dt / cell.tau_syn),
    )
    u, i = np.zeros(weight.shape[1]), np.zeros(weight.shape[1])
    clamped = np.zeros(weight.shape[1], int)
    spikes: list[list[float]] = [[] for _ in u]
    for step in range(steps):
        i += drive[step]
        u = np.where(clamped > 0, cell.after if cell.hard else u, decay * u + gain * i)
        clamped -= clamped > 0
        i *= syn
        for n in np.flatnonzero(u >= cell.threshold):
            spikes[n].append((step + 1) * dt)
            u[n] = cell.after if cell.hard else u[n] - cell.after
            clamped[n] = round(cell.t_ref / dt)
    return spikes


@pytest.mark.parametrize("options", [SOFT, {**HARD, "t_ref": 0.02}], ids=["soft", "hard"])
def test_a_clock_driven_emulator_converges_to_the_spike_times(options: dict[str, Any]) -> None:
    """The setting of the paper's code: tau_syn 130 ms, a window of 200 ms, 12 neurons of 30 inputs."""
    neuron = SpikeTimeNeuron(tau_mem=0.26, tau_syn=0.13, **options)
    times = (torch.rand(1, 30, 1, dtype=torch.float64) * 2e3).round() / 1e4  # on the grid of both step sizes
    weight = (0.3 + 0.1 * torch.randn(30, 12, dtype=torch.float64)) / neuron.peak_response()
    found = spike_time.apply(times, weight, neuron, max_spikes=20, t_max=0.2)
    assert int(found.counts.min()) >= 3
    for dt in (1e-4, 1e-5):
        clocked = euler(times, weight, cells(neuron, 1)[0], 0.2, dt)
        assert [len(spikes) for spikes in clocked] == found.counts[0].tolist()
        for n, spikes in enumerate(clocked):
            for k, (late, exact) in enumerate(zip(spikes, found.times[0, n].tolist(), strict=False)):
                # A hard reset also drops what the step overshot: every spike makes the next one late by up to dt.
                assert abs(late - exact) <= (2 + (k if neuron.reset == "value" else 0)) * dt


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.usefixtures("threads_for_little_work")
def test_same_bits_for_any_number_of_threads(options: dict[str, Any], per_neuron: bool) -> None:
    neuron = neurons(**options)
    if per_neuron:
        spread = torch.linspace(0.8, 1.3, 150, dtype=torch.float64) * TAU_SYN
        neuron = SpikeTimeNeuron(tau_mem=2 * spread.flip(0), tau_syn=spread, threshold=100 * spread, **options)
    times, weight = case(neuron, batch=9, count=150)
    results = []
    for dtype, threads in product((torch.float64, torch.float32), (1, 3)):
        torch.set_num_threads(threads)
        leaves = [value.to(dtype).detach().requires_grad_() for value in (times, weight)]
        found = spike_time.apply(*leaves, neuron, max_spikes=80)
        finite(found.times).square().sum().backward()
        results.append((found.times, found.counts, leaves[0].grad, leaves[1].grad))
    for one, three in (results[:2], results[2:]):
        for a, b in zip(one, three, strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a, b)


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_the_gradient_of_the_weights_alone_is_the_same(options: dict[str, Any], share: float) -> None:
    """Without a gradient of the times, neurons without one are left out: some, most, or none of them here."""
    neuron = neurons(**options)
    times, weight = case(neuron, count=300)
    weight.requires_grad_()
    found = spike_time.apply(times, weight, neuron, max_spikes=60).times
    pull = torch.randn(found.shape) * (torch.rand(found.shape) < share)
    (alone,) = torch.autograd.grad((finite(found) * pull).sum(), weight)
    found = spike_time.apply(times.requires_grad_(), weight, neuron, max_spikes=60).times
    with_times, _ = torch.autograd.grad((finite(found) * pull).sum(), (weight, times))
    assert torch.equal(alone, with_times)
    assert (alone != 0).any()


def test_a_sample_alone_and_a_neuron_alone_give_the_same_bits() -> None:
    neuron = neurons()
    times, weight = case(neuron, batch=5, count=70)
    together = spike_time.apply(times, weight, neuron, max_spikes=60)
    alone = spike_time.apply(times[3:4], weight[:, 66:67], neuron, max_spikes=60)
    assert torch.equal(alone.times[0, 0], together.times[3, 66])


def test_one_constant_per_neuron_is_the_same_neuron() -> None:
    shared = neurons(3.3, **HARD)
    times, weight = case(shared, count=10)
    each = SpikeTimeNeuron(tau_mem=torch.full((10,), 3.3 * TAU_SYN, dtype=torch.float64), tau_syn=TAU_SYN, **HARD)
    a, b = (spike_time.apply(times, weight, neuron, max_spikes=60) for neuron in (shared, each))
    assert torch.equal(a.times, b.times)


def test_different_neurons_in_one_layer() -> None:
    ratios = (2.0, 1.0, 3.3, 0.6)
    each = SpikeTimeNeuron(tau_mem=torch.tensor(ratios, dtype=torch.float64) * TAU_SYN, tau_syn=TAU_SYN)
    times, weight = case(each, count=4, mean=0.3)
    together = spike_time.apply(times, weight, each, max_spikes=90)
    for n, ratio in enumerate(ratios):
        alone = spike_time.apply(times, weight[:, n : n + 1], neurons(ratio), max_spikes=90)
        assert torch.equal(alone.times[:, 0], together.times[:, n])


def test_the_order_of_inputs_and_padding_do_not_matter() -> None:
    neuron = neurons()
    times, weight = case(neuron, inputs=12, slots=3)
    padded = torch.nn.functional.pad(times.flip(-1), [2, 1], value=inf)
    a, b = (spike_time.apply(t, weight, neuron, max_spikes=60) for t in (times, padded))
    assert torch.equal(a.times, b.times)


def test_a_refractory_time_without_end_gives_one_spike() -> None:
    once = neurons(reset="value", t_ref=inf)
    times, weight = case(once, mean=0.5)
    leaf = weight.clone().requires_grad_()
    found = spike_time.apply(times, leaf, once, max_spikes=1)
    many = spike_time.apply(times, weight, neurons(), max_spikes=90)
    assert torch.equal(found.times[..., 0], many.times[..., 0])
    assert int(many.counts.max()) > 1
    finite(found.times).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_t_max_ends_the_run() -> None:
    neuron = neurons()
    times, weight = case(neuron, mean=0.4)
    whole = spike_time.apply(times, weight, neuron, max_spikes=90)
    t_max = float(whole.times[0, 0, 2]) + 1e-9
    part = spike_time.apply(times, weight, neuron, max_spikes=90, t_max=t_max)
    assert torch.equal(part.times, torch.where(whole.times <= t_max, whole.times, inf))
    assert part.times[0, 0].tolist()[2:4] == [whole.times[0, 0, 2], inf]


@pytest.mark.parametrize("options", [SOFT, HARD], ids=["soft", "hard"])
def test_silent_neurons_have_zero_gradients(options: dict[str, Any]) -> None:
    neuron = neurons(**options)
    times, weight = case(neuron, mean=-1.0)
    leaves = times.requires_grad_(), (-weight.abs()).requires_grad_()
    found = spike_time.apply(*leaves, neuron, max_spikes=4)
    assert (found.times == inf).all()
    assert (found.counts == 0).all()
    finite(found.times).sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert (leaf.grad == 0).all()


@pytest.mark.parametrize("ratio", RATIOS)
def test_grazing_spikes_are_counted_and_their_gradient_is_finite(ratio: float) -> None:
    """A peak just above the threshold: the slope is about sqrt(2 * excess) in units of its two parts."""
    neuron = neurons(ratio)
    excess = torch.tensor([-1e-9, 1e-13, 1e-9, 1e-2], dtype=torch.float64)
    weight = ((1 + excess) / neuron.peak_response())[None].requires_grad_()
    times = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    found = spike_time.apply(times, weight, neuron, max_spikes=2)
    assert found.counts.tolist() == [[0, 1, 1, 1]]
    assert found.grazing.tolist() == [[0, 1, 1, 0]]
    finite(found.times).sum().backward()
    assert weight.grad is not None
    assert times.grad is not None
    assert weight.grad.isfinite().all()
    assert times.grad.isfinite().all()
    assert float(weight.grad[0, 0]) == 0
    assert (weight.grad[0, 1:] < 0).all()  # a larger weight fires earlier


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [SOFT, HARD, {"reset": "value", "t_ref": inf}], ids=["soft", "hard", "once"])
@pytest.mark.parametrize("per_neuron", [False, True])
def test_observing_the_models_own_spikes_gives_its_gradient_bit_for_bit(
    options: dict[str, Any], dtype: torch.dtype, per_neuron: bool
) -> None:
    for ratio, t_max in product(RATIOS, (0.05, inf)):
        neuron = neurons(ratio, **options)
        if per_neuron:
            spread = torch.linspace(0.7, 1.4, 70, dtype=torch.float64)
            neuron = SpikeTimeNeuron(ratio * TAU_SYN * spread, TAU_SYN, spread.flip(0), **options)
        times, weight = case(neuron, count=70)
        results = []
        observed = None
        for _ in range(2):
            leaves = [value.to(dtype).detach().requires_grad_() for value in (times, weight)]
            if observed is None:
                found = spike_time.apply(*leaves, neuron, max_spikes=90, t_max=t_max)
                observed = found.times.detach()
                grad = torch.randn_like(observed)
            else:
                found = spike_time.observe(*leaves, observed, neuron, t_max=t_max)
            (finite(found.times) * grad).sum().backward()
            results.append((found.times, found.counts, found.grazing, leaves[0].grad, leaves[1].grad))
        assert int(results[0][1].sum()) > 50
        for own, seen in zip(*results, strict=True):
            assert own is not None
            assert seen is not None
            assert torch.equal(own, seen)


@pytest.mark.parametrize("options", [SOFT, HARD, {"reset": "value", "t_ref": inf}], ids=["soft", "hard", "once"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_observing_other_spikes_equals_the_reference(ratio: float, options: dict[str, Any]) -> None:
    """Spikes of other neurons: some in the refractory time, two before any input. Currents at spikes are positive."""
    neuron = neurons(ratio, **options)
    times, weight = case(neuron, count=5)
    times, weight = times + 2 * TAU_SYN, weight.abs() + 1.0 / neuron.peak_response()
    once = neuron.t_ref == inf
    observed = torch.rand(2, 5, 1 if once else 7, dtype=torch.float64) * 5 * TAU_SYN + 4 * TAU_SYN
    if not once:
        observed[:, 0, 3] = observed[:, 0, 2] + 0.001
        observed[:, 1, 5:] = inf
        observed[:, 2, :2] = torch.tensor([0.001, 0.0015])
    observed[:, 3] = inf
    observed = observed.sort().values
    _, by_weight, by_time = (
        torch.from_numpy(a)
        for a in reference.layer(
            times.numpy(), weight.numpy(), cells(neuron, 5), observed.shape[2], observed=observed.numpy()
        )
    )
    leaves = times.clone().requires_grad_(), weight.clone().requires_grad_()
    found = spike_time.observe(*leaves, observed, neuron)
    assert torch.equal(found.times, observed)
    assert torch.equal(found.counts, (observed < inf).sum(-1).int())
    assert int(found.grazing.sum()) == 0
    grad = torch.randn_like(observed)
    (finite(found.times) * grad).sum().backward()
    for leaf, jacobian, axes in zip(leaves, (by_time, by_weight), ("bnk,bnkis->bis", "bnk,bnki->in"), strict=True):
        wanted = torch.einsum(axes, grad, jacobian)
        assert leaf.grad is not None
        assert float(wanted.abs().max()) > 0
        torch.testing.assert_close(leaf.grad, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))


def test_observed_spikes_without_a_cause_have_bounded_gradients() -> None:
    """Of falling currents, and without any input at all."""
    neuron = neurons(**HARD)
    times = torch.tensor([[[0.0]], [[inf]]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).requires_grad_()
    observed = torch.tensor([[[0.01], [0.5]], [[0.0], [0.1]]], dtype=torch.float64)
    found = spike_time.observe(times, weight, observed, neuron, grazing=0.5)
    assert found.counts.tolist() == [[1, 1], [1, 1]]
    assert found.grazing.tolist() == [[1, 1], [0, 0]]
    found.times.sum().backward()
    assert times.grad is not None
    assert weight.grad is not None
    since = observed[0, :, 0]
    slope = 0.5 * (torch.exp(-since / TAU_SYN) + 1 / (2 * TAU_SYN))
    response = (torch.exp(-since / (2 * TAU_SYN)) - torch.exp(-since / TAU_SYN)) * 2 * TAU_SYN
    torch.testing.assert_close(weight.grad[0], -response / slope, rtol=1e-12, atol=0)
    assert times.grad[1].tolist() == [[0.0]]


def test_observed_spikes_that_cannot_be_are_refused() -> None:
    neuron = neurons(**HARD)
    times, weight = torch.zeros(1, 1, 1), torch.ones(1, 2)
    good = torch.tensor([[[0.1, inf], [0.1, 0.2]]])
    assert spike_time.observe(times, weight, good, neuron, t_max=0.2).counts.tolist() == [[1, 2]]
    for bad in ([[0.1, inf], [0.2, 0.1]], [[inf, 0.1], [0.1, 0.2]], [[0.1, inf], [0.1, 0.3]], [[0.1, inf], [0.1, nan]]):
        with pytest.raises(KernelError, match="neuron") as raised:
            spike_time.observe(times, weight, torch.tensor([bad]), neuron, t_max=0.2)
        assert raised.value.code == "spike-time-observed"
    for other in (good[:, :1], good.double(), good[0]):
        with pytest.raises(KernelError, match="observed"):
            spike_time.observe(times, weight, other, neuron)


def test_inputs_at_the_same_time_and_no_inputs() -> None:
    neuron = neurons()
    weight = torch.full((3, 2), 0.5, dtype=torch.float64) / neuron.peak_response()
    together = spike_time.apply(torch.zeros(1, 3, 1, dtype=torch.float64), weight, neuron, max_spikes=4)
    one = spike_time.apply(torch.zeros(1, 1, 1, dtype=torch.float64), 3 * weight[:1], neuron, max_spikes=4)
    torch.testing.assert_close(together.times, one.times, rtol=1e-14, atol=0)
    nothing = spike_time.apply(torch.full((2, 3, 1), inf, dtype=torch.float64), weight, neuron, max_spikes=4)
    assert (nothing.times == inf).all()
    assert spike_time.apply(torch.zeros(0, 3, 1).double(), weight, neuron, max_spikes=4).times.shape == (0, 2, 4)


def test_overflow_names_neuron_and_limit() -> None:
    neuron = neurons()
    times = torch.rand(3, 4, 2, dtype=torch.float64) * TAU_SYN
    weight = torch.full((4, 5), 0.01, dtype=torch.float64) / neuron.peak_response()
    weight[:, 3] *= 400
    with pytest.raises(SpikeOverflowError, match=r"Neuron 3 fires more than max_spikes=2 times in sample 0") as raised:
        spike_time.apply(times, weight, neuron, max_spikes=2)
    assert (raised.value.code, raised.value.sample, raised.value.neuron) == ("spike-time-overflow", 0, 3)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"tau_mem": 0.0}, "spike-time-constants"),
        ({"tau_syn": inf}, "spike-time-constants"),
        ({"threshold": -1.0}, "spike-time-constants"),
        ({"drop": 0.0}, "spike-time-constants"),
        ({"t_ref": 0.1}, "spike-time-constants"),
        ({"reset": "value", "v_reset": 1.0}, "spike-time-constants"),
        ({"reset": "value", "t_ref": -0.1}, "spike-time-constants"),
        ({"reset": "value", "drop": 1.0}, "spike-time-constants"),
        ({"reset": "zero"}, "spike-time-reset"),
        ({"threshold": torch.ones(2), "drop": torch.ones(3)}, "spike-time-constants"),
        ({"threshold": torch.ones(1, requires_grad=True)}, "spike-time-constants"),
    ],
)
def test_neurons_that_cannot_be_run(options: dict[str, Any], code: str) -> None:
    with pytest.raises(KernelError) as raised:
        SpikeTimeNeuron(**{"tau_mem": 0.02, "tau_syn": 0.01, **options})
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("times", "weight", "options", "code"),
    [
        (torch.zeros(1, 2, 1), torch.zeros(2, 3).double(), {}, "kernel-dtype"),
        (torch.zeros(1, 2, 1).half(), torch.zeros(2, 3).half(), {}, "kernel-dtype"),
        (torch.zeros(1, 2), torch.zeros(2, 3), {}, "kernel-shape"),
        (torch.zeros(1, 3, 1), torch.zeros(2, 3), {}, "kernel-shape"),
        (torch.full((1, 2, 1), torch.nan), torch.zeros(2, 3), {}, "spike-time-input"),
        (torch.full((1, 2, 1), -inf), torch.zeros(2, 3), {}, "spike-time-input"),
        (torch.zeros(1, 2, 1), torch.full((2, 3), torch.nan), {}, "spike-time-weight"),
        (torch.zeros(1, 2, 1), torch.zeros(2, 3), {"max_spikes": 0}, "spike-time-max-spikes"),
        (torch.zeros(1, 2, 1), torch.zeros(2, 3), {"grazing": 0.0}, "spike-time-grazing"),
        (torch.zeros(1, 2, 1), torch.zeros(2, 3), {"t_max": torch.nan}, "spike-time-t-max"),
        (torch.zeros(1, 2, 1, device="meta"), torch.zeros(2, 3), {}, "kernel-device"),
    ],
)
def test_tensors_that_cannot_be_run(
    times: torch.Tensor, weight: torch.Tensor, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(KernelError) as raised:
        spike_time.apply(times, weight, neurons(), **{"max_spikes": 4, **options})
    assert raised.value.code == code


def test_operators_and_the_list_of_neuron_algorithms() -> None:
    neuron = neurons(**HARD)
    times, weight = case(neuron)
    torch.library.opcheck(
        torch.ops.neurodeploy.spike_time_forward, (times, weight, neuron.rows(6), True, 60, 0.1, 1e-3, True)
    )
    assert "spike_time" not in kernel.names()
