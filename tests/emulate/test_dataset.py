import numpy as np
import pytest

from neurodeploy.emulate import execute_dataset
from neurodeploy.errors import EmulationError, EventError
from neurodeploy.events import EventDataset
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
        done: list[int] = []
        run = execute_dataset(
            lambda: Emulator(built, slow_clock_hz=1000.0),
            data,
            threads=threads,
            until_us=4000,
            progress=done.append,
        )
        assert done == list(range(1, 18))
        assert run.labels.tolist() == data.labels.tolist()
        last = built.layers[-1]
        assert np.array_equal(run.outputs, np.stack([single.counts[last] for single in fresh]))
        for name in built.layers:
            assert run.layer_spikes[name].tolist() == [single.counters[name]["spikes"] for single in fresh]
            assert np.array_equal(run.counts[name], sum(single.counts[name].astype(np.uint64) for single in fresh))
            for key in fresh[0].counters[name]:
                assert run.counters[name][key] == sum(single.counters[name][key] for single in fresh)


def test_errors_of_a_thread_reach_the_caller() -> None:
    built, data = recordings(0)
    wide = EventDataset.from_recordings([data[0][0]] * 3, [0, 0, 0], sensor_size=(200, 200, 200))
    wide.x[-1] = 150
    with pytest.raises(EventError, match="sensor"):
        execute_dataset(lambda: Emulator(built, slow_clock_hz=1000.0), wide, threads=2)
    with pytest.raises(EmulationError, match="recordings"):
        execute_dataset(lambda: Emulator(built, slow_clock_hz=1000.0), data[:0])
