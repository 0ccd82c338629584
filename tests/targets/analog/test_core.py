"""The exact analog core: against the readable specification, root finding with 40 digits, and its own promises."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from math import inf

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import EmulationError
from neurodeploy.extension import native
from neurodeploy.targets.analog import specification
from neurodeploy.targets.analog.emulator import (
    SpikeOverflowError,
    TrialNoise,
    emulate,
    emulate_program,
    run_layer,
    stamped,
)
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram


def layer_of(weight: np.ndarray, **constants: float | np.ndarray) -> LayerParameters:
    values = {"tau_mem": 2.0, "tau_syn_exc": 1.0, "tau_syn_inh": 1.0, "threshold": 1.0, "v_reset": 0.0, "t_ref": 0.0}
    values |= constants
    neurons = weight.shape[1]
    return LayerParameters(weight, **{k: np.broadcast_to(np.float64(v), neurons).copy() for k, v in values.items()})


def mismatched(
    rng: np.random.Generator, inputs: int, neurons: int, *, spread: float = 0.2, t_ref: float = 0.1
) -> LayerParameters:
    def around(value: float) -> np.ndarray:
        return value * np.exp(spread * rng.standard_normal(neurons))

    return LayerParameters(
        rng.normal(0.3, 1.2, (inputs, neurons)),
        around(2.0),
        around(1.0),
        around(1.3),
        around(1.0),
        -0.3 * around(1.0),
        np.full(neurons, t_ref),
    )


def assert_same_spikes(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    spikes = np.isfinite(expected)
    np.testing.assert_allclose(found[spikes], expected[spikes], rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("t_ref", [0.0, 0.2, inf])
def test_core_is_the_specification(seed: int, t_ref: float) -> None:
    rng = np.random.default_rng(seed)
    layer = mismatched(rng, 12, 6, t_ref=t_ref)
    times = np.where(rng.random((3, 12, 3)) < 0.8, rng.uniform(0, 6, (3, 12, 3)), inf)
    for t_max in (5.0, inf):
        expected, margin = specification.run_layer(times, layer, max_spikes=100, t_max=t_max)
        assert margin > 1e-9, "choose another seed: rounding decides over a spike"
        assert_same_spikes(run_layer(times, layer, max_spikes=100, t_max=t_max), expected, 1e-9)
    assert np.isfinite(expected).any()


positive = st.floats(0.05, 5.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_core_is_the_specification_for_any_constants(data: st.DataObject) -> None:
    inputs, neurons = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    row = st.lists(positive, min_size=neurons, max_size=neurons).map(np.array)
    weight = data.draw(st.lists(st.floats(-10, 10), min_size=inputs * neurons, max_size=inputs * neurons))
    threshold = data.draw(row)
    layer = LayerParameters(
        np.array(weight).reshape(inputs, neurons),
        data.draw(row),
        data.draw(row),
        data.draw(row),
        threshold,
        threshold - data.draw(row),
        data.draw(row) * data.draw(st.sampled_from([0.0, 1.0, inf])) if data.draw(st.booleans()) else np.zeros(neurons),
    )
    times = np.array(data.draw(st.lists(st.floats(0, 5) | st.just(inf), min_size=2 * inputs, max_size=2 * inputs)))
    expected, margin = specification.run_layer(times.reshape(1, inputs, 2), layer, max_spikes=400, t_max=8.0)
    assume(margin > 1e-8)
    assume(np.isinf(expected[..., -1]).all())
    assert_same_spikes(run_layer(times.reshape(1, inputs, 2), layer, max_spikes=400, t_max=8.0), expected, 1e-7)


# ---- one crossing, with 40 digits -----------------------------------------------------------------------------------

ONCE = mpmath.mp.clone()
ONCE.dps = 40


def potential(constants: tuple[float, ...], state: tuple[float, ...], x: mpmath.mpf) -> mpmath.mpf:
    """Potential of one neuron by the textbook formula, with digits to spare for what it cancels."""
    tau_mem, tau_exc, tau_inh, _ = map(ONCE.mpf, constants)
    u, exc, inh = map(ONCE.mpf, state)

    def response(tau: mpmath.mpf) -> mpmath.mpf:
        if tau == tau_mem:
            return x * ONCE.exp(-x / tau)
        return (ONCE.exp(-x / tau_mem) - ONCE.exp(-x / tau)) / (1 / tau - 1 / tau_mem)

    return u * ONCE.exp(-x / tau_mem) + exc * response(tau_exc) - inh * response(tau_inh)


def exact_crossing(constants: tuple[float, ...], state: tuple[float, ...], end: float) -> float:
    """First crossing found by a dense scan and bisection, refined with Newton's method; inf: none."""
    threshold = constants[3]
    low = 0.0
    for high in np.geomspace(1e-6 * end, end, 300):
        if potential(constants, state, ONCE.mpf(float(high))) >= threshold:
            return ONCE.findroot(
                lambda x: potential(constants, state, x) - threshold, (low, float(high)), solver="anderson", tol=1e-60
            )
        low = float(high)
    return ONCE.inf


def core_crossing(constants: tuple[float, ...], state: tuple[float, ...], end: float) -> float:
    return native.analog.crossing(*constants, *state, end)


def peak(constants: tuple[float, ...], state: tuple[float, ...], near: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """The extremum near a time: when, and the potential there."""
    time = ONCE.findroot(lambda x: ONCE.diff(lambda y: potential(constants, state, y), x), ONCE.mpf(near))
    return time, potential(constants, state, time)


TAUS = [
    (2.0, 1.0, 1.3),
    (2.0, 1.0, 0.4),
    (1.0, 1.0, 3.0),
    (1.0, 3.0, 1.0),
    (0.3, 1.0, 5.0),
    (7.0, 0.1, 0.7),
    (1.0, 1.0 + 1e-9, 1.0 - 1e-9),  # differences at which exponentials cancel all but a few digits
    (1.0 + 1e-13, 1.0, 1.0 + 3e-5),
    (2.0, 1.0, 1.0 + 1e-12),
    (2.0, 1.0 - 1e-4, 1.0),
]


@pytest.mark.parametrize("taus", TAUS)
def test_crossings_of_three_exponentials_to_1e_12(taus: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(3)
    crossings = 0
    for _ in range(14):
        exc = 10 ** rng.uniform(0, 1.5) / min(taus)
        state = (rng.uniform(-2, 0.9), exc, exc * 10 ** rng.uniform(-2, 0.3))
        constants = (*taus, 1.0)
        end = rng.uniform(0.5, 6.0) * max(taus)
        found, expected = core_crossing(constants, state, end), exact_crossing(constants, state, end)
        assert (found < 0) == (expected == inf)
        if found >= 0:
            crossings += 1
            # A rounding of u of 1e-16 times the sizes of its terms moves the crossing by that over the slope.
            slope = abs(ONCE.diff(lambda x: potential(constants, state, x), expected))  # noqa: B023
            terms = 2 + (state[1] + state[2]) * expected
            assert abs(found - expected) <= 1e-12 * expected + 2e-15 * terms / slope
    assert crossings >= 4


@pytest.mark.parametrize("seed", [1, 2])
def test_crossings_over_orders_of_magnitude(seed: int) -> None:
    """Time constants, currents and waits that differ by factors of 1000, also pairs that differ by 1e-13 to 1e-6."""
    rng = np.random.default_rng(seed)
    crossings = 0
    for _ in range(1500):
        taus = 10 ** rng.uniform(-1.3, 1.3, 3)
        for pair in (1, 2):
            if rng.random() < 0.2:
                taus[pair] = taus[pair - 1] * (1 + rng.choice([0, 1e-13, 1e-9, 1e-6]))
        exc = 10 ** rng.uniform(-1, 3)
        state = specification.State(rng.uniform(-5, 0.999), exc, exc * 10 ** rng.uniform(-6, 1.5))
        end = 10 ** rng.uniform(-2, 2.5)
        neuron = specification.Neuron(*taus.tolist(), 1.0, 0.0, 0.0)
        expected, margin = neuron.crossing(state, end)
        if margin < 1e-11 * max(1, exc * min(taus)):
            continue  # rounding decides
        found = core_crossing((*taus.tolist(), 1.0), (state.u, state.exc, state.inh), end)
        assert (found < 0) == (expected == inf)
        if found >= 0:
            crossings += 1
            slope = neuron.slope(neuron.after(state, expected))
            terms = 1 + abs(state.u) + (state.exc + state.inh) * min(max(taus), expected)
            assert abs(found - expected) <= 1e-12 * expected + 1e-16 * terms / slope
    assert crossings > 400


# ---- a grazing peak --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taus", TAUS)
@pytest.mark.parametrize("inhibition", [0.0, 0.5])
def test_a_peak_just_above_the_threshold_fires_and_one_just_below_does_not(
    taus: tuple[float, float, float], inhibition: float
) -> None:
    exc = 20 / min(taus)
    state = (-0.5, exc, inhibition * exc)
    scan = np.linspace(0, 3 * max(taus), 3000)[1:]
    heights = [float(potential((*taus, 1.0), state, ONCE.mpf(float(x)))) for x in scan]
    at = int(np.argmax(heights))
    time, height = peak((*taus, 1.0), state, scan[at])
    for gap in (1e-6, 1e-10, 1e-12):
        below = (*taus, float(height * (1 + gap)))
        assert core_crossing(below, state, inf) < 0
        assert core_crossing(below, state, float(time)) < 0
        above = (*taus, float(height * (1 - gap)))
        assert core_crossing(above, state, 0.5 * float(time)) < 0
        crossing = core_crossing(above, state, inf)
        # The potential is a parabola there, and rounding is a part of its small gap.
        bend = -ONCE.diff(lambda x: potential(above, state, x), time, 2) / above[3]  # noqa: B023
        ahead = ONCE.sqrt(2 * gap / bend)
        assert abs(time - crossing - ahead) <= ahead * (ahead / min(taus) + 1e-15 / gap) + 1e-12 * time


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau_mem", [2.0, 1.0, 1.7, "mismatched"])
@pytest.mark.parametrize("t_ref", [0.0, 0.3, inf])
def test_the_ideal_core_is_the_kernel_that_networks_are_trained_with(tau_mem: float | str, t_ref: float) -> None:
    torch = pytest.importorskip("torch")
    from neurodeploy.kernels.spike_time.neuron import SpikeTimeNeuron
    from neurodeploy.kernels.spike_time.operators import apply

    rng = np.random.default_rng(0)
    row = 1.7 * np.exp(0.2 * rng.standard_normal(70)) if tau_mem == "mismatched" else np.full(70, tau_mem)
    times, weight = rng.uniform(0, 6, (4, 60, 2)), rng.normal(0.05, 0.25, (60, 70))
    layer = layer_of(weight, tau_mem=row, v_reset=-0.2, t_ref=t_ref)
    neuron = SpikeTimeNeuron(torch.from_numpy(row), 1.0, 1.0, reset="value", v_reset=-0.2, t_ref=t_ref)
    for t_max in (8.0, inf):
        expected = apply(torch.from_numpy(times), torch.from_numpy(weight), neuron, max_spikes=200, t_max=t_max).times
        assert_same_spikes(run_layer(times, layer, max_spikes=200, t_max=t_max), expected.numpy(), 1e-9)


def test_the_same_bytes_for_any_threads_and_batches() -> None:
    rng = np.random.default_rng(1)
    layer = mismatched(rng, 40, 150)
    times = rng.uniform(0, 4, (7, 40, 2))
    noise = TrialNoise(jitter_s=0.02, threshold_cv=0.03)
    sites = rng.permutation(1000)[:150].astype(np.int64)
    options = {"max_spikes": 200, "t_max": 6.0, "noise": noise, "seed": 5}
    whole = run_layer(times, layer, **options, sites=sites)
    assert run_layer(times, layer, **options, sites=sites, threads=2).tobytes() == whole.tobytes()
    trials = np.arange(7)
    parts = [run_layer(times[p], layer, **options, sites=sites, trials=trials[p]) for p in (slice(3), slice(3, 7))]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    # Neurons by themselves, in another order: noise belongs to their sites.
    some = rng.permutation(150)[:20]
    constants = {name: getattr(layer, name)[some] for name in specification.CONSTANTS}
    alone = run_layer(times, LayerParameters(layer.weight[:, some], **constants), **options, sites=sites[some])
    assert alone.tobytes() == whole[:, some].tobytes()
    assert run_layer(times, layer, **{**options, "seed": 6}, sites=sites).tobytes() != whole.tobytes()


def test_the_bytes_are_those_of_every_machine() -> None:
    """The digests were written down on one machine; a difference elsewhere is a difference in the numbers' bits."""
    inputs, neurons = 30, 70
    number = np.arange(inputs * neurons).reshape(inputs, neurons)
    weight = (number * 7919 % 1009 - 400) / 512.0
    times = (np.arange(2 * inputs * 2).reshape(2, inputs, 2) * 31 % 257) / 64.0
    row = np.arange(neurons) * 13 % 37 / 100.0
    found = hashlib.sha256()
    for taus in ((2.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.5, 1.0, 1.0), (1.5 + row, 1.0 + row[::-1], 0.8 + row)):
        layer = layer_of(weight, **dict(zip(("tau_mem", "tau_syn_exc", "tau_syn_inh"), taus, strict=True)), t_ref=0.125)
        noise = TrialNoise(jitter_s=0.01, threshold_cv=0.02)
        found.update(run_layer(times, layer, max_spikes=200, t_max=6.0, noise=noise, seed=9).astype("<f8").tobytes())
    assert found.hexdigest() == "12cf666051ffeb1ffdf6667b2896ce487a318f1cabb75ad02a44543e3a26949d"


def test_a_long_recording_is_as_exact_as_a_short_one() -> None:
    rng = np.random.default_rng(2)
    layer = mismatched(rng, 20, 8)
    times = rng.uniform(0, 5, (2, 20, 2))
    early = run_layer(times, layer, max_spikes=50)
    late = run_layer(np.concatenate([times, times + 1000.0], axis=2), layer, max_spikes=100)
    for neuron in np.ndindex(2, 8):
        spikes = early[neuron][np.isfinite(early[neuron])]
        again = late[neuron][np.isfinite(late[neuron])]
        np.testing.assert_array_equal(again[: len(spikes)], spikes)
        # Times of 1000 have a resolution of 1.1e-13, and so have the intervals between them.
        np.testing.assert_allclose(again[len(spikes) :] - 1000.0, spikes, rtol=0, atol=1e-10)
    assert np.isfinite(early).sum() > 20


def test_refractory_clamp_holds_while_currents_flow_on() -> None:
    layer = layer_of(np.full((1, 1), 50.0), tau_mem=1.0, tau_syn_exc=1.0, t_ref=0.5, v_reset=-1.0)
    found = run_layer(np.zeros((1, 1, 1)), layer, max_spikes=20)[0, 0]
    spikes = found[np.isfinite(found)]
    assert len(spikes) > 2
    for spike, following in pairwise(spikes):
        # From the end of the clamp: u = -e^-y + i y e^-y reaches 1, with the current that has flowed on since 0.
        current = 50 * mpmath.exp(-(spike + 0.5))
        wait = mpmath.findroot(lambda y: (-1 + current * y) * mpmath.exp(-y) - 1, 2 / current)  # noqa: B023
        assert following == pytest.approx(spike + 0.5 + float(wait), abs=1e-12)


def test_inputs_at_one_time_act_together() -> None:
    weight = np.array([[2.0], [-1.0], [3.0]])
    together = run_layer(np.ones((1, 3, 1)), layer_of(weight, tau_syn_inh=0.7), max_spikes=5)
    for order in ([1, 0, 2], [2, 1, 0]):
        again = run_layer(np.ones((1, 3, 1)), layer_of(weight[order], tau_syn_inh=0.7), max_spikes=5)
        assert_same_spikes(again, together, 1e-14)
    assert np.isfinite(together).any()


def test_silent_neurons_and_no_input() -> None:
    layer = layer_of(np.array([[-5.0, 0.1]]))
    assert np.isinf(run_layer(np.zeros((2, 1, 1)), layer, max_spikes=3)).all()
    assert np.isinf(run_layer(np.full((2, 1, 4), inf), layer, max_spikes=3)).all()
    assert run_layer(np.zeros((0, 1, 4)), layer, max_spikes=3).shape == (0, 2, 3)


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_the_specification() -> None:
    rng = np.random.default_rng(7)
    layer = mismatched(rng, 10, 5)
    times = rng.uniform(0, 5, (4, 10, 3))
    options = {"max_spikes": 60, "t_max": 5.5, "noise": TrialNoise(0.3, 0.05), "seed": 2**63 + 1}
    options |= {"trials": np.array([4, 0, 2**32 - 1, 9]), "sites": np.array([3, 1, 2**31, 8, 0])}
    expected, margin = specification.run_layer(times, layer, **options)
    assert margin > 1e-9
    assert_same_spikes(run_layer(times, layer, **options), expected, 1e-9)
    assert np.isfinite(expected).sum() > 30


def test_jitter_moves_spikes_and_not_the_neuron() -> None:
    layer = layer_of(np.full((1, 400), 60.0), t_ref=0.2)
    times = np.full((1, 1, 1), 1.0)
    exact = run_layer(times, layer, max_spikes=20)
    count = int(np.isfinite(exact[0, 0]).sum())
    moved = run_layer(times, layer, max_spikes=20, noise=TrialNoise(jitter_s=0.01))
    np.testing.assert_array_equal(np.isfinite(moved), np.isfinite(exact))
    shift = moved[..., 2:count] - exact[..., 2:count]  # the first may be held back, see below
    assert abs(shift.mean()) < 4 * 0.01 / np.sqrt(shift.size)
    assert shift.std() == pytest.approx(0.01, rel=0.1)


def test_much_jitter_keeps_order_and_cause() -> None:
    layer = layer_of(np.full((1, 50), 60.0), t_ref=0.01)
    times = np.full((1, 1, 1), 1.0)
    count = np.isfinite(run_layer(times, layer, max_spikes=100, t_max=4.0)).sum()
    moved = run_layer(times, layer, max_spikes=100, t_max=4.0, noise=TrialNoise(jitter_s=2.0))
    spikes = np.isfinite(moved)
    assert (np.diff(np.where(spikes, moved, 1e9), axis=2) >= 0).all()
    assert moved.min() == 1.0  # the first excitation
    assert moved[spikes].max() <= 4.0
    assert 0 < spikes.sum() < count


def test_threshold_noise_is_one_factor_for_a_trial() -> None:
    weight = np.full((1, 1), 60.0)
    layer = layer_of(weight, t_ref=0.2)
    times = np.zeros((500, 1, 1))
    found = run_layer(times, layer, max_spikes=20, noise=TrialNoise(threshold_cv=0.05))
    # The first crossing in closed form (tau_mem = 2 tau_syn) tells the threshold.
    decay = np.exp(-found[:, 0, 0] / 2)
    factors = 120 * (decay - decay**2)
    assert factors.std() == pytest.approx(0.05, rel=0.1)
    assert factors.mean() == pytest.approx(1, abs=4 * 0.05 / np.sqrt(500))
    for trial in range(3):
        alone = run_layer(times[:1], layer_of(weight, t_ref=0.2, threshold=factors[trial]), max_spikes=20)
        np.testing.assert_allclose(found[trial, 0], alone[0, 0], atol=1e-9)


# ---- through a network -----------------------------------------------------------------------------------------------


def test_times_are_rounded_at_the_edge_of_the_chip_alone() -> None:
    rng = np.random.default_rng(4)
    layers = [mismatched(rng, 15, 9), mismatched(rng, 9, 4)]
    times = rng.uniform(0, 3, (3, 15, 2))
    found = emulate(layers, times, max_spikes=[60, 80], t_max=5.0, timestamp_lsb_s=0.01)
    hidden = run_layer(stamped(times, 0.01), layers[0], max_spikes=60, t_max=5.0)
    out = run_layer(hidden, layers[1], max_spikes=80, t_max=5.0)
    np.testing.assert_array_equal(found[0], stamped(hidden, 0.01))
    np.testing.assert_array_equal(found[1], stamped(out, 0.01))
    spikes = np.isfinite(out)
    assert spikes.any()
    np.testing.assert_allclose(found[1][spikes], out[spikes], rtol=0, atol=0.005 + 1e-12)
    exact = emulate(layers, times, max_spikes=80, t_max=5.0)
    np.testing.assert_array_equal(exact[0], run_layer(times, layers[0], max_spikes=80, t_max=5.0))


def test_layers_have_noise_of_their_own() -> None:
    first = layer_of(np.full((1, 3), 60.0), t_ref=inf)
    second = layer_of(np.full((1, 3), 60.0), t_ref=inf)
    both = emulate([first, second], np.zeros((1, 1, 1)), max_spikes=1, sources=[-1, -1], noise=TrialNoise(0.0, 0.05))
    assert not (both[0] == both[1]).any()


def test_a_program_runs_with_its_own_options_and_sites() -> None:
    rng = np.random.default_rng(5)
    parts = [mismatched(rng, 6, 5), mismatched(rng, 5, 3), mismatched(rng, 5, 2)]
    sites = [np.array([[40, 41], [2, 3], [4, 5], [6, 7], [8, 9]]), np.array([[0], [1], [10]]), np.array([[20], [21]])]
    layers = tuple(
        AnalogLayer(
            name, source, 50, part, site, np.zeros(part.weight.shape, np.int64), np.zeros(part.neurons, np.int32)
        )
        for name, source, part, site in zip("abc", ("input", "a", "a"), parts, sites, strict=True)
    )
    program = AnalogProgram("ideal", 6, layers, 5.0, 1.0, 0.01, {})
    times = rng.uniform(0, 3, (4, 6, 3))
    noise, trials = TrialNoise(0.02, 0.03), np.arange(4) + 7
    found = emulate_program(program, times, noise=noise, seed=3, trials=trials)
    options = {"max_spikes": 50, "t_max": 5.0, "noise": noise, "seed": 3, "trials": trials}
    first = run_layer(stamped(times, 0.01), parts[0], sites=sites[0][:, 0].copy(), **options)
    assert np.isfinite(first).sum() > 20
    np.testing.assert_array_equal(found[0], stamped(first, 0.01))
    for n in (1, 2):
        expected = run_layer(first, parts[n], sites=sites[n][:, 0].copy(), **options)
        np.testing.assert_array_equal(found[n], stamped(expected, 0.01))
    other = emulate_program(program, times, realised=[mismatched(rng, 6, 5), *parts[1:]], noise=noise, seed=3)
    assert other[0].tobytes() != found[0].tobytes()
    with pytest.raises(SpikeOverflowError, match=r"^b: neuron"):
        emulate_program(replace(program, layers=(layers[0], replace(layers[1], max_spikes=1))), times)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_too_many_spikes_name_the_first_neuron() -> None:
    weight = np.array([[1.0, 60.0, 60.0]])
    times = np.array([inf, inf, 0.0, 0.0]).reshape(4, 1, 1)
    with pytest.raises(
        SpikeOverflowError, match=r"hidden: neuron 1 fires more than max_spikes=2 times in sample 2"
    ) as e:
        run_layer(times, layer_of(weight), max_spikes=2, name="hidden", threads=2)
    assert (e.value.sample, e.value.neuron, e.value.limit) == (2, 1, 2)


def test_arguments_out_of_range() -> None:
    layer, times = layer_of(np.ones((2, 3))), np.zeros((1, 2, 1))
    for options in (
        {"max_spikes": 0},
        {"threads": 0},
        {"seed": -1},
        {"t_max": float("nan")},
        {"trials": np.array([-1])},
        {"trials": np.array([0, 1])},
        {"sites": np.array([0, 1, 2**32])},
        {"sites": np.array([0, 1, 2], dtype=np.int32)},
    ):
        with pytest.raises(EmulationError, match="Remedy"):
            run_layer(times, layer, **{"max_spikes": 3, **options})
    for bad in (times[:, :1], times.astype(np.float32), times - inf, times * np.nan):
        with pytest.raises(EmulationError, match="spike time"):
            run_layer(bad, layer, max_spikes=3)
    for constants in ({"jitter_s": -1.0}, {"threshold_cv": inf}):
        with pytest.raises(EmulationError, match="at least 0"):
            TrialNoise(**constants)
    with pytest.raises(EmulationError, match="lower threshold_cv"):
        run_layer(np.zeros((100, 2, 1)), layer, max_spikes=9, noise=TrialNoise(threshold_cv=0.5))
    with pytest.raises(EmulationError, match="behind their sources"):
        emulate([layer], times, max_spikes=3, sources=[0])
    with pytest.raises(EmulationError, match="one of each"):
        emulate([layer], times, max_spikes=[3, 3])
    with pytest.raises(EmulationError, match="timestamp_lsb_s"):
        emulate([layer], times, max_spikes=3, timestamp_lsb_s=-1.0)
