"""The emulator: executes a program event by event in C++, equal to ``specification.Specification`` in everything."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError
from neurodeploy.events.array import EventArray
from neurodeploy.extension import native
from neurodeploy.target import DEFAULT_WORK_LIMIT, SPIKE_DTYPE, Execution, Probe
from neurodeploy.targets.dynapcnn.by_layer import by_layer
from neurodeploy.targets.dynapcnn.executable import (
    check_executable,
    check_input,
    initial_states,
    probed_neurons,
    recorded_layers,
)
from neurodeploy.targets.dynapcnn.inputs import entries, preprocessed
from neurodeploy.targets.dynapcnn.program import DECIMATION, DynapcnnProgram
from neurodeploy.targets.dynapcnn.switches import Switches

_ORDERS = {"kernel": 0, "y_x_f": 1, "f_y_x": 2, "random": 3}
_INTERLEAVINGS = {"layers": 0, "fifo": 1, "depth_first": 2, "random": 3}
_COUNTERS = ("events", "synops", "spikes", "dropped", "saturated", "lost")


class Emulator:
    """An ``Executor`` of a DynapCNN-family program: exact integers, one event at a time, state kept between runs.

    Args:
        program: the chip configuration.
        switches: answers to the open questions; None for the defaults.
        slow_clock_hz: ticks of the slow clock per second, needed when a core has biases. Tick k = 1, 2, ... comes at
            ``floor(k * 1e6 / slow_clock_hz)`` microseconds after the last ``reset``. One tick per training time step
            reproduces the trained bias.
        work_limit: updates of neurons (SynOps and ticks) and events that one ``run`` may take; more is refused, so that
            a clock that is too fast or a network that multiplies its events does not run for ever.

    Raises:
        ProgramError: the program is not consistent.
        EmulationError: recurrent connections worked off core by core; biases without a slow clock; an impossible clock.
    """

    def __init__(
        self,
        program: DynapcnnProgram,
        switches: Switches | None = None,
        slow_clock_hz: float | None = None,
        *,
        work_limit: int = DEFAULT_WORK_LIMIT,
        _isa: str = "",
    ) -> None:
        if not 1 <= work_limit < 2**63:
            raise EmulationError(
                f"work_limit is {work_limit}.", remedy="give 1 to 2**63 - 1 updates.", code="work-limit"
            )
        self.switches = switches or Switches()
        check_executable(program, slow_clock_hz, self.switches)
        self.program = program
        self.slow_clock_hz = slow_clock_hz
        rank = {core.core: index for index, core in enumerate(program.cores)}
        # The instruction set is chosen at run time; all of them give the same bits (_isa forces one, for tests).
        self._network = native.dynapcnn.Network(
            isa=_isa,
            slow_clock_hz=slow_clock_hz or 0.0,
            emission_order=_ORDERS[self.switches.emission_order],
            interleaving=_INTERLEAVINGS[self.switches.interleaving],
            zero_weight_touches=self.switches.zero_weight_touches,
            wrap=self.switches.overflow == "wrap",
            tick_fires=self.switches.tick_fires,
            tick_first=self.switches.tick_order == "before_events",
            compute_outside=self.switches.outside_events == "compute",
            lost_below=int(self.switches.lost_events * 2**53),
            seed=self.switches.seed,
            work_limit=work_limit,
        )
        for core, initial in zip(program.cores, initial_states(program, self.switches), strict=True):
            interval = core.output_decimator_interval
            self._network.add_core(
                input_shape=core.input_shape,
                output_shape=core.output_shape,
                kernel_size=core.kernel_size,
                stride=core.stride,
                padding=core.padding,
                weights=np.ascontiguousarray(core.weights),
                biases=np.ascontiguousarray(core.biases),
                threshold_high=core.threshold_high,
                threshold_low=core.threshold_low,
                return_to_zero=core.return_to_zero,
                leak_enable=core.leak_enable,
                initial=np.ascontiguousarray(initial),
                decimation=0 if interval is None else DECIMATION[interval],
                pass_first=self.switches.decimator_phase == "first",
            )
        for way in entries(program, self.switches):
            self._network.add_entry(rank[way.core], way.first_feature, way.features, way.feature_shift)
        for core in program.cores:
            destinations = list(core.destinations)
            if self.switches.destination_order == "last_to_first":
                destinations.reverse()
            for to in destinations:
                self._network.connect(rank[core.core], rank[to.core], to.pooling.bit_length() - 1, to.feature_shift)
        self.reset()

    def reset(self) -> None:
        """Set every neuron to its initial value and the clock to 0."""
        self._network.reset()
        self._now_us = 0
        self._stopped = False

    def run(
        self,
        events: EventArray,
        *,
        record: Sequence[str] | None = None,
        until_us: int | None = None,
        probe: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
    ) -> Execution:
        """Feed events; afterwards run the clock on as if an event came at ``until_us``.

        A recording fed in pieces gives the same as in one piece. The interpreter lock is released; one emulator
        serves one thread. Ctrl-C stops a run within milliseconds; the emulator then wants a ``reset``.

        Args:
            events: structured array with ``t`` (us), ``x``, ``y``, ``p``, sorted by time; ``p`` is the entry core's
                feature.
            record: names of the layers whose spikes are returned; None for all, ``()`` for none (fastest).
            until_us: time in microseconds up to which the slow clock runs; None for the last event's time.
            probe: layer -> neurons ``(c, y, x)`` whose potentials are returned, as they are after each event and tick.

        Returns:
            Spikes with the time of the host event (or tick) that caused them, in the order host event, layer, emission;
            counts and counters of this call.

        Raises:
            EventError: malformed events, or events outside the entry core's input map.
            EmulationError: time runs backwards, an unknown layer or neuron, more work than ``work_limit``, or a run
                after one that was stopped.
        """
        if self._stopped:
            raise EmulationError(
                "the last run was stopped before its end, so the neurons' state is that of no moment.",
                remedy="call reset() and feed the recording from its beginning.",
                code="stopped",
            )
        events, end_us = check_input(self.program, events, self._now_us, until_us)
        wanted = recorded_layers(self.program, record)
        recorded = [core.layer in wanted for core in self.program.cores]
        events = preprocessed(self.program, events, self.switches)
        raw = np.ascontiguousarray(events).view(np.uint8).reshape(-1, events.dtype.itemsize)
        neurons = probed_neurons(self.program, probe)
        per_core: list[list[tuple[int, int, int]]] = [[] for _ in recorded]
        for places in neurons.values():
            for rank, neuron in places:
                per_core[rank].append(neuron)
        self._stopped = True
        try:
            spikes, counts, counters, times, potentials = self._network.run(
                raw, recorded, end_us, bool(probe), per_core
            )
        except OverflowError as error:
            raise EmulationError(
                f"{error}.",
                remedy="a slow clock that is too fast, weights far above their threshold, positive biases or a loop "
                "that excites itself make events multiply; record fewer layers, feed the recording in pieces, weaken "
                "the loop, or raise work_limit if it is meant so.",
                code="work-limit",
            ) from None
        self._stopped = False
        self._now_us = end_us
        return by_layer(
            self.program,
            spikes.reshape(-1).view(SPIKE_DTYPE),
            counts,
            [dict(zip(_COUNTERS, row, strict=True)) for row in counters.tolist()],
            _probes(probe or {}, neurons, times, potentials),
        )


def _probes(
    probe: Mapping[str, Sequence[tuple[int, int, int]]],
    neurons: Mapping[str, Sequence[tuple[int, tuple[int, int, int]]]],
    times: NDArray[np.int64],
    potentials: Sequence[NDArray[np.int16]],
) -> dict[str, Probe]:
    """The columns of the cores' potentials, which are in the order in which the neurons were named, by layer."""
    taken = [0] * len(potentials)
    probes = {}
    for layer, places in neurons.items():
        v = np.empty((len(times), len(places)), np.int16)
        for column, (rank, _) in enumerate(places):
            v[:, column] = potentials[rank][:, taken[rank]]
            taken[rank] += 1
        probes[layer] = Probe(times, tuple((c, y, x) for c, y, x in probe[layer]), v)
    return probes
