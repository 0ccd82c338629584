"""Recordings larger than memory: a run in pieces, and the pieces' results as one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from neurodeploy.errors import EmulationError
from neurodeploy.events.array import EVENT_DTYPE, EventArray
from neurodeploy.target import Execution, Executor, Probe


def execute_stream(
    executor: Executor,
    pieces: Iterable[EventArray],
    *,
    record: Sequence[str] | None = (),
    until_us: int | None = None,
    probe: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
) -> Iterator[Execution]:
    """Run the pieces of one recording, from the neurons' initial state; together they give what one run gives.

    Args:
        executor: keeps the state between the pieces.
        pieces: consecutive event arrays, such as ``neurodeploy.events.iter_events`` yields.
        record: layers whose spikes are kept in each result; by default none.
        until_us: time up to which the chip's clock runs on after the last piece; None ends with the last event.
        probe: as for ``Executor.run``.

    Raises:
        EventError, EmulationError: as ``Executor.run``; when the iteration gets there.
    """
    executor.reset()
    for piece in pieces:
        yield executor.run(piece, record=record, probe=probe)
    if until_us is not None:
        yield executor.run(np.empty(0, EVENT_DTYPE), record=record, until_us=until_us, probe=probe)


def joined(pieces: Iterable[Execution]) -> Execution:
    """The results of consecutive pieces as those of one run: spikes one after the other, counts and counters added.

    Only the recorded spikes and probes grow with the recording.

    Raises:
        EmulationError: there is no piece.
    """
    total: Execution | None = None
    spikes, probes = [], []
    for piece in pieces:
        spikes.append(piece.spikes)
        probes.append(piece.probes)
        if total is None:
            total = Execution(
                piece.spikes,
                {name: counts.copy() for name, counts in piece.counts.items()},
                {name: dict(counters) for name, counters in piece.counters.items()},
            )
            continue
        for name, counts in piece.counts.items():
            total.counts[name][...] += counts
        counters = {
            name: {key: value + piece.counters[name][key] for key, value in own.items()}
            for name, own in total.counters.items()
        }
        total = Execution(total.spikes, total.counts, counters)
    if total is None:
        raise EmulationError(
            "there is nothing to join: the recording has no piece.",
            remedy="give at least one piece, or until_us.",
            code="empty-stream",
        )
    return Execution(
        np.concatenate(spikes),
        total.counts,
        total.counters,
        {
            name: Probe(
                np.concatenate([piece[name].t_us for piece in probes]),
                first.neurons,
                np.concatenate([piece[name].v for piece in probes]),
            )
            for name, first in probes[0].items()
        },
    )


def whole_times(pieces: Iterable[EventArray]) -> Iterator[EventArray]:
    """The same events in pieces that never part events of the same time."""
    held = np.empty(0, EVENT_DTYPE)
    for piece in pieces:
        held = np.concatenate([held, piece]) if held.size else piece
        if held.size:
            cut = int(np.searchsorted(held["t"], held["t"][-1], side="left"))
            if cut:
                yield held[:cut]
                held = held[cut:]
    if held.size:
        yield held
