"""Files as others write them: old layouts, nested graphs, time steps in the parameters, and hostile ones."""

import time

import h5py
import nir
import numpy as np
import pytest

from neurodeploy.errors import GraphError
from neurodeploy.graph.nir_file import read_nir_file
from neurodeploy.graph.nir_reader import check_nir, read_nir
from neurodeploy.graph.nodes import LI, Delay, Feedback, Linear, Neuron
from neurodeploy.graph.simulate import simulate
from tests.shared_data import SHARED, needs_shared


def store(group, content):
    for key, value in content.items():
        if isinstance(value, dict):
            store(group.create_group(key), value)
        elif isinstance(value, str):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        else:
            group.create_dataset(key, data=value)


def write(path, nodes, edges, version="0.2.0"):
    """A file in the layout that nir writes since 0.1, from plain dictionaries."""
    content = {"type": "NIRGraph", "nodes": nodes}
    with h5py.File(path, "w") as file:
        if version is not None:
            store(file, {"version": version})
        store(file, {"node": content})
        file["node"].create_dataset("edges", data=np.array(edges, dtype="S"))
    return path


def ends(size):
    shape = np.array([size])
    return {"input": {"type": "Input", "shape": shape}, "output": {"type": "Output", "shape": shape}}


def parameters(**values):
    return {key: np.full(2, value) for key, value in values.items()}


def cuba(**changes):
    fields = {"tau_syn": 4e-4, "tau_mem": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "w_in": 4.0}
    return {"type": "CubaLIF", **parameters(**{**fields, **changes})}


def chain(path, node, **options):
    edges = [("input", "n"), ("n", "output")]
    return read_nir(write(path, {**ends(2), "n": node}, edges), **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.nir"


def refusal(code, path, **options):
    started = time.monotonic()
    with pytest.raises(GraphError) as info:
        read_nir(path, **options)
    assert info.value.code == code, str(info.value)
    assert str(path) in str(info.value)
    assert time.monotonic() - started < 60  # not a measurement: a file that hangs the reader never ends
    return str(info.value)


@pytest.mark.parametrize("version", [None, "0.1.1", "0.2.0", "1.0.4", "1.0.8"])
def test_files_of_all_versions(path, version):
    """0.1 and 0.2: no v_reset, no metadata, no input_shape and input_type, shapes as dictionaries, scalars bare."""
    nodes = {
        "input": {"type": "Input", "shape": {"input": np.array([1, 4, 4])}},
        "conv": {
            "type": "Conv2d",
            "weight": np.ones((2, 1, 3, 3), np.float32),
            "stride": 1,
            "padding": np.array([1]),
            "dilation": np.array([1, 1]),
            "groups": 1,
            "bias": np.zeros(2, np.float32),
        },
        "if": {"type": "IF", "r": np.ones((2, 4, 4)), "v_threshold": np.ones((2, 4, 4))},
        "flat": {"type": "Flatten", "start_dim": 0, "end_dim": -1},
        "output": {"type": "Output", "shape": np.array([32])},
    }
    edges = [("input", "conv"), ("conv", "if"), ("if", "flat"), ("flat", "output")]
    graph = read_nir(write(path, nodes, edges, version))
    assert graph.shapes["flat"] == (32,)
    assert graph.nodes["if"] == Neuron(np.array(1, np.float32))
    assert read_nir_file(path).version == (version or "unknown")


def nested(inner_edges, names=("lif1.input", "lif1.lif", "lif1.w_rec", "lif1.output")):
    """A recurrent layer as a nested graph, as snnTorch's importer makes it."""
    start, cell, weight, end = names
    lif = {"type": "NIRGraph", "nodes": {start: ends(2)["input"], end: ends(2)["output"], cell: cuba()}}
    lif["nodes"][weight] = {"type": "Linear", "weight": np.eye(2, dtype=np.float32)}
    lif["edges"] = np.array(inner_edges, dtype="S")
    return {**ends(2), "lif1": lif}


@pytest.mark.parametrize(
    "edge_names",
    [
        ("lif1.input", "lif1.lif", "lif1.w_rec", "lif1.output"),
        # The files of the NIR paper with subgraphs: edges without the graph's name, which nir.read cannot resolve.
        ("input", "lif", "w_rec", "output"),
    ],
)
@pytest.mark.parametrize("prefixed", [True, False])
def test_nested_recurrent_layers(path, edge_names, prefixed):
    names = [f"lif1.{name}" if prefixed else name for name in ("input", "lif", "w_rec", "output")]
    start, cell, weight, end = edge_names
    inner = [(start, cell), (cell, weight), (weight, cell), (cell, end)]
    nodes = nested(inner, names)
    graph = read_nir(write(path, nodes, [("input", "lif1"), ("lif1", "output")]), dt_us=100, scheme="euler")
    assert [name for name, node in graph.nodes.items() if isinstance(node, Neuron)] == ["lif1.lif"]
    assert graph.predecessors("lif1.lif.synapse.sum") == ("input", "lif1.w_rec")
    (loop,) = [name for name, node in graph.nodes.items() if isinstance(node, Feedback)]
    assert (graph.predecessors(loop), graph.successors(loop)) == (("lif1.lif",), ("lif1.w_rec",))


def test_an_edge_of_a_nested_graph_that_names_nothing(path):
    inner = [("input", "lif"), ("lif", "elsewhere"), ("lif", "output")]
    write(path, nested(inner), [("input", "lif1"), ("lif1", "output")])
    message = refusal("edge", path)
    assert "elsewhere" in message
    assert "nested graph lif1" in message


def test_names_that_collide_once_flat(path):
    nodes = nested([("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")])
    nodes["lif1.lif"] = {"type": "Linear", "weight": np.eye(2, dtype=np.float32)}
    assert "lif1.lif" in refusal("nested-graph", write(path, nodes, [("input", "lif1"), ("lif1", "output")]))


def test_the_time_step_is_recovered_from_two_time_constants(path):
    graph = chain(path, cuba())
    assert [(node.dt_us, node.scheme) for node in graph.nodes.values() if isinstance(node, LI | Neuron)] == [
        (100, "euler")
    ] * 2
    assert any("dt 100 us recovered" in note for note in graph.notes)
    assert chain(path, cuba(), scheme="exp_delta").nodes["n"].decay == np.float32(np.exp(-0.1))
    assert chain(path, cuba(), dt_us=50, scheme="euler").nodes["n"].dt_us == 50


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 1.0},  # NIR's own meaning of r: nothing about dt
        {"r": 8.0},  # two different steps
        {"r": 0.5, "w_in": 0.2},  # they agree, but a step of Euler would be longer than tau
        {"tau_syn": 1e-3, "w_in": 10.0},  # one time constant only
        {"r": 0.0},
        {"tau_mem": 0.0},
    ],
)
def test_where_it_cannot_be_recovered_it_is_asked_for(path, changes):
    write(path, {**ends(2), "n": cuba(**changes)}, [("input", "n"), ("n", "output")])
    message = refusal("lif-needs-dt", path)
    assert "dt_us" in message
    assert ("dt_us=100" in message) == (changes.get("tau_syn") == 1e-3)


def test_delays_take_the_recovered_step(path):
    nodes = {**ends(2), "n": cuba(), "d": {"type": "Delay", **parameters(delay=3e-4)}}
    edges = [("input", "n"), ("n", "d"), ("d", "output")]
    assert read_nir(write(path, nodes, edges)).nodes["d"] == Delay(np.array(3))
    del nodes["n"]
    write(path, nodes, [("input", "d"), ("d", "output")])
    assert "seconds" in refusal("needs-dt", path)
    assert "more than" in refusal("delay", path, dt_us=1e-9)


def test_the_check_reports_every_refusal(path):
    nodes = {**ends(2), "n": cuba(r=1.0), "m": {"type": "Hologram"}, "l": cuba(v_threshold=np.nan)}
    nodes["s"] = {"type": "Scale", **parameters(scale=2.0)}
    edges = [("input", "s"), ("s", "n"), ("n", "m"), ("m", "l"), ("l", "output")]
    report = {entry.node: entry for entry in check_nir(write(path, nodes, edges), dt_us=100, scheme="euler")}
    assert {name: entry.status for name, entry in report.items()} == {
        "input": "exact",
        "l": "refused",
        "m": "refused",
        "n": "approximated",
        "output": "exact",
        "s": "exact",
    }
    assert "Hologram" in str(report["m"].remarks[0])
    assert report["n"].to_dict()["remarks"][0]["bound"] > 0
    with pytest.raises(GraphError, match=r"node m: .*Hologram|node l: "):
        read_nir(path, dt_us=100, scheme="euler")
    nodes["m"] = nodes["l"] = {"type": "Linear", "weight": np.ones((2, 3), np.float32)}
    report = check_nir(write(path, nodes, edges), dt_us=100, scheme="euler")
    assert [entry.status for entry in report if not entry.node] == ["refused"]
    assert "the weight (2, 3)" in str(report[-1].remarks[0])


@needs_shared
def test_the_recurrent_network_of_the_nir_paper_fires_as_in_snntorch():
    """Published network, snnTorch's neurons (which trained it): the same spike in every step, in float64."""
    torch = pytest.importorskip("torch")
    snn = pytest.importorskip("snntorch")
    path = SHARED / "speck-reference" / "braille_noDelay_bias_zero.nir"
    stored = nir.read(path, type_check=False).nodes

    def linear(node):
        return lambda x: x @ torch.from_numpy(node.weight).double().T + torch.from_numpy(node.bias).double()

    def cell(node):
        alpha, beta = 1 - 1e-4 / node.tau_syn[0], 1 - 1e-4 / node.tau_mem[0]
        return snn.Synaptic(alpha=alpha, beta=beta, reset_mechanism="zero", reset_delay=False).double()

    x = np.random.default_rng(0).random((3, 256, 12)) < 0.15
    first, second, recurrent = (linear(stored[name]) for name in ("fc1", "fc2", "lif1.w_rec"))
    hidden, last = cell(stored["lif1.lif"]), cell(stored["lif2"])
    (syn1, mem1), (syn2, mem2) = hidden.reset_mem(), last.reset_mem()
    spikes = torch.zeros(3, 38, dtype=torch.float64)
    expected = {"lif1.lif": [], "lif2": []}
    with torch.no_grad():
        for t in range(256):
            current = first(torch.from_numpy(x[:, t]).double()) + recurrent(spikes)
            spikes, syn1, mem1 = hidden(current, syn1, mem1)
            spikes = spikes.double()
            out, syn2, mem2 = last(second(spikes), syn2, mem2)
            expected["lif1.lif"].append(spikes.numpy())
            expected["lif2"].append(out.numpy())
    found = simulate(read_nir(path, reset="zero", compare=">"), x, record=True, dtype="float64")
    for name, values in expected.items():
        assert np.array_equal(found[name], np.stack(values, 1))
        assert 0 < found[name].mean() < 1


# Hostile files: refused with a message, quickly, in bounded memory.


def good(path):
    return write(path, {**ends(2), "n": cuba()}, [("input", "n"), ("n", "output")])


def test_data_that_lies_elsewhere_is_refused(path, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["r"] = np.full(2, 10.0)
    for link in (h5py.ExternalLink("secret.h5", "/r"), h5py.SoftLink("/node/nodes/n/tau_mem")):
        with h5py.File(good(path), "r+") as file:
            del file["node/nodes/n/r"]
            file["node/nodes/n"]["r"] = link
        assert "link" in refusal("malformed-file", path)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(np.full(2, 10.0).tobytes())
    with h5py.File(good(path), "r+") as file:
        del file["node/nodes/n/r"]
        file["node/nodes/n"].create_dataset("r", shape=(2,), dtype="f8", external=[(str(raw), 0, 16)])
    assert "/node/nodes/n/r" in refusal("malformed-file", path)
    with h5py.File(good(path), "r+") as file:
        del file["node/nodes/n/r"]
        layout = h5py.VirtualLayout(shape=(2,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(secret), "r", shape=(2,))
        file["node/nodes/n"].create_virtual_dataset("r", layout)
    assert "/node/nodes/n/r" in refusal("malformed-file", path)


def test_groups_in_a_circle_are_refused(path):
    with h5py.File(good(path), "r+") as file:
        file["node/nodes/n/again"] = file["node"]
    assert "nested" in refusal("malformed-file", path)


def test_huge_declared_shapes_are_refused(path):
    with h5py.File(good(path), "r+") as file:
        del file["node/nodes/n/r"]
        file["node/nodes/n"].create_dataset("r", shape=(1 << 40,), dtype="f8", chunks=(1 << 10,))
    assert "claims" in refusal("malformed-file", path)
    assert path.stat().st_size < 1 << 20


def test_deep_nesting_is_refused(path):
    with h5py.File(good(path), "r+") as file:
        group = file["node/nodes/n"]
        for _ in range(100):
            group = group.create_group("deeper")
    assert "nested" in refusal("malformed-file", path)


@pytest.mark.parametrize("field", ["r", "tau_mem", "w_in", "v_threshold"])
@pytest.mark.parametrize(
    "value", [np.array([b"a", b"b"]), np.zeros(0), np.full(2, np.inf), np.full(2, 1j), np.eye(2) + 1]
)
def test_values_that_are_no_parameters_are_refused(path, field, value):
    with h5py.File(good(path), "r+") as file:
        del file[f"node/nodes/n/{field}"]
        file[f"node/nodes/n/{field}"] = value
    with pytest.raises(GraphError) as info:
        read_nir(path, dt_us=100, scheme="euler")
    assert info.value.code in ("malformed-file", "not-finite", "shape"), str(info.value)


def test_truncated_files_are_refused(path):
    whole = good(path).read_bytes()
    for size in range(0, len(whole), len(whole) // 25):
        path.write_bytes(whole[:size])
        refusal("malformed-file", path)


def test_a_ring_of_many_nodes(path):
    """A loop of 400 layers: found without recursion and cut once."""
    weight = np.eye(2, dtype=np.float32)
    nodes = {f"l{i}": {"type": "Linear", "weight": weight} for i in range(400)}
    nodes |= {**ends(2), "n": {"type": "IF", **parameters(r=1.0, v_threshold=1.0)}}
    ring = [(f"l{i}", f"l{i + 1}") for i in range(399)] + [("l399", "n"), ("n", "l0")]
    graph = read_nir(write(path, nodes, [("input", "l0"), *ring, ("n", "output")]))
    assert sum(isinstance(node, Feedback) for node in graph.nodes.values()) == 1
    assert sum(isinstance(node, Linear) for node in graph.nodes.values()) == 400
