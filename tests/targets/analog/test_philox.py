"""Random numbers of the analog cores: published vectors, the normal quantile, statistics."""

from math import erf, sqrt
from statistics import NormalDist

import numpy as np
import pytest

from neurodeploy.targets.analog import philox


def counters(count: int) -> np.ndarray:
    rows = np.zeros((count, 4), dtype=np.uint32)
    rows[:, 0] = np.arange(count)
    return rows


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123, philox4x32 with 10 rounds
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    found = philox.words(key[0] | key[1] << 32, np.array([counter], dtype=np.uint32))
    assert tuple(found[0]) == expected


def test_normal_numbers_are_the_quantiles_of_the_uniform_ones() -> None:
    rows = counters(20_000)
    first = philox.words(7, rows).astype(object)
    uniform = [float((int(w[0]) << 32 | int(w[1])) >> 12) for w in first]
    expected = [NormalDist().inv_cdf((part + 0.5) * 2.0**-52) for part in uniform]
    np.testing.assert_allclose(philox.normal(7, rows), expected, rtol=4e-15)


def test_quantiles_far_out() -> None:
    uniform = np.concatenate([10.0 ** -np.arange(1.0, 17.0), 1 - 2.0 ** -np.arange(2.0, 53.0), [0.075, 0.925, 0.5]])
    expected = [NormalDist().inv_cdf(u) for u in uniform]
    np.testing.assert_allclose(philox.normal_quantile(uniform), expected, rtol=4e-15)


def test_known_bits() -> None:
    found = philox.normal(0x0123456789ABCDEF, counters(3))
    assert [value.hex() for value in found.tolist()] == [
        "0x1.2a5f9694ed4a3p-1",
        "0x1.dbacdb63d75e6p-2",
        "0x1.da1ee93a4afafp+0",
    ]


def test_distribution() -> None:
    count = 100_000
    values = np.sort(philox.normal(1, counters(count)))
    expected = np.array([0.5 * (1 + erf(value / sqrt(2))) for value in values])
    # Kolmogorov-Smirnov: above 1.95 / sqrt(n) with probability 0.001; the draw is fixed.
    assert np.abs(expected - (np.arange(count) + 0.5) / count).max() < 1.95 / sqrt(count)
    assert abs(np.corrcoef(philox.normal(1, counters(count)), philox.normal(2, counters(count)))[0, 1]) < 4 / sqrt(
        count
    )


def test_counters_of_another_type_are_not_converted() -> None:
    with pytest.raises(TypeError):
        philox.normal(0, np.zeros((2, 4), dtype=np.int64))  # type: ignore[arg-type]
