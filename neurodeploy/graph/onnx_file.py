"""Reading ONNX files of unknown origin in bounded time and memory, and the check of their bytes.

Parsing a message costs up to a hundred times its bytes when it is made of empty parts, so a walk over the wire format
(protobuf encoding) counts what is not plain numbers before anything is parsed.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import Array
from neurodeploy.graph.onnx_build import DOMAIN, ELEMENT_TYPES

#: Largest file, and most bytes of it that are not numbers of tensors.
MAX_BYTES, MAX_STRUCTURE_BYTES = 2**30, 4 * 2**20

#: Field numbers of the ONNX messages (onnx.proto): ModelProto.graph, GraphProto.initializer, TensorProto's raw numbers.
_GRAPH, _INITIALIZER, _NUMBERS = 7, 5, (4, 9, 10)

#: Metadata entry with the SHA-256 of the file in which the 64 digits of the entry are zeros.
HASH = "neurodeploy.sha256"
_UNSIGNED = "0" * 64
_MARK = HASH.encode() + b"\x12\x40"


def read_model(path: Path) -> tuple[onnx.ModelProto, bytes]:
    """Parse any ONNX file; also returns its bytes.

    Raises:
        GraphError: the file is missing, too large, damaged, or refers to other files.
    """
    if not path.is_file():
        raise GraphError(f"{path}: no such file.", remedy="check the path.", code="missing-file")
    size = path.stat().st_size
    _check_size(path, size, 0)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error
    try:
        structure = _structure_bytes(memoryview(data))
    except (ValueError, IndexError) as error:
        raise damaged(path, "not a readable ONNX file") from error
    _check_size(path, size, structure)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise damaged(path, "not a readable ONNX file") from error
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise GraphError(
                f"{path}: the tensor {tensor.name!r} is stored in another file.",
                remedy="save the model as one file: onnx.save(model, path, save_as_external_data=False).",
                code="external-data",
            )
    return model, data


def is_own(model: onnx.ModelProto) -> bool:
    """Whether the model is a graph of neurodeploy."""
    return any(opset.domain == DOMAIN for opset in model.opset_import)


def arrays(path: Path, model: onnx.ModelProto) -> dict[str, Array]:
    """The initializers of a model of our own: name -> array.

    Raises:
        GraphError: a shape, type or number of bytes is not as declared.
    """
    types = {number: dtype for dtype, number in ELEMENT_TYPES.items()}
    found: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        dtype, shape = types.get(tensor.data_type), tuple(tensor.dims)
        count = 1
        for length in shape:
            count *= length
        if dtype is None or len(shape) > 8 or min(shape, default=0) < 0 or tensor.name in found:
            raise damaged(path, f"the tensor {tensor.name!r} of type {tensor.data_type} and shape {shape}")
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise damaged(path, f"the tensor {tensor.name!r} of shape {shape} has {len(tensor.raw_data)} bytes")
        little = np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).reshape(shape)
        found[tensor.name] = little.astype(dtype, order="C", copy=True)
    return found


def signed(path: Path, model: onnx.ModelProto) -> bytes:
    """The bytes of a model for ``path``, with their hash in its metadata; equal models give equal bytes.

    Raises:
        GraphError: the file would be too large to be read again.
    """
    entry = model.metadata_props.add()
    entry.key, entry.value = HASH, _UNSIGNED
    data = model.SerializeToString(deterministic=True)
    _check_size(path, len(data), _structure_bytes(memoryview(data)))
    start = data.rindex(_MARK) + len(_MARK)
    return b"".join((data[:start], hashlib.sha256(data).hexdigest().encode(), data[start + 64 :]))


def is_intact(data: bytes) -> bool:
    """Whether the bytes are those that ``signed`` made."""
    start = data.rfind(_MARK) + len(_MARK)
    digest = hashlib.sha256(memoryview(data)[:start])
    digest.update(_UNSIGNED.encode())
    digest.update(memoryview(data)[start + 64 :])
    return _MARK in data and data[start : start + 64] == digest.hexdigest().encode()


def damaged(path: Path, what: str) -> GraphError:
    """The error for files that are not what ``save_graph`` wrote."""
    return GraphError(
        f"{path}: damaged or edited: {what}.",
        remedy="save the graph again; its file cannot be edited.",
        code="damaged-file",
    )


def _check_size(path: Path, size: int, structure: int) -> None:
    for found, limit, what in (
        (size, MAX_BYTES, "bytes"),
        (structure, MAX_STRUCTURE_BYTES, "bytes besides the numbers of its tensors"),
    ):
        if found > limit:
            raise GraphError(
                f"{path}: {found:,} {what}; the limit is {limit:,}.",
                remedy="use a smaller network.",
                code="too-large",
            )


def _fields(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of every field of a message; start == end where it is no sub-message or bytes.

    Raises:
        ValueError, IndexError: the encoding is broken.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
                start = end = position
            case 1:
                start = end = position = position + 8
            case 2:
                length, start = _varint(data, position)
                end = position = start + length
            case 5:
                start = end = position = position + 4
            case kind:
                raise ValueError(f"wire type {kind}")
        if position > len(data):
            raise ValueError("ends early")
        yield tag >> 3, start, end


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _structure_bytes(model: memoryview) -> int:
    """Bytes that are not numbers of tensors; stops where they are too many."""
    total = 0
    for start, end in _structure(model):
        total += end - start + 2  # a field takes at least two bytes besides its content
        if total > MAX_STRUCTURE_BYTES:
            break
    return total


def _structure(model: memoryview) -> Iterator[tuple[int, int]]:
    """Where the fields of a model lie that are not numbers of tensors."""
    for field, start, end in _fields(model):
        if field != _GRAPH:
            yield start, end
            continue
        graph = model[start:end]
        for part, first, last in _fields(graph):
            if part != _INITIALIZER:
                yield first, last
                continue
            yield from ((at, at) if number in _NUMBERS else (at, to) for number, at, to in _fields(graph[first:last]))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model, those of functions, attributes and nested graphs included."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    waiting += [graph for training in model.training_info for graph in (training.initialization, training.algorithm)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.GraphProto):
            yield from part.initializer
            yield from (half for tensor in part.sparse_initializer for half in (tensor.values, tensor.indices))
        attributes = [attribute for node in part.node for attribute in node.attribute]
        if isinstance(part, onnx.FunctionProto):
            attributes += part.attribute_proto
        for attribute in attributes:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            waiting += [attribute.g] * attribute.HasField("g") + list(attribute.graphs)
