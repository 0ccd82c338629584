import itertools

import h5py
import nir
import numpy as np
import pytest

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nir_reader import read_nir
from neurodeploy.graph.nodes import (
    LI,
    Add,
    AvgPool2d,
    Conv2d,
    Feedback,
    Flatten,
    Input,
    Linear,
    Neuron,
    Output,
    SumPool2d,
)
from tests.shared_data import SHARED, needs_shared

rng = np.random.default_rng(0)


def conv(out=3, channels=2, kernel=(3, 3), bias=None, **fields):
    weight = rng.normal(size=(out, channels, *kernel)).astype(np.float32)
    bias = np.zeros(out, np.float32) if bias is None else bias
    fields = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, **fields}
    return nir.Conv2d(input_shape=(8, 8), weight=weight, bias=bias, **fields)


def neurons(shape=(3, 8, 8), threshold=1.0, r=1.0, **fields):
    return nir.IF(np.full(shape, r, np.float32), np.full(shape, threshold, np.float32), **fields)


def write(path, *nodes, input_shape=(2, 8, 8), edges=None):
    named = {"input": nir.Input({"input": np.array(input_shape)})}
    named |= {str(i): node for i, node in enumerate(nodes)}
    named["output"] = nir.Output({"output": np.array([1])})
    names = list(named)
    edges = list(itertools.pairwise(names)) if edges is None else edges
    nir.write(path, nir.NIRGraph(named, edges, type_check=False))
    return path


def without_v_reset(path):
    with h5py.File(path, "r+") as file:
        for node in file["node/nodes"].values():
            if "v_reset" in node:
                del node["v_reset"]
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.nir"


def refusal(path, code, **options):
    with pytest.raises(GraphError) as info:
        read_nir(path, **options)
    assert info.value.code == code, str(info.value)
    assert str(path) in str(info.value)
    assert info.value.remedy
    return str(info.value)


@needs_shared
def test_the_network_measured_on_the_chip():
    graph = read_nir(SHARED / "speck-reference" / "cnn_sinabs.nir")
    kinds = [(name, node.kind, graph.shapes[name]) for name, node in graph.nodes.items()]
    assert kinds == [
        ("input", "Input", (2, 34, 34)),
        ("0", "Conv2d", (16, 16, 16)),
        ("1", "Neuron", (16, 16, 16)),
        ("2", "Conv2d", (16, 16, 16)),
        ("3", "Neuron", (16, 16, 16)),
        ("4", "SumPool2d", (16, 8, 8)),
        ("5", "Conv2d", (8, 8, 8)),
        ("6", "Neuron", (8, 8, 8)),
        ("7", "SumPool2d", (8, 4, 4)),
        ("8", "Flatten", (128,)),
        ("9", "Linear", (256,)),
        ("10", "Neuron", (256,)),
        ("11", "Linear", (10,)),
        ("12", "Neuron", (10,)),
        ("output", "Output", (10,)),
    ]
    stored = nir.read(SHARED / "speck-reference" / "cnn_sinabs.nir")
    assert np.array_equal(graph.nodes["0"].weight, stored.nodes["0"].weight)
    assert graph.nodes["0"].stride == (2, 2)
    assert graph.nodes["0"].bias is None
    assert graph.nodes["1"] == Neuron(np.array(1, np.float32), reset="subtract")
    assert len(graph.notes) == 4


@needs_shared
@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract"])
def test_recurrent_networks(name):
    graph = read_nir(SHARED / "speck-reference" / f"{name}.nir")
    hidden, synapse = graph.nodes["lif1.lif"], graph.nodes["lif1.lif.synapse"]
    assert isinstance(hidden, Neuron)
    assert isinstance(synapse, LI)
    # dt is 100 us (README of the NIR paper's networks): recovered from r = tau / dt, so that every gain is 1.
    assert (hidden.dt_us, hidden.scheme, hidden.spikes) == (100, "euler", "single")
    for node in (hidden, synapse, graph.nodes["lif2"], graph.nodes["lif2.synapse"]):
        assert node.input_gain == 1
        assert node.decay == np.float32(1 - 1e-4 / node.tau)
    (loop,) = [name for name, node in graph.nodes.items() if isinstance(node, Feedback)]
    assert graph.predecessors(loop) == ("lif1.lif",)
    assert graph.successors(loop) == ("lif1.w_rec",)
    assert graph.predecessors("lif1.lif.synapse.sum") == ("fc1", "lif1.w_rec")
    status = {entry.node: entry.status for entry in graph.fidelity}
    assert status == {
        "fc1": "exact",
        "fc2": "exact",
        "input": "exact",
        "lif1.lif": "approximated",
        "lif1.w_rec": "exact",
        "lif2": "approximated",
        "output": "exact",
    }
    assert any("round with one time step" in note and "lif1.lif" in note for note in graph.notes)


def test_every_supported_node(path):
    first = conv(bias=np.ones(3, np.float32), kernel=(5, 5), padding="same")
    affine = nir.Affine(rng.normal(size=(4, 12)).astype(np.float32), np.zeros(4, np.float32))
    last = nir.Linear(rng.normal(size=(2, 4)).astype(np.float32))
    nodes = [
        first,
        neurons(),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        affine,
        neurons((4,), 2.0),
        last,
        neurons((2,)),
    ]
    graph = read_nir(write(path, *nodes))
    assert list(graph.nodes.values()) == [
        Input((2, 8, 8)),
        Conv2d(first.weight, np.ones(3, np.float32), padding=(2, 2)),
        Neuron(np.array(1, np.float32), reset="zero"),
        SumPool2d((2, 2), (2, 2)),
        AvgPool2d((2, 2), (2, 2)),
        Flatten(),
        Linear(affine.weight),
        Neuron(np.array(2, np.float32), reset="zero"),
        Linear(last.weight),
        Neuron(np.array(1, np.float32), reset="zero"),
        Output(),
    ]


def test_shapes_are_inferred_here_and_not_taken_from_nir(path):
    # nir 1.0.8 takes the kernel's height for its width: 3x5 on 8x8 without padding is 6x4, not 6x6.
    graph = read_nir(write(path, conv(kernel=(3, 5), padding=(0, 0)), neurons((3, 6, 4))))
    assert graph.shapes["0"] == (3, 6, 4)


def test_a_file_without_v_reset_resets_by_subtraction(path):
    write(path, conv(), neurons())
    assert read_nir(path).nodes["1"].reset == "zero"
    assert read_nir(path, reset="subtract").nodes["1"].reset == "subtract"
    without_v_reset(path)
    assert read_nir(path).nodes["1"].reset == "subtract"
    assert any("no v_reset" in note for note in read_nir(path).notes)
    assert read_nir(path, reset="zero").nodes["1"].reset == "zero"


def test_a_nonzero_v_reset_is_a_reset_to_it(path):
    v_reset = np.full((3, 8, 8), 0.5, np.float32)
    write(path, conv(), neurons(v_reset=v_reset))
    assert read_nir(path).nodes["1"].reset == "value"
    assert read_nir(path).nodes["1"].v_reset == 0.5
    assert read_nir(path, reset="zero").nodes["1"].v_reset is None
    v_reset[0, 0, 0] = 0
    write(path, conv(), neurons(v_reset=v_reset))
    assert np.array_equal(read_nir(path).nodes["1"].v_reset, v_reset)


def test_comparison_and_spikes_of_a_step(path):
    write(path, conv(), neurons())
    assert (read_nir(path).nodes["1"].compare, read_nir(path).nodes["1"].spikes) == (">=", "multi")
    neuron = read_nir(path, compare=">", spikes="single").nodes["1"]
    assert (neuron.compare, neuron.spikes) == (">", "single")


def test_per_neuron_thresholds_stay_and_uniform_ones_become_one(path):
    threshold = np.ones((3, 8, 8), np.float32)
    threshold[0, 0, 0] = 2
    node = neurons()
    node.v_threshold = threshold
    graph = read_nir(write(path, conv(), node))
    assert np.array_equal(graph.nodes["1"].threshold, threshold)


def test_r_is_an_input_gain(path):
    assert read_nir(write(path, conv(), neurons(r=2.0))).nodes["1"].input_gain == 2


@pytest.mark.parametrize(
    ("scheme", "decay", "gain"),
    [("euler", 0.9, 0.1), ("zoh", np.exp(-0.1), 1 - np.exp(-0.1)), ("exp_delta", np.exp(-0.1), 0.1)],
)
def test_lif_needs_a_time_step_and_a_scheme(path, scheme, decay, gain):
    ones = np.ones((3, 8, 8), np.float32)
    write(path, conv(), nir.LIF(tau=ones * 0.01, r=ones, v_leak=ones * 0, v_threshold=ones, v_reset=ones * 0))
    refusal(path, "lif-needs-dt")
    refusal(path, "lif-needs-dt", dt_us=1000)
    neuron = read_nir(path, dt_us=1000, scheme=scheme).nodes["1"]
    assert neuron.decay == pytest.approx(decay, rel=1e-6)
    assert neuron.input_gain == pytest.approx(gain, rel=1e-6)
    assert neuron.decay.dtype == np.float32


def test_a_leak_potential_is_kept(path):
    ones = np.ones((3, 8, 8), np.float32)
    write(path, conv(), nir.LIF(tau=ones, r=ones, v_leak=ones / 2, v_threshold=ones, v_reset=ones * 0))
    assert read_nir(path, dt_us=1000, scheme="zoh").nodes["1"].v_leak == 0.5


def test_several_edges_into_a_node_are_summed(path):
    edges = [
        ("input", "0"),
        ("0", "1"),
        ("input", "2"),
        ("2", "3"),
        ("1", "4"),
        ("3", "4"),
        ("4", "5"),
        ("5", "output"),
    ]
    graph = read_nir(write(path, conv(), neurons(), conv(), neurons(), conv(channels=3), neurons(), edges=edges))
    assert graph.nodes["4.sum"] == Add()
    assert graph.predecessors("4.sum") == ("1", "3")
    assert graph.predecessors("4") == ("4.sum",)


def test_a_nested_graph_is_flattened(path):
    block = nir.NIRGraph(
        {
            "in": nir.Input({"input": np.array([2, 8, 8])}),
            "c": conv(),
            "n": neurons(),
            "out": nir.Output({"output": np.array([3, 8, 8])}),
        },
        [("in", "c"), ("c", "n"), ("n", "out")],
        type_check=False,
    )
    graph = read_nir(write(path, block, conv(channels=3), neurons()))
    assert list(graph.nodes) == ["input", "0.c", "0.n", "1", "2", "output"]


def test_node_names_are_in_natural_order(path):
    nodes = [conv(), neurons()] + [node for _ in range(5) for node in (conv(channels=3), neurons())]
    assert list(read_nir(write(path, *nodes)).nodes) == ["input", *map(str, range(12)), "output"]


def test_an_unknown_kind_is_refused_by_name(path):
    write(path, conv(), neurons())
    with h5py.File(path, "r+") as file:
        del file["node/nodes/1/type"]
        file["node/nodes/1/type"] = "Hologram"
    assert "Hologram" in refusal(path, "unsupported-node")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"padding": "same", "stride": (2, 2)}, "padding"),
        ({"padding": "same", "kernel": (2, 2)}, "padding"),
    ],
)
def test_named_padding_that_is_no_number_is_refused(path, fields, code):
    refusal(write(path, conv(**fields)), code)


def test_weights_that_are_not_finite_are_refused(path):
    node = conv()
    node.weight[0, 0, 0, 0] = np.nan
    refusal(write(path, node), "not-finite")


def test_a_partial_flatten_is_refused(path):
    refusal(write(path, conv(), nir.Flatten({"input": np.array([3, 8, 8])}, 2, -1)), "flatten")


def test_shapes_that_do_not_fit_name_the_file_and_the_node(path):
    assert "node" not in refusal(write(path, conv(channels=4)), "shape").split(": ")[0]
    assert "0: the weight" in refusal(path, "shape")


def test_a_cycle_needs_a_neuron(path):
    edges = [("input", "0"), ("0", "1"), ("1", "0"), ("1", "output")]
    graph = read_nir(write(path, conv(out=2), neurons((2, 8, 8)), edges=edges))
    assert graph.predecessors("0.sum") == ("1.feedback", "input")
    edges = [("input", "0"), ("0", "1"), ("1", "0"), ("1", "output")]
    assert "without a neuron" in refusal(write(path, conv(out=2), conv(out=2), edges=edges), "cycle")


def test_an_input_with_a_batch_axis_is_refused(path):
    refusal(write(path, conv(), input_shape=(1, 2, 8, 8)), "input-shape")


def test_an_input_shape_stored_as_a_dictionary_is_read(path):
    write(path, conv(), neurons())
    with h5py.File(path, "r+") as file:
        del file["node/nodes/input/shape"]
        file["node/nodes/input/shape/input"] = [2, 8, 8]
    assert read_nir(path).input_shape() == (2, 8, 8)


def test_missing_and_malformed_files(path, tmp_path):
    refusal(path, "missing-file")
    path.write_bytes(b"not a file of this format")
    refusal(path, "malformed-file")
    write(path, conv(), neurons())
    path.write_bytes(path.read_bytes()[:-200])
    refusal(path, "malformed-file")
    with h5py.File(path, "w") as file:
        file["other"] = 1
    refusal(path, "malformed-file")


@pytest.mark.parametrize("field", ["weight", "stride", "padding", "dilation", "groups", "bias"])
@pytest.mark.parametrize("value", ["text", np.zeros((2, 3, 4))])
def test_fields_of_the_wrong_form_are_refused(path, field, value):
    write(path, conv(), neurons())
    with h5py.File(path, "r+") as file:
        del file[f"node/nodes/0/{field}"]
    refusal(path, "malformed-file")
    with h5py.File(path, "r+") as file:
        file[f"node/nodes/0/{field}"] = value
    refusal(path, "padding" if (field, str(value)) == ("padding", "text") else "malformed-file")


def test_options_are_checked(path):
    with pytest.raises(GraphError, match="subtract, zero, none"):
        read_nir(path, reset="soft")
    with pytest.raises(GraphError, match="dt_us"):
        read_nir(path, dt_us=0)


def test_values_that_need_more_than_float32_are_noted(path):
    node = conv(bias=np.full(3, 0.1))
    graph = read_nir(write(path, node, neurons()))
    assert isinstance(graph, Graph)
    assert any("bias rounded to float32: 0" in note for note in graph.notes)


def test_a_bias_of_the_wrong_length_is_refused(path):
    assert "bias" in refusal(write(path, conv(bias=np.ones(4, np.float32)), neurons()), "shape")


@pytest.mark.parametrize(("tau", "scheme"), [(0.0, "zoh"), (-1.0, "exp_delta"), (0.0005, "euler")])
def test_impossible_time_constants_are_refused(path, tau, scheme):
    ones = np.ones((3, 8, 8), np.float32)
    write(path, conv(), nir.LIF(tau=ones * tau, r=ones, v_leak=ones * 0, v_threshold=ones, v_reset=ones * 0))
    assert "node 1" in refusal(path, "tau", dt_us=1000, scheme=scheme)


def test_nested_graphs_with_several_inputs_are_refused(path):
    block = nir.NIRGraph(
        {name: nir.Input({"input": np.array([2, 8, 8])}) for name in "ab"}
        | {"out": nir.Output({"output": np.array([2, 8, 8])})},
        [("a", "out"), ("b", "out")],
        type_check=False,
    )
    assert "graph 0 has 2 Input" in refusal(write(path, block), "nested-graph")


@pytest.mark.parametrize("entry", ["node/nodes/0/type", "node/edges", "node/nodes/1/v_threshold", "node/nodes"])
def test_files_with_parts_missing_are_refused(path, entry):
    write(path, conv(), neurons())
    with h5py.File(path, "r+") as file:
        del file[entry]
    refusal(path, "unconnected" if entry == "node/edges" else "malformed-file")


def test_empty_parameters_are_refused(path):
    write(path, conv(), neurons())
    with h5py.File(path, "r+") as file:
        del file["node/nodes/1/v_threshold"]
        file["node/nodes/1/v_threshold"] = np.zeros(0, np.float32)
    refusal(path, "malformed-file")
