"""Sweeps and the time-step advisor."""

import csv
import io

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import ValidationError
from neurodeploy.events.dataset import EventDataset, load_npz
from neurodeploy.graph.nodes import Conv2d, Neuron
from neurodeploy.validation.sweep import sweep
from tests.shared_data import SHARED, needs_shared
from tests.validation.one_neuron import at, chain, neuron


def small(seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 0.4, (3, 2, 4, 4)).astype(np.float32)
    graph = chain(Conv2d(weight), neuron(1, -1), shape=(2, 4, 4))
    recordings = []
    for _ in range(20):
        events = np.zeros(80, [("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])
        events["t"] = np.sort(rng.integers(0, 20_000, 80))
        events["x"], events["y"] = rng.integers(0, 4, (2, 80))
        events["p"] = rng.integers(0, 2, 80)
        recordings.append(events)
    return graph, EventDataset.from_recordings(recordings, rng.integers(0, 3, 20), sensor_size=(2, 4, 4))


def test_every_row_is_that_network_compiled_and_validated():
    graph, data = small()
    result = nd.sweep(graph, data, v_min=[None, "lowest"], weight_bits=[8, 3], threshold_scale=[1.0, 0.5], threads=2)
    settings = [(row.v_min, row.weight_bits, row.threshold_scale) for row in result.rows]
    assert settings == [(v, b, s) for v in (None, "lowest") for b in (8, 3) for s in (1.0, 0.5)]
    for row in result.rows:
        if row.weight_bits == 8:
            node = graph.nodes["n1"]
            assert isinstance(node, Neuron)
            scaled = graph.with_nodes({"n1": neuron(row.threshold_scale, -1)})
            alone = nd.validate(nd.compile(scaled, v_min=row.v_min), data, runs=["event_driven"])
            assert row.accuracy == alone.accuracy["event_driven"]
            run = alone.runs["event_driven"]
            assert row.synops == run.counters["n0"]["synops"] / len(data)
            assert row.spikes == {"n0": run.layers["n0"].mean_spikes}
    spikes = {key: row.spikes["n0"] for key, row in zip(settings, result.rows, strict=True) if row.spikes}
    assert spikes[None, 8, 0.5] > spikes[None, 8, 1.0]
    assert spikes[None, 3, 1.0] != spikes[None, 8, 1.0]
    assert result.best in result.rows
    assert result.best is not None
    assert result.best.accuracy == max(row.accuracy or 0 for row in result.rows)


def test_the_files_hold_the_table_and_do_not_depend_on_threads(tmp_path):
    pytest.importorskip("torch")
    graph, data = small(1)
    result = sweep(graph, data, v_min=["-threshold", -0.25], dt_us=[100, 20_000])
    assert sweep(graph, data, v_min=["-threshold", -0.25], dt_us=[100, 20_000], threads=3) == result
    result.save(tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    assert [(row["v_min"], row["dt_us"]) for row in rows] == [
        ("-threshold", "100"),
        ("-threshold", "20000"),
        ("-0.25", "100"),
        ("-0.25", "20000"),
    ]
    assert all(float(row["accuracy"]) >= 0 and row["error"] == "" for row in rows)


def test_what_cannot_be_compiled_is_a_row():
    graph, data = small()
    result = sweep(graph, data, v_min=[-1e-6, "-threshold"])
    assert "rounds to 0" in result.rows[0].error
    assert result.rows[0].accuracy is None
    assert result.best is result.rows[1]


def test_refusals():
    graph, data = small()
    for wrong in ({"weight_bits": [9]}, {"weight_bits": [1]}, {"threshold_scale": [0.0]}, {"v_min": []}):
        with pytest.raises(ValidationError):
            sweep(graph, data, **wrong)
    with pytest.raises(ValidationError, match="no recordings"):
        sweep(graph, data[:0])


def test_the_largest_time_step_at_which_events_do_not_cancel():
    pytest.importorskip("torch")
    # Excitation and inhibition 1500 us apart: the same in steps of 1 ms, nothing left of it in steps of 10 ms.
    weights = np.array([[0, -1], [1, -1]], np.float32).reshape(2, 2, 1, 1)
    deployment = nd.compile(chain(Conv2d(weights), neuron(1), shape=(2, 1, 1)))
    events = at((0, 0), (1500, 1), (10_000, 0), (11_500, 1))
    data = EventDataset.from_recordings([events] * 2, [1, 1], sensor_size=(2, 1, 1))
    advice = nd.largest_dt(deployment, data, [10_000, 100, 1000])
    assert advice.dt_us == 1000
    assert [(step.dt_us, step.agreement, step.rate_difference, step.within) for step in advice.candidates] == [
        (100, 1.0, 0.0, True),
        (1000, 1.0, 0.0, True),
        (10_000, 0.0, 1.0, False),
    ]
    assert nd.largest_dt(deployment, data, [10_000]).dt_us is None
    assert nd.largest_dt(deployment, data, [10_000], min_agreement=0, max_rate_difference=1).dt_us == 10_000
    with pytest.raises(ValidationError):
        nd.largest_dt(deployment, data, [])


@needs_shared
def test_the_sweep_finds_the_v_min_that_closes_the_published_gap():
    data = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))
    graph = nd.load(SHARED / "speck-reference" / "cnn_sinabs.nir")
    result = nd.sweep(graph, data, v_min=["-threshold", -4, "lowest"], threads=2)
    correct = [round(100 * (row.accuracy or 0)) for row in result.rows]
    assert correct[0] == 94
    assert correct[1] >= 98
    assert correct[2] == 100
    assert result.best is result.rows[2]
    synops = [row.synops or 0 for row in result.rows]
    assert synops[2] < synops[1] < synops[0]
