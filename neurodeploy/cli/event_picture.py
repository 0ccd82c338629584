"""A picture of a recording: ON and OFF events of each pixel, and its columns over time."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from neurodeploy.events.array import EventArray
from neurodeploy.events.info import RecordingInfo

_PAPER = np.array([255.0, 255.0, 255.0])
_ON = np.array([196.0, 58.0, 22.0])
_OFF = np.array([22.0, 78.0, 160.0])
_FRAME = np.array([210, 210, 210], np.uint8)
_PANEL = 480  # pixels of a panel's longer side, about
_MARGIN = 12


def event_picture(pieces: Iterable[EventArray], info: RecordingInfo) -> NDArray[np.uint8]:
    """Draw a recording.

    Top left: ON events of each pixel; top right: OFF events; below: the column (x, 0 at the top) of each event over
    time, which runs from the first event to the last. ON is red, OFF is blue; ink grows with the log of the count.

    Args:
        pieces: the events, piece by piece.
        info: of the same recording.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    height, width = info.sensor_size or info.extent[1:]
    height, width = max(height, info.extent[1], 1), max(width, info.extent[2], 1)
    shrink = max(1, -(-max(height, width) // _PANEL))
    rows, columns = -(-height // shrink), -(-width // shrink)
    grow = max(1, _PANEL // max(rows, columns))
    wide = 2 * columns * grow + _MARGIN
    span = max(info.end_us - info.start_us + 1, 1)
    pixels = np.zeros((2, rows * columns), np.int64)
    raster = np.zeros((2, columns * wide), np.int64)
    for piece in pieces:
        x, y = piece["x"].astype(np.int64) // shrink, piece["y"].astype(np.int64) // shrink
        moment = ((piece["t"] - info.start_us) * (wide / span)).astype(np.int64)
        for channel, chosen in enumerate((piece["p"] == 0, piece["p"] != 0)):
            pixels[channel] += np.bincount((y * columns + x)[chosen], minlength=rows * columns)
            raster[channel] += np.bincount((x * wide + moment)[chosen], minlength=columns * wide)
    off, on = pixels.reshape(2, rows, columns)
    nothing = np.zeros_like(on)
    lines = raster.reshape(2, columns, wide)
    top = [_enlarged(_ink(on, nothing), grow, grow), _enlarged(_ink(nothing, off), grow, grow)]
    below = _enlarged(_ink(lines[1], lines[0]), max(1, _PANEL // 2 // columns), 1)
    canvas = np.empty((rows * grow + below.shape[0] + 3 * _MARGIN, wide + 2 * _MARGIN, 3), np.uint8)
    canvas[:] = _FRAME
    first, second, third = _MARGIN, 2 * _MARGIN + columns * grow, 2 * _MARGIN + rows * grow
    canvas[_MARGIN : _MARGIN + rows * grow, first : first + columns * grow] = top[0]
    canvas[_MARGIN : _MARGIN + rows * grow, second : second + columns * grow] = top[1]
    canvas[third : third + below.shape[0], first : first + wide] = below
    return canvas


def _enlarged(picture: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint8]:
    return picture.repeat(down, axis=0).repeat(across, axis=1)


def _ink(on: NDArray[np.int64], off: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Colour of each cell: the share of ON gives the hue, the number of events the strength."""
    total = on + off
    used = total[total > 0]
    full = max(float(np.quantile(used, 0.995)) if used.size else 1.0, 1.0)  # a hot pixel does not pale the rest
    strength = np.minimum(np.log1p(total) / np.log1p(full), 1.0)
    strength = np.where(total > 0, 0.25 + 0.75 * strength, 0.0)[..., None]  # a single event is visible
    share = (on / np.maximum(total, 1))[..., None]
    ink = share * _ON + (1 - share) * _OFF
    coloured: NDArray[np.uint8] = np.round(_PAPER + strength * (ink - _PAPER)).astype(np.uint8)
    return coloured
