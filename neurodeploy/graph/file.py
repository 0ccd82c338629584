"""Graphs on disk: one safetensors file, arrays as tensors, everything else as JSON in its metadata, with a hash."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from neurodeploy.errors import GraphError
from neurodeploy.files import canonical_json, replacing
from neurodeploy.graph import nodes as kinds
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Array, Node

FORMAT = "neurodeploy-graph"
VERSION = 1

#: Name of the only metadata entry: with one entry the file's bytes do not depend on the order of a hash table.
_ENTRY = "neurodeploy"

_KINDS: dict[str, type[Node]] = {
    node.kind: node
    for node in (
        kinds.Input,
        kinds.Output,
        kinds.Conv2d,
        kinds.Linear,
        kinds.BatchNorm2d,
        kinds.SumPool2d,
        kinds.AvgPool2d,
        kinds.Flatten,
        kinds.Add,
        kinds.Concat,
        kinds.Conv1d,
        kinds.Scale,
        kinds.Threshold,
        kinds.Delay,
        kinds.Feedback,
        kinds.LI,
        kinds.Neuron,
    )
}


def save_graph(graph: Graph, path: str | Path) -> None:
    """Write a float or integer graph to ``path`` (``.safetensors``); equal graphs give equal bytes.

    Raises:
        GraphError: ``path`` has another suffix.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise GraphError(
            f"{path}: graphs are written as .safetensors.", remedy=f"use {path.stem}.safetensors.", code="suffix"
        )
    tensors: dict[str, Array] = {}
    stored = [
        {
            "name": name,
            "kind": node.kind,
            "fields": {
                part.name: _encode(f"{name}/{part.name}", getattr(node, part.name), tensors) for part in fields(node)
            },
        }
        for name, node in graph.nodes.items()
    ]
    content = {
        "format": FORMAT,
        "version": VERSION,
        "nodes": stored,
        "edges": [list(edge) for edge in graph.edges],
        "notes": list(graph.notes),
    }
    text = canonical_json({**content, "sha256": _hash(content, tensors)})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_ENTRY: text})


def load_graph(path: str | Path) -> Graph:
    """Read a graph that ``save_graph`` wrote; it equals the one that was saved, integer types included.

    Raises:
        GraphError: the file is missing, damaged, edited, of another version, or not a graph.
    """
    path = Path(path)
    if not path.is_file():
        raise GraphError(f"{path}: no such file.", remedy="check the path.", code="missing-file")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_ENTRY)
            tensors: dict[str, Array] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise _damaged(path, f"not a readable safetensors file: {error}") from error
    if text is None:
        raise GraphError(
            f"{path}: a safetensors file, but not a graph of neurodeploy.",
            remedy="weights alone are no network: load them into a module and use nd.trace(module, sample).",
            code="foreign-file",
        )
    try:
        content = json.loads(text)
        stated = content.pop("sha256")
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise GraphError(
                f"{path}: format {content['format']!r} version {content['version']!r}; this version reads {FORMAT} "
                f"{VERSION}.",
                remedy="save the graph again with this version.",
                code="version",
            )
        if stated != _hash(content, tensors):
            raise _damaged(path, "its content does not match its hash")
        nodes = {
            entry["name"]: _KINDS[entry["kind"]](
                **{key: _decode(value, tensors) for key, value in entry["fields"].items()}
            )
            for entry in content["nodes"]
        }
        return Graph(nodes, tuple((a, b) for a, b in content["edges"]), tuple(content["notes"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its description cannot be read ({error!r})") from error


def _damaged(path: Path, what: str) -> GraphError:
    return GraphError(
        f"{path}: damaged or edited: {what}.", remedy="save the graph again; it cannot be edited.", code="damaged-file"
    )


def _encode(key: str, value: Any, tensors: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        tensors[key] = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        return {"tensor": key}
    return list(value) if isinstance(value, tuple) else value


def _decode(value: Any, tensors: dict[str, Array]) -> Any:
    if isinstance(value, dict):
        return tensors[value["tensor"]]
    return tuple(value) if isinstance(value, list) else value


def _hash(content: dict[str, Any], tensors: dict[str, Array]) -> str:
    digest = hashlib.sha256(canonical_json(content).encode())
    for key in sorted(tensors):
        array = tensors[key]
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(canonical_json([key, little.dtype.str, list(array.shape)]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
