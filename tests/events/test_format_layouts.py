"""Hand-made files: what each bit of a format means, and what is skipped."""

import struct

import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import iter_events, load_shd, make_events, read_events, write_events
from neurodeploy.events.formats import checked_pieces, open_recording


def skipped(path):
    file, chosen = open_recording(path)
    for _ in checked_pieces(file, chosen):
        pass
    return dict(file.skipped)


# ---------------------------------------------------------------- EVT 3.0


def y(value):
    return value


def x(value, p=0):
    return 0x2000 | p << 11 | value


def base(value, p=0):
    return 0x3000 | p << 11 | value


def low(value):
    return 0x6000 | value


def high(value):
    return 0x8000 | value


def evt3(path, words, header=b"% evt 3.0\n% end\n"):
    path.write_bytes(header + np.array(words, "<u2").tobytes())
    return path


STREAMS = {
    "vectors": [high(5), low(1), y(3), base(10, 1), 0x4805, 0x5081, 0x4001, x(7), 0x4003, base(9), 0x5001],
    "high resets low": [high(1), low(5), y(1), x(2), high(2), x(3), low(7), x(4)],
    "turn": [high(4095), low(4000), y(1), x(2), high(0), low(5), x(3, 1)],
    "before the first time": [low(5), y(1), x(2), base(4), 0x4FFF, high(1), x(9)],
    "triggers": [high(1), 0xA001, 0xE123, 0x7001, 0xF001, y(5), x(6, 1)],
}


def test_evt3_words(tmp_path):
    read = {name: read_events(evt3(tmp_path / "a.raw", words)).tolist() for name, words in STREAMS.items()}
    t = 5 * 4096 + 1
    expected = [(t, column, 3, 1) for column in (10, 12, 21, 22, 29, 30)]
    expected += [(t, 7, 3, 0), (t, 42, 3, 1), (t, 43, 3, 1), (t, 9, 3, 0)]
    assert read["vectors"] == expected
    assert read["high resets low"] == [(4101, 2, 1, 0), (8192, 3, 1, 0), (8199, 4, 1, 0)]
    assert read["turn"] == [(16777120, 2, 1, 0), (16777221, 3, 1, 1)]
    assert read["before the first time"] == [(4096, 9, 1, 0)]
    assert read["triggers"] == [(4096, 6, 5, 1)]
    assert skipped(tmp_path / "a.raw") == {"external triggers": 1, "other words": 3}
    evt3(tmp_path / "a.raw", STREAMS["before the first time"])
    assert skipped(tmp_path / "a.raw") == {"events before the first time": 2}
    with pytest.raises(EventError, match="x = 2048"):
        read_events(evt3(tmp_path / "a.raw", [high(0), base(2047), 0x4002]))


def random_evt3(rng, n):
    """Legal words in random order whose times run forward."""
    words, time, latest = [high(0), low(0), y(0), base(0)], 0, 0
    for kind in rng.integers(0, 9, n):
        if kind == 0:
            time += int(rng.integers(1, 9000))
            if time >> 12 != latest:
                latest = time >> 12
                words.append(high(latest & 0xFFF))
            words.append(low(time & 0xFFF))
        elif kind == 1:
            words.append(y(int(rng.integers(0, 720))))
        elif kind == 2:
            words.append(base(int(rng.integers(0, 1000)), int(rng.integers(0, 2))))
        elif kind in (3, 4):
            words.append((0x4000 if kind == 3 else 0x5000) | int(rng.integers(0, 4096 if kind == 3 else 256)))
        elif kind == 5 and rng.random() < 0.1:
            words.append(int(rng.choice([0xA001, 0xE001, 0x7001, 0xF001])))
        else:
            words.append(x(int(rng.integers(0, 1280)), int(rng.integers(0, 2))))
        if kind in (3, 4):
            words.append(base(int(rng.integers(0, 1000)), int(rng.integers(0, 2))))
    return words


def test_evt3_equals_an_independent_decoder(tmp_path, monkeypatch):
    oracle = pytest.importorskip("evt3")
    rng = np.random.default_rng(0)
    monkeypatch.setattr("neurodeploy.events.stream.BLOCK_RECORDS", 997)  # state is carried over many blocks
    # Before the first TIME_HIGH the other decoder drops the row as well as the events; the row is still the row here.
    streams = [words for name, words in STREAMS.items() if name != "before the first time"]
    streams += [random_evt3(rng, 3000) for _ in range(10)]
    streams.append(random_evt3(rng, 60_000))  # long enough for the clock to turn
    for words in streams:
        events = read_events(evt3(tmp_path / "a.raw", words))
        expected = oracle.decode_bytes(np.array(words, "<u2").tobytes())
        assert events.size == len(expected) > 0
        for name, column in (("t", expected.t), ("x", expected.x), ("y", expected.y), ("p", expected.p)):
            assert np.array_equal(events[name], column), name
    assert int(events["t"][-1]) > 1 << 24
    write_events(tmp_path / "b.raw", events)
    written = oracle.decode_file(str(tmp_path / "b.raw"))
    assert np.array_equal(written.t, events["t"])
    assert np.array_equal(written.x, events["x"])


# ---------------------------------------------------------------- EVT 2.0 and DAT


def test_evt2_words(tmp_path):
    words = [1 << 28 | 5 << 22, 8 << 28 | 2, 0 << 28 | 7 << 22 | 100 << 11 | 200, 10 << 28, 14 << 28,
             1 << 28 | 63 << 22 | 2047 << 11 | 2047]  # fmt: skip
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 2.0\n% t0 1000\n" + np.array(words, "<u4").tobytes())
    assert read_events(path).tolist() == [(1000 + 2 * 64 + 7, 100, 200, 0), (1000 + 2 * 64 + 63, 2047, 2047, 1)]
    assert skipped(path) == {"events before the first time": 1, "external triggers": 1, "other words": 1}


@pytest.mark.parametrize("kind", [0x00, 0x0C])
def test_dat_records(kind, tmp_path):
    path = tmp_path / "a.dat"
    record = struct.pack("<II", 77, 1 << 28 | 240 << 14 | 320)
    path.write_bytes(b"% Data file containing Event2D events.\n% Version 2\n" + bytes([kind, 8]) + record)
    assert read_events(path).tolist() == [(77, 320, 240, 1)]
    path.write_bytes(b"% Version 2\n" + bytes([0x28, 8]) + record)
    with pytest.raises(EventError, match="0x28"):
        read_events(path)
    path.write_bytes(b"% Version 1\n" + bytes([kind, 8]) + record)
    with pytest.raises(EventError, match="version '1'"):
        read_events(path)


# ---------------------------------------------------------------- Event Stream


def es(path, kind, body, version=(2, 0, 0)):
    path.write_bytes(b"Event Stream" + bytes([*version, kind]) + struct.pack("<HH", 304, 240) + body)
    return path


def test_event_stream_bytes(tmp_path):
    pixel = struct.pack("<HH", 303, 239)
    dvs = bytes([0xFF, 0xFE, 0xFF, 5 << 1 | 1]) + pixel + bytes([126 << 1]) + pixel
    assert read_events(es(tmp_path / "a.es", 1, dvs)).tolist() == [(259, 303, 239, 1), (385, 303, 239, 0)]
    atis = bytes([0xFD, 0xFF, 0xFC, 9 << 2 | 2]) + pixel + bytes([1 << 2 | 3]) + pixel + bytes([62 << 2]) + pixel
    t = 63 + 3 * 63 + 9
    assert read_events(es(tmp_path / "a.es", 2, atis)).tolist() == [(t, 303, 239, 1), (t + 63, 303, 239, 0)]
    assert skipped(tmp_path / "a.es") == {"exposure measurements": 1}
    for kind, version, word in ((4, (2, 0, 0), "color"), (0, (2, 0, 0), "generic"), (1, (3, 0, 0), "version 3")):
        with pytest.raises(EventError, match=word):
            read_events(es(tmp_path / "a.es", kind, dvs, version))
    for cut in range(1, 5):
        with pytest.raises(EventError, match="too early"):
            read_events(es(tmp_path / "a.es", 1, dvs[:-cut]))


def test_event_stream_records_across_blocks(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    n = 600
    t = np.cumsum(rng.integers(0, 700, n))
    # Addresses full of 0xFF and 0xFE: only the position tells them from first bytes.
    events = make_events(t, rng.choice([0xFFFE, 0xFEFE, 0x00FF, 3], n), rng.choice([0xFEFE, 0, 0xFFFE], n), t % 2)
    write_events(tmp_path / "a.es", events)
    for block in (64, 511, 1 << 19):
        monkeypatch.setattr("neurodeploy.events.event_stream._BLOCK", block)
        assert np.array_equal(read_events(tmp_path / "a.es"), events)


# ---------------------------------------------------------------- AEDAT


def aedat2(path, chip, records):
    line = f"# 1 µs\r\n# AEChip: {chip}\r\n" if chip else ""
    body = b"".join(struct.pack(">II", *record) for record in records)
    path.write_bytes(f"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n{line}".encode() + body)
    return path


def test_aedat2_addresses(tmp_path):
    path = tmp_path / "a.aedat"
    dvs128 = [(100 << 8 | 20 << 1 | 1, 1000), (0x8000, 1001), (127 << 8 | 127 << 1, 1002)]
    for chip in ("ch.unizh.ini.jaer.chip.retina.DVS128", "DVS128"):
        assert read_events(aedat2(path, chip, dvs128)).tolist() == [(1000, 20, 100, 1), (1002, 127, 127, 0)]
    assert skipped(path) == {"external events, IMU and frame samples": 1}
    davis = [(1 << 31 | 5, 1), (0x400, 2), (179 << 22 | 239 << 12 | 1 << 11, 3)]
    for chip in ("eu.seebetter.ini.chips.davis.DAVIS240C", "eu.seebetter.ini.chips.davis.Davis346blue"):
        assert read_events(aedat2(path, chip, davis)).tolist() == [(3, 239, 179, 1)]
    with pytest.raises(EventError, match=r"names no chip.*\(2, 128, 128\) for DVS128"):
        read_events(aedat2(path, None, dvs128))
    assert read_events(aedat2(path, None, dvs128), sensor_size=(2, 128, 128)).size == 2
    assert read_events(aedat2(path, None, davis), sensor_size=(2, 180, 240)).size == 1
    with pytest.raises(EventError, match=r"'ch\.Cochlea'"):
        read_events(aedat2(path, "ch.Cochlea", dvs128))
    with pytest.raises(EventError, match="bits that a DVS128 does not use"):
        read_events(aedat2(path, "DVS128", davis))


def aedat3(path, packets, header=b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"):
    path.write_bytes(header + b"".join(packets))
    return path


def packet(events, overflow=0, kind=1, source=1, size=8):
    body = b"".join(
        struct.pack("<II", column << 17 | row << 2 | p << 1 | valid, t) for t, column, row, p, valid in events
    )
    return struct.pack("<hhiiiiii", kind, source, size, 4, overflow, 9999, len(events), 0) + body


def test_aedat3_packets(tmp_path):
    path = tmp_path / "a.aedat"
    first = packet([(5, 127, 0, 1, 1), (6, 1, 2, 0, 0), (7, 0, 127, 0, 1)])
    special = packet([(6, 0, 0, 0, 1)], kind=0)
    late = packet([(1, 3, 4, 1, 1)], overflow=2)
    assert read_events(aedat3(path, [first, special, late])).tolist() == [
        (5, 127, 0, 1), (7, 0, 127, 0), ((2 << 31) + 1, 3, 4, 1),
    ]  # fmt: skip
    assert skipped(path) == {"events marked invalid": 1, "special events": 1}
    with pytest.raises(EventError, match="x reaches 128"):
        read_events(aedat3(path, [packet([(5, 128, 0, 1, 1)])]))
    with pytest.raises(EventError, match="3 events of 8 bytes, 16 are left"):
        read_events(aedat3(path, [first[:-8]]))
    with pytest.raises(EventError, match="packet header"):
        read_events(aedat3(path, [first, special[:20]]))
    with pytest.raises(EventError, match="several cameras"):
        read_events(aedat3(path, [first, packet([(9, 0, 0, 0, 1)], source=2)]))
    with pytest.raises(EventError, match="not RAW"):
        read_events(aedat3(path, [], b"#!AER-DAT3.1\r\n#Format: Serial-TS\r\n#!END-HEADER\r\n"))
    with pytest.raises(EventError, match="END-HEADER"):
        read_events(aedat3(path, [first], b"#!AER-DAT3.1\r\n#Format: RAW\r\n"))


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("1,2,3,1\n4,5,6,0", [(1, 2, 3, 1), (4, 5, 6, 0)]),
        ("\n# made by hand\nx y p t\n2 3 1 1\n\n5 6 0 4\r\n", [(1, 2, 3, 1), (4, 5, 6, 0)]),
        ("timestamp;x;y;polarity;extra\n1;2;3;-1;9\n", [(1, 2, 3, 0)]),
        (
            "0.003811 96 133 0\n0.0038115 96 134 1\n1 1 1 1\n",
            [(3811, 96, 133, 0), (3811, 96, 134, 1), (10**6, 1, 1, 1)],
        ),
        ("1468939993.067416019\t1\t2\t1\n", [(1468939993067416, 1, 2, 1)]),
        ("", []),
        ("# nothing\n", []),
        ("t,x,y,p\n", []),
    ],
)
def test_text(text, events, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    assert read_events(tmp_path / "a.txt").tolist() == events


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "line 1 has 3 columns"),
        ("1,2,3,0\n1,2,3\n", "line 2 has 3 numbers, 4"),
        ("1,2,3,0\n\n1,2,zwei,3\n", "line 3 holds the character 'z'"),
        ("1,2,3.5,0\n", r"line 1: y = '3\.5' is not an integer"),
        ("1,2,3,0\n1.5,2,3,0\n", r"line 2: t = '1\.5' is not an integer"),
        ("1.0,2,3,0\n1.5.2,2,3,0\n", r"line 2: t = '1\.5\.2' is not a time in seconds"),
        ("t,x,y\n1,2,3\n", "missing: p"),
        ("1,70000,3,0\n", "x spans 70000..70000"),
        ("1,2,3,-2\n", "p spans -2"),
        ("-1,2,3,0\n", "times span"),
        ("1,2,3,2--\n", "p = '2--'"),
        ("1,2,-,0\n", "y = '-'"),
        ("99999999999999999999,2,3,0\n", "t = '9999"),
        ("1e6,2,3,0\n", "'e'"),
        ("1," + "2" * 9999, "longer than|is not an integer"),
    ],
)
def test_bad_text(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(EventError, match=message) as error:
        read_events(tmp_path / "a.csv")
    assert "a.csv" in str(error.value)


def test_text_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("neurodeploy.events.delimited._BLOCK", 50)
    events = make_events(range(0, 3000, 3), [7] * 1000, [123] * 1000, [1, 0] * 500)
    write_events(tmp_path / "a.csv", events)
    assert np.array_equal(read_events(tmp_path / "a.csv"), events)
    with (tmp_path / "a.csv").open("a") as handle:
        handle.write("1,2\n")
    with pytest.raises(EventError, match="line 1002 has 2 numbers"):
        list(iter_events(tmp_path / "a.csv"))


# ---------------------------------------------------------------- HDF5


def h5(path, **columns):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name.replace("__", "/")] = values
    return path


def test_dsec_layout(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = h5(tmp_path / "a.h5", events__x=[1, 2], events__y=[3, 4], events__p=[-1, 1], events__t=[5, 9], t_offset=1000)
    assert read_events(path).tolist() == [(1005, 1, 3, 0), (1009, 2, 4, 1)]
    events = make_events([10_500, 10_900, 12_000, 13_999], [1, 2, 3, 4], [5, 6, 7, 8], [0, 1, 1, 0])
    write_events(path, events)
    with h5py.File(path) as file:
        assert file["t_offset"][()] == 10_000
        assert file["events/t"][:].tolist() == [500, 900, 2000, 3999]
        assert file["ms_to_idx"][:].tolist() == [0, 2, 2, 3, 4]
    compound = np.array([(1, 2, 1, 5)], [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    assert read_events(h5(path, CD__events=compound)).tolist() == [(5, 1, 2, 1)]


def test_bad_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    for columns, message in (
        ({"events__x": [1], "events__y": [1], "events__p": [1]}, "no t"),
        ({"events__x": [1], "events__y": [1, 2], "events__p": [1], "events__t": [1]}, "lengths"),
        ({"events__x": [1], "events__y": [1], "events__p": [1], "events__t": [0.5]}, "integers are expected"),
        ({"events__x": [1], "events__y": [1], "events__p": [1], "events__t": [[1]]}, "not a vector"),
        ({"frames": [1]}, "no group 'events'"),
        ({"events__x": [1], "events__y": [1], "events__p": [1], "events__t": [1], "t_offset": [1, 2]}, "t_offset"),
    ):
        with pytest.raises(EventError, match=message):
            read_events(h5(path, **columns))
    with h5py.File(path, "w") as file:
        for name in "xypt":
            huge = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            huge.set_chunk((1024,))
            h5py.h5d.create(file.require_group("events").id, name.encode(), h5py.h5t.STD_I64LE,
                            h5py.h5s.create_simple((1 << 50,)), huge)  # fmt: skip
    with pytest.raises(EventError, match=r"claims 9007199254740992 bytes"):
        read_events(path)


def test_a_missing_filter_is_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    if h5py.h5z.filter_avail(32001):
        pytest.skip("the blosc filter is installed")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in "xypt":
            blosc = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            blosc.set_chunk((4,))
            blosc.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (0, 0, 0, 0, 5, 1, 0))
            h5py.h5d.create(file.require_group("events").id, name.encode(), h5py.h5t.STD_I64LE,
                            h5py.h5s.create_simple((4,)), blosc)  # fmt: skip
    with pytest.raises(EventError, match=r"filter 32001.*hdf5plugin"):
        read_events(path)


def shd(path, *, lengths=(3, 0, 2)):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (3,), h5py.vlen_dtype(np.float32))
        units = file.create_dataset("spikes/units", (3,), h5py.vlen_dtype(np.uint16))
        for index, n in enumerate(lengths):
            times[index] = np.arange(n, dtype=np.float32) * 0.25
            units[index] = np.arange(n) * 100
        file["labels"] = np.array([4, 0, 19], np.uint16)
    return path


def test_shd(tmp_path):
    data = load_shd(shd(tmp_path / "a.h5"))
    assert data.sensor_size == (1, 1, 700)
    assert data.labels.tolist() == [4, 0, 19]
    assert data[0][0].tolist() == [(0, 0, 0, 0), (250_000, 100, 0, 0), (500_000, 200, 0, 0)]
    assert [len(events) for events, _ in load_shd(tmp_path / "a.h5", [2, 1])] == [2, 0]
    with pytest.raises(EventError, match="load_shd"):
        read_events(tmp_path / "a.h5")
    with pytest.raises(EventError, match=r"choose from 0\.\.2"):
        load_shd(tmp_path / "a.h5", [3])
    with pytest.raises(EventError, match="x reaches 200"):
        load_shd(tmp_path / "a.h5", units=200)
