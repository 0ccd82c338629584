"""First divergence: every cause on a network where it is the only one, and the order of what is first."""

import json

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import ValidationError
from neurodeploy.events.array import make_events
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Conv2d, Input, Output, SumPool2d
from neurodeploy.target import SPIKE_DTYPE
from neurodeploy.validation.causes import CAUSES
from neurodeploy.validation.divergence import Divergence, first_divergence
from tests.validation.one_neuron import at, chain, neuron, one_neuron

pytest.importorskip("torch")

# The largest weight is 1, so that the scale is 127 and k / 127 is an exact weight.
LSB = 1 / 127


def found(deployment, events, a, b, **options):
    """The divergence, after checking that it does not depend on the order of the two runs."""
    result = first_divergence(deployment, events, a, b, **options)
    swapped = first_divergence(deployment, events, b, a, **options)
    assert result is not None
    assert swapped is not None
    assert (swapped.cause, swapped.spikes) == (result.cause, result.spikes[::-1])
    assert first_divergence(deployment, events, a, b, **options) == result
    assert Divergence.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert result.explanation == CAUSES[result.cause]
    assert result.cause in str(result)
    return result


def test_weight_rounding():
    deployment = one_neuron([1, 49.6 * LSB], 50 * LSB, -1)
    result = found(deployment, at((2500, 1)), "float", "quantized")
    assert (result.cause, result.spikes, result.t_us, result.neuron) == ("weight-rounding", (0, 1), 2000, (0, 0, 0))
    assert result.potentials == pytest.approx((49.6 / 50, 1.0))
    assert found(deployment, at((2500, 1)), "float", "event_driven").cause == "weight-rounding"
    assert first_divergence(deployment, at((2500, 1)), "quantized", "event_driven") is None


def test_threshold_rounding():
    deployment = one_neuron([1, 50 * LSB], 50.4 * LSB, -1)
    result = found(deployment, at((0, 1)), "quantized", "time_stepped")
    assert (result.cause, result.spikes) == ("threshold-rounding", (0, 1))
    assert first_divergence(deployment, at((0, 1)), "float", "quantized") is None
    assert found(deployment, at((0, 1)), "float", "event_driven").cause == "threshold-rounding"


def test_another_v_min_than_the_trained_one():
    deployment = one_neuron([1, -1], 1, None, deployed="-threshold")
    events = at((0, 1), (1000, 1), (2000, 0), (3000, 0))
    result = found(deployment, events, "float", "event_driven")
    assert (result.cause, result.spikes, result.t_us) == ("v_min", (0, 1), 3000)
    assert first_divergence(deployment, events, "float", "quantized") is None


def test_v_min_at_every_event():
    deployment = one_neuron([1, -1], 1, -1)
    result = found(deployment, at((10, 1), (20, 1), (30, 0), (40, 0)), "time_stepped", "event_driven")
    assert (result.cause, result.spikes) == ("v_min-per-event", (0, 1))
    assert result.potentials == (0, 1)


def test_order_within_a_step():
    deployment = one_neuron([1, -1], 1)
    result = found(deployment, at((5010, 0), (5020, 1)), "float", "event_driven")
    assert (result.cause, result.spikes, result.t_us) == ("order-in-step", (0, 1), 5000)
    assert first_divergence(deployment, at((5010, 0), (6020, 1)), "float", "event_driven") is None


def test_one_spike_per_event():
    deployment = one_neuron([1], 0.25)
    result = found(deployment, at((0, 0)), "time_stepped", "event_driven")
    assert (result.cause, result.spikes) == ("one-spike-per-event", (3, 1))


def test_a_limit_on_the_spikes_of_a_step():
    deployment = one_neuron([1], 1, -1, spikes="single")
    result = found(deployment, at((0, 0), (1, 0)), "float", "event_driven")
    assert (result.cause, result.spikes) == ("spikes-per-step", (1, 2))


def test_the_bias_on_the_clock():
    deployment = one_neuron([1], 1, -1, bias=1)
    result = found(deployment, at((0, 0), (2500, 0)), "time_stepped", "event_driven", slow_clock_hz=1000)
    assert (result.cause, result.spikes, result.t_us) == ("bias-clock", (2, 1), 0)


def test_what_the_pooling_leaves_over():
    ones = Conv2d(np.ones((1, 1, 1, 1), np.float32))
    wide = Conv2d(np.ones((1, 1, 3, 3), np.float32), padding=(1, 1))
    graph = chain(ones, neuron(1, -1), SumPool2d((2, 2), (2, 2)), wide, neuron(1, -1), shape=(1, 3, 3))
    deployment = nd.compile(graph)
    events = make_events([100], [2], [2], [0])
    assert first_divergence(deployment, events, "float", "event_driven") is None
    result = found(deployment, events, "float", "event_driven", switches={"outside_events": "compute"})
    assert (result.layer, result.cause, result.spikes) == ("n3", "pooling-remainder", (0, 1))


def test_float_arithmetic():
    # A weight whose sum over seven steps is a little lower in float32 than exactly; the threshold lies between.
    for numerator in range(1, 997):
        weight, total = np.float32(numerator / 997), np.float32(0)
        for _ in range(7):
            total = np.float32(total + weight)
        threshold = np.nextafter(total, np.float32(9))
        k, level = np.rint(weight * 127), np.rint(threshold * 127)
        if float(threshold) <= 7 * float(weight) and 6 * k < level <= 7 * k:
            break
    else:
        pytest.fail("there is no such weight")
    deployment = one_neuron([1, float(weight)], float(threshold))
    result = found(deployment, at(*((1000 * k, 1) for k in range(7))), "float", "event_driven")
    assert (result.cause, result.spikes, result.t_us) == ("arithmetic", (0, 1), 6000)


def two_layers():
    first = Conv2d(np.array([[[[1.0]]], [[[0.5]]]], np.float32))
    second = Conv2d(np.array([[[[1.0]], [[1.0]]]], np.float32))
    return nd.compile(chain(first, neuron(1, -1), second, neuron(1, -1), shape=(1, 2, 2)))


def test_recorded_spikes_within_a_tolerance():
    deployment = two_layers()
    events = make_events([100, 200, 300], [0, 1, 1], [0, 0, 1], [0, 0, 0])
    spikes = deployment.emulate(events).spikes
    assert first_divergence(deployment, events, "event_driven", "recorded", recorded=spikes) is None
    late = spikes.copy()
    late["t"] += 30
    late = late[::-1]  # a chip's spikes need not be sorted
    assert first_divergence(deployment, events, "event_driven", "recorded", recorded=late, tolerance_us=30) is None
    result = found(deployment, events, "event_driven", "recorded", recorded=late, tolerance_us=29)
    assert (result.layer, result.t_us, result.cause, result.spikes) == ("n0", 100, "chip", (1, 0))
    lost = spikes[~((spikes["layer"] == 1) & (spikes["t"] == 200))]
    result = found(deployment, events, "event_driven", "recorded", recorded=lost)
    assert (result.layer, result.neuron, result.t_us) == ("n2", (0, 0, 1), 200)
    only_first = spikes[spikes["layer"] == 0]
    assert first_divergence(deployment, events, "event_driven", "recorded", recorded=only_first) is None
    silent = ["n0", "n2"]
    result = first_divergence(
        deployment, events, "event_driven", "recorded", recorded=only_first, recorded_layers=silent
    )
    assert result is not None
    assert result.layer == "n2"
    assert first_divergence(deployment, events, "float", "recorded", recorded=spikes) is None
    assert found(deployment, events, "float", "recorded", recorded=lost).cause == "chip"


def test_time_comes_before_layer_and_layer_before_neuron():
    deployment = two_layers()
    events = make_events([100, 2100], [0, 1], [0, 1], [0, 0])
    spikes = deployment.emulate(events).spikes
    extra = np.zeros(3, SPIKE_DTYPE)
    extra["t"], extra["layer"], extra["c"] = [1200, 1300, 1300], [1, 0, 0], [0, 1, 0]
    recorded = np.concatenate([spikes, extra])
    result = first_divergence(deployment, events, "event_driven", "recorded", recorded=recorded)
    assert result is not None
    assert (result.layer, result.t_us) == ("n2", 1200)
    result = first_divergence(deployment, events, "time_stepped", "recorded", recorded=recorded)
    assert result is not None
    assert (result.layer, result.t_us, result.neuron) == ("n0", 1000, (0, 0, 0))


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_have_a_cause(seed):
    """Branch-free networks of two layers with pooling: the neuron run alone agrees with both runs."""
    rng = np.random.default_rng(seed)
    first = Conv2d(rng.normal(0, 0.5, (3, 2, 3, 3)).astype(np.float32), None, (1, 1), (1, 1))
    second = Conv2d(rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32), None, (2, 2))
    layers = [first, neuron(1, -1), SumPool2d((2, 2), (2, 2)), second, neuron(0.8, -0.8)]
    deployment = nd.compile(chain(*layers, shape=(2, 12, 12)), v_min=["-threshold", "lowest", None][seed % 3])
    n = 500
    events = make_events(
        np.sort(rng.integers(0, 20_000, n)), rng.integers(0, 12, n), rng.integers(0, 12, n), rng.integers(0, 2, n)
    )
    causes = [
        found(deployment, events, a, b).cause
        for a, b in (("float", "event_driven"), ("time_stepped", "event_driven"), ("float", "quantized"))
        if first_divergence(deployment, events, a, b) is not None
    ]
    assert causes
    assert not {"unknown", "arithmetic"} & set(causes)


@pytest.mark.parametrize("seed", range(4))
def test_branches_and_the_other_reset_have_a_cause(seed):
    """Two branches of one layer, added in front of another: arrival order and repeated spikes are followed."""
    rng = np.random.default_rng(seed)

    def conv(*shape):
        return Conv2d(rng.normal(0, 0.5, shape).astype(np.float32), None, (1, 1), (1, 1))

    def neurons():
        return neuron(1, -1, reset=("zero", "subtract")[seed % 2])

    nodes = {"input": Input((2, 8, 8)), "first": conv(3, 2, 3, 3), "n_first": neurons()}
    nodes |= {"left": conv(3, 3, 3, 3), "n_left": neurons(), "right": conv(3, 3, 3, 3), "n_right": neurons()}
    nodes |= {"sum": Add(), "last": conv(4, 3, 3, 3), "n_last": neurons(), "output": Output()}
    edges = [("input", "first"), ("first", "n_first"), ("n_first", "left"), ("n_first", "right"), ("left", "n_left")]
    edges += [("right", "n_right"), ("n_left", "sum"), ("n_right", "sum"), ("sum", "last")]
    edges += [("last", "n_last"), ("n_last", "output")]
    deployment = nd.compile(Graph(nodes, tuple(edges)))
    n = 40
    layers = set()
    for _ in range(12):
        t = np.sort(rng.integers(0, 20_000, n))
        events = make_events(t, rng.integers(0, 8, n), rng.integers(0, 8, n), rng.integers(0, 2, n))
        result = found(deployment, events, "time_stepped", "event_driven")
        assert result.cause in ("order-in-step", "v_min-per-event", "one-spike-per-event")
        layers.add(result.layer)
    assert len(layers) > 1


def test_a_reference_of_another_form_is_compared_and_the_cause_left_open():
    deployment = one_neuron([1, 49.6 * LSB], 50 * LSB, -1)
    weight = Conv2d(np.array([[[[1.0]], [[49.6 * LSB]]]], np.float32))
    nodes = {"input": Input((2, 1, 1)), "other": weight, "n1": neuron(50 * LSB, -1), "output": Output()}
    reference = Graph(nodes, (("input", "other"), ("other", "n1"), ("n1", "output")))
    result = first_divergence(deployment, at((2500, 1)), "float", "quantized", reference=reference)
    assert result is not None
    assert (result.cause, result.spikes) == ("unknown", (0, 1))


def test_refusals():
    deployment = one_neuron([1], 1)
    events = at((0, 0))
    for a, b in (("float", "float"), ("float", "onnx"), ("event_driven", "recorded")):
        with pytest.raises(ValidationError):
            first_divergence(deployment, events, a, b)
    with pytest.raises(ValidationError, match="no field layer"):
        first_divergence(deployment, events, "event_driven", "recorded", recorded=events)
    wrong = np.zeros(1, SPIKE_DTYPE)
    for field, message in (("layer", "name layer 3"), ("x", "x = 3")):
        wrong[:] = 0
        wrong[field] = 3
        with pytest.raises(ValidationError, match=message):
            first_divergence(deployment, events, "event_driven", "recorded", recorded=wrong)


def test_no_events_no_difference():
    deployment = one_neuron([1], 1)
    assert first_divergence(deployment, at((0, 0))[:0], "float", "event_driven") is None
