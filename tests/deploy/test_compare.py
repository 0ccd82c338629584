"""Chip against emulator: the table is right where the answer is known, on silicon too."""

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import EventError, ValidationError
from neurodeploy.events.dataset import load_npz, write_npz
from neurodeploy.program_file import program_hash
from neurodeploy.recorded_file import Recorded, events_hash, read_recorded, write_recorded
from neurodeploy.target import SPIKE_DTYPE
from tests.shared_data import SHARED, needs_shared


@pytest.fixture
def recorded(deployment, recordings):
    spikes = deployment.emulate(recordings[0][0]).spikes
    return Recorded(
        spikes, deployment.program.layers, ("n0", "n4"), program_hash(deployment.program), events_hash(recordings[0][0])
    )


def changed(recorded, **fields):
    return Recorded(**{**vars(recorded), **fields})


def test_a_lost_spike_is_one_neuron(deployment, recordings, recorded):
    first = recorded.spikes[0]
    comparison = nd.compare_with_chip(deployment, changed(recorded, spikes=recorded.spikes[1:]), recordings[0][0])
    layer = deployment.program.layers[first["layer"]]
    row = comparison.layers[layer]
    assert row.emulated_spikes - row.chip_spikes == row.sum_abs_difference == row.max_abs_difference == 1
    assert row.worst == (first["c"], first["y"], first["x"])
    assert row.neurons - row.equal_neurons == 1
    assert comparison.differences[layer][row.worst] == -1
    others = [row for name, row in comparison.layers.items() if name != layer]
    assert all(row.equal_share == 1 and row.worst is None for row in others)
    assert comparison.equal_share == comparison.layers[layer].equal_share < 1


def test_layers_that_were_not_monitored_are_left_out(deployment, recordings, recorded):
    comparison = nd.compare_with_chip(deployment, changed(recorded, monitored=("n4",)), recordings[0][0])
    assert list(comparison.layers) == ["n4"]


def test_what_does_not_belong_together_is_refused(deployment, recordings, recorded):
    events, _ = recordings[0]
    with pytest.raises(ValidationError, match="another program"):
        nd.compare_with_chip(deployment, changed(recorded, program_sha256="0" * 64), events)
    with pytest.raises(ValidationError, match="another recording") as caught:
        nd.compare_with_chip(deployment, recorded, recordings[1][0])
    assert caught.value.code == "recorded-events"
    with pytest.raises(ValidationError, match="no layer"):
        nd.compare_with_chip(deployment, {}, events)
    with pytest.raises(ValidationError, match="no such layer"):
        nd.compare_with_chip(deployment, {"n9": np.zeros((1, 1, 1))}, events)
    with pytest.raises(ValidationError, match=r"shape \(4, 9, 10\)"):
        nd.compare_with_chip(deployment, {"n0": np.zeros((4, 9, 10))}, events)
    far = recorded.spikes.copy()
    far["x"][far["layer"] == 0] = 10
    with pytest.raises(EventError, match=r"x = 10, the layer's neurons are x = 0\.\.9"):
        nd.compare_with_chip(deployment, changed(recorded, spikes=far), events)


def test_the_file_comes_back_and_damage_is_refused(recorded, tmp_path):
    path = tmp_path / "events_hw.npz"
    write_recorded(path, recorded)
    again = read_recorded(path)
    assert again.spikes.tolist() == recorded.spikes.tolist()
    assert vars(again) | {"spikes": None} == vars(recorded) | {"spikes": None}
    arrays = dict(np.load(path))
    wrong = {
        "spikes": np.zeros(3, np.int64),
        "layers": np.array([1, 2]),
        "monitored": np.array(["n7"]),
        "program_sha256": np.array(["a"]),
        "events_sha256": np.array(7),
    }
    for name, value in wrong.items():
        write_npz(path, arrays | {name: value})
        with pytest.raises(EventError, match="does not hold recorded spikes"):
            read_recorded(path)
        write_npz(path, {key: array for key, array in arrays.items() if key != name})
        with pytest.raises(EventError, match=f"{name} is missing"):
            read_recorded(path)
    write_npz(path, arrays | {"spikes": np.array([(9, 0, 0, 0, 0)], SPIKE_DTYPE)})
    with pytest.raises(EventError, match="layers that it does not name"):
        read_recorded(path)
    path.write_bytes(b"no archive")
    with pytest.raises(EventError, match="npz archive"):
        read_recorded(path)


@needs_shared
def test_silicon() -> None:
    deployment = nd.compile(SHARED / "speck-reference" / "cnn_sinabs.nir", target="speck2f", v_min="-threshold")
    dataset = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))
    chip = np.load(SHARED / "speck-reference" / "speck_activity_digits0to4.npy")
    for digit, row, spikes, emulated, difference, equal in (
        (1, 2, 3590, 3590, 0, 100.0),
        (4, 4, 7268, 7261, 33, 99.19),
    ):
        found = nd.compare_with_chip(deployment, {"0": chip[digit]}, dataset[row][0]).layers["0"]
        assert (found.chip_spikes, found.emulated_spikes, found.sum_abs_difference) == (spikes, emulated, difference)
        assert round(100 * found.equal_share, 2) == equal
