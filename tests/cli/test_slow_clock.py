"""Networks with biases need the slow clock; every verb says so, before any long work, and then they agree."""

import numpy as np
import pytest

from neurodeploy.events.dataset import EventDataset, load_npz, save_npz
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.nodes import Conv2d, Flatten, Linear
from tests.cli.conftest import chain, neuron, weights
from tests.cli.test_bad_input import one_error


@pytest.fixture
def folder(tmp_path, cli, recordings):
    head = [Flatten(), Linear(weights(3, 400), np.array([0, 0, 0.05], np.float32)), neuron()]
    save_graph(chain(Conv2d(weights(4, 2, 3, 3)), neuron(), *head), tmp_path / "model.onnx")
    # Recordings that go on for long after their last event: the biases alone fill that time.
    events = [recordings[index][0] for index in range(6)]
    long = EventDataset.from_recordings(events, recordings.labels, sensor_size=(2, 12, 12), duration_us=5_000_000)
    save_npz(tmp_path / "data.npz", long)
    assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
    return tmp_path


def test_a_missing_clock_is_named_before_any_run(folder, cli, monkeypatch):
    monkeypatch.setattr(
        "neurodeploy.validation.validate.time_stepped_run", lambda *_, **__: pytest.fail("ran before the check")
    )
    run, data = folder / "run", folder / "data.npz"
    one_error(cli("validate", run, "--data", data), "n3", "biases", "--slow-clock-hz")
    one_error(cli("emulate", run, "--events", data, "--index", 0), "n3", "biases", "--slow-clock-hz")
    assert not (run / "validation.json").exists()


def test_emulate_sample_and_validation_give_one_answer(folder, cli):
    run, data, clock = folder / "run", folder / "data.npz", ["--slow-clock-hz", 1000]
    assert cli("validate", run, "--data", data, "--runs", "event_driven", *clock).code == 0
    answers = [int(line.split(",")[2]) for line in (run / "per_sample.csv").read_text().splitlines()[1:]]
    assert answers[0] == 2, "the bias decides in the long silence"
    with np.load(run / "sample.npz") as sample:
        assert int(sample["answer"]) == answers[0]
        spikes = len(sample["layer"])
    for index in range(len(load_npz(data))):
        result = cli("emulate", run, "--events", data, "--index", index, *clock, "--json").json
        assert result["prediction"] == answers[index]
        assert index or result["stats"]["spikes"] == spikes
