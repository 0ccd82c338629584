"""The event data of a training run: loading, batches, and the order they come in."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neurodeploy.errors import TrainError
from neurodeploy.events import EventDataset, dataset_to_raster, load_npz, simulate_digit_events
from neurodeploy.events.raster import count_steps
from neurodeploy.train.config import DigitsData, NpzData

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainData:
    """Train and test recordings of one sensor, and the grid they are rastered on."""

    train: EventDataset
    test: EventDataset
    dt_us: int
    n_time_steps: int

    @property
    def n_classes(self) -> int:
        """One more than the largest label of both sets."""
        return max(self.train.n_classes, self.test.n_classes)

    def digests(self) -> dict[str, str]:
        """SHA-256 of both sets."""
        return {"train": self.train.digest(), "test": self.test.digest()}


def load_data(config: DigitsData | NpzData) -> TrainData:
    """Simulate or read both sets.

    Raises:
        EventError: a file that cannot be read, or no digits installed.
        TrainError: sets of different sensors, or one without recordings.
    """
    if isinstance(config, DigitsData):
        train, test = simulate_digit_events(config.n_train, config.n_test, seed=config.seed)
    else:
        train, test = (load_npz(path, sensor_size=config.sensor_size) for path in (config.train, config.test))
    if train.sensor_size != test.sensor_size:
        raise TrainError(
            f"{train.source} has a sensor of {train.sensor_size}, {test.source} one of {test.sensor_size} "
            "(channels, height, width).",
            remedy="train and test on recordings of one sensor.",
            code="train-sensor",
        )
    for data in (train, test):
        if not len(data):
            raise TrainError(f"{data.source} holds no recordings.", remedy="give a filled set.", code="train-empty")
    if config.duration_us is not None:
        train, test = train.until(config.duration_us), test.until(config.duration_us)
    steps = count_steps(max(train.duration_us, test.duration_us), config.dt_us)
    return TrainData(train, test, config.dt_us, steps)


def batch_indices(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Split recordings into batches, in the given order; the last may be smaller."""
    return [order[start : start + batch_size] for start in range(0, order.size, batch_size)]


def load_batch(
    data: TrainData, which: EventDataset, chosen: NDArray[np.int64], device: torch.device = CPU
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rasters float32 ``[B * T, C, H, W]`` and labels int64 ``[B]`` of the chosen recordings, on ``device``."""
    raster = dataset_to_raster(which, chosen, dt_us=data.dt_us, n_time_steps=data.n_time_steps)
    return torch.from_numpy(raster).to(device).flatten(0, 1), torch.from_numpy(which.labels[chosen]).to(device)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch's recordings: a function of (seed, epoch), so that a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(n)
