"""A network on an analog chip through the pipeline: compiled, saved, read back, emulated; equal to what was trained."""

import json
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
import yaml

import neurodeploy as nd
from neurodeploy.analog.deployment import AnalogDeployment
from neurodeploy.errors import ConfigError, ConstraintError, EmulationError, EventError, MappingError, ProgramError
from neurodeploy.events import make_events
from neurodeploy.events.spike_times import SpikeTimes
from tests.targets.analog.networks import chain, number, often, spikes

UNIT = 5e-3


@pytest.fixture(scope="module")
def on_bss2():
    return nd.compile(chain(), target="bss2")


def trained(reset="once", hidden=20):
    """A stack of layers of spike times, in units of 5 ms."""
    options = {"t_ref": inf} if reset == "once" else {"t_ref": 0.2, "v_reset": -0.1}
    neuron = nd.nn.SpikeTimeNeuron(2.0, 1.0, reset="value", **options)
    spikes_each = 1 if reset == "once" else 32
    torch.manual_seed(0)
    layers = [
        nd.nn.SpikeTimeLinear(a, b, neuron, max_spikes=spikes_each, t_max=6.0) for a, b in ((5, hidden), (hidden, 3))
    ]
    return torch.nn.Sequential(*layers).double()


@pytest.mark.parametrize("reset", ["once", "often"])
def test_the_ideal_chip_is_the_trained_network(reset):
    net = trained(reset)
    deployment = nd.compile(nd.trace(net, torch.full((1, 5, 1), inf).double(), time_unit_s=UNIT), target="ideal")
    times = np.random.default_rng(0).uniform(0, 4, (200, 5, 1))
    hidden = net[0](torch.tensor(times)).detach()
    wanted = {"0": hidden.numpy(), "1": net[1](hidden).detach().numpy()}
    run = deployment.emulate(times * UNIT)
    for layer, found in run.times.items():
        assert np.array_equal(np.isinf(found), np.isinf(wanted[layer]))
        fired = np.isfinite(found)
        assert np.abs(found[fired] - UNIT * wanted[layer][fired]).max() <= 1e-9 * UNIT
        assert fired.sum() > 500
    assert np.array_equal(
        run.answers(), np.where(np.isfinite(wanted["1"]).any((1, 2)), wanted["1"].min(-1).argmin(1), -1)
    )


def test_a_convolution_is_unrolled():
    neuron = nd.nn.SpikeTimeNeuron(torch.tensor([2.0, 3.0]), 1.0, reset="value", t_ref=inf)
    conv = nd.nn.SpikeTimeConv2d(2, 2, 3, neuron, stride=2, padding=1, max_spikes=1, t_max=6.0)
    label = nd.nn.SpikeTimeLinear(
        18, 3, nd.nn.SpikeTimeNeuron(2.0, 1.0, reset="value", t_ref=inf), max_spikes=1, t_max=6.0
    )
    net = torch.nn.Sequential(conv, torch.nn.Flatten(1, 3), label).double()
    graph = nd.trace(net, torch.full((1, 2, 6, 6, 1), inf).double(), time_unit_s=UNIT)
    times = np.random.default_rng(0).uniform(0, 3, (20, 2, 6, 6, 1))
    wanted = UNIT * net(torch.tensor(times)).detach().numpy()
    found = nd.compile(graph, target="ideal").emulate(UNIT * times.reshape(20, 72, 1)).output
    assert np.array_equal(np.isinf(found), np.isinf(wanted))
    fired = np.isfinite(found)
    assert np.abs(found[fired] - wanted[fired]).max() <= 1e-9 * UNIT
    assert nd.compile(graph, target="bss2").report["layers"][0]["circuits_per_neuron"] == 1


def test_rounding_to_6_bits_changes_little(on_bss2):
    ideal = nd.compile(chain(), target="ideal").emulate(spikes(100)).output
    found = on_bss2.emulate(spikes(100)).output
    both = np.isfinite(ideal) & np.isfinite(found)
    assert both.sum() > 50
    assert np.median(np.abs(ideal - found)[both]) < 0.1 * UNIT


def test_times_are_stamped_where_spikes_leave_the_chip(on_bss2):
    assert np.isclose(on_bss2.program.timestamp_lsb_s, 8e-6)
    found = on_bss2.emulate(spikes(50)).output
    steps = found[np.isfinite(found)] / on_bss2.program.timestamp_lsb_s
    assert np.abs(steps - np.rint(steps)).max() < 1e-6


def test_a_folder_gives_the_same_deployment(on_bss2, tmp_path):
    on_bss2.save(tmp_path)
    again = nd.open(tmp_path)
    assert isinstance(again, AnalogDeployment)
    assert again.graph == on_bss2.graph
    assert again.program.to_dict() == on_bss2.program.to_dict()
    assert again.report == json.loads(json.dumps(on_bss2.report))
    for options in ({}, {"serial": 3, "calibration": "residual", "noise": True}):
        first, second = (each.emulate(spikes(), **options).output for each in (on_bss2, again))
        assert first.tobytes() == second.tobytes()
    on_bss2.save(tmp_path)
    assert nd.open(tmp_path).notes == on_bss2.notes


@pytest.mark.parametrize("name", ["graph.onnx", "quantize.json", "compile.json", "deployment.json", "program.json"])
def test_files_of_two_networks_are_not_read_as_one(name, on_bss2, tmp_path):
    on_bss2.save(tmp_path / "a")
    nd.compile(chain((5, 8, 3), neuron=often), target="bss2", settings={"allow_error": True}).save(tmp_path / "b")
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(ProgramError, match="is not what was written"):
        nd.open(tmp_path / "a")


def test_a_changed_description_is_refused(on_bss2, tmp_path):
    on_bss2.save(tmp_path)
    content = json.loads((tmp_path / "compile.json").read_text())
    content["chip_sha256"] = "0" * 64
    (tmp_path / "compile.json").write_text(json.dumps(content))
    stated = json.loads((tmp_path / "deployment.json").read_text())
    stated["compile.json"] = on_bss2.hashes(tmp_path)["compile.json"]
    (tmp_path / "deployment.json").write_text(json.dumps(stated))
    with pytest.raises(ProgramError, match="another description of bss2"):
        nd.open(tmp_path)


def test_a_chip_of_ones_own(tmp_path):
    own = {
        "family": "analog",
        "name": "mine",
        "title": "Mine",
        "weights": {
            "magnitude_bits": {"value": 4, "source": "made up"},
            "levels": {"value": "uniform", "source": "made up"},
            "scale": {"value": "chip", "source": "made up"},
        },
        "fabric": {
            "cores": {"value": 2, "source": "made up"},
            "neurons_per_core": {"value": 16, "source": "made up"},
            "fan_in": {"value": 20, "source": "made up"},
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own))
    deployment = nd.compile(chain(), target=path)
    assert [layer.cores.max() for layer in deployment.program.layers] == [1, 1]
    assert len(np.unique(np.abs(deployment.program.layers[0].nominal.weight))) <= 16
    assert 0 < deployment.report["layers"][0]["weights"]["nrmse"] < 0.2
    deployment.save(tmp_path / "run")
    path.unlink()
    again = nd.open(tmp_path / "run")
    assert again.emulate(spikes()).output.tobytes() == deployment.emulate(spikes()).output.tobytes()
    with pytest.raises(ConstraintError, match=r"at most 20 inputs.*Found: 30 inputs"):
        nd.compile(chain((30, 3)), target=again.own_chip)
    with pytest.raises(ConstraintError, match="there are 32"):
        nd.compile(chain((5, 33)), target=again.own_chip)
    path.write_text(yaml.safe_dump({**own, "parameters": {"tau_mem": {"scope": "core"}}}))
    with pytest.raises(ConfigError, match="mine: the neurons of a core share tau_mem"):
        nd.compile(chain(), target=path)
    joined = {**own["fabric"], "max_merge": {"value": 2, "source": "made up"}}
    path.write_text(yaml.safe_dump({**own, "fabric": joined}))
    with pytest.raises(MappingError, match=r"layer0: 30 inputs .*which are not joined"):
        nd.compile(chain((30, 3)), target=path)


def test_serial_numbers_and_calibration(on_bss2):
    nominal = on_bss2.emulate(spikes(50)).output
    serials = [on_bss2.emulate(spikes(50), serial=number).output for number in (1, 2)]
    calibrated = on_bss2.emulate(spikes(50), serial=1, calibration="residual").output
    assert not np.array_equal(serials[0], serials[1])

    def distance(found):
        both = np.isfinite(found) & np.isfinite(nominal)
        return np.abs(found - nominal)[both].mean()

    assert distance(calibrated) < distance(serials[0])
    chip = on_bss2.virtual_chip(1)
    for same in (chip, np.int64(1)):
        assert on_bss2.emulate(spikes(50), serial=same).output.tobytes() == serials[0].tobytes()
    trims = on_bss2.calibrate(1)
    assert on_bss2.emulate(spikes(50), serial=1, calibration=trims).output.tobytes() == calibrated.tobytes()
    with pytest.raises(ConfigError, match="a calibration belongs to one chip"):
        on_bss2.emulate(spikes(), calibration="residual")
    with pytest.raises(ProgramError, match="another serial number"):
        on_bss2.emulate(spikes(), serial=2, calibration=trims)


def test_noise_is_that_of_the_description(on_bss2):
    noise = on_bss2.trial_noise()
    assert np.isclose(noise.jitter_s, 0.01 * 0.005, rtol=0.01)
    assert noise.threshold_cv == 0.015
    plain, noisy, again, other = (
        on_bss2.emulate(spikes(), noise=on, seed=seed).output
        for on, seed in ((False, 0), (True, 1), (noise, 1), (True, 2))
    )
    assert noisy.tobytes() == again.tobytes()
    assert not np.array_equal(plain, noisy)
    assert not np.array_equal(other, noisy)


def test_a_circuit_has_no_slots():
    """More spikes than the network was trained for are kept: a chip does not count them."""
    deployment = nd.compile(chain((5, 4), max_spikes=1, t_ref=number(0.001)), target="ideal")
    found = deployment.emulate(np.zeros((1, 5, 1)))
    assert found.counts("layer0").max() > 1
    endless = nd.compile(chain((1, 1), matrices=[np.full((1, 1), 1e9)], max_spikes=1, t_ref=None), target="ideal")
    with pytest.raises(EmulationError, match="more than max_spikes=1024"):
        endless.emulate(np.zeros((1, 1, 1)))


def test_spikes_come_as_patterns_or_events(on_bss2):
    times = np.full((1, 5, 2), np.inf)
    times[0, 2] = 0.001, 0.003
    times[0, 4, 0] = 0.002
    events = make_events([1000, 2000, 3000], [0, 0, 0], [0, 0, 0], [2, 4, 2])
    wanted = on_bss2.emulate(times).output.tobytes()
    assert on_bss2.emulate(SpikeTimes(times, np.zeros(1, np.int64))).output.tobytes() == wanted
    assert on_bss2.emulate(events).output.tobytes() == wanted
    with pytest.raises(EventError, match="field p reaches 5"):
        on_bss2.emulate(make_events([0], [0], [0], [5]))
    with pytest.raises(EmulationError, match="5 inputs"):
        on_bss2.emulate(times[:, :3])


def test_answers():
    run = nd.compile(chain(), target="ideal").emulate(spikes(3))
    output = np.full((3, 3, 2), np.inf)
    output[0, 1, 0], output[0, 2] = 0.01, (0.02, 0.03)
    output[1, :2, 0] = 0.01
    run = replace(run, times={**run.times, "layer1": output})
    assert run.answers().tolist() == [1, 0, -1]
    assert run.answers("count").tolist() == [2, 0, -1]
    with pytest.raises(ConfigError, match="decode is 'last'"):
        run.answers("last")


def test_options_of_other_chips_are_refused():
    with pytest.raises(ConfigError, match="v_min, split: bss2 is an analog chip"):
        nd.compile(chain(), target="bss2", v_min=-1.0, split="never")
    with pytest.raises(ConfigError, match="settings: allow: Extra inputs"):
        nd.compile(chain(), target="bss2", settings={"allow": True})
    with pytest.raises(ConfigError, match="takes a graph or the path of one"):
        nd.compile([chain()], target="bss2")


def test_recompiling_keeps_settings(on_bss2):
    allowed = on_bss2.recompile(allow_error=True)
    assert allowed.settings == {"allow_error": True}
    assert allowed.recompile().settings == {"allow_error": True}
    assert allowed.program.to_dict() == on_bss2.program.to_dict()


def test_nir_files_are_read_in_continuous_time(tmp_path, on_bss2):
    nd.save(chain(), tmp_path / "net.nir", tau_unit="ms")
    deployment = nd.compile(tmp_path / "net.nir", target="bss2")
    assert deployment.program.to_dict() == on_bss2.program.to_dict()
