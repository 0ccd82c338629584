"""How each node of a float network is written: plain operators over time x batch, float32."""

from collections.abc import Sequence

import numpy as np

from neurodeploy.graph.nodes import (
    LI,
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv1d,
    Conv2d,
    Delay,
    Flatten,
    Linear,
    Neuron,
    Relu,
    Scale,
    SumPool2d,
    Threshold,
)
from neurodeploy.graph.onnx_context import Context, Table, Value

FLOAT = np.dtype(np.float32)


def _operator(context: Context, operator: str, inputs: Sequence[str], name: str, **attributes: object) -> Value:
    return Value(context.builder.add(operator, inputs, name, **attributes), FLOAT)


def _weights(context: Context, name: str, node: Conv1d | Conv2d | Linear) -> list[str]:
    present = ["weight"] if node.bias is None else ["weight", "bias"]
    return [context.parameter(name, field, FLOAT) for field in present]


def _conv(context: Context, name: str, node: Conv1d | Conv2d, inputs: Sequence[Value]) -> Value:
    operands = [inputs[0].name, *_weights(context, name, node)]
    return _operator(context, "Conv", operands, name, **conv_attributes(node))


def conv_attributes(node: Conv1d | Conv2d) -> dict[str, object]:
    """Stride, padding, dilation and groups as ONNX names them."""
    padding, stride, dilation = np.ravel(node.padding), np.ravel(node.stride), np.ravel(node.dilation)
    return {
        "strides": stride.tolist(),
        "pads": [*padding.tolist(), *padding.tolist()],
        "dilations": dilation.tolist(),
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


def _relu(context: Context, name: str, node: Relu, inputs: Sequence[Value]) -> Value:
    return _operator(context, "Relu", [inputs[0].name], name)


def _scale(context: Context, name: str, node: Scale, inputs: Sequence[Value]) -> Value:
    return _operator(context, "Mul", [context.parameter(name, "scale", FLOAT), inputs[0].name], name)


def _threshold(context: Context, name: str, node: Threshold, inputs: Sequence[Value]) -> Value:
    operator = "Greater" if node.compare == ">" else "GreaterOrEqual"
    operands = [inputs[0].name, context.parameter(name, "threshold", FLOAT)]
    return Value(context.builder.cast(context.builder.add(operator, operands, f"{name}.reaches"), name, FLOAT), FLOAT)


def _membrane(context: Context, name: str, node: Neuron | LI, inputs: Sequence[Value]) -> Value:
    return Value(context.neurons(name, node, inputs[0], FLOAT), FLOAT)


def _delay(context: Context, name: str, node: Delay, inputs: Sequence[Value]) -> Value:
    """The state is the inputs still under way, ``[B, longest delay, *shape]``, oldest first."""
    builder, shape, longest = context.builder, context.graph.shapes[name], int(np.max(node.steps))
    history_shape, axes = (longest, *shape), range(2, 2 + len(shape))
    zero = builder.constant(f"{name}.history_default", np.zeros((), FLOAT))
    given = context.state(name, "history", history_shape, zero, FLOAT)
    history = context.complete(f"{name}.history", given, zero)
    history = builder.add("Transpose", [history], f"{name}.history.by_step", perm=[1, 0, *axes])
    arriving = context.by_step(name, inputs[0], shape)
    both = builder.add("Concat", [history, arriving], f"{name}.history.all", axis=0)
    first, length = builder.integers(f"{name}.first", [0]), builder.integers(f"{name}.length", [1])
    steps = builder.add("Slice", [context.steps_batch, first, length], f"{name}.steps_run")
    if np.ndim(node.steps) == 0:
        delayed = builder.add("Slice", [both, first, steps], f"{name}.delayed")
    else:
        ahead = builder.constant(f"{name}.ahead", longest - np.asarray(node.steps, np.int64))
        zero_step, one = (
            builder.constant(f"{name}.{word}", np.array(number)) for word, number in (("zero", 0), ("one", 1))
        )
        last = builder.add("Squeeze", [steps], f"{name}.steps_run.number")
        times = builder.add("Range", [zero_step, last, one], f"{name}.times")
        column = builder.integers(f"{name}.times.shape", [-1, *[1] * (1 + len(shape))])
        times = builder.add("Reshape", [times, column], f"{name}.times.column")
        at = builder.add("Add", [times, ahead], f"{name}.at.one")
        size = builder.add("Shape", [arriving], f"{name}.size")
        at = builder.add("Expand", [at, size], f"{name}.at")
        delayed = builder.add("GatherElements", [both, at], f"{name}.delayed", axis=0)
    end = builder.integers(f"{name}.end", [2**62])
    final = builder.add("Slice", [both, steps, end], f"{name}.under_way")
    final = builder.add("Transpose", [final], f"{name}.history_final", perm=[1, 0, *axes])
    context.next_state(name, "history", history_shape, final, FLOAT)
    folded = builder.integers(f"{name}.folded.shape", [-1, *shape])
    return _operator(context, "Reshape", [delayed, folded], name)


#: One entry per node kind.
FLOAT_WRITERS: Table = {
    Conv1d: _conv,
    Conv2d: _conv,
    Linear: _linear,
    BatchNorm2d: _batch_norm,
    SumPool2d: _sum_pool,
    AvgPool2d: _avg_pool,
    Flatten: _flatten,
    Add: _add,
    Concat: _concat,
    Relu: _relu,
    Scale: _scale,
    Threshold: _threshold,
    Delay: _delay,
    LI: _membrane,
    Neuron: _membrane,
}
