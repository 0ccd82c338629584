"""An ONNX model while it is being written: unique names, initializers, functions, metadata on every node."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import helper

from neurodeploy.graph.nodes import Array, Node

#: The operator sets: the standard one, and the domain of the neurons (model-local functions).
OPSET, IR_VERSION = 21, 10
DOMAIN, DOMAIN_VERSION = "neurodeploy.snn", 1

#: Element types of arrays in a file.
ELEMENT_TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.float64): onnx.TensorProto.DOUBLE,
    np.dtype(np.float16): onnx.TensorProto.FLOAT16,
    np.dtype(np.int8): onnx.TensorProto.INT8,
    np.dtype(np.int16): onnx.TensorProto.INT16,
    np.dtype(np.int32): onnx.TensorProto.INT32,
    np.dtype(np.int64): onnx.TensorProto.INT64,
    np.dtype(np.uint8): onnx.TensorProto.UINT8,
    np.dtype(np.uint16): onnx.TensorProto.UINT16,
    np.dtype(np.uint32): onnx.TensorProto.UINT32,
    np.dtype(np.uint64): onnx.TensorProto.UINT64,
}


def element_type(dtype: DTypeLike) -> int:
    """ONNX's number of a type."""
    return ELEMENT_TYPES[np.dtype(dtype)]


def tensor(name: str, values: Array) -> onnx.TensorProto:
    """``values`` as a tensor whose bytes are stored as they are, little-endian."""
    little = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
    return helper.make_tensor(name, element_type(values.dtype), values.shape, little.tobytes(), raw=True)


def untyped(name: str, dtype: DTypeLike) -> onnx.ValueInfoProto:
    """A value of any shape."""
    return helper.make_value_info(name, helper.make_tensor_type_proto(element_type(dtype), None))


class Builder:
    """Collects the parts of a model.

    Args:
        reserved: names that only their owners may use (the nodes of the graph).
        annotations: node of the graph -> entries for the metadata of its operators.
    """

    def __init__(self, reserved: Iterable[str], annotations: Mapping[str, Mapping[str, str]]) -> None:
        self.reserved = set(reserved)
        self.annotations = annotations
        self.taken: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.owner = ""
        self.scope = ""
        self.metadata: dict[str, str] = {}

    def own(self, name: str, node: Node) -> None:
        """What follows belongs to this node of the graph."""
        self.owner = name
        self.metadata = {"neurodeploy.node": name, "neurodeploy.kind": node.kind, **self.annotations.get(name, {})}

    @contextmanager
    def body(self) -> Iterator[list[onnx.NodeProto]]:
        """Collect the nodes of one time step for the body of a Scan; their names end in ``.step``."""
        outer, self.nodes, self.scope = self.nodes, [], ".step"
        try:
            yield self.nodes
        finally:
            self.nodes, self.scope = outer, ""

    def name(self, wanted: str) -> str:
        """``wanted``, with underscores appended where another value has this name."""
        wanted += self.scope
        while wanted in self.taken or (wanted in self.reserved and wanted != self.owner):
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def constant(self, wanted: str, values: Array) -> str:
        """Store an array; returns its name."""
        name = self.name(wanted)
        self.initializers.append(tensor(name, values))
        return name

    def integers(self, wanted: str, values: Sequence[int]) -> str:
        """Store a shape or axes (int64)."""
        return self.constant(wanted, np.array(values, np.int64))

    def add(self, operator: str, inputs: Sequence[str], wanted: str, **attributes: Any) -> str:
        """Append a node of the standard operator set with one output; returns the output's name."""
        (output,) = self.call(operator, inputs, [wanted], **attributes)
        return output

    def call(
        self, operator: str, inputs: Sequence[str], wanted: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Append a node that belongs to the graph node in turn (``owner``); returns the outputs' names."""
        outputs = [self.name(name) for name in wanted]
        node = helper.make_node(operator, inputs, outputs, name=outputs[0], domain=domain, **attributes)
        helper.set_metadata_props(node, self.metadata)
        self.nodes.append(node)
        return outputs

    def cast(self, value: str, wanted: str, dtype: DTypeLike) -> str:
        """Append a conversion."""
        return self.add("Cast", [value], wanted, to=element_type(dtype))

    def model_input(self, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> None:
        """Declare an input; symbolic dimensions are words."""
        self.inputs.append(helper.make_tensor_value_info(name, element_type(dtype), shape))

    def model_output(self, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> None:
        """Declare an output."""
        self.outputs.append(helper.make_tensor_value_info(name, element_type(dtype), shape))

    def model(
        self,
        name: str,
        doc: str,
        producer_version: str,
        metadata: Mapping[str, str],
        domains: Mapping[str, int] = MappingProxyType({}),
    ) -> onnx.ModelProto:
        """The finished model; rasters come before potentials in its inputs, results before them in its outputs.

        ``domains``: those of operators that are no functions of the model, with their versions.
        """
        inputs, outputs = (
            sorted(values, key=lambda value: value.name not in self.reserved) for values in (self.inputs, self.outputs)
        )
        model = helper.make_model(
            helper.make_graph(self.nodes, name, inputs, outputs, initializer=self.initializers),
            opset_imports=[
                helper.make_opsetid(domain, version)
                for domain, version in {"": OPSET, DOMAIN: DOMAIN_VERSION, **domains}.items()
            ],
            functions=[self.functions[key] for key in sorted(self.functions)],
            ir_version=IR_VERSION,
            producer_name="neurodeploy",
            producer_version=producer_version,
            doc_string=doc,
        )
        helper.set_model_props(model, dict(metadata))
        return model
