"""The verbs that answer why runs differ, and the page that shows it."""

import json

import numpy as np
import pytest

from neurodeploy.events.dataset import save_npz
from neurodeploy.graph.file import save_graph

pytest.importorskip("torch")


@pytest.fixture
def run_folder(tmp_path, cli, small_graph, recordings):
    save_graph(small_graph, tmp_path / "model.onnx")
    save_npz(tmp_path / "data.npz", recordings)
    assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_validate_shows_the_waterfall_and_the_report_draws_it(cli, run_folder):
    data = run_folder.parent / "data.npz"
    shown = cli("validate", run_folder, "--data", data)
    assert shown.code == 0
    assert "points from float to event_driven" in shown.out
    assert "v_min-per-event" in shown.out
    assert "first difference of float and event_driven" in shown.out
    stored = json.loads((run_folder / "validation.json").read_text())
    bars = stored["waterfall"]["bars"]
    runs = stored["runs"]
    assert sum(bar["gained"] - bar["lost"] for bar in bars) == (
        runs["event_driven"]["correct"] - runs["float"]["correct"]
    )
    assert cli("report", run_folder).code == 0
    page = (run_folder / "report.html").read_text()
    assert "Why is it different?" in page
    assert page.count('<rect class="gain"') + page.count('<rect class="loss"') == len(bars)
    assert stored["first_divergence"]["cause"] in page
    assert cli("validate", run_folder, "--data", data, "--no-explain").code == 0
    assert cli("report", run_folder).code == 0
    assert "Why is it different?" not in (run_folder / "report.html").read_text()


def test_diverge(cli, run_folder):
    recording = ["--events", run_folder.parent / "data.npz", "--index", 2]
    found = cli("diverge", run_folder, *recording, "--json").json["divergence"]
    assert found["runs"] == ["float", "event_driven"]
    assert found["layer"] in ("n0", "n4")
    assert "Cause (" in cli("diverge", run_folder, *recording).out
    assert cli("emulate", run_folder, *recording, "-o", run_folder / "chip.npz").code == 0
    same = cli(
        "diverge",
        run_folder,
        *recording,
        "--a",
        "event_driven",
        "--b",
        "recorded",
        "--recorded",
        run_folder / "chip.npz",
    )
    assert same.code == 0
    assert "do the same" in same.out
    with np.load(run_folder / "chip.npz") as file:
        spikes = file["spikes"]
    np.savez(run_folder / "silent.npz", spikes=spikes[spikes["layer"] == 0], monitored=np.array(["n0", "n4"]))
    silent = ["--a", "event_driven", "--b", "recorded", "--recorded", run_folder / "silent.npz", "--json"]
    assert cli("diverge", run_folder, *recording, *silent).json["divergence"]["layer"] == "n4"
    wrong = cli("diverge", run_folder, *recording, "--b", "recorded", "--recorded", run_folder.parent / "data.npz")
    assert wrong.code == 2
    assert "no array 'spikes'" in wrong.err


def test_calibrate(tmp_path, cli, run_folder):
    model = run_folder.parent / "model.onnx"
    arguments = ["--data", run_folder.parent / "data.npz", "--dt-us", 1000, "-o", tmp_path / "c", "--threads", 2]
    result = cli("calibrate", model, *arguments, "--json").json
    assert json.loads((tmp_path / "c" / "calibration.json").read_text()) == result
    assert all(row["error_after"] <= row["error_before"] for row in result["layers"])
    shown = cli("calibrate", model, *arguments)
    assert "accuracy, event by event" in shown.out
    chosen = tmp_path / "c" / "calibration.json"
    for verb in ("compile", "quantize"):
        assert cli(verb, model, "--calibration", chosen, "-o", tmp_path / verb).code == 0
        layers = json.loads((tmp_path / verb / "quantize.json").read_text())["layers"]
        assert {row["layer"]: (row["weight_range"], row["threshold_factor"]) for row in layers} == {
            row["layer"]: (row["weight_range"], row["threshold"]) for row in result["layers"]
        }
    assert cli("check", model, "--calibration", chosen).code == 0
    refused = cli("compile", model, "--bias-bits", 40, "-o", tmp_path / "no")
    assert refused.code == 2
    assert "bias_bits is 40" in refused.err


def test_sweep(tmp_path, cli, run_folder):
    options = ["--v-min", "own", "--v-min", "lowest", "--weight-bits", 8, "--weight-bits", 4, "--dt-us", 1000]
    arguments = ["--data", run_folder.parent / "data.npz", "-o", tmp_path / "sweep", *options]
    result = cli("sweep", run_folder.parent / "model.onnx", *arguments, "--json").json
    assert [(row["v_min"], row["weight_bits"]) for row in result["rows"]] == [
        (None, 8),
        (None, 4),
        ("lowest", 8),
        ("lowest", 4),
    ]
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text()) == result
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 5
    again = cli("sweep", run_folder.parent / "model.onnx", "--config", tmp_path / "sweep" / "sweep.yaml", "--json")
    assert again.json == result
