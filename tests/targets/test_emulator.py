"""The C++ emulator equals the Python specification in everything; both follow the documented chip."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from neurodeploy import _ext
from neurodeploy.errors import ConfigError, EmulationError, EventError, ProgramError
from neurodeploy.events.array import EventArray, make_events
from neurodeploy.target import Execution, Probe
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.program import Destination, DynapcnnProgram
from neurodeploy.targets.dynapcnn.specification import Specification
from neurodeploy.targets.dynapcnn.switches import Switches
from tests.targets.programs import (
    core,
    program,
    random_events,
    random_input,
    random_probe,
    random_program,
    random_switches,
    with_random_inputs,
)

EXECUTORS = [Specification, Emulator]


def assert_same(one: Execution, other: Execution) -> None:
    assert one.counters == other.counters
    assert one.spikes.dtype == other.spikes.dtype
    assert np.array_equal(one.spikes, other.spikes)
    assert one.counts.keys() == other.counts.keys()
    for name, counts in one.counts.items():
        assert counts.dtype == other.counts[name].dtype == np.uint32
        assert np.array_equal(counts, other.counts[name])
    assert one.probes.keys() == other.probes.keys()
    for name, probe in one.probes.items():
        assert probe.neurons == other.probes[name].neurons
        assert probe.v.dtype == other.probes[name].v.dtype == np.int16
        assert np.array_equal(probe.t_us, other.probes[name].t_us)
        assert np.array_equal(probe.v, other.probes[name].v)


def repeat(n: int, **fields: int) -> np.ndarray:
    """``n`` equal events, 1 us apart."""
    place = {name: np.full(n, fields.get(name, 0)) for name in ("x", "y", "p")}
    return make_events(np.arange(n), **place)


def spike_times(execution: Execution) -> list[int]:
    return execution.spikes["t"].tolist()


# ---- equality with the specification ------------------------------------------------------------------------------


@cache
def specified(seed: int) -> tuple[DynapcnnProgram, Switches, float, EventArray, Execution]:
    """A random case and what the specification makes of it."""
    rng = np.random.default_rng(seed)
    built, switches = random_program(rng), random_switches(rng)
    events = random_events(rng, built.input_shape, int(rng.integers(0, 30)))
    if seed % 4 == 3:
        built = with_random_inputs(rng, built)
        events = random_input(rng, built, 12)
    hz = float(rng.choice([1000, 777.7, 3000]))
    probe = random_probe(rng, built)
    run = Specification(built, switches, hz).run(events, until_us=3500, probe=probe)
    return built, switches, hz, events, run


def probe_of(run: Execution) -> dict[str, tuple[tuple[int, int, int], ...]]:
    return {layer: probe.neurons for layer, probe in run.probes.items()}


PROGRAMS = 1000


@pytest.mark.parametrize("isa", _ext.dynapcnn.instruction_sets())
@pytest.mark.parametrize("block", range(8))
def test_random_programs_equal_the_specification(isa: str, block: int) -> None:
    for seed in range(block, PROGRAMS, 8):
        built, switches, hz, events, expected = specified(seed)
        emulator = Emulator(built, switches, hz, _isa=isa)
        assert_same(emulator.run(events, until_us=3500, probe=probe_of(expected)), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_random_programs_in_random_pieces_on_several_threads_equal_the_specification(threads: int) -> None:
    def check(seed: int) -> None:
        built, switches, hz, events, expected = specified(seed)
        rng = np.random.default_rng(seed)
        cuts = [0, *np.sort(rng.integers(0, events.size + 1, int(rng.integers(1, 5)))).tolist(), events.size]
        emulator = Emulator(built, switches, hz)
        probe = probe_of(expected)
        pieces = [emulator.run(events[a:b], probe=probe) for a, b in pairwise(cuts)]
        pieces.append(emulator.run(events[:0], until_us=3500, probe=probe))
        assert_same(joined(pieces), expected)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(check, range(PROGRAMS)))


def joined(pieces: list[Execution]) -> Execution:
    """The pieces of one recording as one run."""
    counts = {name: sum((piece.counts[name] for piece in pieces), np.uint32(0)) for name in pieces[0].counts}
    counters = {
        name: {key: sum(piece.counters[name][key] for piece in pieces) for key in keys}
        for name, keys in pieces[0].counters.items()
    }
    probes = {
        name: Probe(
            np.concatenate([piece.probes[name].t_us for piece in pieces]),
            probe.neurons,
            np.concatenate([piece.probes[name].v for piece in pieces]),
        )
        for name, probe in pieces[0].probes.items()
    }
    return Execution(np.concatenate([piece.spikes for piece in pieces]), counts, counters, probes)


def test_the_random_programs_reach_every_corner() -> None:
    seen = {"joins": 0, "dropped": 0, "saturated": 0, "hard": 0, "tick spikes": 0, "remainders": 0, "pooled": 0}
    seen |= {
        "lost": 0,
        "random order at a join": 0,
        "depth first at a join": 0,
        "random emission": 0,
        "probed spikes": 0,
    }
    for seed in range(PROGRAMS):
        built, switches, _, events, run = specified(seed)
        targets = [d.core for c in built.cores for d in c.destinations]
        seen["joins"] += len(targets) != len(set(targets))
        seen["pooled"] += any(d.pooling > 1 for c in built.cores for d in c.destinations)
        join = len(targets) != len(set(targets)) and any(counter["spikes"] for counter in run.counters.values())
        seen["random order at a join"] += join and switches.interleaving == "random"
        seen["depth first at a join"] += join and switches.interleaving == "depth_first"
        seen["random emission"] += run.spikes.size > 10 and switches.emission_order == "random"
        seen["lost"] += any(c["lost"] for c in run.counters.values())
        seen["probed spikes"] += any(np.ptp(probe.v) > 0 for probe in run.probes.values() if probe.v.size)
        seen["dropped"] += any(c["dropped"] for c in run.counters.values())
        seen["saturated"] += any(c["saturated"] for c in run.counters.values())
        seen["hard"] += any(c.return_to_zero and run.counters[c.layer]["spikes"] for c in built.cores)
        seen["remainders"] += any(c.weights.max() > c.threshold_high and not c.return_to_zero for c in built.cores)
        seen["tick spikes"] += bool(set(spike_times(run)) - set(events["t"].tolist()))
    assert min(seen.values()) >= 10, seen


@pytest.mark.parametrize("seed", range(30))
def test_streaming_in_pieces_equals_one_piece(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    built, switches = random_program(rng), random_switches(rng)
    events = random_events(rng, built.input_shape, 400)
    whole = Emulator(built, switches, 2000.0).run(events, until_us=4000)
    emulator = Emulator(built, switches, 2000.0)
    cuts = [0, *sorted(rng.integers(0, 400, 3).tolist()), 400]
    pieces = [emulator.run(events[a:b]) for a, b in pairwise(cuts)]
    # A piece may also end at a time of its own.
    pieces.append(emulator.run(events[:0], until_us=3500))
    pieces.append(emulator.run(events[:0], until_us=4000))
    joined = np.concatenate([piece.spikes for piece in pieces])
    assert np.array_equal(joined, whole.spikes)
    for name in built.layers:
        assert np.array_equal(sum(piece.counts[name] for piece in pieces), whole.counts[name])
        for key, value in whole.counters[name].items():
            assert sum(piece.counters[name][key] for piece in pieces) == value


@pytest.mark.parametrize("seed", range(10))
def test_reset_and_recording_do_not_change_the_result(seed: int) -> None:
    rng = np.random.default_rng(2000 + seed)
    built = random_program(rng)
    events = random_events(rng, built.input_shape, 300)
    emulator = Emulator(built, slow_clock_hz=1000.0)
    first = emulator.run(events)
    emulator.reset()
    assert_same(emulator.run(events), first)
    emulator.reset()
    last = built.layers[-1]
    only = emulator.run(events, record=[last])
    rank = len(built.layers) - 1
    assert only.spikes.tolist() == [spike for spike in first.spikes.tolist() if spike[0] == rank]
    assert only.counters == first.counters
    emulator.reset()
    assert emulator.run(events, record=()).spikes.size == 0


@pytest.mark.parametrize("isa", _ext.dynapcnn.instruction_sets())
@pytest.mark.parametrize(
    ("F", "k", "stride", "side", "threshold_low", "order"),
    [
        (16, 5, 2, 34, -150, "kernel"),
        (64, 3, 1, 12, -32768, "kernel"),
        (128, 16, 1, 16, -300, "kernel"),
        (1024, 1, 1, 3, -300, "f_y_x"),
        (7, 3, 1, 128, -300, "y_x_f"),
    ],
)
def test_large_cores_equal_the_specification(
    isa: str, F: int, k: int, stride: int, side: int, threshold_low: int, order: str
) -> None:
    rng = np.random.default_rng(F)
    weights = np.clip(rng.normal(2, 40, (F, 2, k, k)).round(), -128, 127)
    wide = core(weights, (2, side, side), stride=(stride,) * 2, padding=(k // 3,) * 2, high=150, low=threshold_low)
    built, switches = program(wide), Switches(emission_order=order)
    events = random_events(rng, built.input_shape, 60 if F * k * k > 5000 else 400)
    assert_same(Emulator(built, switches, _isa=isa).run(events), Specification(built, switches).run(events))


@pytest.mark.parametrize("F", [1, 10, 33, 100, 256, 500, 600])
@pytest.mark.parametrize("hard", [False, True])
def test_dense_cores_equal_the_specification(F: int, hard: bool) -> None:
    # One neuron map of 1x1; with stride 4 and kernel 2 some places of the 4x4 input reach no neuron.
    rng = np.random.default_rng(F)
    for k, stride, high, low in ((4, 1, 200, -200), (2, 4, 60, -32768), (4, 1, 32760, -32768)):
        weights = np.clip(rng.normal(12, 50, (F, 3, k, k)).round(), -128, 127)
        initial = np.full((F, 1, 1), high - 300 if high > 300 else 0, np.int16)
        dense = core(weights, (3, 4, 4), stride=(stride,) * 2, high=high, low=low, hard=hard, initial=initial)
        after = core(np.eye(4)[:, :, None, None], (4, 1, 1), number=1, high=1, low=-1)
        built = program(replace(dense, destinations=(Destination(1),)), after)
        events = random_events(rng, built.input_shape, 300)
        for zero_touches in (False, True):
            switches = Switches(zero_weight_touches=zero_touches)
            expected = Specification(built, switches).run(events)
            assert expected.counters["layer0"]["spikes"] > 0
            for isa in _ext.dynapcnn.instruction_sets():
                assert_same(Emulator(built, switches, _isa=isa).run(events), expected)


def test_a_network_that_multiplies_its_events_equals_the_specification() -> None:
    # Every event fires thousands of neurons, so that the emulator works through it in small chunks.
    burst = core(np.full((64, 1, 5, 5), 2), (1, 8, 8), padding=(2, 2), high=1, low=-1, destinations=(Destination(1),))
    sink = core(np.full((2, 64, 3, 3), 3), (64, 8, 8), number=1, padding=(1, 1), high=100, low=-100)
    built = program(burst, sink)
    events = random_events(np.random.default_rng(0), built.input_shape, 70)
    expected = Specification(built).run(events)
    assert expected.counters["layer0"]["spikes"] > 65536
    emulator = Emulator(built)
    assert_same(emulator.run(events), expected)
    emulator.reset()
    assert_same(emulator.run(events), expected)


def test_a_long_run_at_the_bottom_of_int16_equals_the_specification() -> None:
    # Potentials drift down to -32768 and saturate there, after many events that did not.
    rng = np.random.default_rng(0)
    weights = np.clip(rng.normal(-12, 40, (3, 1, 2, 2)).round(), -128, 127)
    built = program(core(weights, (1, 3, 3), high=100, low=-32768))
    events = random_events(rng, built.input_shape, 3000)
    expected = Specification(built).run(events)
    assert 0 < expected.counters["layer0"]["saturated"] < expected.counters["layer0"]["synops"] / 2
    for isa in _ext.dynapcnn.instruction_sets():
        assert_same(Emulator(built, _isa=isa).run(events), expected)


# ---- the documented rule: test vectors ----------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS)
class TestVectors:
    def one(self, weight: int, **fields: object) -> DynapcnnProgram:
        return program(core([[[[weight]]]], (1, 1, 1), **fields))

    def test_1_a_weight_at_threshold_fires_every_time(self, executor: type) -> None:
        assert spike_times(executor(self.one(127)).run(repeat(5))) == [0, 1, 2, 3, 4]

    def test_2_soft_reset_keeps_the_remainder(self, executor: type) -> None:
        # 100, 200 -> 73*, 173 -> 46*, 146 -> 19*, 119, 219 -> 92*
        assert spike_times(executor(self.one(100)).run(repeat(6))) == [1, 2, 3, 5]

    def test_3_hard_reset_loses_it(self, executor: type) -> None:
        assert spike_times(executor(self.one(100, hard=True)).run(repeat(4))) == [1, 3]

    def test_4_one_spike_per_event_and_a_zero_weight_is_silent(self, executor: type) -> None:
        built = program(core([[[[127]], [[0]]]], (2, 1, 1), high=10, low=-10))
        events = make_events([0, 1, 2], [0, 0, 0], [0, 0, 0], [0, 1, 0])
        # V 117 after the first; silent at the zero weight; 244 -> 234 after the third.
        assert spike_times(executor(built).run(events)) == [0, 2]
        touching = executor(built, Switches(zero_weight_touches=True)).run(events)
        assert spike_times(touching) == [0, 1, 2]

    def test_5_the_potential_is_held_at_threshold_low(self, executor: type) -> None:
        built = program(core([[[[-40]], [[50]]]], (2, 1, 1), high=50, low=-50))
        events = make_events(np.arange(5), [0] * 5, [0] * 5, [0, 0, 0, 1, 1])
        # -40, -50, -50, 0, 50 -> spike: without the clamp it would end at -20.
        assert spike_times(executor(built).run(events)) == [4]

    def test_6_a_tick_adds_the_bias(self, executor: type) -> None:
        # From 127 down by 13 a tick: an event of weight w fires after n ticks exactly while 127 - 13n + w >= 200.
        initial = np.full((1, 1, 1), 127, np.int16)
        for ticks in range(12):
            for weight in (73 + 13 * ticks, 73 + 13 * ticks - 1):
                if weight > 127:
                    continue
                built = self.one(weight, high=200, biases=[-13], initial=initial)
                run = executor(built, slow_clock_hz=1000.0).run(make_events([1000 * ticks + 1], [0], [0], [0]))
                assert len(run.spikes) == (127 - 13 * ticks + weight >= 200)
        # Held at threshold_low.
        built = self.one(127, high=127, low=-5, biases=[-13], initial=initial)
        run = executor(built, slow_clock_hz=1000.0).run(make_events([50001, 50002], [0, 0], [0, 0], [0, 0]))
        assert spike_times(run) == [50002]

    def test_7_a_corner_touches_four_neurons_the_centre_nine(self, executor: type) -> None:
        built = program(core(np.ones((1, 1, 3, 3)), (1, 5, 5), padding=(1, 1), high=1, low=-1))
        assert executor(built).run(repeat(1)).counters["layer0"]["synops"] == 4
        run = executor(built).run(repeat(1, x=2, y=2))
        assert run.counters["layer0"]["synops"] == 9
        assert [(s["y"], s["x"]) for s in run.spikes] == [(y, x) for y in (3, 2, 1) for x in (3, 2, 1)]

    def test_8_stride_two(self, executor: type) -> None:
        weights = np.arange(1, 10).reshape(1, 1, 3, 3)
        built = program(core(weights, (1, 6, 6), stride=(2, 2), padding=(1, 1), high=5, low=-1))
        corner = executor(built).run(repeat(1))
        # One neuron, through kernel offset (1, 1), whose weight 5 fires it.
        assert corner.counters["layer0"]["synops"] == 1
        assert [(s["y"], s["x"]) for s in corner.spikes] == [(0, 0)]
        assert executor(built).run(repeat(1, x=1, y=1)).counters["layer0"]["synops"] == 4

    def test_9_pooling_merges_addresses(self, executor: type) -> None:
        first = core([[[[1]]]], (1, 8, 8), high=1, low=-1, destinations=(Destination(1, pooling=2),))
        second = core([[[[1]]]], (1, 4, 4), number=1, high=1, low=-1)
        run = executor(program(first, second)).run(repeat(1, y=5, x=4))
        assert run.spikes[["layer", "t", "c", "y", "x"]].tolist() == [(0, 0, 0, 5, 4), (1, 0, 0, 2, 2)]


@pytest.mark.parametrize("isa", _ext.dynapcnn.instruction_sets())
def test_a_neuron_that_starts_at_its_threshold_is_silent_until_a_weight_touches_it(isa: str) -> None:
    initial = np.full((2, 3, 3), 50, np.int16)
    weights = np.array([[[[0, 0], [0, -1]]], [[[1, 0], [0, 0]]]])
    built = program(core(weights, (1, 4, 4), high=50, low=-50, initial=initial))
    run = Emulator(built, _isa=isa).run(repeat(1, x=1, y=1))
    assert run.counters["layer0"]["synops"] == 8
    assert run.spikes[["c", "y", "x"]].tolist() == [(1, 1, 1)]
    assert_same(run, Specification(built).run(repeat(1, x=1, y=1)))


# ---- switches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS)
class TestSwitches:
    def addresses(self, executor: type, order: str) -> list[tuple[int, ...]]:
        built = program(core(np.ones((2, 1, 2, 2)), (1, 3, 3), high=1, low=-1))
        run = executor(built, Switches(emission_order=order)).run(repeat(1, y=1, x=1))
        return [(s["c"], s["y"], s["x"]) for s in run.spikes]

    def test_emission_order(self, executor: type) -> None:
        places = [(f, y, x) for f in range(2) for y in range(2) for x in range(2)]
        assert self.addresses(executor, "f_y_x") == places
        assert self.addresses(executor, "y_x_f") == sorted(places, key=lambda a: (a[1], a[2], a[0]))
        assert self.addresses(executor, "kernel") == sorted(places, key=lambda a: (-a[1], -a[2], a[0]))

    def test_interleaving_at_a_join(self, executor: type) -> None:
        # One event fires two neurons of the first core; two relays carry the copies to one core.
        relays = [
            core(np.eye(2)[:, :, None, None], (2, 1, 1), number=n, high=1, low=-1, destinations=(Destination(3),))
            for n in (1, 2)
        ]
        first = core(np.ones((2, 1, 1, 1)), (1, 1, 1), high=1, low=-1, destinations=(Destination(1), Destination(2)))
        last = core(np.eye(2)[:, :, None, None], (2, 1, 1), number=3, high=1, low=-1)
        built = program(first, *relays, last)
        order = {
            way: [
                int(s["c"])
                for s in executor(built, Switches(interleaving=way)).run(repeat(1)).spikes
                if s["layer"] == 3
            ]
            for way in ("layers", "fifo")
        }
        assert order == {"layers": [0, 1, 0, 1], "fifo": [0, 0, 1, 1]}

    @pytest.mark.parametrize(("overflow", "spikes"), [("saturate", [0]), ("wrap", [])])
    def test_overflow(self, executor: type, overflow: str, spikes: list[int]) -> None:
        initial = np.full((1, 1, 1), 32700, np.int16)
        built = program(core([[[[100]]]], (1, 1, 1), high=32767, low=-32768, initial=initial))
        run = executor(built, Switches(overflow=overflow)).run(repeat(1))
        assert spike_times(run) == spikes
        assert run.counters["layer0"]["saturated"] == 1

    @pytest.mark.parametrize(("fires", "spikes"), [(True, [1000, 2000]), (False, [])])
    def test_tick_fires(self, executor: type, fires: bool, spikes: list[int]) -> None:
        built = program(core([[[[1]]]], (1, 1, 1), high=10, low=-10, biases=[10]))
        run = executor(built, Switches(tick_fires=fires), 1000.0).run(repeat(0), until_us=2500)
        assert spike_times(run) == spikes

    @pytest.mark.parametrize(("order", "spikes"), [("before_events", []), ("after_events", [1000])])
    def test_tick_order(self, executor: type, order: str, spikes: list[int]) -> None:
        built = program(core([[[[10]]]], (1, 1, 1), high=10, low=-10, biases=[-1]))
        run = executor(built, Switches(tick_order=order), 1000.0).run(make_events([1000], [0], [0], [0]))
        assert spike_times(run) == spikes

    @pytest.mark.parametrize(("order", "features"), [("first_to_last", [0, 1]), ("last_to_first", [1, 0])])
    def test_destination_order(self, executor: type, order: str, features: list[int]) -> None:
        first = core([[[[1]]]], (1, 1, 1), high=1, low=-1, destinations=(Destination(1), Destination(1, 1, 1)))
        last = core(np.eye(2)[:, :, None, None], (2, 1, 1), number=1, high=1, low=-1)
        run = executor(program(first, last), Switches(destination_order=order)).run(repeat(1))
        assert run.spikes["c"][run.spikes["layer"] == 1].tolist() == features

    @pytest.mark.parametrize("axis", ["x", "y"])
    @pytest.mark.parametrize(("outside", "dropped", "spikes"), [("drop", 1, 0), ("compute", 0, 1)])
    def test_outside_events(self, executor: type, outside: str, dropped: int, spikes: int, axis: str) -> None:
        # 3 columns pooled by 2 leave column 2 // 2 = 1 outside a map declared 1 wide; padding lets it reach column 0.
        shape = (1, 1, 3) if axis == "x" else (1, 3, 1)
        first = core([[[[1]]]], shape, high=1, low=-1, destinations=(Destination(1, pooling=2),))
        last = core(np.ones((1, 1, 3, 3)), (1, 1, 1), number=1, padding=(1, 1), high=1, low=-1)
        run = executor(program(first, last), Switches(outside_events=outside)).run(repeat(1, **{axis: 2}))
        assert run.counters["layer1"]["dropped"] == dropped
        assert run.counters["layer1"]["events"] == run.counters["layer1"]["spikes"] == spikes

    def test_a_feature_without_weights_is_dropped(self, executor: type) -> None:
        first = core(np.ones((2, 1, 1, 1)), (1, 1, 1), high=1, low=-1, destinations=(Destination(1, 1, 1),))
        last = core(np.ones((1, 2, 1, 1)), (2, 1, 1), number=1, high=1, low=-1)
        for outside in ("drop", "compute"):
            run = executor(program(first, last), Switches(outside_events=outside)).run(repeat(1))
            assert run.counters["layer1"] == {
                "events": 1,
                "synops": 1,
                "spikes": 1,
                "dropped": 1,
                "saturated": 0,
                "lost": 0,
            }

    def test_ticks_come_at_the_floor_of_multiples_of_the_period(self, executor: type) -> None:
        built = program(core([[[[1]]]], (1, 1, 1), high=1, low=-1, biases=[1]))
        run = executor(built, slow_clock_hz=300.0).run(repeat(0), until_us=10000)
        assert spike_times(run) == [3333, 6666, 10000]


def test_a_switch_value_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="emission_order"):
        Switches(emission_order="alphabetical")  # type: ignore[arg-type]


# ---- refusals -----------------------------------------------------------------------------------------------------


def simple(**changes: object) -> DynapcnnProgram:
    return program(replace(core(np.ones((2, 1, 3, 3)), (1, 5, 5)), **changes))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"output_shape": (2, 5, 5)}, "output_shape"),
        ({"weights": np.ones((2, 1, 2, 2), np.int8)}, "weights"),
        ({"weights": np.ones((2, 1, 3, 3), np.int16)}, "weights"),
        ({"biases": np.zeros(3, np.int16)}, "biases"),
        ({"neurons_initial_value": np.zeros((2, 5, 5), np.int16)}, "neurons_initial_value"),
        ({"neurons_initial_value": np.full((2, 3, 3), -128, np.int16)}, "below threshold_low"),
        ({"threshold_high": 0}, "threshold_high"),
        ({"threshold_high": 40000}, "threshold_high"),
        ({"threshold_low": 1}, "threshold_low"),
        ({"input_shape": (1, 300, 300)}, "input height"),
        ({"stride": (0, 1)}, "stride"),
        ({"padding": (-1, 0)}, "padding"),
        ({"destinations": (Destination(4),)}, "not configured"),
        ({"destinations": (Destination(0, pooling=3),)}, "pooling 3"),
    ],
)
def test_an_inconsistent_program_is_refused(executor: type, changes: dict[str, object], match: str) -> None:
    with pytest.raises(ProgramError, match=match):
        executor(simple(**changes))


def test_recurrence_and_missing_clock_are_refused() -> None:
    with pytest.raises(EmulationError, match="recurrent") as refused:
        Emulator(simple(destinations=(Destination(0),)))
    assert refused.value.code == "recurrent"
    with pytest.raises(EmulationError, match="slow_clock_hz") as refused:
        Emulator(simple(leak_enable=True))
    assert refused.value.code == "slow-clock"
    with pytest.raises(EmulationError, match="slow_clock_hz"):
        Emulator(simple(), slow_clock_hz=0)
    with pytest.raises(ProgramError, match="entry_core"):
        Emulator(program(core(np.ones((1, 1, 1, 1)), (1, 1, 1)), entry=5))
    with pytest.raises(ProgramError, match="unique"):
        Emulator(program(*[core(np.ones((1, 1, 1, 1)), (1, 1, 1))] * 2))


def test_bad_input_is_refused_and_leaves_the_state_alone() -> None:
    emulator = Emulator(simple())
    events = repeat(20, x=2, y=2)
    emulator.run(events)
    with pytest.raises(EventError, match="sensor"):
        emulator.run(repeat(30, x=5))
    with pytest.raises(EmulationError, match="backwards"):
        emulator.run(events)
    with pytest.raises(EmulationError, match="backwards"):
        emulator.run(repeat(0), until_us=3)
    with pytest.raises(EmulationError, match="to record or probe"):
        emulator.run(repeat(0), record=["conv9"])
    later = events.copy()
    later["t"] += 100
    both = np.concatenate([events, later])
    whole = Emulator(simple()).run(both)
    piece = emulator.run(later)
    assert whole.spikes["t"][whole.spikes["t"] >= 100].tolist() == spike_times(piece)


def test_strided_and_reordered_event_arrays_are_accepted() -> None:
    events = random_events(np.random.default_rng(0), (1, 5, 5), 200)
    expected = Emulator(simple()).run(events[::2])
    loose = np.empty(100, [("x", "i4"), ("y", "i4"), ("t", "u4"), ("p", "?")])
    for name in ("x", "y", "t", "p"):
        loose[name] = events[::2][name]
    assert_same(Emulator(simple()).run(loose), expected)
    assert_same(Emulator(simple()).run(np.ascontiguousarray(events[::2])), expected)
