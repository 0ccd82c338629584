"""The whole way through the public API, on real networks, real recordings and counts measured on a real chip."""

import gzip
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.errors import ConfigError, EmulationError, ProgramError, ValidationError
from neurodeploy.events.array import make_events
from neurodeploy.events.dataset import EventDataset, load_npz
from neurodeploy.events.encode import rate_encode
from neurodeploy.graph.file import graph_hash
from tests.shared_data import MEASURED_ON_CHIP, SHARED, needs_shared

REFERENCE = SHARED / "speck-reference"
NMNIST = SHARED / "nmnist-small" / "nmnist_test.npz"


@pytest.fixture(scope="module")
def nmnist() -> EventDataset:
    return load_npz(NMNIST, sensor_size=(2, 34, 34))


@needs_shared
@pytest.mark.parametrize("digit", MEASURED_ON_CHIP)
def test_spike_counts_measured_on_a_speck2f(digit: int, nmnist: EventDataset) -> None:
    row, n_events, on_chip, emulated, difference, equal = MEASURED_ON_CHIP[digit]
    measured = np.load(REFERENCE / "speck_activity_digits0to4.npy")[digit].astype(np.int64)
    deployment = nd.compile(nd.load(REFERENCE / "cnn_sinabs.nir"), target="speck2f", v_min="-threshold")
    events, label = nmnist[row]
    counts = deployment.emulate(events).counts("0").astype(np.int64)
    assert (label, len(events)) == (digit, n_events)
    assert (measured.sum(), counts.sum()) == (on_chip, emulated)
    assert np.abs(counts - measured).sum() == difference
    assert np.mean(counts == measured) == pytest.approx(equal, abs=5e-5)


@needs_shared
def test_the_published_gap_and_the_default_that_closes_it(nmnist: EventDataset) -> None:
    graph = nd.load(REFERENCE / "cnn_sinabs.nir")
    as_published = nd.compile(graph, v_min="-threshold")
    result = nd.validate(
        nd.compile(graph), nmnist, runs=["event_driven"], variants={"v_min=-threshold": as_published}, threads=2
    )
    assert round(100 * result.accuracy["event_driven[v_min=-threshold]"]) == 94
    assert round(100 * result.accuracy["event_driven"]) >= 98


def network(layers: list[nn.Module], weights: Path) -> nn.Sequential:
    """The layers in a row, their weights in the order of the file."""
    net = nn.Sequential(*layers)
    values = iter(torch.load(weights, map_location="cpu", weights_only=True).values())
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = next(values)
    return net


def iaf() -> nn.Module:
    return nd.nn.IAF(threshold=1.0, v_min=-1.0, batch_size=1)


def conv(inputs: int, outputs: int, kernel: int, **options: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, bias=False, **options)


def mnist_network() -> nn.Sequential:
    features = [conv(1, 20, 5), iaf(), nn.AvgPool2d(2), conv(20, 32, 5), iaf(), nn.AvgPool2d(2)]
    head = [conv(32, 128, 3), iaf(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 500, bias=False), iaf()]
    return network([*features, *head, nn.Linear(500, 10, bias=False), iaf()], REFERENCE / "mnist_params.pt")


@needs_shared
def test_the_mnist_network_keeps_its_accuracy_event_by_event() -> None:
    folder = SHARED / "mnist-20k"
    pixels = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:1000] / 255
    rng = np.random.default_rng(0)
    recordings = [rate_encode(i, duration_us=200_000, dt_us=1000, rng=rng, max_rate_hz=1000) for i in images]
    dataset = EventDataset.from_recordings(
        recordings, np.frombuffer(labels, np.uint8, offset=8)[:1000].astype(np.int64), sensor_size=(1, 28, 28)
    )
    deployment = nd.compile(nd.trace(mnist_network(), torch.zeros(1, 1, 28, 28)), target="speck2f")
    assert [core.core for core in deployment.layers.values()] == [0, 3, 5, 6, 1]
    result = nd.validate(deployment, dataset, runs=["event_driven"], threads=2)
    assert result.accuracy["event_driven"] >= 0.97


@needs_shared
@pytest.mark.parametrize("target", ["speck2f", "speck2e"])
def test_the_gesture_network_fills_all_nine_cores(target: str) -> None:
    pool = nn.AvgPool2d
    layers = [conv(2, 16, 2, stride=2), iaf(), conv(16, 16, 3, padding=1), iaf(), pool(2)]
    layers += [conv(16, 32, 3, padding=1), iaf(), pool(2), conv(32, 32, 3, padding=1), iaf(), pool(2)]
    layers += [conv(32, 64, 3, padding=1), iaf(), pool(2), conv(64, 64, 3, padding=1), iaf(), pool(2), nn.Dropout(0.5)]
    layers += [conv(64, 256, 2), iaf(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(256, 128, bias=False), iaf()]
    layers += [nn.Linear(128, 11, bias=False), iaf()]
    graph = nd.trace(network(layers, REFERENCE / "dvs_gesture_params.pt"), torch.zeros(1, 2, 128, 128))
    deployment = nd.compile(graph, target=target)
    assert sorted(core.core for core in deployment.layers.values()) == list(range(9))


def test_a_deployment_survives_the_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(conv(2, 4, 3), iaf(), nd.nn.SumPool2d(2), nn.Flatten(), nn.Linear(64, 3, bias=False), iaf())
    before = nd.compile(nd.trace(net, torch.zeros(1, 2, 10, 10)))
    before.save(tmp_path)
    after = nd.open(tmp_path)
    events = np.zeros(200, [("x", "i4"), ("y", "i4"), ("t", "i8"), ("p", "i4")])
    rng = np.random.default_rng(0)
    events["x"], events["y"] = rng.integers(0, 10, (2, 200))
    events["p"] = rng.integers(0, 2, 200)
    events["t"] = np.arange(200) * 10
    first, second = before.emulate(events), after.emulate(events)
    assert np.array_equal(first.spikes, second.spikes)
    assert len(first.spikes) > 0
    assert first.stats == second.stats
    assert after.notes == before.notes
    model = onnx.load(tmp_path / "quantized.onnx")
    onnx.checker.check_model(model, full_check=True)
    annotations = {node.name: {entry.key: entry.value for entry in node.metadata_props} for node in model.graph.node}
    cores = {name: annotations[name]["neurodeploy.core"] for name in before.layers}
    assert cores == {name: str(core.core) for name, core in before.layers.items()}
    origin = json.loads({entry.key: entry.value for entry in model.metadata_props}["neurodeploy.provenance"])
    assert (origin["target"], origin["graph_sha256"]) == ("speck2f", graph_hash(before.graph))
    again = tmp_path / "again"
    after.save(again)
    for path in sorted(tmp_path.glob("*.*")):
        assert (again / path.name).read_bytes() == path.read_bytes(), f"{path.name} is not deterministic"


def test_unknown_layers_are_not_recorded() -> None:
    net = nn.Sequential(conv(1, 2, 3), iaf())
    deployment = nd.compile(nd.trace(net, torch.zeros(1, 1, 5, 5)))
    with pytest.raises(EmulationError, match=r"conv9.*the layers are 0"):
        deployment.emulate(make_events([1], [1], [1], [0]), record=["conv9"])


def test_other_networks_and_modules_are_refused() -> None:
    net = nn.Sequential(conv(1, 2, 3), iaf(), nn.Flatten(), nn.Linear(18, 2, bias=False), iaf())
    graph = nd.trace(net, torch.zeros(1, 1, 5, 5))
    other = nd.trace(nn.Sequential(nn.Identity(), *net), torch.zeros(1, 1, 5, 5))
    dataset = EventDataset.from_recordings([make_events([1], [1], [1], [0])], [0], sensor_size=(1, 5, 5))
    with pytest.raises(ValidationError, match="no neurons called"):
        nd.validate(nd.compile(graph), dataset, reference=other)
    with pytest.raises(ValidationError, match=r"is a Sequential.*nd\.trace"):
        nd.validate(nd.compile(graph), dataset, reference=net)
    with pytest.raises(ConfigError, match=r"is a Sequential.*nd\.trace"):
        nd.compile(net)
    with pytest.raises(ValidationError, match="variant other has the layers 1, 4"):
        nd.validate(nd.compile(graph), dataset, runs=[], variants={"other": nd.compile(other)})
    with pytest.raises(ProgramError, match="no layer 'conv9'"):
        nd.compile(graph).program.layer_shape("conv9")
    assert nd.validate(nd.compile(graph), dataset, reference=graph).accuracy["float"] in (0.0, 1.0)
