import json
from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.errors import ProgramError, QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nir_reader import read_nir
from neurodeploy.graph.nodes import AvgPool2d, Conv2d, Flatten, Input, Linear, Neuron, Node, Output, SumPool2d
from neurodeploy.quantize import PASSES, QuantizationSpec, load_quantized, quantize
from tests.shared_data import SHARED, needs_shared

WEIGHT = np.array([[[[0.5, -0.31], [0.125, 0]]], [[[0.26, 0.7], [-0.9, 0.037]]]], np.float32)


def f32(value):
    return np.asarray(value, np.float32)


def chain(*nodes: Node, shape=(1, 6, 6)) -> Graph:
    named = {"input": Input(shape)} | {f"n{i}": node for i, node in enumerate(nodes)} | {"output": Output()}
    return Graph(named, tuple(pairwise(named)))


def network(bias=None, threshold=1.0, v_min=-1.0, weight=WEIGHT, **fields) -> Graph:
    bias = None if bias is None else f32(bias)
    v_min = None if v_min is None else f32(v_min)
    return chain(Conv2d(f32(weight), bias), Neuron(f32(threshold), v_min, **fields))


def refusal(graph, code, **options):
    with pytest.raises(QuantizeError) as info:
        quantize(graph, **options)
    assert info.value.code == code, str(info.value)
    assert info.value.remedy
    return str(info.value)


# The worked example of sinabs' method; each row was checked against sinabs 3.1.3.
@pytest.mark.parametrize(
    ("graph", "scale", "limited_by", "weights", "bias", "threshold", "v_min"),
    [
        (network([-0.1, -0.02]), 142.222, "weight", [71, -44, 18, 0, 37, 100, -128, 5], [-14, -3], 142, -142),
        (network([-3, 0.5]), 42.667, "bias", [21, -13, 5, 0, 11, 30, -38, 2], [-128, 21], 43, -43),
        (
            network(None, 500, -500),
            65.534,
            "threshold",
            [33, -20, 8, 0, 17, 46, -59, 2],
            None,
            32767,
            -32767,
        ),
        (network(None, 500, -510), 64.251, "v_min", [32, -20, 8, 0, 17, 45, -58, 2], None, 32125, -32768),
        # sinabs scales an absent bound to -32768 and loses all weights; here it does not take part in the scale.
        (network(None, 1, None), 142.222, "weight", [71, -44, 18, 0, 37, 100, -128, 5], None, 142, -32768),
    ],
)
def test_worked_example(graph, scale, limited_by, weights, bias, threshold, v_min):
    result = quantize(graph)
    layer, neuron, row = result.graph.nodes["n0"], result.graph.nodes["n1"], result.layers["n0"]
    assert layer.weight.dtype == np.int8
    assert layer.weight.ravel().tolist() == weights
    assert (layer.bias is None) == (bias is None)
    if bias is not None:
        assert layer.bias.dtype == np.int16
        assert layer.bias.tolist() == bias
    assert (neuron.threshold.dtype, neuron.threshold.shape, int(neuron.threshold)) == (np.int16, (), threshold)
    assert (neuron.v_min.dtype, neuron.v_min.shape, int(neuron.v_min)) == (np.int16, (), v_min)
    assert row.scale == pytest.approx(scale, abs=5e-4)
    assert row.limited_by == limited_by
    assert (row.weight_min, row.weight_max) == (min(weights), max(weights))
    assert (row.threshold_integer, row.v_min_integer) == (threshold, v_min)
    assert row.weight_error_lsb == pytest.approx(np.abs(WEIGHT.ravel() * row.scale - weights).max(), rel=1e-5)
    assert row.threshold_error == pytest.approx(threshold / row.scale - row.threshold)


def test_an_average_pool_before_the_layer_scales_threshold_and_bias_up():
    first = (Conv2d(f32(np.ones((1, 1, 1, 1)))), Neuron(f32(1), f32(-1)))
    graph = chain(*first, AvgPool2d((2, 2), (2, 2)), Conv2d(WEIGHT, f32([-0.1, -0.02])), Neuron(f32(1), f32(-1)))
    result = quantize(graph)
    layer, neuron = result.graph.nodes["n3"], result.graph.nodes["n4"]
    assert layer.weight.ravel().tolist() == [71, -44, 18, 0, 37, 100, -128, 5]
    assert layer.bias.tolist() == [-57, -11]
    assert (int(neuron.threshold), int(neuron.v_min)) == (569, -569)
    assert result.layers["n3"].scale == pytest.approx(568.889, abs=5e-4)
    assert result.graph.nodes["n2"] == SumPool2d((2, 2), (2, 2))


def test_a_threshold_that_rounds_to_zero_is_refused():
    message = refusal(network(threshold=0.001, v_min=-1), "threshold-zero")
    assert "n1" in message
    assert "0.001" in message


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    assert "n1" in refusal(network(threshold=threshold), "threshold-zero")


@pytest.mark.parametrize("v_min", [0, -0.001, 0.5])
def test_a_v_min_of_zero_is_refused(v_min):
    message = refusal(network(v_min=v_min), "v-min-zero")
    assert "n1" in message
    assert "-threshold" in message
    assert "n1" in refusal(network(), "v-min-zero", v_min=v_min)


def test_dead_layers_are_refused():
    assert "n0" in refusal(network(weight=np.zeros((2, 1, 2, 2))), "dead-layer")
    assert "limited by its bias" in refusal(network(bias=[-1000.0, 0]), "dead-layer")


@pytest.mark.parametrize("field", ["weight", "bias", "threshold", "v_min", "initial_v"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(field, value):
    arguments = {"weight": WEIGHT.copy(), "bias": f32([0, 1]), "threshold": f32(1), "v_min": f32(-1)}
    if field in ("weight", "bias"):
        arguments[field].flat[0] = value
    else:
        arguments[field] = f32(value)
    assert field in refusal(network(**arguments), "not-finite")


@pytest.mark.parametrize("field", ["threshold", "v_min"])
def test_values_per_neuron_are_refused_unless_equal(field):
    values = np.full((2, 5, 5), -2 if field == "v_min" else 2, np.float32)
    assert quantize(network(**{field: values})).graph.nodes["n1"].threshold.shape == ()
    values[0, 0, 0] *= 2
    assert field in refusal(network(**{field: values}), f"{field.replace('_', '-')}-per-neuron")


@pytest.mark.parametrize(
    ("option", "expected"),
    [(None, -71), ("-threshold", -142), ("lowest", -32768), (-2, -284), (-0.25, -36), ("-0.25", -36)],
)
def test_v_min_option(option, expected):
    result = quantize(network(v_min=-0.5), v_min=option)
    assert int(result.graph.nodes["n1"].v_min) == expected


def test_an_unknown_v_min_option_is_refused():
    refusal(network(), "v-min", v_min="low")
    refusal(network(), "v-min", v_min=float("nan"))
    refusal(network(), "v-min", v_min=[-1.0])


def test_initial_potentials_are_scaled_and_take_part_in_the_scale():
    initial_v = np.zeros((2, 5, 5), np.float32)
    initial_v[1, 2, 3] = 0.5
    result = quantize(network(initial_v=initial_v))
    assert result.graph.nodes["n1"].initial_v.dtype == np.int16
    assert result.graph.nodes["n1"].initial_v[1, 2, 3] == 71
    initial_v[1, 2, 3] = -5000
    result = quantize(network(initial_v=initial_v))
    assert result.layers["n0"].limited_by == "initial_v"
    assert result.graph.nodes["n1"].initial_v[1, 2, 3] == -32768


def test_report_and_warnings():
    result = quantize(network(bias=[-0.1, 0.02], threshold=0.5))
    (row,) = result.layers.values()
    assert not row.within_threshold
    assert any("slow clock" in text and "positive" in text for text in row.warnings)
    assert any("exceeds the threshold 71" in text for text in row.warnings)
    report = json.loads(json.dumps(result.report()))
    assert report["passes"] == [step.__name__ for step in PASSES]
    assert report["layers"][0]["scale"] == row.scale
    weight = np.stack([WEIGHT[0], -np.abs(WEIGHT[1])])
    row = quantize(network(weight=weight)).layers["n0"]
    assert row.dead_outputs == 1
    assert row.within_threshold
    assert any("1 output channels" in text for text in row.warnings)
    assert any("never fires" in text for text in quantize(network(weight=-np.abs(WEIGHT))).layers["n0"].warnings)
    assert quantize(network(weight=[[[[1, 0.001], [0, 0]]]])).layers["n0"].zeroed_weights == 0.5


def test_an_integer_network_is_refused():
    assert "n0" in refusal(quantize(network()).graph, "integers")


def test_wider_integers():
    result = quantize(network(bias=[-3, 0.5]), QuantizationSpec(weight_bits=8, bias_bits=16))
    assert result.layers["n0"].limited_by == "weight"
    assert result.graph.nodes["n0"].bias.tolist() == [-427, 71]
    assert quantize(network(), QuantizationSpec(weight_bits=4)).graph.nodes["n0"].weight.min() == -8


def test_what_has_no_place_on_the_chip_is_refused():
    neuron = Neuron(f32(1), f32(-1))
    assert "n0" in refusal(chain(Conv2d(WEIGHT)), "no-neuron")
    assert "n1 (SumPool2d)" in refusal(chain(Conv2d(WEIGHT), SumPool2d((2, 2), (2, 2)), neuron), "no-neuron")
    assert "n0" in refusal(chain(neuron, Conv2d(WEIGHT), neuron), "no-weights")
    refusal(chain(SumPool2d((2, 2), (2, 2))), "no-weights")


def test_shapes_after_quantization_are_maps():
    graph = chain(
        Conv2d(WEIGHT),
        Neuron(f32(1), f32(-1)),
        Flatten(),
        Linear(np.ones((4, 50), np.float32)),
        Neuron(f32(np.ones(4)), f32(-1)),
        Linear(np.ones((3, 4), np.float32)),
        Neuron(f32(1), f32(-1)),
    )
    result = quantize(graph)
    assert result.graph.shapes["n3"] == (4, 1, 1)
    assert result.graph.shapes["output"] == (3, 1, 1)
    assert result.graph.nodes["n3"].weight.shape == (4, 2, 5, 5)
    assert result.graph.nodes["n5"].weight.shape == (3, 4, 1, 1)
    assert list(result.layers) == ["n0", "n3", "n5"]


@needs_shared
def test_the_network_measured_on_the_chip():
    graph = read_nir(SHARED / "speck-reference" / "cnn_sinabs.nir")
    result = quantize(graph, v_min="-threshold")
    first = result.layers["0"]
    assert first.scale == pytest.approx(71.537, abs=5e-4)
    assert (first.weight_min, first.weight_max) == (-128, 37)
    assert (first.threshold_integer, first.v_min_integer) == (72, -72)
    assert all(row.v_min_integer == -32768 for row in quantize(graph).layers.values())
    assert list(result.layers) == ["0", "2", "5", "9", "11"]


def test_a_quantized_network_survives_the_disk(tmp_path):
    graph = chain(Conv2d(WEIGHT), Neuron(f32(1), f32(-1)))
    before = quantize(graph)
    before.save(tmp_path)
    after = load_quantized(tmp_path)
    assert (after.graph, dict(after.layers), after.spec) == (before.graph, dict(before.layers), before.spec)
    (tmp_path / "quantize.json").write_text('{"layers": [{}]}')
    with pytest.raises(ProgramError, match=r"quantize\.json"):
        load_quantized(tmp_path)


def test_values_too_small_for_any_scale_are_refused():
    assert "n0" in refusal(network(weight=WEIGHT * np.float32(1e-44), threshold=1e-44, v_min=None), "scale")


def test_a_node_that_is_not_known_is_refused():
    class Cube(Node):
        kind = "Cube"

    assert "n2: a Cube" in refusal(chain(Conv2d(WEIGHT), Neuron(f32(1)), Cube()), "unsupported-node")
