"""Calibration of weight ranges and thresholds on recordings."""

from dataclasses import replace

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import QuantizeError, ValidationError
from neurodeploy.events.dataset import load_npz
from neurodeploy.graph.nodes import Conv2d
from neurodeploy.quantize import LayerCalibration, QuantizationSpec, load_calibration, quantize
from tests.shared_data import SHARED, needs_shared
from tests.validation.one_neuron import chain, neuron
from tests.validation.test_sweep import small

CHIP = "family: dynapcnn\nname: coarse\ntitle: 4 bits\nquantization:\n  weight_bits: {value: 4, source: a test}\n"


@pytest.fixture
def coarse(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text(CHIP)
    return path


def outlier(seed=0):
    """A network whose one large weight takes most of the integer range."""
    graph, data = small(seed)
    conv = graph.nodes["n0"]
    assert isinstance(conv, Conv2d)
    weight = conv.weight.copy()
    weight[0, 0, 0, 0] = 4 * np.abs(weight).max()
    return graph.with_nodes({"n0": replace(conv, weight=weight)}), data


def test_calibration_brings_the_chip_closer_to_the_trained_network(coarse):
    pytest.importorskip("torch")
    graph, data = outlier()
    result = nd.calibrate(graph, data, dt_us=50, target=coarse)
    (row,) = result.layers
    assert row.error_after < 0.8 * row.error_before
    assert abs(row.rate_after - row.rate_trained) < abs(row.rate_before - row.rate_trained)
    compiled = nd.compile(graph, target=coarse, calibration=result.calibration)
    done = nd.validate(compiled, data, runs=["event_driven"]).runs["event_driven"]
    assert done.layers["n0"].mean_spikes == row.rate_after
    assert float(np.mean(done.predictions == data.labels)) == result.accuracy_after
    assert nd.calibrate(graph, data, dt_us=50, target=coarse, threads=2) == result


def test_a_layer_that_nothing_improves_stays_as_trained(coarse):
    pytest.importorskip("torch")
    graph, data = small(3)
    result = nd.calibrate(graph, data, dt_us=50, weight_ranges=[1.0])
    for row in result.layers:
        assert row.error_after <= row.error_before
        assert (row.layer in result.calibration) == (row.error_after < row.error_before)


def test_what_calibration_changes_is_reported():
    graph, _ = outlier()
    plain = quantize(graph).layers["n0"]
    layer = quantize(graph, calibration={"n0": LayerCalibration(0.25, 1.5)}).layers["n0"]
    assert (plain.weight_range, plain.threshold_factor, plain.clipped_weights) == (1, 1, 0)
    assert layer.scale == pytest.approx(4 * plain.scale, rel=1e-6)
    assert layer.clipped_weights == 1 / 96
    assert layer.weight_max == 127
    assert layer.threshold_integer == np.rint(np.float32(1.5) * np.float32(layer.scale))
    text = " ".join(layer.warnings)
    assert "clips 1.04%" in text
    assert "multiplies the threshold by 1.5" in text


def test_calibration_file_goes_to_compile(tmp_path, coarse):
    pytest.importorskip("torch")
    graph, data = outlier()
    result = nd.calibrate(graph, data, dt_us=50, target=coarse)
    result.save(tmp_path)
    assert load_calibration(tmp_path / "calibration.json") == dict(result.calibration)
    a = nd.compile(graph, target=coarse, calibration=tmp_path / "calibration.json")
    assert a.program.to_dict() == nd.compile(graph, target=coarse, calibration=result.calibration).program.to_dict()
    assert a.program.to_dict() != nd.compile(graph, target=coarse).program.to_dict()


def test_bias_in_sixteen_bits_leaves_the_weights_fine():
    graph = chain(
        Conv2d(np.full((1, 1, 2, 2), 0.1, np.float32), np.array([-3.0], np.float32)), neuron(1, -1), shape=(1, 2, 2)
    )
    narrow, wide = quantize(graph), quantize(graph, QuantizationSpec(bias_bits=16))
    assert (narrow.layers["n0"].limited_by, wide.layers["n0"].limited_by) == ("bias", "weight")
    assert wide.layers["n0"].weight_max == 127
    assert narrow.layers["n0"].weight_max < 8
    compiled = nd.compile(graph, bias_bits=16)
    assert compiled.layers["n0"].biases[0] == wide.layers["n0"].bias_min == -3810
    with pytest.raises(QuantizeError) as caught:
        nd.compile(graph, bias_bits=17)
    assert caught.value.code == "bits"


@pytest.mark.parametrize("layer", [(0.0, 1.0), (1.1, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, float("inf"))])
def test_values_without_meaning_are_refused(layer):
    with pytest.raises(QuantizeError) as caught:
        LayerCalibration(*layer)
    assert caught.value.code == "calibration"


def test_wrong_input_is_refused(tmp_path):
    graph, data = small()
    with pytest.raises(QuantizeError, match="other"):
        nd.compile(graph, calibration={"other": LayerCalibration()})
    with pytest.raises(ValidationError):
        nd.calibrate(graph, data[:0], dt_us=50)
    (tmp_path / "calibration.json").write_text('{"calibration": [1]}')
    with pytest.raises(QuantizeError, match="not a calibration"):
        nd.compile(graph, calibration=tmp_path / "calibration.json")


@needs_shared
def test_recovers_accuracy_of_the_published_network_at_four_bits(coarse):
    pytest.importorskip("torch")
    data = SHARED / "nmnist-small"
    train = load_npz(data / "nmnist_train.npz", sensor_size=(2, 34, 34))[:40]
    graph = nd.load(SHARED / "speck-reference" / "cnn_sinabs.nir")
    result = nd.calibrate(graph, train, dt_us=1000, target=coarse)
    errors = [(row.error_before, row.error_after) for row in result.layers]
    assert all(after <= before for before, after in errors)
    assert result.accuracy_after > result.accuracy_before
    test = load_npz(data / "nmnist_test.npz", sensor_size=(2, 34, 34))
    deployed = nd.compile(graph, target=coarse, calibration=result.calibration)
    assert nd.validate(deployed, test, runs=["event_driven"]).accuracy["event_driven"] >= 0.98
