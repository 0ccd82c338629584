"""Graphs on disk: one ``.onnx`` file per graph, which any ONNX runtime executes and which is read back as the graph."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurodeploy.errors import GraphError
from neurodeploy.files import canonical_json, replacing
from neurodeploy.graph.graph import Graph


def save_graph(
    graph: Graph,
    path: str | Path,
    *,
    annotations: Mapping[str, Mapping[str, str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    scales: Mapping[str, float] | None = None,
) -> None:
    """Write a float or integer graph to ``path`` (``.onnx``); equal arguments give equal bytes.

    Args:
        graph: the network.
        path: the file.
        annotations: node -> entries for the metadata of its operators, such as the core it is placed on.
        provenance: where the graph comes from, JSON-ready.
        scales: node -> scale of an integer graph's nodes: the file computes in float32 with ``DequantizeLinear`` in
            front of every integer (QDQ), instead of in integers. It loads as the same integer graph.

    Raises:
        GraphError: ``path`` has another suffix, the file would be too large to be read again, or a node cannot be
            written exactly.
    """
    from neurodeploy.graph.onnx_file import signed
    from neurodeploy.graph.onnx_writer import to_onnx

    path = Path(path)
    if path.suffix != ".onnx":
        raise GraphError(f"{path}: graphs are written as .onnx.", remedy=f"use {path.stem}.onnx.", code="suffix")
    data = signed(path, to_onnx(graph, annotations=annotations, provenance=provenance, scales=scales))
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_graph(path: str | Path) -> Graph:
    """Read a graph that ``save_graph`` wrote; it equals the one that was saved, integer types included.

    Raises:
        GraphError: the file is missing, damaged, edited, of another version, or not a graph of neurodeploy.
    """
    from neurodeploy.graph.onnx_file import is_own, read_model
    from neurodeploy.graph.onnx_reader import from_onnx

    path = Path(path)
    model, data = read_model(path)
    if not is_own(model):
        raise GraphError(
            f"{path}: an ONNX file, but not a graph of neurodeploy.",
            remedy="read networks of other tools with nd.load(path), and convert them with nd.convert.",
            code="foreign-file",
        )
    return from_onnx(path, model, data)


def graph_hash(graph: Graph) -> str:
    """SHA-256 of the graph's nodes, edges and notes; it does not depend on annotations and provenance."""
    from neurodeploy.graph.onnx_writer import describe

    description, arrays = describe(graph)
    digest = hashlib.sha256(canonical_json(description).encode())
    for tensor in arrays:
        digest.update(canonical_json([tensor.name, tensor.data_type, list(tensor.dims)]).encode())
        digest.update(tensor.raw_data)
    return digest.hexdigest()
