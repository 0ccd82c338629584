"""Where a network is trained: the CPU, or a GPU whose results are the same each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neurodeploy.errors import TrainError


def chosen_device(name: str) -> torch.device:
    """The device of the setting ``device``; of ``cuda``, each process of a machine takes the next one.

    Raises:
        TrainError: there is no such GPU here.
    """
    device = torch.device(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0 or (device.index or 0) >= count:
        found = f"has {count} (cuda:0 to cuda:{count - 1})" if count else "has no GPU that torch can use"
        raise TrainError(
            f"device: {name} was asked for, and this machine {found}.",
            remedy="set device: cpu, or install a torch with CUDA on a machine with a GPU.",
            code="train-device",
        )
    return device if device.index is not None else torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % count)


def device_of(network: torch.nn.Module) -> torch.device:
    """Where a network's weights are; the CPU if it has none."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Algorithms inside give the same bits each time, and full float32 on a GPU; the caller's settings after."""
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    convolutions = torch.backends.cudnn.allow_tf32
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; torch insists on it
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.backends.cudnn.allow_tf32 = convolutions
