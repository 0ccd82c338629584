"""BrainScaleS-2's files: the script builds what the program computes, and every number is in the tools' own unit."""

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import nir
import numpy as np
import pytest

from neurodeploy.graph.nir_reader import read_nir
from neurodeploy.target import TARGETS, load_target
from neurodeploy.targets.analog.bss2 import map_network
from neurodeploy.targets.analog.bss2_files import weight_codes, write_files
from neurodeploy.targets.analog.emulator import emulate
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.settings import Settings

CHIP = load_target("bss2").chip
UNIT = 5e-3  # seconds of the network, 5 us of the chip


def wanted(name, source, inputs, neurons, mean=0.0):
    weight = (np.random.default_rng(neurons).normal(size=(inputs, neurons)) * 2 + mean) / UNIT
    constants = {
        "tau_mem": 2 * UNIT,
        "tau_syn_exc": UNIT,
        "tau_syn_inh": 0.8 * UNIT,
        "threshold": 1.0,
        "v_reset": -0.1,
        "t_ref": np.inf,
    }
    rows = {key: np.full(neurons, value) for key, value in constants.items()}
    return Wanted(name, source, LayerParameters(weight, **rows), 1)


def mapped(inputs=5, hidden=12):
    layers = (wanted("hidden", "input", inputs, hidden, 0.8), wanted("label", "hidden", hidden, 3, 0.8))
    return map_network(AnalogNetwork(inputs, layers, 6 * UNIT), CHIP, Settings()).program


PROGRAM = mapped()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    paths = write_files(PROGRAM, None, CHIP, folder, Settings())
    names = ["calib_target.json", "network.nir", "pynn_network.py", "weights.npz"]
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir()) == names
    package = folder / "library" / "pynn_brainscales"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "brainscales2.py").write_bytes((Path(__file__).parent / "fake_pynn.py").read_bytes())
    return folder


def run_script(folder, times, **environment):
    """Run the script on the substitute for PyNN's module; spikes by layer."""
    np.save(folder / "times.npy", times)
    command = [sys.executable, "pynn_network.py", "times.npy", "spikes.npz"]
    variables = {**os.environ, "PYTHONPATH": str(folder / "library"), **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "spikes.npz") as spikes:
        return {name: spikes[name] for name in spikes.files}


def test_the_script_computes_what_the_program_does(folder):
    times = np.random.default_rng(0).uniform(0, 2 * UNIT, size=(5, 1))
    gain = PROGRAM.configuration["gain"]["lsb_per_s"]
    found = run_script(folder, times, FAKE_LSB_PER_S=repr(gain))
    layers = [layer.nominal for layer in PROGRAM.layers]
    exact = emulate(layers, times[None], max_spikes=[1, 1], t_max=PROGRAM.t_max)
    for layer, spikes in zip(PROGRAM.layers, exact, strict=True):
        slots = found[layer.name]
        first = slots[:, 0] if slots.shape[1] else np.full(layer.neurons, np.inf)
        assert np.isfinite(spikes[0, :, 0]).any()
        assert np.array_equal(np.isfinite(first), np.isfinite(spikes[0, :, 0]))
        fired = np.isfinite(first)
        # Steps of 2 ns of the chip and whole LSB of the threshold: 1 of 120 LSB moves a spike by about 1 % of tau_mem.
        assert np.abs(first[fired] - spikes[0, fired, 0]).max() < 0.02 * UNIT


def test_weights_are_the_codes_of_the_chip(folder):
    with np.load(folder / "weights.npz", allow_pickle=False) as stored:
        assert stored.files == ["hidden", "label"]
        for layer in PROGRAM.layers:
            codes = stored[layer.name]
            assert codes.dtype == np.int8
            assert np.abs(codes).max() <= 63
            step = PROGRAM.configuration["gain"]["lsb_per_s"] / (layer.potential_unit * PROGRAM.acceleration)
            assert np.allclose(codes * step, layer.nominal.weight, rtol=1e-12, atol=0)


def test_the_weight_scale_is_a_constant_that_says_it_must_be_measured(folder):
    text = (folder / "pynn_network.py").read_text()
    tree = ast.parse(text)
    assert "Never loaded by the vendor's tool yet" in ast.get_docstring(tree)
    constants = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    assert constants["WEIGHT_SCALE"] == 1.0
    assert constants["GAIN_LSB_PER_S"] == PROGRAM.configuration["gain"]["lsb_per_s"]
    assert "Measure that on the chip" in text


def test_scaled_weights_stay_in_range_and_delays_are_none(folder, tmp_path):
    text = (folder / "pynn_network.py").read_text()
    scaled = tmp_path / "pynn_network.py"
    scaled.write_text(text.replace("WEIGHT_SCALE = 1.0", "WEIGHT_SCALE = 3.0"))
    for name in ("weights.npz", "library"):
        (tmp_path / name).symlink_to(folder / name)
    note = tmp_path / "note.json"
    run_script(tmp_path, np.full((5, 1), np.inf), FAKE_NOTE=str(note))
    for (receptor, weight), code in zip(json.loads(note.read_text()), np.repeat(range(2), 2), strict=True):
        codes = weight_codes(PROGRAM, PROGRAM.layers[code])
        sign = 1 if receptor == "excitatory" else -1
        assert np.array_equal(weight, np.clip(3 * codes, -63, 63) * (sign * codes > 0))


def test_calibration_targets_have_calix_fields_in_its_units(folder):
    data = json.loads((folder / "calib_target.json").read_text())
    assert data["note"].startswith("Never loaded")
    target = data["NeuronCalibTarget"]
    assert set(target) == {
        "leak",
        "reset",
        "threshold",
        "tau_mem",
        "tau_syn",
        "i_synin_gm",
        "membrane_capacitance",
        "refractory_time",
        "synapse_dac_bias",
        "holdoff_time",
    }
    circuit = int(PROGRAM.layers[1].neuron_sites[2, 0])
    assert np.shape(target["tau_syn"]) == (2, 512)
    assert target["leak"][circuit] == 80
    assert target["threshold"][circuit] == pytest.approx(200, abs=1)
    assert target["reset"][circuit] == pytest.approx(80 - 12, abs=1)
    assert target["tau_mem"][circuit] == pytest.approx(10e-6, rel=0.05)
    assert [row[circuit] for row in target["tau_syn"]] == pytest.approx([5e-6, 4e-6], rel=0.05)
    assert 30e-6 < target["refractory_time"][circuit] <= 32e-6
    assert target["tau_mem"][511] == 10e-6  # not in use: calix' default
    assert target["leak"][511] == 80


def test_the_readme_hands_the_targets_to_calix(folder, monkeypatch):
    readme = (TARGETS / "analog" / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(import calix.*?)```", readme, re.DOTALL)
    received = []
    calix = SimpleNamespace(calibrate=received.append)
    spiking = SimpleNamespace(SpikingCalibTarget=lambda neuron_target: neuron_target)
    neuron = SimpleNamespace(NeuronCalibTarget=dict)
    modules = {"calix": calix, "calix.spiking": spiking, "calix.spiking.neuron": neuron}
    for name, module in {**modules, "quantities": SimpleNamespace(us=1.0)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(folder)
    exec(snippet, {})
    (target,) = received
    circuit = int(PROGRAM.layers[0].neuron_sites[0, 0])
    assert target["tau_mem"][circuit] == pytest.approx(10.0, rel=0.05)
    assert target["refractory_time"].max() == 32.0
    assert target["leak"].dtype.kind == target["threshold"].dtype.kind == "i"


def test_nir_has_the_chips_own_times_in_milliseconds(folder):
    graph = nir.read(folder / "network.nir")
    neurons = graph.nodes["hidden.neuron"]
    assert type(neurons) is nir.CubaLIF
    assert neurons.tau_mem == pytest.approx(0.010, rel=0.05)
    assert neurons.tau_syn == pytest.approx(0.005, rel=0.05)
    assert neurons.r == pytest.approx(1.0)
    again = read_nir(folder / "network.nir", continuous_time=True)
    nominal = PROGRAM.layers[0].nominal
    node = again.nodes["hidden.neuron"]
    assert np.allclose(node.tau_syn_inh * PROGRAM.acceleration, nominal.tau_syn_inh, rtol=1e-12)
    weight = (again.nodes["hidden"].weight.T * node.input_gain) / PROGRAM.acceleration
    assert np.allclose(weight, nominal.weight, rtol=1e-12)


def test_the_unit_of_nir_can_be_seconds(tmp_path):
    write_files(PROGRAM, None, CHIP, tmp_path, Settings(nir_tau_unit="s"))
    assert nir.read(tmp_path / "network.nir").nodes["hidden.neuron"].tau_mem == pytest.approx(10e-6, rel=0.05)


def test_every_file_says_that_it_was_never_loaded(folder):
    with zipfile.ZipFile(folder / "weights.npz") as archive, h5py.File(folder / "network.nir") as network:
        notes = [archive.comment.decode(), network.attrs["note"]]
    notes += [(folder / name).read_text() for name in ("calib_target.json", "pynn_network.py")]
    assert all("Never loaded by the vendor's tool yet" in note for note in notes)


def test_the_same_program_gives_the_same_bytes(folder, tmp_path):
    write_files(PROGRAM, None, CHIP, tmp_path, Settings())
    for name in ("weights.npz", "calib_target.json", "pynn_network.py"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_network_with_merged_circuits_has_no_script(folder, tmp_path):
    large = mapped(inputs=140, hidden=4)
    assert large.layers[0].neuron_sites.shape[1] == 2
    (tmp_path / "pynn_network.py").write_text("of an earlier network")
    names = {path.name for path in write_files(large, None, CHIP, tmp_path, Settings())}
    assert names == {path.name for path in tmp_path.iterdir()} == {"calib_target.json", "network.nir", "weights.npz"}
    codes = weight_codes(large, large.layers[0])
    step = large.configuration["gain"]["lsb_per_s"] / (large.layers[0].potential_unit * large.acceleration * 2)
    assert np.allclose(codes * step, large.layers[0].nominal.weight, rtol=1e-12, atol=0)
