"""Four currents per core: no random choice is better, only possible currents, exact for weights that are levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import QuantizeError
from neurodeploy.targets.analog.four_currents import four_currents, levels, quantised

#: A coarse/fine DAC with a floor: what the search may choose from.
POSSIBLE = np.unique((1e-12 + 72e-12 * 8.0 ** np.arange(6)[:, None] * np.arange(256) / 255).ravel())


def relative_error(found, wanted, importance=1.0):
    return np.sqrt(np.sum(importance * (found - wanted) ** 2) / np.sum(importance * wanted**2))


@pytest.mark.parametrize("shape", [(16, 64), (64, 64)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normal_weights_lose_less_than_seven_percent(shape, seed):
    weights = np.random.default_rng(seed).normal(size=shape)
    weights *= 1e-6 / np.abs(weights).max()
    found = four_currents(weights, POSSIBLE)
    assert found.nrmse < 0.07
    assert found.nrmse == pytest.approx(relative_error(found.realised, weights), rel=1e-12)


def test_what_is_returned_fits_together():
    weights = np.random.default_rng(3).normal(size=(20, 30)) * 1e-7
    found = four_currents(weights, POSSIBLE)
    assert np.array_equal(found.currents, POSSIBLE[found.choices])
    assert np.array_equal(found.realised, found.signs * levels(found.currents)[found.masks])
    assert np.array_equal(found.signs == 0, found.masks == 0)
    assert ((found.signs == np.sign(weights)) | (found.masks == 0)).all()
    nearest = np.abs(np.abs(weights)[..., None] - levels(found.currents)).min(axis=-1)
    assert np.allclose(np.abs(found.realised - weights), nearest, rtol=0, atol=1e-21)


def test_sixteen_levels_are_the_sums_of_all_subsets():
    assert np.array_equal(levels(np.array([1.0, 2.0, 4.0, 8.0])), np.arange(16.0))


@pytest.mark.parametrize("draw", ["normal", "laplace", "standard_t"])
def test_no_random_choice_of_currents_is_better(draw):
    rng = np.random.default_rng(4)
    weights = rng.standard_t(3, size=(16, 16)) if draw == "standard_t" else getattr(rng, draw)(size=(16, 16))
    found = four_currents(weights)
    magnitudes = np.abs(weights).ravel()
    for _ in range(3000):
        values = np.sort(levels(rng.uniform(0, np.quantile(magnitudes, rng.uniform(0.5, 1)), 4)))
        nearest = values[np.searchsorted((values[1:] + values[:-1]) / 2, magnitudes)]
        assert relative_error(nearest, magnitudes) >= found.nrmse


def test_the_clip_is_found():
    weights = np.random.default_rng(5).normal(size=(16, 64))
    weights[0, 0] = 12.0
    step = 12.0 / 15
    assert four_currents(weights).nrmse < 0.6 * relative_error(np.round(weights / step) * step, weights)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_weights_on_levels_are_kept(seed):
    rng = np.random.default_rng(seed)
    currents = rng.uniform(0.05, 1.0, 4)
    weights = rng.choice([-1, 1], (16, 32)) * levels(currents)[rng.integers(0, 16, (16, 32))]
    found = four_currents(weights)
    assert np.allclose(found.realised, weights, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("possible", [None, POSSIBLE])
def test_quantising_twice_changes_nothing(possible):
    weights = np.random.default_rng(6).normal(size=(5, 120)) * 1e-7
    once = quantised(weights, possible)
    assert np.allclose(quantised(once, possible), once, rtol=1e-7, atol=0)


def test_the_result_does_not_depend_on_the_order_of_neurons():
    rng = np.random.default_rng(7)
    weights, order = rng.normal(size=(10, 40)) * 1e-7, rng.permutation(40)
    here, there = four_currents(weights, POSSIBLE), four_currents(weights[:, order], POSSIBLE)
    assert np.array_equal(here.currents, there.currents)
    assert np.array_equal(here.masks[:, order], there.masks)


def test_importance_moves_the_error_to_where_it_matters_less():
    rng = np.random.default_rng(8)
    weights = np.concatenate([rng.normal(size=(16, 20)), rng.normal(size=(16, 20)) * 0.2], axis=1)
    small = np.repeat([[0.0, 1.0]], 20, axis=1).repeat(16, axis=0)
    even, weighted = four_currents(weights), four_currents(weights, importance=small)
    assert relative_error(weighted.realised, weights, small) < 0.5 * relative_error(even.realised, weights, small)
    assert weighted.nrmse == pytest.approx(relative_error(weighted.realised, weights, small), rel=1e-12)


@pytest.mark.parametrize("possible", [None, POSSIBLE])
@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_weights_of_zero_take_no_synapse(shape, possible):
    found = four_currents(np.zeros(shape), possible)
    assert found.nrmse == 0
    assert not found.masks.any()
    assert not found.signs.any()
    assert not found.realised.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([[np.nan]]),), "weights is"),
        ((np.zeros((2, 2), np.float32),), r"weights is float32 of shape \(2, 2\)"),
        ((np.zeros((2, 2)), np.array([2.0, 1.0])), "possible is"),
        ((np.zeros((2, 2)), np.array([0.0, 1.0])), "possible is"),
        ((np.zeros((2, 2)), None, np.ones((2, 3))), "importance is"),
        ((np.zeros((2, 2)), None, -np.ones((2, 2))), "importance is"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(QuantizeError, match=message):
        four_currents(*arguments)
