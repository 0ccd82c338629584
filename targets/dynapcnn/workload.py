"""What a recording makes every core do: one entry per event taken in, from the recorded spikes and the routing.

The sums equal the emulator's counters ``events`` and ``synops`` (``tests/targets/test_workload.py``).
"""

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError
from neurodeploy.events.array import EventArray
from neurodeploy.target import CoreWork, SpikeArray
from neurodeploy.targets.dynapcnn.executable import MAX_SIDE
from neurodeploy.targets.dynapcnn.inputs import entries, preprocessed
from neurodeploy.targets.dynapcnn.program import CoreProgram, DynapcnnProgram
from neurodeploy.targets.dynapcnn.switches import Switches


def core_work(program: DynapcnnProgram, events: EventArray, spikes: SpikeArray, switches: Switches) -> list[CoreWork]:
    """The work of every core, in program order.

    Args:
        program: what was executed.
        events: the host's events.
        spikes: of all layers that send to others, as an ``Execution`` has them.
        switches: what it was executed with.

    Raises:
        EmulationError: events were lost on purpose; which ones is not recorded.
    """
    if switches.lost_events:
        raise EmulationError(
            f"with lost_events = {switches.lost_events:g} the work of a core cannot be told from the spikes.",
            remedy="take the load of the run without lost events.",
            code="load-lost-events",
        )
    rank = {core.core: index for index, core in enumerate(program.cores)}
    arrived: list[list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = [[] for _ in program.cores]
    sources: list[list[int]] = [[] for _ in program.cores]
    inside = preprocessed(program, events, switches)
    ways = entries(program, switches)
    for way in ways:
        own = inside[(inside["p"] >= way.first_feature) & (inside["p"] < way.first_feature + way.features)]
        to = rank[way.core]
        arrived[to].append((own["t"], _synops(program.cores[to], own["y"], own["x"])))
    for index, core in enumerate(program.cores):
        first = core.first_feature or 0
        own = spikes[spikes["layer"] == program.layers.index(core.layer)]
        own = own[(own["c"] >= first) & (own["c"] < first + core.features)]
        for end in core.destinations:
            to = rank[end.core]
            target = program.cores[to]
            y, x = own["y"] // end.pooling, own["x"] // end.pooling
            accepted = own["c"] - first + end.feature_shift < target.input_shape[0]
            if switches.outside_events == "drop":
                accepted &= (y < target.input_shape[1]) & (x < target.input_shape[2])
            arrived[to].append((own["t"][accepted], _synops(target, y[accepted], x[accepted])))
            if to > index:  # what comes back through a loop is taken to arrive with the rest
                sources[to].append(index)
    return [
        CoreWork(
            part=core.name,
            core=core.core,
            t_us=np.concatenate([np.zeros(0, np.int64), *(t for t, _ in arrived[index])]),
            synops=np.concatenate([np.zeros(0, np.int64), *(synops for _, synops in arrived[index])]),
            sources=tuple(dict.fromkeys(sources[index])),
            takes_input=any(way.core == core.core for way in ways),
            is_output=core.layer == program.layers[-1],
        )
        for index, core in enumerate(program.cores)
    ]


def _synops(core: CoreProgram, y: NDArray[np.uint16], x: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Neurons that an event at each place touches: the rows and columns it reaches, in every feature."""
    rows, columns = (
        _reached(core.kernel_size, core.stride[axis], core.padding[axis], core.output_shape[1 + axis])
        for axis in (0, 1)
    )
    touched: NDArray[np.int64] = rows[y] * columns[x] * core.output_shape[0]
    return touched


def _reached(kernel: int, stride: int, padding: int, size: int) -> NDArray[np.int64]:
    """How many neuron rows (columns) an event in each row (column) 0..127 reaches."""
    place = np.arange(MAX_SIDE)[:, None] + padding - np.arange(kernel)[None, :]
    inside = (place % stride == 0) & (place >= 0) & (place // stride < size)
    counted: NDArray[np.int64] = inside.sum(1, dtype=np.int64)
    return counted
