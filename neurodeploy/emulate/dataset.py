"""Running a program over many recordings, on several threads, with results that do not depend on how many."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import Protocol, TypeVar

from neurodeploy.errors import EmulationError
from neurodeploy.events.array import EventArray
from neurodeploy.target import Execution, Executor

T = TypeVar("T")


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

    def make_worker() -> Callable[[EventArray], Execution]:
        executor = make_executor()

        def work(events: EventArray) -> Execution:
            executor.reset()
            return executor.run(events, record=(), until_us=until_us)

        return work

    map_recordings(make_worker, dataset, observe, threads=threads)


def map_recordings(
    make_worker: Callable[[], Callable[[EventArray], T]],
    dataset: Recordings,
    observe: Callable[[int, T], None],
    *,
    threads: int = 1,
) -> None:
    """Give every recording to a worker; arguments and errors as ``execute_dataset``, with workers made per thread.

    An error, or Ctrl-C, ends the work of the other threads after the recordings they are at.
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
    stop = Event()

    def take() -> None:
        work = make_worker()
        while not stop.is_set():
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            result = work(dataset[index][0])
            with lock:
                observe(index, result)

    if threads == 1:
        take()
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            for future in as_completed([pool.submit(take) for _ in range(threads)]):
                future.result()
        except BaseException:
            stop.set()
            raise
