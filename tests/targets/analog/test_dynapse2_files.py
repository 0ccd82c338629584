"""DYNAP-SE2's files: what the script puts into samna's objects is what the program says; nothing is half-written."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neurodeploy.errors import ConfigError, EventError
from neurodeploy.target import load_target
from neurodeploy.targets.analog.dynapse2 import map_network, nominal_of
from neurodeploy.targets.analog.dynapse2_files import write_files, write_input_events
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.settings import Settings

CHIP = load_target("dynapse2").chip


def wanted(name, source, inputs, neurons):
    weight = np.random.default_rng(neurons).normal(size=(inputs, neurons)) * 200.0
    times = {
        "tau_mem": 0.02,
        "tau_syn_exc": 0.01,
        "tau_syn_inh": 0.01,
        "threshold": 1.0,
        "v_reset": 0.0,
        "t_ref": np.inf,
    }
    rows = {key: np.full(neurons, value) for key, value in times.items()}
    return Wanted(name, source, LayerParameters(weight, **rows), 1)


def program():
    layers = (wanted("hidden", "input", 5, 20), wanted("label", "hidden", 20, 3))
    return map_network(AnalogNetwork(5, layers, 0.06), CHIP, Settings()).program


PROGRAM = program()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files, after the script ran on the substitute for samna."""
    folder = tmp_path_factory.mktemp("kit")
    paths = write_files(PROGRAM, None, CHIP, folder, Settings())
    assert sorted(path.name for path in paths) == ["config.patch.json", "input_map.json", "load_samna.py"]
    library = folder / "library"
    library.mkdir()
    (library / "samna.py").write_bytes((Path(__file__).parent / "fake_samna.py").read_bytes())
    run(folder / "load_samna.py", library)
    return folder


def run(script, library, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(library)}
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words_of_samna(configuration):
    """The words in samna's objects, as a configuration of a program has them."""
    cores = []
    for chip, chip_data in enumerate(configuration["value0"]["chips"]):
        for core, core_data in enumerate(chip_data["cores"]):
            biases = {
                name: [word["coarse_value"], word["fine_value"]] for name, word in core_data["parameters"].items()
            }
            neurons = []
            for number, neuron in enumerate(core_data["neurons"]):
                if neuron["latch_soif_kill"]:  # nothing touched it
                    continue
                synapses = [
                    [word["tag"], word["dendrite"], sum(bit << place for place, bit in enumerate(word["weight"]))]
                    for word in neuron["synapses"]
                    if word["dendrite"] != "none"
                ]
                destinations = [
                    [
                        word["tag"],
                        [place for place, bit in enumerate(word["core"]) if bit],
                        word["x_hop"],
                        word["y_hop"],
                    ]
                    for word in neuron["destinations"]
                    if any(word["core"])
                ]
                neurons.append({"neuron": number, "synapses": synapses, "destinations": destinations})
            cores.append({"chip": chip, "core": core, "biases": biases, "neurons": neurons})
    return cores


def test_samna_holds_what_the_program_says(folder):
    held = words_of_samna(json.loads((folder / "config.json").read_text()))
    said = json.loads(json.dumps(PROGRAM.configuration))
    for core, other in zip(said["cores"], held, strict=False):
        assert other["neurons"] == core["neurons"]
        assert {name: other["biases"][name] for name in core["biases"]} == core["biases"]
        untouched = set(other["biases"]) - set(core["biases"])
        assert all(other["biases"][name] == [0, 0] for name in untouched)
        core["neurons"] = other["neurons"]
    assert not any(core["neurons"] for core in held[len(said["cores"]) :])
    assert nominal_of(said, CHIP) == tuple(layer.nominal for layer in PROGRAM.layers)


def test_the_patch_names_nothing_but_what_is_set(folder):
    data = json.loads((folder / "config.patch.json").read_text())
    assert data["format"] == "neurodeploy-dynapse2"
    assert data["note"].startswith("Never loaded by the vendor's tool yet")
    neurons = sum(len(core["neurons"]) for core in PROGRAM.configuration["cores"])
    assert len(data["patch"]) == 13 * len(PROGRAM.configuration["cores"]) + 3 * neurons
    leak = PROGRAM.configuration["cores"][0]["biases"]["SOIF_LEAK_N"]
    assert data["patch"]["chips/0/cores/0/parameters/SOIF_LEAK_N"] == {"coarse_value": leak[0], "fine_value": leak[1]}


def test_a_field_that_does_not_hold_stops_the_script(folder, tmp_path):
    text = (folder / "library" / "samna.py").read_text()
    broken = text.replace("copy.deepcopy(value))", 'old if name == "fine_value" else copy.deepcopy(value))')
    assert broken != text
    (tmp_path / "samna.py").write_text(broken)
    command = [sys.executable, str(folder / "load_samna.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "chips/0/cores/0/parameters/SOIF_LEAK_N: fine_value is 0, not" in done.stderr


def test_the_script_is_short_and_says_what_it_is(folder):
    text = (folder / "load_samna.py").read_text()
    assert "Never loaded by the vendor's tool yet" in ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) < 80


def test_the_input_map_leads_to_the_cores_and_back_to_the_neurons(folder):
    data = json.loads((folder / "input_map.json").read_text())
    assert [[event["tag"] for event in events] for events in data["channels"]] == [[0], [1], [2], [3], [4]]
    assert data["channels"][0] == [{"core": [True, False, False, False], "x_hop": 0, "y_hop": 0, "tag": 0}]
    assert data["note"].startswith("Never loaded by the vendor's tool yet")
    assert data["outputs"][22] == {"tag": 22, "layer": "label", "neuron": 2}


def test_events_are_those_of_the_map_at_their_microseconds(tmp_path):
    times = np.array([[0.003, 0.001], [0.0020004, np.inf], [np.inf, np.inf], [0.001, np.inf], [0.0, np.inf]])
    write_input_events(tmp_path / "events.json", PROGRAM, CHIP, times, start_us=100)
    events = [entry["value0"] for entry in json.loads((tmp_path / "events.json").read_text())["events"]]
    assert [(event["timestamp"], event["event"]["tag"]) for event in events] == [
        (100, 4),
        (1100, 0),
        (1100, 3),
        (2100, 1),
        (3100, 0),
    ]
    assert events[0]["event"] == {
        "core": {"value0": True, "value1": False, "value2": False, "value3": False},
        "xHop": 0,
        "yHop": 0,
        "tag": 4,
    }


@pytest.mark.parametrize(
    "times", [np.zeros((4, 1)), np.full((5, 1), np.nan), np.full((5, 1), -1.0), np.full((5, 1), 5e3)]
)
def test_times_that_cannot_be_sent_are_refused(tmp_path, times):
    with pytest.raises(EventError, match=r"times has shape|32 bits"):
        write_input_events(tmp_path / "events.json", PROGRAM, CHIP, times)
    assert not (tmp_path / "events.json").exists()


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_files(PROGRAM, None, CHIP, tmp_path / "file", Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
