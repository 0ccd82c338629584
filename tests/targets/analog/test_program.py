"""An analog program is plain data: it survives its file, and every wrong field is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.errors import ProgramError
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram, program_of_dict


def parameters(inputs, neurons, **changes):
    rng = np.random.default_rng(inputs * 100 + neurons)
    values = {
        "weight": rng.normal(size=(inputs, neurons)),
        "tau_mem": np.full(neurons, 0.01),
        "tau_syn_exc": np.full(neurons, 0.005),
        "tau_syn_inh": np.full(neurons, 0.004),
        "threshold": np.full(neurons, 1.0),
        "v_reset": np.full(neurons, -0.1),
        "t_ref": np.full(neurons, np.inf),
    }
    return LayerParameters(**{**values, **changes})


def layer(name, source, inputs, neurons):
    sites = np.arange(inputs * neurons, dtype=np.int64).reshape(inputs, neurons)
    numbers = np.arange(neurons, dtype=np.int64)[:, None]
    return AnalogLayer(name, source, 1, parameters(inputs, neurons), numbers, sites, np.zeros(neurons, np.int32))


def program():
    layers = (layer("hidden", "input", 5, 4), layer("label", "hidden", 4, 3))
    return AnalogProgram("ideal", 5, layers, 0.03, 1000.0, 4e-6, {"rows": [1, 2]})


def test_a_program_survives_its_json_text():
    text = json.dumps(program().to_dict(), allow_nan=False)
    again = program_of_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert again.layers[0].nominal == program().layers[0].nominal
    assert again.layer("label").neurons == 3


def test_an_unknown_layer_is_named():
    with pytest.raises(ProgramError, match=r"no layer 'x'.*choose one of: hidden, label"):
        program().layer("x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("inputs"), "program: fields"),
        (lambda data: data.update(inputs=True), "program: inputs must be a whole number"),
        (lambda data: data.update(inputs=6), "hidden: source"),
        (lambda data: data.update(layers=[]), "program: layers"),
        (lambda data: data.update(layers=3), "program: layers must be a list"),
        (lambda data: data.update(acceleration=0), "program: t_max, acceleration"),
        (lambda data: data.update(configuration=[]), "program: configuration"),
        (lambda data: data["layers"][1].update(source="none"), "label: source"),
        (lambda data: data["layers"][1].update(name="hidden"), "hidden: name"),
        (lambda data: data["layers"][0].update(max_spikes=0), "hidden: max_spikes"),
        (lambda data: data["layers"][0].update(cores=[0, 0]), "hidden: cores"),
        (lambda data: data["layers"][0].update(cores=[0, 0, 0, 0.5]), "hidden: cores must be numbers"),
        (lambda data: data["layers"][0]["neuron_sites"].pop(), "hidden: neuron_sites"),
        (lambda data: data["layers"][0]["synapse_sites"][0].__setitem__(0, -1), "hidden: synapse_sites"),
        (lambda data: data["layers"][0]["nominal"].update(weight=[[1.0], [2.0, 3.0]]), "hidden: weight"),
        (lambda data: data["layers"][0]["nominal"].update(tau_mem=[1, 1, 1, 0]), "tau_mem is 0 for neuron 3"),
        (lambda data: data["layers"][0]["nominal"].update(t_ref=[1, 1, -1, 0]), "t_ref is -1 for neuron 2"),
        (lambda data: data["layers"][0]["nominal"].update(v_reset=[0, 2, 0, 0]), "v_reset is 2 for neuron 1"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    data = program().to_dict()
    change(data)
    with pytest.raises(ProgramError, match=message):
        program_of_dict(data)


def test_weights_are_finite_and_float64():
    with pytest.raises(ProgramError, match="not finite"):
        parameters(2, 2, weight=np.full((2, 2), np.nan))
    with pytest.raises(ProgramError, match=r"float32 of shape \(2, 2\)"):
        parameters(2, 2, weight=np.zeros((2, 2), np.float32))


def test_a_layer_of_another_length_is_refused():
    good = layer("hidden", "input", 5, 4)
    with pytest.raises(ProgramError, match="hidden: cores"):
        replace(good, cores=np.zeros(4, np.int64))
