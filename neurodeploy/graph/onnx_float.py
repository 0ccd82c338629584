"""How each node of a float network is written: plain operators over time x batch, float32."""

from collections.abc import Sequence

import numpy as np

from neurodeploy.graph.nodes import Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Flatten, Linear, Neuron, SumPool2d
from neurodeploy.graph.onnx_context import Context, Table, Value

FLOAT = np.dtype(np.float32)


def _operator(context: Context, operator: str, inputs: Sequence[str], name: str, **attributes: object) -> Value:
    return Value(context.builder.add(operator, inputs, name, **attributes), FLOAT)


def _weights(context: Context, name: str, node: Conv2d | Linear) -> list[str]:
    present = ["weight"] if node.bias is None else ["weight", "bias"]
    return [context.parameter(name, field, FLOAT) for field in present]


def _conv2d(context: Context, name: str, node: Conv2d, inputs: Sequence[Value]) -> Value:
    operands = [inputs[0].name, *_weights(context, name, node)]
    return _operator(context, "Conv", operands, name, **conv_attributes(node))


def conv_attributes(node: Conv2d) -> dict[str, object]:
    """Stride, padding, dilation and groups as ONNX names them."""
    return {
        "strides": node.stride,
        "pads": (*node.padding, *node.padding),
        "dilations": node.dilation,
        "group": node.groups,
    }


def _linear(context: Context, name: str, node: Linear, inputs: Sequence[Value]) -> Value:
    return _operator(context, "Gemm", [inputs[0].name, *_weights(context, name, node)], name, transB=1)


def _batch_norm(context: Context, name: str, node: BatchNorm2d, inputs: Sequence[Value]) -> Value:
    parameters = [context.parameter(name, field, FLOAT) for field in ("scale", "shift", "mean", "variance")]
    operands = [inputs[0].name, *parameters]
    return _operator(context, "BatchNormalization", operands, name, epsilon=float(node.epsilon))


def _sum_pool(context: Context, name: str, node: SumPool2d, inputs: Sequence[Value]) -> Value:
    ones = np.ones((context.graph.shapes[name][0], 1, *node.kernel), FLOAT)
    operands = [inputs[0].name, context.builder.constant(f"{name}.window", ones)]
    return _operator(context, "Conv", operands, name, **conv_attributes(as_conv(node, ones)))


def as_conv(node: SumPool2d, ones: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Conv2d:
    """The sum over windows as a convolution of every channel with ones, ``[C, 1, ky, kx]``."""
    return Conv2d(ones, None, node.stride, node.padding, groups=len(ones))


def _avg_pool(context: Context, name: str, node: AvgPool2d, inputs: Sequence[Value]) -> Value:
    return _operator(
        context,
        "AveragePool",
        [inputs[0].name],
        name,
        kernel_shape=node.kernel,
        strides=node.stride,
        pads=(*node.padding, *node.padding),
        count_include_pad=1,
    )


def _flatten(context: Context, name: str, node: Flatten, inputs: Sequence[Value]) -> Value:
    return _operator(context, "Flatten", [inputs[0].name], name, axis=1)


def _add(context: Context, name: str, node: Add, inputs: Sequence[Value]) -> Value:
    return _operator(context, "Sum", [value.name for value in inputs], name)


def _concat(context: Context, name: str, node: Concat, inputs: Sequence[Value]) -> Value:
    return _operator(context, "Concat", [value.name for value in inputs], name, axis=1)


def _neuron(context: Context, name: str, node: Neuron, inputs: Sequence[Value]) -> Value:
    return Value(context.neurons(name, node, inputs[0], FLOAT), FLOAT)


#: One entry per node kind.
FLOAT_WRITERS: Table = {
    Conv2d: _conv2d,
    Linear: _linear,
    BatchNorm2d: _batch_norm,
    SumPool2d: _sum_pool,
    AvgPool2d: _avg_pool,
    Flatten: _flatten,
    Add: _add,
    Concat: _concat,
    Neuron: _neuron,
}
