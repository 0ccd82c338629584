"""A layer split over several cores does what it does on one core of a chip with enough memory."""

from dataclasses import replace

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import ConfigError, MappingError, ProgramError
from neurodeploy.events import make_events
from neurodeploy.files import canonical_json
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Input, Neuron, Node, Output, SumPool2d
from neurodeploy.target import load_target
from neurodeploy.targets.dynapcnn.chip import Cores, Memory
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.specification import Specification
from neurodeploy.targets.dynapcnn.switches import Switches
from tests.targets.networks import as_float, chain

SPECK = load_target("speck2f")
FAMILY = SPECK.family

#: 32 -> 64 features of 32 x 32: 32 Ki kernel words and 64 Ki neuron words, which no core has together.
LARGE = chain((2, 34, 34), [(32, 3, 1, 0, 1), (64, 3, 1, 1, 4), (10, 8, 1, 0, 1)])


def chip_with(*memories):
    return SPECK.chip.model_copy(update={"cores": Cores(source="made up", memories=memories)})


UNCONSTRAINED = chip_with(*[Memory(kernel=1 << 24, neuron=1 << 24, bias=1 << 16)] * 9)


def too_small_for_b(graph):
    """A chip of five cores, each one neuron word too small for layer b."""
    needs = FAMILY.map(graph, UNCONSTRAINED).layers["b"].needs
    return chip_with(*[Memory(kernel=1 << 16, neuron=needs["neuron"] - 1, bias=64)] * 5)


def random_events(rng, shape, count=150):
    c, h, w = shape
    t = np.arange(count) * 10
    return make_events(t, rng.integers(0, w, count), rng.integers(0, h, count), rng.integers(0, c, count))


def execute(graph, chip, events, switches=None):
    program = FAMILY.lower(FAMILY.map(graph, chip))
    return program, Emulator(program, switches, slow_clock_hz=5_000).run(events)


def as_sets(spikes, layer):
    """The spikes of one layer, without their order inside one host event."""
    own = spikes[spikes["layer"] == layer]
    return own[np.lexsort((own["x"], own["y"], own["c"], own["t"]))]


def random_network(rng, signed_layers="ab"):
    """a -> b -> c -> d: b is to be split; no order of events can change the spikes of c and d.

    Their weights are not negative and at most the threshold, and a spike subtracts the threshold. So the lower bound
    never binds, a potential is always below the threshold after an event, and a neuron has fired
    floor(sum of its inputs / threshold) times, whatever their order. The set of spikes that one host event causes in
    c is therefore the same, and by the same argument that of d. a and b have weights of both signs, bounds and biases.
    """
    h, w = int(rng.integers(10, 14)), int(rng.integers(14, 18))
    nodes: dict[str, Node] = {"input": Input((2, h, w))}
    edges: list[tuple[str, str]] = []
    before = "input"
    features = [2, int(rng.integers(2, 5)), int(rng.integers(9, 24)), 3, 4]
    for i, name in enumerate("abcd"):
        c, f, k = features[i], features[i + 1], int(rng.integers(1, 4))
        signed = name in signed_layers
        threshold = int(rng.integers(40, 90))
        weight = rng.integers(-40 if signed else 0, min(80, threshold), (f, c, k, k)).astype(np.int8)
        bias = rng.integers(-9, 3, f).astype(np.int16) if name == "b" and rng.integers(2) else None
        reset = str(rng.choice(["subtract", "zero"])) if signed else "subtract"
        shape = (1, 2) if name == "b" and rng.integers(2) else (1, 1)
        v_min = np.array(rng.integers(-200, -1), np.int16)
        nodes[name] = Conv2d(weight, bias, shape, (int(rng.integers(0, 2)), 1))
        nodes[f"{name}_spike"] = Neuron(np.array(threshold, np.int16), v_min, reset=reset)
        edges += [(before, name), (name, f"{name}_spike")]
        before = f"{name}_spike"
        if name == "b":
            nodes["pool"] = SumPool2d((2, 2), (2, 2))
            edges.append((before, "pool"))
            before = "pool"
    nodes["output"] = Output()
    graph = Graph(nodes, (*edges, (before, "output")))
    if rng.integers(2):
        start = rng.integers(0, 40, graph.shapes["b"]).astype(np.int16)
        graph = graph.with_nodes({"b_spike": replace(graph.nodes["b_spike"], initial_v=start)})
    return graph


@pytest.mark.parametrize("seed", range(25))
def test_a_split_layer_fires_as_on_one_large_core(seed):
    rng = np.random.default_rng(seed)
    graph = random_network(rng)
    whole, expected = execute(graph, UNCONSTRAINED, events := random_events(rng, graph.input_shape()))
    program, found = execute(graph, too_small_for_b(graph), events)
    assert whole.parts == whole.layers == program.layers == ("a", "b", "c", "d")
    (one, two) = [core for core in program.cores if core.layer == "b"]
    assert program.parts == ("a", one.name, two.name, "c", "d")
    assert program.layer_shape("b") == whole.layer_shape("b")
    for index, name in enumerate(program.layers):
        assert np.array_equal(found.counts[name], expected.counts[name]), name
        assert found.counters[name]["spikes"] == expected.counters[name]["spikes"]
        assert found.counters[name]["synops"] == expected.counters[name]["synops"]
        assert np.array_equal(as_sets(found.spikes, index), as_sets(expected.spikes, index))
    assert found.counters["b"]["events"] == 2 * expected.counters["b"]["events"]
    assert found.counts["b"].sum() > 0
    # The readable executor is slow: the beginning is enough for it.
    specification = Specification(program, slow_clock_hz=5_000).run(events[:10])
    found = Emulator(program, slow_clock_hz=5_000).run(events[:10])
    assert np.array_equal(specification.spikes, found.spikes)
    assert specification.counters == found.counters


@pytest.mark.parametrize("seed", range(10))
def test_where_cores_emit_by_feature_nothing_differs_at_all(seed):
    """Weights of both signs everywhere. If a core emits the spikes of an event by feature, and the cores work in the
    order of arrival, then one large core sends the same spikes in the same order as its two parts.
    """
    rng = np.random.default_rng(100 + seed)
    graph = random_network(rng, signed_layers="abcd")
    events = random_events(rng, graph.input_shape())
    switches = Switches(emission_order="f_y_x", interleaving="fifo", tick_fires=False)
    _, expected = execute(graph, UNCONSTRAINED, events, switches)
    _, found = execute(graph, too_small_for_b(graph), events, switches)
    for index, name in enumerate("abcd"):
        assert np.array_equal(found.counts[name], expected.counts[name]), name
        if name != "b":  # the emulator lists one part's spikes after the other's
            ours, theirs = (run.spikes[run.spikes["layer"] == index] for run in (found, expected))
            assert np.array_equal(ours, theirs), name
    assert found.counts["d"].sum() > 0


def test_the_next_layer_may_see_another_order():
    """What is not promised: with weights of both signs it matters to c which part's spikes it takes first."""
    equal = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        graph = random_network(rng, signed_layers="abcd")
        _, expected = execute(graph, UNCONSTRAINED, events := random_events(rng, graph.input_shape()))
        memory = Memory(
            kernel=1 << 16, neuron=FAMILY.map(graph, UNCONSTRAINED).layers["b"].needs["neuron"] - 1, bias=64
        )
        _, found = execute(graph, chip_with(*[memory] * 5), events)
        assert np.array_equal(found.counts["b"], expected.counts["b"])
        equal.append(np.array_equal(found.counts["c"], expected.counts["c"]))
    assert not all(equal)


def test_the_published_case_is_split_mapped_and_emulated():
    # conv2's weights are not negative and at most the threshold: see random_network.
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 128, LARGE.nodes["conv2"].weight.shape).astype(np.int8)
    graph = LARGE.with_nodes({"conv2": Conv2d(weight)})
    events = random_events(rng, (2, 34, 34), 300)
    mapped = FAMILY.map(graph, SPECK.chip)
    assert list(mapped.layers) == ["conv0", "conv1[0:32]", "conv1[32:64]", "conv2"]
    (note,) = [note for note in mapped.notes if note.rule.code == "split"]
    assert (note.layer, note.value) == ("conv1", "conv1[0:32] on core 1 and conv1[32:64] on core 2")
    program, found = execute(graph, SPECK.chip, events)
    _, expected = execute(graph, UNCONSTRAINED, events)
    for name in ("conv0", "conv1", "conv2"):
        assert np.array_equal(found.counts[name], expected.counts[name]), name
        assert found.counts[name].sum() > 0
    shifts = [[(end.core, end.feature_shift) for end in core.destinations] for core in program.cores]
    cores = [core.core for core in program.cores]
    assert shifts == [[(cores[1], 0), (cores[2], 0)], [(cores[3], 0)], [(cores[3], 32)], []]


def test_results_files_and_names_of_a_split_deployment(tmp_path):
    graph = as_float(LARGE)
    deployment = nd.compile(graph)
    assert list(deployment.layers) == ["conv0", "conv1[0:32]", "conv1[32:64]", "conv2"]
    assert any(note.startswith("conv1: ") and "conv1[0:32] on core" in note for note in deployment.notes)
    run = deployment.emulate(random_events(np.random.default_rng(0), (2, 34, 34)))
    assert run.counts("conv1").shape == (64, 32, 32)
    assert set(run.stats["layers"]) == {"conv0", "conv1", "conv2"}
    spikes = run.spikes[run.spikes["layer"] == 1]
    assert np.array_equal(np.bincount(spikes["c"], minlength=64), run.counts("conv1").sum((1, 2)))
    only = deployment.emulate(random_events(np.random.default_rng(0), (2, 34, 34)), record=["conv1"])
    assert np.array_equal(only.spikes, spikes)
    deployment.save(tmp_path)
    again = nd.open(tmp_path)
    assert canonical_json(again.program.to_dict()) == canonical_json(deployment.program.to_dict())
    # The placement can be asked for by the names of the parts, and the parts' layer can be monitored.
    cores = {name: core.core for name, core in deployment.layers.items()}
    fixed = nd.compile(graph, layer2core_map=cores, monitor_layers=["conv1"])
    assert {name: core.core for name, core in fixed.layers.items()} == cores
    assert [core.monitor_enable for core in fixed.program.cores] == [False, True, True, False]
    with pytest.raises(ProgramError, match=r"no layer 'conv1'.*conv1\[0:32\]"):
        deployment.program.configuration("conv1")


def test_never_refuses():
    with pytest.raises(MappingError, match="conv1 fits none of the 9 cores"):
        nd.compile(as_float(LARGE), split="never")
    with pytest.raises(ConfigError, match="split is 'maybe'"):
        nd.compile(as_float(LARGE), split="maybe")


def test_nothing_is_split_without_need():
    graph = chain((2, 34, 34), [(16, 3, 1, 1, 1), (16, 3, 1, 1, 1)])
    assert list(FAMILY.map(graph, SPECK.chip).layers) == ["conv0", "conv1"]


@pytest.mark.parametrize(("features", "parts"), [(80, [40, 40]), (192, [64, 64, 64]), (200, [64, 64, 64, 8])])
def test_the_first_layer_is_split_over_as_many_cores_as_it_needs(features, parts):
    """The host sends its events to any number of cores. Cores 0 to 2 hold 64 features of 32 x 32, 3 and 4 hold 32."""
    graph = chain((2, 34, 34), [(features, 3, 1, 0, 4), (4, 1, 1, 0, 1)])
    mapped = FAMILY.map(graph, SPECK.chip)
    assert [layer.output_shape[0] for layer in mapped.layers.values()] == [*parts, 4]
    events = random_events(np.random.default_rng(0), (2, 34, 34), 60)
    program, found = execute(graph, SPECK.chip, events)
    assert [entry.core for entry in program.inputs[0].entries] == [layer.core for layer in mapped.layers.values()][:-1]
    _, expected = execute(graph, UNCONSTRAINED, events)
    assert np.array_equal(found.counts["conv0"], expected.counts["conv0"])
    assert found.counts["conv0"].sum() > 0
    assert FAMILY.read_program(program.to_dict(), SPECK.chip).to_dict() == program.to_dict()


def test_what_all_cores_together_do_not_hold_is_refused():
    with pytest.raises(MappingError, match="Splitting by output features does not help: the parts find no cores"):
        FAMILY.map(chain((2, 34, 34), [(400, 3, 1, 0, 4), (4, 1, 1, 0, 1)]), SPECK.chip)


def test_the_sensor_has_two_destinations():
    spec = [(200, 3, 1, 0, 4), (4, 1, 1, 0, 1)]
    graph = chain((2, 34, 34), spec)
    nodes = dict(graph.nodes) | {"input": Input((2, 68, 68)), "halved": SumPool2d((2, 2), (2, 2))}
    edges = [("input", "halved"), ("halved", "conv0"), *(edge for edge in graph.edges if edge[0] != "input")]
    with pytest.raises(MappingError, match="Splitting by output features does not help"):
        FAMILY.map(Graph(nodes, tuple(edges)), SPECK.chip)


def test_a_source_without_a_free_destination_is_named():
    graph = LARGE
    nodes = dict(graph.nodes) | {"side": Conv2d(np.ones((1, 32, 1, 1), np.int8)), "side_spike": graph.nodes["spike0"]}
    nodes["out2"] = Output()
    edges = (*graph.edges, ("spike0", "side"), ("side", "side_spike"), ("side_spike", "out2"))
    with pytest.raises(MappingError, match="conv0 feeds conv1, side, and a core has 2 destinations"):
        FAMILY.map(Graph(nodes, edges), SPECK.chip)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"conv1[0:32]": 1}, "must follow each other"),
        ({"conv1[0:32]": 1, "conv1[33:64]": 2}, "must follow each other"),
        ({"conv1[0:16]": 1, "conv1[16:32]": 2, "conv1[32:64]": 3}, "conv0 feeds conv1, and a core has 2 destinations"),
        ({"conv9[0:16]": 1}, "does not exist"),
    ],
)
def test_parts_that_are_not_those_of_a_layer_are_refused(choice, message):
    with pytest.raises(ConfigError, match=message):
        FAMILY.map(LARGE, SPECK.chip, choice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers[2].update(first_feature=31), "the next feature of the layer is 32"),
        (lambda layers: layers[1].pop("first_feature"), "must be a text that no other layer has"),
        (lambda layers: layers[2].update(first_feature=0), "one part of a layer twice"),
        (lambda layers: layers.insert(3, layers.pop(1)), "must follow each other|the next feature|network order"),
        (lambda layers: layers[0].update(first_feature=4), "the next feature of the layer is 0"),
    ],
)
def test_parts_in_a_file_that_do_not_fit_together_are_refused(change, message):
    data = FAMILY.lower(FAMILY.map(LARGE, SPECK.chip)).to_dict()
    change(data["layers"])
    with pytest.raises(ProgramError, match=message):
        FAMILY.read_program(data, SPECK.chip)
