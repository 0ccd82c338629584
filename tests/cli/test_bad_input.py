"""Every bad input gives one clear error with a remedy and the right exit code, and leaves nothing half-written."""

import re

import numpy as np
import pytest

from neurodeploy.events.dataset import save_npz
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import BatchNorm2d, Conv2d, Flatten, Input, Linear, Neuron, Output, SumPool2d
from tests.cli.conftest import chain, neuron, weights


def one_error(result, *words, code=2):
    """The command failed with one message that holds ``words`` and a remedy."""
    assert result.code == code, result
    assert result.err.count("error[") == 1, result.err
    assert "Remedy: " in result.err, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err, f"{word!r} is not in: {result.err}"


def conv(*shape, **options):
    return Conv2d(weights(*shape), **options)


LEAKY = Neuron(np.float32(1), np.float32(-1), decay=np.float32(0.9))
BAD_NETWORKS = {
    "dilation": (chain(conv(4, 2, 3, 3, dilation=(2, 2)), neuron()), ["n0", "dilation"]),
    "groups": (chain(conv(4, 1, 3, 3, groups=2), neuron()), ["n0", "group"]),
    "kernel 17": (chain(conv(2, 2, 17, 17), neuron(), shape=(2, 20, 20)), ["n0", "17", "16"]),
    "kernel not square": (chain(conv(2, 2, 3, 5), neuron()), ["n0", "square"]),
    "stride 3": (chain(conv(2, 2, 3, 3, stride=(3, 3)), neuron()), ["n0", "3", "1, 2, 4"]),
    "padding 8": (chain(conv(2, 2, 16, 16, padding=(8, 8)), neuron()), ["n0", "8", "7"]),
    "pool 3": (chain(conv(2, 2, 1, 1), neuron(), SumPool2d((3, 3), (3, 3)), conv(2, 2, 1, 1), neuron()), ["n0", "3"]),
    "threshold rounds to 0": (chain(conv(2, 2, 3, 3), neuron(threshold=1e-4, v_min=-0.1)), ["n1", "threshold", "0"]),
    "v_min 0": (chain(conv(2, 2, 3, 3), neuron(v_min=0.0)), ["v_min"]),
    "too many channels": (chain(conv(1025, 2, 1, 1), neuron(), shape=(2, 1, 1)), ["n0", "1025", "1024"]),
    "map too large": (chain(conv(2, 2, 3, 3), neuron(), shape=(2, 70, 70)), ["n0", "68", "64"]),
    "memory": (chain(conv(90, 2, 3, 3, padding=(1, 1)), neuron(), shape=(2, 60, 60)), ["n0", "neuron 368640", "65536"]),
    "leaky neuron": (chain(conv(2, 2, 3, 3), LEAKY), ["0.9"]),
    "no neuron": (chain(conv(2, 2, 3, 3)), ["n0", "neuron"]),
    "pool first": (chain(SumPool2d((3, 3), (3, 3)), conv(2, 2, 2, 2), neuron()), ["input", "(3, 3)"]),
}


@pytest.mark.parametrize("verb", ["compile", "check"])
@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_networks_the_chip_cannot_hold(name, verb, tmp_path, cli):
    graph, words = BAD_NETWORKS[name]
    save_graph(graph, tmp_path / "model.onnx")
    if verb == "compile":
        one_error(cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run"), *words)
    else:
        one_error(cli("check", tmp_path / "model.onnx"), *words, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_shapes_that_do_not_fit(tmp_path):
    from neurodeploy.errors import GraphError

    with pytest.raises(GraphError, match=r"n0: the weight .* takes 3 channels, it receives 2.*Remedy"):
        chain(conv(4, 3, 3, 3), neuron())
    with pytest.raises(GraphError, match=r"n1: the weight .*receives \(288,\).*Remedy"):
        chain(Flatten(), Linear(weights(4, 9)), neuron())
    with pytest.raises(GraphError, match=r"n0: normalises 3 channels.*Remedy"):
        chain(BatchNorm2d(*[np.ones(3, np.float32)] * 4))


@pytest.mark.parametrize("name", ["missing.nir", "missing.onnx", "missing.pt", "missing"])
def test_missing_networks(name, tmp_path, cli):
    one_error(cli("compile", tmp_path / name, "-o", tmp_path / "run"), f"{name}: no such file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["nir", "safetensors", "onnx", "pt"])
def test_files_that_are_not_networks(suffix, tmp_path, cli):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"\x89HDF\r\n\x1a\nnot really" * 9)
    one_error(cli("compile", path, "-o", tmp_path / "run"), path.name)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def run_folder(tmp_path, cli, small_graph, recordings):
    save_graph(small_graph, tmp_path / "model.onnx")
    save_npz(tmp_path / "data.npz", recordings)
    assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_an_edited_program_is_refused(run_folder, cli):
    program = run_folder / "program.json"
    text = program.read_text()
    edited = re.sub(r'"threshold_high":(\d+)', lambda found: f'"threshold_high":{int(found[1]) + 1}', text, count=1)
    assert edited != text
    program.write_text(edited)
    data = run_folder.parent / "data.npz"
    one_error(cli("emulate", run_folder, "--events", data, "--index", 0), "program.json", "hash")


FILES = ["program.json", "graph.onnx", "quantized.onnx", "quantize.json", "mapping.json"]


@pytest.mark.parametrize("file", FILES)
def test_damaged_run_folders_are_refused(file, run_folder, cli):
    path = run_folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    one_error(cli("validate", run_folder, "--data", run_folder.parent / "data.npz"), file)
    path.unlink()
    one_error(cli("report", run_folder), file)
    assert not (run_folder / "report.html").exists()


def test_bad_events_are_refused(run_folder, cli, tmp_path):
    t, x = np.array([10, 5], np.int64), np.array([1, 2])
    np.savez(tmp_path / "unsorted.npz", t=t, x=x, y=x, p=x - 1)
    one_error(cli("emulate", run_folder, "--events", tmp_path / "unsorted.npz"), "unsorted.npz", "sort")
    np.savez(tmp_path / "outside.npz", t=t[::-1], x=x + 11, y=x, p=x - 1)
    one_error(cli("emulate", run_folder, "--events", tmp_path / "outside.npz"), "outside.npz", "13", "0..11")
    np.savez(tmp_path / "fields.npz", t=t, x=x)
    one_error(cli("emulate", run_folder, "--events", tmp_path / "fields.npz"), "fields.npz", "p")
    one_error(cli("emulate", run_folder, "--events", tmp_path / "nothing.npz"), "nothing.npz")
    one_error(cli("emulate", run_folder, "--events", tmp_path / "video.aedat4"), "video.aedat4")
    one_error(cli("emulate", run_folder, "--events", tmp_path / "data.npz"), "data.npz", "--index")
    one_error(cli("emulate", run_folder, "--events", tmp_path / "data.npz", "--index", 6), "data.npz", "0..5")
    one_error(cli("validate", run_folder, "--data", tmp_path / "unsorted.npz"), "unsorted.npz")
    assert not (run_folder / "validation.json").exists()


def test_wrong_arguments(tmp_path, cli, small_graph):
    save_graph(small_graph, tmp_path / "model.onnx")
    model = tmp_path / "model.onnx"
    one_error(cli("compile", model, "--target", "loihi2"), "loihi2", "speck2f")
    one_error(cli("compile", model, "--layer2core-map", "zero"), "zero")
    one_error(cli("compile", model, "--layer2core-map", "0,0"), "0")
    one_error(cli("compile", model, "--layer2core-map", "0,9"), "9")
    one_error(cli("compile", model, "--v-min", "bottom"), "bottom")
    one_error(cli("compile", model, "--v-min", "0"), "v_min")
    one_error(cli("compile", model, "--v-min", "nan"), "v_min is", "-threshold")
    one_error(cli("compile", model, "--monitor-layers", "n9"), "n9", "n0")
    one_error(cli("emulate", tmp_path, "--events", "x.npz"), "program.json", "neurodeploy compile")
    one_error(cli("targets", "loihi2"), "loihi2", "speck2f")
    one_error(cli("compile"), "MODEL: is missing")
    one_error(cli("validate", tmp_path, "--data", "x.npz", "--dt-us", 0), "--dt-us", "greater than 0")
    assert cli("frobnicate").code == 2
    assert cli("compile", model, "--frobnicate").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_emulate_refuses_options_without_effect(run_folder, cli, tmp_path):
    for flags in (["--load-out", "l.json"], ["--pj-per-synop", 3], ["--probe", "n0:0,0,0"], ["--out", "spikes.txt"]):
        one_error(cli("emulate", run_folder, "--events", "x.npz", *flags), flags[0])


def test_wrong_yaml(tmp_path, cli):
    path = tmp_path / "options.yaml"
    one_error(cli("compile", "--config", path), "options.yaml")
    path.write_text("model: [")
    one_error(cli("compile", "--config", path), "options.yaml", "YAML")
    path.write_text("[" * 5000)
    one_error(cli("compile", "--config", path), "options.yaml", "YAML")
    path.write_text("- model")
    one_error(cli("compile", "--config", path), "options.yaml", "mapping")
    path.write_text("model: a.nir\ntraget: speck2f\n")
    one_error(cli("compile", "--config", path), "options.yaml", "traget")


def test_errors_are_json_when_asked(tmp_path, cli):
    result = cli("compile", tmp_path / "missing.nir", "--json")
    assert result.code == 2
    assert result.json["error"]["code"]
    assert "missing.nir" in result.json["error"]["message"]


def test_recordings_too_long_for_a_raster(run_folder, cli, tmp_path):
    t, one = np.array([0, 2**60], np.int64), np.array([1, 1])
    np.savez(tmp_path / "long.npz", t=t, x=one, y=one, p=one, offsets=[0, 2], labels=[0])
    one_error(cli("validate", run_folder, "--data", tmp_path / "long.npz"), "long.npz", "dt_us")
    assert cli("validate", run_folder, "--data", tmp_path / "long.npz", "--runs", "event_driven").code == 0


def test_a_network_with_two_outputs_has_no_one_answer(tmp_path, cli, recordings):
    nodes = {"input": Input((2, 12, 12)), "a": conv(3, 2, 3, 3), "an": neuron(), "b": conv(3, 3, 10, 10)}
    nodes |= {"bn": neuron(), "first": Output(), "second": Output()}
    edges = [("input", "a"), ("a", "an"), ("an", "b"), ("b", "bn"), ("an", "first"), ("bn", "second")]
    save_graph(Graph(nodes, tuple(edges)), tmp_path / "model.onnx")
    save_npz(tmp_path / "data.npz", recordings)
    assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
    result = cli("validate", tmp_path / "run", "--data", tmp_path / "data.npz", "--runs", "event_driven")
    one_error(result, "2 outputs", "first, second")
