"""The specification: executes a program in plain Python, one event at a time, as the chip is documented to.

Slow and readable on purpose. ``emulator.Emulator`` must equal it spike for spike, in order, and in every counter.
Sources: Speck Dev Kit Datasheet V1.0, 3.2.4; open questions are the fields of ``Switches``.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from neurodeploy.events.array import EventArray
from neurodeploy.target import SPIKE_DTYPE, Execution, Probe
from neurodeploy.targets.dynapcnn.by_layer import by_layer
from neurodeploy.targets.dynapcnn.draws import DELAY, EMISSION, LOSS, draw, mix
from neurodeploy.targets.dynapcnn.dvs import leaves
from neurodeploy.targets.dynapcnn.executable import (
    check_executable,
    check_input,
    initial_states,
    probed_neurons,
    recorded_layers,
)
from neurodeploy.targets.dynapcnn.program import DECIMATION, CoreProgram, DynapcnnProgram
from neurodeploy.targets.dynapcnn.switches import Switches

Address = tuple[int, int, int]  # (feature, y, x)

COUNTERS = ("events", "synops", "spikes", "dropped", "saturated", "lost")


class Specification:
    """An ``Executor`` of a program; arguments, errors and results as ``emulator.Emulator``."""

    def __init__(
        self, program: DynapcnnProgram, switches: Switches | None = None, slow_clock_hz: float | None = None
    ) -> None:
        self.switches = switches or Switches()
        check_executable(program, slow_clock_hz, self.switches)
        self.program = program
        self.slow_clock_hz = slow_clock_hz
        self._rank = {core.core: rank for rank, core in enumerate(program.cores)}
        self.reset()

    def reset(self) -> None:
        """Set every neuron to its initial value and the clock to 0."""
        self._v = [state.astype(int) for state in initial_states(self.program, self.switches)]
        self._now_us = 0
        self._ticks = 0
        self._updates = [0] * len(self.program.cores)  # events and ticks that each core has seen
        self._delays = 0  # random delays drawn
        self._thinned = [0 for _ in self.program.cores]

    def run(
        self,
        events: EventArray,
        *,
        record: Sequence[str] | None = None,
        until_us: int | None = None,
        probe: Mapping[str, Sequence[Address]] | None = None,
    ) -> Execution:
        """Feed events; afterwards run the clock on as if an event came at ``until_us``."""
        events, until_us = check_input(self.program, events, self._now_us, until_us)
        wanted = recorded_layers(self.program, record)
        self._probes = probed_neurons(self.program, probe)
        self._potentials: dict[str, list[list[int]]] = {}
        self._times: list[int] = []
        self._counters = [Counter(dict.fromkeys(COUNTERS, 0)) for _ in self.program.cores]
        self._counts = [np.zeros(core.output_shape, np.uint32) for core in self.program.cores]
        spikes: list[tuple[int, int, int, int, int]] = []
        for t, x, y, p in events.tolist():
            spikes += self._clock(t)
            if entering := self._enter(p, y, x):
                spikes += self._step(t, entering)
        spikes += self._clock(until_us)
        self._now_us = until_us
        cores = self.program.cores
        return by_layer(
            self.program,
            np.array([spike for spike in spikes if cores[spike[0]].layer in wanted], SPIKE_DTYPE),
            self._counts,
            [dict(counter) for counter in self._counters],
            {
                layer: Probe(
                    np.array(self._times, np.int64),
                    tuple((c, y, x) for c, y, x in (probe or {})[layer]),
                    np.array(self._potentials.get(layer, []), np.int16).reshape(len(self._times), len(neurons)),
                )
                for layer, neurons in self._probes.items()
            },
        )

    def _clock(self, t_us: int) -> Iterator[tuple[int, int, int, int, int]]:
        """The ticks due before an event at ``t_us``; tick k = 1, 2, ... comes at floor(k * 1e6 / slow_clock_hz) us."""
        first = self.switches.tick_order == "before_events"
        while self.slow_clock_hz and any(core.leak_enable for core in self.program.cores):
            tick_us = int((self._ticks + 1) * 1e6 / self.slow_clock_hz)
            if tick_us > t_us or (tick_us == t_us and not first):
                return
            self._ticks += 1
            yield from self._step(tick_us, None)

    def _enter(self, p: int, y: int, x: int) -> list[tuple[int, Address]]:
        """The cores (by rank) that an event of the user enters, and its address there."""
        first = 0
        for port in self.program.inputs:
            if first <= p < first + port.shape[0]:
                break
            first += port.shape[0]
        found = (p - first, y, x) if port.dvs is None else leaves(port.dvs, p - first, y, x, self.switches)
        if found is None:
            return []
        entries = list(port.entries)
        if port.dvs is not None and self.switches.destination_order == "last_to_first":
            entries.reverse()
        return [(self._rank[entry.core], (found[0] + entry.feature_shift, *found[1:])) for entry in entries]

    def _step(self, t: int, entering: list[tuple[int, Address]] | None) -> list[tuple[int, int, int, int, int]]:
        """One host event, or one tick (None), through the whole network; its spikes, layer by layer."""
        spikes: list[tuple[int, int, int, int, int]] = []
        # What waits to be processed: (place in the order of work, core, event, time at which it arrives there).
        pending: list[tuple[tuple[int, int], int, Address, int]] = []
        latest: dict[tuple[int, int], int] = {}  # connection -> when its last event arrives
        pushed = 0

        def push(rank: int, address: Address, time: int) -> None:
            nonlocal pushed
            pushed += 1
            place = {
                "layers": (rank, pushed),
                "fifo": (0, pushed),
                "depth_first": (0, -pushed),
                "random": (time, pushed),
            }[self.switches.interleaving]
            heapq.heappush(pending, (place, rank, address, time))

        def send(rank: int, fired: list[Address], time: int) -> None:
            copies: list[tuple[int, Address, int]] = []
            destinations = list(self.program.cores[rank].destinations)
            if self.switches.destination_order == "last_to_first":
                destinations.reverse()
            for f, y, x in self._thin(rank, self.program.cores[rank], fired):
                spikes.append((rank, t, f, y, x))
                self._counts[rank][f, y, x] += 1
                self._counters[rank]["spikes"] += 1
                for number, to in enumerate(destinations):
                    target = self._rank[to.core]
                    address = (f + to.feature_shift, y // to.pooling, x // to.pooling)
                    if not self._accepts(self.program.cores[target], address):
                        self._counters[target]["dropped"] += 1
                        continue
                    connection = (rank, number)
                    if self.switches.interleaving == "random":
                        delay = 1 + (draw(self.switches.seed, DELAY, self._delays) >> 48)
                        self._delays += 1
                        latest[connection] = max(time, latest.get(connection, 0)) + delay
                    copies.append((target, address, latest.get(connection, 0)))
            if self.switches.interleaving == "depth_first":
                copies.reverse()  # the last one pushed is the first one processed
            for copy in copies:
                push(*copy)

        if entering is not None:
            for rank, address in reversed(entering) if self.switches.interleaving == "depth_first" else entering:
                push(rank, address, 0)
        else:
            for rank, core in enumerate(self.program.cores):
                if core.leak_enable:
                    send(rank, self._leak(rank, core), 0)
        while pending:
            _, rank, address, time = heapq.heappop(pending)
            send(rank, self._event(rank, self.program.cores[rank], address), time)
        for layer in self._probes:
            self._potentials.setdefault(layer, []).append(
                [int(self._v[rank][address]) for rank, address in self._probes[layer]]
            )
        self._times.append(t)
        return sorted(spikes, key=lambda spike: spike[0])

    def _thin(self, rank: int, core: CoreProgram, fired: list[Address]) -> list[Address]:
        """What a core's decimator lets pass: one spike of every n, in the order of emission."""
        if core.output_decimator_interval is None:
            return fired
        n = DECIMATION[core.output_decimator_interval]
        passing = n - 1 if self.switches.decimator_phase == "last" else 0
        kept = []
        for address in fired:
            if self._thinned[rank] == passing:
                kept.append(address)
            self._thinned[rank] = (self._thinned[rank] + 1) % n
        return kept

    def _accepts(self, core: CoreProgram, address: Address) -> bool:
        inside = all(value < size for value, size in zip(address[1:], core.input_shape[1:], strict=True))
        return address[0] < core.input_shape[0] and (inside or self.switches.outside_events == "compute")

    def _event(self, rank: int, core: CoreProgram, address: Address) -> list[Address]:
        """An event entering a core touches every neuron whose kernel window covers its place."""
        self._updates[rank] += 1
        if draw(self.switches.seed, LOSS, rank, self._updates[rank]) >> 11 < int(self.switches.lost_events * 2**53):
            self._counters[rank]["lost"] += 1
            return []
        c, y, x = address
        F, height, width = core.output_shape
        touched: dict[Address, int] = {}
        for ky in range(core.kernel_size):
            for kx in range(core.kernel_size):
                oy, ry = divmod(y + core.padding[0] - ky, core.stride[0])
                ox, rx = divmod(x + core.padding[1] - kx, core.stride[1])
                if ry == rx == 0 and 0 <= oy < height and 0 <= ox < width:
                    touched.update({(f, oy, ox): int(core.weights[f, c, ky, kx]) for f in range(F)})
        self._counters[rank]["events"] += 1
        self._counters[rank]["synops"] += len(touched)
        return self._update(rank, core, touched, fires=True)

    def _leak(self, rank: int, core: CoreProgram) -> list[Address]:
        """A tick of the slow clock adds its bias to every neuron."""
        self._updates[rank] += 1
        touched = {(f, y, x): int(core.biases[f]) for f, y, x in np.ndindex(core.output_shape)}
        return self._update(rank, core, touched, fires=self.switches.tick_fires)

    def _update(self, rank: int, core: CoreProgram, touched: dict[Address, int], *, fires: bool) -> list[Address]:
        """Add to each neuron once: limit to int16, hold at threshold_low, fire at most once at >= threshold_high."""
        emission = draw(self.switches.seed, EMISSION, rank, self._updates[rank])
        order = {
            "random": lambda a: mix(emission ^ (a[0] << 14 | a[1] << 7 | a[2])),
            "kernel": lambda a: (-a[1], -a[2], a[0]),
            "y_x_f": lambda a: (a[1], a[2], a[0]),
            "f_y_x": lambda a: a,
        }[self.switches.emission_order]
        fired = []
        for address in sorted(touched, key=order):
            if touched[address] == 0 and not self.switches.zero_weight_touches:
                continue
            total = int(self._v[rank][address]) + touched[address]
            if not -32768 <= total <= 32767:
                self._counters[rank]["saturated"] += 1
                wrapped = (total + 32768) % 65536 - 32768
                total = wrapped if self.switches.overflow == "wrap" else min(max(total, -32768), 32767)
            total = max(total, core.threshold_low)
            if fires and total >= core.threshold_high:
                fired.append(address)
                total = 0 if core.return_to_zero else total - core.threshold_high
            self._v[rank][address] = total
        return fired
