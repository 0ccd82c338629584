"""A task small enough to learn in seconds: which of three blinking columns is it?"""

import os
import signal
from pathlib import Path

import numpy as np
import torch

from neurodeploy import nn
from neurodeploy.errors import TrainError
from neurodeploy.events import EventDataset, make_events, save_npz
from neurodeploy.train import TrainConfig, parse_config

SIZE = (1, 6, 6)


def recordings(n: int, seed: int) -> EventDataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    events = []
    for label in labels:
        t = np.sort(rng.integers(0, 5000, 40))
        x = np.where(rng.random(40) < 0.6, 2 * label, rng.integers(0, 6, 40))
        events.append(make_events(t, x, rng.integers(0, 6, 40), np.zeros(40, np.int64)))
    return EventDataset.from_recordings(events, labels, sensor_size=SIZE, duration_us=5000)


def toy_config(folder: Path, **changes: object) -> TrainConfig:
    """Write the data once and return a configuration; ``changes`` replace whole top-level settings."""
    folder.mkdir(exist_ok=True)
    if not (folder / "test.npz").exists():
        save_npz(folder / "train.npz", recordings(60, 0))
        save_npz(folder / "test.npz", recordings(30, 1))
    settings: dict[str, object] = {
        "data": {"source": "npz", "train": "train.npz", "test": "test.npz", "dt_us": 1000},
        "network": {
            "layers": [
                {"type": "conv", "features": 4, "kernel": 3},
                {"type": "iaf", "v_min": -1.0},
                {"type": "sum_pool", "kernel": 2},
                {"type": "dropout", "p": 0.2},
                {"type": "linear", "features": 3},
                {"type": "iaf"},
            ]
        },
        "optimizer": {"type": "adam", "lr": 0.02, "warmup": 0.1, "schedule": "cosine"},
        "epochs": 4,
        "batch_size": 16,
    }
    return parse_config(settings | changes, folder=folder)


class KilledAfter(torch.nn.Sequential):
    """Kills its process, as a power cut would, in the forward pass whose number the environment names."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        KilledAfter.calls += 1
        if KilledAfter.calls == int(os.environ.get("TOY_KILL_AT_CALL", "-1")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def mortal(input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int, features: int = 4) -> torch.nn.Module:
    channels, height, width = input_shape
    return KilledAfter(
        torch.nn.Conv2d(channels, features, 3, bias=False),
        nn.IAF(num_timesteps=n_time_steps),
        torch.nn.Dropout(0.1),
        torch.nn.Flatten(),
        torch.nn.Linear(features * (height - 2) * (width - 2), n_classes, bias=False),
        nn.IAF(num_timesteps=n_time_steps),
    )


def tied(input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int, stateful: bool) -> torch.nn.Module:
    """Two spiking layers with one learnt threshold; one learns its time constant."""
    channels, height, width = input_shape
    threshold = torch.nn.Parameter(torch.tensor(1.0))
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 3, 3, bias=False),
        nn.IAF(threshold=threshold, num_timesteps=n_time_steps, stateful=stateful),
        torch.nn.Dropout(0.1),
        torch.nn.Flatten(),
        torch.nn.Linear(3 * (height - 2) * (width - 2), n_classes, bias=False),
        nn.LIF(4.0, learn_tau=True, threshold=threshold, num_timesteps=n_time_steps, stateful=stateful),
    )


def odd_output(input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int, shape: str) -> torch.nn.Module:
    """Maps where vectors are expected, or fewer outputs than classes."""
    neurons = nn.IAF(num_timesteps=n_time_steps)
    if shape == "maps":
        return torch.nn.Sequential(torch.nn.Conv2d(input_shape[0], n_classes, 6), neurons)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(n_classes - 1), neurons)


class FailsAfter(torch.nn.Sequential):
    """Raises an error in one process, in the forward pass whose number the environment names."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        FailsAfter.calls += 1
        here = os.environ.get("RANK") == os.environ.get("TOY_FAIL_IN_RANK", "none")
        if here and FailsAfter.calls == int(os.environ["TOY_FAIL_AT_CALL"]):
            raise TrainError("the toy broke.", remedy="buy another.", code="toy")
        return super().forward(x)


def fragile(input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int) -> torch.nn.Module:
    return FailsAfter(*mortal(input_shape, n_time_steps, n_classes))


def normalized(input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.BatchNorm2d(input_shape[0]), *mortal(input_shape, n_time_steps, n_classes))
