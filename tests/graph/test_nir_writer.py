import itertools
import json

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neurodeploy as nd
from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nir_reader import read_nir
from neurodeploy.graph.nir_writer import save_nir
from neurodeploy.graph.nodes import (
    LI,
    Add,
    BatchNorm2d,
    Concat,
    Conv2d,
    Delay,
    Feedback,
    Input,
    Linear,
    Neuron,
    Output,
    Scale,
)
from tests.graph.random_graphs import random_graph
from tests.shared_data import SHARED, needs_shared

ONE = np.array(1, np.float32)


def chain(*nodes, shape=(4,)):
    named = {"in": Input(shape)} | {f"n{i}": node for i, node in enumerate(nodes)} | {"out": Output()}
    names = list(named)
    return Graph(named, tuple(itertools.pairwise(names)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.nir"


def without_metadata(path):
    """The file as a reader sees it that does not know our metadata."""

    def strip(group):
        for key in list(group):
            if key == "metadata":
                del group[key]
            elif isinstance(group[key], h5py.Group):
                strip(group[key])

    with h5py.File(path, "r+") as file:
        strip(file)
    return path


def refusal(code, graph, path, **options):
    with pytest.raises(GraphError) as info:
        save_nir(graph, path, **options)
    assert info.value.code == code, str(info.value)
    assert not path.exists()
    return str(info.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.sampled_from(["euler", "zoh", "exp_delta"]))
def test_random_graphs_survive(tmp_path_factory, seed, layers, scheme):
    graph = random_graph(seed, layers)
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    report = save_nir(graph, path, dt_us=1000.0, scheme=scheme)
    again = read_nir(path)
    assert again == graph
    assert list(again.nodes) == list(graph.nodes)
    assert {entry.node for entry in report} <= set(graph.nodes)
    nir.read(path, type_check=False)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_what_other_readers_lose_is_reported(tmp_path_factory, seed, layers):
    """Read without metadata, a neuron differs in the fields that the report names, and in no other."""
    graph = random_graph(seed, layers)
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    said = {
        entry.node: " ".join(map(str, entry.remarks))
        for entry in save_nir(graph, path, dt_us=1000.0, scheme="exp_delta")
    }
    with h5py.File(path) as file:
        stored = set(file["node/nodes"])
    seen = read_nir(without_metadata(path), dt_us=1000.0, scheme="exp_delta", spikes="single", compare=">")
    for name, node in graph.nodes.items():
        if not isinstance(node, Neuron) or name not in stored:
            continue
        other = seen.nodes[name]
        for field in ("threshold", "v_min", "reset", "v_reset", "spikes", "compare", "initial_v", "v_leak"):
            ours, theirs = getattr(node, field), getattr(other, field)
            if isinstance(ours, np.ndarray) or isinstance(theirs, np.ndarray):
                same = np.array_equal(
                    *(np.broadcast_to(0 if x is None else x, graph.shapes[name]) for x in (ours, theirs))
                )
            else:
                same = ours == theirs
            if field == "v_leak" and np.all(node.decay == 1):
                continue  # without a leak there is nothing that it could pull to
            lost = f"{field} " in said[name]
            assert lost or same, (name, field, ours, theirs)
        if node.scheme in (None, "exp_delta") and node.dt_us in (None, 1000.0):
            assert np.array_equal(*(np.broadcast_to(x.decay, graph.shapes[name]) for x in (node, other)))


def test_soft_reset_bounds_and_comparison_are_metadata(path):
    neuron = Neuron(ONE, -ONE, spikes=3, initial_v=ONE / 2)
    report = {entry.node: entry for entry in save_nir(chain(neuron), path)}
    assert report["n0"].status == "assumed"
    text = " ".join(str(remark) for remark in report["n0"].remarks)
    assert all(word in text for word in ("reset 'subtract'", "v_min", "spikes 3", "compare '>='", "initial_v"))
    assert report["in"].status == "exact"
    stored = nir.read(path).nodes["n0"]
    assert isinstance(stored, nir.IF)
    assert not stored.v_reset.any()
    with h5py.File(path) as file:
        assert "v_reset" not in file["node/nodes/n0"]
    assert read_nir(path).nodes["n0"] == neuron
    assert read_nir(path, reset="zero").nodes["n0"].reset == "zero"
    seen = read_nir(without_metadata(path)).nodes["n0"]
    assert seen == Neuron(ONE)


def test_a_neuron_of_nir_is_exact(path):
    neuron = Neuron(ONE, reset="value", v_reset=-ONE, spikes="single", compare=">")
    assert [entry.status for entry in save_nir(chain(neuron), path)] == ["exact"] * 3
    assert read_nir(without_metadata(path), compare=">", spikes="single").nodes["n0"] == neuron


def test_leaks_in_steps_need_a_time_step(path):
    neuron = Neuron(ONE, decay=ONE * np.float32(0.9))
    assert "dt_us" in refusal("needs-dt", chain(neuron), path)
    assert "dt_us" in refusal("needs-dt", chain(Delay(np.array(3))), path)
    save_nir(chain(neuron, Delay(np.array([0, 1, 2, 3]))), path, dt_us=500)
    stored = nir.read(path, type_check=False)
    assert stored.nodes["n0"].tau == pytest.approx([500e-6 / (1 - 0.9)] * 4, rel=1e-6)
    # v = 0.9 v + x is r = tau / dt, as snnTorch writes it.
    assert stored.nodes["n0"].r * 500e-6 == pytest.approx(stored.nodes["n0"].tau, rel=1e-6)
    assert stored.nodes["n1"].delay == pytest.approx([0, 5e-4, 1e-3, 1.5e-3])
    assert read_nir(path) == chain(neuron, Delay(np.array([0, 1, 2, 3])))


def test_another_time_step_on_reading(path):
    save_nir(chain(Neuron(ONE, -ONE, decay=ONE * np.float32(0.9))), path, dt_us=1000)
    neuron = read_nir(path, dt_us=500, scheme="zoh").nodes["n0"]
    assert neuron.decay == pytest.approx(np.exp(-0.05), rel=1e-6)
    assert (neuron.dt_us, neuron.v_min) == (500, -1)


@pytest.mark.parametrize("decay", [[0.5, 1.0, 0.5, 0.5], [-0.1] * 4, [1.5] * 4])
def test_decays_that_no_time_constant_gives_are_refused(path, decay):
    refusal("decay", chain(Neuron(ONE, decay=np.float32(decay))), path, dt_us=1000)


def test_a_current_based_neuron_is_one_node(path):
    synapse, neuron = LI(decay=ONE * np.float32(0.5)), Neuron(ONE, decay=ONE * np.float32(0.75), reset="zero")
    nodes = {"in": Input((4,)), "a.synapse": synapse, "a": neuron, "b": LI(decay=ONE / 4), "c": LI(decay=ONE / 2)}
    edges = (("in", "a.synapse"), ("a.synapse", "a"), ("a", "b"), ("b", "c"), ("c", "out"))
    graph = Graph({**nodes, "out": Output()}, edges)
    save_nir(graph, path, dt_us=100)
    stored = nir.read(path, type_check=False)
    assert {name: type(node).__name__ for name, node in stored.nodes.items()} == {
        "in": "Input",
        "a": "CubaLIF",
        "b": "LI",
        "c": "LI",
        "out": "Output",
    }
    assert stored.nodes["a"].w_in == pytest.approx(2)  # tau_syn / dt: the gain of a step is 1
    assert read_nir(path) == graph


def test_additions_are_edges_and_loops_stay(path):
    nodes = {
        "in": Input((2,)),
        "sum": Add(),
        "n": Neuron(ONE),
        "loop": Feedback((2,)),
        "w": Linear(np.eye(2, dtype="f4")),
    }
    edges = (("in", "sum"), ("w", "sum"), ("sum", "n"), ("n", "loop"), ("loop", "w"), ("n", "out"))
    graph = Graph({**nodes, "out": Output()}, edges)
    report = {entry.node: entry.status for entry in save_nir(graph, path)}
    assert (report["sum"], report["loop"]) == ("exact", "assumed")
    stored = nir.read(path, type_check=False)
    assert sorted(stored.edges) == [("in", "n"), ("n", "out"), ("n", "w"), ("w", "n")]
    assert read_nir(path) == graph
    seen = read_nir(without_metadata(path))
    assert seen.nodes["n.feedback"] == Feedback((2,))
    assert seen.predecessors("n.sum") == ("in", "w")


def test_the_same_input_twice(path):
    nodes = {"in": Input((2,)), "twice": Add(), "n": Neuron(ONE), "out": Output()}
    graph = Graph(nodes, (("in", "twice"), ("in", "twice"), ("twice", "n"), ("n", "out")))
    save_nir(graph, path)
    assert read_nir(path) == graph
    seen = read_nir(without_metadata(path))
    assert [node.scale for node in seen.nodes.values() if isinstance(node, Scale)] == [2]


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 4)])
def test_concatenations_and_normalisations_mean_the_same_to_other_readers(path, shape):
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    norm = BatchNorm2d(*(rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(4)))
    nodes = {"in": Input(shape), "half": Scale(ONE / 2), "c": Concat(), "norm": norm, "out": Output()}
    graph = Graph(nodes, (("in", "half"), ("half", "c"), ("in", "c"), ("c", "norm"), ("norm", "out")))
    report = {entry.node: entry for entry in save_nir(graph, path)}
    assert (report["c"].status, report["norm"].status) == ("exact", "approximated")
    assert read_nir(path) == graph
    x = rng.uniform(0, 3, (2, 5, *shape))
    ours = nd.simulate(graph, x, dtype="float64")
    theirs = nd.simulate(read_nir(without_metadata(path)), x, dtype="float64")
    # Factor and bias are each rounded to float32 once.
    assert np.abs(ours - theirs).max() <= report["norm"].remarks[0].bound * (4 * 3 + 10)


def test_names_with_slashes(path):
    nodes = {"in": Input((2,)), "/conv/Relu": Neuron(ONE), ".conv.Relu": Scale(ONE), ".": Scale(ONE), "out": Output()}
    names = list(nodes)
    graph = Graph(nodes, tuple(itertools.pairwise(names)))
    save_nir(graph, path)
    assert read_nir(path) == graph


def test_integers_keep_their_types(path):
    conv = Conv2d(np.arange(18, dtype=np.int8).reshape(1, 2, 3, 3), np.array([3], np.int16))
    neuron = Neuron(np.array(72, np.int16), np.array(-72, np.int16))
    graph = chain(conv, neuron, shape=(2, 4, 4))
    report = save_nir(graph, path)
    assert "weight int8" in str(report[1].remarks[0])
    assert nir.read(path, type_check=False).nodes["n0"].weight.dtype == np.int8
    assert read_nir(path) == graph


@needs_shared
@pytest.mark.parametrize("name", ["cnn_sinabs", "braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract"])
def test_published_files_are_written_as_they_were(path, name):
    source = SHARED / "speck-reference" / f"{name}.nir"
    graph = read_nir(source)
    save_nir(graph, path)
    assert read_nir(path) == graph
    theirs, ours = (nir.read(file, type_check=False) for file in (source, path))
    assert theirs.nodes.keys() == ours.nodes.keys()
    assert sorted(set(theirs.edges)) == sorted(ours.edges)
    for key, node in theirs.nodes.items():
        for field in vars(node).keys() & {
            "weight",
            "tau_mem",
            "tau_syn",
            "r",
            "w_in",
            "v_leak",
            "v_threshold",
            "v_reset",
        }:
            assert np.array_equal(getattr(node, field), getattr(ours.nodes[key], field)), (key, field)


def test_metadata_that_the_file_contradicts_is_left_out(path):
    save_nir(chain(Neuron(ONE, -ONE), Neuron(ONE, -ONE)), path)
    with h5py.File(path, "r+") as file:
        file["node/nodes/n0/v_reset"] = np.full(4, 0.25, np.float32)
        file["node/nodes/n1/v_threshold"][...] = 3
    graph = read_nir(path)
    assert graph.nodes["n0"].reset == "value"
    assert graph.nodes["n0"].v_min is None
    assert graph.nodes["n1"] == Neuron(ONE * 3, -ONE)
    (entry,) = (entry for entry in graph.fidelity if entry.node == "n0")
    assert "changed since its metadata" in str(entry.remarks[-1])


def test_edges_that_were_changed_win_over_metadata(path):
    save_nir(chain(Neuron(ONE), Scale(ONE)), path)
    with h5py.File(path, "r+") as file:
        del file["node/edges"], file["node/nodes/n1"]
        file["node"].create_dataset("edges", data=[["in", "n0"], ["n0", "out"]], dtype=h5py.string_dtype())
    graph = read_nir(path)
    assert list(graph.nodes) == ["in", "n0", "out"]
    assert any("changed since its metadata" in note for note in graph.notes)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version":1,"fields":3,"dtypes":[],"time":7}', '{"version":99}'])
def test_metadata_that_is_not_ours_is_harmless(path, text):
    save_nir(chain(Neuron(ONE)), path)
    with h5py.File(path, "r+") as file:
        for group in (file["node/nodes/n0/metadata"], file["node/metadata"]):
            del group["neurodeploy"]
            group["neurodeploy"] = text
    assert read_nir(path).nodes["n0"] == Neuron(ONE)


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ({"fields": {"reset": 5}}, True),
        ({"fields": {"spikes": -1}}, True),
        ({"fields": {"v_min_position": "never"}}, True),
        ({"fields": {"v_min": "low"}}, False),
        ({"fields": {"elsewhere": 1}}, False),
        ({"dtypes": {"v_threshold": "V1000000000", "r": "object"}}, False),
        ({"time": {"dt_us": float("nan"), "scheme": "euler"}}, False),
        ({"kind": "BatchNorm2d", "fields": {"mean": 3}}, False),
    ],
    ids=str,
)
def test_hostile_metadata(path, entry, refused):
    save_nir(chain(Neuron(ONE)), path)
    with h5py.File(path, "r+") as file:
        group = file["node/nodes/n0/metadata"]
        del group["neurodeploy"]
        group["neurodeploy"] = json.dumps({**entry, "version": 1})
    if refused:
        with pytest.raises(GraphError) as info:
            read_nir(path)
        assert info.value.code == "option"
    else:
        assert read_nir(path).nodes["n0"] == Neuron(ONE)


@pytest.mark.parametrize("change", [{"nodes": 3}, {"nodes": [["in", "Input"]]}, {"edges": None}, {"nodes": []}])
def test_hostile_structure(path, change):
    save_nir(chain(Neuron(ONE)), path)
    with h5py.File(path, "r+") as file:
        group = file["node/metadata"]
        entry = json.loads(group["neurodeploy"][()])
        del group["neurodeploy"]
        group["neurodeploy"] = json.dumps({**entry, **change})
    if change == {"nodes": []}:
        with pytest.raises(GraphError):
            read_nir(path)
    else:
        assert read_nir(path) == chain(Neuron(ONE))


def test_an_existing_file_survives_an_error(path):
    path.write_text("precious")
    with pytest.raises(GraphError):
        save_nir(chain(Delay(np.array(1))), path)
    assert path.read_text() == "precious"
    assert list(path.parent.iterdir()) == [path]


def test_options_are_checked(path):
    refusal("option", chain(Neuron(ONE)), path, scheme="heun")
    refusal("option", chain(Neuron(ONE)), path, dt_us=-1)
    with pytest.raises(GraphError, match=r"\.nir"):
        save_nir(chain(Neuron(ONE)), path.with_suffix(".h5"))
    with pytest.raises(GraphError, match="dt_us, scheme"):
        nd.save(chain(Neuron(ONE)), path, compression=3)


def test_loops_of_additions_alone_are_refused(path):
    nodes = {"in": Input((2,)), "sum": Add(), "loop": Feedback((2,)), "out": Output()}
    graph = Graph(nodes, (("in", "sum"), ("loop", "sum"), ("sum", "loop"), ("sum", "out")))
    assert "sum" in refusal("cycle", graph, path)


def test_save_and_to_nir(path):
    graph = chain(Neuron(ONE, decay=ONE / 2))
    report = nd.save(graph, path, dt_us=100)
    assert [entry.to_dict()["status"] for entry in report] == ["exact", "assumed", "exact"]
    assert nd.load(path) == graph
    made = nd.to_nir(graph, dt_us=100)
    assert isinstance(made.nodes["n0"], nir.LIF)
    nir.write(path, made)
    assert nd.load(path) == graph
    own = path.with_suffix(".onnx")
    assert nd.save(graph, own) == ()
    assert nd.load(own) == graph
