"""Every format: equal to the reference recording, exact round trips, pieces equal to the whole, clear refusals."""

import tracemalloc
from itertools import pairwise

import h5py
import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import EventError
from neurodeploy.events import iter_events, make_events, read_events, write_events
from neurodeploy.events.formats import FORMATS
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Input, Neuron, Output
from tests.shared_data import SHARED, needs_shared

FILES = SHARED / "event-files"
FIXTURE = FILES / "fixtures" / "nmnist_test3_label0"
WRITTEN = [name for name, format in FORMATS.items() if format.write]


def random_events(rng, n, *, width=34, height=34, gap_us=300):
    t = np.cumsum(rng.integers(0, gap_us, n))
    return make_events(t, rng.integers(0, width, n), rng.integers(0, height, n), rng.integers(0, 2, n))


@needs_shared
@pytest.mark.parametrize("suffix", ["csv", "bin", "dat", "evt2.raw", "evt3.raw", "es", "aedat4", "dsec.h5"])
def test_fixtures_equal_the_reference(suffix):
    if suffix == "aedat4":
        pytest.importorskip("aedat")
    reference = read_events(f"{FIXTURE}.npz")
    assert reference.size == 5293
    assert np.array_equal(read_events(f"{FIXTURE}.{suffix}", sensor_size=(2, 34, 34)), reference)
    pieces = list(iter_events(f"{FIXTURE}.{suffix}", chunk_events=1000))
    assert [piece.size for piece in pieces] == [1000] * 5 + [293]
    assert np.array_equal(np.concatenate(pieces), reference)


@needs_shared
def test_a_large_event_stream():
    events = read_events(FILES / "faery_dvs.es")
    assert events.size == 473_225
    assert (int(events["x"].max()), int(events["y"].max())) == (319, 239)
    assert int(events["t"][-1]) < 1_000_000
    pieces = np.concatenate(list(iter_events(FILES / "faery_dvs.es", chunk_events=65_537)))
    assert np.array_equal(pieces, events)


@needs_shared
def test_aedat4_of_a_camera():
    pytest.importorskip("aedat")
    events = read_events(FILES / "tonic_sample.aedat4")
    assert events.size == 111_954
    assert int(events["t"][-1] - events["t"][0]) < 600_000
    with pytest.raises(EventError, match="239"):
        read_events(FILES / "tonic_sample.aedat4", sensor_size=(2, 239, 320))


def test_aedat4_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.aedat4").write_bytes(b"#!AER-DAT4.0\r\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EventError, match="pip install aedat"):
        read_events(tmp_path / "a.aedat4")


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("n", [0, 1, 2, 5000])
def test_round_trip(name, n, tmp_path):
    events = random_events(np.random.default_rng(n), n)
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    write_events(path, events)
    assert np.array_equal(read_events(path, sensor_size=(2, 34, 34)), events)
    again = path.read_bytes()
    write_events(path, events)
    assert path.read_bytes() == again, "the same events give the same bytes"
    pieces = list(iter_events(path, chunk_events=7))
    assert all(piece.size == 7 for piece in pieces[:-1])
    assert sum(piece.size for piece in pieces) == n


@pytest.mark.parametrize("name", ["dat", "evt2", "evt3", "es", "aedat2", "aedat3", "csv"])
def test_more_events_than_one_block(name, tmp_path):
    events = random_events(np.random.default_rng(1), 150_000, width=128, height=128)
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    write_events(path, events)
    assert np.array_equal(read_events(path), events)


#: What each format holds at most: x, y, channel.
LARGEST = {
    "npz": (65535, 65535, 255), "csv": (65535, 65535, 255), "bin": (255, 239, 1), "dat": (16383, 16383, 15),
    "evt2": (2047, 2047, 1), "evt3": (2047, 2047, 1), "es": (65534, 65534, 1), "aedat2": (639, 479, 1),
    "aedat3": (32767, 32767, 1), "hdf5": (65535, 65535, 255),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_extremes_are_carried_and_one_more_is_refused(name, tmp_path):
    x, y, p = LARGEST[name]
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    events = make_events([0, 1, 1], [0, x, x], [y, 0, y], [0, p, 0])
    write_events(path, events)
    assert np.array_equal(read_events(path), events)
    path.unlink()
    for column, limit in (("x", x), ("y", y), ("p", p)):
        if limit == np.iinfo(events.dtype[column]).max:
            continue  # the array itself ends here
        more = events.copy()
        more[column][np.argmax(events[column])] = limit + 1
        with pytest.raises(EventError, match="Remedy"):
            write_events(path, more)
        assert not list(tmp_path.iterdir()), f"{column} = {limit + 1} left a file"


TURNS = {"dat": 1 << 32, "evt2": 1 << 34, "evt3": 1 << 24, "aedat2": 1 << 32, "aedat3": 1 << 31}


@pytest.mark.parametrize("name", TURNS)
def test_time_turns(name, tmp_path):
    turn = TURNS[name]
    t = [turn - 2, turn - 1, turn, turn + 1, turn + 5000, 2 * turn - 1, 2 * turn, 2 * turn, 2 * turn + 4096]
    t.insert(5, turn + turn // 2 + 1)
    events = make_events(t, range(10), range(10), [0, 1] * 5)
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    write_events(path, events)
    assert np.array_equal(read_events(path), events)


@pytest.mark.parametrize("name", ["dat", "aedat2"])
def test_times_the_counter_cannot_tell_are_refused(name, tmp_path):
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    for t in ([1 << 32], [5, 3 << 31]):
        with pytest.raises(EventError) as error:
            write_events(path, make_events(t, [1] * len(t), [1] * len(t), [1] * len(t)))
        assert error.value.code == "event-time-range"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["evt2", "evt3", "es"])
def test_late_starts_are_carried_within_reason(name, tmp_path):
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    events = make_events([10**9, 2 * 10**9], [1, 2], [3, 4], [0, 1])
    write_events(path, events)
    assert np.array_equal(read_events(path), events)
    with pytest.raises(EventError) as error:
        write_events(path, make_events([10**16], [1], [1], [1]))
    assert error.value.code == "event-time-range"


def test_sensor_size_of_the_header_is_the_bound(tmp_path):
    events = make_events([1, 2], [3, 9], [4, 5], [0, 1])
    for name in ("evt2", "evt3", "es", "dat"):
        path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
        write_events(path, events, sensor_size=(2, 6, 10))
        assert np.array_equal(read_events(path), events)
        whole = path.read_bytes()
        for before, after in ((b"10x6", b"09x6"), (b"width=10", b"width=09"), (b"Width 10", b"Width 09"),
                              (b"\x0a\x00\x06\x00", b"\x09\x00\x06\x00")):  # fmt: skip
            whole = whole.replace(before, after, 1)
        path.write_bytes(whole)
        with pytest.raises(EventError, match=r"x reaches 9.* x = 0\.\.8"):
            read_events(path)


def test_unsorted_files_are_refused_or_sorted(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("5,1,1,0\n9,2,2,1\n7,3,3,1\n9,4,4,0\n")
    with pytest.raises(EventError, match=r"event 2 has t = 7 us after 9 us.*--sort"):
        read_events(path)
    assert read_events(path, sort=True).tolist() == [(5, 1, 1, 0), (7, 3, 3, 1), (9, 2, 2, 1), (9, 4, 4, 0)]


def test_order_is_checked_from_block_to_block(tmp_path):
    path = tmp_path / "r.aedat"
    write_events(path, random_events(np.random.default_rng(0), 9000))
    data = bytearray(path.read_bytes())
    start = data.index(b"END-HEADER\r\n") + 12
    second = start + 28 + 8192 * 8 + 28
    data[second + 4 : second + 8] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(EventError, match="event 8192 has t = 0 us"):
        list(iter_events(path))


def test_formats_by_name_and_by_header(tmp_path):
    events = random_events(np.random.default_rng(0), 100)
    write_events(tmp_path / "a.evt2.raw", events)
    write_events(tmp_path / "b.aedat2", events)
    (tmp_path / "a.evt2.raw").rename(tmp_path / "a.raw")
    (tmp_path / "b.aedat2").rename(tmp_path / "b.aedat")
    assert np.array_equal(read_events(tmp_path / "a.raw"), events)
    assert np.array_equal(read_events(tmp_path / "b.aedat"), events)
    write_events(tmp_path / "c", events, format="es")
    assert np.array_equal(read_events(tmp_path / "c", format="es"), events)
    (tmp_path / "d.raw").write_bytes(b"% evt 2.1\n" + bytes(80))
    with pytest.raises(EventError, match=r"EVT 2\.0 or EVT 3\.0"):
        read_events(tmp_path / "d.raw")
    with pytest.raises(EventError, match="there is no event format 'evt9'"):
        read_events(tmp_path / "c", format="evt9")
    with pytest.raises(EventError, match="read, not written"):
        write_events(tmp_path / "e.aedat4", events)
    with pytest.raises(EventError, match="chunk_events is 0"):
        iter_events(tmp_path / "c", format="es", chunk_events=0)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "npz"])
def test_streaming_takes_little_memory(name, tmp_path):
    events = random_events(np.random.default_rng(0), 600_000, gap_us=4)
    path = tmp_path / f"r{FORMATS[name].suffixes[0]}"
    write_events(path, events)
    whole = events.nbytes  # 7.8 MB; held once as an array, and parsing all of it would take several times that
    peaks = []
    for part in (2, 1):  # half of the recording, then all of it
        write_events(path, events[: events.size // part])
        tracemalloc.start()
        n = sum(piece.size for piece in iter_events(path, chunk_events=10_000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n == events.size // part
    assert peaks[1] < peaks[0] + whole // 8, "memory must not grow with the file"


def test_a_streamed_recording_gives_the_emulators_spikes(tmp_path):
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 0.5, (4, 2, 3, 3)).astype(np.float32)
    neuron = Neuron(np.asarray(1.0, np.float32), np.asarray(-1.0, np.float32))
    nodes = {"input": Input((2, 34, 34)), "c": Conv2d(weight), "n": neuron, "output": Output()}
    save_graph(Graph(nodes, tuple(pairwise(nodes))), tmp_path / "model.onnx")
    deployment = nd.compile(tmp_path / "model.onnx", target="speck2f")
    write_events(tmp_path / "r.raw", random_events(rng, 4000))
    whole = deployment.emulate(read_events(tmp_path / "r.raw"))
    executor = deployment.executor()
    spikes = [executor.run(piece).spikes for piece in iter_events(tmp_path / "r.raw", chunk_events=701)]
    assert len(spikes) == 6
    assert whole.spikes.size > 100
    assert np.array_equal(np.concatenate(spikes), whole.spikes)


@needs_shared
def test_writers_agree_with_other_programs(tmp_path):
    events = read_events(f"{FIXTURE}.npz")
    write_events(tmp_path / "a.es", events, sensor_size=(2, 34, 34))
    with open(f"{FIXTURE}.es", "rb") as theirs:
        assert (tmp_path / "a.es").read_bytes() == theirs.read()
    write_events(tmp_path / "a.dat", events)
    with open(f"{FIXTURE}.dat", "rb") as theirs:
        assert (tmp_path / "a.dat").read_bytes()[-8 * events.size :] == theirs.read()[-8 * events.size :]
    write_events(tmp_path / "a.h5", events)
    with h5py.File(tmp_path / "a.h5") as ours, h5py.File(f"{FIXTURE}.dsec.h5") as theirs:
        assert np.array_equal(ours["ms_to_idx"], theirs["ms_to_idx"])
        assert ours["t_offset"][()] == theirs["t_offset"][()]
