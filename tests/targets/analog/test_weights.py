"""Signed levels: one level for the chip, chosen by a clip search, with the error of every layer."""

import numpy as np
import pytest

from neurodeploy.errors import QuantizeError
from neurodeploy.targets.analog.weights import highest_code, signed_levels, to_codes


def draws(seed=0, heavy=False):
    rng = np.random.default_rng(seed)
    hidden = rng.standard_t(3, (40, 30)) if heavy else rng.normal(size=(40, 30))
    return [hidden, 0.5 * rng.normal(size=(30, 4))]


@pytest.mark.parametrize("bits", [1, 4, 6])
def test_codes_are_the_nearest_of_their_level(bits):
    weights = draws()
    found = signed_levels(weights, magnitude_bits=bits)
    highest = highest_code(bits)
    grid = np.arange(-highest, highest + 1) * found.level
    for weight, code in zip(weights, found.codes, strict=True):
        assert code.dtype == np.int64
        assert np.abs(code).max() <= highest
        nearest = np.abs(weight[..., None] - grid).min(-1)
        assert np.array_equal(np.abs(weight - code * found.level), nearest)


def test_the_clip_search_beats_the_largest_weight():
    weights = draws(heavy=True)
    found = signed_levels(weights, magnitude_bits=4)
    largest = max(np.abs(weight).max() for weight in weights)
    naive = largest / highest_code(4)
    errors = [weight - naive * to_codes(weight, naive, 4) for weight in weights]
    plain = sum(np.mean(error**2) / np.mean(weight**2) for error, weight in zip(errors, weights, strict=True))
    assert sum(error**2 for error in found.nrmse) < 0.5 * plain
    assert 0 < found.clipped[0] < 0.05


def test_weights_that_are_levels_are_exact():
    codes = np.random.default_rng(0).integers(-63, 64, (20, 10))
    codes[0, 0] = 63
    found = signed_levels([0.25 * codes, 0.25 * codes[:5]])
    assert found.level == 0.25
    assert np.array_equal(found.codes[0], codes)
    assert found.nrmse == (0.0, 0.0)


def test_importance_decides_between_layers():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=500), np.concatenate([0.05 * rng.normal(size=500), [8.0]])]
    first = signed_levels(weights, magnitude_bits=3, importance=[100, 1])
    second = signed_levels(weights, magnitude_bits=3, importance=[1, 100])
    assert first.nrmse[0] < second.nrmse[0]
    assert first.nrmse[1] > second.nrmse[1]


def test_zeros_stay_zeros():
    found = signed_levels([np.zeros((3, 2)), np.zeros(0)])
    assert not found.codes[0].any()
    assert (found.level, found.nrmse) == (1.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("weights", "options"),
    [([np.array([np.nan])], {}), ([np.ones(2)], {"importance": []}), ([], {"magnitude_bits": 0})],
)
def test_what_has_no_levels_is_refused(weights, options):
    with pytest.raises(QuantizeError, match="give at least one bit"):
        signed_levels(weights, **options)
