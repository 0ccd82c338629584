"""How events enter: several inputs, inputs that feed several cores, the sensor's pre-processing; and decimators."""

import numpy as np
import pytest

from neurodeploy.errors import EmulationError, EventError, ProgramError
from neurodeploy.events.array import make_events
from neurodeploy.targets.dynapcnn.dvs import DvsLayer, EventFilter, leaves, pass_events
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.program import DECIMATION, Destination, Entry, InputPort
from neurodeploy.targets.dynapcnn.specification import Specification
from neurodeploy.targets.dynapcnn.switches import Switches
from tests.targets.programs import core, program, random_input, random_program, random_switches, with_random_inputs
from tests.targets.test_emulator import assert_same

EXECUTORS = pytest.mark.parametrize("executor", [Emulator, Specification])


def random_case(seed):
    rng = np.random.default_rng(seed)
    built = with_random_inputs(rng, random_program(rng))
    return built, random_switches(rng), float(rng.choice([500, 3000])), random_input(rng, built, 25)


@pytest.mark.parametrize("block", range(8))
def test_random_inputs_equal_the_specification(block):
    for seed in range(25 * block, 25 * block + 25):
        built, switches, hz, events = random_case(seed)
        expected = Specification(built, switches, hz).run(events, until_us=3500)
        assert_same(Emulator(built, switches, hz).run(events, until_us=3500), expected)
        cut = len(events) // 2
        pieces = Emulator(built, switches, hz)
        first = pieces.run(events[:cut])
        second = pieces.run(events[cut:], until_us=3500)
        assert np.array_equal(np.concatenate([first.spikes, second.spikes]), expected.spikes)


def test_the_random_programs_reach_every_corner():
    seen = {"dvs": 0, "two inputs": 0, "two entries": 0, "join": 0, "decimated": 0, "removed": 0}
    for seed in range(200):
        built, switches, hz, events = random_case(seed)
        fed = {end.core for one in built.cores for end in one.destinations}
        seen["two inputs"] += len(built.inputs) > 1
        seen["two entries"] += any(len(port.entries) > 1 for port in built.inputs)
        seen["join"] += any(entry.core in fed for port in built.inputs for entry in port.entries)
        spikes = Emulator(built, switches, hz).run(events).counters
        seen["decimated"] += any(
            one.output_decimator_interval is not None and spikes[one.layer]["spikes"] for one in built.cores
        )
        for port in built.inputs:
            seen["dvs"] += port.dvs is not None
            if port.dvs is not None and port is built.inputs[0]:
                own = events[events["p"] < 2]
                seen["removed"] += len(pass_events(port.dvs, own, switches)[0]) < len(own)
    assert min(seen.values()) >= 20, seen


def test_the_pre_processing_in_the_documented_order():
    dvs = DvsLayer(pooling=(2, 4), origin=(1, 2), cut=(3, 6), mirror=(True, False), mirror_diagonal=True)
    assert dvs.output_shape(2) == (2, 5, 3)
    # y 5 // 2 = 2, less the origin 1, mirrored in 0..2: 1; x 13 // 4 = 3, less 2: 1; then exchanged.
    assert leaves(dvs, 1, 5, 13, Switches()) == (1, 1, 1)
    # The region's first and last row and column are inside it.
    assert leaves(dvs, 0, 2, 8, Switches()) == (0, 0, 2)
    assert leaves(dvs, 0, 7, 27, Switches()) == (0, 4, 0)
    assert leaves(dvs, 0, 8, 8, Switches()) is None
    assert leaves(dvs, 0, 2, 28, Switches()) is None


def test_polarities_are_selected_merged_and_named():
    assert leaves(DvsLayer(on_channel=False), 1, 0, 0, Switches()) is None
    assert leaves(DvsLayer(off_channel=False), 0, 0, 0, Switches()) is None
    assert leaves(DvsLayer(merge=True), 1, 3, 4, Switches()) == (0, 3, 4)
    assert leaves(DvsLayer(), 1, 3, 4, Switches(on_feature=0)) == (0, 3, 4)


@pytest.mark.parametrize("seed", range(20))
def test_pooling_behind_the_pre_processing_is_pooling_in_it(seed):
    rng = np.random.default_rng(seed)
    pool = tuple(int(p) for p in rng.choice([1, 2, 4], 2))
    origin = tuple(int(p * n) for p, n in zip(pool, rng.integers(0, 3, 2), strict=True))
    swap = bool(rng.integers(2))
    mirror = (bool(rng.integers(2)), bool(rng.integers(2)))
    size = [int(n) + 4 if not m else 4 * int(n) for n, m in zip(rng.integers(1, 9, 2), mirror, strict=True)]
    origin = (4 * (origin[0] // 4), 4 * (origin[1] // 4))
    cut = (origin[0] + size[0] - 1, origin[1] + size[1] - 1)
    dvs = DvsLayer((1, 2), origin, cut, mirror=mirror, mirror_diagonal=swap)
    coarse = dvs.pooled_further(pool)
    events = make_events(np.arange(300), rng.integers(0, 128, 300), rng.integers(0, 64, 300), rng.integers(0, 2, 300))
    fine = [leaves(dvs, p, y, x, Switches()) for _, x, y, p in events.tolist()]
    _, h, w = dvs.output_shape(2)
    expected = [
        None if at is None or at[1] // pool[0] >= h // pool[0] or at[2] // pool[1] >= w // pool[1]
        else (at[0], at[1] // pool[0], at[2] // pool[1])
        for at in fine
    ]  # fmt: skip
    assert [leaves(coarse, p, y, x, Switches()) for _, x, y, p in events.tolist()] == expected
    assert coarse.output_shape(2) == (2, h // pool[0], w // pool[1])


def test_what_pooling_in_the_pre_processing_cannot_do():
    assert DvsLayer(origin=(1, 0)).pooled_further((2, 2)) is None
    assert DvsLayer(cut=(126, 127), mirror=(True, False)).pooled_further((2, 2)) is None
    assert DvsLayer(cut=(126, 127), mirror=(False, True)).pooled_further((2, 2)).cut == (62, 63)
    assert DvsLayer(cut=(1, 127)).pooled_further((4, 4)) is None


@EXECUTORS
@pytest.mark.parametrize("phase", ["last", "first"])
@pytest.mark.parametrize("interval", range(len(DECIMATION)))
def test_a_decimator_passes_one_spike_of_n(executor, phase, interval):
    n = DECIMATION[interval]
    one = core([[[[1]]]], (1, 1, 1), high=1)
    thinned = program(type(one)(**{**vars(one), "output_decimator_interval": interval}))
    run = executor(thinned, Switches(decimator_phase=phase))
    events = make_events(np.arange(2 * n + 1), *np.zeros((3, 2 * n + 1), int))
    times = run.run(events).spikes["t"].tolist()
    assert times == ([n - 1, 2 * n - 1] if phase == "last" else [0, n, 2 * n])
    run.reset()
    assert run.run(events).spikes["t"].tolist() == times


@EXECUTORS
def test_the_second_input_begins_after_the_features_of_the_first(executor):
    cores = (core([[[[5]]]], (1, 2, 2), number=0, high=1), core([[[[5]], [[5]]]], (2, 1, 1), number=1, high=1))
    ports = (InputPort("a", (1, 2, 2), (Entry(0),)), InputPort("b", (1, 1, 1), (Entry(1, 1),)))
    built = type(program(*cores))("test", cores, 0, ports)
    assert built.input_shape == (2, 2, 2)
    run = executor(built)
    counts = run.run(make_events([1, 2, 3], [1, 0, 0], [1, 0, 0], [0, 1, 1])).counts
    assert (counts["layer0"].sum(), counts["layer1"].sum()) == (1, 2)
    with pytest.raises(EventError, match="input 'b': field x"):
        run.run(make_events([4], [1], [0], [1]))


@EXECUTORS
def test_the_order_of_the_pre_processings_two_copies_is_the_switch_of_destinations(executor):
    cores = tuple(core([[[[5]]]], (1, 1, 1), number=n, high=1) for n in (3, 4))
    join = core([[[[9]], [[-9]]]], (2, 1, 1), number=5, high=9, low=-9)
    ends = [type(join)(**{**vars(one), "destinations": (Destination(5, 1, shift),)}) for shift, one in enumerate(cores)]
    dvs = DvsLayer(cut=(0, 0), merge=True)
    ports = (InputPort("sensor", (2, 1, 1), (Entry(3), Entry(4)), dvs),)
    built = type(program(*cores))("test", (*ends, join), 3, ports)
    for order, fired in (("first_to_last", 1), ("last_to_first", 0)):
        switches = Switches(interleaving="fifo", destination_order=order)
        assert executor(built, switches).run(make_events([1], [0], [0], [1])).counts["layer5"].sum() == fired


@EXECUTORS
def test_an_event_filter_is_emulated_only_when_asked_for(executor):
    one = core([[[[5]]]], (1, 1, 1), high=1)
    dvs = DvsLayer(cut=(0, 0), merge=True, event_filter=EventFilter("noise", (3, 3), 5))
    built = type(program(one))("test", (one,), 0, (InputPort("sensor", (2, 1, 1), (Entry(0),), dvs),))
    with pytest.raises(EmulationError, match="event filter"):
        executor(built)
    run = executor(built, Switches(event_filter="pass_all"))
    assert run.run(make_events([1], [0], [0], [1])).counts["layer0"].sum() == 1


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ([InputPort("a", (1, 4, 4), ())], "leads to no core"),
        ([InputPort("a", (1, 4, 4), (Entry(7),))], "core 7 is not configured"),
        ([InputPort("a", (2, 4, 4), (Entry(0, 1),))], "do not fit core 0"),
        ([InputPort("a", (1, 4, 5), (Entry(0),))], "do not fit core 0"),
        ([InputPort("a", (2, 8, 8), (Entry(0),), DvsLayer(cut=(8, 3)))], "region 0..8 is not within 0..7"),
        ([InputPort("a", (2, 8, 8), (Entry(0),) * 3, DvsLayer(cut=(3, 3)))], "two destinations"),
        ([InputPort(n, (2, 8, 8), (Entry(0),), DvsLayer(cut=(3, 3))) for n in "ab"], "one pre-processing layer"),
        ([InputPort("b", (2, 4, 4), (Entry(1),))], "not entry_core"),
    ],
)
def test_inconsistent_inputs_are_refused(ports, message):
    cores = tuple(core(np.ones((1, 2, 1, 1)), (2, 4, 4), number=n) for n in (0, 1))
    with pytest.raises(ProgramError, match=message):
        Emulator(type(program(*cores))("test", cores, 0, tuple(ports)))
