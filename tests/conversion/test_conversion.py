"""ANNs into spiking networks."""

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import neurodeploy as nd  # noqa: E402
from neurodeploy.conversion.balance import LARGEST_SPREAD, activation_scales, ann_layers, spiking_graph  # noqa: E402
from neurodeploy.conversion.images import Coding, EncodedImages, Images  # noqa: E402
from neurodeploy.conversion.latency import LatencyCurve, LatencyPoint  # noqa: E402
from neurodeploy.conversion.picture import curve_picture  # noqa: E402
from neurodeploy.conversion.pooling import pool_into_linear  # noqa: E402
from neurodeploy.conversion.torch_ann import AnnModule, activations, answers  # noqa: E402
from neurodeploy.errors import ConvertError, EventError, GraphError  # noqa: E402
from neurodeploy.graph.file import save_graph  # noqa: E402
from neurodeploy.graph.graph import Graph  # noqa: E402
from neurodeploy.graph.nodes import (  # noqa: E402
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Neuron,
    Output,
    Relu,
)
from tests.cli.command_line import CommandLine  # noqa: E402
from tests.shared_data import SHARED, needs_shared  # noqa: E402


def chain(*nodes, shape=(1, 8, 8)):
    names = ["input", *(f"n{i}" for i in range(len(nodes))), "output"]
    return Graph(dict(zip(names, [Input(shape), *nodes, Output()], strict=True)), tuple(pairwise(names)))


def rng_images(n=16, shape=(1, 8, 8), seed=0):
    rng = np.random.default_rng(seed)
    return Images(rng.random((n, *shape), np.float32), rng.integers(0, 3, n))


def small(seed=0, bias=True):
    rng = np.random.default_rng(seed)

    def array(*shape):
        return rng.normal(0, 0.4, shape).astype(np.float32)

    return chain(
        Conv2d(array(4, 1, 3, 3), array(4) if bias else None, padding=(1, 1)),
        Relu(),
        AvgPool2d((2, 2), (2, 2)),
        Conv2d(array(5, 4, 3, 3), array(5) if bias else None),
        Relu(),
        Flatten(),
        Linear(array(3, 20), array(3) if bias else None),
    )


@pytest.mark.parametrize("per", ["layer", "channel"])
def test_mean_rates_are_the_activations_to_the_last_spike(per):
    """Constant input current, no sign change over time: after T steps a neuron has fired floor(T r a / s) times."""
    rng = np.random.default_rng(1)
    weight = np.abs(rng.normal(0.5, 0.2, (6, 1, 3, 3))).astype(np.float32)
    ann = chain(Conv2d(weight, rng.random(6).astype(np.float32)), Relu(), shape=(1, 3, 3))
    images = rng_images(5, (1, 3, 3))
    graph, layers = ann_layers(ann)
    values = activations(graph, images, ["n1"])
    scales = activation_scales(graph, layers, values, percentile=100, per=per)
    rate, steps = 0.25, 400
    spiking = spiking_graph(graph, layers, scales, {}, input_scale=1.0, spikes_per_step=rate, initial_v=0.0)
    from neurodeploy.graph.torch_writer import to_torch

    current = torch.from_numpy(images.images[:, None] * np.float32(rate)).expand(-1, steps, -1, -1, -1)
    counts = to_torch(spiking).record(current.contiguous())["n1"].sum(1).numpy()
    wanted = steps * rate * values["n1"] / scales["n0"].reshape(1, -1, 1, 1)
    assert np.all(np.abs(counts - (wanted - 0.5)) <= 0.51)  # floor, and float32 sums near whole numbers


def test_more_time_follows_the_ann_better_and_the_report_says_so():
    ann, images = small(), rng_images()
    result = nd.convert(ann, images, coding=Coding(duration_us=256_000))
    assert result.steps[-1] == 256
    for layer in result.layers:
        assert layer.error[-1] < 0.35 * layer.error[1]
        assert layer.rate == pytest.approx(layer.rate_expected, rel=0.15)
    assert result.agreement[-1] >= 0.8
    assert result.accuracy_ann == float(np.mean(answers(ann, images) == images.labels))
    again = nd.convert(ann, images, coding=Coding(duration_us=256_000))
    assert again.to_dict() == result.to_dict()
    assert dict(again.graph.nodes) == dict(result.graph.nodes)


def test_balancing_on_rates_brings_rates_closer():
    ann, images = small(3), rng_images()
    plain = nd.convert(ann, images, coding=Coding(duration_us=60_000))
    rates = nd.convert(ann, images, coding=Coding(duration_us=60_000), balance="rates")

    def distance(result):
        return sum(abs(layer.rate / layer.rate_expected - 1) for layer in result.layers)

    assert distance(rates) < distance(plain)
    assert any(layer.gain != 1 for layer in rates.layers)


def test_a_channel_that_is_hardly_ever_active_does_not_take_the_whole_range():
    weight = np.array([1.0, 1e-3], np.float32).reshape(2, 1, 1, 1)
    ann = chain(Conv2d(weight), Relu(), Conv2d(np.ones((2, 2, 8, 8), np.float32)))
    graph, layers = ann_layers(ann)
    values = activations(graph, rng_images(), ["n1", "n2"])
    scales = activation_scales(graph, layers, values, percentile=99, per="channel")["n0"]
    assert scales[1] == np.percentile(values["n1"], 99) / LARGEST_SPREAD
    assert scales[0] > LARGEST_SPREAD * scales[1] * 0.99


@pytest.mark.parametrize("last", [[], [Relu()], [Relu(), Flatten()]])
def test_the_output_layer_has_one_scale_for_all_classes(last):
    """Otherwise the most spikes were not the largest output; so whether or not a ReLU is behind it."""
    weight = np.array([1.0, 0.8, 0.5], np.float32).reshape(3, 1, 1, 1)
    ann, images = chain(Conv2d(weight), *last, shape=(1, 1, 1)), rng_images(4, (1, 1, 1))
    result = nd.convert(ann, images, per="channel", coding=Coding(max_rate_hz=900.0))
    (layer,) = result.layers
    assert layer.scale_min == layer.scale_max
    assert result.agreement[-1] == 1
    assert np.array_equal(answers(ann, images), np.zeros(4))
    assert result.accuracy_ann == np.mean(images.labels == 0)


@pytest.mark.parametrize("per", ["layer", "channel"])
def test_a_map_and_a_vector_that_are_added_up_share_one_scale(per):
    rng = np.random.default_rng(6)
    nodes = {
        "input": Input((1, 4, 4)),
        "map": Conv2d(rng.random((2, 1, 1, 1), np.float32), stride=(2, 2)),
        "rm": Relu(),
        "flat": Flatten(),
        "pixels": Flatten(),
        "vector": Linear(rng.random((8, 16), np.float32)),
        "rv": Relu(),
        "add": Add(),
        "last": Linear(rng.random((3, 8), np.float32)),
        "output": Output(),
    }
    edges = [("input", "map"), ("map", "rm"), ("rm", "flat"), ("input", "pixels"), ("pixels", "vector")]
    edges += [("vector", "rv"), ("flat", "add"), ("rv", "add"), ("add", "last"), ("last", "output")]
    result = nd.convert(Graph(nodes, tuple(edges)), rng_images(4, (1, 4, 4)), per=per)
    first, second, _ = result.layers
    assert first.scale_min == first.scale_max == second.scale_min == second.scale_max


def test_batch_normalisation_branches_and_joins_keep_the_function():
    """The converted weights, undone by the scales, give the ANN's activations: through BN, Add, Concat and groups."""
    rng = np.random.default_rng(2)

    def array(*shape):
        return rng.normal(0, 0.5, shape).astype(np.float32)

    nodes = {
        "input": Input((2, 4, 4)),
        "a": Conv2d(array(4, 2, 3, 3), padding=(1, 1)),
        "bn": BatchNorm2d(array(4), np.abs(array(4)) + 1, array(4), array(4)),
        "ra": Relu(),
        "b": Conv2d(array(4, 2, 1, 1), array(4)),
        "rb": Relu(),
        "add": Add(),
        "again": Relu(),
        "cat": Concat(),
        "c": Conv2d(array(6, 4, 3, 3), array(6), groups=2),
        "rc": Relu(),
        "flat": Flatten(),
        "d": Linear(array(3, 24), array(3)),
        "output": Output(),
    }
    edges = [("input", "a"), ("a", "bn"), ("bn", "ra"), ("input", "b"), ("b", "rb"), ("ra", "add"), ("rb", "add")]
    edges += [("add", "again"), ("again", "cat"), ("rb", "cat"), ("cat", "c"), ("c", "rc"), ("rc", "flat")]
    edges += [("flat", "d"), ("d", "output")]
    ann = Graph(nodes, tuple(edges))
    images = rng_images(8, (2, 4, 4))
    graph, layers = ann_layers(ann)
    assert "again" not in graph.nodes
    assert any("again" in note for note in graph.notes)
    before = activations(ann, images, ["d"])["d"]
    values = activations(graph, images, [units.value for units in layers])
    np.testing.assert_allclose(values["d"], before, rtol=1e-4, atol=1e-5)
    scales = activation_scales(graph, layers, values, percentile=99.9, per="channel")
    assert np.array_equal(scales["a"], scales["b"])
    spiking = spiking_graph(graph, layers, scales, {}, input_scale=3.0, spikes_per_step=1.0, initial_v=0.0)
    back = Graph(
        {
            name: Relu() if isinstance(node, Neuron) and name != "d.neurons" else node
            for name, node in spiking.nodes.items()
            if name != "d.neurons"
        },
        tuple((a if a != "d.neurons" else "d", b) for a, b in spiking.edges if b != "d.neurons"),
    )
    third = Images(images.images / 3, images.labels)
    unscaled = activations(back, third, ["d", "rc"])
    np.testing.assert_allclose(unscaled["d"] * scales["d"], before, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(unscaled["rc"] * scales["c"].reshape(1, -1, 1, 1), values["rc"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "pool", [AvgPool2d((3, 3), (3, 3)), AvgPool2d((3, 2), (1, 2)), AvgPool2d((3, 3), (2, 2), (1, 1))]
)
def test_a_pool_moves_into_the_linear_layer_behind_it(pool):
    shape = (2, 7, 9)
    pooled = pool.output_shape("pool", [shape])
    rng = np.random.default_rng(4)
    weight = rng.normal(0, 1, (3, int(np.prod(pooled)))).astype(np.float32)
    ann = chain(pool, Flatten(), Linear(weight), shape=shape)
    merged = pool_into_linear(ann)
    assert [node.kind for node in merged.nodes.values()] == ["Input", "Flatten", "Linear", "Output"]
    images = rng_images(6, shape)
    np.testing.assert_allclose(
        activations(merged, images, ["n2"])["n2"], activations(ann, images, ["n2"])["n2"], rtol=1e-4, atol=1e-5
    )
    plain = chain(AvgPool2d((2, 2), (2, 2)), Flatten(), Linear(np.ones((2, 24), np.float32)), shape=(2, 6, 8))
    assert pool_into_linear(plain) is plain


def test_training_on_changes_only_weights_and_is_repeatable():
    ann = small()
    rng = np.random.default_rng(5)
    images = 0.3 * rng.random((200, 1, 8, 8)).astype(np.float32)
    labels = rng.integers(0, 3, 200)
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label : 2 * label + 3] += 0.6
    data = Images(images, labels)
    tuned = nd.fine_tune(ann, data, epochs=4, learning_rate=0.01)
    assert np.mean(answers(tuned, data) == labels) > np.mean(answers(ann, data) == labels) + 0.2
    assert [node.kind for node in tuned.nodes.values()] == [node.kind for node in ann.nodes.values()]
    assert dict(nd.fine_tune(ann, data, epochs=4, learning_rate=0.01).nodes) == dict(tuned.nodes)
    bare = nd.fine_tune(ann, data, bias=False)
    assert all(node.bias is None for node in bare.nodes.values() if isinstance(node, Conv2d | Linear))
    assert any("biases removed" in note for note in bare.notes)


def test_the_event_driven_curve_ends_where_the_whole_recording_does():
    ann, images = small(bias=False), rng_images()
    result = nd.convert(ann, images, coding=Coding(duration_us=64_000))
    deployment = nd.compile(result.graph)
    recordings = EncodedImages(images, result.coding)
    curve = nd.latency_curve(deployment, recordings, [8_000, 64_000])
    whole = [deployment.emulate(recordings[i][0], record=()) for i in range(len(images))]
    assert curve.points[-1].synops == np.mean([run.stats["synops"] for run in whole])
    answers_ = [run.counts(deployment.program.layers[-1]).argmax() for run in whole]
    assert curve.points[-1].accuracy == np.mean(np.array(answers_) == images.labels)
    assert curve.points[0].synops < curve.points[-1].synops
    assert nd.latency_curve(deployment, recordings, [8_000, 64_000], threads=3) == curve


def test_the_curve_of_wrong_answers_begins_at_zero():
    points = (LatencyPoint(1000, 0.0, 1.0, 1.0), LatencyPoint(2000, 0.25, 2.0, 2.0))
    picture = curve_picture(LatencyCurve(points, 4, "images", "chip"), 0.5)
    assert ">0%<" in picture
    assert ">-" not in picture


def test_what_cannot_be_converted_is_refused_by_name():
    rng = np.random.default_rng(0)
    conv = Conv2d(rng.normal(0, 1, (2, 1, 3, 3)).astype(np.float32))
    images = rng_images()
    cases = [
        (chain(conv, AvgPool2d((2, 2), (2, 2)), Relu()), "no-relu"),
        (chain(conv, Neuron(np.array(1, np.float32))), "not-an-ann"),
        (chain(Flatten()), "empty"),
        (chain(conv, Relu(), AvgPool2d((6, 6), (6, 6)), Flatten()), "output"),
    ]
    for graph, code in cases:
        with pytest.raises(ConvertError) as caught:
            nd.convert(graph, images)
        assert caught.value.code == code
    with pytest.raises(ConvertError, match="does not belong"):
        AnnModule(chain(conv, Neuron(np.array(1, np.float32))))
    for wrong in ({"balance": "best"}, {"initial_v": 1.0}, {"percentile": 0.0}, {"per": "neuron"}, {"input_scale": 0}):
        with pytest.raises(ConvertError):
            nd.convert(small(), images, **wrong)
    with pytest.raises(ConvertError, match="images of"):
        nd.convert(small(), rng_images(shape=(1, 9, 9)))
    for times in ({"duration_us": 0}, {"dt_us": 0}, {"dt_us": -1, "code": "latency"}):
        with pytest.raises(EventError, match="steps of"):
            Coding(**times)
    for pixels, labels in (
        (np.full((2, 1, 4, 4), 2.0), [0, 1]),
        (np.zeros((2, 4, 4)), [0]),
        (np.zeros((2, 4)), [0, 1]),
    ):
        with pytest.raises(EventError):
            Images(pixels, np.array(labels))


MNIST = SHARED / "mnist-20k"


def test_images_that_the_network_cannot_take_are_refused():
    images = rng_images()
    with pytest.raises(ConvertError, match=r"labels are 3\.\.18, the network has 3 outputs") as info:
        nd.convert(small(), Images(images.images, np.arange(3, 19)))
    assert info.value.code == "images-labels"
    with pytest.raises(ConvertError, match=r"takes \(1, 8, 8\)"):
        nd.convert(small(), rng_images(shape=(1, 6, 6)))


def test_silent_layers_are_a_note():
    dark = Images(np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64))
    graph = nd.convert(small(bias=False), dark, coding=Coding(duration_us=2000)).graph
    assert any("n0, n3, n6" in note for note in graph.notes)


def test_test_images_of_another_size_stop_the_verb_before_anything_is_written(tmp_path, monkeypatch, capsys):
    save_graph(small(), tmp_path / "ann.onnx")
    for name, side in (("train", 8), ("test", 6)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((4, side, side), np.uint8), labels=np.zeros(4, np.int64))
    files = ["--images", tmp_path / "train.npz", "--test-images", tmp_path / "test.npz"]
    result = CommandLine(monkeypatch, capsys)("convert", tmp_path / "ann.onnx", *files, "-o", tmp_path / "out")
    assert (result.code, "error[images-shape]" in result.err) == (2, True)
    assert not (tmp_path / "out").exists()


def mnist(part, n):
    whole = nd.load_images(MNIST / f"{part}-images-idx3-ubyte.gz", MNIST / f"{part}-labels-idx1-ubyte.gz")
    return whole[:n]


@needs_shared
def test_published_network_keeps_its_accuracy_on_the_chip():
    ann = nd.load(SHARED / "onnx-mnist" / "mnist-sinabs-avgpool.onnx")
    test = mnist("t10k", 300)
    result = nd.convert(ann, mnist("train10k", 64), coding=Coding(duration_us=50_000))
    deployment = nd.compile(result.graph)
    curve = nd.latency_curve(deployment, EncodedImages(test, result.coding), [50_000])
    assert curve.points[0].accuracy >= np.mean(answers(ann, test) == test.labels) - 0.01


@needs_shared
def test_max_pool_is_diagnosed_and_the_remedy_deploys():
    path = SHARED / "onnx-mnist" / "mnist-cntk.onnx"
    with pytest.raises(GraphError) as caught:
        nd.load(path)
    assert caught.value.code == "max-pool"
    assert 'max_pool="average"' in caught.value.remedy
    ann = nd.fine_tune(nd.load(path, max_pool="average"), mnist("train10k", 3000), input_scale=255, bias=False)
    test = mnist("t10k", 300)
    result = nd.convert(ann, mnist("train10k", 64), coding=Coding(duration_us=50_000), input_scale=255)
    deployment = nd.compile(result.graph)
    curve = nd.latency_curve(deployment, EncodedImages(test, result.coding), [50_000])
    assert curve.points[0].accuracy >= 0.97
