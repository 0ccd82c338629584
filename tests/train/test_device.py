"""Training names its device; on a GPU it gives the same bits each time."""

import pytest
import torch

from neurodeploy.errors import ConfigError, TrainError
from neurodeploy.train import train
from neurodeploy.train.device import chosen_device, reproducible
from tests.train.toy import toy_config

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps", ""])
def test_a_device_is_the_cpu_or_a_gpu(tmp_path, device):
    with pytest.raises(ConfigError, match="device"):
        toy_config(tmp_path, device=device)


def test_a_chips_integers_are_trained_on_the_cpu(tmp_path):
    with pytest.raises(ConfigError, match="quantize_aware trains on the CPU, and device is cuda"):
        toy_config(tmp_path, device="cuda", quantize_aware={"target": "speck2f"})


def test_a_missing_gpu_is_refused_before_anything_is_written(tmp_path):
    config = toy_config(tmp_path, device=f"cuda:{GPUS}")
    with pytest.raises(TrainError, match=rf"cuda:{GPUS} was asked for.*device: cpu") as caught:
        train(config, tmp_path / "run", quiet=True)
    assert caught.value.code == "train-device"
    assert not (tmp_path / "run").exists()


def test_settings_of_torch_are_given_back():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with reproducible(chosen_device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.allow_tf32
        torch.rand(5)
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32) == before
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.skipif(not GPUS, reason="needs a GPU")
def test_a_gpu_learns_the_same_each_time_and_goes_on_where_it_stopped(tmp_path):
    whole = train(toy_config(tmp_path, device="cuda"), tmp_path / "whole", quiet=True)
    assert whole.test_accuracy >= 0.9
    again = train(toy_config(tmp_path, device="cuda"), tmp_path / "again", quiet=True)
    assert again.model.read_bytes() == whole.model.read_bytes()
    (tmp_path / "again" / "model.safetensors").unlink()
    resumed = train(toy_config(tmp_path, device="cuda"), tmp_path / "again", resume=True, quiet=True)
    assert resumed.model.read_bytes() == whole.model.read_bytes()
