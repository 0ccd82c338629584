"""The verbs on analog chips: check, compile, emulate, targets; what belongs to other chips is refused."""

import json
import re

import nir
import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.events.spike_times import SpikeTimes, save_spike_times
from tests.targets.analog.networks import chain, cuba, number, spikes


@pytest.fixture
def net(tmp_path):
    nd.save(chain(), tmp_path / "net.nir", tau_unit="ms")
    return tmp_path / "net.nir"


@pytest.fixture
def patterns(tmp_path):
    labels = np.arange(16) % 3
    save_spike_times(tmp_path / "spikes.npz", SpikeTimes(spikes(), labels))
    return tmp_path / "spikes.npz"


@pytest.fixture
def run(cli, net, tmp_path):
    done = cli("compile", net, "--target", "bss2", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_compile_writes_a_run_folder(cli, net, tmp_path):
    done = cli("compile", net, "--target", "bss2", "--out", tmp_path / "run")
    assert done.code == 0
    assert "Parameters of bss2" in done.out
    assert "placement: circuits 23" in done.out
    written = {path.name for path in (tmp_path / "run").iterdir()}
    files = {"graph.onnx", "quantize.json", "program.json", "compile.json", "deployment.json", "compile.yaml"}
    assert files <= written
    assert not {name for name in written if name.startswith(".")}
    assert "choose levels, words and places" in cli("compile", net, "-t", "bss2", "-v", "--out", tmp_path / "run").out
    result = cli("compile", net, "-t", "ideal", "--out", tmp_path / "ideal", "--json").json
    assert result["target"] == "ideal"
    assert [layer["name"] for layer in result["layers"]] == ["layer0", "layer1"]
    assert result["files"] == []
    again = cli("compile", "--config", tmp_path / "run" / "compile.yaml", "--out", tmp_path / "again")
    assert again.code == 0
    assert (tmp_path / "again" / "program.json").read_bytes() == (tmp_path / "run" / "program.json").read_bytes()


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("bss2", ["calib_target.json", "network.nir", "pynn_network.py", "weights.npz"]),
        ("dynapse2", ["config.patch.json", "input_map.json", "load_samna.py"]),
    ],
)
def test_compile_writes_what_the_vendors_tools_take(cli, net, tmp_path, target, files):
    done = cli("compile", net, "--target", target, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"Parameters of {target}" in done.out
    assert "circuits per neuron" in done.out
    assert f"{len(files)} files" in done.out
    assert sorted(path.name for path in (tmp_path / "run" / "files").iterdir()) == files


@pytest.mark.parametrize(("unit", "factor"), [("ms", 1e3), ("s", 1.0)])
def test_the_unit_of_exported_time_constants(cli, net, tmp_path, unit, factor):
    done = cli("compile", net, "--target", "bss2", "--out", tmp_path / "run", "--nir-tau-unit", unit)
    assert done.code == 0, done.err
    stored = nir.read(tmp_path / "run" / "files" / "network.nir", type_check=False)
    (tau_mem, *_) = [node.tau_mem for node in stored.nodes.values() if isinstance(node, nir.CubaLIF)]
    assert np.allclose(tau_mem, 10e-6 * factor, rtol=0.01)  # the chip's own time
    assert f'"tau_unit":"{unit}"' in str(stored.nodes)


def test_what_does_not_fit_leaves_nothing_behind(cli, tmp_path):
    nd.save(chain(reset="subtract", v_reset=None, t_ref=None, drop=number(1)), tmp_path / "soft.onnx")
    done = cli("compile", tmp_path / "soft.onnx", "-t", "bss2", "--out", tmp_path / "run")
    assert done.code == 2
    assert "error[soft-reset]" in done.err
    assert "Remedy" in done.err
    assert not (tmp_path / "run").exists()


def test_check(cli, net, tmp_path):
    assert cli("check", net, "--target", "bss2").code == 0
    nd.save(chain(reset="subtract", v_reset=None, t_ref=None, drop=number(1)), tmp_path / "soft.onnx")
    done = cli("check", tmp_path / "soft.onnx", "--target", "bss2", "--json")
    assert done.code == 1
    assert {finding["code"] for finding in done.json["findings"]} == {"soft-reset"}
    assert not done.json["fits"]
    many = chain((200, 3))
    nd.save(many, tmp_path / "many.onnx")
    assert cli("check", tmp_path / "many.onnx", "--target", "bss2").code == 0
    strict = cli("check", tmp_path / "many.onnx", "--target", "bss2", "--strict")
    assert strict.code == 1
    assert "joined" in strict.err


def test_files_of_other_tools_need_their_unit(cli, tmp_path):
    full = np.ones(3)
    neuron = nir.CubaLIF(
        tau_syn=5 * full, tau_mem=10 * full, r=full, v_leak=0 * full, v_threshold=full, v_reset=0 * full, w_in=5 * full
    )
    nodes = {"input": nir.Input(np.array([2])), "w": nir.Linear(np.ones((3, 2))), "n": neuron}
    nodes["output"] = nir.Output(np.array([3]))
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "output")]))
    wrong = cli("check", tmp_path / "net.nir", "-t", "bss2")
    assert wrong.code == 1
    assert "tau_mem" in wrong.err
    options = ("--tau-unit", "ms", "--t-max", "0.03", "--max-spikes", "4")
    done = cli("compile", tmp_path / "net.nir", "-t", "bss2", "--out", tmp_path / "run", *options)
    assert done.code == 0, done.err
    layer = nd.open(tmp_path / "run").program.layers[0]
    assert layer.max_spikes == 4
    assert np.allclose(layer.nominal.tau_mem, 0.01, rtol=0.01)


def test_emulate_runs_all_patterns_or_one(cli, run, patterns, tmp_path):
    done = cli("emulate", run, "--events", patterns, "--json", "--out", tmp_path / "out.npz")
    assert done.code == 0, done.err
    wanted = nd.open(run).emulate(spikes())
    assert done.json["patterns"] == 16
    assert done.json["answers"] == wanted.answers().tolist()
    assert done.json["accuracy"] == np.mean(wanted.answers() == np.arange(16) % 3)
    with np.load(tmp_path / "out.npz") as stored:
        assert np.array_equal(stored["times1"], wanted.output)
        assert stored["layers"].tolist() == ["layer0", "layer1"]
    one = cli("emulate", run, "--events", patterns, "--index", 3)
    assert "(label: 0)" in one.out


def test_emulate_on_a_chip_with_a_serial_number(cli, run, patterns, tmp_path):
    def answers(*options):
        out = tmp_path / "out.npz"
        done = cli("emulate", run, "--events", patterns, "--json", "--out", out, *options)
        assert done.code == 0, done.err
        with np.load(out) as stored:
            return stored["times1"].tobytes()

    plain, third = answers(), answers("--serial", 3)
    assert plain != third
    assert third == answers("--serial", 3)
    assert answers("--serial", 3, "--calibrate", "residual") not in (plain, third)
    nd.open(run).calibrate(3, "search").save(tmp_path / "trims.json")
    searched = answers("--serial", 3, "--calibration", tmp_path / "trims.json")
    assert searched == answers("--serial", 3, "--calibrate", "search")
    noisy = answers("--serial", 3, "--trial-noise", "--seed", 1)
    assert noisy not in (third, answers("--serial", 3, "--trial-noise", "--seed", 2))
    assert noisy == answers("--serial", 3, "--trial-noise", "--seed", 1, "--threads", 2)


def test_one_pattern_is_the_same_trial_as_among_all(cli, run, patterns, tmp_path):
    found = []
    for options in ((), ("--index", 5)):
        out = tmp_path / "out.npz"
        cli("emulate", run, "--events", patterns, "--serial", 1, "--trial-noise", "--out", out, *options)
        with np.load(out) as stored:
            found.append(stored["times1"])
    assert found[0][5].tobytes() == found[1][0].tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--switch", "interleaving=fifo"), "--switch: .* is for an analog chip"),
        (("--load",), "--load: .* is for an analog chip"),
        (("--work-limit", 10), "--work-limit: .* is for an analog chip"),
        (("--calibrate", "search"), "add --serial NUMBER"),
        (("--index", 16), "16 patterns; index 16 is not among them"),
    ],
)
def test_options_that_mean_nothing_are_refused(cli, run, patterns, arguments, message):
    done = cli("emulate", run, "--events", patterns, *arguments)
    assert done.code == 2
    assert re.search(message, done.err), done.err


def test_other_chips_refuse_options_of_analog_ones(cli, small_graph, net, tmp_path):
    nd.save(small_graph, tmp_path / "cnn.onnx")
    done = cli("compile", tmp_path / "cnn.onnx", "--allow-error", "--out", tmp_path / "run")
    assert done.code == 2
    assert "--allow-error: speck2f is no analog chip" in done.err
    for flags, name in (
        (("--v-min", "lowest"), "v_min"),
        (("--split", "never"), "--split"),
        (("--dt-us", 10), "--dt-us"),
    ):
        done = cli("compile", net, "-t", "bss2", *flags, "--out", tmp_path / "run")
        assert done.code == 2
        assert name in done.err
    cli("compile", tmp_path / "cnn.onnx", "--out", tmp_path / "speck")
    done = cli("emulate", tmp_path / "speck", "--events", tmp_path / "no.npz", "--serial", 1)
    assert "--serial: " in done.err
    done = cli("emulate", tmp_path / "speck", "--events", tmp_path / "no.npz", "--threads", 2)
    assert "--threads: " in done.err
    assert "no analog chip" in done.err


@pytest.mark.parametrize("verb", ["validate", "report", "deploy", "quantize", "map"])
def test_verbs_of_other_chips_say_so(cli, verb, run, net, patterns, tmp_path):
    arguments = {
        "validate": (run, "--data", patterns, "--dt-us", 10),
        "report": (run,),
        "deploy": (run, "--device", "speck2fdevkit:0", "--events", patterns),
        "quantize": (net, "-t", "bss2", "--out", tmp_path / "q"),
        "map": (net, "-t", "bss2", "--out", tmp_path / "q"),
    }
    done = cli(verb, *arguments[verb])
    assert done.code == 2, (done.out, done.err)
    assert "analog" in done.err, done.err


def test_a_digital_network_is_refused_with_a_remedy(cli, small_graph, tmp_path):
    nd.save(small_graph, tmp_path / "cnn.onnx")
    done = cli("check", tmp_path / "cnn.onnx", "-t", "bss2")
    assert done.code == 1
    assert "continuous time" in done.err
    back = cli("check", tmp_path / "cnn.onnx", "-t", "speck2f")
    assert back.code == 0


def test_an_analog_network_is_refused_by_other_chips(cli, net):
    done = cli("check", net, "-t", "speck2f")
    assert done.code == 1
    assert "compile for an analog chip" in json.dumps(cli("check", net, "-t", "speck2f", "--json").json)


def test_targets(cli, net, small_graph, tmp_path):
    listed = cli("targets", "--json").json["targets"]
    assert {entry["name"]: entry["family"] for entry in listed}["bss2"] == "analog"
    one = cli("targets", "bss2")
    assert "soft-reset" in one.out
    assert "HICANN-X" in one.out
    nd.save(small_graph, tmp_path / "cnn.onnx")
    fits = cli("targets", "fit", tmp_path / "cnn.onnx", "--all", "--json").json["targets"]
    by_name = {entry["target"]: entry for entry in fits}
    assert by_name["speck2f"]["fits"]
    assert by_name["bss2"]["code"] == "continuous-time"
    nd.save(chain(neuron=cuba), tmp_path / "cuba.onnx")
    fits = cli("targets", "fit", tmp_path / "cuba.onnx", "--all", "--json").json["targets"]
    assert {entry["target"] for entry in fits if entry["fits"]} >= {"bss2", "ideal"}
