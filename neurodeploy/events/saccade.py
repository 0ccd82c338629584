"""The path of an image across the sensor while the camera makes saccades."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.errors import EventError


@dataclass(frozen=True)
class SaccadePath:
    """A closed polygon, walked corner to corner; the default is the triangle of the N-MNIST recordings.

    N-MNIST (Orchard et al. 2015, doi 10.3389/fnins.2015.00437) pans the camera three times for about 100 ms. The
    corners and the timing below were measured by registering the events of N-MNIST recordings with the digits they
    show: the image moves for about 80 ms of every 100 ms, slow-fast-slow, and then rests.

    Attributes:
        corners: ``(dx, dy)`` of the image in pixels at the start of each saccade; the last leads back to the first.
        saccade_us: length of one saccade with its rest, in microseconds.
        rest_us: time without motion at the start and at the end of each saccade, in microseconds each.
    """

    corners: tuple[tuple[float, float], ...] = ((-2.9, -1.9), (-0.95, 3.5), (2.8, -1.9))
    saccade_us: int = 100_000
    rest_us: int = 8_000

    def __post_init__(self) -> None:
        if len(self.corners) < 2 or self.saccade_us < 1 or not 0 <= 2 * self.rest_us < self.saccade_us:
            raise EventError(
                f"saccade path: {len(self.corners)} corners, {self.saccade_us} us per saccade, {self.rest_us} us "
                "rest at each end.",
                remedy="give at least 2 corners and a rest shorter than half a saccade.",
                code="saccade-path",
            )

    @property
    def duration_us(self) -> int:
        """Length of the whole path in microseconds."""
        return len(self.corners) * self.saccade_us

    def position(self, t_us: ArrayLike) -> NDArray[np.float64]:
        """Return the offset ``(dx, dy)`` in pixels at the times ``t_us``; shape ``[..., 2]``.

        The motion along an edge is the minimum-jerk curve ``10 u^3 - 15 u^4 + 6 u^5`` (Flash & Hogan 1985).
        """
        t = np.clip(np.asarray(t_us, np.float64), 0, self.duration_us)
        corners = np.asarray(self.corners, np.float64)
        edge = np.minimum((t // self.saccade_us).astype(np.int64), len(corners) - 1)
        moving = self.saccade_us - 2 * self.rest_us
        u = np.clip((t - edge * self.saccade_us - self.rest_us) / moving, 0.0, 1.0)
        walked = (u * u * u * (10.0 + u * (6.0 * u - 15.0)))[..., None]
        start, end = corners[edge], corners[(edge + 1) % len(corners)]
        return np.asarray(start + (end - start) * walked)
