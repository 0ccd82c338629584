"""BrainScaleS-2: rows, labels, joined circuits; what its digital words compute is what the program says."""

import json

import numpy as np
import pytest

from neurodeploy.errors import MappingError
from neurodeploy.target import load_target
from neurodeploy.targets.analog import bss2
from neurodeploy.targets.analog.network import network_of
from neurodeploy.targets.analog.settings import Settings
from tests.targets.analog.networks import chain, number, often, weights

CHIP = load_target("bss2").chip


def mapped(graph):
    return bss2.map_network(network_of(graph), CHIP, Settings())


def sparse(inputs, neurons, fan_in, seed=0):
    """Every neuron hears ``fan_in`` inputs, drawn at random."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((neurons, inputs), np.float32)
    for row in matrix:
        row[rng.choice(inputs, fan_in, replace=False)] = rng.normal(size=fan_in)
    return matrix


GRAPHS = {
    "dense": chain(),
    "often": chain(neuron=often, v_reset=number(-0.3), tau_syn_inh=number(0.008)),
    "per neuron": chain((4, 3), tau_mem=number([0.01, 0.02, 0.03]), threshold=number([1, 0.5, 2])),
    "merged": chain((300, 4, 2)),
    "sparse": chain((500, 40, 3), matrices=[sparse(500, 40, 100), weights(40, 3)]),
}


@pytest.fixture(params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]


def test_what_the_words_compute_is_the_program(graph):
    found = mapped(graph)
    words = json.loads(json.dumps(found.program.configuration))
    for layer, nominal in zip(found.program.layers, bss2.nominal_of(words, CHIP), strict=True):
        assert layer.nominal == nominal


def test_weights_are_what_was_wanted_up_to_half_a_level(graph):
    network, found = network_of(graph), mapped(graph)
    for wanted, layer, report in zip(network.layers, found.program.layers, found.report["layers"], strict=True):
        level = found.program.configuration["gain"]["lsb_per_s"] / (
            layer.potential_unit * CHIP.time.acceleration.value * report["circuits_per_neuron"]
        )
        fitting = np.abs(wanted.parameters.weight) < 63 * level
        assert np.abs(layer.nominal.weight - wanted.parameters.weight)[fitting].max() <= level / 2 * (1 + 1e-12)
        assert fitting.mean() > 0.9
        error = np.sqrt(np.square(layer.nominal.weight - wanted.parameters.weight).mean())
        assert np.isclose(report["weights"]["nrmse"], error / np.sqrt(np.square(wanted.parameters.weight).mean()))


def test_words_are_digital(graph):
    configuration = mapped(graph).program.configuration
    array, row, column, code, label = np.array(configuration["synapses"]).T
    for values, limit in ((array, 2), (row, 256), (column, 256), (code, 64), (label, 64)):
        assert values.min() >= 0
        assert values.max() < limit
    places = np.stack([array, row, column])
    assert len(np.unique(places, axis=1).T) == places.shape[1]
    for layer in configuration["layers"]:
        for name, words in layer["words"].items():
            assert np.array(words).min() >= 0, name
            if name != "t_ref":
                assert np.array(words)[:, 0].max() <= 1022, name


def test_the_sign_of_a_weight_is_its_row(graph):
    program = mapped(graph).program
    for layer in program.layers:
        rows = layer.synapse_sites // 256 % 256
        assert (rows[layer.nominal.weight > 0] % 2 == 0).all()
        assert (rows[layer.nominal.weight < 0] % 2 == 1).all()


def test_no_other_source_is_heard(graph):
    """On the rows of a driver, a column listens to one label, and sources of one driver differ in theirs."""
    configuration = mapped(graph).program.configuration
    for layer in configuration["layers"]:
        places = [tuple(place) for place in configuration["sources"][layer["source"]] if place[0] >= 0]
        assert len(set(places)) == len(places)
    heard = {}
    for array, row, column, _, label in configuration["synapses"]:
        assert heard.setdefault((array, row // 2, column), label) == label


def test_circuits_of_a_neuron_lie_in_one_quadrant():
    found = mapped(chain((300, 50, 2)))
    sites = found.program.layers[0].neuron_sites
    assert sites.shape == (50, 3)
    assert (np.diff(sites, axis=1) == 1).all()
    assert (sites[:, 0] // 128 == sites[:, -1] // 128).all()
    assert found.report["layers"][0]["circuits_per_neuron"] == 3


def test_mnist_of_16_by_16_fits():
    found = mapped(chain((256, 128, 10)))
    assert found.report["placement"]["circuits"] == 266
    assert found.report["placement"]["drivers_per_array"] == 128
    assert found.report["placement"]["labels_per_driver"] == 3
    assert [layer["circuits_per_neuron"] for layer in found.report["layers"]] == [2, 1]


def test_a_joint_membrane_is_moved_less():
    """Two layers of the same weights, one on joined circuits: the chip-wide gain is the same, the codes are not."""
    matrices = [weights(200, 4), weights(4, 4), weights(4, 4)]
    found = mapped(chain((200, 4, 4, 4), matrices=matrices))
    first, second = (layer.nominal.weight[layer.nominal.weight != 0] for layer in found.program.layers[:2])
    assert np.abs(first).min() < 0.75 * np.abs(second).min()


def test_local_inputs_need_no_more_circuits_than_connections():
    """500 sources of which every neuron hears 100 that are neighbours: they get different drivers."""
    matrix = np.zeros((40, 500), np.float32)
    for neuron in range(40):
        matrix[neuron, 10 * neuron : 10 * neuron + 100] = 1
    report = mapped(chain((500, 40), matrices=[matrix])).report["layers"][0]
    assert (report["largest_fan_in"], report["circuits_per_neuron"]) == (100, 1)
    # Drawn at random, two of a neuron's sources cannot but meet on a driver.
    assert mapped(GRAPHS["sparse"]).report["layers"][0]["circuits_per_neuron"] == 2


@pytest.mark.parametrize(
    ("sizes", "code", "message"),
    [
        ((5, 600, 3), "neurons", r"needs 615 circuits .*which has 512: layer0 600 x 1, layer1 3 x 5"),
        ((1100, 3), "fan-in", r"from 1100 sources.*would need 9 circuits; bss2 joins 8"),
    ],
)
def test_what_has_no_place_is_refused(sizes, code, message):
    with pytest.raises(MappingError, match=message) as caught:
        mapped(chain(sizes))
    assert caught.value.code == code


def test_labels_run_out():
    """9,000 sources of single listeners: more than 64 to a driver."""
    matrix = np.zeros((100, 9000), np.float32)
    matrix[np.arange(9000) % 100, np.arange(9000)] = 1
    with pytest.raises(MappingError, match="labels tell 64 apart") as caught:
        mapped(chain((9000, 100), matrices=[matrix]))
    assert caught.value.code == "labels"


def test_negative_resets_make_the_swing_smaller():
    unit = [mapped(chain(v_reset=number(value))).program.layers[0].potential_unit for value in (0, -0.2, -1)]
    assert unit[0] == unit[1]
    assert unit[2] < unit[1] / 3
