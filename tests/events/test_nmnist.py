import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import EventError
from neurodeploy.events import make_events, read_events, read_nmnist_bin, write_events, write_nmnist_bin
from tests.shared_data import SHARED, needs_shared

FIXTURES = SHARED / "event-files" / "fixtures"


@needs_shared
def test_fixture_equals_its_npz(tmp_path):
    events = read_events(FIXTURES / "nmnist_test3_label0.bin", sensor_size=(2, 34, 34))
    reference = read_events(FIXTURES / "nmnist_test3_label0.npz", sensor_size=(2, 34, 34))
    assert events.size == 5293
    assert events["t"][0] == 581
    assert np.array_equal(events, reference)
    write_events(tmp_path / "copy.bin", events)
    assert (tmp_path / "copy.bin").read_bytes() == (FIXTURES / "nmnist_test3_label0.bin").read_bytes()


def test_record_layout(tmp_path):
    path = tmp_path / "one.bin"
    path.write_bytes(bytes([33, 7, 0x80 | 0x01, 0x02, 0x03]))
    assert read_nmnist_bin(path).tolist() == [((1 << 16) | (2 << 8) | 3, 33, 7, 1)]


def test_overflow_records_move_the_clock(tmp_path):
    path = tmp_path / "overflow.bin"
    path.write_bytes(bytes([1, 2, 0, 0, 10]) + bytes([0, 240, 0, 0, 10]) + bytes([3, 4, 0, 0, 20]))
    assert read_nmnist_bin(path)["t"].tolist() == [10, 8192 + 20]


def test_time_wraps(tmp_path):
    top = 1 << 23
    events = make_events([top - 2, top + 1, top + 5, 2 * top - 1, 2 * top], [1] * 5, [2] * 5, [0] * 5)
    # The first event cannot tell a whole turn of the clock: the file starts below one turn.
    write_nmnist_bin(tmp_path / "w.bin", events)
    assert np.array_equal(read_nmnist_bin(tmp_path / "w.bin"), events)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 22) - 1), st.integers(0, 255), st.integers(0, 239), st.integers(0, 1)),
        max_size=40,
    )
)
def test_round_trip(tmp_path_factory, rows):
    gaps, x, y, p = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = [np.array(c, np.int64) for c in (np.cumsum(gaps, dtype=np.int64), x, y, p)]
    events = make_events(*columns)
    path = tmp_path_factory.mktemp("bin") / "r.bin"
    write_nmnist_bin(path, events)
    assert np.array_equal(read_nmnist_bin(path), events)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(EventError, match="no such file"):
        read_nmnist_bin(path)
    path.write_bytes(bytes(12))
    with pytest.raises(EventError, match=r"x\.bin: .* of 5 bytes, 2 bytes are left"):
        read_nmnist_bin(path)
    path.write_bytes(bytes([34, 0, 0, 0, 1]))
    with pytest.raises(EventError, match=r"x\.bin: field x reaches 34"):
        read_nmnist_bin(path, sensor_size=(2, 34, 34))
    path.write_bytes(bytes([1, 1, 0, 0, 9, 1, 1, 0, 0, 8]))
    with pytest.raises(EventError, match="not sorted"):
        read_nmnist_bin(path)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        (([0], [256], [0], [0]), "event-outside-sensor"),
        (([0], [0], [240], [0]), "event-outside-sensor"),
        (([0], [0], [0], [2]), "event-outside-sensor"),
        (([1 << 23], [0], [0], [0]), "bin-time-range"),
        (([0, 1 << 24], [0, 0], [0, 0], [0, 0]), "bin-time-range"),
    ],
)
def test_writer_refuses_what_the_format_cannot_hold(tmp_path, events, code):
    with pytest.raises(EventError) as error:
        write_nmnist_bin(tmp_path / "y.bin", make_events(*events))
    assert error.value.code == code
    assert not list(tmp_path.iterdir())
