"""A graph as an ONNX model that any ONNX runtime executes with the graph's own results.

Model inputs are the rasters ``[B, T, *shape]`` (float32; counts in uint8 for an integer network) and the potentials
``NAME.v_initial [K, *shape]`` of the first K samples, which may be left out; outputs are the results ``[B, T, *shape]``
(float32; int64) and ``NAME.v_final [B, *shape]``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from neurodeploy import __version__
from neurodeploy.files import canonical_json
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.loops import units
from neurodeploy.graph.nodes import Array, Feedback, Input, Output
from neurodeploy.graph.onnx_build import Builder
from neurodeploy.graph.onnx_context import Context, Table, Value, write_node
from neurodeploy.graph.onnx_fields import encode_node
from neurodeploy.graph.onnx_float import FLOAT_WRITERS
from neurodeploy.graph.onnx_integer import INPUT_LARGEST, INPUT_TYPE, INTEGER_WRITERS, is_integer
from neurodeploy.graph.onnx_loop import write_loop
from neurodeploy.graph.onnx_spike_times import DOC, DOMAIN, DOMAIN_VERSION, has_spike_times, write_spike_times

#: Entries of the model's metadata.
DESCRIPTION, PROVENANCE = "neurodeploy.graph", "neurodeploy.provenance"

_DOC = (
    "A spiking network over time. Inputs: events per time step, (B, T, ...); NAME.v_initial (optional): potentials of "
    "the first K samples. Outputs: spikes per time step; NAME.v_final: potentials to continue from."
)


def to_onnx(
    graph: Graph,
    *,
    annotations: Mapping[str, Mapping[str, str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    scales: Mapping[str, float] | None = None,
) -> onnx.ModelProto:
    """Write ``graph`` as an ONNX model.

    Args:
        graph: float, or integer as ``quantize`` makes it.
        annotations: node -> entries for the metadata of its operators, such as the core it is placed on.
        provenance: where the graph comes from, JSON-ready.
        scales: node -> scale of an integer graph's nodes: write the network in float32 with ``DequantizeLinear`` in
            front of every integer (QDQ; ``number = integer / scale``), instead of integer operators.

    Raises:
        GraphError: a node has no ONNX form, or a field or sum that cannot be written exactly.
    """
    integer = is_integer(graph) and not scales
    table: Table = INTEGER_WRITERS if integer else FLOAT_WRITERS
    builder = Builder(graph.nodes, annotations or {})
    context = Context(graph, builder, scales=scales or {})
    description = _describe(context)
    continuous = has_spike_times(graph)
    if continuous:
        write_spike_times(context)
    values: dict[str, Value] = {}
    for unit in () if continuous else units(graph):
        name, node = unit[0], graph.nodes[unit[0]]
        if len(unit) > 1 or isinstance(node, Feedback):
            values.update(write_loop(context, table, unit, values))
            continue
        builder.own(name, node)
        inputs = [values[source] for source in graph.predecessors(name)]
        if isinstance(node, Input):
            values[name] = _input(context, name, integer)
        elif isinstance(node, Output):
            _output(context, name, inputs[0], integer)
        else:
            values[name] = write_node(context, table, name, inputs)
    metadata = {DESCRIPTION: canonical_json(description)}
    if provenance:
        metadata[PROVENANCE] = canonical_json(provenance)
    if continuous:
        return builder.model("neurodeploy", DOC, __version__, metadata, {DOMAIN: DOMAIN_VERSION})
    return builder.model("neurodeploy", _DOC, __version__, metadata)


def describe(graph: Graph) -> tuple[dict[str, Any], list[onnx.TensorProto]]:
    """All of the graph as JSON-ready data, and the arrays it refers to by name."""
    context = Context(graph, Builder(graph.nodes, {}))
    return _describe(context), context.builder.initializers


def _describe(context: Context) -> dict[str, Any]:
    graph, builder = context.graph, context.builder
    nodes = []
    for name, node in graph.nodes.items():

        def store(field: str, values: Array, name: str = name) -> str:
            native = np.asarray(values, values.dtype.newbyteorder("="))
            context.arrays[name, field] = builder.constant(f"{name}.{field}", native)
            return context.arrays[name, field]

        nodes.append(encode_node(name, node, store))
    return {"nodes": nodes, "edges": graph.edges, "notes": graph.notes}


def _input(context: Context, name: str, integer: bool) -> Value:
    """``[B, T, *shape]`` to ``[T * B, *shape]``."""
    builder, shape = context.builder, context.graph.shapes[name]
    dtype = INPUT_TYPE if integer else np.dtype(np.float32)
    builder.model_input(builder.name(name), dtype, ["B", "T", *shape])
    axes = range(2, 2 + len(shape))
    by_step = builder.add("Transpose", [name], f"{name}.by_step", perm=[1, 0, *axes])
    if not context.steps_batch:
        context.steps_batch = builder.add("Shape", [by_step], "steps_batch", start=0, end=2)
    folded_shape = builder.integers(f"{name}.folded.shape", [-1, *shape])
    folded = builder.add("Reshape", [by_step, folded_shape], f"{name}.folded")
    return Value(folded, dtype, INPUT_LARGEST, signed=False)


def _output(context: Context, name: str, value: Value, integer: bool) -> None:
    """``[T * B, *shape]`` to ``[B, T, *shape]``."""
    builder, shape = context.builder, context.graph.shapes[name]
    result = np.dtype(np.int64 if integer else np.float32)
    wide = value.name if value.dtype == result else builder.cast(value.name, f"{name}.wide", result)
    by_step = context.by_step(name, Value(wide, result), shape)
    builder.add("Transpose", [by_step], name, perm=[1, 0, *range(2, 2 + len(shape))])
    builder.model_output(name, result, ["B", "T", *shape])
