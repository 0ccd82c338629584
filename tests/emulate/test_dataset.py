import numpy as np
import pytest

from neurodeploy.emulate.dataset import execute_dataset
from neurodeploy.errors import EmulationError, EventError
from neurodeploy.events import EventDataset
from neurodeploy.target import Execution
from neurodeploy.targets.dynapcnn.emulator import Emulator
from tests.targets.programs import random_events, random_program


def recordings(seed: int) -> tuple[object, EventDataset]:
    rng = np.random.default_rng(seed)
    built = random_program(rng)
    events = [random_events(rng, built.input_shape, int(rng.integers(1, 200))) for _ in range(17)]
    data = EventDataset.from_recordings(events, rng.integers(0, 5, 17), sensor_size=built.input_shape, duration_us=4000)
    return built, data


@pytest.mark.parametrize("seed", range(4))
def test_every_recording_equals_a_fresh_run_for_any_number_of_threads(seed: int) -> None:
    built, data = recordings(seed)
    fresh = [Emulator(built, slow_clock_hz=1000.0).run(data[i][0], until_us=4000) for i in range(17)]
    for threads in (1, 2, 5):
        seen: dict[int, Execution] = {}
        execute_dataset(
            lambda: Emulator(built, slow_clock_hz=1000.0), data, seen.__setitem__, threads=threads, until_us=4000
        )
        assert sorted(seen) == list(range(17))
        assert threads > 1 or list(seen) == list(range(17))
        for index, single in enumerate(fresh):
            assert seen[index].counters == single.counters
            assert all(np.array_equal(seen[index].counts[name], single.counts[name]) for name in built.layers)


def test_errors_of_a_thread_reach_the_caller() -> None:
    built, data = recordings(0)
    wide = EventDataset.from_recordings([data[0][0]] * 3, [0, 0, 0], sensor_size=(200, 200, 200))
    wide.x[-1] = 150
    with pytest.raises(EventError, match="sensor"):
        execute_dataset(lambda: Emulator(built, slow_clock_hz=1000.0), wide, print, threads=2)
    with pytest.raises(EmulationError, match="recordings"):
        execute_dataset(lambda: Emulator(built, slow_clock_hz=1000.0), data[:0], print)
