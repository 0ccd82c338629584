"""Runs that would not end are refused or can be interrupted; probes and imperfections of the emulator."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from neurodeploy.errors import ConfigError, EmulationError
from neurodeploy.events.array import EVENT_DTYPE, make_events
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.program import Destination
from neurodeploy.targets.dynapcnn.switches import Switches
from tests.targets.programs import core, program, random_events, random_program

NOTHING = np.empty(0, EVENT_DTYPE)


def ticking():
    return program(core(np.ones((2, 1, 3, 3)), (1, 5, 5), biases=[-1, -2]))


def test_a_clock_that_is_too_fast_is_refused_and_a_reset_makes_the_emulator_usable_again():
    emulator = Emulator(ticking(), slow_clock_hz=1e6, work_limit=10_000)
    with pytest.raises(EmulationError, match=r"10000 updates.*Remedy: a slow clock") as refused:
        emulator.run(NOTHING, until_us=10**15)
    assert refused.value.code == "work-limit"
    with pytest.raises(EmulationError, match="stopped") as refused:
        emulator.run(NOTHING)
    assert refused.value.code == "stopped"
    emulator.reset()
    # 18 neurons a tick: 500 ticks stay below the limit, and the limit is that of each run.
    for end in (500, 1000):
        emulator.run(NOTHING, until_us=end)
    with pytest.raises(EmulationError, match="work_limit"):
        Emulator(ticking(), slow_clock_hz=1.0, work_limit=0)


def test_a_network_that_multiplies_its_events_without_bound_is_refused_in_bounded_memory():
    # One event fires 262,144 neurons, each of which fires as many in the next core.
    first = core(np.full((1024, 1, 16, 16), 1), (1, 16, 16), padding=(15, 15), high=1, low=-1)
    second = core(np.full((64, 1024, 16, 16), 1), (1024, 31, 31), number=1, padding=(7, 7), high=1, low=-1)
    built = program(
        core(first.weights, (1, 16, 16), padding=(15, 15), high=1, low=-1, destinations=(Destination(1),)), second
    )
    with pytest.raises(EmulationError, match=r"one host event.* spikes in core number 1") as refused:
        Emulator(built).run(make_events([0], [8], [8], [0]))
    assert refused.value.code == "work-limit"


ENDLESS = """
import signal
import numpy as np
from neurodeploy.events.array import EVENT_DTYPE
from neurodeploy.targets.dynapcnn.emulator import Emulator
from tests.targets.programs import core, program
emulator = Emulator(program(core(np.ones((2, 1, 3, 3)), (1, 5, 5), biases=[-1, -2])), slow_clock_hz=1e6)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts in the background without it
try:
    print("started", flush=True)
    emulator.run(np.empty(0, EVENT_DTYPE), until_us=10**15)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_stops_a_run_inside_the_compiled_code():
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGINT)
            # An hour of work is left; an answer at all within the time limit shows that the run was stopped.
            assert process.communicate(timeout=60)[0] == "interrupted\n"
            assert process.returncode == 0
        finally:
            process.kill()


def test_probes_of_neurons_that_do_not_exist_are_refused():
    emulator = Emulator(ticking(), slow_clock_hz=1000.0)
    with pytest.raises(EmulationError, match=r"\(2, 0, 0\).*\(2, 3, 3\)"):
        emulator.run(NOTHING, probe={"layer0": [(2, 0, 0)]})
    with pytest.raises(EmulationError, match="conv9"):
        emulator.run(NOTHING, probe={"conv9": []})


def test_a_probe_shows_the_potential_after_every_event():
    # Test vector: weight 100, threshold 127: 100, 73*, 46*, 19*, 119.
    built = program(core([[[[100]]]], (1, 1, 1)))
    run = Emulator(built).run(make_events([5, 7, 7, 9, 20], [0] * 5, [0] * 5, [0] * 5), probe={"layer0": [(0, 0, 0)]})
    assert run.probes["layer0"].v.ravel().tolist() == [100, 73, 46, 19, 119]
    assert run.probes["layer0"].t_us.tolist() == [5, 7, 7, 9, 20]


def test_imperfections_are_off_by_default_and_the_same_for_the_same_seed():
    rng = np.random.default_rng(3)
    built = random_program(rng)
    events = random_events(rng, built.input_shape, 300)

    def spikes(**switches):
        return Emulator(built, Switches(**switches), 1000.0).run(events).spikes

    assert np.array_equal(spikes(), spikes(seed=7))
    for imperfection in ({"lost_events": 0.2}, {"initial_state": "random"}):
        assert np.array_equal(spikes(**imperfection, seed=1), spikes(**imperfection, seed=1))
        assert not np.array_equal(spikes(**imperfection, seed=1), spikes(**imperfection, seed=2))
        assert not np.array_equal(spikes(**imperfection, seed=1), spikes())


def test_the_share_of_lost_events_is_the_probability():
    built = program(core([[[[1]]]], (1, 1, 1)))
    n = 20_000
    events = make_events(np.arange(n), np.zeros(n, int), np.zeros(n, int), np.zeros(n, int))
    counters = Emulator(built, Switches(lost_events=0.1, seed=1)).run(events).counters["layer0"]
    assert counters["lost"] + counters["events"] == n
    # Binomial: 2000 +- 42; five standard deviations.
    assert abs(counters["lost"] - 2000) < 5 * 42.4
    assert Emulator(built, Switches(lost_events=1)).run(events).counters["layer0"]["events"] == 0


def test_a_random_initial_state_is_spread_below_the_threshold():
    built = program(core(np.ones((50, 1, 1, 1)), (1, 8, 8), high=100, low=-20))
    everything = [(c, y, x) for c in range(50) for y in range(8) for x in range(8)]
    run = Emulator(built, Switches(initial_state="random")).run(
        make_events([0], [0], [0], [0]), probe={"layer0": everything}
    )
    v = run.probes["layer0"].v[0].reshape(50, 64)[:, 1:]  # but those that the event touches
    assert v.min() == -20
    assert v.max() == 99
    # Uniform over 120 values: standard deviation 34.6, of the mean of 3,150 of them 0.62.
    assert abs(v.mean() - 39.5) < 5 * 0.62


@pytest.mark.parametrize("switches", [{"lost_events": 1.5}, {"lost_events": "x"}, {"seed": -1}, {"seed": 0.5}])
def test_impossible_imperfections_are_refused(switches):
    with pytest.raises(ConfigError, match=next(iter(switches))):
        Switches(**switches)
