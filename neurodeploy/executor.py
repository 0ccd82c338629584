"""Where many independent pieces of work run: this process, a pool of processes, or a Ray cluster.

A piece is a call of one function, defined at the top of a module, with one argument; both are sent to where it runs.
Results come in the order of the items, so that what is made of them is the same wherever they were computed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar

from neurodeploy.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a function on many items."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of ``items``; the first error of the function is raised in its place."""
        ...


class InProcess:
    """One piece after the other, here."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of ``items``."""
        return map(function, items)


class ProcessPool:
    """Processes of this machine.

    Args:
        workers: how many, at least 1. None: one per processor.

    Raises:
        ConfigError: fewer than one.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"{workers} workers.", remedy="give at least 1.", code="workers")
        self.workers = workers or os.cpu_count() or 1

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of ``items``; what has not begun when the iteration is left never does."""
        # A forked process would inherit the locks of threads that it does not have.
        pool = ProcessPoolExecutor(min(self.workers, max(1, len(items))), mp_context=get_context("spawn"))
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


class RayCluster:
    """The machines of a Ray cluster; neurodeploy has to be installed on each.

    Args:
        address: of the cluster, e.g. ``"auto"`` or ``"ray://host:10001"``. None: the one this machine belongs to, or a
            new one on this machine alone.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError:
            raise ConfigError(
                "Ray is not installed.",
                remedy="pip install ray on every machine, or choose the executor 'processes'.",
                code="ray-missing",
            ) from None
        self._ray: Any = ray
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"the Ray cluster {address or 'here'} cannot be reached ({str(error).strip().splitlines()[0]}).",
                    remedy="start it with ray start, or choose the executor 'processes'.",
                    code="ray-unreachable",
                ) from None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of ``items``; what still runs when the iteration is left is cancelled."""
        task = self._ray.remote(function)
        running = [task.remote(item) for item in items]
        try:
            for reference in running:
                try:
                    yield self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from None
        finally:
            for reference in running:
                self._ray.cancel(reference)


def executor(name: str, workers: int | None = None) -> Executor:
    """The executor called ``name``: ``processes`` (with one worker: this process) or ``ray``, or ``ray:ADDRESS``.

    Raises:
        ConfigError: there is none of this name, or it cannot be had.
    """
    kind, _, address = name.partition(":")
    if name == "processes":
        return InProcess() if workers == 1 else ProcessPool(workers)
    if kind == "ray":
        return RayCluster(address or None)
    raise ConfigError(
        f"there is no executor {name!r}.", remedy="choose processes, ray, or ray:ADDRESS.", code="executor"
    )
