"""Trained networks of other tools in ONNX: values are those of ONNX Runtime; what is not supported is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neurodeploy as nd
from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import Conv2d, Linear
from tests.shared_data import SHARED, needs_shared

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from neurodeploy.conversion.torch_ann import AnnModule  # noqa: E402

RNG = np.random.default_rng(0)


def tensor(name, *shape, values=None):
    array = RNG.normal(0, 0.5, shape).astype(np.float32) if values is None else values
    return numpy_helper.from_array(array, name)


def model(nodes, initializers=(), shape=(2, 9, 9), output="y"):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def write(folder, *args, **kwargs):
    path = folder / "net.onnx"
    onnx.save(model(*args, **kwargs), path)
    return path


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs, [output], name=output, **attributes)


def ours(path, x, **options):
    module = AnnModule(nd.load(path, **options))
    with torch.inference_mode():
        return module(torch.from_numpy(x))[module.output].numpy()


def check(path):
    declared = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1:]
    x = RNG.normal(0, 1, (3, *(axis.dim_value for axis in declared))).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(ours(path, x), expected, rtol=1e-4, atol=1e-4)


W, B = tensor("w", 4, 2, 3, 3), tensor("b", 4)

SUPPORTED = {
    "conv": ([node("Conv", ["x", "w", "b"], pads=[1, 1, 1, 1], strides=[2, 2])], [W, B]),
    "conv-same-upper": ([node("Conv", ["x", "w"], auto_pad="SAME_UPPER")], [W]),
    "conv-same-lower": ([node("Conv", ["x", "w"], auto_pad="SAME_LOWER", strides=[2, 2])], [W]),
    "conv-valid": ([node("Conv", ["x", "w"], auto_pad="VALID", dilations=[2, 2])], [W]),
    "conv-groups": ([node("Conv", ["x", "w"], group=2)], [tensor("w", 4, 1, 3, 3)]),
    "bias-as-add": (
        [node("Conv", ["x", "w"], "c"), node("Add", ["c", "b"])],
        [W, tensor("b", 4, 1, 1)],
    ),
    "bias-twice": (
        [node("Conv", ["x", "w", "b"], "c"), node("Add", ["k", "c"])],
        [W, B, tensor("k", 1, 4, 1, 1)],
    ),
    "norm-relu-pool": (
        [
            node("Conv", ["x", "w"], "c"),
            node("BatchNormalization", ["c", "s", "t", "m", "v"], "n", epsilon=1e-3),
            node("Relu", ["n"], "r"),
            node("AveragePool", ["r"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        [W, tensor("s", 4), tensor("t", 4), tensor("m", 4), tensor("v", values=np.arange(1, 5, dtype=np.float32))],
    ),
    "padded-pool": (
        [node("AveragePool", ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)],
        [],
    ),
    "global-pool-gemm": (
        [
            node("GlobalAveragePool", ["x"], "p"),
            node("Flatten", ["p"], "f"),
            node("Gemm", ["f", "w", "b"], transB=1, alpha=0.5, beta=2.0),
        ],
        [tensor("w", 5, 2), tensor("b", 5)],
    ),
    "reshape-matmul-add": (
        [
            node("Reshape", ["x", "shape"], "f"),
            node("Reshape", ["w3", "wshape"], "w"),
            node("MatMul", ["f", "w"], "m"),
            node("Add", ["m", "b"]),
        ],
        [
            tensor("shape", values=np.array([-1, 162])),
            tensor("w3", 2, 81, 3),
            tensor("wshape", values=np.array([162, 3])),
            tensor("b", 1, 3),
        ],
    ),
    "branches": (
        [
            node("Conv", ["x", "w"], "c"),
            node("Relu", ["c"], "r"),
            node("Conv", ["x", "w2"], "d"),
            node("Relu", ["d"], "q"),
            node("Add", ["r", "q"], "a"),
            node("Identity", ["a"], "i"),
            node("Concat", ["i", "q"], axis=1),
        ],
        [W, tensor("w2", 4, 2, 3, 3)],
    ),
    "constant-nodes": (
        [
            helper.make_node("Constant", [], ["k"], value=tensor("", 3, 2, 4, 2)),
            node("Transpose", ["k"], "w", perm=[2, 3, 0, 1]),
            node("Conv", ["x", "w"], "c"),
            node("Dropout", ["c"]),
        ],
        [],
    ),
    "qdq-weights": (
        [
            node("QuantizeLinear", ["w", "s", "z"], "wq", axis=0),
            node("DequantizeLinear", ["wq", "s", "z"], "wd", axis=0),
            node("Conv", ["x", "wd"]),
        ],
        [W, tensor("s", values=np.full(4, 0.01, np.float32)), tensor("z", values=np.zeros(4, np.int8))],
    ),
    "qdq-signed-without-zero-point": (
        [
            node("QuantizeLinear", ["w", "s"], "wq", output_dtype=TensorProto.INT8),
            node("DequantizeLinear", ["wq", "s"], "wd"),
            node("Conv", ["x", "wd"]),
        ],
        [W, tensor("s", values=np.array(0.01, np.float32))],
    ),
    "constants-added": (
        [node("Add", ["b1", "b2"], "b"), node("Conv", ["x", "w", "b"])],
        [W, tensor("b1", 4), tensor("b2", 4)],
    ),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_values_are_those_of_onnx_runtime(tmp_path, name):
    nodes, initializers = SUPPORTED[name]
    check(write(tmp_path, nodes, initializers))


def test_softmax_at_the_end_and_activation_rounding_are_left_out_with_a_note(tmp_path):
    quantized = tensor("s", values=np.array(0.1, np.float32)), tensor("z", values=np.array(0, np.uint8))
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("MatMul", ["d", "w"], "m"),
        node("Softmax", ["m"]),
    ]
    graph = nd.load(write(tmp_path, nodes, [tensor("w", 6, 3), *quantized], (6,)))
    assert [found.kind for found in graph.nodes.values()] == ["Input", "Linear", "Output"]
    assert "rounding of activations" in graph.notes[0]
    assert "Softmax" in graph.notes[1]


def test_qonnx_quant_on_weights_is_computed(tmp_path):
    quant = helper.make_node(
        "Quant",
        ["w", "s", "z", "bits"],
        ["wq"],
        domain="qonnx.custom_op.general",
        signed=1,
        narrow=1,
        rounding_mode="ROUND",
    )
    constants = [
        tensor("w", values=np.array([[0.26, -3.0], [0.24, 9.0], [0.75, 0.5]], np.float32)),
        tensor("s", values=np.array(0.5, np.float32)),
        tensor("z", values=np.array(0, np.float32)),
        tensor("bits", values=np.array(3, np.float32)),
    ]
    graph = nd.load(write(tmp_path, [quant, node("MatMul", ["x", "wq"])], constants, (3,)))
    linear = graph.nodes["y"]
    assert isinstance(linear, Linear)
    # 3 bits, narrow: -3..3 times 0.5; round half to even
    assert linear.weight.T.tolist() == [[0.5, -1.5], [0.0, 1.5], [1.0, 0.5]]


REFUSED = {
    "max-pool": ([node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2])], []),
    "onnx-node": ([node("Sigmoid", ["x"])], []),
    "onnx-padding": ([node("Conv", ["x", "w"], auto_pad="SAME_UPPER")], [tensor("w", 4, 2, 2, 2)]),
    "onnx-pool": (
        [node("AveragePool", ["x"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])],
        [],
    ),
    "onnx-add": ([node("Relu", ["x"], "r"), node("Add", ["r", "b"])], [tensor("b", 2, 1, 1)]),
    "onnx-reshape": ([node("Reshape", ["x", "s"])], [tensor("s", values=np.array([-1, 9, 18]))]),
    "onnx-concat": ([node("Concat", ["x", "x"], axis=2)], []),
    "onnx-softmax": ([node("Softmax", ["x"], "s"), node("Relu", ["s"])], []),
    "onnx-constant": ([node("Conv", ["x", "x"])], []),
    "onnx-input": ([node("Relu", ["nowhere"])], []),
    "shape": ([node("Conv", ["x", "w"])], [tensor("w", 4, 3, 3, 3)]),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path, code):
    nodes, initializers = REFUSED[code]
    path = write(tmp_path, nodes, initializers)
    with pytest.raises(GraphError) as caught:
        nd.load(path)
    assert caught.value.code == code
    assert str(path) in caught.value.message


MALFORMED = {
    "scale per block": (
        [node("DequantizeLinear", ["q", "s"], "w", axis=0, block_size=4), node("MatMul", ["x", "w"])],
        [tensor("q", values=np.ones((4, 4), np.int8)), tensor("s", 1, 4)],
    ),
    "do not fit Gemm": ([node("Gemm", ["x", "w", "b"])], [tensor("w", 4, 5), tensor("b", 3)]),
}


@pytest.mark.parametrize("text", MALFORMED)
def test_numbers_that_do_not_fit_are_refused_by_node(tmp_path, text):
    path = write(tmp_path, *MALFORMED[text], shape=(4,))
    with pytest.raises(GraphError, match=text) as caught:
        nd.load(path)
    assert str(path) in caught.value.message


def test_max_pool_as_average_is_noted(tmp_path):
    path = write(tmp_path, [node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2])])
    graph = nd.load(path, max_pool="average")
    assert "average over the same windows" in graph.notes[0]
    x = np.ones((1, 2, 9, 9), np.float32)
    assert ours(path, x, max_pool="average").shape == (1, 2, 4, 4)
    with pytest.raises(GraphError, match="max_pool"):
        nd.load(path, max_pool="sometimes")


@needs_shared
@pytest.mark.parametrize("name", ["mnist-cntk", "mnist-sinabs-avgpool"])
def test_published_networks_are_read(name):
    path = SHARED / "onnx-mnist" / f"{name}.onnx"
    graph = nd.load(path, max_pool="average")
    layers = [found for found in graph.nodes.values() if isinstance(found, Conv2d | Linear)]
    assert [layer.bias is not None for layer in layers] == [name == "mnist-cntk"] * len(layers)
    assert len(layers) == (3 if name == "mnist-cntk" else 5)
