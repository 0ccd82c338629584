"""A simulated event camera: log-intensity threshold crossings of an image that moves across the sensor.

Each pixel keeps a reference level. When the logarithm of its intensity has risen by the ON threshold above the
reference (or fallen by the OFF threshold below), it emits an event and moves the reference by that threshold
(Lichtsteiner et al. 2008, doi 10.1109/JSSC.2007.914337). Between two samples the log intensity is taken as linear in
time, which gives each crossing its own time stamp (Rebecq et al. 2018, "ESIM").

Results do not depend on the machine, nor on how many images are recorded together: positions are rounded to 1/64
pixel, the bilinear shift is integer arithmetic, the logarithm is a table, and each recording has its own random stream.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.dataset import EventDataset
from neurodeploy.events.saccade import SaccadePath

_SUBPIXELS = 64
_INTENSITY_BITS = 14
_CHUNK = 64  # images per pass: their planes stay in the cache


@dataclass(frozen=True)
class EventCamera:
    """A sensor of ``height x width`` pixels with two polarities (channel 1 = ON, brighter).

    The defaults are set so that MNIST digits give recordings like N-MNIST's (event count, ON share, timing).

    Attributes:
        height, width: pixels; a smaller image sits in the middle.
        threshold_on, threshold_off: rise and fall of the natural log intensity that make one event.
        threshold_mismatch: standard deviation of each pixel's thresholds, as a fraction; fixed by ``seed``.
        dark_level: intensity of a black pixel when white is 1; it limits the contrast.
        refractory_us: time after an event in which a pixel's further crossings are lost, in microseconds.
        noise_rate_hz: rate of spontaneous events per pixel.
        sample_us: time between two samples of the moving image, in microseconds.
        seed: of the pixel mismatch, i.e. which camera this is.
    """

    height: int = 34
    width: int = 34
    threshold_on: float = 0.4
    threshold_off: float = 0.4
    threshold_mismatch: float = 0.1
    dark_level: float = 0.1
    refractory_us: int = 1_000
    noise_rate_hz: float = 0.2
    sample_us: int = 2_000
    seed: int = 0
    path: SaccadePath = field(default_factory=SaccadePath)

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)} ({rule})"
            for name, rule, holds in (
                ("height", "1..2048", 1 <= self.height <= 2048),
                ("width", "1..2048", 1 <= self.width <= 2048),
                ("threshold_on", "above 0", self.threshold_on > 0),
                ("threshold_off", "above 0", self.threshold_off > 0),
                ("threshold_mismatch", "0..0.2", 0 <= self.threshold_mismatch <= 0.2),
                ("dark_level", "0.001..1", 0.001 <= self.dark_level <= 1),
                ("refractory_us", "at least 0", self.refractory_us >= 0),
                ("noise_rate_hz", "at least 0", self.noise_rate_hz >= 0),
                ("sample_us", "at least 1", self.sample_us >= 1),
            )
            if not holds
        ]
        if wrong:
            raise EventError(
                f"event camera: {', '.join(wrong)}.", remedy="correct these settings.", code="camera-settings"
            )

    @property
    def sensor_size(self) -> tuple[int, int, int]:
        """``(2, height, width)``."""
        return 2, self.height, self.width

    def record(self, images: ArrayLike, labels: ArrayLike, *, seed: int) -> EventDataset:
        """Record each image while the camera walks its path once.

        Args:
            images: uint8 ``[n, h, w]``, not larger than the sensor; 255 is white. Outside the image it is black.
            labels: class of each image; shape ``[n]``.
            seed: of the spontaneous events; recording i uses the stream ``(seed, i)``.

        Raises:
            EventError: images of another type or rank, larger than the sensor, or a number of labels that differs.
        """
        pictures = np.asarray(images)
        if pictures.ndim != 3 or pictures.dtype != np.uint8:
            raise EventError(
                f"event camera: images must be uint8 [n, height, width], they are {pictures.dtype} {pictures.shape}.",
                remedy="scale grey images to 0..255 and convert with .astype('uint8').",
                code="camera-images",
            )
        if pictures.shape[1] > self.height or pictures.shape[2] > self.width:
            raise EventError(
                f"event camera: images of {pictures.shape[1]}x{pictures.shape[2]} do not fit the sensor of "
                f"{self.height}x{self.width} (height x width).",
                remedy="use a larger sensor or smaller images.",
                code="camera-images",
            )
        n = pictures.shape[0]
        parts = [self._record_chunk(pictures[i : i + _CHUNK], seed, i) for i in range(0, n, _CHUNK)]
        counts = np.concatenate([part[2] for part in parts]) if parts else np.empty(0, np.int64)
        t = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.uint32)
        cell = np.concatenate([part[1] for part in parts]) if parts else np.empty(0, np.uint32)
        pixel, p = np.divmod(cell, np.uint32(2))
        y, x = np.divmod(pixel, np.uint32(self.width))
        return EventDataset(
            t=t,
            x=x.astype(np.min_scalar_type(self.width - 1)),
            y=y.astype(np.min_scalar_type(self.height - 1)),
            p=p.astype(np.uint8),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            labels=np.asarray(labels),
            sensor_size=self.sensor_size,
            duration_us=self.path.duration_us,
            source="simulated event camera",
        )

    def _record_chunk(
        self, images: NDArray[np.uint8], seed: int, first: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int64]]:
        """Record a few images: times and cells (``2 * pixel + polarity``), sorted recording by recording; counts."""
        n, pixels, duration = images.shape[0], self.height * self.width, self.path.duration_us
        scene = _Scene(images, self)
        theta_on, theta_off = self._thresholds()
        times = np.append(np.arange(0, duration, self.sample_us), duration)
        shifts = np.rint(self.path.position(times) * _SUBPIXELS).astype(np.int64)

        level = scene.log_intensity(shifts[0])
        reference = level.copy()
        last_event = np.full(n * pixels, -self.refractory_us - 1, np.int64)
        keys: list[NDArray[np.int64]] = []
        for k in range(1, times.size):
            if np.array_equal(shifts[k], shifts[k - 1]):
                continue
            previous, level = level, scene.log_intensity(shifts[k])
            rise = level - reference
            for on, theta in ((True, theta_on), (False, theta_off)):
                # Pixels with at least one crossing; then their second, third, ... crossing until none is left.
                active = np.flatnonzero(rise >= theta) if on else np.flatnonzero(rise <= -theta)
                while active.size:
                    pixel = active % pixels
                    step = theta[pixel] if on else -theta[pixel]
                    reference.reshape(-1)[active] += step
                    crossed = reference.reshape(-1)[active]
                    start, end = previous.reshape(-1)[active], level.reshape(-1)[active]
                    span = int(times[k] - times[k - 1])
                    # A reference already passed by the previous sample (after a change of sign) crosses at once.
                    part = np.clip((crossed - start) / (end - start), 0.0, 1.0)
                    t = times[k - 1] + np.minimum((part * span).astype(np.int64), span - 1)
                    seen = t - last_event[active] > self.refractory_us
                    last_event[active[seen]] = t[seen]
                    keys.append(_key(active[seen] // pixels, t[seen], pixel[seen], on))
                    left = end - crossed
                    active = active[(left >= theta[pixel]) if on else (left <= -theta[pixel])]
        if self.noise_rate_hz > 0:
            keys += [self._noise(seed, first + i, i) for i in range(n)]
        joined = np.sort(np.concatenate(keys)) if keys else np.empty(0, np.int64)
        recording, rest = np.divmod(joined, np.int64(1) << 56)
        t, cell = np.divmod(rest, np.int64(1) << 24)
        return t.astype(np.uint32), cell.astype(np.uint32), np.bincount(recording, minlength=n).astype(np.int64)

    def _noise(self, seed: int, stream: int, i: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([seed, stream])
        pixels = self.height * self.width
        count = int(rng.poisson(self.noise_rate_hz * pixels * self.path.duration_us * 1e-6))
        t = rng.integers(0, self.path.duration_us, count)
        cell = rng.integers(0, 2 * pixels, count)
        return _key(np.full(count, i), t, cell // 2, cell % 2)

    def _thresholds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ON and OFF threshold of each pixel, ``[height * width]``; cut at 4 standard deviations (so above 0)."""
        spread = np.random.default_rng(self.seed).standard_normal((2, self.height * self.width))
        factor = 1.0 + self.threshold_mismatch * np.clip(spread, -4.0, 4.0)
        return (self.threshold_on * factor[0]).astype(np.float32), (self.threshold_off * factor[1]).astype(np.float32)


class _Scene:
    """The images on a dark background, ready to be shifted by any sub-pixel offset of the path."""

    def __init__(self, images: NDArray[np.uint8], camera: EventCamera) -> None:
        self.margin = int(np.ceil(np.abs(np.asarray(camera.path.corners)).max())) + 1
        self.height, self.width = camera.height, camera.width
        n, h, w = images.shape
        top, left = self.margin + (camera.height - h) // 2, self.margin + (camera.width - w) // 2
        self.canvas = np.zeros((n, camera.height + 2 * self.margin, camera.width + 2 * self.margin), np.int32)
        self.canvas[:, top : top + h, left : left + w] = images
        # Four bilinear weights sum to 64 * 64; the lowest bits of the product go beyond what the table resolves.
        self.shift = int(255 * _SUBPIXELS * _SUBPIXELS).bit_length() - _INTENSITY_BITS
        intensity = np.arange((255 * _SUBPIXELS * _SUBPIXELS >> self.shift) + 1) / (
            255 * _SUBPIXELS * _SUBPIXELS >> self.shift
        )
        self.log_table = np.log(camera.dark_level + (1.0 - camera.dark_level) * intensity).astype(np.float32)

    def log_intensity(self, shift: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log intensity with the images moved by ``shift / 64`` pixels ``(dx, dy)``; ``[n, height * width]``."""
        (x, fx), (y, fy) = (divmod(int(-s), _SUBPIXELS) for s in shift)
        rows = self.canvas[:, self.margin + y : self.margin + y + self.height + 1]
        left = self.margin + x
        across = rows[:, :, left : left + self.width] * np.int32(_SUBPIXELS - fx)
        across += rows[:, :, left + 1 : left + 1 + self.width] * np.int32(fx)
        value = across[:, :-1] * np.int32(_SUBPIXELS - fy)
        value += across[:, 1:] * np.int32(fy)
        value >>= self.shift
        levels: NDArray[np.float32] = self.log_table[value].reshape(value.shape[0], -1)
        return levels


def _key(
    recording: NDArray[np.int64], t_us: NDArray[np.int64], pixel: NDArray[np.int64], on: bool | NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pack events so that sorting the integers sorts by recording, time, pixel, polarity: 7, 32, 23 and 1 bits."""
    return np.asarray((recording << 56) | (t_us << 24) | (pixel << 1) | on, np.int64)
