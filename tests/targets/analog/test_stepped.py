"""Stepped neurons: against integrals and closed forms, their limits against the exact core, convergence."""

from dataclasses import replace
from itertools import pairwise
from math import exp, inf

import mpmath
import numpy as np
import pytest

from neurodeploy.errors import EmulationError
from neurodeploy.targets.analog.emulator import SpikeOverflowError, run_layer
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.stepped import AdexNeurons, DpiNeurons, run_stepped

NO_INPUT = np.full((1, 1, 1), inf)
ADEX = AdexNeurons(
    weight=np.zeros((1, 1)),
    tau_mem=2.0,
    tau_syn_exc=1.0,
    tau_syn_inh=1.3,
    threshold=1.5,
    reset=-0.2,
    t_ref=0.1,
    delta=0.1,
    onset=0.8,
    tau_adaptation=5.0,
)
DPI = DpiNeurons(
    weight=np.zeros((1, 1)),
    tau_mem=0.5,
    tau_syn_exc=1.0,
    tau_syn_inh=1.3,
    threshold=1e-9,
    reset=1e-12,
    start=1e-12,
    i_0=1e-12,
    i_leak=1e-11,
    i_gain=4e-11,
    kappa=0.7,
    t_ref=0.1,
)


def driven(layer: AdexNeurons | DpiNeurons, rng: np.random.Generator, scale: float) -> AdexNeurons | DpiNeurons:
    """The same neurons with ten inputs."""
    return replace(layer, weight=scale * rng.normal(0.7, 1.5, (10, 6)))


def test_adex_under_constant_input_takes_the_time_of_its_integral() -> None:
    layer = replace(ADEX, constant_input=0.7)
    found = run_stepped(NO_INPUT, layer, max_spikes=50, t_max=20.0)[0, 0]

    def passing(u: mpmath.mpf) -> mpmath.mpf:  # dt/du
        return 1 / ((-u + 0.1 * mpmath.exp((u - 0.8) / 0.1)) / 2 + 0.7)

    first, again = (float(mpmath.quad(passing, [start, 0.5, 0.8, 1.1, 1.5])) for start in (0, -0.2))
    expected = first + np.arange(50) * (again + 0.1)
    expected = expected[expected <= 20.0]
    assert len(expected) > 4
    np.testing.assert_allclose(found[np.isfinite(found)], expected, rtol=0, atol=1e-5)
    finer = run_stepped(NO_INPUT, layer, max_spikes=50, t_max=20.0, dt=1 / 1600)[0, 0]
    np.testing.assert_allclose(finer[np.isfinite(finer)], expected, rtol=0, atol=1e-8)


def test_adaptation_of_linear_neurons_is_the_matrix_exponential() -> None:
    layer = replace(ADEX, delta=0.0, threshold=1.0, adaptation=0.3, jump=0.2, constant_input=1.2)
    found = run_stepped(NO_INPUT, layer, max_spikes=50, t_max=12.0)[0, 0]
    matrix = mpmath.matrix([[-0.5, -0.5, 1.2], [0.3 / 5, -1 / 5, 0], [0, 0, 0]])
    state, time, expected = mpmath.matrix([0, 0, 1]), 0.0, []
    while True:
        try:
            wait = mpmath.findroot(lambda x: (mpmath.expm(matrix * x) * state)[0] - 1, (0.1, 3), solver="anderson")  # noqa: B023
        except ValueError:
            break
        w = (mpmath.expm(matrix * wait) * state)[1] + 0.2
        time += float(wait)
        if time > 12:
            break
        expected.append(time)
        # Held at -0.2 for 0.1, to which w adapts meanwhile.
        state, time = mpmath.matrix([-0.2, -0.06 + (w + 0.06) * exp(-0.1 / 5), 1]), time + 0.1
    assert len(expected) > 4
    assert np.diff(expected)[-1] > np.diff(expected)[0] + 0.1
    np.testing.assert_allclose(found[np.isfinite(found)], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_dpi_under_constant_input_takes_the_time_of_its_integral(kappa: float) -> None:
    layer = replace(DPI, kappa=kappa, constant_input=4e-10)
    found = run_stepped(NO_INPUT, layer, max_spikes=50, t_max=5.0)[0, 0]

    def passing(log_i: mpmath.mpf) -> mpmath.mpf:  # dt/d(ln I)
        i = mpmath.exp(log_i)
        share = kappa / (kappa + 1)
        feedback = 1e-12 * (i / 1e-12) ** share * (i + 4e-11) / 1e-11 if kappa else 0
        return 0.5 * (i + 4e-11) / (4 * (4e-10 - 1e-11) - i + feedback)

    wait = float(mpmath.quad(passing, np.log([1e-12, 1e-11, 1e-10, 1e-9]).tolist()))
    expected = wait + np.arange(50) * (wait + 0.1)
    expected = expected[expected <= 5.0]
    assert len(expected) > 4
    np.testing.assert_allclose(found[np.isfinite(found)], expected, rtol=0, atol=1e-6)


def test_adaptation_of_the_dpi_slows_it_down() -> None:
    layer = replace(DPI, constant_input=4e-10)
    tired = run_stepped(NO_INPUT, replace(layer, jump=1e-11, tau_adaptation=2.0), max_spikes=50, t_max=8.0)[0, 0]
    fresh = run_stepped(NO_INPUT, layer, max_spikes=50, t_max=8.0)[0, 0]
    assert tired[0] == fresh[0]
    assert 2 < np.isfinite(tired).sum() < np.isfinite(fresh).sum()
    intervals = np.diff(tired[np.isfinite(tired)])
    assert (np.diff(intervals) > 0).all()


@pytest.mark.parametrize("model", ["adex", "dpi"])
def test_halved_steps_change_no_spike_time_and_the_order_is_four(model: str) -> None:
    rng = np.random.default_rng(0)
    layer = driven(replace(ADEX, adaptation=0.2, jump=0.1), rng, 1.0)
    if model == "dpi":
        layer = driven(replace(DPI, jump=3e-12, tau_adaptation=2.0), rng, 1e-10)
    times = rng.uniform(0, 5, (3, 10, 2))
    longest = layer.shortest_time() / 200
    found = [run_stepped(times, layer, max_spikes=300, t_max=8.0, dt=longest / 2**k) for k in range(4)]
    spikes = np.isfinite(found[-1])
    assert spikes.sum() > 50
    for coarse in found:
        np.testing.assert_array_equal(np.isfinite(coarse), spikes)
    changes = [np.abs(coarse[spikes] - fine[spikes]).max() for coarse, fine in pairwise(found)]
    assert changes[0] < 1e-4  # the bar is 1 % of the synapse's time constant
    orders = [np.log2(first / second) for first, second in pairwise(changes)]
    assert min(orders) > 3.5


def test_adex_without_exponential_and_adaptation_is_the_exact_core() -> None:
    rng = np.random.default_rng(1)
    layer = replace(driven(ADEX, rng, 1.0), delta=0.0, threshold=1.0)
    row = {"tau_mem": 2.0, "tau_syn_exc": 1.0, "tau_syn_inh": 1.3, "threshold": 1.0, "v_reset": -0.2, "t_ref": 0.1}
    exact = LayerParameters(layer.weight, **{name: np.full(6, value) for name, value in row.items()})
    times = rng.uniform(0, 5, (3, 10, 2))
    expected = run_layer(times, exact, max_spikes=100, t_max=8.0)
    found = run_stepped(times, layer, max_spikes=100, t_max=8.0)
    spikes = np.isfinite(expected)
    assert spikes.sum() > 50
    np.testing.assert_array_equal(np.isfinite(found), spikes)
    np.testing.assert_allclose(found[spikes], expected[spikes], rtol=0, atol=1e-8)


def test_dpi_far_above_its_gain_current_is_the_exact_core() -> None:
    """With I >> i_gain and no feedback the membrane is linear; what is left is proportional to i_gain."""
    rng = np.random.default_rng(2)
    weight, times = rng.normal(0.3, 1.2, (10, 6)), rng.uniform(0, 5, (3, 10, 2))
    errors = []
    for gain in (1e-4, 0.5e-4, 0.25e-4):
        # In units of the threshold's distance from the rest, which is at 3: 3 = constant_input - i_leak.
        layer = DpiNeurons(
            weight=2.0 * weight,  # the membrane filters the current with its time constant
            tau_mem=2.0,
            tau_syn_exc=1.0,
            tau_syn_inh=1.3,
            threshold=4.0,
            reset=2.8,
            start=3.0,
            t_ref=0.1,
            constant_input=3.0 + gain,
            i_leak=gain,
            i_gain=gain,
            i_0=1e-9,
        )
        row = {"tau_mem": 2.0, "tau_syn_exc": 1.0, "tau_syn_inh": 1.3, "threshold": 1.0, "v_reset": -0.2, "t_ref": 0.1}
        exact = LayerParameters(weight, **{name: np.full(6, value) for name, value in row.items()})
        expected = run_layer(times, exact, max_spikes=100, t_max=8.0)
        found = run_stepped(times, layer, max_spikes=100, t_max=8.0)
        spikes = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(found), spikes)
        errors.append(np.abs(found[spikes] - expected[spikes]).max())
    assert spikes.sum() > 30
    assert errors[0] < 0.01
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_inhibition_by_itself_acts() -> None:
    """An inhibitory spike lowers the membrane also where no excitation arrives for a long time before and after it."""
    layer = replace(DPI, weight=np.array([[6e-10], [-6e-10]]), kappa=0.0, constant_input=1e-10, start=3.6e-10)
    excited = np.array([1.0, 1.05, 1.1])
    alone = run_stepped(np.stack([excited, np.full(3, inf)])[None], layer, max_spikes=50, t_max=4.0)
    inhibited = run_stepped(np.stack([excited, np.array([0.2, 0.3, 0.4])])[None], layer, max_spikes=50, t_max=4.0)
    assert 0 < np.isfinite(inhibited).sum() < np.isfinite(alone).sum()
    assert inhibited[0, 0, 0] > alone[0, 0, 0] + 0.01


def test_the_same_bytes_for_any_threads() -> None:
    rng = np.random.default_rng(3)
    layer, times = driven(ADEX, rng, 1.0), rng.uniform(0, 5, (4, 10, 2))
    found = run_stepped(times, layer, max_spikes=100, t_max=8.0)
    assert run_stepped(times, layer, max_spikes=100, t_max=8.0, threads=2).tobytes() == found.tobytes()


def test_one_spike_at_most_with_an_endless_clamp() -> None:
    found = run_stepped(NO_INPUT, replace(ADEX, constant_input=0.7, t_ref=inf), max_spikes=1, t_max=20.0)
    assert np.isfinite(found).sum() == 1


def test_refusals() -> None:
    with pytest.raises(EmulationError, match="1/200 of the shortest"):
        run_stepped(NO_INPUT, ADEX, max_spikes=3, t_max=1.0, dt=0.01)
    for times, t_max in ((NO_INPUT, inf), (np.full((1, 1, 1), -1.0), 1.0)):
        with pytest.raises(EmulationError, match="end of the run"):
            run_stepped(times, ADEX, max_spikes=3, t_max=t_max)
    with pytest.raises(SpikeOverflowError, match="max_spikes=3"):
        run_stepped(NO_INPUT, replace(ADEX, constant_input=0.7), max_spikes=3, t_max=40.0)
    for constants in (
        {"tau_mem": 0.0},
        {"t_ref": -1.0},
        {"reset": 1.5},
        {"start": 2.0},
        {"threshold": 3.0},
        {"delta": -1.0},
        {"jump": np.zeros(2)},
        {"weight": np.zeros(3)},
    ):
        with pytest.raises(EmulationError, match="Remedy"):
            replace(ADEX, **constants)
    for constants in ({"i_0": 0.0}, {"i_leak": -1.0}, {"kappa": -0.1}, {"reset": 1e-13}, {"start": 1e-13}):
        with pytest.raises(EmulationError, match="Remedy"):
            replace(DPI, **constants)
