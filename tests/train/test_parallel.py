"""Training on several processes: the same bits as on one, for any number of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from neurodeploy.errors import ConfigError, TrainError, WorkerStoppedError
from neurodeploy.train import load_config, save_config, train
from neurodeploy.train.gradient import flat_gradient, set_gradient, sum_in_order
from neurodeploy.train.parallel import Processes
from tests.train.test_loop import tensors, without_times
from tests.train.toy import toy_config

ROOT = Path(__file__).resolve().parents[2]
SPIKING = {"loss": {"activity": [{"quantity": "rate", "target": 0.1, "weight": 0.1}], "synops_weight": 1.0}}


def torchrun(processes: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line on several processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "neurodeploy", *arguments]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=240, check=False)


def gradients(config, tmp_path, monkeypatch):
    """The gradient of the first batch."""
    from neurodeploy.train import loop

    class Enough(Exception):
        pass

    found = []

    def stop(_optimizer, *_args, **_kwargs):
        raise Enough

    monkeypatch.setattr(torch.optim.Adam, "step", stop)
    build = loop.build_optimizer
    monkeypatch.setattr(loop, "build_optimizer", lambda network, c: (found.append(network), build(network, c))[1])
    with pytest.raises(Enough):
        train(config, tmp_path, quiet=True)
    monkeypatch.undo()
    return flat_gradient(found[0])


def test_the_gradient_of_the_parts_is_the_gradient_of_the_batch(tmp_path, monkeypatch):
    layers = [layer for layer in toy_layers(tmp_path) if layer["type"] != "dropout"]  # which draws other numbers
    whole = gradients(toy_config(tmp_path / "data", network={"layers": layers}, **SPIKING), tmp_path / "a", monkeypatch)
    for shards in (2, 3, 7, 20):  # 16 recordings a batch: unequal and empty parts too
        config = toy_config(tmp_path / "data", network={"layers": layers}, shards=shards, **SPIKING)
        parts = gradients(config, tmp_path / f"s{shards}", monkeypatch)
        # Each entry is a float32 sum of B * T * H * W = 16 * 5 * 16 terms at most, of which the parts change the order;
        # a reordering moves it by at most that many roundings (2^-24 each) of the sum of the terms' sizes, which is
        # estimated by the largest entry.
        bound = 16 * 5 * 16 * 2.0**-24 * float(whole.abs().max())
        assert float((parts - whole).abs().max()) <= bound
    assert float(whole.abs().max()) > 0


def toy_layers(tmp_path):
    return toy_config(tmp_path / "data").model_dump(mode="json", exclude_none=True)["network"]["layers"]


def test_the_sum_is_taken_in_order():
    rows = torch.tensor([[1e8, 1.0], [1.0, 2.0], [-1e8, 3.0]])
    assert sum_in_order(rows).tolist() == [0.0, 6.0]  # (1e8 + 1) - 1e8 in float32
    network = torch.nn.Linear(1, 1)
    network.bias.requires_grad_(False)
    set_gradient(network, torch.tensor([5.0]))
    assert flat_gradient(network).tolist() == [5.0]


def test_one_and_two_processes_give_the_same_bytes(tmp_path):
    config = toy_config(tmp_path / "data", shards=2, epochs=3, **SPIKING)
    alone = train(config, tmp_path / "alone", quiet=True)
    save_config(tmp_path / "c.yaml", config)
    done = torchrun(2, "train", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "both"), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)  # one result, although two processes ran
    assert printed["test_accuracy"] == alone.test_accuracy
    assert len(re.findall(r"epoch 1/3", done.stderr)) == 1
    assert "2 processes" in done.stderr
    for name in ("model.safetensors", "train.yaml", "run.json"):
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    records = [json.loads(line) for line in (tmp_path / "both" / "metrics.jsonl").read_text().splitlines()]
    assert without_times(records) == without_times(alone.metrics)
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == sorted(
        [*(p.name for p in (tmp_path / "alone").iterdir()), "graph.onnx"]
    )


def test_a_failure_of_one_process_ends_all_and_another_number_resumes(tmp_path):
    network = {"factory": "tests.train.toy:fragile"}
    config = toy_config(tmp_path / "data", network=network, epochs=3)
    save_config(tmp_path / "c.yaml", config)
    arguments = ("train", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run"))
    # An epoch is 4 train batches and 1 test batch in each process: call 8 is in epoch 2.
    failed = torchrun(2, *arguments, TOY_FAIL_IN_RANK="1", TOY_FAIL_AT_CALL="8")
    assert failed.returncode != 0
    told = re.findall(r"error\[[\w-]+\]: .*", failed.stderr)
    assert told == ["error[toy]: the toy broke. Remedy: buy another."]
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-0001.safetensors"]
    assert load_config(tmp_path / "run" / "train.yaml").shards == 2  # one per process, kept for whoever resumes
    resumed = train(load_config(tmp_path / "c.yaml"), tmp_path / "run", resume=True, quiet=True)
    straight = train(config.model_copy(update={"shards": 2}), tmp_path / "straight", quiet=True)
    assert resumed.model.read_bytes() == straight.model.read_bytes()
    assert without_times(resumed.metrics) == without_times(straight.metrics)


def test_shards_that_do_not_fit(tmp_path):
    from neurodeploy.train.loop import _with_shards

    config = toy_config(tmp_path / "data", shards=3)
    with pytest.raises(ConfigError, match="3 parts of a batch cannot be shared equally by 2"):
        _with_shards(config, None, Processes(0, 2))
    assert _with_shards(config, None, Processes(0, 3)).shards == 3
    unset = toy_config(tmp_path / "data")
    assert _with_shards(unset, None, Processes(0, 2)).shards == 2
    save_config(tmp_path / "train.yaml", unset)  # of a run of one process, which took whole batches
    assert _with_shards(unset, tmp_path, Processes(0, 1)).shards is None
    with pytest.raises(ConfigError, match="local: blocks and segments are trained by one process"):
        _with_shards(toy_config(tmp_path / "data", local={"truncation": 2}), None, Processes(0, 2))
    with pytest.raises(ConfigError, match="1 parts of a batch cannot be shared equally by 2"):
        _with_shards(unset, tmp_path, Processes(0, 2))
    normalized = toy_config(tmp_path / "data", network={"factory": "tests.train.toy:normalized"}, shards=2)
    with pytest.raises(ConfigError, match=r"BatchNorm2d.*statistics of a whole batch"):
        train(normalized, tmp_path / "run", quiet=True)


def test_parts_of_a_batch_are_trained_and_resumed_on_one_process(tmp_path):
    config = toy_config(tmp_path / "data", shards=5, epochs=2)
    first = train(config, tmp_path / "a", quiet=True)
    again = train(config, tmp_path / "b", quiet=True)
    assert first.model.read_bytes() == again.model.read_bytes()
    whole = train(toy_config(tmp_path / "data", epochs=2), tmp_path / "c", quiet=True)
    assert any(not torch.equal(value, tensors(whole.model)[name]) for name, value in tensors(first.model).items())


def _talk(rank: int, port: int, folder: str) -> None:
    """What two processes say to each other; run by ``torch.multiprocessing.spawn``."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    from neurodeploy.train.parallel import processes

    outcome: dict[str, object] = {}
    with processes() as team:
        outcome["gathered"] = team.gather({"rank": team.rank, "text": "ä" * (1 + 5 * team.rank), "x": 0.1})
        outcome["rows"] = team.gather_rows(torch.full((2, 3), float(team.rank))).tolist()
        team.agree("colour", "blue")
        for code in ("own", "value"):
            try:
                if code == "own":
                    with team.together():
                        if team.rank == 1:
                            raise TrainError("it broke.", remedy="mend it.", code="broken")
                else:
                    team.agree("colour", f"blue{team.rank}")
            except TrainError as error:
                outcome[code] = [type(error).__name__, error.code, str(error)]
        try:
            with team.together():
                if team.rank == 1:
                    raise KeyError("a mistake")
        except Exception as error:
            outcome["mistake"] = [type(error).__name__, str(error)]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(outcome))


def test_what_processes_say_to_each_other(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.spawn(_talk, (port, str(tmp_path)), nprocs=2, join=False)
    while not context.join(timeout=60):
        pass
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for said in (first, second):
        assert said["gathered"] == [{"rank": 0, "text": "ä", "x": 0.1}, {"rank": 1, "text": "ä" * 6, "x": 0.1}]
        assert said["rows"] == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    assert first["own"] == ["TrainError", "broken", "it broke. Remedy: mend it."]
    assert second["own"][:2] == [WorkerStoppedError.__name__, "broken"]
    assert "do not have the same colour: blue0, blue1" in first["value"][2]
    assert first["mistake"] == [
        "TrainError",
        "process 1 of 2 failed: KeyError: 'a mistake'. Remedy: see its traceback.",
    ]
    assert second["mistake"] == ["KeyError", "'a mistake'"]
