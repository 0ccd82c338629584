"""Recurrent connections: cores that send to themselves or to earlier cores, executed in one queue."""

from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.errors import EmulationError, ProgramError
from neurodeploy.events.array import EventArray, make_events
from neurodeploy.target import load_target
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.program import Destination, DynapcnnProgram
from neurodeploy.targets.dynapcnn.specification import Specification
from neurodeploy.targets.dynapcnn.switches import Switches
from tests.targets.programs import core, program, random_events, random_program, random_switches
from tests.targets.test_emulator import assert_same

EXECUTORS = [Specification, Emulator]
ORDERS = ["fifo", "depth_first", "random"]


def at(*times_us: int, p: int = 0) -> EventArray:
    return make_events(np.array(times_us), *(np.full(len(times_us), v) for v in (0, 0, p)))


def ring(weights: list[list[int]], **fields: int) -> DynapcnnProgram:
    """One core with a map of 1x1 that takes one input as feature 0 and its own spikes from feature 1 on."""
    array = np.array(weights)[:, :, None, None]
    return program(core(array, (array.shape[1], 1, 1), destinations=(Destination(0, feature_shift=1),), **fields))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_chain_within_one_core(executor: type, order: str) -> None:
    """The input fires neuron 0; its spike comes back and fires neuron 1, whose spike fires neuron 2 every second time.

    Row f: weight of the input, then of neurons 0, 1, 2. Threshold 10.
    """
    built = ring([[10, 0, 0, 0], [0, 10, 0, 0], [0, 0, 5, 0]], high=10)
    run = executor(built, Switches(interleaving=order)).run(at(5, 20))
    assert run.spikes[["t", "c"]].tolist() == [(5, 0), (5, 1), (20, 0), (20, 1), (20, 2)]
    # Two host events, and every one of the five spikes again; each touches three neurons.
    assert run.counters["layer0"]["events"] == 7
    assert run.counters["layer0"]["synops"] == 21


@pytest.mark.parametrize("executor", EXECUTORS)
def test_inhibition_within_a_layer(executor: type) -> None:
    """Neuron 0 reaches its threshold at every event and takes 8 from neuron 1, which would fire at every second one.

    V1 after each event and the inhibition: 5 - 8 = -3, 2 - 8 = -6, -1 - 8 = -9: it never fires.
    """
    weights = [[10, 0, 0], [5, -8, 0]]
    run = executor(ring(weights, high=10), Switches(interleaving="fifo")).run(
        at(1, 2, 3), probe={"layer0": [(1, 0, 0)]}
    )
    assert run.counts["layer0"].ravel().tolist() == [3, 0]
    assert run.probes["layer0"].v.ravel().tolist() == [-3, -6, -9]
    free = executor(program(core(np.array(weights)[:, :1, None, None], (1, 1, 1), high=10))).run(at(1, 2, 3))
    assert free.counts["layer0"].ravel().tolist() == [3, 1]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_loop_over_two_cores(executor: type) -> None:
    """Core 0 fires at every event; core 1 at every second spike of core 0, and takes back 10 from core 0."""
    first = core([[[[10]], [[-10]]]], (2, 1, 1), number=0, high=10, destinations=(Destination(1),))
    second = core([[[[5]]]], (1, 1, 1), number=1, high=10, destinations=(Destination(0, feature_shift=1),))
    run = executor(program(first, second), Switches(interleaving="fifo")).run(at(1, 2, 3, 4))
    # At 2 us the second core fires and leaves -10 in the first, so that the event at 3 us only brings it back to 0.
    assert run.spikes[["t", "layer"]].tolist() == [(1, 0), (2, 0), (2, 1), (4, 0)]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_core_by_core_is_refused(executor: type) -> None:
    with pytest.raises(EmulationError) as refused:
        executor(ring([[10, 0]]), Switches(interleaving="layers"))
    assert refused.value.code == "recurrent"
    assert "fifo" in refused.value.remedy


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_earlier_core_without_a_loop_is_out_of_order(executor: type) -> None:
    later = core([[[[1]]]], (1, 1, 1), number=0, destinations=())
    first = core([[[[1]]]], (1, 1, 1), number=1, destinations=(Destination(0),))
    with pytest.raises(ProgramError, match="no loop leads back"):
        executor(program(later, first, entry=1), Switches(interleaving="fifo"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_loop_that_never_falls_silent_is_refused(order: str) -> None:
    """A neuron that excites itself by its threshold fires for ever."""
    emulator = Emulator(ring([[10, 10]], high=10), Switches(interleaving=order), work_limit=10_000)
    with pytest.raises(EmulationError) as refused:
        emulator.run(at(1))
    assert refused.value.code == "work-limit"
    assert "loop" in refused.value.remedy
    with pytest.raises(EmulationError, match="stopped"):
        emulator.run(at(2))


def test_a_loop_that_multiplies_is_refused_by_itself() -> None:
    """Without any limit from the user: 64 neurons that all excite each other."""
    emulator = Emulator(ring(np.full((64, 65), 10).tolist(), high=10), Switches(interleaving="fifo"))
    with pytest.raises(EmulationError, match="loop"):
        emulator.run(at(1))


def test_loops_have_an_order_of_their_own_unless_one_is_asked_for() -> None:
    built = ring([[10, 0, 0, 0], [0, 10, 0, 0], [0, 0, 5, 0]], high=10)
    family = load_target("speck2f").family
    expected = Specification(built, Switches(interleaving="fifo")).run(at(5, 20))
    assert_same(family.executor(built).run(at(5, 20)), expected)
    with pytest.raises(EmulationError):
        family.executor(built, switches={"interleaving": "layers"})


def with_loops(rng: np.random.Generator, built: DynapcnnProgram) -> DynapcnnProgram:
    """One or two connections back, to cores widened for them; inhibitory, so that most of them end."""
    cores = list(built.cores)
    for _ in range(int(rng.integers(1, 3))):
        free = [i for i, each in enumerate(cores) if len(each.destinations) < 2]
        if not free:
            break
        source = int(rng.choice(free))
        so_far = replace(built, cores=tuple(cores))
        ways = [i for i in range(source + 1) if so_far.leads_to(cores[i].core, cores[source].core)]
        target = int(rng.choice(ways))
        to, more = cores[target], cores[source].output_shape[0]
        low, high = -40, max(2, min(to.threshold_high // 4, 20))
        weights = rng.integers(low, high, (to.output_shape[0], more, to.kernel_size, to.kernel_size)).astype(np.int8)
        shape = (to.input_shape[0] + more, *to.input_shape[1:])
        cores[target] = replace(to, input_shape=shape, weights=np.concatenate([to.weights, weights], 1))
        end = Destination(to.core, int(rng.choice([1, 1, 2])), to.input_shape[0])
        cores[source] = replace(cores[source], destinations=(*cores[source].destinations, end))
    return replace(built, cores=tuple(cores))


def test_random_loops_equal_the_specification() -> None:
    compared = looped = 0
    for seed in range(250):
        rng = np.random.default_rng(seed)
        built = with_loops(rng, random_program(rng))
        switches = replace(random_switches(rng), interleaving=str(rng.choice(ORDERS)))
        events = random_events(rng, (1, *built.input_shape[1:]), int(rng.integers(1, 12)))
        emulator = Emulator(built, switches, 777.7, work_limit=30_000)
        try:
            found = emulator.run(events, until_us=3500)
        except EmulationError:
            continue  # a loop that does not end; counted below
        compared += 1
        looped += bool(built.loops)
        assert_same(found, Specification(built, switches, 777.7).run(events, until_us=3500))
        emulator.reset()
        half = events.size // 2
        pieces = [emulator.run(events[:half]), emulator.run(events[half:], until_us=3500)]
        assert np.array_equal(np.concatenate([piece.spikes for piece in pieces]), found.spikes)
    assert looped > 120, (looped, compared)
