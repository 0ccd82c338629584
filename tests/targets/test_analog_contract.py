"""What every analog chip found in ``targets/`` must do. A new folder is tested without a change here."""

import json

import numpy as np
import pytest

from neurodeploy.analog.deployment import AnalogDeployment
from neurodeploy.errors import ConfigError
from neurodeploy.files import canonical_json
from neurodeploy.target import load_target, target_names
from neurodeploy.targets.analog.virtual_chip import VirtualChip
from tests.targets.analog.networks import chain, often, spikes


@pytest.fixture(scope="module", params=[name for name in target_names() if load_target(name).code.analog])
def target(request):
    return load_target(request.param)


@pytest.fixture(scope="module", params=["once", "often"])
def compiled(request, target):
    graph = chain() if request.param == "once" else chain(neuron=often)
    return target.analog_family.compile(graph, target.chip)


def test_it_is_no_chip_of_integers(target):
    with pytest.raises(ConfigError, match=f"{target.name} is an analog chip"):
        _ = target.family
    with pytest.raises(ConfigError, match="speck2f is no analog chip"):
        _ = load_target("speck2f").analog_family
    assert target.devices == ()


def test_rules_have_unique_codes_and_texts(target):
    rules = target.code.rules(target.chip)
    assert len({rule.code for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.severity in ("error", "note")
        assert rule.text.endswith(".")
        assert "{" not in rule.text
        assert "None" not in rule.text


def test_the_golden_network_breaks_no_rule(target):
    findings = target.analog_family.check(chain(), target.chip)
    assert [found.message for found in findings if found.rule.severity == "error"] == []


def test_it_compiles_to_the_same_program_every_time(target, compiled):
    program = compiled.program
    assert (program.target, program.family, program.inputs) == (target.name, "analog", 5)
    assert [(layer.name, layer.source, layer.neurons) for layer in program.layers] == [
        ("layer0", "input", 20),
        ("layer1", "layer0", 3),
    ]
    text = canonical_json(program.to_dict())
    graph = chain(neuron=often) if program.layers[0].max_spikes == 32 else chain()
    assert canonical_json(target.analog_family.compile(graph, target.chip).program.to_dict()) == text
    again = target.analog_family.read_program(json.loads(text), target.chip)
    assert canonical_json(again.to_dict()) == text


def test_every_parameter_is_reported_with_its_error(target, compiled):
    canonical_json(compiled.report)
    assert [layer["name"] for layer in compiled.report["layers"]] == ["layer0", "layer1"]
    for layer in compiled.report["layers"]:
        assert set(layer["parameters"]) >= {"tau_mem", "tau_syn_exc", "tau_syn_inh", "t_ref", "threshold"}
        assert 0 <= layer["weights"]["nrmse"] < 0.3
        for entry in layer["parameters"].values():
            assert set(entry) >= {"unit", "requested", "realised", "error", "words"}
            assert np.max(entry["error"]) <= 0.05


def test_the_program_is_close_to_the_network(compiled):
    for layer in compiled.program.layers:
        nominal = layer.nominal
        for name, wanted in (("tau_mem", 0.01), ("tau_syn_exc", 0.005), ("tau_syn_inh", 0.005), ("threshold", 1.0)):
            assert np.allclose(getattr(nominal, name), wanted, rtol=0.05), name
        assert np.abs(nominal.v_reset).max() < 0.05
        assert (nominal.t_ref >= (0.03 if layer.max_spikes == 1 else 0.00095)).all()


def test_circuits_and_synapses_are_used_once(target, compiled):
    neurons = np.concatenate([layer.neuron_sites.ravel() for layer in compiled.program.layers])
    synapses = np.concatenate([layer.synapse_sites[layer.synapse_sites >= 0] for layer in compiled.program.layers])
    assert len(np.unique(neurons)) == len(neurons)
    assert len(np.unique(synapses)) == len(synapses)
    assert neurons.min() >= 0
    if target.chip.fabric.neurons is not None:
        assert neurons.max() < target.chip.fabric.neurons * target.chip.fabric.chips.value


def test_a_chip_has_deviations_of_its_own(target, compiled):
    first, again = (VirtualChip(target.chip, 3).realise(compiled.program) for _ in range(2))
    assert first == again
    other = VirtualChip(target.chip, 4).realise(compiled.program)
    spread = any(parameter.spread is not None for _, parameter in target.chip.parameters.items())
    assert (first != other) == spread


def test_it_runs_the_same_in_any_batches(compiled):
    deployment = AnalogDeployment(chain(), compiled.program, {})
    times = spikes()
    nominal = deployment.emulate(times)
    assert list(nominal.times) == ["layer0", "layer1"]
    assert nominal.output.shape[:2] == (16, 3)
    assert np.isfinite(nominal.output).any()
    options = {"serial": 1, "noise": True, "seed": 5}
    whole = deployment.emulate(times, **options, threads=2).first_spikes("layer1")
    parts = [deployment.emulate(times[part], **options, trials=part) for part in (np.arange(7), np.arange(7, 16))]
    assert np.concatenate([part.first_spikes("layer1") for part in parts]).tobytes() == whole.tobytes()
