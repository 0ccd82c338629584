"""``neurodeploy data``: facts, conversions and pictures of recordings."""

import struct
import zlib

import numpy as np
import pytest

from neurodeploy.events import load_npz, make_events, read_events, save_npz, write_events
from tests.cli.test_bad_input import one_error
from tests.events.test_format_layouts import shd


@pytest.fixture
def recording(tmp_path):
    events = make_events([1000, 1500, 3000, 5000], [0, 3, 3, 9], [0, 1, 1, 4], [1, 0, 0, 1])
    write_events(tmp_path / "a.es", events, sensor_size=(2, 6, 10))
    return tmp_path / "a.es"


def pixels(path):
    """The picture in a PNG with unfiltered rows."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    rows = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + length]), np.uint8).reshape(height, 1 + 3 * width)
    return rows[:, 1:].reshape(height, width, 3).astype(int)


def test_info(cli, recording):
    result = cli("data", "info", recording, "--json").json
    assert (result["format"], result["events"], result["on_events"]) == ("es", 4, 2)
    assert (result["start_us"], result["end_us"], result["rate_hz"]) == (1000, 5000, 1000.0)
    assert (result["sensor_size"], result["extent"]) == ([6, 10], [2, 5, 10])
    text = cli("data", "info", recording).out
    for words in ("Event Stream", "4 (2 ON)", "1000 us, 5000 us", "10 x 6", "x 9, y 4, p 1"):
        assert words in text


def test_info_counts_what_is_skipped(cli, tmp_path):
    words = np.array([0xA001, 0x8001, 0x6005, 0x0001, 0x2002], "<u2")
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + words.tobytes())
    assert cli("data", "info", tmp_path / "a.raw", "--json").json["skipped"] == {"external triggers": 1}


@pytest.mark.parametrize(
    "name", ["b.csv", "b.dat", "b.raw", "b.evt2.raw", "b.aedat", "b.aedat2", "b.h5", "b.npz", "b.bin"]
)
def test_convert(name, cli, recording):
    out = recording.parent / name
    assert cli("data", "convert", recording, out, "--json").json == {"out": str(out), "events": 4}
    assert np.array_equal(read_events(out), read_events(recording))
    assert cli("data", "convert", out, recording.parent / "zero.csv", "--from-zero").code == 0
    assert read_events(recording.parent / "zero.csv")["t"].tolist() == [0, 500, 2000, 4000]


def test_convert_sorts_when_asked(cli, tmp_path):
    (tmp_path / "a.csv").write_text("5,1,1,0\n3,2,2,1\n")
    one_error(cli("data", "convert", tmp_path / "a.csv", tmp_path / "b.es"), "a.csv", "--sort")
    assert cli("data", "convert", tmp_path / "a.csv", tmp_path / "b.es", "--sort").code == 0
    assert read_events(tmp_path / "b.es")["t"].tolist() == [3, 5]


def test_data_sets(cli, tmp_path, recordings):
    save_npz(tmp_path / "set.npz", recordings)
    result = cli("data", "info", tmp_path / "set.npz", "--json").json
    assert (result["recordings"], result["events"], result["sensor_size"]) == (6, 1800, [2, 12, 12])
    shd(tmp_path / "shd.h5")
    assert cli("data", "info", tmp_path / "shd.h5", "--json").json["events_per_recording"] == [0, 2.0, 3]
    assert cli("data", "convert", tmp_path / "shd.h5", tmp_path / "shd.npz").code == 0
    converted = load_npz(tmp_path / "shd.npz")
    assert (converted.labels.tolist(), converted.sensor_size) == ([4, 0, 19], (1, 1, 700))
    one_error(cli("data", "convert", tmp_path / "shd.h5", tmp_path / "shd.csv"), "3 recordings", ".npz")


def test_view_draws_on_off_and_time(cli, recording):
    out = recording.parent / "a.png"
    assert cli("data", "view", recording, "-o", out).code == 0
    picture = pixels(out)
    cell = 48  # 480 pixels for 10 columns
    assert picture.shape == (12 + 6 * cell + 12 + 240 + 12, 12 + 480 + 12 + 480 + 12, 3)
    on, off = picture[12 : 12 + 6 * cell, 12:492], picture[12 : 12 + 6 * cell, 504:984]
    on, off = on[cell // 2 :: cell, cell // 2 :: cell], off[cell // 2 :: cell, cell // 2 :: cell]
    assert np.argwhere(on.min(axis=2) < 255).tolist() == [[0, 0], [4, 9]]
    assert np.argwhere(off.min(axis=2) < 255).tolist() == [[1, 3]]
    assert on[0, 0, 0] > on[0, 0, 2], "ON is red"
    assert off[1, 3, 2] > off[1, 3, 0], "OFF is blue"
    raster = picture[12 + 6 * cell + 12 : -12, 12:984]
    row, column = np.nonzero(raster.min(axis=2) < 255)
    assert sorted(set(row // 24)) == [0, 3, 9]
    span = 4001
    assert sorted(set(column)) == [int((t - 1000) * 972 / span) for t in (1000, 1500, 3000, 5000)]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (2000, 3)])
def test_view_of_odd_sensors_and_of_nothing(size, cli, tmp_path):
    for n in (0, 5):
        t = np.arange(n)
        events = make_events(t, t * 0 + size[1] - 1, t * 0 + size[0] - 1, t * 0 + 1)
        write_events(tmp_path / "a.npz", events)
        assert cli("data", "view", tmp_path / "a.npz", "-o", tmp_path / "a.png").code == 0
        assert (pixels(tmp_path / "a.png").min(axis=2) < 200).any() == (n > 0)


def test_bad_calls(cli, recording):
    folder = recording.parent
    one_error(cli("data", "info", folder / "none.es"), "none.es")
    one_error(cli("data", "info", recording, "--sensor-size", "2,6"), "2,6", "channels,height,width")
    one_error(cli("data", "info", recording, "--sensor-size", "2,6,9"), "x reaches 9")
    one_error(cli("data", "info", recording, "--format", "evt9"), "evt9", "evt3")
    one_error(cli("data", "convert", recording, folder / "b.aedat4"), "b.aedat4")
    one_error(cli("data", "convert", recording), "OUT")
    one_error(cli("data", "view", recording, "-o", folder / "b.jpg"), "b.jpg", ".png")
    recording.write_bytes(recording.read_bytes()[:-1])
    one_error(cli("data", "view", recording, "-o", folder / "b.png"), "a.es", "too early")
    assert sorted(path.name for path in folder.iterdir()) == ["a.es"]
    for action in ("info", "convert", "view"):
        assert "--json" in cli("data", action, "--help").out
