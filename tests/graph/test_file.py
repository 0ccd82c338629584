"""Graph files: round trips, and files that are damaged, edited, foreign or hostile are refused at once."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from neurodeploy.errors import GraphError
from neurodeploy.graph import onnx_file
from neurodeploy.graph.file import graph_hash, load_graph, save_graph
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
    save_graph(graph, tmp_path / "a.onnx")
    again = load_graph(tmp_path / "a.onnx")
    assert again == graph
    assert again.notes == graph.notes
    assert list(again.nodes) == list(graph.nodes)
    assert load(tmp_path / "a.onnx") == graph
    save_graph(again, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    save_graph(graph, tmp_path / "c.onnx", annotations={"conv/1": {"core": "2"}}, provenance={"of": 1})
    assert load_graph(tmp_path / "c.onnx") == graph
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "c.onnx").read_bytes()


def test_the_hash_is_of_the_graph():
    graph = every_node()
    assert graph_hash(graph) == graph_hash(Graph(dict(graph.nodes), graph.edges, graph.notes))
    others = [
        graph.with_nodes({"norm": replace(graph.nodes["norm"], epsilon=0.1)}),
        graph.with_nodes({"last": replace(graph.nodes["last"], initial_v=np.ones(4, np.float32))}),
        graph.with_nodes({"last": replace(graph.nodes["last"], initial_v=np.zeros(4, np.float64))}),
    ]
    assert len({graph_hash(other) for other in (graph, *others)}) == 4


def test_integers_keep_their_types(tmp_path):
    save_graph(integer_graph(), tmp_path / "a.onnx")
    nodes = load_graph(tmp_path / "a.onnx").nodes
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
    save_graph(Graph(nodes, edges), tmp_path / "a.onnx")
    assert load_graph(tmp_path / "a.onnx").predecessors("+") == ("b", "a")


@pytest.fixture
def path(tmp_path):
    save_graph(every_node(), tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def refusal(path, code):
    with pytest.raises(GraphError) as info:
        load_graph(path)
    assert info.value.code == code, str(info.value)
    assert str(path) in str(info.value)


def write(path: Path, model: onnx.ModelProto) -> None:
    """The model with a hash that fits, as an attacker would write it."""
    for position, entry in enumerate(model.metadata_props):
        if entry.key == onnx_file.HASH:
            del model.metadata_props[position]
            break
    path.write_bytes(onnx_file.signed(path, model))


def description(model: onnx.ModelProto) -> onnx.StringStringEntryProto:
    return next(entry for entry in model.metadata_props if entry.key == "neurodeploy.graph")


def test_missing_file(tmp_path):
    refusal(tmp_path / "none.onnx", "missing-file")


@pytest.mark.parametrize("size", [1, 7, 100, 2000, -1])
def test_truncated_files_are_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    refusal(path, "damaged-file")


def test_a_flipped_bit_anywhere_is_refused(path):
    good = path.read_bytes()
    for position in np.linspace(0, len(good) - 1, 300).astype(int):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bytes(bad))
        with pytest.raises(GraphError):
            load_graph(path)


def test_foreign_files_are_refused(path):
    graph = helper.make_graph([], "other", [], [])
    onnx.save(helper.make_model(graph), path)
    refusal(path, "foreign-file")
    path.write_bytes(b"")
    refusal(path, "foreign-file")  # an ONNX model without content
    path.write_bytes(b"\x80\x04K\x01.")
    refusal(path, "damaged-file")


def test_other_versions_are_refused(path):
    model = onnx.load(path)
    model.opset_import[1].version = 2
    write(path, model)
    refusal(path, "version")


def test_edited_files_are_refused(path):
    """Every part is covered: operators, numbers, and the description."""
    for change in ("node", "initializer", "description"):
        save_graph(every_node(), path)
        model = onnx.load(path)
        if change == "node":
            model.graph.node[3].op_type = "Neg"
        elif change == "initializer":
            model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        else:
            description(model).value = description(model).value.replace("note", "Note")
        path.write_bytes(model.SerializeToString())
        refusal(path, "damaged-file")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": 1}', "nonsense", "[" * 100_000])
def test_descriptions_that_are_none_are_refused(path, text):
    model = onnx.load(path)
    description(model).value = text
    write(path, model)
    refusal(path, "damaged-file")


FIELDS = {
    "stride": ("conv/1", "1, 1"),
    "padding": ("conv/1", [1, 1, 1]),
    "groups": ("conv/1", 1.5),
    "weight": ("conv/1", None),
    "bias": ("conv/1", {"tensor": "nowhere"}),
    "epsilon": ("norm", "small"),
    "reset": ("neuron", "all"),
    "spikes": ("neuron", True),
    "threshold": ("neuron", {"dtype": "object", "value": 1}),
    "v_min": ("neuron", {"dtype": "int8", "value": 1000}),
    "initial_v": ("neuron", {"dtype": "float32", "value": 0, "more": 1}),
    "decay": ("neuron", {"dtype": "float32", "value": {"dtype": 1}}),
    "kernel": ("sum", [10**30, -1]),
    "shape": ("input", [2, 8, "8"]),
    "unknown": ("output", 1),
}


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_another_type_are_refused(path, field):
    node, value = FIELDS[field]
    model = onnx.load(path)
    content = json.loads(description(model).value)
    next(entry for entry in content["nodes"] if entry["name"] == node)["fields"][field] = value
    description(model).value = json.dumps(content)
    write(path, model)
    with pytest.raises(GraphError):
        load_graph(path)


def test_graphs_that_are_none_are_refused(path):
    content = json.loads(description(onnx.load(path)).value)
    changes = {
        "cycle": {"edges": [*content["edges"], ["mean", "norm"]]},
        "edge": {"edges": [*content["edges"], ["mean", "nowhere"]]},
        "unconnected": {"edges": content["edges"][1:]},
        "damaged-file": {"nodes": [*content["nodes"], content["nodes"][1]]},
    }
    for code, change in changes.items():
        model = onnx.load(path)
        description(model).value = json.dumps({**content, **change})
        write(path, model)
        with pytest.raises(GraphError) as info:
            load_graph(path)
        assert info.value.code in (code, "fan-in"), str(info.value)


def hostile_files(folder: Path, good: Path) -> dict[str, str]:
    """Files that would take the memory or the time of a careless reader: name -> code of the refusal."""

    def changed(name, change, code):
        model = onnx.load(good)
        change(model)
        write(folder / f"{name}.onnx", model)
        return {f"{name}.onnx": code}

    def external(location):
        def change(model):
            tensor = model.graph.initializer[0]
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.raw_data = b""
            tensor.external_data.add(key="location", value=location)

        return change

    def in_function(model):
        tensor = helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
        tensor.external_data.add(key="location", value="../../etc/passwd")
        model.functions[0].node.append(helper.make_node("Constant", [], ["t"], value=tensor))

    def typed(number):
        return lambda model: setattr(model.graph.initializer[0], "data_type", number)

    def shaped(*shape):
        def change(model):
            del model.graph.initializer[0].dims[:]
            model.graph.initializer[0].dims.extend(shape)

        return change

    codes = {
        **changed("huge_shape", shaped(2**40, 2**20), "damaged-file"),
        **changed("overflowing_shape", shaped(2**62, 4), "damaged-file"),
        **changed("negative_shape", shaped(-1, -54), "damaged-file"),
        **changed("many_axes", shaped(*[1] * 10_000), "damaged-file"),
        **changed("text_tensor", typed(onnx.TensorProto.STRING), "damaged-file"),
        **changed("unknown_type", typed(9999), "damaged-file"),
        **changed("wider_type", typed(onnx.TensorProto.DOUBLE), "damaged-file"),
        **changed("external", external("/etc/passwd"), "external-data"),
        **changed("external_above", external("../../../etc/passwd"), "external-data"),
        **changed("external_in_function", in_function, "external-data"),
    }
    deep = b""
    for _ in range(5000):  # graphs in attributes of nodes in graphs
        attribute = b"\x32" + varint(len(deep)) + deep
        node = b"\x2a" + varint(len(attribute)) + attribute
        deep = b"\x0a" + varint(len(node)) + node
    (folder / "deep.onnx").write_bytes(b"\x3a" + varint(len(deep)) + deep)
    nodes = b"\x0a\x00" * 12_000_000  # empty nodes: two bytes each on disk, a hundred in memory
    (folder / "empty_nodes.onnx").write_bytes(b"\x3a" + varint(len(nodes)) + nodes)
    with (folder / "sparse.onnx").open("wb") as file:
        file.truncate(2**31 + 5)
    (folder / "overlong.onnx").write_bytes(b"\x3a" + varint(2**60) + b"\x00")
    (folder / "endless_number.onnx").write_bytes(b"\xff" * 1000)
    codes |= {"deep.onnx": "damaged-file", "empty_nodes.onnx": "too-large", "sparse.onnx": "too-large"}
    return codes | {"overlong.onnx": "damaged-file", "endless_number.onnx": "damaged-file"}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


READ_ALL = """
import json, resource, sys
from pathlib import Path
import onnx
from neurodeploy.errors import GraphError
from neurodeploy.graph.file import load_graph
load_graph(Path(sys.argv[1]) / "good.onnx")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
codes = {}
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    try:
        load_graph(path)
    except GraphError as error:
        codes[path.name] = error.code
print(json.dumps([codes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def test_hostile_files_are_refused_in_bounded_memory(tmp_path):
    save_graph(every_node(), tmp_path / "good.onnx")
    expected = hostile_files(tmp_path, tmp_path / "good.onnx")
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    codes, kilobytes = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    assert codes == expected
    # The largest file that is read at all has 24 MB; parsing it would take over a gigabyte.
    assert kilobytes < 100_000


def test_graphs_too_large_to_be_read_again_are_not_written(tmp_path):
    graph = Graph(every_node().nodes, every_node().edges, ("word " * 1_000_000,))
    with pytest.raises(GraphError) as info:
        save_graph(graph, tmp_path / "a.onnx")
    assert info.value.code == "too-large"
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(GraphError, match="onnx"):
        save_graph(every_node(), tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "word"), [("a.safetensors", "'.safetensors'"), ("a.pt", "'.pt'"), ("a", "''")])
def test_load_refuses_other_files(name, word):
    with pytest.raises(GraphError, match="trace") as info:
        load(name)
    assert word in str(info.value)


def test_load_refuses_unknown_options_and_missing_files(path, tmp_path):
    with pytest.raises(GraphError, match="reset, compare"):
        load(tmp_path / "a.nir", speed=1)
    with pytest.raises(GraphError, match="no such file"):
        load(tmp_path / "a.nir")
    with pytest.raises(GraphError, match=r"options of a .onnx file are: max_pool"):
        load(path, reset="zero")
