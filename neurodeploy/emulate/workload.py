"""How busy a recording keeps a chip: SynOps per core and time, against published limits; latency and energy as models.

The emulator's events have no duration; what is computed here lies beside it and changes no spike. The formulas and what
they leave out are in ``README.md`` of this folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError
from neurodeploy.target import CoreWork, Performance, Published

_PS = 1_000_000  # picoseconds in a microsecond: whole numbers, so that sums do not depend on how a recording is cut


@dataclass(frozen=True)
class CoreLoad:
    """The load of one core.

    Attributes:
        part: the layer, or part of one, that it holds.
        core: its number.
        limit: SynOps per second that it sustains, as published.
        synops: int64 ``[bins]``.
        events: events taken in over the recording.
        largest_delay_us: how far the core falls behind at most, in the latency model.
    """

    part: str
    core: int
    limit: Published
    synops: NDArray[np.int64]
    events: int
    largest_delay_us: float


@dataclass(frozen=True)
class Latency:
    """Model of the time from an event to the end of the work it causes in the output layer, in microseconds.

    ``answers`` is the number of time stamps whose events reached the output layer.
    """

    median_us: float
    p99_us: float
    largest_us: float
    answers: int


@dataclass(frozen=True)
class Energy:
    """What is known about the energy of a run.

    ``resting_uj`` is the published resting power times the duration. ``dynamic_uj`` needs the energy of a SynOp and of
    a spike, which nobody has published for these chips: None unless the user gives them.
    """

    duration_us: int
    resting_power: Published | None
    synops: int
    spikes: int
    pj_per_synop: float | None
    pj_per_spike: float | None

    @property
    def resting_uj(self) -> float | None:
        """Microjoules of the chip at rest."""
        return None if self.resting_power is None else self.resting_power.value * self.duration_us * 1e-3

    @property
    def dynamic_uj(self) -> float | None:
        """Microjoules of the work, from the constants the user gave."""
        if self.pj_per_synop is None or self.pj_per_spike is None:
            return None
        return (self.synops * self.pj_per_synop + self.spikes * self.pj_per_spike) * 1e-6

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, value, source of its constant) for a table; what nobody has published says so."""
        none = "not published"
        given = "given by the user"
        rest = self.resting_power
        dynamic = none if self.dynamic_uj is None else f"{self.dynamic_uj:.4g} uJ"
        return [
            ("duration", f"{self.duration_us / 1e3:.4g} ms", "the recording"),
            ("resting power", none if rest is None else f"{rest.value:g} mW", "" if rest is None else rest.source),
            ("energy at rest", none if self.resting_uj is None else f"{self.resting_uj:.4g} uJ", "power x duration"),
            ("SynOps", f"{self.synops:,}", "emulated"),
            ("energy per SynOp", *_constant(self.pj_per_synop, given, none)),
            ("spikes", f"{self.spikes:,}", "emulated"),
            ("energy per spike", *_constant(self.pj_per_spike, given, none)),
            ("energy of the work", dynamic, "SynOps and spikes x their energies"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        rest = self.resting_power
        return {
            "duration_us": self.duration_us,
            "resting_power_mw": None if rest is None else rest.value,
            "resting_power_source": None if rest is None else rest.source,
            "resting_uj": self.resting_uj,
            "synops": self.synops,
            "spikes": self.spikes,
            "pj_per_synop": self.pj_per_synop,
            "pj_per_spike": self.pj_per_spike,
            "dynamic_uj": self.dynamic_uj,
        }


def _constant(value: float | None, given: str, none: str) -> tuple[str, str]:
    return (none, "give your own, e.g. from a power log") if value is None else (f"{value:g} pJ", given)


@dataclass(frozen=True)
class Workload:
    """The load of a recording on a chip.

    Attributes:
        start_us: time at which the first bin begins.
        bin_us: length of a bin.
        cores: one entry per core, in network order.
        latency: None where no event reached the output layer, or nothing about the chip's latency is published.
        energy: see ``Energy``.
    """

    start_us: int
    bin_us: int
    cores: tuple[CoreLoad, ...]
    latency: Latency | None
    energy: Energy

    def rate(self, load: CoreLoad) -> NDArray[np.float64]:
        """SynOps per second of one core in each bin."""
        rates: NDArray[np.float64] = load.synops.astype(np.float64) * (1e6 / self.bin_us)
        return rates

    def peak(self, load: CoreLoad) -> tuple[float, int]:
        """The highest rate of a core in SynOps per second, and the time in microseconds at which its bin begins."""
        if not load.synops.size:
            return 0.0, self.start_us
        rates = self.rate(load)
        busiest = int(np.argmax(rates))
        return float(rates[busiest]), self.start_us + busiest * self.bin_us

    @property
    def warnings(self) -> list[str]:
        """One sentence per core that is asked for more than its published throughput: layer, core, time."""
        found = []
        for load in self.cores:
            over = np.flatnonzero(self.rate(load) > load.limit.value)
            if over.size:
                peak, at = self.peak(load)
                found.append(
                    f"congestion: {load.part} on core {load.core} is asked for {peak / 1e6:.4g} M SynOps/s at "
                    f"{at / 1e3:g} ms ({over.size} of {load.synops.size} bins of {self.bin_us} us above "
                    f"{load.limit.value / 1e6:g} M, {load.limit.source}); the chip stalls or loses events there."
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; the bins of every core included."""
        return {
            "start_us": self.start_us,
            "bin_us": self.bin_us,
            "cores": [
                {
                    "part": load.part,
                    "core": load.core,
                    "synops": load.synops.tolist(),
                    "events": load.events,
                    "peak_synops_per_second": self.peak(load)[0],
                    "peak_us": self.peak(load)[1],
                    "limit_synops_per_second": load.limit.value,
                    "limit_source": load.limit.source,
                    "largest_delay_us": load.largest_delay_us,
                }
                for load in self.cores
            ],
            "latency": None if self.latency is None else dict(self.latency.__dict__),
            "energy": self.energy.to_dict(),
            "warnings": self.warnings,
        }


@dataclass
class _Meter:
    """What one core has done so far."""

    synops: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    events: int = 0
    busy_until: int = -(2**62)  # picoseconds after the start
    largest_delay: int = 0


class WorkloadMeter:
    """Adds up the work of consecutive pieces of one recording; pieces must not part events of one time."""

    def __init__(self, performance: Performance, bin_us: int, start_us: int) -> None:
        if bin_us < 1:
            raise EmulationError(f"bin_us is {bin_us}.", remedy="give whole microseconds, e.g. 1000.", code="load-bin")
        self._performance = performance
        self._bin_us = bin_us
        self._start_us = start_us
        self._meters: dict[str, _Meter] = {}
        self._places: list[CoreWork] = []
        self._answers: list[NDArray[np.int64]] = []
        self._spikes = 0

    def add(self, work: Sequence[CoreWork], spikes: int) -> None:
        """Add what one piece made every core do, cores in network order, and how many spikes all layers fired."""
        self._places = list(work)
        self._spikes += spikes
        times = np.unique(np.concatenate([core.t_us for core in work])) if work else np.zeros(0, np.int64)
        arrivals = (times - self._start_us) * _PS
        left: list[NDArray[np.int64]] = []  # for each core, when the events of each time have left it
        answered = np.full(times.size, -1, np.int64)  # delays of the output layer, which may have several cores
        for core in work:
            meter = self._meters.setdefault(core.part, _Meter())
            bins = (core.t_us - self._start_us) // self._bin_us
            size = max(meter.synops.size, int(bins.max(initial=-1)) + 1)
            meter.synops = np.pad(meter.synops, (0, size - meter.synops.size))
            np.add.at(meter.synops, bins, core.synops)
            meter.events += core.t_us.size
            left.append(self._pass(core, meter, times, arrivals, left))
            if core.is_output:
                reached = np.isin(times, core.t_us)
                answered[reached] = np.maximum(answered[reached], (left[-1] - arrivals)[reached])
        self._answers.append(answered[answered >= 0])

    def _pass(
        self,
        core: CoreWork,
        meter: _Meter,
        times: NDArray[np.int64],
        arrivals: NDArray[np.int64],
        left: Sequence[NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        out = arrivals.copy()
        at, group = np.unique(core.t_us, return_inverse=True)
        if not at.size:
            return out
        here = np.searchsorted(times, at)
        latency = self._performance.latency
        ready = arrivals[here]
        if latency is not None and core.takes_input:
            ready = ready + round(latency.pads_us * _PS)
        for source in core.sources:
            ready = np.maximum(ready, left[source][here])
        synops = np.zeros(at.size, np.int64)
        np.add.at(synops, group, core.synops)
        limit = self._performance.synops_per_second[core.core].value
        busy = np.rint(synops * (1e6 * _PS / limit)).astype(np.int64)
        if latency is not None:
            busy = np.maximum(busy, round(latency.core_us * _PS))
        # First come, first served: end[i] = max(ready[i], end[i - 1]) + busy[i].
        total = np.cumsum(busy)
        end = total + np.maximum(np.maximum.accumulate(ready - total + busy), meter.busy_until)
        meter.busy_until = int(end[-1])
        delays = end - arrivals[here]
        meter.largest_delay = max(meter.largest_delay, int(delays.max()))
        out[here] = end
        return out

    def result(self, end_us: int, *, pj_per_synop: float | None = None, pj_per_spike: float | None = None) -> Workload:
        """The load up to ``end_us``."""
        performance = self._performance
        cores = []
        bins = max(1, -(-(end_us - self._start_us) // self._bin_us))
        bins = max([bins, *(meter.synops.size for meter in self._meters.values())])
        for place in self._places:
            meter = self._meters[place.part]
            cores.append(
                CoreLoad(
                    place.part,
                    place.core,
                    performance.synops_per_second[place.core],
                    np.pad(meter.synops, (0, bins - meter.synops.size)),
                    meter.events,
                    meter.largest_delay / _PS,
                )
            )
        delays = np.sort(np.concatenate(self._answers)) if self._answers else np.zeros(0, np.int64)
        latency = None
        if delays.size and performance.latency is not None:
            latency = Latency(
                float(delays[(delays.size - 1) // 2]) / _PS,
                float(delays[int(0.99 * (delays.size - 1))]) / _PS,
                float(delays[-1]) / _PS,
                int(delays.size),
            )
        energy = Energy(
            end_us - self._start_us,
            performance.resting_power_mw,
            int(sum(core.synops.sum() for core in cores)),
            self._spikes,
            pj_per_synop,
            pj_per_spike,
        )
        return Workload(self._start_us, self._bin_us, tuple(cores), latency, energy)


def check_energies(values: Iterable[float | None]) -> None:
    """Refuse an energy below 0 or that is not a number.

    Raises:
        EmulationError: there is one.
    """
    for value in values:
        if value is not None and not (np.isfinite(value) and value >= 0):
            raise EmulationError(
                f"an energy per SynOp or spike is {value}.", remedy="give picojoules, 0 or more.", code="energy"
            )
