"""Images as events: rate and latency codes."""

from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EVENT_DTYPE, EventArray
from neurodeploy.events.dataset import check_sensor_size
from neurodeploy.events.raster import count_steps, raster_to_events


def rate_encode(
    image: ArrayLike,
    *,
    duration_us: int,
    dt_us: int,
    rng: np.random.Generator,
    max_rate_hz: float,
    process: Literal["bernoulli", "poisson"] = "bernoulli",
) -> EventArray:
    """Encode brightness as firing rate: a pixel of value v fires at ``v * max_rate_hz`` on average.

    Args:
        image: ``[C, H, W]``, values in 0..1. The channel becomes ``p``.
        duration_us: length of the recording in microseconds, rounded up to whole steps.
        dt_us: time step in microseconds; all events lie at the start of their step.
        rng: source of randomness; the same generator state gives the same events.
        max_rate_hz: rate of a pixel of value 1.
        process: ``"bernoulli"``: at most one event per pixel and step, with probability ``rate * dt`` (which must not
            exceed 1). ``"poisson"``: a Poisson count per pixel and step.

    Raises:
        EventError: image not ``[C, H, W]`` in 0..1, a duration or rate below 0, or a Bernoulli probability above 1.
    """
    values = _checked_image(image)
    steps = count_steps(duration_us, dt_us)
    expected = values * (max_rate_hz * dt_us * 1e-6)
    if not (isfinite(max_rate_hz) and max_rate_hz >= 0) or process not in ("bernoulli", "poisson"):
        raise EventError(
            f"rate_encode: max_rate_hz = {max_rate_hz}, process = {process!r}.",
            remedy="give a finite rate of at least 0 and process 'bernoulli' or 'poisson'.",
            code="encode-argument",
        )
    if process == "poisson":
        return raster_to_events(rng.poisson(expected, (steps, *values.shape)), dt_us=dt_us)
    if values.size and float(expected.max()) > 1:
        raise EventError(
            f"rate_encode: the probability of an event per step reaches {float(expected.max()):.3g}, above 1.",
            remedy=f"lower max_rate_hz to {1e6 / dt_us:g} or less, shorten dt_us, or use process='poisson'.",
            code="encode-probability",
        )
    return raster_to_events(rng.random((steps, *values.shape)) < expected, dt_us=dt_us)


def latency_encode(image: ArrayLike, *, duration_us: int, dt_us: int, silent_below: float = 0.0) -> EventArray:
    """Encode brightness as time to the first and only spike: value 1 fires in step 0, a value near 0 in the last step.

    The step is ``round((1 - v) * (steps - 1))`` (half to even).

    Args:
        image: ``[C, H, W]``, values in 0..1. The channel becomes ``p``.
        duration_us: length of the recording in microseconds, rounded up to whole steps.
        dt_us: time step in microseconds.
        silent_below: pixels of this value or less never fire.

    Raises:
        EventError: image not ``[C, H, W]`` in 0..1, or no time step.
    """
    values = _checked_image(image)
    steps = count_steps(duration_us, dt_us)
    if steps < 1:
        raise EventError(
            f"latency_encode: duration_us = {duration_us} holds no time step.",
            remedy="give a positive duration.",
            code="encode-argument",
        )
    p, y, x = np.nonzero(values > silent_below)
    t = np.rint((1.0 - values[p, y, x]) * (steps - 1)).astype(np.int64) * int(dt_us)
    events = np.empty(t.size, EVENT_DTYPE)
    order = np.argsort(t, kind="stable")
    for name, column in (("t", t), ("x", x), ("y", y), ("p", p)):
        events[name] = column[order]
    return events


def _checked_image(image: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(image, np.float64)
    if values.ndim != 3:
        raise EventError(
            f"an image to encode has the axes (C, H, W), this one has shape {values.shape}.",
            remedy="add the channel axis with image[None] for a grey image.",
            code="encode-shape",
        )
    check_sensor_size(values.shape, "image")
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise EventError(
            f"an image to encode has values in 0..1, this one spans {values.min():g}..{values.max():g}.",
            remedy="divide an 8-bit image by 255; shift a normalised one back.",
            code="encode-range",
        )
    return values
