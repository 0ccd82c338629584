"""Weights and training state as safetensors: plain numbers and a JSON header, never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from neurodeploy.errors import TrainError
from neurodeploy.files import canonical_json, replacing

# One metadata key: safetensors writes several in random order, and equal runs must give equal bytes.
_KEY = "neurodeploy"


@dataclass(frozen=True)
class Position:
    """Where in a run the tensors were taken.

    Attributes:
        epoch: finished epochs.
        config_sha256: hash of the configuration.
        data_sha256: hashes of the train and test recordings.
    """

    epoch: int
    config_sha256: str
    data_sha256: dict[str, str]


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], position: Position) -> None:
    """Write tensors and position, all or nothing; equal values give equal bytes.

    Tensors may share memory (tied weights): each is written out.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    header = {"position": asdict(position), "sha256": digest(plain)}
    data = save(plain, metadata={_KEY: canonical_json(header)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], Position]:
    """Read what ``save_tensors`` wrote.

    Raises:
        TrainError: no such file, damaged, or not written by neurodeploy.
    """
    if not path.is_file():
        raise TrainError(f"{path}: no such file.", remedy="train first.", code="weights-missing")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_KEY])
            position = Position(**header["position"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header["sha256"] != digest(tensors):
                raise ValueError("its tensors are not those that were written")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainError(
            f"{path}: is damaged or was not written by neurodeploy ({error}).",
            remedy="remove it, or copy it again.",
            code="weights-damaged",
        ) from error
    return tensors, position


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        result.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def tensors_under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def checkpoint_path(run: Path, epoch: int) -> Path:
    """Path of the checkpoint after ``epoch`` finished epochs."""
    return run / "checkpoints" / f"epoch-{epoch:04d}.safetensors"


def latest_checkpoint(run: Path) -> Path | None:
    """Newest checkpoint of a run folder."""
    # Numbers above 9999 are longer, and later.
    return max(
        (run / "checkpoints").glob("epoch-*.safetensors"), key=lambda path: (len(path.name), path.name), default=None
    )
