"""How each node of an integer network is written: ConvInteger, MatMulInteger and potentials of 32 or 64 bits.

ConvInteger and MatMulInteger take 8-bit operands. A value above 127 is split into digits of base 128, each is
convolved, and the results are added with their place values: exact for every value. Digits have 7 bits because ONNX
Runtime adds pairs of products in 16 bits on processors without VNNI instructions: ``2 * 127 * 128 < 2**15``. Whether a
value exceeds 127 is looked up while running, so ordinary recordings take one convolution.

Bounds of all values are followed from the input (at most 255 events per step and pixel) to the output; they decide
between 32 and 64 bits. Worst cases multiply from layer to layer, so a bound is not taken beyond 2**52: no recording
comes near, and ``to_torch`` refuses one that does.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import helper

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Array, Concat, Conv2d, Flatten, Input, Linear, Neuron, Output, SumPool2d
from neurodeploy.graph.onnx_build import DOMAIN, OPSET, element_type, tensor, untyped
from neurodeploy.graph.onnx_context import Context, Table, Value
from neurodeploy.graph.onnx_float import as_conv, conv_attributes
from neurodeploy.graph.onnx_neuron import is_one

Integer = np.dtype[Any]

#: Largest number of events per step and pixel: the input's type.
INPUT_TYPE, INPUT_LARGEST = np.dtype(np.uint8), 255

#: Neurons whose potential can rise from step to step are sure not to overflow in recordings up to this length.
LONGEST = 2**24

_MOST = 2**52

_DIGIT_BITS = 7
_DIGIT_LARGEST = 2**_DIGIT_BITS - 1

_CONV_ATTRIBUTES = {
    "strides": onnx.AttributeProto.INTS,
    "pads": onnx.AttributeProto.INTS,
    "dilations": onnx.AttributeProto.INTS,
    "group": onnx.AttributeProto.INT,
}


def is_integer(graph: Graph) -> bool:
    """Whether all quantities of the network are integers that the operators take."""
    nodes = graph.nodes.values()
    return any(isinstance(node, Conv2d | Linear) for node in nodes) and all(
        isinstance(node, Input | Output) or (type(node) in INTEGER_WRITERS and _holds_integers(node)) for node in nodes
    )


def _holds_integers(node: object) -> bool:
    if isinstance(node, Conv2d | Linear):
        return node.weight.dtype == np.int8 and _all_integer(node.bias)
    if isinstance(node, Neuron):
        limits = _all_integer(node.threshold, node.v_min, node.v_reset, node.initial_v)
        return limits and int(np.min(node.threshold)) > 0 and is_one(node.decay) and is_one(node.input_gain)
    return True


def _all_integer(*arrays: Array | None) -> bool:
    return all(array is None or np.asarray(array).dtype.kind == "i" for array in arrays)


def _type(largest: int) -> Integer:
    """The type of sums up to ``largest``."""
    return np.dtype(np.int32 if largest < 2**31 else np.int64)


def _weighted_sum(
    context: Context,
    name: str,
    x: Value,
    weight: str,
    reach: int,
    conv: Conv2d | None,
    bias: tuple[str, int] | None,
) -> Value:
    """Convolution (``conv``) or matrix product of counts and 8-bit weights, plus the bias.

    ``reach``: largest sum of absolute weights of one output; ``bias``: field and its largest absolute value.
    """
    if x.signed:
        raise GraphError(
            f"{name}: its input can be negative; in an integer network weights apply to numbers of spikes.",
            remedy="put neurons before it.",
            code="integer-input",
        )
    if reach * _DIGIT_LARGEST >= 2**31:
        raise GraphError(
            f"{name}: the absolute weights of one output add up to {reach}; 32-bit sums allow "
            f"{2**31 // _DIGIT_LARGEST}.",
            remedy="use fewer inputs per neuron.",
            code="sums",
        )
    builder = context.builder
    largest = min(reach * x.largest + (bias[1] if bias else 0), _MOST)
    dtype = _type(largest)
    attributes = {} if conv is None else conv_attributes(conv)
    digits = next(n for n in count(1) if x.largest < 2 ** (_DIGIT_BITS * n))
    if digits == 1:
        operator = "MatMulInteger" if conv is None else "ConvInteger"
        counts = builder.cast(x.name, f"{name}.counts", np.uint8)
        sums = builder.add(operator, [counts, weight], name if bias is None else f"{name}.sums", **attributes)
        current = np.dtype(np.int32)
    else:
        function = _digits_function(digits, dtype, conv is not None)
        builder.functions.setdefault(function.name, function)
        counts = x.name if x.dtype == dtype else builder.cast(x.name, f"{name}.counts", dtype)
        wanted = name if bias is None else f"{name}.sums"
        (sums,) = builder.call(function.name, [counts, weight], [wanted], domain=DOMAIN, **attributes)
        current = dtype
    if bias is not None:
        if current != dtype:
            sums = builder.cast(sums, f"{name}.sums.{dtype.name}", dtype)
        column = context.parameter(name, bias[0], dtype)
        if conv is not None:
            shape = builder.integers(f"{name}.bias.shape", [-1, 1, 1])
            column = builder.add("Reshape", [column, shape], f"{name}.bias.column")
        sums, current = builder.add("Add", [sums, column], name), dtype
    return Value(sums, current, largest)


def _digits_function(digits: int, dtype: Integer, conv: bool) -> onnx.FunctionProto:
    """Counts of several digits times 8-bit weights."""
    operator = "ConvInteger" if conv else "MatMulInteger"
    attributes = _CONV_ATTRIBUTES if conv else {}

    def product(counts: str, out: str) -> onnx.NodeProto:
        node = helper.make_node(operator, [counts, "w"], [out])
        node.attribute.extend(helper.make_attribute_ref(name, kind) for name, kind in attributes.items())
        return node

    number, node = element_type(dtype), helper.make_node
    at_once = [
        node("Cast", ["x"], ["counts"], to=onnx.TensorProto.UINT8),
        product("counts", "sums"),
        node("Cast", ["sums"], ["y_at_once"], to=number),
    ]
    base = tensor("base", np.array(2**_DIGIT_BITS, dtype))
    by_digit = [node("Constant", [], ["base"], value=base)]
    rest = "x"
    for digit in range(digits - 1):
        by_digit.append(node("Mod", [rest, "base"], [f"digit{digit}"]))
        by_digit.append(node("Div", [rest, "base"], [f"rest{digit}"]))
        rest = f"rest{digit}"
    parts = [f"part{digit}" for digit in range(digits)]
    by_digit += [
        node("Concat", [*(f"digit{digit}" for digit in range(digits - 1)), rest], ["all_digits"], axis=0),
        node("Cast", ["all_digits"], ["all_counts"], to=onnx.TensorProto.UINT8),
        product("all_counts", "all_sums"),
        node("Cast", ["all_sums"], ["all_wide"], to=number),
        node("Split", ["all_wide"], parts, axis=0, num_outputs=digits),
    ]
    total = parts[-1]
    for digit in reversed(range(digits - 1)):  # Horner's rule
        out = f"total{digit}" if digit else "y_by_digit"
        by_digit.append(node("Mul", [total, "base"], [f"shifted{digit}"]))
        by_digit.append(node("Add", [f"shifted{digit}", parts[digit]], [out]))
        total = out
    branches = {
        "then_branch": helper.make_graph(at_once, "at_once", [], [untyped("y_at_once", dtype)]),
        "else_branch": helper.make_graph(by_digit, "by_digit", [], [untyped("y_by_digit", dtype)]),
    }
    limit = tensor("limit", np.array(_DIGIT_LARGEST, dtype))
    nodes = [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Constant", [], ["limit"], value=limit),
        node("LessOrEqual", ["most", "limit"], ["is_small"]),
        node("If", ["is_small"], ["y"], **branches),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    name = f"{operator}_{digits}_digits_{dtype.name}"
    return helper.make_function(DOMAIN, name, ["x", "w"], ["y"], nodes, opsets, list(attributes))


def _reach(weight: Array) -> int:
    return int(np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(1).max())


def _largest(*arrays: Array | None) -> int:
    return max(int(np.abs(np.asarray(array).astype(np.int64)).max()) for array in arrays if array is not None)


def _bias(node: Conv2d | Linear) -> tuple[str, int] | None:
    return None if node.bias is None else ("bias", _largest(node.bias))


def _conv2d(context: Context, name: str, node: Conv2d, inputs: Sequence[Value]) -> Value:
    weight = context.arrays[name, "weight"]
    return _weighted_sum(context, name, inputs[0], weight, _reach(node.weight), node, _bias(node))


def _linear(context: Context, name: str, node: Linear, inputs: Sequence[Value]) -> Value:
    weight = context.builder.add("Transpose", [context.arrays[name, "weight"]], f"{name}.weight.columns", perm=[1, 0])
    return _weighted_sum(context, name, inputs[0], weight, _reach(node.weight), None, _bias(node))


def _sum_pool(context: Context, name: str, node: SumPool2d, inputs: Sequence[Value]) -> Value:
    ones = np.ones((context.graph.shapes[name][0], 1, *node.kernel), np.int8)
    window = context.builder.constant(f"{name}.window", ones)
    value = _weighted_sum(context, name, inputs[0], window, _reach(ones), as_conv(node, ones), None)
    return Value(value.name, value.dtype, value.largest, signed=False)


def _flatten(context: Context, name: str, node: Flatten, inputs: Sequence[Value]) -> Value:
    x = inputs[0]
    return Value(context.builder.add("Flatten", [x.name], name, axis=1), x.dtype, x.largest, x.signed)


def _same_type(context: Context, name: str, inputs: Sequence[Value], largest: int) -> tuple[list[str], Integer]:
    dtype = np.result_type(_type(largest), *(value.dtype for value in inputs))
    names = [
        value.name if value.dtype == dtype else context.builder.cast(value.name, f"{name}.{value.name}", dtype)
        for value in inputs
    ]
    return names, dtype


def _add(context: Context, name: str, node: Add, inputs: Sequence[Value]) -> Value:
    largest = sum(value.largest for value in inputs)
    (total, *others), dtype = _same_type(context, name, inputs, largest)
    for position, other in enumerate(others, 1):
        wanted = name if position == len(others) else f"{name}.{position}"
        total = context.builder.add("Add", [total, other], wanted)
    return Value(total, dtype, largest, any(value.signed for value in inputs))


def _concat(context: Context, name: str, node: Concat, inputs: Sequence[Value]) -> Value:
    largest = max(value.largest for value in inputs)
    names, dtype = _same_type(context, name, inputs, largest)
    joined = context.builder.add("Concat", names, name, axis=1)
    return Value(joined, dtype, largest, any(value.signed for value in inputs))


def _neuron(context: Context, name: str, node: Neuron, inputs: Sequence[Value]) -> Value:
    x = inputs[0]
    start = _largest(node.threshold, node.v_min, node.v_reset, node.initial_v)
    # With a lower bound, and a reset that always ends below the threshold, sums do not add up over time.
    falls_below = node.reset == "zero" or (node.reset == "subtract" and node.spikes == "multi")
    reached = min(start + x.largest * (1 if falls_below and node.v_min is not None else LONGEST), _MOST)
    dtype = np.result_type(_type(reached), x.dtype if x.dtype.kind == "i" else np.int32)
    spikes = context.neurons(name, node, x, dtype)
    if node.spikes == "multi":
        most = reached // int(np.min(node.threshold))
    else:
        most = 1 if node.spikes == "single" else node.spikes
    return Value(spikes, dtype, most, signed=False)


#: One entry per node kind that integer networks have.
INTEGER_WRITERS: Table = {
    Conv2d: _conv2d,
    Linear: _linear,
    SumPool2d: _sum_pool,
    Flatten: _flatten,
    Add: _add,
    Concat: _concat,
    Neuron: _neuron,
}
