import importlib.util
import math

import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import EventCamera, SaccadePath, load_npz, simulate_digit_events
from tests.shared_data import SHARED, needs_shared

QUIET = {"threshold_mismatch": 0.0, "noise_rate_hz": 0.0, "refractory_us": 0}


def edge() -> np.ndarray:
    """A white half-plane whose border is the left edge of column 4."""
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, :, 4:] = 255
    return image


def moving_left(pixels: float = 1.0) -> SaccadePath:
    """There and back again, so that the first saccade is one plain movement."""
    return SaccadePath(corners=((0.0, 0.0), (-pixels, 0.0)), saccade_us=100_000, rest_us=10_000)


def camera(**changes) -> EventCamera:
    return EventCamera(**({"height": 8, "width": 8, "path": moving_left()} | QUIET | changes))


def test_contrast_sets_the_number_of_events_and_polarity_the_direction():
    data = camera(threshold_on=0.4, threshold_off=0.4, dark_level=0.1).record(edge(), [0], seed=0)
    events, _ = data[0]
    there, back = events[events["t"] < 100_000], events[events["t"] >= 100_000]
    # Column 3 goes from black to white (ln 10 = 2.30: 5 thresholds) and back; the last column sees the image's end.
    expected = math.floor(math.log(10) / 0.4)
    for row in range(8):
        assert np.sum((there["y"] == row) & (there["x"] == 3) & (there["p"] == 1)) == expected
    assert np.all(there["x"][there["p"] == 1] == 3)
    assert np.all(there["x"][there["p"] == 0] == 7)
    assert np.all(back["p"][back["x"] == 3] == 0)
    assert not np.any(np.isin(events["x"], [0, 1, 2, 4, 5, 6]))


def test_crossing_times_are_interpolated_and_do_not_depend_on_the_sampling():
    coarse, fine = (camera(sample_us=us).record(edge(), [0], seed=0)[0][0] for us in (2000, 250))
    assert coarse.size == fine.size
    assert np.unique(coarse["t"] % 2000).size > 3
    # The mean difference is far below the coarse sampling step.
    assert np.abs(np.sort(coarse["t"]) - np.sort(fine["t"])).mean() < 400
    path, level = moving_left(), math.log(0.1) + 0.4
    dense = np.arange(0, 100_000)
    seen = np.log(0.1 + 0.9 * np.abs(path.position(dense)[:, 0]))
    true = dense[np.argmax(seen >= level)]
    first = fine["t"][(fine["x"] == 3) & (fine["y"] == 0)][0]
    assert abs(int(first) - int(true)) < 300


def test_moving_right_or_down_is_not_transposed():
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, 2, 5] = 255
    path = SaccadePath(corners=((0.0, 0.0), (0.0, 2.0)), rest_us=0)
    events = camera(path=path).record(image, [0], seed=0)[0][0]
    on = events[(events["t"] < 100_000) & (events["p"] == 1)]
    assert set(on["x"]) == {5}
    assert set(on["y"]) == {3, 4}


def test_thresholds_are_asymmetric_and_refractory_time_loses_events():
    base = camera().record(edge(), [0], seed=0)
    fewer_on = camera(threshold_on=0.8).record(edge(), [0], seed=0)
    assert fewer_on.p.sum() < base.p.sum()
    slow = camera(refractory_us=20_000).record(edge(), [0], seed=0)
    assert slow.t.size < base.t.size
    for x, y in {(int(a), int(b)) for a, b in zip(slow.x, slow.y, strict=True)}:
        assert np.all(np.diff(slow.t[(slow.x == x) & (slow.y == y)].astype(np.int64)) > 20_000)


def test_noise_and_mismatch_are_seeded():
    black = np.zeros((3, 8, 8), np.uint8)
    noisy = camera(noise_rate_hz=50.0)
    data = noisy.record(black, [0, 0, 0], seed=5)
    mean = 50.0 * 64 * 0.2
    assert abs(data.counts.mean() - mean) < 5 * math.sqrt(mean / 3)
    assert data.digest() == noisy.record(black, [0, 0, 0], seed=5).digest()
    assert data.digest() != noisy.record(black, [0, 0, 0], seed=6).digest()
    assert camera().record(black, [0, 0, 0], seed=5).t.size == 0
    uneven = camera(threshold_mismatch=0.1).record(edge(), [0], seed=0)
    first = [uneven.t[(uneven.x == 3) & (uneven.y == row)].min() for row in range(8)]
    assert len(set(first)) > 1
    assert camera(threshold_mismatch=0.1, seed=1).record(edge(), [0], seed=0).digest() != uneven.digest()


def test_a_recording_does_not_depend_on_its_neighbours():
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8), dtype=np.uint8)
    noisy = camera(noise_rate_hz=5.0)
    together = noisy.record(images, np.zeros(70, int), seed=1)
    first = noisy.record(images[:65], np.zeros(65, int), seed=1)
    assert together[:65].digest() == first.digest()


def test_path_closes_and_rests():
    path = SaccadePath()
    assert path.duration_us == 300_000
    assert np.allclose(path.position(0), path.corners[0])
    assert np.allclose(path.position(path.duration_us), path.corners[0])
    assert np.allclose(path.position(100_000), path.corners[1])
    assert np.array_equal(path.position(2_000), path.position(0))
    middle = path.position(150_000)
    assert np.allclose(middle, (np.add(path.corners[1], path.corners[2])) / 2)


@pytest.mark.parametrize(
    "changes",
    [{"threshold_on": 0.0}, {"height": 0}, {"dark_level": 0.0}, {"sample_us": 0}, {"threshold_mismatch": 0.5}],
)
def test_settings_are_checked(changes):
    with pytest.raises(EventError, match=next(iter(changes))):
        camera(**changes)


def test_images_are_checked():
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((1, 8, 8)), np.zeros((1, 9, 8), np.uint8)):
        with pytest.raises(EventError) as error:
            camera().record(bad, [0], seed=0)
        assert error.value.code == "camera-images"
    with pytest.raises(EventError, match="2 labels for 1"):
        camera().record(np.zeros((1, 8, 8), np.uint8), [0, 1], seed=0)
    with pytest.raises(EventError):
        SaccadePath(rest_us=50_000)


@needs_shared
@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")
def test_recordings_resemble_nmnist():
    real = load_npz(SHARED / "nmnist-small" / "nmnist_train.npz", sensor_size=(2, 34, 34))
    _, simulated = simulate_digit_events(0, 200, seed=0)
    assert simulated.sensor_size == real.sensor_size
    assert abs(simulated.counts.mean() / real.counts.mean() - 1) < 0.1
    assert abs(float(simulated.p.mean()) - float(real.p.mean())) < 0.03
    # Three bursts of activity at the same times.
    bins = np.arange(0, 310_000, 10_000)
    profile = [np.histogram(data.t, bins)[0] / len(data) for data in (real, simulated)]
    assert np.corrcoef(profile)[0, 1] > 0.9


def test_the_same_picture_gives_the_same_events_on_every_machine():
    rows, columns = np.mgrid[0:28, 0:28]
    ring = (np.abs(np.hypot(rows - 14, columns - 13) - 8) < 2).astype(np.uint8) * 255
    data = EventCamera(threshold_mismatch=0.0, noise_rate_hz=0.0).record(ring[None], [0], seed=0)
    assert data.digest() == "164d851e167d8ec7838312522bd4d35b5f8e996c57194ef98a94b4731fd6f02f"
