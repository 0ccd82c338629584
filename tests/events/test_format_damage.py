"""Damaged files: cut off, with flipped bytes, or with bytes put in or taken out. Either events or one clear error."""

import time

import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import iter_events, load_shd, make_events, read_events, write_events
from neurodeploy.events.array import EVENT_DTYPE
from neurodeploy.events.formats import FORMATS
from tests.events.test_format_layouts import shd
from tests.shared_data import SHARED

CASES = 200


def whole_file(name, tmp_path):
    if name == "aedat4":
        pytest.importorskip("aedat")
        path = SHARED / "event-files" / "fixtures" / "nmnist_test3_label0.aedat4"
        if not path.is_file():
            pytest.skip("the development data is not beside the repository")
        return path.read_bytes()
    rng = np.random.default_rng(0)
    t = np.cumsum(rng.integers(0, 300, 400))
    events = make_events(t, rng.integers(0, 34, 400), rng.integers(0, 34, 400), rng.integers(0, 2, 400))
    path = tmp_path / f"whole{FORMATS[name].suffixes[0]}"
    write_events(path, events, sensor_size=(2, 34, 34) if name != "aedat2" else (2, 128, 128))
    return path.read_bytes()


def damage(rng, data):
    data = bytearray(data)
    # Half of the damage goes to the front, where headers are.
    spot = int(rng.integers(0, min(len(data), 200) if rng.random() < 0.5 else len(data)))
    match int(rng.integers(0, 4)):
        case 0:
            del data[spot:]
        case 1:
            for at in [spot, *rng.integers(0, len(data), int(rng.integers(0, 4)))]:
                data[at] ^= int(rng.integers(1, 256))
        case 2:
            del data[spot : spot + int(rng.integers(1, 20))]
        case 3:
            data[spot:spot] = rng.bytes(int(rng.integers(1, 20)))
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_events_or_one_clear_error(name, tmp_path):
    whole = whole_file(name, tmp_path)
    rng = np.random.default_rng(sum(name.encode()))
    path = tmp_path / f"damaged{FORMATS[name].suffixes[0]}"
    errors, slowest, messages = 0, 0.0, set()
    cases = CASES if name != "aedat4" else CASES // 10  # each starts a process
    for _ in range(cases):
        path.write_bytes(damage(rng, whole))
        start = time.perf_counter()
        try:
            events = read_events(path)
        except EventError as error:
            errors += 1
            messages.add(str(error))
        else:
            assert events.dtype == EVENT_DTYPE
            assert np.all(np.diff(events["t"]) >= 0)
            assert events.nbytes < 200 * len(whole)
        slowest = max(slowest, time.perf_counter() - start)
    assert errors > cases // 20
    assert all(path.name in message and "Remedy: " in message for message in messages)
    assert slowest < 60  # nothing hangs; a file takes milliseconds


def test_damaged_shd_files(tmp_path):
    whole = shd(tmp_path / "whole.h5").read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / "damaged.h5"
    errors = 0
    for _ in range(CASES):
        path.write_bytes(damage(rng, whole))
        try:
            data = load_shd(path)
        except EventError:
            errors += 1
        else:
            assert len(data) <= 3
    assert errors > CASES // 4


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
def test_noise_and_empty_files(name, tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / f"noise{FORMATS[name].suffixes[0]}"
    for length in (0, 1, 3, 100, 1001):
        path.write_bytes(rng.bytes(length))
        try:
            text = f"noise read as {read_events(path).size} events"
        except EventError as error:
            text = str(error)
        assert "noise" in text


@pytest.mark.parametrize("name", FORMATS)
def test_missing_files_and_folders(name, tmp_path):
    path = tmp_path / f"absent{FORMATS[name].suffixes[0]}"
    with pytest.raises(EventError, match="absent"):
        read_events(path)
    path.mkdir()
    with pytest.raises(EventError, match="absent"):
        iter_events(path)
