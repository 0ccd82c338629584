"""The files of a run folder belong together, and what does not belong is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.events.dataset import save_npz, write_npz
from neurodeploy.graph.file import save_graph
from tests.cli.test_bad_input import one_error


@pytest.fixture
def folder(tmp_path, cli, small_graph, recordings):
    """Two networks with the same names, ``run`` compiled and validated from the first."""
    other = small_graph.with_nodes({"n0": replace(small_graph.nodes["n0"], weight=-small_graph.nodes["n0"].weight)})
    save_graph(small_graph, tmp_path / "model.onnx")
    save_graph(other, tmp_path / "other.onnx")
    save_npz(tmp_path / "data.npz", recordings)
    assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
    result = cli("validate", tmp_path / "run", "--data", tmp_path / "data.npz", "--runs", "event_driven")
    assert result.code == 0
    return tmp_path


@pytest.mark.parametrize("verb", ["quantize", "map"])
def test_stages_of_another_network_are_not_mixed_in(verb, folder, cli):
    options = ["--layer2core-map", "8,7"] if verb == "map" else []
    assert cli(verb, folder / "other.onnx", "-o", folder / "run", *options).code == 0
    result = cli("validate", folder / "run", "--data", folder / "data.npz", "--runs", "event_driven")
    one_error(result, "mapping.json" if verb == "map" else "quantized.onnx", "neurodeploy compile")


def test_the_same_stages_again_change_nothing(folder, cli):
    for verb in ("quantize", "map"):
        assert cli(verb, folder / "model.onnx", "-o", folder / "run").code == 0
    assert cli("report", folder / "run").code == 0


@pytest.mark.parametrize("file", ["quantize.json", "mapping.json", "deployment.json"])
def test_reports_with_another_content_are_refused(file, folder, cli):
    path = folder / "run" / file
    content = json.loads(path.read_text())
    content.pop(sorted(content)[-1])
    path.write_text(json.dumps(content))
    one_error(cli("report", folder / "run"), str(folder / "run"))
    assert not (folder / "run" / "report.html").exists()


def test_results_of_another_network_are_not_reported(folder, cli):
    assert cli("compile", folder / "other.onnx", "-o", folder / "run").code == 0
    one_error(cli("report", folder / "run"), "validation.json", "neurodeploy validate")
    (folder / "run" / "validation.json").unlink()
    one_error(cli("report", folder / "run"), "sample.npz", "neurodeploy validate")
    (folder / "run" / "sample.npz").unlink()
    assert cli("report", folder / "run").code == 0


def test_results_that_are_none_are_refused(folder, cli):
    validation = folder / "run" / "validation.json"
    content = json.loads(validation.read_text())
    for damaged in ({}, {**content, "runs": {}}, {**content, "runs": 3}, {**content, "recordings": 0}):
        validation.write_text(json.dumps(damaged))
        one_error(cli("report", folder / "run"), "validation.json")
    validation.write_text(json.dumps(content))
    with np.load(folder / "run" / "sample.npz") as sample:
        arrays = dict(sample)
    for key in ("t", "shapes", "program_sha256"):
        write_npz(folder / "run" / "sample.npz", {name: array for name, array in arrays.items() if name != key})
        one_error(cli("report", folder / "run"), "sample.npz")
    assert not (folder / "run" / "report.html").exists()


def test_folders_that_cannot_be_written(folder, cli):
    (folder / "file").write_text("in the way")
    model, run, data = folder / "model.onnx", folder / "run", folder / "data.npz"
    for verb in ("compile", "quantize", "map"):
        one_error(cli(verb, model, "-o", folder / "file"), "file", "cannot be written")
    one_error(cli("emulate", run, "--events", data, "--index", 0, "-o", folder / "file" / "x"), "cannot be written")
