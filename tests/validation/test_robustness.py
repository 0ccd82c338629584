"""Other orders of delivery and imperfect chips: what is compared, and that the seed decides."""

from itertools import pairwise

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import ConfigError, ValidationError
from neurodeploy.events import EventDataset, make_events
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Flatten, Input, Linear, Neuron, Output


def neuron(threshold=1.0, v_min=-1.0):
    return Neuron(np.float32(threshold), np.float32(v_min))


@pytest.fixture(scope="module")
def compiled():
    """Weights of both signs far above the threshold: the order within an event matters."""
    rng = np.random.default_rng(0)
    nodes = {
        "in": Input((2, 8, 8)),
        "conv": Conv2d(rng.normal(0.1, 0.5, (6, 2, 3, 3)).astype(np.float32), padding=(1, 1)),
        "n0": neuron(),
        "flat": Flatten(),
        "fc": Linear(rng.normal(0, 0.8, (4, 6 * 64)).astype(np.float32)),
        "n1": neuron(),
        "out": Output(),
    }
    names = list(nodes)
    return nd.compile(Graph(nodes, tuple(pairwise(names))))


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(1)
    recordings = [
        make_events(np.sort(rng.integers(0, 5000, 60)), *(rng.integers(0, size, 60) for size in (8, 8, 2)))
        for _ in range(12)
    ]
    return EventDataset.from_recordings(recordings, rng.integers(0, 4, 12), sensor_size=(2, 8, 8), duration_us=5000)


def test_order_robustness_counts_what_single_runs_differ_in(compiled, dataset):
    found = nd.order_robustness(compiled, dataset, orders=4, seed=3)
    assert list(found.trials) == ["depth_first", "breadth_first", "random_3", "random_4"]
    for name, trial in found.trials.items():
        layer_changes = dict.fromkeys(compiled.program.layers, 0)
        total = dict.fromkeys(compiled.program.layers, 0)
        for index in range(len(dataset)):
            one = compiled.emulate(dataset[index][0])
            other = compiled.emulate(dataset[index][0], switches=trial.switches)
            assert found.reference[index] == one.prediction
            assert trial.predictions[index] == other.prediction
            for layer in total:
                difference = other.counts(layer).astype(int) - one.counts(layer).astype(int)
                layer_changes[layer] += int(np.abs(difference).sum())
                total[layer] += int(one.counts(layer).sum())
        for layer in total:
            assert trial.spikes_changed[layer] == layer_changes[layer] / total[layer], name
    # A core's own state never depends on the order of its spikes, and in a chain that of the cores does not matter.
    assert all(trial.spikes_changed["conv"] == 0 for trial in found.trials.values())
    assert found.trials["depth_first"].spikes_changed["fc"] == found.trials["breadth_first"].spikes_changed["fc"] == 0
    assert found.trials["random_3"].spikes_changed["fc"] > 0
    assert found.changed.sum() > 0
    changed = sum(int(np.sum(trial.predictions != found.reference)) for trial in found.trials.values())
    assert found.answers_changed == changed / 48
    assert found.to_dict()["recordings_changed"] == np.flatnonzero(found.changed).tolist()


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_threads_and_only_on_the_seed(compiled, dataset, threads):
    def both(seed, threads):
        orders = nd.order_robustness(compiled, dataset, orders=3, seed=seed, threads=threads)
        chips = nd.monte_carlo(compiled, dataset, chips=3, seed=seed, lost_events=0.1, threads=threads)
        return orders.to_dict(), chips.to_dict()

    assert both(0, 1) == both(0, threads)
    assert both(0, 1)[1] != both(10, 1)[1]


def test_chips_without_imperfection_and_impossible_counts_are_refused(compiled, dataset):
    with pytest.raises(ValidationError, match="no imperfection"):
        nd.monte_carlo(compiled, dataset)
    with pytest.raises(ValidationError, match="orders is 0"):
        nd.order_robustness(compiled, dataset, orders=0)
    with pytest.raises(ValidationError, match="no recordings"):
        nd.order_robustness(compiled, dataset[:0])
    with pytest.raises(ConfigError, match="lost_events"):
        nd.monte_carlo(compiled, dataset, lost_events=2.0)


def test_all_events_lost_silences_the_chip(compiled, dataset):
    found = nd.monte_carlo(compiled, dataset, chips=1, lost_events=1.0)
    assert found.trials["chip_0"].spikes_changed == {"conv": 1.0, "fc": 1.0}
    assert (found.trials["chip_0"].predictions == 0).all()
