import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurodeploy.errors import EventError
from neurodeploy.events import (
    EventDataset,
    dataset_to_raster,
    events_to_raster,
    latency_encode,
    make_events,
    raster_to_events,
    rate_encode,
)


def test_bin_edges():
    events = make_events([0, 9, 10, 10, 29], [0, 1, 0, 0, 1], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0])
    raster = events_to_raster(events, (2, 2, 2), dt_us=10)
    expected = np.zeros((3, 2, 2, 2), np.uint8)
    expected[0, 0, 0, 0] = expected[0, 0, 0, 1] = expected[2, 0, 0, 1] = 1
    expected[1, 1, 1, 0] = 2
    assert raster.dtype == np.uint8
    assert np.array_equal(raster, expected)
    assert events_to_raster(events, (2, 2, 2), dt_us=10, n_time_steps=5).sum() == events.size


def test_nothing_is_dropped_silently():
    events = make_events([0, 30], [0, 0], [0, 0], [0, 0])
    with pytest.raises(EventError) as error:
        events_to_raster(events, (1, 1, 1), dt_us=10, n_time_steps=3)
    assert error.value.code == "raster-span"
    many = make_events([0] * 256, [0] * 256, [0] * 256, [0] * 256)
    with pytest.raises(EventError) as error:
        events_to_raster(many, (1, 1, 1), dt_us=10)
    assert error.value.code == "raster-overflow"
    assert events_to_raster(many, (1, 1, 1), dt_us=10, dtype=np.uint16).item() == 256
    for dt in (0, -1, 0.5):
        with pytest.raises(EventError):
            events_to_raster(events, (1, 1, 1), dt_us=dt)


@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4), elements=st.integers(0, 3)))
def test_raster_events_raster_is_the_identity(raster):
    events = raster_to_events(raster, dt_us=7)
    assert events.size == int(raster.sum())
    back = events_to_raster(events, raster.shape[1:], dt_us=7, n_time_steps=raster.shape[0])
    assert np.array_equal(back, raster)


def test_raster_to_events_refuses_what_is_no_count():
    for bad, code in (
        (np.zeros((2, 2)), "raster-shape"),
        (np.full((1, 1, 1, 1), 0.5), "raster-counts"),
        (np.full((1, 1, 1, 1), np.nan), "raster-counts"),
        (np.full((1, 1, 1, 1), -1), "raster-counts"),
    ):
        with pytest.raises(EventError) as error:
            raster_to_events(bad, dt_us=1)
        assert error.value.code == code
    assert raster_to_events(np.full((1, 1, 1, 1), 2.0, np.float32), dt_us=1).size == 2


def test_batch_equals_single_rasters():
    rng = np.random.default_rng(0)
    recordings = []
    for n in (50, 0, 200):
        t = np.sort(rng.integers(0, 100, n))
        recordings.append(make_events(t, rng.integers(0, 5, n), rng.integers(0, 4, n), rng.integers(0, 2, n)))
    data = EventDataset.from_recordings(recordings, [0, 1, 2], sensor_size=(2, 4, 5), duration_us=100)
    batch = dataset_to_raster(data, [2, 0, 1, 2], dt_us=30)
    assert batch.shape == (4, 4, 2, 4, 5)
    assert batch.dtype == np.float32
    for row, i in enumerate([2, 0, 1, 2]):
        assert np.array_equal(batch[row], events_to_raster(recordings[i], (2, 4, 5), dt_us=30, n_time_steps=4))
    with pytest.raises(EventError):
        dataset_to_raster(data, [0], dt_us=30, n_time_steps=3)


def test_rate_encoder_statistics_and_seed():
    image = np.array([[[0.0, 0.25], [0.5, 1.0]]])
    for process in ("bernoulli", "poisson"):
        events = rate_encode(
            image, duration_us=2_000_000, dt_us=1000, rng=np.random.default_rng(3), max_rate_hz=400.0, process=process
        )
        again = rate_encode(
            image, duration_us=2_000_000, dt_us=1000, rng=np.random.default_rng(3), max_rate_hz=400.0, process=process
        )
        assert np.array_equal(events, again)
        counts = events_to_raster(events, (1, 2, 2), dt_us=2_000_000, dtype=np.int64)[0, 0]
        expected = image[0] * 800
        assert counts[0, 0] == 0
        assert np.all(np.abs(counts - expected) <= 5 * np.sqrt(expected))
    sure = rate_encode(np.ones((1, 1, 1)), duration_us=10, dt_us=1, rng=np.random.default_rng(0), max_rate_hz=1e6)
    assert sure["t"].tolist() == list(range(10))
    with pytest.raises(EventError, match="probability"):
        rate_encode(image, duration_us=10, dt_us=1000, rng=np.random.default_rng(0), max_rate_hz=1001.0)


def test_latency_encoder():
    image = np.array([[[1.0, 0.5], [0.0, 0.25]]])
    events = latency_encode(image, duration_us=100, dt_us=10)
    assert events.tolist() == [(0, 0, 0, 0), (40, 1, 0, 0), (70, 1, 1, 0)]
    assert latency_encode(image, duration_us=100, dt_us=10, silent_below=0.3).size == 2


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.full((1, 2, 2), 1.5), np.full((1, 2, 2), np.nan)])
def test_encoders_refuse_what_is_no_image(bad):
    with pytest.raises(EventError):
        latency_encode(bad, duration_us=10, dt_us=1)
    with pytest.raises(EventError):
        rate_encode(bad, duration_us=10, dt_us=1, rng=np.random.default_rng(0), max_rate_hz=1.0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"duration_us": -5000}, "raster-duration"),
        ({"dt_us": float("nan")}, "raster-dt"),
        ({"dt_us": 0.5}, "raster-dt"),
        ({"max_rate_hz": float("nan")}, "encode-argument"),
        ({"max_rate_hz": float("inf"), "process": "poisson"}, "encode-argument"),
        ({"max_rate_hz": -1.0}, "encode-argument"),
    ],
)
def test_rate_encoder_refuses_impossible_times_and_rates(changes, code):
    options = {"duration_us": 5000, "dt_us": 1000, "max_rate_hz": 10.0, "rng": np.random.default_rng(0)} | changes
    with pytest.raises(EventError) as error:
        rate_encode(np.ones((1, 2, 2)), **options)
    assert error.value.code == code


@pytest.mark.parametrize("index", [-1, 2])
def test_batch_refuses_recordings_that_are_not_there(index):
    events = make_events([1, 2], [0, 1], [0, 1], [0, 0])
    dataset = EventDataset.from_recordings([events, events], np.arange(2), sensor_size=(1, 2, 2))
    assert dataset_to_raster(dataset, [0, 1], dt_us=1).sum() == 4
    with pytest.raises(EventError, match="holds 2 recordings"):
        dataset_to_raster(dataset, [0, index], dt_us=1)
