"""The Yin-Yang data set: three classes in the plane that no linear readout separates, made for spike times.

L. Kriener, J. Goeltz, M. A. Petrovici, "The Yin-Yang dataset", NICE 2022 (arXiv:2102.08211).
"""

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError

YIN, YANG, DOT = 0, 1, 2
RADIUS = 0.5
"""Of the disc, whose middle is (0.5, 0.5)."""
DOT_RADIUS = 0.1
INPUTS = 5
"""Spikes per point: x, y, 1 - x, 1 - y, and one that comes first in the place of a bias."""


def yin_yang(count: int, *, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw points of the disc, each class a third of them (up to one), in random order.

    Within a class, points are uniform. They depend on ``seed`` and ``count`` alone.

    Args:
        count: number of points.
        seed: of the points and their order.

    Returns:
        points float64 ``[count, 2]``, x and y in [0, 1], and labels int64 ``[count]``: :data:`YIN`, :data:`YANG`,
        :data:`DOT`.

    Raises:
        EventError: ``count`` is negative.
    """
    if count < 0:
        raise EventError(f"{count} points asked for.", remedy="ask for 0 or more.", code="yin-yang-count")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 3)
    points = np.empty((count, 2))
    missing = np.arange(count)
    while len(missing):
        drawn = rng.random((len(missing), 2))
        fits = class_of(drawn) == labels[missing]
        points[missing[fits]] = drawn[fits]
        missing = missing[~fits]
    return points, labels


def class_of(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The classes of points ``[N, 2]``; -1 outside the disc."""
    x, y = points[:, 0] - RADIUS, points[:, 1] - RADIUS
    right, left = np.hypot(x - 0.5 * RADIUS, y), np.hypot(x + 0.5 * RADIUS, y)
    yang = (left <= 0.5 * RADIUS) | ((y > 0) & (right > 0.5 * RADIUS))
    classes = np.where((right < DOT_RADIUS) | (left < DOT_RADIUS), DOT, np.where(yang, YANG, YIN))
    return np.where(np.hypot(x, y) <= RADIUS, classes, -1)


def yin_yang_times(points: NDArray[np.float64], *, t_early: float, t_late: float) -> NDArray[np.float64]:
    """Encode points as one spike per input: the larger the value, the later.

    Args:
        points: float64 ``[N, 2]`` in [0, 1].
        t_early, t_late: times of the values 0 and 1; the fifth input always fires at ``t_early``.

    Returns:
        float64 ``[N, 5, 1]``: what a ``SpikeTimeLinear(5, ...)`` takes, in the unit of the two times.

    Raises:
        EventError: points of another shape or outside [0, 1], or times that do not ascend.
    """
    if points.ndim != 2 or points.shape[1] != 2 or not ((points >= 0) & (points <= 1)).all() or not t_early < t_late:
        raise EventError(
            f"points of shape {points.shape} and times from {t_early:g} to {t_late:g} cannot be encoded.",
            remedy="give points [N, 2] with coordinates from 0 to 1, and t_early below t_late.",
            code="yin-yang-times",
        )
    values = np.concatenate([points, 1 - points, np.zeros((len(points), 1))], axis=1)
    return (t_early + values * (t_late - t_early))[..., None]
