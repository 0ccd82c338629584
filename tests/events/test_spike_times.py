import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import EventDataset, SpikeTimes, load_spike_times, make_events, save_npz, save_spike_times


def patterns():
    times = np.array([[[0.1, np.inf], [0.3, 0.2]], [[np.inf, np.inf], [0.0, np.inf]]])
    return SpikeTimes(times, np.array([1, 0]))


def test_patterns_survive_their_file(tmp_path):
    save_spike_times(tmp_path / "a.npz", patterns())
    again = load_spike_times(tmp_path / "a.npz")
    assert again.digest() == patterns().digest()
    assert (len(again), again.inputs, again.n_classes) == (2, 2, 2)
    assert again[1:].times.tolist() == [[[np.inf, np.inf], [0.0, np.inf]]]
    save_spike_times(tmp_path / "b.npz", again)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_recordings_become_patterns(tmp_path):
    rng = np.random.default_rng(0)
    events = [
        make_events(np.sort(rng.integers(0, 9, n)), *(rng.integers(0, size, n) for size in (4, 3, 2))) for n in (9, 0)
    ]
    recordings = EventDataset.from_recordings(events, [2, 1], sensor_size=(2, 3, 4))
    save_npz(tmp_path / "events.npz", recordings)
    found = load_spike_times(tmp_path / "events.npz")
    assert found.inputs == 24
    assert found.labels.tolist() == [2, 1]
    for index in range(2):
        for place in range(24):
            p, y, x = place // 12, place // 4 % 3, place % 4
            chosen = (events[index]["p"] == p) & (events[index]["y"] == y) & (events[index]["x"] == x)
            times = found.times[index, place]
            assert times[np.isfinite(times)].tolist() == (events[index]["t"][chosen] * 1e-6).tolist()


@pytest.mark.parametrize(
    ("times", "labels", "message"),
    [
        (np.zeros((1, 2)), np.zeros(1, np.int64), r"times are float64 of shape \(1, 2\)"),
        (np.zeros((1, 2, 1), np.float32), np.zeros(1, np.int64), "times are float32"),
        (np.zeros((1, 2, 1)), np.zeros(2, np.int64), r"labels are int64 of shape \(2,\) for 1 patterns"),
        (np.zeros((1, 2, 1)), np.zeros(1), "labels are float64"),
        (np.zeros((1, 2, 1)), np.array([-1]), "label -1 is negative"),
        (np.array([[[0.0], [-1.0]]]), np.array([0]), "time -1.0 in pattern 0, input 1, slot 0"),
        (np.array([[[0.0], [np.nan]]]), np.array([0]), "time nan in pattern 0, input 1"),
    ],
)
def test_what_is_no_pattern_is_refused(times, labels, message):
    with pytest.raises(EventError, match=message):
        SpikeTimes(times, labels)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", times=np.zeros((1, 1, 1)))
    with pytest.raises(EventError, match=r"missing: labels \(found: times\)"):
        load_spike_times(tmp_path / "x.npz")
    with pytest.raises(EventError, match="no such file"):
        load_spike_times(tmp_path / "y.npz")
