"""DYNAP-SE2: every limit of the chip is kept or refused by name, and the words alone say what the chip computes."""

import copy
import json
from dataclasses import replace
from itertools import pairwise
from math import exp, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import ConstraintError, MappingError, ProgramError, QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import CubaLIF, Input, Linear, Output
from neurodeploy.target import load_target
from neurodeploy.targets.analog.chip import Fact
from neurodeploy.targets.analog.dynapse2 import map_network, nominal_of
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.settings import Settings

CHIP = load_target("dynapse2").chip
UNIT = 0.01  # seconds


def parameters(weight, **changes):
    neurons = weight.shape[1]
    values = {
        "tau_mem": 2 * UNIT,
        "tau_syn_exc": UNIT,
        "tau_syn_inh": UNIT,
        "threshold": 1.0,
        "v_reset": 0.0,
        "t_ref": inf,
        **changes,
    }
    rows = {name: np.broadcast_to(np.asarray(value, np.float64), neurons).copy() for name, value in values.items()}
    return LayerParameters(weight=np.asarray(weight, np.float64), **rows)


def normal(inputs, neurons, seed=0):
    return np.random.default_rng(seed).normal(size=(inputs, neurons)) * 2 / UNIT


def network(*weights, **changes):
    """Layers one after the other: "layer 0", "layer 1", ..."""
    layers = []
    for number, weight in enumerate(weights):
        source = f"layer {number - 1}" if number else "input"
        layers.append(Wanted(f"layer {number}", source, parameters(weight, **changes), 1))
    return AnalogNetwork(weights[0].shape[0], tuple(layers), 6 * UNIT)


def mapped(*weights, chip=CHIP, allow_error=False, **changes):
    return map_network(network(*weights, **changes), chip, Settings(allow_error=allow_error))


def with_fabric(**changes):
    """The chip with other numbers of circuits."""
    facts = {name: Fact(value=value, source="test") for name, value in changes.items()}
    return CHIP.model_copy(update={"fabric": CHIP.fabric.model_copy(update=facts)})


def words(program):
    return json.loads(json.dumps(program.to_dict()))["configuration"]


def core_words(program, chip, core):
    return next(entry for entry in words(program)["cores"] if (entry["chip"], entry["core"]) == (chip, core))


# What the words say


def current(word):
    coarse, fine = word
    return 1e-12 + 72e-12 * 8**coarse * fine / 255


def recomputed_weights(configuration, layer, inputs):
    """The weights of a layer of one chip, by its words and the published equations alone."""
    (entry,) = [entry for entry in configuration["layers"] if entry["name"] == layer]
    if entry["source"] == "input":
        senders = configuration["inputs"]
    else:
        (source,) = [other for other in configuration["layers"] if other["name"] == entry["source"]]
        senders = [neuron_words(configuration, place)["destinations"][1:] for place in source["places"]]
    weight = np.zeros((inputs, len(entry["places"])))
    for number, place in enumerate(entry["places"]):
        core = core_entry(configuration, place)
        bias = {name: current(word) for name, word in core["biases"].items()}
        thermal = 0.025 / 0.7
        tau_mem = 3e-12 * thermal / bias["SOIF_LEAK_N"]
        pulse = 0.5e-12 * 0.7 / bias["SYPD_EXT_N"]
        for tag, dendrite, mask in neuron_words(configuration, place)["synapses"]:
            gain, leak, capacity = {
                "ampa": ("DEAM_EGAIN_P", "DEAM_ETAU_P", 24.5e-12),
                "gaba": ("DEGA_IGAIN_P", "DEGA_ITAU_P", 25e-12),
            }[dendrite]
            tau = capacity * thermal / bias[leak]
            total = sum(bias[f"SYAM_W{bit}_P"] for bit in range(4) if mask >> bit & 1)
            jump = bias[gain] / bias[leak] * total * (1 - exp(-pulse / tau))
            slope = bias["SOIF_GAIN_N"] / bias["SOIF_LEAK_N"] * jump / tau_mem * core["potential_per_ampere"]
            (sender,) = [
                index
                for index, events in enumerate(senders)
                if any(tag == event[0] and place[1] in event[1] for event in events)
            ]
            weight[sender, number] = slope if dendrite == "ampa" else -slope
    return weight


def core_entry(configuration, place):
    (core,) = [entry for entry in configuration["cores"] if [entry["chip"], entry["core"]] == place[:2]]
    return core


def neuron_words(configuration, place):
    (neuron,) = [entry for entry in core_entry(configuration, place)["neurons"] if entry["neuron"] == place[2]]
    return neuron


def test_nominal_parameters_follow_from_the_words():
    found = mapped(normal(5, 40), normal(40, 3, seed=1)).program
    configuration = words(found)
    for layer, nominal in zip(found.layers, nominal_of(configuration, CHIP), strict=True):
        again = recomputed_weights(configuration, layer.name, layer.nominal.inputs)
        # Relative rounding of about twenty products, and of 1 - exp(-1e-3): 1e-16 / 1e-3.
        assert np.allclose(again, layer.nominal.weight, rtol=1e-11, atol=0)
        core = core_entry(configuration, [0, int(layer.cores[0])])
        leak, refractory = current(core["biases"]["SOIF_LEAK_N"]), current(core["biases"]["SOIF_REFR_N"])
        assert np.allclose(layer.nominal.tau_mem, 3e-12 * 0.025 / 0.7 / leak, rtol=1e-12)
        assert np.allclose(layer.nominal.t_ref, 1.5e-12 * 0.7 / refractory, rtol=1e-12)
        assert nominal == layer.nominal


def test_nominal_parameters_are_near_what_was_asked_for():
    asked = network(normal(16, 64), normal(64, 10, seed=1))
    result = map_network(asked, CHIP, Settings())
    for wanted, layer, entry in zip(asked.layers, result.program.layers, result.report["layers"], strict=True):
        error = np.linalg.norm(layer.nominal.weight - wanted.parameters.weight)
        nrmse = error / np.linalg.norm(wanted.parameters.weight)
        assert nrmse < 0.07
        assert entry["weights"]["nrmse"] == pytest.approx(nrmse, rel=1e-9)
        for name in ("tau_mem", "tau_syn_exc", "tau_syn_inh"):
            realised, requested = getattr(layer.nominal, name)[0], getattr(wanted.parameters, name)[0]
            assert entry["parameters"][name]["error"] == pytest.approx(abs(realised - requested) / requested, rel=1e-9)
            assert entry["parameters"][name]["error"] < 0.05
        assert np.allclose(layer.nominal.threshold, 1.0, rtol=1e-15)


def test_the_same_network_gives_the_same_words():
    asked = network(normal(5, 40), normal(40, 3, seed=1))
    texts = {json.dumps(map_network(asked, CHIP, Settings()).program.to_dict()) for _ in range(2)}
    assert len(texts) == 1


def test_every_circuit_is_used_once():
    found = mapped(normal(5, 300), np.sign(normal(300, 3, seed=1)) * (normal(300, 3, seed=2) > 2.5 / UNIT)).program
    sites = np.concatenate([layer.neuron_sites.ravel() for layer in found.layers])
    assert len(set(sites.tolist())) == sites.size
    for layer in found.layers:
        used = layer.synapse_sites[layer.synapse_sites >= 0]
        assert len(set(used.tolist())) == used.size
        assert ((layer.synapse_sites // 64 == layer.neuron_sites.T) | (layer.synapse_sites < 0)).all()
        assert np.array_equal(layer.cores, layer.neuron_sites[:, 0] // 256)


# Synapses


def sparse(inputs, used, neurons=4):
    weight = np.zeros((inputs, neurons))
    weight[:used] = np.random.default_rng(0).choice([-1.0, 1.0], (used, neurons)) / UNIT
    return weight


def test_64_inputs_of_70_fit():
    found = mapped(sparse(70, 64))
    assert found.report["layers"][0]["synapses_per_neuron"] == 64
    assert np.count_nonzero(found.program.layers[0].nominal.weight, axis=0).tolist() == [64] * 4


def test_65_inputs_of_70_do_not():
    with pytest.raises(ConstraintError, match=r"layer 0: neuron 0 has 65 inputs.*a neuron has 64 synapses"):
        mapped(sparse(70, 65))


def test_a_weight_that_rounds_to_0_takes_no_synapse():
    weight = normal(70, 4)
    weight[64:] = 0.001 / UNIT
    found = mapped(weight).program.layers[0]
    assert (found.nominal.weight[64:] == 0).all()
    assert (found.synapse_sites[64:] == -1).all()


# Cores


@pytest.mark.parametrize(("neurons", "cores"), [(255, 1), (256, 1), (257, 2), (512, 2), (513, 3)])
def test_256_neurons_fill_exactly_one_core(neurons, cores):
    found = mapped(normal(3, neurons))
    assert len(found.report["cores"]) == cores
    assert len(set(found.program.layers[0].cores.tolist())) == cores


def test_neurons_with_equal_parameters_share_cores_and_none_is_averaged():
    tau = np.where(np.arange(20) % 2, 2 * UNIT, 4 * UNIT)
    found = mapped(normal(4, 20), tau_mem=tau, allow_error=True).program.layers[0]
    assert found.cores.tolist() == [0, 1] * 10
    assert len(set(found.nominal.tau_mem[::2].tolist())) == len(set(found.nominal.tau_mem[1::2].tolist())) == 1
    assert np.allclose(found.nominal.tau_mem, tau, rtol=0.05)


def test_a_time_constant_for_each_neuron_is_refused():
    tau = np.linspace(1.5 * UNIT, 2.5 * UNIT, 20)
    with pytest.raises(
        ConstraintError, match=r"layer 0: neurons differ in tau_mem \(20 values, 0.015 to 0.025\).*needs 20 cores"
    ):
        mapped(normal(4, 20), tau_mem=tau)


def test_layers_share_a_core_when_there_is_no_other():
    small = with_fabric(chips=1, chip_positions=((0, 0),), cores=2)
    alone = mapped(normal(5, 30), normal(30, 10, seed=1), normal(10, 3, seed=2))
    found = mapped(normal(5, 30), normal(30, 10, seed=1), normal(10, 3, seed=2), chip=small)
    assert [sum(core["neurons"].values()) for core in alone.report["cores"]] == [30, 10, 3]
    assert len(found.report["cores"]) == 1
    for layer, nominal in zip(found.program.layers, nominal_of(words(found.program), small), strict=True):
        assert nominal == layer.nominal
        assert np.count_nonzero(layer.nominal.weight) > 0.7 * layer.nominal.weight.size


def test_more_neurons_than_places_are_refused():
    with pytest.raises(MappingError, match=r"needs 17 cores of 256 neurons; there are 16"):
        mapped(np.ones((1, 4097)))


# Spikes on their way


def test_a_neuron_that_reaches_two_chips_has_two_destinations():
    found = mapped(normal(2, 4), normal(4, 1000, seed=1)).program
    for neuron in core_words(found, 0, 0)["neurons"]:
        host, *spikes = neuron["destinations"]
        assert host[2:] == [-7, -7]
        assert [(cores, x, y) for _, cores, x, y in spikes] == [([1, 2, 3], 0, 0), ([0], 1, 0)]
    assert all(core["chip"] < 2 for core in words(found)["cores"])
    assert np.count_nonzero(found.layers[1].nominal.weight[:, -1]) > 0  # on the second chip


def test_a_neuron_cannot_reach_four_chips():
    with pytest.raises(MappingError, match=r"layer 0 0: its spikes go to 4 chips; a neuron has 3 destination words"):
        mapped(normal(2, 4), normal(4, 15 * 256, seed=1))


def test_the_host_reaches_all_chips():
    found = mapped(normal(2, 16 * 64), chip=with_fabric(neurons_per_core=64)).program
    assert [event[2:] for event in words(found)["inputs"][0]] == [[0, 0], [1, 0], [2, 0], [3, 0]]


def test_spikes_reach_the_host_under_tags_of_their_own():
    found = mapped(normal(5, 20), normal(20, 3, seed=1)).program
    configuration = words(found)
    assert configuration["monitor"] == [["layer 0", n] for n in range(20)] + [["layer 1", n] for n in range(3)]
    for tag, (layer, number) in enumerate(configuration["monitor"]):
        (entry,) = [entry for entry in configuration["layers"] if entry["name"] == layer]
        assert neuron_words(configuration, entry["places"][number])["destinations"][0] == [tag, [0, 1, 2, 3], -7, -7]


def test_with_many_neurons_only_the_last_layer_reaches_the_host():
    found = mapped(normal(2, 4), normal(4, 2045, seed=1)).program
    assert len(words(found)["monitor"]) == 2045
    assert all(neuron["destinations"][0][2] == 0 for neuron in core_words(found, 0, 0)["neurons"])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_weights_arrive_where_they_belong_in_any_network(seed):
    """Layers of random sizes and sources on chips of few small cores: what the words say is near what was asked for."""
    rng = np.random.default_rng(seed)
    chip = with_fabric(neurons_per_core=int(rng.integers(4, 12)), cores=3)
    inputs = int(rng.integers(1, 20))
    widths, layers = {"input": inputs}, []
    for number in range(int(rng.integers(1, 5))):
        source = str(rng.choice(list(widths)))
        shape = widths[source], int(rng.integers(1, 16))
        weight = rng.normal(size=shape) * (rng.random(shape) < 0.6) / UNIT
        layers.append(Wanted(f"layer {number}", source, parameters(weight), 1))
        widths[f"layer {number}"] = shape[1]
    found = map_network(AnalogNetwork(inputs, tuple(layers), 6 * UNIT), chip, Settings())
    for wanted, layer in zip(layers, found.program.layers, strict=True):
        weight, nominal = wanted.parameters.weight, layer.nominal.weight
        assert ((np.sign(nominal) == np.sign(weight)) | (nominal == 0)).all()
        assert np.linalg.norm(nominal - weight) <= 0.2 * np.linalg.norm(weight) + 1e-12
        assert np.array_equal(layer.synapse_sites >= 0, nominal != 0)


# Parameters


def test_a_slow_time_constant_is_refused_unless_allowed():
    weight = normal(3, 4)
    with pytest.raises(QuantizeError, match=r"layer 0: tau_mem: 0.15 s was asked for.*% off; the limit is 5 %"):
        mapped(weight, tau_mem=0.15)
    found = mapped(weight, tau_mem=0.15, allow_error=True)
    report = found.report["layers"][0]["parameters"]["tau_mem"]
    assert report["error"] > 0.05
    assert found.program.layers[0].nominal.tau_mem[0] == report["realised"]


def test_neurons_that_fire_once_are_held_long_beyond_the_end():
    found = mapped(normal(3, 4))
    assert found.program.layers[0].nominal.t_ref[0] > 4.5 * found.program.t_max
    assert found.report["layers"][0]["parameters"]["t_ref"]["requested"] is None
    far = map_network(replace(network(normal(3, 4)), t_max=0.9), CHIP, Settings())
    assert far.program.layers[0].nominal.t_ref[0] == pytest.approx(1.05)  # the longest there is


def test_no_refractory_time_is_the_shortest_there_is():
    found = mapped(normal(3, 4), t_ref=0.0).program
    assert found.layers[0].nominal.t_ref[0] == pytest.approx(1e-6, rel=0.05)


@pytest.mark.parametrize("t_max", [2.0, inf])
def test_a_run_that_the_refractory_time_cannot_cover_is_refused(t_max):
    with pytest.raises(
        ConstraintError, match=r"layer 0: its neurons fire once, in runs of .* holds a neuron for 1.05 s"
    ):
        map_network(replace(network(normal(3, 4)), t_max=t_max), CHIP, Settings())


def test_a_reset_to_anything_but_rest_is_refused():
    with pytest.raises(ConstraintError, match=r"layer 0: neuron 0 is reset to -0.2"):
        mapped(normal(3, 4), v_reset=-0.2)


@pytest.mark.parametrize("factor", [1e-5, 1e3])
def test_weights_beyond_the_currents_are_refused(factor):
    with pytest.raises(QuantizeError, match=r"layer 0: the largest weight, at a threshold of 1, is a current of"):
        mapped(normal(3, 4) * factor)


def test_a_measured_table_of_currents_need_not_rise():
    formula = 1e-12 + 72e-12 * 8.0 ** np.arange(6)[:, None] * np.arange(256) / 255
    measured = formula * np.random.default_rng(0).lognormal(0, 0.01, formula.shape)
    assert (np.diff(measured) < 0).any()
    table = Fact(value=tuple(map(tuple, measured.tolist())), source="test")
    parameters = {
        name: one.model_copy(update={"dac": one.dac.model_copy(update={"currents_a": table})})
        for name, one in CHIP.parameters.items()
        if one.dac.kind == "coarse_fine"
    }
    chip = CHIP.model_copy(update={"parameters": CHIP.parameters.model_copy(update=parameters)})
    found = mapped(normal(16, 64), chip=chip)
    assert found.report["layers"][0]["weights"]["nrmse"] < 0.07
    weights = core_words(found.program, 0, 0)["biases"]
    currents = [measured[tuple(weights[f"SYAM_W{bit}_P"])] for bit in range(4)]
    assert currents == found.report["cores"][0]["weight_currents_a"]
    assert nominal_of(words(found.program), chip) == tuple(layer.nominal for layer in found.program.layers)


def test_a_faster_chip_has_the_same_network():
    time = CHIP.time.model_copy(update={"acceleration": Fact(value=10.0, source="test")})
    asked = network(normal(16, 64))
    found = map_network(asked, CHIP.model_copy(update={"time": time}), Settings())
    nominal, wanted = found.program.layers[0].nominal, asked.layers[0].parameters
    assert np.linalg.norm(nominal.weight - wanted.weight) < 0.07 * np.linalg.norm(wanted.weight)
    assert np.allclose(nominal.tau_mem, wanted.tau_mem, rtol=0.05)
    assert found.report["layers"][0]["parameters"]["tau_mem"]["requested"] == pytest.approx(2 * UNIT / 10)


def test_weights_of_zero_are_mapped():
    found = mapped(np.zeros((3, 4)))
    assert (found.program.layers[0].nominal.weight == 0).all()
    assert found.report["layers"][0]["synapses_per_neuron"] == 0


# Through the family, as the pipeline calls it


def graph(weight, tau_mem=2 * UNIT):
    nodes = {
        "input": Input(weight.shape[:1]),
        "layer 0": Linear(weight.T * UNIT),
        "layer 0.neuron": CubaLIF(
            tau_mem=np.asarray(tau_mem),
            tau_syn_exc=np.array(UNIT),
            tau_syn_inh=np.array(UNIT),
            threshold=np.array(1.0),
            input_gain=np.array(1 / UNIT),
            max_spikes=1,
            t_max=6 * UNIT,
            v_reset=np.array(0.0),
            t_ref=np.array(inf),
        ),
        "output": Output(),
    }
    return Graph(nodes, tuple(pairwise(nodes)))


def test_the_fan_in_counts_after_rounding():
    weight = normal(70, 4)
    weight[64:] = 0.001 / UNIT
    family = load_target("dynapse2").analog_family
    assert family.compile(graph(weight), CHIP).program.layers[0].nominal.weight.shape == (70, 4)
    weight = sparse(70, 65)
    found = {finding.rule.code: finding for finding in family.check(graph(weight), CHIP)}
    assert sorted(found) == ["below-rest", "fan-in"]
    assert "neuron 0 has 65 inputs" in found["fan-in"].message
    assert found["below-rest"].rule.severity == "note"
    with pytest.raises(ConstraintError, match="neuron 0 has 65 inputs"):
        family.compile(graph(weight), CHIP)


def test_learned_time_constants_are_refused_by_name():
    family = load_target("dynapse2").analog_family
    learned = graph(normal(5, 40), np.linspace(1.5, 2.5, 40) * UNIT)
    found = [finding for finding in family.check(learned, CHIP) if finding.rule.code == "shared-parameters"]
    assert "layer 0: neurons differ in tau_mem (40 values, 0.015 to 0.025)" in found[0].message


# Words from a file


def change(path, value):
    def apply(configuration):
        *way, last = path
        for step in way:
            configuration = configuration[step]
        configuration[last] = value

    return apply


NEURON = ("cores", 0, "neurons", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change((*NEURON, "synapses", 0, 0), 2048), "tag is 2048; it must be a whole number from 0 to 2047"),
        (change((*NEURON, "synapses", 0, 0), 2047), "a synapse for tag 2047, with which nothing arrives"),
        (change((*NEURON, "synapses", 0, 1), "nmda"), "dendrite 'nmda'"),
        (change((*NEURON, "synapses", 0, 2), 16), "mask is 16"),
        (change((*NEURON, "synapses"), [[0, "ampa", 1]] * 65), "65 synapses; it must be at most 64"),
        (change((*NEURON, "destinations"), [[0, [0], 0, 0]] * 5), "5 destinations; it must be at most 4"),
        (change((*NEURON, "destinations", 1, 0), 2048), "tag is 2048"),
        (change((*NEURON, "destinations", 1, 1), [4]), "core is 4"),
        (change((*NEURON, "destinations", 1, 1), [1, 1]), "one of them twice"),
        (change((*NEURON, "destinations", 1, 2), 8), "hop is 8; it must be a whole number from -7 to 7"),
        (change((*NEURON, "destinations", 1, 2), 1), "with which nothing arrives"),
        (change((*NEURON, "neuron"), 256), "neuron is 256"),
        (change((*NEURON, "neuron"), 1), "twice"),
        (change(("cores", 0, "biases", "SOIF_LEAK_N"), [6, 0]), "SOIF_LEAK_N, coarse code, is 6"),
        (change(("cores", 0, "biases", "SOIF_LEAK_N"), [0, 256]), "SOIF_LEAK_N, fine code, is 256"),
        (change(("cores", 0, "biases"), {}), "other fields"),
        (change(("cores", 0, "potential_per_ampere"), -1.0), "potential_per_ampere"),
        (change(("cores", 1, "core"), 0), "twice"),
        (change(("inputs", 1), [[0, [0], 0, 0]]), "input 0 and input 1 arrives"),
        (change(("layers", 1, "source"), "input"), "the tag of one neuron of input"),
        (change(("layers", 1, "source"), "layer 1"), "in network order"),
        (change(("layers", 1, "name"), "layer 0"), "each name once"),
        (change(("layers", 1, "places"), []), "other places"),
        (change(("monitor", 0, 0), "layer 2"), "names the layer 'layer 2'"),
        (change(("monitor", 0, 1), 20), "neuron is 20"),
        (change(("monitor",), None), "monitor: is no such list"),
    ],
)
def test_damaged_words_are_named(damage, message):
    configuration = copy.deepcopy(DAMAGED)
    damage(configuration)
    with pytest.raises(ProgramError, match=message):
        nominal_of(configuration, CHIP)


DAMAGED = words(mapped(np.ones((5, 20)), np.ones((20, 3))).program)
