"""Graphs as ONNX models: they are valid, survive the disk, and stock runtimes give the graph's own spikes."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import GraphError
from neurodeploy.graph.file import graph_hash, load_graph, save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import LI, Add, Conv2d, Delay, Feedback, Flatten, Input, Linear, Neuron, Node, Output
from neurodeploy.graph.onnx_writer import to_onnx
from neurodeploy.quantize import quantize
from tests.graph.onnx_graphs import random_graphs
from tests.graph.onnx_runs import evaluate, run, session, with_spikes
from tests.graph.random_graphs import random_graph
from tests.graph.stepwise import Stepwise

torch = pytest.importorskip("torch")
from neurodeploy.graph.torch_writer import to_torch  # noqa: E402

SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
SHAPE = (2, 8, 8)


def raster(graph: Graph, seed: int, *, batch=2, steps=5, rate=1.0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rate, (batch, steps, *graph.input_shape())).clip(0, 255)


def result(graph: Graph, events: np.ndarray) -> np.ndarray:
    """The graph's own output."""
    return to_torch(graph)(torch.from_numpy(events.astype(np.float32))).numpy()


def chain(*nodes: Node, shape=SHAPE) -> Graph:
    named = {"input": Input(shape)} | {f"n{i}": node for i, node in enumerate(nodes)} | {"output": Output()}
    return Graph(named, tuple(pairwise(named)))


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
@settings(max_examples=40, **SETTINGS)
@given(data=st.data())
def test_random_graphs_survive_the_disk(integer, data, tmp_path):
    graph = data.draw(random_graphs(integer=integer))
    save_graph(graph, tmp_path / "a.onnx")
    again = load_graph(tmp_path / "a.onnx")
    assert again == graph
    assert (again.notes, list(again.nodes)) == (graph.notes, list(graph.nodes))
    assert graph_hash(again) == graph_hash(graph)
    save_graph(again, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@settings(max_examples=25, **SETTINGS)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 8))
def test_graphs_with_fields_of_continuous_time_survive_and_run(seed, layers, tmp_path):
    graph = random_graph(seed, layers)
    save_graph(graph, tmp_path / "a.onnx")
    assert load_graph(tmp_path / "a.onnx") == graph
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    inputs = {name: graph.shapes[name] for name, node in graph.nodes.items() if isinstance(node, Input)}
    results = session(model).run(None, {name: np.ones((2, 3, *shape), np.float32) for name, shape in inputs.items()})
    assert all(len(value) == 2 for value in results)


@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
@settings(max_examples=25, **SETTINGS)
@given(data=st.data())
def test_stock_runtimes_give_what_the_nodes_say(integer, data):
    graph = data.draw(random_graphs(integer=integer))
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    events = raster(graph, data.draw(st.integers(0, 99)), rate=data.draw(st.sampled_from([0.3, 2.0, 100.0])))
    oracle = Stepwise(graph, np.int64 if integer else np.float32)
    values = oracle.run(events)
    found, reference = run(model, events), evaluate(model, events)
    (name,) = (name for name, node in graph.nodes.items() if isinstance(node, Output))
    assert found[name].dtype == (np.int64 if integer else np.float32)
    assert np.array_equal(found[name], values[name])
    for key, value in found.items():
        assert np.array_equal(value, reference[key]), key
    for label, states in {"v": oracle.potentials | oracle.before, "history": oracle.under_way}.items():
        for node, state in states.items():
            assert np.array_equal(found[f"{node}.{label}_final"], state), node


def test_every_layers_spikes_in_every_bin():
    graph = chain(Conv2d(numbers(4, 2, 3, 3)), Neuron(np.float32(1)), Flatten(), Linear(numbers(3, 144)))
    graph = Graph(
        {**graph.nodes, "last": Neuron(np.float32(1))}, (*graph.edges[:-1], ("n3", "last"), ("last", "output"))
    )
    for network in (graph, quantize(graph).graph):
        events = raster(network, 1, batch=3, steps=7, rate=0.5)
        spikes = to_torch(network).record(torch.from_numpy(events).float())
        found = run(with_spikes(to_onnx(network), list(spikes)), events)
        for name, expected in spikes.items():
            by_step = found[name].reshape(7, 3, *expected.shape[2:]).swapaxes(0, 1)
            assert np.array_equal(by_step, expected.numpy())
            assert by_step.any()


@pytest.mark.parametrize("quantized", [False, True])
def test_a_recording_in_pieces_gives_the_same(quantized):
    first = Neuron(np.float32(1), np.float32(-1))
    last = Neuron(np.float32(2), initial_v=np.float32(0.5))
    graph = chain(Conv2d(numbers(4, 2, 3, 3)), first, Flatten(), Linear(numbers(3, 144)), last)
    model = to_onnx(quantize(graph).graph if quantized else graph)
    events = raster(graph, 2, steps=9)
    whole, first = run(model, events), run(model, events[:, :4])
    states = {key.replace("v_final", "v_initial"): value for key, value in first.items() if key != "output"}
    assert len(states) == 2
    second = run(model, events[:, 4:], **states)
    assert np.array_equal(np.concatenate([first["output"], second["output"]], 1), whole["output"])
    assert all(np.array_equal(second[key], whole[key]) for key in whole if key != "output")
    # Potentials given for some samples: the others start from the network's own.
    fewer = {key: value[:1] for key, value in states.items()}
    mixed = run(model, events[:, 4:], **fewer)["output"]
    assert np.array_equal(mixed[0], second["output"][0])
    assert np.array_equal(mixed[1], run(model, events[1:, 4:])["output"][0])


def recurrent() -> Graph:
    """Neurons that excite each other, one and three steps later."""
    nodes = {
        "input": Input((6,)),
        "back": Feedback((6,)),
        "sum": Add(),
        "neurons": Neuron(np.float32(1), decay=np.float32(0.5)),
        "weights": Linear(numbers(6, 6)),
        "late": Delay(np.array([0, 0, 1, 2, 2, 0])),
        "readout": LI(decay=np.float32(0.5), input_gain=np.float32(0.5)),
        "output": Output(),
    }
    edges = [("input", "sum"), ("back", "sum"), ("sum", "neurons"), ("neurons", "weights"), ("weights", "late")]
    return Graph(nodes, (*edges, ("late", "back"), ("neurons", "readout"), ("readout", "output")))


def test_a_recurrent_network_is_one_scan_and_streams():
    graph = recurrent()
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    events = raster(graph, 5, steps=12)
    whole, first = run(model, events), run(model, events[:, :5])
    oracle = Stepwise(graph, np.float32)
    values = oracle.run(events)
    assert np.array_equal(whole["output"], values["output"])
    assert values["neurons"].any()
    assert set(whole) == {"output", "back.v_final", "neurons.v_final", "late.history_final", "readout.v_final"}
    states = {key.replace("_final", "_initial"): value for key, value in first.items() if key != "output"}
    second = run(model, events[:, 5:], **states)
    for key, value in whole.items():
        pieces = np.concatenate([first[key], second[key]], 1) if key == "output" else second[key]
        assert np.array_equal(pieces, value), key


def test_simulated_quantization_is_the_integers_over_their_scale(tmp_path):
    neuron = Neuron(np.float32(1), np.float32(-1), initial_v=numbers(4, 6, 6) / 4)
    quantized = quantize(chain(Conv2d(numbers(4, 2, 3, 3), numbers(4) / 9), neuron))
    quantized.save_qdq(tmp_path / "qdq.onnx")
    model = onnx.load(tmp_path / "qdq.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("DequantizeLinear") == 5
    assert load_graph(tmp_path / "qdq.onnx") == quantized.graph
    scale = np.float64(quantized.layers["n0"].scale)
    changed = {}
    for name, node in quantized.graph.nodes.items():
        values = {part.name: getattr(node, part.name) for part in fields(node)}
        parts = {k: v for k, v in values.items() if getattr(v, "dtype", np.dtype(float)).kind == "i"}
        changed[name] = replace(node, **{k: (v * np.float32(1 / scale)).astype(np.float32) for k, v in parts.items()})
    events = raster(quantized.graph, 6)
    # ONNX Runtime adds in another order where it does not know the weights beforehand; the reference does not.
    expected = evaluate(to_onnx(quantized.graph.with_nodes(changed)), events)
    assert all(np.array_equal(value, expected[key]) for key, value in evaluate(model, events).items())
    assert run(model, events)["output"].any()


def test_time_and_batch_are_symbolic_and_names_tell_what_is_what():
    graph = chain(Conv2d(numbers(4, 2, 3, 3)), Neuron(np.float32(1)))
    model = to_onnx(graph, annotations={"n0": {"neurodeploy.core": "3"}}, provenance={"source": "here"})

    def shapes(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert shapes(model.graph.input) == {"input": ["B", "T", *SHAPE], "n1.v_initial": ["K", 4, 6, 6]}
    assert shapes(model.graph.output) == {"output": ["B", "T", 4, 6, 6], "n1.v_final": ["B", 4, 6, 6]}
    assert [opset.domain for opset in model.opset_import] == ["", "neurodeploy.snn"]
    assert [function.name for function in model.functions] == ["IAF_subtract_multi"]
    assert any(node.op_type == "Scan" for node in model.functions[0].node)
    nodes = {node.name: {entry.key: entry.value for entry in node.metadata_props} for node in model.graph.node}
    assert nodes["n0"] == {"neurodeploy.node": "n0", "neurodeploy.kind": "Conv2d", "neurodeploy.core": "3"}
    assert nodes["n1"] == {"neurodeploy.node": "n1", "neurodeploy.kind": "Neuron"}
    assert {entry.key: entry.value for entry in model.metadata_props}["neurodeploy.provenance"] == '{"source":"here"}'


def test_linear_operators_run_once_over_time_and_batch_and_functions_are_shared():
    graph = chain(*[Conv2d(numbers(2, 2, 3, 3), padding=(1, 1)), Neuron(np.float32(1))] * 3)
    model = to_onnx(graph)
    assert [node.op_type for node in model.graph.node].count("Conv") == 3
    assert len(model.functions) == 1
    integer = to_onnx(quantize(graph).graph)
    kinds = [node.op_type for node in integer.graph.node]
    assert sum(kind.startswith("ConvInteger") for kind in kinds) == 3
    assert "Conv" not in kinds


def test_nan_potentials_never_fire():
    graph = chain(Conv2d(numbers(2, 2, 3, 3)), Neuron(np.float32(1), np.float32(-1)))
    events = raster(graph, 0).astype(np.float32)
    events[0, 1, 0, 3, 3] = np.nan
    found = run(to_onnx(graph), events)["output"]
    assert np.array_equal(found, result(graph, events))
    assert np.isfinite(found).all()


def integer_conv(weight, *neurons) -> Graph:
    return chain(*(part for neuron in neurons for part in (Conv2d(np.full((2, 2, 1, 1), weight, np.int8)), neuron)))


def test_counts_beyond_eight_bits_are_exact():
    neuron = Neuron(np.array(1, np.int16), np.array(-9, np.int16))
    graph = integer_conv(127, neuron, neuron, neuron)
    events = np.full((1, 2, *SHAPE), 255)
    output = run(to_onnx(graph), events)["output"]
    assert output.max() == 255 * 254**3
    assert np.array_equal(output, result(graph, events))


def test_potentials_that_add_up_over_time_have_64_bits():
    graph = integer_conv(127, Neuron(np.array(9, np.int16), np.array(-9, np.int16), reset="none", spikes="single"))
    assert run(to_onnx(graph), np.full((1, 3, *SHAPE), 255))["n1.v_final"].dtype == np.int64
    bounded = integer_conv(1, Neuron(np.array(9, np.int16), np.array(-9, np.int16)))
    assert run(to_onnx(bounded), np.zeros((1, 1, *SHAPE)))["n1.v_final"].dtype == np.int32


def test_integer_networks_whose_sums_do_not_fit_are_refused():
    wide = chain(
        Linear(np.full((1, 200_000), 127, np.int8)),
        Neuron(np.array(9, np.int16), np.array(-9, np.int16)),
        shape=(200_000,),
    )
    with pytest.raises(GraphError, match="n0: the absolute weights") as info:
        to_onnx(wide)
    assert info.value.code == "sums"
    twice = chain(*[Conv2d(np.ones((2, 2, 1, 1), np.int8))] * 2, Neuron(np.array(9, np.int16)))
    with pytest.raises(GraphError, match="n1: its input can be negative") as info:
        to_onnx(twice)
    assert info.value.code == "integer-input"


def test_kinds_without_a_form_and_fields_of_other_types_are_refused():
    class Strange(Flatten):
        kind = "Strange"

    with pytest.raises(GraphError, match="n0: a Strange has no ONNX form"):
        to_onnx(chain(Strange()))
    with pytest.raises(GraphError, match="n0: stride of a Conv2d"):
        to_onnx(chain(Conv2d(numbers(2, 2, 3, 3), stride=(1.0, 1))))
    with pytest.raises(GraphError, match="n0: threshold of a Neuron"):
        to_onnx(chain(Neuron(np.array(1, np.complex64))))


def test_values_that_no_json_number_can_say_survive(tmp_path):
    decay = np.float64(1 / 3)
    neuron = Neuron(np.float32(0.1), np.array(-np.inf), decay=decay, initial_v=np.array(2**62, np.int64))
    graph = chain(neuron)
    save_graph(graph, tmp_path / "a.onnx")
    again = load_graph(tmp_path / "a.onnx")
    assert again == graph
    assert again.nodes["n0"].v_min.dtype == np.float64
