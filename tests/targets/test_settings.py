"""What the user sets on the chip beyond the network: compiled, written, read back, emulated."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import ConfigError, ConstraintError, EmulationError, ProgramError
from neurodeploy.events import make_events
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import AvgPool2d, Conv2d, Input, Neuron, Output, SumPool2d
from neurodeploy.program_file import program_hash
from neurodeploy.target import SPIKE_DTYPE, load_target
from neurodeploy.targets.dynapcnn.readout import readout_values
from tests.targets.networks import MNIST, MNIST_INPUT, as_float, chain

SPECK = load_target("speck2f")
FAMILY = SPECK.family


def network(shape=(2, 16, 12), features=3):
    return as_float(chain(shape, [(4, 3, 1, 0, 1), (features, 3, 2, 0, 1)]))


def classifier(classes=10):
    return as_float(chain((2, 8, 8), [(4, 3, 1, 0, 2), (classes, 3, 1, 0, 1)]))


def random_events(shape, n=400, seed=0):
    rng = np.random.default_rng(seed)
    return make_events(np.arange(n) * 7, *(rng.integers(0, side, n) for side in (shape[2], shape[1], shape[0])))


def through_a_file(deployment, folder):
    deployment.save(folder)
    again = nd.open(folder)
    assert program_hash(again.program) == program_hash(deployment.program)
    return again


SENSOR = {
    "pooling": (2, 4),
    "region": {"y": 5, "x": 7, "height": 12, "width": 16},
    "mirror_x": True,
    "swap_xy": True,
    "polarity": "both",
}


def test_the_pre_processing_is_what_the_events_go_through(tmp_path):
    graph = network()
    deployment = through_a_file(nd.compile(graph, settings={"dvs": SENSOR}), tmp_path)
    assert deployment.program.input_shape == (2, 128, 128)
    (port,) = deployment.program.inputs
    assert (port.dvs.pooling, port.dvs.origin, port.dvs.cut) == ((2, 4), (5, 7), (16, 22))
    events = random_events((2, 128, 128), 3000)
    y, x = events["y"] // 2 - 5, events["x"] // 4 - 7
    inside = (events["y"] // 2 >= 5) & (y < 12) & (events["x"] // 4 >= 7) & (x < 16)
    by_hand = make_events(events["t"][inside], y[inside], 15 - x[inside], events["p"][inside])
    expected = nd.compile(graph).emulate(by_hand)
    found = deployment.emulate(events)
    assert np.array_equal(found.spikes, expected.spikes)
    assert len(found.spikes) > 0


def pooled_network(pool):
    """The network behind a pooling of the input."""
    graph = network((2, 8, 6))
    nodes = dict(graph.nodes) | {"input": Input((2, 16, 12)), "halved": pool((2, 2), (2, 2))}
    edges = [("input", "halved"), ("halved", "conv0"), *(edge for edge in graph.edges if edge[0] != "input")]
    return Graph(nodes, tuple(edges))


@pytest.mark.parametrize("pool", [SumPool2d, AvgPool2d])
def test_a_pooled_input_goes_through_the_sensor_by_itself(pool, tmp_path):
    deployment = through_a_file(nd.compile(pooled_network(pool)), tmp_path)
    (port,) = deployment.program.inputs
    assert (port.shape, port.dvs.pooling, port.dvs.cut) == ((2, 16, 12), (2, 2), (7, 5))
    assert not port.dvs.pass_sensor_events
    events = random_events((2, 16, 12))
    halved = make_events(events["t"], events["x"] // 2, events["y"] // 2, events["p"])
    factor = 0.25 if pool is AvgPool2d else 1
    graph = network((2, 8, 6))
    conv = graph.nodes["conv0"]
    plain = nd.compile(graph.with_nodes({"conv0": replace(conv, weight=conv.weight * np.float32(factor))}))
    expected, found = plain.emulate(halved), deployment.emulate(events)
    assert np.array_equal(found.spikes, expected.spikes)


def test_pooling_of_the_network_and_of_the_settings_multiply():
    settings = {"dvs": {"pooling": (2, 1), "region": {"y": 4, "x": 2, "height": 16, "width": 12}}}
    (port,) = nd.compile(pooled_network(SumPool2d), settings=settings).program.inputs
    assert (port.dvs.pooling, port.dvs.origin, port.dvs.cut) == ((4, 2), (2, 1), (9, 6))
    settings["dvs"]["region"]["y"] = 3
    with pytest.raises(ConstraintError, match="begins at a multiple of that pooling") as caught:
        nd.compile(pooled_network(SumPool2d), settings=settings)
    assert caught.value.code == "sensor-region"


def test_one_polarity_of_a_network_with_one_feature():
    graph = network((1, 16, 12))
    settings = {"dvs": {**SENSOR, "swap_xy": False, "polarity": "on"}}
    settings["dvs"]["region"] = {"y": 0, "x": 0, "height": 16, "width": 12}
    (port,) = nd.compile(graph, settings=settings).program.inputs
    assert (port.dvs.on_channel, port.dvs.off_channel, port.dvs.merge) == (True, False, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dvs": {"pooling": (3, 1)}}, r"dvs\.pooling\.0"),
        ({"dvs": {"gain": 2}}, r"dvs\.gain"),
        ({"dvs": {}}, r"dvs makes \(2, 128, 128\) .* takes \(2, 16, 12\)"),
        ({"dvs": {"input": "camera"}}, "dvs.input is 'camera'; the inputs are input"),
        ({"dvs": {"sensor_size": (16, 12), "region": {"y": 1, "x": 0, "height": 16, "width": 12}}}, "ends at row 16"),
        ({"dvs": {"filter": {"mode": "noise", "threshold": 3}}}, "size is given with the noise modes"),
        ({"decimators": {"conv0": 64}}, "2, 4, 8, 16, 32, 128, 256, 512"),
        ({"decimators": {"conv7": 2}}, "decimators names the layer 'conv7'"),
        ({"synops": {"conv7": 2}}, "synops names the layer 'conv7'"),
        ({"readout": {"average_ticks": 8}}, r"readout\.average_ticks"),
        ({"readout": {}}, r"one output layer \(15, 1, 1\)"),
        ({"speed": 3}, "speed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        nd.compile(network(), settings=settings)


def test_an_unknown_setting_is_told_the_fields_of_its_group():
    with pytest.raises(ConfigError, match=r"the fields of dvs are: .*region.*; see"):
        nd.compile(network(), settings={"dvs": {"crop": 2}})


def test_a_chip_without_sensor_takes_no_live_events():
    settings = {"dvs": {"sensor_size": (16, 12), "live": True}}
    assert nd.compile(network(), settings=settings).program.inputs[0].dvs.pass_sensor_events
    with pytest.raises(ConstraintError, match="only on a chip that has one") as caught:
        nd.compile(network(), target="dynapcnndevkit", settings=settings)
    assert caught.value.code == "sensor-live"


@pytest.mark.parametrize(("target", "step"), [("speck2f", 4), ("dynapcnndevkit", 1)])
def test_the_readout_layer_is_laid_out_as_the_erratum_asks(target, step, tmp_path):
    graph = classifier()
    plain = nd.compile(graph, target=target)
    deployment = through_a_file(nd.compile(graph, target=target, settings={"readout": {"threshold": 2}}), tmp_path)
    core = deployment.layers["conv1"]
    assert core.output_shape == (9 * step + 1, 1, 1)
    assert np.array_equal(core.weights[::step], plain.layers["conv1"].weights)
    assert not np.delete(core.weights, np.s_[::step], 0).any()
    assert deployment.program.layer_shape("conv1") == (10, 1, 1)
    assert any("conv1" in note and "readout block" in note for note in deployment.notes) == (step > 1)
    events = random_events((2, 8, 8), 2000)
    expected, found = plain.emulate(events), deployment.emulate(events)
    assert np.array_equal(found.spikes, expected.spikes)
    assert np.array_equal(found.output_counts, expected.output_counts)
    assert found.output_counts.sum() > 0


@pytest.mark.parametrize("ticks", [1, 16, 32])
def test_readout_values_are_a_moving_average(ticks):
    settings = {"readout": {"threshold": 1, "average_ticks": ticks}}
    program = nd.compile(classifier(4), settings=settings).program
    rng = np.random.default_rng(0)
    spikes = np.zeros(900, SPIKE_DTYPE)
    spikes["t"], spikes["layer"] = np.sort(rng.integers(0, 100_000, 900)), rng.integers(0, 2, 900)
    spikes["c"] = np.minimum(rng.integers(0, 6, 900), 3)
    found = readout_values(program, spikes, slow_clock_hz=500, until_us=100_000)
    assert found["t"].tolist() == [2000 * k for k in range(1, 51)]
    for row in found.tolist():
        window = (spikes["t"] < row[0]) & (spikes["t"] >= row[0] - 2000 * ticks) & (spikes["layer"] == 1)
        averages = np.bincount(spikes["c"][window], minlength=4) / ticks
        assert row[1:] == (averages.max() > 1, averages.argmax(), averages.max())
    assert 0 < found["valid"].sum() < 50 or ticks != 16
    with pytest.raises(EmulationError, match="no readout block"):
        readout_values(nd.compile(classifier(4)).program, spikes, slow_clock_hz=500, until_us=9)


def test_decimators_reach_the_program_and_the_emulator(tmp_path):
    graph = network()
    events = random_events((2, 16, 12), 2000)
    deployment = through_a_file(nd.compile(graph, settings={"decimators": {"conv1": 4}}), tmp_path)
    assert [core.output_decimator_interval for core in deployment.program.cores] == [None, 1]
    assert any("conv1" in note and "1 of 4" in note for note in deployment.notes)
    total = nd.compile(graph).emulate(events).counts("conv1").sum()
    assert deployment.emulate(events).counts("conv1").sum() == total // 4


def test_busy_layers_go_to_the_fast_cores():
    graph = as_float(chain(MNIST_INPUT, MNIST))
    plain = {name: core.core for name, core in nd.compile(graph).layers.items()}
    assert plain == {"conv0": 0, "conv1": 3, "conv2": 5, "conv3": 6, "conv4": 1}
    # conv1 to conv3 fit neither core 0 nor 1.
    busy = nd.compile(graph, settings={"synops": {"conv0": 1.0, "conv4": 5.0, "conv3": 9.0}})
    assert {busy.layers[name].core for name in ("conv0", "conv4")} == {0, 1}
    small = as_float(chain((2, 12, 12), [(2, 1, 1, 0, 1)] * 5))
    for work in ({"conv3": 2.0, "conv1": 3.0, "conv4": 1.0}, {"conv3": 2e7, "conv1": 1e9}):
        layers = nd.compile(small, settings={"synops": work}).layers
        assert {layers["conv3"].core, layers["conv1"].core} == {0, 1}
    # What the user fixes stays.
    fixed = nd.compile(small, layer2core_map={"conv0": 0}, settings={"synops": {"conv3": 2.0, "conv1": 3.0}}).layers
    assert (fixed["conv0"].core, fixed["conv1"].core) == (0, 1)


def test_the_estimate_counts_what_arrives():
    # conv1 takes 4 x 144 events and does 8 x 9 operations for each: more than the others together.
    graph = as_float(chain((1, 12, 12), [(4, 1, 1, 0, 1), (8, 3, 1, 1, 4), (2, 3, 1, 0, 1)]))
    layers = nd.compile(graph, settings={"synops": "estimate"}, layer2core_map={"conv0": 0}).layers
    assert layers["conv1"].core == 1


def test_the_recording_of_a_run_is_a_measure_of_work():
    graph = network()
    run = nd.compile(graph).emulate(random_events((2, 16, 12)))
    synops = {name: counters["synops"] for name, counters in run.stats["layers"].items()}
    assert set(nd.compile(graph, settings={"synops": synops}).layers) == {"conv0", "conv1"}


def two_inputs():
    one = Neuron(np.array(1, np.float32), np.array(-1, np.float32))
    rng = np.random.default_rng(0)
    nodes = {"a": Input((2, 8, 8)), "b": Input((1, 6, 6)), "out": Output()}
    for name, c in (("conv_a", 2), ("conv_b", 1), ("conv_c", 7)):
        kernel = 3 if name == "conv_a" else 1
        f = {"conv_a": 4, "conv_b": 3, "conv_c": 5}[name]
        nodes |= {name: Conv2d(rng.normal(0.4, 0.5, (f, c, kernel, kernel)).astype(np.float32)), f"{name}_spike": one}
    from neurodeploy.graph.nodes import Concat

    nodes["join"] = Concat()
    order = [("a", "conv_a", "conv_a_spike", "join"), ("b", "conv_b", "conv_b_spike", "join")]
    edges = [pair for way in order for pair in pairwise(way)]
    return Graph(nodes, (*edges, *pairwise(("join", "conv_c", "conv_c_spike", "out"))))


def test_two_inputs_share_one_stream_of_events(tmp_path):
    deployment = through_a_file(nd.compile(two_inputs()), tmp_path)
    assert deployment.program.input_shape == (3, 8, 8)
    assert [port.name for port in deployment.program.inputs] == ["a", "b"]
    assert any("give its events" in note or "share one stream" in note for note in deployment.notes)
    a, b = random_events((2, 8, 8), 200), random_events((1, 6, 6), 100, seed=1)
    b["p"] += 2
    both = np.concatenate([a, b])
    run = deployment.emulate(both[np.argsort(both["t"], kind="stable")])
    assert np.array_equal(run.counts("conv_a"), deployment.emulate(a).counts("conv_a"))
    assert np.array_equal(run.counts("conv_b"), deployment.emulate(b).counts("conv_b"))
    assert run.counts("conv_c").sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["inputs"][0].update(name=3), "inputs\\[0\\].name"),
        (lambda data: data["inputs"][0]["entries"][0].update(layer=200), "holds no layer"),
        (lambda data: data["inputs"][0]["entries"][0].update(feature_shift=1), "do not fit core"),
        (lambda data: data["inputs"][0]["dvs_layer"]["pooling"].update(x=3), "pooling is"),
        (lambda data: data["inputs"][0]["dvs_layer"]["cut"].update(x=99), "region"),
        (lambda data: data["inputs"][0]["dvs_layer"].update(merge=1), "must be true or false"),
        (lambda data: data["inputs"][0]["dvs_layer"].update(dvs_filter={"mode": "x"}), "dvs_filter lacks"),
        (lambda data: data["readout"].update(average_ticks=3), "average_ticks"),
        (lambda data: data["readout"].update(core=8), "holds no layer"),
        (lambda data: data["layers"][1].update(feature_step=3), "feature_step"),
        (lambda data: data["cnn_layers"]["0"].update(output_decimator_interval=9), "output_decimator"),
        (lambda data: data.update(entry_core=1), "not entry_core"),
    ],
)
def test_a_damaged_program_is_refused(change, message):
    settings = {"dvs": {"sensor_size": (8, 8), "mirror_x": True}, "readout": {}, "decimators": {"conv0": 2}}
    program = nd.compile(classifier(), settings=settings).program
    data = program.to_dict()
    assert FAMILY.read_program(data, SPECK.chip).to_dict() == data
    change(data)
    with pytest.raises(ProgramError, match=message):
        FAMILY.read_program(data, SPECK.chip)


def test_time_stepped_runs_take_the_events_as_they_are():
    from neurodeploy.errors import ValidationError
    from neurodeploy.events.dataset import EventDataset

    graph = classifier()
    deployment = nd.compile(graph, settings={"dvs": {"sensor_size": (8, 8), "mirror_x": True}})
    dataset = EventDataset.from_recordings([random_events((2, 8, 8))], [1], sensor_size=(2, 8, 8))
    with pytest.raises(ValidationError, match="the settings change the events of input"):
        nd.validate(deployment, dataset, dt_us=1000)
    with pytest.raises(ValidationError, match="the settings change the events of input"):
        nd.first_divergence(deployment, random_events((2, 8, 8)), dt_us=1000)
    assert nd.validate(deployment, dataset, dt_us=1000, runs=["event_driven"], explain=False)
    pooled = nd.compile(pooled_network(SumPool2d))
    assert [entry["as_given"] for entry in pooled.mapping["inputs"]] == [True]
