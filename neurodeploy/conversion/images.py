"""Labelled images from files, and as recordings that are encoded when they are read."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.array import EventArray
from neurodeploy.events.dataset import read_npz
from neurodeploy.events.encode import latency_encode, rate_encode

Code = Literal["rate", "latency"]


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        images: ``[images, C, H, W]``, float32 in 0..1; may be given as uint8 in 0..255, or without the channel axis.
        labels: class of each, int64 ``[images]``.
        source: where they came from, for messages.

    Raises:
        EventError: another shape or type, values outside the range, or another number of labels.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    source: str = "images"

    def __post_init__(self) -> None:
        images: NDArray[Any] = np.asarray(self.images)
        labels = np.asarray(self.labels)
        if images.ndim == 3:
            images = images[:, None]
        if images.ndim != 4 or labels.shape != images.shape[:1] or not len(images):
            raise EventError(
                f"{self.source}: images of shape {images.shape} with labels of shape {labels.shape}.",
                remedy="give images [N, C, H, W] (or [N, H, W]) and one label for each, at least one.",
                code="images-shape",
            )
        if images.dtype == np.uint8:
            images = images / np.float32(255)
        elif images.dtype.kind != "f" or not bool(((images >= 0) & (images <= 1)).all()):
            raise EventError(
                f"{self.source}: images are {images.dtype} in {images.min():g}..{images.max():g}.",
                remedy="give uint8 in 0..255, or floats in 0..1.",
                code="images-range",
            )
        object.__setattr__(self, "images", images.astype(np.float32))
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "Images":
        return Images(self.images[part], self.labels[part], self.source)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        c, h, w = self.images.shape[1:]
        return c, h, w


@dataclass(frozen=True)
class Coding:
    """How images become events.

    Attributes:
        code: "rate": a pixel of brightness v fires ``v * max_rate_hz`` times a second on average; "latency": once, the
            earlier the brighter, and not at all up to a brightness of ``silent_below``.
        duration_us: how long an image is shown.
        dt_us: time step; all events lie at the start of their step.
        max_rate_hz: rate of a pixel of brightness 1 (rate code only).
        silent_below: see above (latency code only).
        seed: of the rate code; image i is encoded the same in every run.

    Raises:
        EventError: another code, or a time below 1 us; the first image that is encoded says what else cannot be.
    """

    code: Code = "rate"
    duration_us: int = 200_000
    dt_us: int = 1000
    max_rate_hz: float = 500.0
    silent_below: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.code not in ("rate", "latency"):
            raise EventError(f"the code is {self.code!r}.", remedy="choose 'rate' or 'latency'.", code="image-code")
        if min(self.duration_us, self.dt_us) < 1:
            raise EventError(
                f"an image is shown for {self.duration_us} us in steps of {self.dt_us} us.",
                remedy="give at least 1 us for both, e.g. duration_us=200_000 and dt_us=1000.",
                code="image-code",
            )

    @property
    def steps(self) -> int:
        """Time steps an image is shown."""
        return -(-self.duration_us // self.dt_us)

    @property
    def spikes_per_step(self) -> float:
        """Events a pixel of brightness 1 gives in a step, on average over the time an image is shown."""
        return self.max_rate_hz * self.dt_us * 1e-6 if self.code == "rate" else 1 / self.steps


@dataclass(frozen=True)
class EncodedImages:
    """Images as recordings: ``recordings[i]`` is ``(events, label)``, encoded when it is asked for."""

    images: Images
    coding: Coding

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[EventArray, int]:
        coding, values = self.coding, self.images.images[index]
        if coding.code == "latency":
            events = latency_encode(
                values, duration_us=coding.duration_us, dt_us=coding.dt_us, silent_below=coding.silent_below
            )
        else:
            events = rate_encode(
                values,
                duration_us=coding.duration_us,
                dt_us=coding.dt_us,
                max_rate_hz=coding.max_rate_hz,
                rng=np.random.default_rng((coding.seed, index)),
            )
        return events, int(self.images.labels[index])


def load_images(images: str | Path, labels: str | Path | None = None) -> Images:
    """Read labelled images.

    Args:
        images: ``.npz`` with ``images`` and ``labels``, or an IDX file (``...-idx3-ubyte``, also ``.gz``), the format
            of MNIST.
        labels: the IDX file of the labels; not for ``.npz``.

    Raises:
        EventError: a file is missing, damaged, or of another format.
    """
    path = Path(images)
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if not {"images", "labels"} <= set(arrays):
            raise EventError(
                f"{path}: needs the arrays images and labels; it holds {', '.join(sorted(arrays)) or 'nothing'}.",
                remedy="write it with np.savez(path, images=..., labels=...).",
                code="images-file",
            )
        return Images(arrays["images"], arrays["labels"], str(path))
    if labels is None:
        raise EventError(
            f"{path}: an IDX file holds no labels.", remedy="name their file too (--labels).", code="images-file"
        )
    return Images(
        (_read_idx(path, 3) / np.float32(255)).astype(np.float32),
        _read_idx(Path(labels), 1).astype(np.int64),
        str(path),
    )


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """IDX (yann.lecun.com/exdb/mnist): magic 0, 0, type 8, dimensions; sizes as big-endian uint32; then the bytes."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        if data[:4] != bytes((0, 0, 8, dimensions)):
            raise ValueError(f"starts with {data[:4].hex()}, not with 000008{dimensions:02x}")
        sizes = np.frombuffer(data, ">u4", dimensions, 4).astype(int)
        values = np.frombuffer(data, np.uint8, -1, 4 + 4 * dimensions)
        if values.size != sizes.prod():
            raise ValueError(f"holds {values.size} values, its header says {tuple(sizes)}")
        return values.reshape(sizes)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise EventError(
            f"{path}: not an IDX file of {dimensions} dimensions: {error}.",
            remedy="give an .npz file with images and labels, or the two files of MNIST.",
            code="images-file",
        ) from error
