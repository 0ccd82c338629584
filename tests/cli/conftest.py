from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.events.array import make_events
from neurodeploy.events.dataset import EventDataset
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Flatten, Input, Linear, Neuron, Output, SumPool2d
from tests.cli.command_line import CommandLine


@pytest.fixture
def cli(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


def chain(*nodes, shape=(2, 12, 12)):
    names = ["input", *(f"n{index}" for index in range(len(nodes))), "output"]
    named = dict(zip(names, [Input(shape), *nodes, Output()], strict=True))
    return Graph(named, tuple(pairwise(names)))


def neuron(threshold=1.0, v_min=-1.0):
    return Neuron(np.asarray(threshold, np.float32), np.asarray(v_min, np.float32))


def weights(*shape):
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


@pytest.fixture
def small_graph():
    head = [Flatten(), Linear(weights(3, 100)), neuron()]
    return chain(Conv2d(weights(4, 2, 3, 3)), neuron(), SumPool2d((2, 2), (2, 2)), *head)


@pytest.fixture
def recordings():
    rng = np.random.default_rng(1)
    events = []
    for _ in range(6):
        t = np.sort(rng.integers(0, 20_000, 300))
        events.append(make_events(t, rng.integers(0, 12, 300), rng.integers(0, 12, 300), rng.integers(0, 2, 300)))
    return EventDataset.from_recordings(events, [0, 1, 2, 0, 1, 2], sensor_size=(2, 12, 12))
