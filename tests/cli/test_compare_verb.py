import json
from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.events.dataset import save_npz
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nir_writer import save_nir


def changed(graph):
    """Another threshold in the first layer and one other weight in the second."""
    weight = graph.nodes["n4"].weight.copy()
    weight[0, 3] += 0.25
    return graph.with_nodes(
        {
            "n1": replace(graph.nodes["n1"], threshold=np.asarray(1.5, np.float32)),
            "n4": replace(graph.nodes["n4"], weight=weight),
        }
    )


@pytest.fixture
def files(tmp_path, small_graph):
    save_graph(small_graph, tmp_path / "a.onnx")
    save_graph(small_graph, tmp_path / "same.onnx")
    save_graph(changed(small_graph), tmp_path / "b.onnx")
    return tmp_path


def test_two_network_files(files, cli):
    equal = cli("compare", files / "a.onnx", files / "same.onnx")
    assert equal.code == 0
    assert "are equal." in equal.out
    assert cli("compare", files / "a.onnx", files / "same.onnx", "--json").json == {
        "changes": [],
        "equal": True,
        "equal_up_to_names": True,
        "kind": "networks",
    }
    other = cli("compare", files / "a.onnx", files / "b.onnx")
    assert other.code == 1
    assert "error[differs]" in other.err
    assert "threshold 1 -> 1.5" in other.out
    assert "weight 1 of 300 changed, by at most 0.25" in other.out
    found = cli("compare", files / "a.onnx", files / "b.onnx", "--json").json
    assert [(change["layer"], change["field"]) for change in found["changes"]] == [
        ("n1", "threshold"),
        ("n4", "weight"),
    ]
    assert found["error"]["code"] == "differs"


def test_other_names_can_be_let_pass(files, small_graph, cli):
    nodes = {f"x{name}": node for name, node in small_graph.nodes.items()}
    save_graph(Graph(nodes, tuple((f"x{a}", f"x{b}") for a, b in small_graph.edges)), files / "named.onnx")
    strict = cli("compare", files / "a.onnx", files / "named.onnx")
    assert strict.code == 1
    assert "names of layers only" in strict.err
    assert cli("compare", files / "a.onnx", files / "named.onnx", "--ignore-names").code == 0
    assert cli("compare", files / "b.onnx", files / "named.onnx", "--ignore-names").code == 1


def test_nir_beside_onnx(files, small_graph, cli):
    save_nir(small_graph, files / "a.nir")
    assert cli("compare", files / "a.onnx", files / "a.nir").code == 0
    assert cli("compare", files / "b.onnx", files / "a.nir", "--reset", "subtract").code == 1


def test_two_deployments(files, cli, recordings):
    save_npz(files / "data.npz", recordings)
    for name in ("a", "same", "b"):
        assert cli("compile", files / f"{name}.onnx", "-o", files / name).code == 0
    assert cli("compare", files / "a", files / "same").code == 0
    assert cli("compare", files / "a", files / "a.onnx").code == 0  # a folder stands for its network
    assert cli("validate", files / "a", "--data", files / "data.npz").code == 0
    result = cli("compare", files / "a", files / "b", "--json")
    assert result.code == 1
    found = result.json
    assert [change["name"] for change in found["files"]] == ["validation.json"]
    assert found["accuracy"] == found["cores"] == []
    assert {change["layer"] for change in found["graph"]["changes"]} == {"n1", "n4"}
    assert {"n1", "n4"} <= {change["layer"] for change in found["integers"]["changes"]}
    fields = {change["name"]: change for change in found["program"]}
    first = fields["cnn_layers.0.threshold_high"]
    assert first["text"] == f"{first['first']} -> {first['second']}"
    assert first["second"] > first["first"]
    assert " of " in fields["cnn_layers.1.weights"]["text"]
    assert cli("validate", files / "b", "--data", files / "data.npz", "--runs", "event_driven").code == 0
    shown = cli("compare", files / "a", files / "b", "--json").json
    assert shown["files"] == []
    assert "float" in {change["name"] for change in shown["accuracy"]}  # one folder has it, the other has not


def test_another_placement_and_a_damaged_program(files, cli):
    assert cli("compile", files / "a.onnx", "-o", files / "a").code == 0
    assert cli("compile", files / "a.onnx", "-o", files / "moved", "--layer2core-map", "n0=3,n4=1").code == 0
    moved = cli("compare", files / "a", files / "moved")
    assert "core 0 -> core 3" in moved.out
    assert "cnn_layers.3" in moved.out
    assert cli("compile", files / "a.onnx", "-o", files / "other", "-t", "speck2e").code == 0
    found = cli("compare", files / "a", files / "other", "--json").json
    assert {"first": "speck2f", "name": "target", "second": "speck2e", "text": "speck2f -> speck2e"} in found["program"]
    program = json.loads((files / "other" / "program.json").read_text())
    program["program"]["entry_core"] = 5
    (files / "other" / "program.json").write_text(json.dumps(program))
    damaged = cli("compare", files / "a", files / "other")
    assert damaged.code == 2
    assert "program-hash" in damaged.err


def test_what_cannot_be_compared_is_an_input_error(files, cli):
    (files / "empty").mkdir()
    (files / "two").mkdir()
    assert "not-a-run" in cli("compare", files / "empty", files / "two").err
    assert cli("compare", files / "a.onnx", files / "empty").code == 2
    assert "suffix" in cli("compare", files / "a.onnx", files / "b.txt").err
    missing = cli("compare", files / "empty", files / "events_hw.npz")
    assert (missing.code, "events-needed" in missing.err) == (2, True)
