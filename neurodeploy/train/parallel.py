"""Several processes that train one network, started by ``torchrun``: who they are and how they agree."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from neurodeploy.errors import NeurodeployError, TrainError, WorkerStoppedError

#: Seconds for which a process that stops lets the first one speak: torchrun ends all as soon as one has ended.
_GRACE_S = 1.0


@dataclass(frozen=True)
class Processes:
    """The processes of a run and which of them this is.

    All methods are collective: every process calls them, in the same order. With one process they do nothing.

    Attributes:
        rank: 0, 1, ..., size - 1; the process of rank 0 writes files and speaks to the user.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values (JSON-ready) of all processes, in order of rank.

        Raises:
            TrainError: a process has ended.
        """
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _connection():
            dist.all_gather(lengths, torch.tensor([len(data)]))
            longest = max(int(length) for length in lengths)
            padded = torch.cat([data, torch.zeros(longest - len(data), dtype=torch.uint8)])
            received = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(received, padded)
        return [
            json.loads(bytes(block[: int(length)].numpy())) for block, length in zip(received, lengths, strict=True)
        ]

    def gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in order of rank: ``[n, m]`` on each becomes ``[size * n, m]``.

        Raises:
            TrainError: a process has ended.
        """
        if self.size == 1:
            return rows
        sent = rows.cpu()
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        with _connection():
            dist.all_gather(parts, sent)
        return torch.cat(parts).to(rows.device)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done inside succeeds in every process or raises in all; nothing inside may be collective.

        Raises:
            TrainError: in a process where it succeeded, when it failed in another. All but the first process raise a
                ``WorkerStoppedError``, also for errors of their own that a user can cause.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        told = None
        if isinstance(failure, NeurodeployError):
            told = {"message": failure.message, "remedy": failure.remedy, "code": failure.code}
        elif failure is not None:
            told = {
                "message": f"process {self.rank} of {self.size} failed: {type(failure).__name__}: {failure}.",
                "remedy": "see its traceback.",
                "code": "worker-failed",
            }
        found = next((answer for answer in self.gather(told) if answer is not None), None)
        if found is None:
            return
        if failure is not None and (self.first or not isinstance(failure, NeurodeployError)):
            raise failure
        if self.first:
            raise TrainError(found["message"], remedy=found["remedy"], code=found["code"])
        time.sleep(_GRACE_S)
        raise WorkerStoppedError(found["message"], remedy=found["remedy"], code=found["code"])

    def agree(self, what: str, value: Any) -> None:
        """Check that all processes have the same ``value`` (JSON-ready).

        Raises:
            TrainError: they do not.
        """
        values = self.gather(value)
        with self.together():
            if any(other != values[0] for other in values):
                raise TrainError(
                    f"the processes do not have the same {what}: {', '.join(str(other) for other in values)}.",
                    remedy="give all of them the same files, on one file system, and machines of one kind.",
                    code="workers-disagree",
                )


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes that ``torchrun`` started together with this one; alone otherwise.

    They talk over gloo, on the CPU, also where the layers compute on GPUs: the sum of the gradients has an order then.

    Raises:
        TrainError: they cannot reach each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    try:
        dist.init_process_group("gloo")
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainError(
            f"the {size} processes cannot reach each other ({str(error).strip()}).",
            remedy="start them with torchrun, which sets MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE.",
            code="workers-unreachable",
        ) from error
    try:
        yield Processes(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _connection() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        kind = TrainError if dist.get_rank() == 0 else WorkerStoppedError
        raise kind(
            "another process of this training run has ended.",
            remedy="its last message, or torchrun's summary, says why; go on from the last checkpoint with --resume.",
            code="worker-lost",
        ) from error
