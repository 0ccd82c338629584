"""Local training in the loop: learns, resumes with the same bits, and refuses what it cannot be combined with."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from neurodeploy.errors import ConfigError, TrainError
from neurodeploy.train import evaluate, load_trained, train
from neurodeploy.train.checkpoint import checkpoint_path
from neurodeploy.train.local import LocalLearner
from tests.train.toy import toy_config

CUTS = {"truncation": 2, "block": 1}  # 5 steps: two segments and a shorter one


def test_it_learns_and_leaves_a_network_without_classifiers(tmp_path: Path) -> None:
    config = toy_config(tmp_path, local=CUTS, epochs=6)
    result = train(config, tmp_path / "run", quiet=True)
    assert result.metrics[-1]["loss"] < 0.6 * result.metrics[0]["loss"]
    assert result.test_accuracy >= 0.9
    assert set(result.metrics[0]) >= {"loss", "accuracy", "test_accuracy", "test_rates"}
    with safe_open(result.model, framework="pt") as file:
        assert set(file.keys()) == set(result.network.state_dict())
    network, read = load_trained(result.run)
    assert read == config
    assert evaluate(network, result.data, result.data.test, read)["accuracy"] == result.test_accuracy


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path, local=CUTS)
    through = train(config, tmp_path / "through", quiet=True)
    train_epoch = LocalLearner.train_epoch

    def stop(self: LocalLearner, epoch: int, *rest: object) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(self, epoch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalLearner, "train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", quiet=True)
    assert checkpoint_path(tmp_path / "stopped", 2).exists()
    monkeypatch.undo()
    resumed = train(config, tmp_path / "stopped", resume=True, quiet=True)
    assert resumed.model.read_bytes() == through.model.read_bytes()


def test_without_cuts_it_learns_as_the_loop_does(tmp_path: Path) -> None:
    """The same loss but for rounding (counts against rate times steps), so the same course."""
    plain = train(toy_config(tmp_path, epochs=1), tmp_path / "plain", quiet=True)
    local = train(toy_config(tmp_path, epochs=1, local={}), tmp_path / "local", quiet=True)
    for a, b in zip(plain.network.parameters(), local.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert local.metrics[0]["loss"] == pytest.approx(plain.metrics[0]["loss"], rel=1e-5)


def test_weights_stay_within_the_limit_and_gradients_are_clipped(tmp_path: Path) -> None:
    """12 updates (4 batches of 3 segments) of at most lr * norm each."""

    def trained(lr: float) -> list[torch.Tensor]:
        optimizer = {"type": "sgd", "lr": lr, "momentum": 0.0, "clip_grad_norm": 1e-6}
        config = toy_config(tmp_path, local=CUTS, epochs=1, max_weight=0.2, optimizer=optimizer)
        network = train(config, tmp_path / f"{lr:g}", quiet=True).network
        return [one.detach() for one in network.parameters()]

    still, moved = trained(1e-30), trained(50.0)
    assert max(float(one.abs().max()) for one in moved) <= float(torch.tensor(0.2))
    assert max(float(one.abs().max()) for one in moved) > 0.19
    changes = [float((a - b).abs().max()) for a, b in zip(still, moved, strict=True)]
    assert all(0 < change <= 12 * 50e-6 * 1.01 for change in changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"local": {"truncation": 0}},
        {"local": {"segment": 3}},
        {"local": CUTS, "shards": 2},
        {"local": CUTS, "loss": {"synops_weight": 1.0}},
        {"local": CUTS, "loss": {"activity": [{"quantity": "rate", "target": 0.1}]}},
        {"local": CUTS, "quantize_aware": {"target": "speck2f"}},
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        toy_config(tmp_path, **changes)
    assert caught.value.code == "config-field"


def test_several_processes_are_refused(tmp_path: Path) -> None:
    """torchrun sets the shards after the settings were read."""
    config = toy_config(tmp_path, local=CUTS).model_copy(update={"shards": 2})
    with pytest.raises(ConfigError) as caught:
        train(config, tmp_path / "run", quiet=True)
    assert caught.value.code == "local-shards"


def test_diverging_losses_end_the_run(tmp_path: Path) -> None:
    config = toy_config(tmp_path, local=CUTS, optimizer={"type": "sgd", "lr": 1e38, "momentum": 0.0})
    with pytest.raises(TrainError) as caught:
        train(config, tmp_path / "run", quiet=True)
    assert caught.value.code == "train-diverged"
