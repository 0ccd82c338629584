import zipfile

import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import EVENT_DTYPE, EventDataset, load_npz, make_events, read_events, save_npz, write_events
from tests.shared_data import SHARED, needs_shared


def small() -> EventDataset:
    first = make_events([0, 5, 5, 90], [0, 1, 1, 3], [0, 2, 2, 1], [0, 1, 1, 0])
    empty = np.empty(0, EVENT_DTYPE)
    last = make_events([7, 50], [2, 3], [2, 0], [1, 0])
    return EventDataset.from_recordings([first, empty, last], [4, 0, 2], sensor_size=(2, 3, 4))


def arrays(**changes):
    columns = {
        "x": np.array([0, 1, 2], np.uint8),
        "y": np.array([0, 1, 2], np.uint8),
        "p": np.array([0, 1, 0], np.uint8),
        "t": np.array([3, 9, 1], np.uint32),
        "offsets": np.array([0, 2, 3]),
        "labels": np.array([1, 0]),
    }
    return {key: value for key, value in (columns | changes).items() if value is not None}


def test_indexing_gives_events_and_label():
    data = small()
    events, label = data[0]
    assert (len(data), label, data.n_classes, data.duration_us) == (3, 4, 5, 91)
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(0, 0, 0, 0), (5, 1, 2, 1), (5, 1, 2, 1), (90, 3, 1, 0)]
    assert data[1][0].size == 0
    assert data[-1][1] == 2
    assert [label for _, label in data] == [4, 0, 2]
    with pytest.raises(IndexError):
        data[3]


def test_subset_reorders_recordings():
    data = small()
    chosen = data.subset([2, 0, 2])
    assert chosen.labels.tolist() == [2, 4, 2]
    for new, old in enumerate([2, 0, 2]):
        assert np.array_equal(chosen[new][0], data[old][0])
    assert chosen.duration_us == data.duration_us
    assert data[1:].labels.tolist() == [0, 2]
    assert data.subset(np.array([True, False, True])).labels.tolist() == [4, 2]


def test_until_cuts_every_recording():
    cut = small().until(50)
    assert cut.counts.tolist() == [3, 0, 1]
    assert cut.duration_us == 50
    assert cut.t.max() < 50


def test_round_trip_and_deterministic_bytes(tmp_path):
    data = small()
    save_npz(tmp_path / "a.npz", data)
    back = load_npz(tmp_path / "a.npz")
    assert back.sensor_size == data.sensor_size
    assert back.digest() == data.digest()
    save_npz(tmp_path / "b.npz", back)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    assert data.digest() != data.subset([1, 0, 2]).digest()


def test_minimal_file_needs_the_sensor_size(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays())
    with pytest.raises(EventError, match="sensor size") as error:
        load_npz(path)
    assert error.value.code == "sensor-size-missing"
    assert load_npz(path, sensor_size=(2, 3, 3)).labels.tolist() == [1, 0]
    np.savez(path, **arrays(sensor_size=np.array([2, 3, 3])))
    assert load_npz(path).sensor_size == (2, 3, 3)
    with pytest.raises(EventError, match="the call says"):
        load_npz(path, sensor_size=(2, 4, 4))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"labels": None}, "npz-keys"),
        ({"labels": np.array([1])}, "dataset-labels"),
        ({"labels": np.array([1, -1])}, "dataset-labels"),
        ({"offsets": np.array([0, 3, 2])}, "dataset-offsets"),
        ({"offsets": np.array([1, 2, 3])}, "dataset-offsets"),
        ({"offsets": np.array([0, 5, 3])}, "dataset-offsets"),
        ({"t": np.array([9, 3, 1])}, "event-unsorted"),
        ({"t": np.array([-1, 3, 1])}, "event-time"),
        ({"t": np.array([0.5, 3.0, 1.0])}, "event-dtype"),
        ({"t": np.array([1, 3])}, "event-shape"),
        ({"x": np.array([0, 1, 3])}, "event-outside-sensor"),
        ({"y": np.array([0, -1, 2])}, "event-outside-sensor"),
        ({"p": np.array([0, 2, 0])}, "event-outside-sensor"),
        ({"duration_us": np.array(5)}, "event-duration"),
        ({"sensor_size": np.array([3, 3])}, "sensor-size"),
        ({"t": np.array([1, 2, 3], dtype=object)}, "npz-damaged"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, changes, code):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(EventError) as error:
        load_npz(path, sensor_size=None if "sensor_size" in changes else (2, 3, 3))
    assert error.value.code == code
    assert "bad.npz" in str(error.value)
    assert "Remedy:" in str(error.value)


def test_error_names_the_recording(tmp_path):
    with pytest.raises(EventError, match=r"recording 1"):
        EventDataset(**(arrays(t=np.array([3, 9, 8, 2]), x=[0] * 4, y=[0] * 4, p=[0] * 4) | {"offsets": [0, 2, 4]}),
                     sensor_size=(2, 3, 3))  # fmt: skip


def test_missing_truncated_and_foreign_files(tmp_path):
    with pytest.raises(EventError, match="no such file"):
        load_npz(tmp_path / "absent.npz")
    path = tmp_path / "data.npz"
    save_npz(path, small())
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(EventError, match=r"data\.npz"):
            load_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"not an array")
    with pytest.raises(EventError, match=r"data\.npz"):
        load_npz(path)
    np.save(tmp_path / "lone.npy", np.arange(3))
    (tmp_path / "lone.npy").rename(path)
    with pytest.raises(EventError, match="archive"):
        load_npz(path)


def test_single_recordings(tmp_path):
    events = small()[0][0]
    write_events(tmp_path / "r.npz", events, sensor_size=(2, 3, 4))
    assert np.array_equal(read_events(tmp_path / "r.npz"), events)
    other_order = np.empty(events.size, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    for name in other_order.dtype.names:
        other_order[name] = events[name]
    np.savez(tmp_path / "s.npz", events=other_order)
    assert np.array_equal(read_events(tmp_path / "s.npz"), events)
    with pytest.raises(EventError) as error:
        read_events(tmp_path / "s.npz", sensor_size=(2, 3, 3))
    assert error.value.code == "event-outside-sensor"
    save_npz(tmp_path / "d.npz", small())
    with pytest.raises(EventError, match="data set of 3 recordings"):
        read_events(tmp_path / "d.npz")
    np.savez(tmp_path / "k.npz", x=events["x"])
    with pytest.raises(EventError, match="missing: t, y, p"):
        read_events(tmp_path / "k.npz")


@pytest.mark.parametrize("name", ["a.bag", "a.tiff", "a"])
def test_unknown_formats_are_refused_with_a_remedy(tmp_path, name):
    for call in (lambda: read_events(tmp_path / name), lambda: write_events(tmp_path / name, small()[0][0])):
        with pytest.raises(EventError, match=r"save the recording as \.npz") as error:
            call()
        assert error.value.code == "event-format"
    assert not list(tmp_path.iterdir())


@needs_shared
def test_real_recordings():
    test = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))
    assert len(test) == 100
    assert test.t.size == 385_596
    assert np.bincount(test.labels).tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    with pytest.raises(EventError, match="recording 0"):
        load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 30))
