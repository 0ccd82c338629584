"""Recurrent networks from the graph to the chip's events, and what a deployment says about them."""

from pathlib import Path

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import EmulationError, MappingError, ValidationError
from neurodeploy.events.array import make_events
from neurodeploy.events.dataset import EventDataset
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Feedback, Input, Linear, Neuron, Node, Output
from neurodeploy.target import load_target


def network(recurrent: list[list[float]], forward: list[list[float]]) -> Graph:
    """Input -> fc -> neurons with threshold 1 -> read, with ``recurrent`` from the neurons back to themselves."""
    one = Neuron(np.array(1, np.float32), np.array(-1, np.float32))
    size = len(forward)
    nodes: dict[str, Node] = {
        "in": Input((len(forward[0]),)),
        "fc": Linear(np.array(forward, np.float32)),
        "rec": Linear(np.array(recurrent, np.float32)),
        "sum": Add(),
        "spike": one,
        "loop": Feedback((size,)),
        "read": Linear(np.eye(size, dtype=np.float32)),
        "answer": one,
        "out": Output(),
    }
    edges = [("in", "fc"), ("fc", "sum"), ("rec", "sum"), ("sum", "spike"), ("spike", "loop"), ("loop", "rec")]
    return Graph(nodes, (*edges, ("spike", "read"), ("read", "answer"), ("answer", "out")))


#: The first neuron fires at every event and holds the second one down, which alone would fire at every second event.
INHIBITION = network([[0, 0], [-0.8, 0]], [[1.0], [0.5]])


def at(*times_us: int):
    zeros = np.zeros(len(times_us), int)
    return make_events(np.array(times_us), zeros, zeros, zeros)


def test_a_loop_is_compiled_on_request_with_a_warning(tmp_path: Path) -> None:
    deployment = nd.compile(INHIBITION, allow_recurrence=True)
    (note,) = [note for note in deployment.notes if "deadlock" in note]
    assert "no time steps" in note
    assert "fc sends back to fc" in note
    core = deployment.layers["fc"]
    assert core.input_shape == (3, 1, 1)
    assert deployment.program.input_shape == (1, 1, 1)
    own = [end for end in core.destinations if end.core == core.core]
    assert [end.feature_shift for end in own] == [1]
    deployment.save(tmp_path)
    again = nd.open(tmp_path)
    assert again.program.to_dict() == deployment.program.to_dict()
    assert again.options == deployment.options
    assert again.recompile(v_min="lowest").options.allow_recurrence


def test_the_chip_works_a_loop_off_at_once() -> None:
    """By hand, in units of the threshold: the second neuron goes 0.5 - 0.8 = -0.3, -0.6, -0.9, then stays above -1."""
    run = nd.compile(INHIBITION, allow_recurrence=True).emulate(at(10, 20, 30, 40))
    assert run.counts("fc").ravel().tolist() == [4, 0]
    assert run.counts("read").ravel().tolist() == [4, 0]
    free = nd.compile(network([[0, 0], [0, 0]], [[1.0], [0.5]]), allow_recurrence=True).emulate(at(10, 20, 30, 40))
    assert free.counts("fc").ravel().tolist() == [4, 2]


def test_core_by_core_is_refused_and_orders_are_compared() -> None:
    deployment = nd.compile(INHIBITION, allow_recurrence=True)
    with pytest.raises(EmulationError) as refused:
        deployment.emulate(at(1), switches={"interleaving": "layers"})
    assert refused.value.code == "recurrent"
    data = EventDataset.from_recordings([at(1, 2, 3)], np.array([0]), sensor_size=(1, 1, 1))
    assert nd.order_robustness(deployment, data, orders=3).answers_changed == 0
    assert deployment.workload(at(1, 2, 3)).latency is not None


def test_a_loop_that_excites_itself_ends_in_an_error() -> None:
    deployment = nd.compile(network([[1.0, 0], [0, 0]], [[1.0], [0.5]]), allow_recurrence=True)
    executor = deployment.executor(work_limit=1000)
    with pytest.raises(EmulationError, match="1000 updates") as refused:
        executor.run(at(1))
    assert "loop" in refused.value.remedy


def test_validation_names_the_loop() -> None:
    pytest.importorskip("torch")
    deployment = nd.compile(INHIBITION, allow_recurrence=True)
    # Two events in one step: the inhibition of the first comes after both in time steps, between them on the chip.
    data = EventDataset.from_recordings([at(10, 20, 30)], np.array([0]), sensor_size=(1, 1, 1))
    result = nd.validate(deployment, data, dt_us=1000)
    assert result.first_divergence is not None
    assert result.first_divergence.cause == "loop"
    assert result.first_divergence.neuron == (1, 0, 0)
    assert result.runs["time_stepped"].layers["fc"].mean_spikes == result.runs["float"].layers["fc"].mean_spikes
    # One event per step: the same in both.
    assert nd.first_divergence(deployment, at(10, 1010, 2010), dt_us=1000) is None


def test_a_loop_that_grows_in_time_steps_is_refused() -> None:
    pytest.importorskip("torch")
    deployment = nd.compile(network([[1.0, 1.0], [1.0, 1.0]], [[1.0], [1.0]]), allow_recurrence=True)
    with pytest.raises(ValidationError, match="excites itself") as refused:
        nd.first_divergence(deployment, at(1, 60_001), "float", "time_stepped", dt_us=1000)
    assert refused.value.code == "loop-grows"


def test_a_loop_that_fits_nowhere_says_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    size = 600
    large = network(rng.normal(0, 0.1, (size, size)).tolist(), rng.normal(0, 0.1, (size, 4)).tolist())
    with pytest.raises(MappingError, match="fc"):
        nd.compile(large, allow_recurrence=True)


def test_the_check_says_what_is_different() -> None:
    target = load_target("speck2f")
    assert [f.rule.code for f in target.family.check(INHIBITION, target.chip)] == ["recurrence"]
    findings = target.family.check(INHIBITION, target.chip, allow_recurrence=True)
    assert "recurrence" in [finding.rule.code for finding in findings]
    assert all(finding.rule.severity == "note" for finding in findings)
