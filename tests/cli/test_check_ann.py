from neurodeploy.graph.file import save_graph
from neurodeploy.graph.nodes import AvgPool2d, Conv2d, Flatten, Linear, Relu
from tests.cli.conftest import chain, weights
from tests.shared_data import SHARED, needs_shared


def check(cli, path, *nodes, shape=(1, 12, 12)):
    save_graph(chain(*nodes, shape=shape), path)
    return cli("check", path), cli("check", path, "--json")


def test_an_ann_is_told_how_to_be_converted(tmp_path, cli):
    layers = [Conv2d(weights(4, 1, 3, 3)), Relu(), AvgPool2d((2, 2), (2, 2)), Flatten(), Linear(weights(3, 100))]
    people, machine = check(cli, tmp_path / "ann.onnx", *layers)
    assert people.code == machine.code == 1
    assert f"neurodeploy convert {tmp_path / 'ann.onnx'} --images" in people.err
    assert "convert-first" in people.err
    assert (machine.json["ann"], machine.json["fits"]) == (True, False)
    assert not [finding for finding in machine.json["findings"] if finding["severity"] == "error"]


def test_what_would_not_fit_after_conversion_is_said_before(tmp_path, cli):
    large = [Conv2d(weights(4, 1, 17, 17)), Relu(), Flatten(), Linear(weights(3, 4 * 64))]
    people, machine = check(cli, tmp_path / "ann.onnx", *large, shape=(1, 24, 24))
    assert people.code == 1
    assert "once converted" in people.err
    assert "kernel" in people.err
    assert machine.json["error"]["code"] == "does-not-fit"


def test_an_ann_that_cannot_be_converted_is_an_error_with_a_remedy(tmp_path, cli):
    odd = [Conv2d(weights(4, 1, 3, 3)), AvgPool2d((2, 2), (2, 2)), Relu(), Flatten(), Linear(weights(3, 100))]
    people, _ = check(cli, tmp_path / "ann.onnx", *odd)
    assert people.code == 2
    assert "put ReLU" in people.err


@needs_shared
def test_the_networks_of_others(cli):
    fits = cli("check", SHARED / "onnx-mnist" / "mnist-sinabs-avgpool.onnx")
    assert (fits.code, "convert-first" in fits.err) == (1, True)
    pooled = cli("check", SHARED / "onnx-mnist" / "mnist-cntk.onnx")
    assert (pooled.code, "--max-pool average --fine-tune 1" in pooled.err) == (2, True)


def test_a_spiking_network_is_no_ann(tmp_path, cli, small_graph):
    save_graph(small_graph, tmp_path / "snn.onnx")
    assert cli("check", tmp_path / "snn.onnx", "--json").json["ann"] is False
