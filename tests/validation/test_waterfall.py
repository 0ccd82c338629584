"""The waterfall: its bars sum to the gap, and each carries what was built to lie in it."""

from itertools import pairwise

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.events.dataset import EventDataset, load_npz
from neurodeploy.graph.nodes import Conv2d
from neurodeploy.quantize import with_v_min
from neurodeploy.validation.waterfall import BARS
from tests.shared_data import SHARED, needs_shared
from tests.validation.one_neuron import at, chain, neuron

torch = pytest.importorskip("torch")


def two_classes(weights, threshold, v_min=None, *, deployed=None):
    """Class 1 answers by its spike; without one the tie goes to class 0, which reads the last channel alone."""
    values = np.array([[0] * (len(weights) - 1) + [-1], weights], np.float32).reshape(2, -1, 1, 1)
    graph = chain(Conv2d(values), neuron(threshold, v_min), shape=(len(weights), 1, 1))
    return nd.compile(graph, v_min=deployed)


def dataset(events, label, channels):
    return EventDataset.from_recordings([events] * 4, [label] * 4, sensor_size=(channels, 1, 1))


CASES = [
    # (what is built in, weights, threshold, trained v_min, deployed v_min, events)
    ("weight-rounding", [1, 49.6 / 127], 50 / 127, -1, None, [(0, 1)]),
    ("threshold-rounding", [1, 50 / 127], 50.4 / 127, -1, None, [(0, 1)]),
    ("v_min-per-event", [1, -1], 1, None, "-threshold", [(0, 1), (1000, 1), (2000, 0), (3000, 0)]),
    ("events", [1, -1], 1, None, None, [(10, 0), (20, 1)]),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("label", [0, 1])
def test_a_cause_that_was_built_in_has_the_whole_gap(case, label):
    cause, weights, threshold, v_min, deployed, events = case
    weights = [*weights, 1]  # a last channel without events, so that the scale is 127
    deployment = two_classes(weights, threshold, v_min, deployed=deployed)
    gap = nd.validate(deployment, dataset(at(*events), label, len(weights))).waterfall
    assert gap is not None
    points = {bar.cause: bar.points for bar in gap.bars}
    assert points == {**dict.fromkeys(BARS, 0.0), cause: 100.0 if label else -100.0}
    bar = next(bar for bar in gap.bars if bar.cause == cause)
    assert (bar.gained, bar.lost) == ((4, 0) if label else (0, 4))


def test_v_min_lifted_and_applied_again_cancel():
    # Trained with the bound: two steps of inhibition count once. On the chip the same: no gap, but two bars.
    deployment = two_classes([1, -1, 1], 1, -1)
    events = at((0, 1), (1000, 1), (2000, 0), (3000, 0))
    gap = nd.validate(deployment, dataset(events, 1, 3)).waterfall
    assert gap is not None
    points = {bar.cause: bar.points for bar in gap.bars if bar.points}
    assert points == {"v_min-lifted": -100.0, "v_min-per-event": 100.0}
    assert gap.points["v_min"] == 0


def random_validation(seed, **options):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 0.4, (3, 2, 4, 4)).astype(np.float32)
    graph = chain(Conv2d(weight), neuron(1, -1), shape=(2, 4, 4))
    recordings = []
    for _ in range(30):
        events = np.zeros(60, [("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])
        events["t"] = np.sort(rng.integers(0, 5000, 60))
        events["x"], events["y"] = rng.integers(0, 4, (2, 60))
        events["p"] = rng.integers(0, 2, 60)
        recordings.append(events)
    data = EventDataset.from_recordings(recordings, rng.integers(0, 3, 30), sensor_size=(2, 4, 4))
    return nd.validate(nd.compile(graph), data, **options)


@pytest.mark.parametrize("seed", range(5))
def test_the_bars_sum_to_the_gap_and_nothing_depends_on_threads_or_runs(seed):
    result = random_validation(seed)
    gap = result.waterfall
    assert gap is not None
    n = len(result.labels)
    correct = {name: round(accuracy * n) for name, accuracy in result.accuracy.items()}
    bars = gap.bars
    assert [bar.cause for bar in bars] == list(BARS)
    assert bars[0].correct_before == correct["float"]
    assert bars[-1].correct_after == correct["event_driven"]
    assert sum(bar.gained - bar.lost for bar in bars) == correct["event_driven"] - correct["float"]
    assert all(before.correct_after == after.correct_before for before, after in pairwise(bars))
    assert any(bar.gained + bar.lost for bar in bars)
    few = random_validation(seed, runs=["float", "event_driven"], threads=2)
    assert set(few.runs) == {"float", "event_driven"}
    assert few.waterfall is not None
    assert few.waterfall.to_dict() == gap.to_dict()
    assert few.first_divergence == result.first_divergence


def test_without_the_float_run_there_is_nothing_to_explain():
    result = random_validation(0, runs=["event_driven"])
    assert result.waterfall is None
    assert result.first_divergence is None
    unexplained = random_validation(0, explain=False)
    assert unexplained.waterfall is None
    assert "float" in unexplained.runs


@needs_shared
def test_the_published_gap_is_v_min_at_every_event():
    torch.set_num_threads(1)
    recordings = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))
    graph = nd.load(SHARED / "speck-reference" / "cnn_sinabs.nir")
    deployment = nd.compile(with_v_min(graph, "-threshold"))  # as sinabs reads the file: trained and deployed
    everything = nd.validate(deployment, recordings, runs=["event_driven"], threads=2)
    assert round(100 * everything.accuracy["event_driven"]) == 94
    wrong = np.flatnonzero(everything.runs["event_driven"].predictions != everything.labels)
    hard = recordings.subset([*wrong, *np.setdiff1d(np.arange(20), wrong)])  # time steps take long
    result = nd.validate(deployment, hard, runs=["float", "event_driven"], threads=2)
    assert result.waterfall is not None
    points = result.waterfall.points
    changed = {cause: round(share * len(hard) / 100) for cause, share in points.items()}
    assert changed == {"weight-rounding": 0, "threshold-rounding": 0, "v_min": -3, "events": 0}
    lost = {bar.cause: bar.lost for bar in result.waterfall.bars if bar.lost}
    assert lost == {"v_min-per-event": 6}
    assert sum(points.values()) == pytest.approx(100 * (result.accuracy["event_driven"] - result.accuracy["float"]))
    assert result.first_divergence is not None
    assert result.first_divergence.cause not in ("unknown", "chip")
