"""Running a program over many recordings, on several threads, with results that do not depend on how many."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Protocol

from neurodeploy.errors import EmulationError
from neurodeploy.events.array import EventArray
from neurodeploy.target import Execution, Executor


class Recordings(Protocol):
    """Labelled recordings, such as ``neurodeploy.events.EventDataset``; read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[EventArray, int]: ...


def execute_dataset(
    make_executor: Callable[[], Executor],
    dataset: Recordings,
    observe: Callable[[int, Execution], None],
    *,
    threads: int = 1,
    until_us: int | None = None,
) -> None:
    """Run every recording from the neurons' initial state, without keeping spikes.

    Args:
        make_executor: makes one executor of the program; called once per thread.
        dataset: ``dataset[i]`` is ``(events, label)``.
        observe: called once per recording with its index and what the program did, from one thread at a time; in the
            order of the recordings only when there is one thread.
        threads: number of recordings worked on at the same time.
        until_us: length of every recording in microseconds, for programs with a slow clock; None ends each at its
            last event.

    Raises:
        EmulationError: no recordings, or no threads; whatever the executor raises.
    """
    n = len(dataset)
    if n < 1 or threads < 1:
        raise EmulationError(
            f"cannot run {n} recordings on {threads} threads.",
            remedy="give at least one recording and one thread.",
            code="empty-dataset",
        )
    waiting = iter(range(n))
    lock = Lock()

    def work() -> None:
        executor = make_executor()
        while True:
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            executor.reset()
            execution = executor.run(dataset[index][0], record=(), until_us=until_us)
            with lock:
                observe(index, execution)

    if threads == 1:
        work()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
