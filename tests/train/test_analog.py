"""Training for analog chips: levels as compiled, circuits as emulated, and a chip in the loop."""

from collections.abc import Iterator
from math import inf

import numpy as np
import pytest
import torch

import neurodeploy as nd
from neurodeploy.errors import TrainError
from neurodeploy.nn import SpikeTimeConv2d, SpikeTimeLinear, SpikeTimeNeuron, first_spike_loss
from neurodeploy.targets.analog.emulator import TrialNoise
from neurodeploy.train.analog import FIRST_TRAINING_SERIAL, AnalogTraining
from neurodeploy.train.analog_levels import FourCurrentLevels, SignedLevels
from neurodeploy.train.analog_loop import ChipInTheLoop, EmulatedChip
from neurodeploy.train.analog_spread import ChipSpread, UniformSpread

UNIT = 0.005
T_MAX = 6 * UNIT
SHAPES = [(5, 12), (12, 3)]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def network() -> torch.nn.Sequential:
    once = SpikeTimeNeuron(tau_mem=2 * UNIT, tau_syn=UNIT, reset="value", t_ref=inf)
    net = torch.nn.Sequential(*(SpikeTimeLinear(*shape, once, max_spikes=1, t_max=T_MAX) for shape in SHAPES)).double()
    net[0].reset_parameters(mean=3.0, std=0.7)
    net[1].reset_parameters(mean=6.0, std=3.0)
    return net


def inputs(count: int = 20) -> torch.Tensor:
    return torch.rand(count, 5, 1, dtype=torch.float64) * 2 * UNIT


def finite(times: torch.Tensor) -> torch.Tensor:
    return times.clamp(max=T_MAX)


def test_weights_on_levels_are_those_that_compiling_gives() -> None:
    net = network()
    compiled = nd.compile(nd.trace(net, inputs(1), time_unit_s=1.0), target="bss2")
    trained = AnalogTraining(net, levels=SignedLevels.of_program(compiled.program)).eval()
    for weight, layer in zip(trained.weights(), compiled.program.layers, strict=True):
        np.testing.assert_allclose(weight.detach().numpy().T, layer.nominal.weight, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("levels", "most"), [(SignedLevels(6), 127), (SignedLevels(2), 7), (FourCurrentLevels(), 31)])
def test_the_forward_pass_is_on_levels_and_gradients_pass_through(
    levels: SignedLevels | FourCurrentLevels, most: int
) -> None:
    net, times = network(), inputs()
    trained = AnalogTraining(net, levels=levels, refresh=3)
    weights = trained.weights()
    assert all(len(weight.unique()) <= most for weight in weights)
    on_levels = [weight.detach().clone().requires_grad_() for weight in weights]
    finite(trained(times)).sum().backward()
    expected = times
    for layer, weight in zip(net, on_levels, strict=True):
        expected = layer.fire(expected, weight=weight).times
    finite(expected).sum().backward()
    for layer, weight in zip(net, on_levels, strict=True):
        assert layer.weight.grad is not None
        assert weight.grad is not None
        assert torch.equal(layer.weight.grad, weight.grad)


def test_levels_are_searched_anew_after_some_calls_and_always_in_evaluation() -> None:
    net = network()
    trained = AnalogTraining(net, levels=SignedLevels(6), refresh=3)
    first = trained.weights()[1]
    with torch.no_grad():
        net[1].weight.mul_(0.5)
    kept = trained.weights()[1]
    level = first.detach().abs()[first != 0].min()
    torch.testing.assert_close(kept / level, (kept / level).round(), rtol=0, atol=1e-9)
    assert torch.equal(trained.eval().weights()[1], AnalogTraining(net, levels=SignedLevels(6)).weights()[1])
    assert not torch.equal(kept, trained.weights()[1])


def test_spreads_have_the_asked_size_and_belong_to_the_serial_number() -> None:
    spread = UniformSpread([(200, 300)], cv=0.2)
    (one,), (again,), (other,), (half,) = spread.draw(3), spread.draw(3), spread.draw(4), spread.draw(3, 0.5)
    for name in ("weight", "tau_mem", "tau_syn_exc", "threshold"):
        row = getattr(one, name)
        assert (row == getattr(again, name)).all()
        assert (row != getattr(other, name)).any()
        assert abs(row.mean() - 1) < 5 * 0.2 / row.size**0.5
        assert abs(row.std() - 0.2) < 5 * 0.2 / (row.size / 2) ** 0.5
        logs, halves = np.log(row), np.log(getattr(half, name))
        assert np.corrcoef(logs.ravel(), halves.ravel())[0, 1] == pytest.approx(1)
    with pytest.raises(TrainError, match="cv"):
        UniformSpread([(2, 3)], cv=-0.1)


def test_calibrated_chips_differ_less() -> None:
    net = network()
    compiled = nd.compile(nd.trace(net, inputs(1), time_unit_s=1.0), target="bss2")
    raw, calibrated = (
        ChipSpread(compiled.chip, compiled.program, calibrated=flag).draw(7)[0].tau_mem.std() for flag in (False, True)
    )
    assert calibrated == pytest.approx(0.45 * raw, rel=0.2)  # the description's residual, on a log-normal
    assert (AnalogTraining(net, spread=ChipSpread(compiled.chip, compiled.program))(inputs()) <= inf).all()


def test_a_chip_in_training_fires_as_the_emulator_does() -> None:
    net, times = network(), inputs(50)
    spread = UniformSpread(SHAPES, cv=0.2)
    trained = AnalogTraining(net, levels=SignedLevels(6), spread=spread)
    ours = trained.on_chip(times, serial=5)
    weights = [np.ascontiguousarray(weight.detach().numpy().T) for weight in trained.eval().weights()]
    theirs = torch.from_numpy(EmulatedChip.of_network(net, spread.draw(5)).run(weights, times.numpy())[1])
    assert torch.equal(ours < inf, theirs < inf)
    assert int((ours < inf).sum()) > 50
    assert float((finite(ours) - finite(theirs)).detach().abs().max()) <= 1e-9 * UNIT


def test_every_call_in_training_takes_fresh_chips_that_depend_on_the_seed() -> None:
    net, times = network(), inputs()
    spread = UniformSpread(SHAPES, cv=0.2)

    def calls(seed: int, count: int = 2) -> list[torch.Tensor]:
        trained = AnalogTraining(net, spread=spread, chips=2, seed=seed)
        return [trained(times).detach() for _ in range(count)]

    (first, second), again, other = calls(0), calls(0), calls(1)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other[0])
    alone = AnalogTraining(net, spread=spread)
    assert torch.equal(first[:10], alone.on_chip(times[:10], FIRST_TRAINING_SERIAL))
    assert torch.equal(first[10:], alone.on_chip(times[10:], FIRST_TRAINING_SERIAL + 1))
    assert torch.equal(alone.eval()(times), net(times))


def test_the_spread_grows_linearly_to_all_of_it() -> None:
    trained = AnalogTraining(network(), spread=UniformSpread(SHAPES, cv=0.2))
    scales = []
    for progress in (0.0, 0.1, 0.25, 0.5, 1.0):
        trained.anneal(progress, full_at=0.5)
        scales.append(trained.scale)
    assert scales == pytest.approx([0.0, 0.2, 0.5, 1.0, 1.0])
    trained.anneal(0.0)
    times = inputs()
    assert torch.equal(trained(times), trained.network(times))
    trained.anneal(0.0, full_at=0.0)
    assert trained.scale == 1.0
    trained.anneal(0.25, full=1.5)
    assert trained.scale == pytest.approx(0.75)


def test_in_the_loop_a_perfect_chip_gives_the_models_spikes_and_gradients() -> None:
    net, times = network(), inputs()
    loop = ChipInTheLoop(net, EmulatedChip.of_network(net, UniformSpread(SHAPES, cv=0.0).draw(0)), grazing_limit=1e-3)
    grads = []
    for module in (net, loop):
        net.zero_grad()
        fired = module(times)
        finite(fired).sum().backward()
        grads.append([fired.detach(), *(layer.weight.grad.clone() for layer in net)])
    torch.testing.assert_close(finite(grads[0][0]), finite(grads[1][0]), rtol=0, atol=1e-9 * UNIT)
    for own, seen in zip(grads[0][1:], grads[1][1:], strict=True):
        torch.testing.assert_close(own, seen, rtol=1e-6, atol=1e-9 * float(own.abs().max()))


def test_in_the_loop_noise_is_fresh_and_spikes_are_the_chips() -> None:
    net, times = network(), inputs()
    deviations = UniformSpread(SHAPES, cv=0.1).draw(1)
    noise = TrialNoise(jitter_s=0.01 * UNIT)
    runs = [
        ChipInTheLoop(net, EmulatedChip.of_network(net, deviations, noise=noise, timestamp_lsb_s=1e-5)) for _ in "ab"
    ]
    first = [run(times).detach() for run in runs]
    assert torch.equal(*first)
    assert not torch.equal(runs[0](times), first[0])
    grid = first[0][first[0] < inf] / 1e-5
    torch.testing.assert_close(grid, grid.round(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["aware", "loop"])
def test_a_small_network_learns(kind: str) -> None:
    """Which of three inputs comes first? On chips of 20 % spread, and with one of them in the loop."""
    net = network()
    spread = UniformSpread(SHAPES, cv=0.2)
    times, serials = inputs(90), range(4)
    labels = times[:, :3, 0].argmin(1)
    aware = AnalogTraining(net, spread=spread, chips=2)
    trained: AnalogTraining | ChipInTheLoop = aware
    if kind == "loop":
        serials = range(1)
        chip = EmulatedChip.of_network(net, spread.draw(0), noise=TrialNoise(jitter_s=0.01 * UNIT))
        trained = ChipInTheLoop(net, chip, levels=SignedLevels(6))

    def loss_on_chips() -> float:
        with torch.no_grad():
            runs = [aware.on_chip(times, serial) for serial in serials]
            losses = [first_spike_loss(run, labels, temperature=0.2 * UNIT, t_silent=T_MAX) for run in runs]
        return float(torch.stack(losses).mean())

    before = loss_on_chips()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02 / UNIT)
    for _ in range(60):
        optimizer.zero_grad()
        first_spike_loss(trained(times), labels, temperature=0.2 * UNIT, t_silent=T_MAX).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0 * UNIT)
        optimizer.step()
    assert loss_on_chips() < 0.7 * before


def test_what_an_analog_chip_does_not_do_is_refused() -> None:
    soft = SpikeTimeNeuron(tau_mem=2 * UNIT, tau_syn=UNIT)
    hard = SpikeTimeNeuron(tau_mem=2 * UNIT, tau_syn=UNIT, reset="value")
    for module in (SpikeTimeLinear(5, 3, soft), SpikeTimeConv2d(1, 2, 3, hard), torch.nn.Linear(5, 3)):
        with pytest.raises(TrainError, match="hard resets"):
            AnalogTraining(torch.nn.Sequential(module))
    for options in ({"chips": 0}, {"refresh": 0}):
        with pytest.raises(TrainError, match="above 0"):
            AnalogTraining(network(), **options)
    with pytest.raises(TrainError, match="no spread"):
        AnalogTraining(network()).on_chip(inputs(), 0)
    net = network()
    with torch.no_grad():
        net[1].weight[0, 0] = inf
    with pytest.raises(TrainError, match="not finite"):
        AnalogTraining(net, levels=SignedLevels())(inputs())
