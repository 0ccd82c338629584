"""Running a program over many recordings, on several threads, with results that do not depend on how many."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError
from neurodeploy.events.array import EventArray
from neurodeploy.target import Execution, Executor


class Recordings(Protocol):
    """Labelled recordings, such as ``neurodeploy.events.EventDataset``; read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[EventArray, int]: ...


@dataclass(frozen=True, eq=False)
class DatasetExecution:
    """What a program did with a data set of ``n`` recordings; every recording started from the initial state.

    Attributes:
        labels: int64 ``[n]``.
        outputs: uint32 ``[n, C, H, W]``: spikes of each neuron of the last layer.
        layer_spikes: layer name -> int64 ``[n]``: spikes of the layer.
        counts: layer name -> uint64 ``[C, H, W]``: spikes of each neuron over all recordings.
        counters: layer name -> counter name -> sum over all recordings.
    """

    labels: NDArray[np.int64]
    outputs: NDArray[np.uint32]
    layer_spikes: Mapping[str, NDArray[np.int64]]
    counts: Mapping[str, NDArray[np.uint64]]
    counters: Mapping[str, Mapping[str, int]]


def execute_dataset(
    make_executor: Callable[[], Executor],
    dataset: Recordings,
    *,
    threads: int = 1,
    until_us: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> DatasetExecution:
    """Run every recording from the initial state.

    Args:
        make_executor: makes one executor of the program; called once per thread.
        dataset: ``dataset[i]`` is ``(events, label)``.
        threads: number of recordings worked on at the same time. The result is the same for any number.
        until_us: length of every recording in microseconds, for programs with a slow clock; None ends each at its
            last event.
        progress: called with the number of recordings done so far, from one thread at a time.

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
    labels = np.empty(n, np.int64)
    spikes: dict[str, NDArray[np.int64]] = {}
    outputs: dict[int, NDArray[np.uint32]] = {}
    counts: dict[str, NDArray[np.uint64]] = {}
    counters: dict[str, dict[str, int]] = {}
    waiting = iter(range(n))
    lock = Lock()

    def add(index: int, label: int, run: Execution) -> None:
        labels[index] = label
        for name, array in run.counts.items():
            spikes.setdefault(name, np.zeros(n, np.int64))[index] = run.counters[name]["spikes"]
            counts.setdefault(name, np.zeros(array.shape, np.uint64))[...] += array
            total = counters.setdefault(name, dict.fromkeys(run.counters[name], 0))
            for key, value in run.counters[name].items():
                total[key] += value
            outputs[index] = array  # the last layer's array stays

    def work() -> None:
        executor = make_executor()
        while True:
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            events, label = dataset[index]
            executor.reset()
            run = executor.run(events, record=(), until_us=until_us)
            with lock:
                add(index, label, run)
                if progress is not None:
                    progress(len(outputs))

    if threads == 1:
        work()
    else:
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(work) for _ in range(threads)]:
                future.result()
    stacked = np.stack([outputs[index] for index in range(n)])
    return DatasetExecution(labels, stacked, spikes, counts, counters)
