import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from neurodeploy import nn
from neurodeploy.errors import ConfigError, EventError, TrainError
from neurodeploy.events import load_npz, save_npz
from neurodeploy.train import evaluate, load_config, load_trained, save_config, train
from neurodeploy.train.checkpoint import checkpoint_path, latest_checkpoint
from neurodeploy.train.data import load_batch
from tests.cli.command_line import CommandLine
from tests.train.toy import SIZE, toy_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    config = toy_config(folder)
    return config, train(config, folder / "run", quiet=True)


def test_it_learns(finished):
    _, result = finished
    assert result.metrics[-1]["loss"] < 0.5 * result.metrics[0]["loss"]
    assert result.test_accuracy >= 0.9


def test_run_folder(finished):
    config, result = finished
    assert sorted(p.name for p in result.run.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "model.safetensors",
        "run.json",
        "train.yaml",
    ]
    assert [p.name for p in (result.run / "checkpoints").iterdir()] == ["epoch-0004.safetensors"]
    records = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert records == result.metrics
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert set(records[0]) == {
        "epoch", "loss", "accuracy", "rates", "synops", "layer_synops",
        "test_loss", "test_accuracy", "test_rates", "test_synops", "test_layer_synops", "seconds",
    }  # fmt: skip
    assert set(records[0]["rates"]) == {"iaf1", "iaf2"}
    facts = json.loads((result.run / "run.json").read_text())
    assert facts["config_sha256"] == config.sha256()
    assert facts["data_sha256"]["test"] == load_npz(config.data.test).digest()
    assert (facts["seed"], facts["n_time_steps"], facts["n_classes"], facts["input_shape"]) == (0, 5, 3, list(SIZE))
    assert facts["versions"]["torch"] == torch.__version__
    assert load_config(result.run / "train.yaml") == config


def test_same_seed_same_bytes_other_seed_other_bytes(finished, tmp_path):
    config, result = finished
    again = train(config, tmp_path / "again", quiet=True)
    assert again.model.read_bytes() == result.model.read_bytes()
    other = train(config.model_copy(update={"seed": 1}), tmp_path / "other", quiet=True)
    assert tensors(other.model).keys() == tensors(result.model).keys()
    assert any(not torch.equal(a, tensors(result.model)[name]) for name, a in tensors(other.model).items())


def test_the_callers_torch_settings_are_left_alone(finished, tmp_path):
    config, _ = finished
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train(config.model_copy(update={"epochs": 1, "threads": 1}), tmp_path / "r", quiet=True)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_load_trained_gives_the_same_network(finished):
    config, result = finished
    network, loaded = load_trained(result.run)
    assert loaded == config
    scores = evaluate(network, result.data, result.data.test, loaded)
    assert scores["accuracy"] == result.test_accuracy
    assert scores["loss"] == result.metrics[-1]["test_loss"]


def test_synops_penalty_makes_the_network_quieter(finished, tmp_path):
    config, result = finished
    priced = config.model_copy(update={"loss": config.loss.model_copy(update={"synops_weight": 3000.0})})
    quiet = train(priced, tmp_path / "priced", quiet=True)
    # The input's share of the operations is fixed; what can fall is the activity of the first layer.
    assert quiet.metrics[-1]["rates"]["iaf1"] < 0.7 * result.metrics[-1]["rates"]["iaf1"]


def test_max_weight_holds(finished, tmp_path):
    config, _ = finished
    result = train(config.model_copy(update={"max_weight": 0.05, "epochs": 1}), tmp_path / "r", quiet=True)
    weights = [t for name, t in tensors(result.model).items() if name.endswith("weight")]
    assert len(weights) == 2
    assert max(float(w.abs().max()) for w in weights) == pytest.approx(0.05)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_stopping_between_epochs_and_resuming_changes_nothing(tmp_path, kind, monkeypatch):
    config = toy_config(tmp_path / "data", optimizer={"type": kind, "lr": 0.01, "schedule": "cosine"}, epochs=3)
    straight = train(config, tmp_path / "straight", quiet=True)
    _stop_after_first_epoch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", quiet=True)
    monkeypatch.undo()
    resumed = train(config, tmp_path / "stopped", resume=True, quiet=True)
    assert resumed.model.read_bytes() == straight.model.read_bytes()
    assert without_times(resumed.metrics) == without_times(straight.metrics)


def test_resume_after_a_kill_gives_the_same_bytes(tmp_path):
    config = toy_config(tmp_path / "data", network={"factory": "tests.train.toy:mortal", "arguments": {"features": 3}})
    save_config(tmp_path / "c.yaml", config)
    script = (
        "import sys; from neurodeploy.train import load_config, train; "
        "train(load_config(sys.argv[1]), sys.argv[2], resume=sys.argv[3] == 'resume', quiet=True)"
    )

    def run(folder: str, mode: str, kill_at: int = -1) -> int:
        environment = os.environ | {"TOY_KILL_AT_CALL": str(kill_at)}
        command = [sys.executable, "-c", script, str(tmp_path / "c.yaml"), str(tmp_path / folder), mode]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    # An epoch is 4 train and 2 test batches: call 8 is the second train batch of epoch 2.
    assert run("killed", "new", kill_at=8) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert [p.name for p in (tmp_path / "killed" / "checkpoints").iterdir()] == ["epoch-0001.safetensors"]
    assert run("killed", "resume") == 0
    assert run("straight", "new") == 0
    for name in ("model.safetensors", "train.yaml", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    records = [
        [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]
        for folder in ("killed", "straight")
    ]
    assert without_times(records[0]) == without_times(records[1])


def test_resuming_a_finished_run_returns_it(finished):
    config, result = finished
    before = result.model.read_bytes()
    again = train(config, result.run, resume=True, quiet=True)
    assert again.metrics == result.metrics
    assert again.model.read_bytes() == before


def test_a_torn_metrics_line_is_dropped(tmp_path, monkeypatch):
    config = toy_config(tmp_path / "data", epochs=2)
    _stop_after_first_epoch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "loss": 0.')
    result = train(config, tmp_path / "run", resume=True, quiet=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert len(result.metrics) == 2


def test_refusals_leave_the_run_alone(finished, tmp_path):
    config, result = finished
    before = {p.name: p.read_bytes() for p in result.run.iterdir() if p.is_file()}
    with pytest.raises(TrainError, match="holds a training run") as error:
        train(config, result.run, quiet=True)
    assert error.value.code == "train-exists"
    with pytest.raises(TrainError, match="other settings"):
        train(config.model_copy(update={"seed": 9}), result.run, resume=True, quiet=True)
    assert {p.name: p.read_bytes() for p in result.run.iterdir() if p.is_file()} == before


def test_resume_refuses_other_data_and_damaged_checkpoints(tmp_path):
    config = toy_config(tmp_path / "data", epochs=1)
    result = train(config, tmp_path / "run", quiet=True)
    data = load_npz(config.data.test)
    save_npz(config.data.test, data[:20])
    with pytest.raises(TrainError, match="other data"):
        train(config, result.run, resume=True, quiet=True)
    save_npz(config.data.test, data)
    checkpoint = next((result.run / "checkpoints").iterdir())
    checkpoint.write_bytes(checkpoint.read_bytes()[:-3])
    with pytest.raises(TrainError, match="damaged"):
        train(config, result.run, resume=True, quiet=True)


def test_load_trained_refuses_what_does_not_belong_together(finished, tmp_path):
    config, _ = finished
    with pytest.raises(TrainError, match="no such file"):
        load_trained(tmp_path)
    result = train(config.model_copy(update={"epochs": 1}), tmp_path / "run", quiet=True)
    save_config(result.run / "train.yaml", config)
    with pytest.raises(TrainError, match="changed after"):
        load_trained(result.run)
    result.model.write_bytes(b"nonsense")
    with pytest.raises(TrainError, match="damaged"):
        load_trained(result.run)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"type": "conv", "features": 3, "kernel": 9}, {"type": "iaf"}], "kernel of 9"),
        ([{"type": "sum_pool", "kernel": 4}, {"type": "iaf"}], "does not divide"),
        ([{"type": "linear", "features": 3}], "last layer is linear"),
        ([{"type": "linear", "features": 2}, {"type": "iaf"}], "2 outputs for 3 classes"),
        (
            [{"type": "linear", "features": 3}, {"type": "conv", "features": 1, "kernel": 1}, {"type": "iaf"}],
            "after a linear",
        ),
        ([{"type": "linear", "features": 3, "name": "a"}, {"type": "iaf", "name": "a"}], "taken"),
        ([{"type": "linear", "features": 3, "name": "append"}, {"type": "iaf"}], "'append' is taken, reserved"),
        ([{"type": "iaf", "name": "flatten_linear1"}, {"type": "linear", "features": 3}, {"type": "iaf"}], "reserved"),
        (
            [{"type": "iaf", "recurrent": True}, {"type": "linear", "features": 3}, {"type": "iaf"}],
            "recurrent neurons on",
        ),
        ([{"type": "li", "tau_us": 1e3}, {"type": "linear", "features": 3}, {"type": "iaf"}], "li gives potentials"),
    ],
)
def test_networks_that_do_not_fit(tmp_path, layers, message):
    config = toy_config(tmp_path, network={"layers": layers})
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_network_without_weights(tmp_path):
    with pytest.raises(ConfigError, match="no parameters") as error:
        train(toy_config(tmp_path, network={"layers": [{"type": "iaf"}]}), tmp_path / "run", quiet=True)
    assert error.value.code == "network-parameters"


@pytest.mark.parametrize("factory", ["tests.train.absent:f", "tests.train.toy:absent", "tests.train.toy:recordings"])
def test_factories_that_cannot_be_called(tmp_path, factory):
    config = toy_config(tmp_path, network={"factory": factory})
    with pytest.raises(ConfigError, match=factory):
        train(config, tmp_path / "run", quiet=True)


def test_divergence_is_an_error(tmp_path):
    config = toy_config(tmp_path, optimizer={"type": "sgd", "lr": 1e38})
    with pytest.raises(TrainError) as error:
        train(config, tmp_path / "run", quiet=True)
    assert error.value.code == "train-diverged"


def test_weights_that_are_not_finite_are_an_error(tmp_path, monkeypatch):
    """A NaN weight silences its neurons: the loss stays finite and would hide it."""
    from neurodeploy.train import loop

    config = toy_config(tmp_path, epochs=1)

    def poison(network, limit):
        with torch.no_grad():
            next(network.parameters())[0] = torch.nan

    monkeypatch.setattr(loop, "limit_weights", poison)
    with pytest.raises(TrainError, match=r"conv1\.weight is not finite") as error:
        train(config.model_copy(update={"max_weight": 1.0}), tmp_path / "run", quiet=True)
    assert error.value.code == "train-diverged"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_every_recording_starts_from_silent_neurons(tmp_path):
    """Layers that carry their state (those of accelerate() do) train like the others, smaller last batches included."""
    results = []
    for stateful in (False, True):
        network = {"factory": "tests.train.toy:tied", "arguments": {"stateful": stateful}}
        config = toy_config(tmp_path / "data", network=network, epochs=2)
        results.append(train(config, tmp_path / str(stateful), quiet=True))
    assert without_times(results[0].metrics) == without_times(results[1].metrics)
    for name, tensor in tensors(results[0].model).items():
        assert torch.equal(tensor, tensors(results[1].model)[name])


def test_shared_parameters_are_saved_and_resumed(tmp_path, monkeypatch):
    network = {"factory": "tests.train.toy:tied", "arguments": {"stateful": True}}
    optimizer = {"type": "adamw", "lr": 0.01, "weight_decay": 0.01}
    config = toy_config(tmp_path / "data", network=network, epochs=3, optimizer=optimizer)
    straight = train(config, tmp_path / "straight", quiet=True)
    learnt = tensors(straight.model)
    assert torch.equal(learnt["1.threshold"], learnt["5.threshold"])
    assert learnt["1.threshold"] != 1.0
    assert learnt["5.tau_mem"] != 4.0
    _stop_after_first_epoch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", quiet=True)
    monkeypatch.undo()
    resumed = train(config, tmp_path / "stopped", resume=True, quiet=True)
    assert resumed.model.read_bytes() == straight.model.read_bytes()


@pytest.mark.parametrize("shape", ["maps", "few"])
def test_outputs_of_a_factory_that_do_not_fit(tmp_path, shape):
    config = toy_config(tmp_path, network={"factory": "tests.train.toy:odd_output", "arguments": {"shape": shape}})
    with pytest.raises(ConfigError, match="The network returned") as error:
        train(config, tmp_path / "run", quiet=True)
    assert error.value.code == "network-outputs"


def test_one_flipped_bit_of_a_weight_is_seen(tmp_path):
    config = toy_config(tmp_path / "data", epochs=1)
    result = train(config, tmp_path / "run", quiet=True)
    content = bytearray(result.model.read_bytes())
    content[-1] ^= 1
    result.model.write_bytes(content)
    with pytest.raises(TrainError) as error:
        load_trained(result.run)
    assert error.value.code == "weights-damaged"


def test_resume_refuses_a_model_without_checkpoint_and_lost_metrics(tmp_path):
    config = toy_config(tmp_path / "data", epochs=1)
    result = train(config, tmp_path / "run", quiet=True)
    for damage in (b"", b"\xff\xfe\n", b"3\n", b"{}\n"):
        (result.run / "metrics.jsonl").write_bytes(damage)
        with pytest.raises(TrainError) as error:
            train(config, result.run, resume=True, quiet=True)
        assert error.value.code == "train-metrics"
    before = result.model.read_bytes()
    next((result.run / "checkpoints").iterdir()).unlink()
    with pytest.raises(TrainError, match="no checkpoint") as error:
        train(config.model_copy(update={"seed": 5}), result.run, resume=True, quiet=True)
    assert error.value.code == "train-exists"
    assert result.model.read_bytes() == before


def test_newest_checkpoint_has_the_largest_number(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for epoch in (9999, 10000, 2):
        checkpoint_path(tmp_path, epoch).touch()
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 10000)


def test_data_problems_come_first(tmp_path):
    config = toy_config(tmp_path)
    small = load_npz(config.data.test)
    save_npz(config.data.test, small[:0])
    with pytest.raises(TrainError, match="no recordings"):
        train(config, tmp_path / "run", quiet=True)
    Path(config.data.test).unlink()
    with pytest.raises(EventError, match="no such file"):
        train(config, tmp_path / "run", quiet=True)


def test_checkpoint_holds_no_pickle_and_every_optimizer_tensor(finished):
    _, result = finished
    with safe_open(next((result.run / "checkpoints").iterdir()), framework="pt") as file:
        names = set(file.keys())
    assert {"model.conv1.weight", "optimizer.conv1.weight.exp_avg", "optimizer.linear1.weight.step"} <= names


def _stop_after_first_epoch(monkeypatch):
    from neurodeploy.train import loop

    save = loop._save_checkpoint

    def stop(run, epoch, *rest):
        save(run, epoch, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save_checkpoint", stop)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def without_times(metrics):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in metrics]


def test_learning_rate_schedule():
    from neurodeploy.train.config import OptimizerConfig
    from neurodeploy.train.optimizer import learning_rate

    config = OptimizerConfig(lr=2.0, warmup=0.2, schedule="cosine")
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert np.argmax(rates) == 20
    assert rates[20] == 2.0
    assert 0 < rates[0] < 0.2
    assert rates[-1] < 0.01
    assert np.all(np.diff(rates[:21]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)
    flat = OptimizerConfig(lr=2.0)
    assert {learning_rate(flat, step, 10) for step in range(10)} == {2.0}


LEAK = {"tau_us": 3000.0}


@pytest.mark.parametrize(
    ("hidden", "last", "kinds"),
    [
        ({"type": "cuba_lif", "tau_syn_us": 2000.0, **LEAK}, {"type": "li", **LEAK}, (nn.CubaLIF, nn.LI)),
        ({"type": "alif", "tau_adapt_us": 9000.0, **LEAK}, {"type": "iaf"}, (nn.ALIF, nn.IAF)),
        ({"type": "lif", "recurrent": True, **LEAK}, {"type": "lif", **LEAK}, (nn.LIFRecurrent, nn.LIF)),
        ({"type": "iaf", "recurrent": True}, {"type": "li", **LEAK}, (nn.IAFRecurrent, nn.LI)),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_every_kind_of_neuron_trains_and_comes_back(tmp_path, hidden, last, kinds):
    layers = [{"type": "linear", "features": 12}, hidden, {"type": "linear", "features": 3}, last]
    config = toy_config(tmp_path / "data", network={"layers": layers}, epochs=6)
    result = train(config, tmp_path / "run", quiet=True)
    assert tuple(type(layer) for layer in result.network if isinstance(layer, nn.TimeLayer)) == kinds
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    rates, name = result.metrics[-1]["rates"], f"{hidden['type']}1"
    assert rates[name] > 0
    assert (f"{name}.rec_connect" in result.metrics[-1]["layer_synops"]) == hidden.get("recurrent", False)
    assert len(rates) == 2 - (last["type"] == "li")  # which fires no spikes
    network, _ = load_trained(result.run)
    x, _ = load_batch(result.data, result.data.test, np.arange(8))
    assert torch.equal(network(x), result.network(x))


def test_the_verb_trains_what_no_graph_holds(tmp_path, monkeypatch, capsys):
    layers = [{"type": "linear", "features": 3}, {"type": "lif", "recurrent": True, **LEAK}]
    save_config(tmp_path / "c.yaml", toy_config(tmp_path / "data", network={"layers": layers}, epochs=1))
    done = CommandLine(monkeypatch, capsys)("train", tmp_path / "c.yaml", "--out", tmp_path / "run")
    assert done.code == 0
    assert "wrote no graph.onnx" in done.out + done.err
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "graph.onnx").exists()
