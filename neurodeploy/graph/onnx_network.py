"""Trained feed-forward networks in ``.onnx`` into an ANN graph: Relu where a spiking network has neurons."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Node,
    Output,
    Pair,
    Relu,
    Shape,
)

Constant = NDArray[Any]
Attributes = Mapping[str, Any]
MaxPool = Literal["refuse", "average"]

MAX_POOL_REMEDY = (
    'replace it by average pooling and train on: graph = nd.load("{path}", max_pool="average"); '
    "graph = nd.fine_tune(graph, images, labels, epochs=1)  "
    "(on the command line: neurodeploy convert {path} --max-pool average --fine-tune 1 ...)."
)


def read_onnx_network(path: str | Path, model: onnx.ModelProto, *, max_pool: MaxPool = "refuse") -> Graph:
    """Read a network of Conv, Gemm, MatMul, Add, Relu, pooling and normalisation, as the usual exporters write it.

    Understood: Conv (2-D; ``auto_pad`` where the padding is symmetric), Gemm, MatMul and Add with constants (an Add
    behind a layer is its bias), Relu, AveragePool, GlobalAveragePool, BatchNormalization, Flatten, Reshape to a vector,
    Dropout, Identity, Add and Concat of branches, Constant, Identity, Add, Reshape and Transpose of constants,
    QuantizeLinear / DequantizeLinear (one scale, or one per channel) and QONNX ``Quant`` on weights (the dequantized
    values are taken) and on activations (left out, with a note). A Softmax at the end is left out with a note.

    Args:
        path: for messages.
        model: the file's content.
        max_pool: what to do with MaxPool, which no spiking chip has: "refuse" it, or read it as the "average" over the
            same windows, with a note; the network must be trained on after that.

    Returns:
        A graph of Conv2d, Linear, Relu, AvgPool2d, BatchNorm2d, Flatten, Add and Concat nodes, float32.

    Raises:
        GraphError: a node is not supported, or used in a way the graph cannot hold; the message names it and the
            remedy.
    """
    if max_pool not in ("refuse", "average"):
        raise GraphError(f"max_pool is {max_pool!r}.", remedy="choose 'refuse' or 'average'.", code="option")
    return _Reader(Path(path), model, max_pool).read()


class _Reader:
    """One pass over the nodes in file order (ONNX requires topological order)."""

    def __init__(self, path: Path, model: onnx.ModelProto, max_pool: MaxPool) -> None:
        self.path = path
        self.model = model
        self.max_pool = max_pool
        self.constants: dict[str, Constant] = {}
        self.values: dict[str, str] = {}  # tensor -> the node that makes it
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.shapes: dict[str, Shape] = {}
        self.notes: dict[str, list[str]] = {}
        self.uses: dict[str, int] = {}

    def read(self) -> Graph:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.constants[tensor.name] = self._array(tensor)
        for node in graph.node:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1
        for value in graph.output:
            self.uses[value.name] = self.uses.get(value.name, 0) + 1
        inputs = [value for value in graph.input if value.name not in self.constants]
        for value in inputs:
            shape = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)[1:]
            if len(shape) not in (1, 3) or min(shape, default=0) < 1:
                raise self._error(
                    value.name,
                    f"the input has shape {('N', *shape)}; the axes after the batch must be known and be (C, H, W) or "
                    "(N,).",
                    "export the network with a fixed image size, channels first.",
                    "input-shape",
                )
            self._define(self._free(value.name), Input(shape), [], value.name)
        for node in graph.node:
            self._node(node)
        for value in graph.output:
            if value.name not in self.values:
                raise self._error(value.name, "this output does not depend on the input.", "remove it.", "output")
            self._define(self._free("output"), Output(), [value.name], f"{value.name} (output)")
        try:
            return Graph(
                self.nodes,
                tuple(self.edges),
                tuple(f"{text}: {', '.join(of)}." for text, of in self.notes.items()),
            )
        except GraphError as error:
            raise GraphError(f"{self.path}: {error.message}", remedy=error.remedy, code=error.code) from error

    # one node

    def _node(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.type != a.UNDEFINED}
        fold = _FOLDED.get(node.op_type)
        if fold and all(name in self.constants for name in node.input if name):
            try:
                result = fold([self.constants[name] for name in node.input if name], attributes)
            except (ValueError, IndexError, TypeError, KeyError) as error:
                raise self._error(
                    self._name(node), f"cannot be computed: {error}.", "export the network again.", "constant"
                ) from error
            self.constants[node.output[0]] = result
            return
        read = _READERS.get(node.op_type)
        if read is None:
            supported = ", ".join(sorted(_READERS))
            raise self._error(
                self._name(node),
                f"{node.op_type}{f' of domain {node.domain}' if node.domain else ''} is not supported.",
                f"use {supported}; or build the network in torch and use nd.trace.",
                "onnx-node",
            )
        try:
            read(self, node, attributes)
        except (ValueError, IndexError, TypeError, KeyError) as error:
            raise self._error(
                self._name(node),
                f"its attributes or constants do not fit {node.op_type}: {error}.",
                "check the file with onnx.checker.check_model.",
                "onnx-node",
            ) from error

    def conv(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        weight = self._constant(node, 1, "the weight")
        bias = self._constant(node, 2, "the bias") if len(node.input) > 2 and node.input[2] else None
        if weight.ndim != 4:
            raise self._error(
                self._name(node),
                f"a convolution in {weight.ndim - 2} dimensions (weight {weight.shape}).",
                "only 2-D convolutions can be deployed.",
                "conv-dimensions",
            )
        kernel = _pair(attributes.get("kernel_shape", weight.shape[2:]))
        stride, dilation = _pair(attributes.get("strides", (1, 1))), _pair(attributes.get("dilations", (1, 1)))
        window = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        self._define(
            self._name(node),
            Conv2d(
                _float32(weight),
                None if bias is None else _float32(bias),
                stride=stride,
                padding=self._padding(node, attributes, (window[0], window[1]), stride),
                dilation=dilation,
                groups=int(attributes.get("group", 1)),
            ),
            [node.input[0]],
            node.output[0],
        )

    def gemm(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        weight = self._constant(node, 1, "the weight")
        if attributes.get("transA", 0):
            raise self._error(self._name(node), "Gemm with transA.", "export it with transA=0.", "gemm")
        weight = (weight if attributes.get("transB", 0) else weight.T) * attributes.get("alpha", 1.0)
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = self._constant(node, 2, "the bias") * attributes.get("beta", 1.0)
            bias = np.broadcast_to(bias, (1, weight.shape[0])).ravel()
        self._linear(node, weight, bias)

    def matmul(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        self._linear(node, self._constant(node, 1, "the weight").T, None)

    def add(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        constant = [name for name in node.input if name in self.constants]
        if not constant:
            self._define(self._name(node), Add(), list(node.input), node.output[0])
            return
        (source,) = (name for name in node.input if name not in self.constants)
        name = self._source(node, source)
        before, shape = self.nodes[name], self.shapes[name]
        values = self.constants[constant[0]]
        if not isinstance(before, Conv2d | Linear) or self.uses[source] > 1:
            raise self._error(
                self._name(node),
                f"adds a constant to {name} ({before.kind}), which is not a layer that this Add alone follows.",
                "add constants right behind a convolution or a fully connected layer, as its bias.",
                "onnx-add",
            )
        try:
            per_output = np.broadcast_to(values, (1, *shape)).reshape(shape[0], -1)
        except ValueError:
            per_output = np.zeros((0, 0))
        if not per_output.size or (per_output != per_output[:, :1]).any():
            raise self._error(
                self._name(node),
                f"adds a constant of shape {values.shape} to {name}, whose outputs have shape {shape}; that is not one "
                "number per output channel.",
                "use a bias per channel.",
                "onnx-add",
            )
        bias = per_output[:, 0] if before.bias is None else before.bias + per_output[:, 0]
        self.nodes[name] = replace(before, bias=_float32(bias))
        self.values[node.output[0]] = name

    def relu(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        self._define(self._name(node), Relu(), [node.input[0]], node.output[0])

    def average_pool(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        kernel = _pair(attributes.get("kernel_shape", ()))
        stride = _pair(attributes.get("strides", (1, 1)))
        padding = self._padding(node, attributes, kernel, stride)
        if any(padding) and not attributes.get("count_include_pad", 0):
            raise self._error(
                self._name(node),
                f"averages over the pixels inside the map only (padding {padding}, count_include_pad 0).",
                "use count_include_pad=1, or pooling without padding.",
                "onnx-pool",
            )
        if _pair(attributes.get("dilations", (1, 1))) != (1, 1):
            raise self._error(self._name(node), "pooling with dilation.", "use pooling without dilation.", "onnx-pool")
        shape = self.shapes[self._source(node, node.input[0])]
        if attributes.get("ceil_mode", 0) and any(
            (size + 2 * p - k) % s for size, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True)
        ):
            raise self._error(
                self._name(node),
                f"ceil_mode=1 makes a window that reaches over the edge of the map {shape}.",
                "use ceil_mode=0.",
                "onnx-pool",
            )
        self._define(self._name(node), AvgPool2d(kernel, stride, padding), [node.input[0]], node.output[0])

    def max_pool_(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        if self.max_pool == "refuse":
            raise self._error(
                self._name(node),
                "MaxPool takes the maximum over spikes of many time steps, which neither neurons nor chips can.",
                MAX_POOL_REMEDY.format(path=self.path),
                "max-pool",
            )
        self._note("MaxPool read as the average over the same windows; train the network on", self._name(node))
        self.average_pool(node, {**attributes, "count_include_pad": 1})

    def global_average_pool(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        shape = self.shapes[self._source(node, node.input[0])]
        kernel = _pair(shape[1:])
        self._define(self._name(node), AvgPool2d(kernel, kernel), [node.input[0]], node.output[0])

    def batch_normalization(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        if attributes.get("training_mode", 0):
            raise self._error(self._name(node), "is in training mode.", "export with model.eval().", "batch-norm")
        names = ("the scale", "the shift", "the mean", "the variance")
        scale, shift, mean, variance = (
            _float32(self._constant(node, index, name)) for index, name in enumerate(names, start=1)
        )
        self._define(
            self._name(node),
            BatchNorm2d(mean, variance, scale, shift, float(attributes.get("epsilon", 1e-5))),
            [node.input[0]],
            node.output[0],
        )

    def flatten(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        if attributes.get("axis", 1) != 1:
            raise self._error(self._name(node), f"axis {attributes['axis']}.", "flatten from axis 1.", "onnx-flatten")
        self._flat(node)

    def reshape(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        target = [int(size) for size in self._constant(node, 1, "the shape")]
        shape = self.shapes[self._source(node, node.input[0])]
        size = prod(shape)
        if len(target) == 1 + len(shape) and tuple(target[1:]) == shape:
            self._same(node)
        elif len(target) == 2 and (target[1] == size or (target[1] == -1 and target[0] in (0, 1))):
            self._flat(node)
        else:
            raise self._error(
                self._name(node),
                f"reshapes {('N', *shape)} to {tuple(target)}.",
                "only flattening whole maps, (N, C, H, W) to (N, C * H * W), can be represented.",
                "onnx-reshape",
            )

    def concat(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        if attributes.get("axis") not in (1, -3):
            raise self._error(
                self._name(node),
                f"joins along axis {attributes.get('axis')}.",
                "join branches along the channels, axis 1.",
                "onnx-concat",
            )
        self._define(self._name(node), Concat(), list(node.input), node.output[0])

    def nothing(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        self._note("computes nothing at inference and is dropped", self._name(node))
        self._same(node)

    def softmax(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        if node.output[0] not in {value.name for value in self.model.graph.output}:
            raise self._error(
                self._name(node),
                f"{node.op_type} in the middle of the network.",
                "only at the end of the network, where it does not change the answer.",
                "onnx-softmax",
            )
        self._note(f"{node.op_type} at the end does not change the answer and is dropped", self._name(node))
        self._same(node)

    def activation_quantization(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        self._note(
            "rounding of activations is left out (spikes have their own, and weights get the chip's)", self._name(node)
        )
        self._same(node)

    # what they share

    def _linear(self, node: onnx.NodeProto, weight: Constant, bias: Constant | None) -> None:
        if weight.ndim != 2:
            raise self._error(
                self._name(node),
                f"multiplies by a constant of {weight.ndim} dimensions.",
                "use a matrix [in, out].",
                "onnx-matmul",
            )
        self._define(
            self._name(node),
            Linear(_float32(weight), None if bias is None else _float32(bias)),
            [node.input[0]],
            node.output[0],
        )

    def _flat(self, node: onnx.NodeProto) -> None:
        if len(self.shapes[self._source(node, node.input[0])]) == 1:
            self._same(node)
        else:
            self._define(self._name(node), Flatten(), [node.input[0]], node.output[0])

    def _same(self, node: onnx.NodeProto) -> None:
        self.values[node.output[0]] = self._source(node, node.input[0])
        self.uses[node.output[0]] = max(self.uses.get(node.output[0], 0), self.uses[node.input[0]])

    def _padding(self, node: onnx.NodeProto, attributes: Attributes, window: Pair, stride: Pair) -> Pair:
        """(y, x), the same on both sides."""
        auto = attributes.get("auto_pad", b"NOTSET").decode()
        if auto == "NOTSET":
            top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        elif auto == "VALID":
            top = left = bottom = right = 0
        else:
            shape = self.shapes[self._source(node, node.input[0])]
            total = [
                max((-(-size // step) - 1) * step + w - size, 0)
                for size, step, w in zip(shape[1:], stride, window, strict=True)
            ]
            smaller, larger = [t // 2 for t in total], [t - t // 2 for t in total]
            first, last = (smaller, larger) if auto == "SAME_UPPER" else (larger, smaller)
            (top, left), (bottom, right) = first, last
        if (top, left) != (bottom, right):
            raise self._error(
                self._name(node),
                f"pads {top} rows above and {bottom} below, {left} columns left and {right} right.",
                "use padding that is the same on both sides (an odd kernel, or explicit pads).",
                "onnx-padding",
            )
        return int(top), int(left)

    def _constant(self, node: onnx.NodeProto, index: int, what: str) -> Constant:
        name = node.input[index] if index < len(node.input) else ""
        if name not in self.constants:
            raise self._error(
                self._name(node),
                f"{what} ({name!r}) is computed from the input, or missing.",
                "export the network with its trained weights as constants.",
                "onnx-constant",
            )
        return self.constants[name]

    def _source(self, node: onnx.NodeProto, tensor: str) -> str:
        if tensor not in self.values:
            raise self._error(
                self._name(node),
                f"its input {tensor!r} comes from nowhere the network's input reaches.",
                "check the file with onnx.checker.check_model.",
                "onnx-input",
            )
        return self.values[tensor]

    def _define(self, name: str, node: Node, inputs: Iterable[str], output: str) -> None:
        sources = [self.values.get(tensor, "") for tensor in inputs]
        if "" in sources:
            raise self._error(
                name,
                "an input comes from nowhere the network's input reaches.",
                "check the file with onnx.checker.check_model.",
                "onnx-input",
            )
        try:
            shape = node.output_shape(name, [self.shapes[source] for source in sources])
        except GraphError as error:
            raise GraphError(f"{self.path}: {error.message}", remedy=error.remedy, code=error.code) from error
        self.nodes[name] = node
        self.shapes[name] = shape
        self.values[output] = name
        self.edges += [(source, name) for source in sources]

    def _array(self, tensor: onnx.TensorProto) -> Constant:
        try:
            return numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(tensor.name, f"cannot be read: {error}.", "export the network again.", "onnx") from error

    def _name(self, node: onnx.NodeProto) -> str:
        name = node.name or node.output[0]
        return name if name not in self.nodes else self._free(name)

    def _free(self, name: str) -> str:
        taken = {*self.nodes, *(node.name for node in self.model.graph.node)}
        return next(
            option for option in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if option not in taken
        )

    def _note(self, text: str, name: str) -> None:
        self.notes.setdefault(text, []).append(name)

    def _error(self, where: str, text: str, remedy: str, code: str) -> GraphError:
        return GraphError(f"{self.path}: {where}: {text}", remedy=remedy, code=code)


_READERS: Mapping[str, Callable[[_Reader, onnx.NodeProto, Attributes], None]] = {
    "Add": _Reader.add,
    "AveragePool": _Reader.average_pool,
    "BatchNormalization": _Reader.batch_normalization,
    "Concat": _Reader.concat,
    "Conv": _Reader.conv,
    "DequantizeLinear": _Reader.activation_quantization,
    "Dropout": _Reader.nothing,
    "Flatten": _Reader.flatten,
    "Gemm": _Reader.gemm,
    "GlobalAveragePool": _Reader.global_average_pool,
    "Identity": _Reader.nothing,
    "LogSoftmax": _Reader.softmax,
    "MatMul": _Reader.matmul,
    "MaxPool": _Reader.max_pool_,
    "Quant": _Reader.activation_quantization,
    "QuantizeLinear": _Reader.activation_quantization,
    "Relu": _Reader.relu,
    "Reshape": _Reader.reshape,
    "Softmax": _Reader.softmax,
}


def _fold_reshape(inputs: list[Constant], attributes: Attributes) -> Constant:
    data, shape = inputs
    return data.reshape([data.shape[i] if size == 0 else int(size) for i, size in enumerate(shape)])


def _fold_constant(inputs: list[Constant], attributes: Attributes) -> Constant:
    if "value" in attributes:
        return np.asarray(numpy_helper.to_array(attributes["value"]))
    (value,) = attributes.values()
    return np.asarray(value)


def _fold_dequantize(inputs: list[Constant], attributes: Attributes) -> Constant:
    values, scale, offset = _along_axis(inputs, attributes)
    return (values.astype(np.float32) - offset.astype(np.float32)) * scale


def _fold_quantize(inputs: list[Constant], attributes: Attributes) -> Constant:
    values, scale, offset = _along_axis(inputs, attributes)
    limits = np.iinfo(offset.dtype)
    rounded = np.rint(values / scale) + offset.astype(np.float64)
    result: Constant = np.clip(rounded, limits.min, limits.max).astype(offset.dtype)
    return result


def _along_axis(inputs: list[Constant], attributes: Attributes) -> tuple[Constant, Constant, Constant]:
    """Values, scale and zero point (0 where there is none), the last two shaped to go along their axis."""
    values, scale, *zero = inputs
    if attributes.get("block_size", 0):
        raise ValueError("it has a scale per block; one scale, or one per channel, is read")
    stored = onnx.helper.tensor_dtype_to_np_dtype(attributes.get("output_dtype", 0) or onnx.TensorProto.UINT8)
    offset = zero[0] if zero else np.zeros((), stored)
    shape = [1] * values.ndim
    if scale.ndim:
        shape[attributes.get("axis", 1)] = -1
    return values, scale.reshape(shape if scale.ndim else ()), offset.reshape(shape if offset.ndim else ())


def _fold_quant(inputs: list[Constant], attributes: Attributes) -> Constant:
    """QONNX: ``scale * (clip(round(x / scale + zero)) - zero)``."""
    values, scale, zero, bits = inputs
    if attributes.get("rounding_mode", b"ROUND").upper() not in (b"ROUND", b"HALF_EVEN"):
        raise ValueError(f"rounding mode {attributes['rounding_mode'].decode()}")
    width = int(bits.item())
    if attributes.get("signed", 1):
        low, high = -(2 ** (width - 1)) + int(attributes.get("narrow", 0)), 2 ** (width - 1) - 1
    else:
        low, high = 0, 2**width - 1 - int(attributes.get("narrow", 0))
    result: Constant = scale * (np.clip(np.rint(values / scale + zero), low, high) - zero)
    return result


_FOLDED: Mapping[str, Callable[[list[Constant], Attributes], Constant]] = {
    "Add": lambda inputs, attributes: np.asarray(inputs[0] + inputs[1]),
    "Constant": _fold_constant,
    "DequantizeLinear": _fold_dequantize,
    "Identity": lambda inputs, attributes: inputs[0],
    "Quant": _fold_quant,
    "QuantizeLinear": _fold_quantize,
    "Reshape": _fold_reshape,
    "Transpose": lambda inputs, attributes: np.transpose(inputs[0], attributes.get("perm")),
}


def _float32(values: Constant) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


def _pair(values: Iterable[int]) -> Pair:
    y, x = (int(value) for value in values)
    return y, x
