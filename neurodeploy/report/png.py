"""A PNG picture from an array, with nothing but the standard library."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Encode ``pixels`` (uint8 ``[H, W, 3]``, red green blue) as PNG (ISO/IEC 15948)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row starts with its filter type: 0, none
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """The picture as a ``data:`` address for an ``img`` element."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode("ascii")


def raster_picture(
    t_us: NDArray[Any], row: NDArray[Any], rows: int, *, t_start_us: int, t_end_us: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Spikes as dots: time runs to the right, one neuron (or several, where there are more than pixels) per line.

    Args:
        t_us: spike times in microseconds, ``[n]``.
        row: line of each spike, ``[n]``, 0 is the top.
        rows: number of lines.
        t_start_us, t_end_us: the span shown.
        size: ``(height, width)`` in pixels; fewer lines than pixels are scaled up by whole factors.

    Returns:
        uint8 ``[H, W, 3]``; the more spikes fall on one pixel, the darker it is.
    """
    height, width = size
    lines = min(rows, height)
    column = (t_us - t_start_us) * width // max(t_end_us - t_start_us, 1)
    line = row * lines // rows
    inside = (column >= 0) & (column < width)
    hits = np.bincount(line[inside] * width + column[inside], minlength=lines * width).reshape(lines, width)
    scale = max(1, height // lines)
    hits = np.repeat(hits, scale, axis=0)
    # One spike is already clearly visible; more of them approach full ink.
    ink = np.where(hits > 0, 1 - 0.45 / np.maximum(hits, 1), 0.0)[..., None]
    paper, dot = np.array([255, 255, 255]), np.array([22, 58, 107])
    pixels: NDArray[np.uint8] = np.round(paper + ink * (dot - paper)).astype(np.uint8)
    return pixels
