"""The work told from spikes and routing is the emulator's; the models of load and latency follow their formulas."""

from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.emulate.stream import execute_stream, joined, whole_times
from neurodeploy.emulate.workload import WorkloadMeter
from neurodeploy.errors import EmulationError
from neurodeploy.events.array import make_events
from neurodeploy.target import CoreWork, Performance, Published, PublishedLatency, load_target
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.family import family
from neurodeploy.targets.dynapcnn.switches import Switches
from neurodeploy.targets.dynapcnn.workload import core_work
from tests.targets.programs import random_events, random_input, random_program, random_switches, with_random_inputs


def pieces_of(events, rng):
    cuts = [0, *np.sort(rng.integers(0, events.size + 1, 4)).tolist(), events.size]
    return [events[a:b] for a, b in pairwise(cuts)]


@pytest.mark.parametrize("block", range(4))
def test_work_told_from_the_spikes_equals_the_emulators_counters(block):
    events_outside = 0
    for seed in range(40 * block, 40 * block + 40):
        rng = np.random.default_rng(seed)
        built = random_program(rng)
        switches = Switches(**{**random_switches(rng).__dict__, "lost_events": 0.0})
        events = random_events(rng, built.input_shape, 100)
        if seed % 2:
            built = with_random_inputs(rng, built)
            events = random_input(rng, built, 40)
        run = Emulator(built, switches, 1000.0).run(events, until_us=4000)
        for core, work in zip(built.cores, core_work(built, events, run.spikes, switches), strict=True):
            counters = run.counters[core.layer]
            assert (work.part, work.core) == (core.name, core.core)
            assert work.t_us.size == counters["events"]
            assert int(work.synops.sum()) == counters["synops"]
            events_outside += counters["dropped"]
    assert events_outside > 0


@pytest.mark.parametrize("seed", range(6))
def test_load_and_stream_do_not_depend_on_how_a_recording_is_cut(seed):
    rng = np.random.default_rng(seed)
    built = random_program(rng)
    events = random_events(rng, built.input_shape, 300, span_us=400)  # several events at most times
    performance = family.performance(load_target("speck2f").chip)

    def measured(pieces):
        meter, emulator = WorkloadMeter(performance, 10, 0), Emulator(built, slow_clock_hz=5000.0)
        for piece in whole_times(pieces):
            spikes = emulator.run(piece).spikes
            meter.add(core_work(built, piece, spikes, Switches()), spikes.size)
        return meter.result(400).to_dict()

    whole = Emulator(built, slow_clock_hz=5000.0).run(events, until_us=500)
    load = measured([events])
    for _ in range(4):
        pieces = pieces_of(events, rng)
        assert measured(pieces) == load
        streamed = joined(execute_stream(Emulator(built, slow_clock_hz=5000.0), pieces, record=None, until_us=500))
        assert np.array_equal(streamed.spikes, whole.spikes)
        assert streamed.counters == whole.counters
        assert all(np.array_equal(streamed.counts[name], whole.counts[name]) for name in whole.counts)


PERFORMANCE = Performance(
    (Published(1e6, "a"), Published(2e6, "b")), Published(0.5, "c"), PublishedLatency(3, 0.25, "d")
)


def chain(first, second):
    """Work of two cores: lists of (time in us, SynOps)."""
    return [
        CoreWork("one", 0, *columns(first), sources=(), takes_input=True, is_output=False),
        CoreWork("two", 1, *columns(second), sources=(0,), takes_input=False, is_output=True),
    ]


def columns(pairs):
    t, synops = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(t, np.int64), np.array(synops, np.int64)


def test_the_models_formulas():
    meter = WorkloadMeter(PERFORMANCE, 1000, 0)
    # Core 0 does 1 SynOp/us, core 1 does 2. At 0 us: 10 + 10 us of work in core 0, then 4 us in core 1.
    meter.add(chain([(0, 10), (0, 10), (5, 1), (2500, 0)], [(0, 8), (2500, 0)]), spikes=4)
    load = meter.result(3000, pj_per_synop=2)
    assert [core.synops.tolist() for core in load.cores] == [[21, 0, 0], [8, 0, 0]]
    # 0 us: pads 3 + 20 + 4. 2500 us: pads 3 and the least time of two cores. The event at 5 us waits until 23.
    assert (load.latency.largest_us, load.latency.median_us, load.latency.answers) == (27.0, 3.5, 2)
    assert load.cores[0].largest_delay_us == 23.0
    assert load.energy.resting_uj == pytest.approx(0.5e-3 * 3000e-6 * 1e6)
    assert load.energy.dynamic_uj is None
    assert ("energy per spike", "not published", "give your own, e.g. from a power log") in load.energy.rows()
    energy = meter.result(3000, pj_per_synop=2, pj_per_spike=1).energy
    assert (energy.synops, energy.spikes) == (29, 4)
    assert energy.dynamic_uj == pytest.approx(62e-6)


def test_an_answer_is_there_when_the_last_core_of_a_split_output_layer_is_done():
    parts = [
        CoreWork(f"out[{part}]", part, *columns(work), sources=(), takes_input=True, is_output=True)
        for part, work in enumerate(([(0, 10), (100, 0)], [(0, 40), (200, 0)]))
    ]
    meter = WorkloadMeter(PERFORMANCE, 1000, 0)
    meter.add(parts, spikes=0)
    latency = meter.result(1000).latency
    # 0 us: 3 us pads, then 10 us in core 0 and 20 us in core 1; one answer.
    assert (latency.answers, latency.largest_us, latency.median_us) == (3, 23.0, 3.25)


def test_congestion_names_core_layer_and_time():
    meter = WorkloadMeter(PERFORMANCE, 1000, 500)
    meter.add(chain([(500, 900), (1600, 1001), (1700, 0)], [(500, 2000)]), spikes=0)
    load = meter.result(2500)
    assert load.peak(load.cores[0]) == (1001e3, 1500)
    (warning,) = load.warnings  # core 1 is at its limit, not above it
    assert "one on core 0" in warning
    assert "1.001 M SynOps/s at 1.5 ms (1 of 2 bins" in warning
    assert "above 1 M, a)" in warning


def test_the_published_figures_are_those_of_the_chip():
    performance = family.performance(load_target("speck2f").chip)
    assert [rate.value for rate in performance.synops_per_second] == [100e6, *[30e6] * 8]
    # One event: 1.58 us through one core with the pads, 3.36 us through nine.
    assert performance.latency.pads_us + performance.latency.core_us == pytest.approx(1.58)
    assert performance.latency.pads_us + 9 * performance.latency.core_us == pytest.approx(3.36)
    assert all(rate.source for rate in performance.synops_per_second)


def test_refusals():
    with pytest.raises(EmulationError, match="bin_us"):
        WorkloadMeter(PERFORMANCE, 0, 0)
    built = random_program(np.random.default_rng(0))
    with pytest.raises(EmulationError, match="lost_events"):
        core_work(built, make_events([0], [0], [0], [0]), np.empty(0), Switches(lost_events=0.5))
    with pytest.raises(EmulationError, match="no piece"):
        joined([])
