"""The Yin-Yang data set: its areas, its classes, its times."""

import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import yin_yang, yin_yang_times
from neurodeploy.events.yin_yang import DOT, DOT_RADIUS, RADIUS, YANG, YIN, class_of


def test_known_points() -> None:
    points = np.array([[0.25, 0.5], [0.75, 0.5], [0.5, 0.9], [0.5, 0.1], [0.25, 0.65], [0.75, 0.35], [0.02, 0.02]])
    assert class_of(points).tolist() == [DOT, DOT, YANG, YIN, YANG, YIN, -1]


def test_yin_is_yang_turned_by_half_a_turn() -> None:
    points = np.random.default_rng(0).random((2000, 2))
    turned = np.array([YANG, YIN, DOT, -1])[class_of(1 - points)]
    assert (class_of(points) == turned).all()


def test_points_are_seeded_balanced_and_uniform_within_their_class() -> None:
    points, labels = yin_yang(3000, seed=4)
    assert np.bincount(labels).tolist() == [1000, 1000, 1000]
    assert (class_of(points) == labels).all()
    again, other = yin_yang(3000, seed=4)[0], yin_yang(3000, seed=5)[0]
    assert (again == points).all()
    assert (other != points).any()
    # Half of a dot's points lie within 1 / sqrt(2) of its radius, as many in either dot.
    dots = points[labels == DOT] - RADIUS
    near = np.hypot(np.abs(dots[:, 0]) - 0.5 * RADIUS, dots[:, 1]) < DOT_RADIUS / 2**0.5
    for share in (near.mean(), (dots[:, 0] > 0).mean()):
        assert abs(share - 0.5) < 5 * 0.5 / 1000**0.5
    assert np.bincount(yin_yang(10, seed=0)[1]).tolist() == [4, 3, 3]
    assert yin_yang(0, seed=0)[0].shape == (0, 2)


def test_times_are_linear_in_the_values() -> None:
    times = yin_yang_times(np.array([[0.25, 1.0]]), t_early=1.0, t_late=3.0)
    assert times[..., 0].tolist() == [[1.5, 3.0, 2.5, 1.0, 1.0]]


def test_what_cannot_be_drawn_or_encoded_is_refused() -> None:
    with pytest.raises(EventError, match="-1 points"):
        yin_yang(-1, seed=0)
    for points, late in ((np.array([[0.5, 1.5]]), 2.0), (np.zeros((2, 3)), 2.0), (np.zeros((2, 2)), 1.0)):
        with pytest.raises(EventError, match="cannot be encoded"):
            yin_yang_times(points, t_early=1.0, t_late=late)
