import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from neurodeploy.errors import GraphError
from neurodeploy.graph.file import load_graph, save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.graph.nodes import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Neuron,
    Output,
    SumPool2d,
)
from neurodeploy.quantize import quantize

rng = np.random.default_rng(2)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def every_node() -> Graph:
    nodes = {
        "input": Input((2, 8, 8)),
        "conv/1": Conv2d(normal(3, 2, 3, 3), normal(3), (1, 1), (1, 1)),
        "norm": BatchNorm2d(normal(3), normal(3) ** 2, normal(3), normal(3), 0.1 + 0.2),
        "neuron": Neuron(np.array(1, np.float32), np.array(-1, np.float32), spikes=3, reset="zero"),
        "sum": SumPool2d((2, 2), (2, 2)),
        "mean": AvgPool2d((2, 2), (2, 2)),
        "flat": Flatten(),
        "linear": Linear(normal(4, 12)),
        "last": Neuron(normal(4) ** 2 + 1, initial_v=np.zeros(4, np.float32)),
        "output": Output(),
    }
    return Graph(nodes, tuple(pairwise(nodes)), ("a note", "another: ü"))


def integer_graph() -> Graph:
    graph = every_node()
    last = replace(graph.nodes["last"], threshold=np.array(1, np.float32))
    return quantize(graph.with_nodes({"last": last})).graph


@pytest.mark.parametrize("graph", [every_node(), integer_graph()], ids=["float", "integer"])
def test_round_trip(graph, tmp_path):
    save_graph(graph, tmp_path / "a.safetensors")
    again = load_graph(tmp_path / "a.safetensors")
    assert again == graph
    assert again.notes == graph.notes
    assert list(again.nodes) == list(graph.nodes)
    assert load(tmp_path / "a.safetensors") == graph
    save_graph(again, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_integers_keep_their_types(tmp_path):
    save_graph(integer_graph(), tmp_path / "a.safetensors")
    nodes = load_graph(tmp_path / "a.safetensors").nodes
    assert nodes["conv/1"].weight.dtype == np.int8
    assert nodes["conv/1"].bias.dtype == np.int16
    assert nodes["neuron"].threshold.dtype == np.int16


def test_fan_in_order_survives(tmp_path):
    nodes = {
        "input": Input((4,)),
        "b": Neuron(np.array(1.0)),
        "a": Neuron(np.array(2.0)),
        "+": Add(),
        "output": Output(),
    }
    edges = (("input", "a"), ("input", "b"), ("b", "+"), ("a", "+"), ("+", "output"))
    save_graph(Graph(nodes, edges), tmp_path / "a.safetensors")
    assert load_graph(tmp_path / "a.safetensors").predecessors("+") == ("b", "a")


@pytest.fixture
def path(tmp_path):
    save_graph(every_node(), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def refusal(path, code):
    with pytest.raises(GraphError) as info:
        load_graph(path)
    assert info.value.code == code, str(info.value)
    assert str(path) in str(info.value)


def content(path):
    with safe_open(path, framework="numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["neurodeploy"])  # noqa: SIM118


def test_missing_file(tmp_path):
    refusal(tmp_path / "none.safetensors", "missing-file")


@pytest.mark.parametrize("size", [0, 7, 100, 2000, -1])
def test_truncated_files_are_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    refusal(path, "damaged-file")


def test_a_flipped_bit_anywhere_is_refused(path):
    good = path.read_bytes()
    for position in np.linspace(0, len(good) - 1, 60).astype(int):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises(GraphError):
            load_graph(path)


def test_foreign_files_are_refused(path):
    save_file({"weight": normal(3)}, path)
    refusal(path, "foreign-file")
    path.write_bytes(b"\x80\x04K\x01.")
    refusal(path, "damaged-file")


def test_other_versions_are_refused(path):
    tensors, description = content(path)
    save_file(tensors, path, metadata={"neurodeploy": json.dumps({**description, "version": 2})})
    refusal(path, "version")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 1}', "nonsense"])
def test_descriptions_that_are_none_are_refused(path, text):
    tensors, _ = content(path)
    save_file(tensors, path, metadata={"neurodeploy": text})
    refusal(path, "damaged-file")


def test_edited_values_are_refused(path):
    tensors, description = content(path)
    tensors["linear/weight"][0, 0] += 1
    save_file(tensors, path, metadata={"neurodeploy": json.dumps(description)})
    refusal(path, "damaged-file")


def test_another_suffix_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(GraphError, match="safetensors"):
        save_graph(every_node(), tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "word"), [("a.onnx", "ONNX"), ("a.pt", "'.pt'"), ("a", "''")])
def test_load_refuses_other_files(name, word):
    with pytest.raises(GraphError, match="trace") as info:
        load(name)
    assert word in str(info.value)


def test_load_refuses_unknown_options_and_missing_files(path, tmp_path):
    with pytest.raises(GraphError, match="reset, dt_us"):
        load(tmp_path / "a.nir", speed=1)
    with pytest.raises(GraphError, match="no such file"):
        load(tmp_path / "a.nir")
    with pytest.raises(GraphError, match=r"options of a .safetensors file are: none"):
        load(path, reset="zero")
