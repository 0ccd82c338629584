"""What every chip of integers and events found in ``targets/`` must do. A new folder is tested without a change here.

Analog chips have a contract of their own: ``test_analog_contract.py``.
"""

import itertools

import numpy as np
import pytest

from neurodeploy.events import make_events
from neurodeploy.files import canonical_json
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import AvgPool2d, Conv2d, Flatten, Input, Linear, Neuron, Output
from neurodeploy.quantize import quantize
from neurodeploy.target import SPIKE_DTYPE, load_target, target_names


def golden():
    """A small float network: convolution, average pooling and a linear layer, the same every time."""

    def values(*shape):
        return (((np.arange(np.prod(shape)) * 29 + 5) % 64 - 24) / 64).astype(np.float32).reshape(shape)

    nodes = {
        "input": Input((2, 10, 10)),
        "conv": Conv2d(values(4, 2, 3, 3), None, (1, 1), (1, 1)),
        "spike": Neuron(np.array(0.9, np.float32)),
        "pool": AvgPool2d((2, 2), (2, 2)),
        "flatten": Flatten(),
        "linear": Linear(values(3, 100)),
        "spike2": Neuron(np.array(0.4, np.float32)),
        "output": Output(),
    }
    names = list(nodes)
    return Graph(nodes, tuple(itertools.pairwise(names)))


def events(count=400):
    rng = np.random.default_rng(1)
    t = np.sort(rng.integers(0, 5000, count))
    return make_events(t, rng.integers(0, 10, count), rng.integers(0, 10, count), rng.integers(0, 2, count))


@pytest.fixture(scope="module", params=[name for name in target_names() if not load_target(name).code.analog])
def target(request):
    return load_target(request.param)


@pytest.fixture(scope="module")
def mapped(target):
    quantized = quantize(golden(), target.family.quantization_spec(target.chip))
    return target.family.map(quantized.graph, target.chip)


def test_rules_have_unique_codes_and_texts(target):
    rules = target.family.rules(target.chip)
    assert len({rule.code for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.severity in ("error", "note")
        assert rule.text.endswith(".")
        assert "{" not in rule.text


def test_the_golden_network_breaks_no_rule(target):
    assert [found for found in target.family.check(golden(), target.chip) if found.rule.severity == "error"] == []


def test_the_mapping_is_reported(target, mapped):
    assert list(mapped.layers) == ["conv", "linear"]
    report = mapped.report()
    canonical_json(report)
    assert report["target"] == target.name
    for name, layer in mapped.layers.items():
        entry = next(entry for entry in report["layers"] if entry["name"] == name)
        assert entry["core"] == layer.core
        assert layer.core in entry["fits"]
        assert all(need <= entry["capacities"][resource] for resource, need in entry["needs"].items())


def test_the_golden_network_lowers_to_the_same_program_every_time(target, mapped):
    program = target.family.lower(mapped)
    assert program.target == target.name
    assert program.layers == ("conv", "linear")
    assert program.input_shape == (2, 10, 10)
    assert program.layer_shape("conv") == (4, 10, 10)
    text = canonical_json(program.to_dict())
    assert canonical_json(target.family.lower(mapped).to_dict()) == text
    again = target.family.read_program(program.to_dict(), target.chip)
    assert canonical_json(again.to_dict()) == text


def test_the_program_runs_and_streams(target, mapped):
    program = target.family.lower(mapped)
    whole = target.family.executor(program)
    execution = whole.run(events())
    assert execution.spikes.dtype == SPIKE_DTYPE
    assert execution.counts["conv"].shape == (4, 10, 10)
    assert int(execution.counts["linear"].sum()) > 0
    pieces = target.family.executor(program)
    spikes = [pieces.run(part).spikes for part in np.array_split(events(), 5)]
    assert np.array_equal(np.concatenate(spikes), execution.spikes)
    whole.reset()
    assert np.array_equal(whole.run(events()).spikes, execution.spikes)
