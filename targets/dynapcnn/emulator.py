"""The emulator: executes a program event by event in C++, equal to ``specification.Specification`` in everything."""

from collections.abc import Sequence

import numpy as np

from neurodeploy.events.array import EventArray
from neurodeploy.extension import native
from neurodeploy.target import SPIKE_DTYPE, Execution
from neurodeploy.targets.dynapcnn.by_layer import by_layer
from neurodeploy.targets.dynapcnn.dvs import pass_events
from neurodeploy.targets.dynapcnn.executable import check_executable, check_input, recorded_layers
from neurodeploy.targets.dynapcnn.program import DECIMATION, DynapcnnProgram
from neurodeploy.targets.dynapcnn.switches import Switches

_ORDERS = {"kernel": 0, "y_x_f": 1, "f_y_x": 2}
_COUNTERS = ("events", "synops", "spikes", "dropped", "saturated")


class Emulator:
    """An ``Executor`` of a DynapCNN-family program: exact integers, one event at a time, state kept between runs.

    Args:
        program: the chip configuration.
        switches: answers to the open questions; None for the defaults.
        slow_clock_hz: ticks of the slow clock per second, needed when a core has biases. Tick k = 1, 2, ... comes at
            ``floor(k * 1e6 / slow_clock_hz)`` microseconds after the last ``reset``. One tick per training time step
            reproduces the trained bias.

    Raises:
        ProgramError: the program is not consistent.
        EmulationError: recurrent connections; biases without a slow clock; an impossible clock.
    """

    def __init__(
        self,
        program: DynapcnnProgram,
        switches: Switches | None = None,
        slow_clock_hz: float | None = None,
        *,
        _isa: str = "",
    ) -> None:
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
            fifo=self.switches.interleaving == "fifo",
            zero_weight_touches=self.switches.zero_weight_touches,
            wrap=self.switches.overflow == "wrap",
            tick_fires=self.switches.tick_fires,
            tick_first=self.switches.tick_order == "before_events",
            compute_outside=self.switches.outside_events == "compute",
        )
        for core in program.cores:
            initial = core.neurons_initial_value
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
                initial=np.ascontiguousarray(np.zeros(core.output_shape, np.int16) if initial is None else initial),
                decimation=0 if interval is None else DECIMATION[interval],
                pass_first=self.switches.decimator_phase == "first",
            )
        first = 0
        for port in program.inputs:
            entries = list(port.entries)
            if port.dvs is not None and self.switches.destination_order == "last_to_first":
                entries.reverse()
            for entry in entries:
                self._network.add_entry(rank[entry.core], first, port.shape[0], entry.feature_shift)
            first += port.shape[0]
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

    def run(self, events: EventArray, *, record: Sequence[str] | None = None, until_us: int | None = None) -> Execution:
        """Feed events; afterwards run the clock on as if an event came at ``until_us``.

        A recording fed in pieces gives the same as in one piece. The interpreter lock is released; one emulator
        serves one thread.

        Args:
            events: structured array with ``t`` (us), ``x``, ``y``, ``p``, sorted by time; ``p`` is the entry core's
                feature.
            record: names of the layers whose spikes are returned; None for all, ``()`` for none (fastest).
            until_us: time in microseconds up to which the slow clock runs; None for the last event's time.

        Returns:
            Spikes with the time of the host event (or tick) that caused them, in the order host event, layer, emission;
            counts and counters of this call.

        Raises:
            EventError: malformed events, or events outside the entry core's input map.
            EmulationError: time runs backwards, or an unknown layer name.
        """
        events, end_us = check_input(self.program, events, self._now_us, until_us)
        wanted = recorded_layers(self.program, record)
        recorded = [core.layer in wanted for core in self.program.cores]
        events = self._preprocessed(events)
        raw = np.ascontiguousarray(events).view(np.uint8).reshape(-1, events.dtype.itemsize)
        spikes, counts, counters = self._network.run(raw, recorded, end_us)
        self._now_us = end_us
        return by_layer(
            self.program,
            spikes.reshape(-1).view(SPIKE_DTYPE),
            counts,
            [dict(zip(_COUNTERS, row, strict=True)) for row in counters.tolist()],
        )

    def _preprocessed(self, events: EventArray) -> EventArray:
        """The events that enter the cores; the features of every input stay in its own range."""
        first = 0
        for port in self.program.inputs:
            if port.dvs is not None:
                own = np.flatnonzero((events["p"] >= first) & (events["p"] < first + port.shape[0]))
                mine = events[own]
                mine["p"] -= first
                found, passed = pass_events(port.dvs, mine, self.switches)
                found["p"] += first
                events = events.copy()
                events[own[passed]] = found
                events = np.delete(events, own[~passed])
            first += port.shape[0]
        return events
