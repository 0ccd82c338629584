"""The raw content of a NIR file: names, kinds, fields and edges, exactly as stored.

``nir.read`` fills in a missing ``v_reset``, which is the only trace of the reset a network was trained with, refuses
files whose convolutions are not square because of its own shape inference, and stops at a node kind it does not know
without naming the node. So the HDF5 groups are read directly; the layout is the one ``nir`` 0.1 to 1.0.8 writes:
``node/{type, nodes/<name>/{type, fields...}, edges}``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.errors import GraphError

#: The fields of one stored node by name: arrays, numbers, strings, or nested dictionaries.
Fields = dict[str, Any]


@dataclass(frozen=True)
class NirFile:
    """A NIR graph as stored, with nested graphs flattened to dotted names (``"block.conv"``).

    Attributes:
        version: the NIR version that wrote it.
        nodes: name -> fields; ``fields["type"]`` is the kind.
        edges: (source, destination) pairs. Both are in natural order (``"2"`` before ``"10"``), whatever the file's.
    """

    version: str
    nodes: dict[str, Fields]
    edges: tuple[tuple[str, str], ...]


def read_nir_file(path: Path) -> NirFile:
    """Read the stored content of ``path``.

    Raises:
        GraphError: the file is missing, not HDF5, truncated, or does not hold a NIR graph.
    """
    import h5py

    if not path.is_file():
        raise GraphError(f"{path}: no such file.", remedy="check the path.", code="missing-file")
    try:
        with h5py.File(path, "r") as file:
            content = _content(file)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise GraphError(
            f"{path}: not a readable NIR file: {error}.",
            remedy="a NIR file is an HDF5 file written by nir.write; write or download it again.",
            code="malformed-file",
        ) from error
    root = content.get("node") if isinstance(content, dict) else None
    if not isinstance(root, dict) or not isinstance(root.get("nodes"), dict):
        raise GraphError(
            f"{path}: an HDF5 file without a NIR graph (no group node/nodes).",
            remedy="write the network with nir.write(path, nir_graph).",
            code="malformed-file",
        )
    nodes, edges = _flatten(path, "", root)
    order = {name: position for position, name in enumerate(sorted(nodes, key=natural))}
    last = len(order)
    edges = sorted(set(edges), key=lambda edge: (order.get(edge[0], last), order.get(edge[1], last)))
    return NirFile(str(content.get("version", "unknown")), {name: nodes[name] for name in order}, tuple(edges))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders the numbers inside names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _content(item: Any) -> Any:
    if hasattr(item, "items"):
        return {str(key): _content(value) for key, value in item.items()}
    value = item[()]
    return value.decode("utf8") if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return value.decode("utf8") if isinstance(value, bytes) else str(value)


def _flatten(path: Path, prefix: str, root: Fields) -> tuple[dict[str, Fields], list[tuple[str, str]]]:
    """Nodes and edges of a graph with its nested graphs dissolved into it."""
    nodes: dict[str, Fields] = {}
    stored = np.asarray(root.get("edges", []))
    if stored.size and (stored.ndim != 2 or stored.shape[1] != 2):
        raise GraphError(
            f"{path}: the edges have shape {stored.shape}; they must be pairs of names.",
            remedy="write the file again with nir.write.",
            code="malformed-file",
        )
    edges = [(prefix + _text(a), prefix + _text(b)) for a, b in stored.reshape(-1, 2)]
    for key, fields in root["nodes"].items():
        name = prefix + key
        if not isinstance(fields, dict) or "type" not in fields:
            raise GraphError(
                f"{path}: node {name} has no type.",
                remedy="write the file again with nir.write.",
                code="malformed-file",
            )
        if fields["type"] != "NIRGraph":
            nodes[name] = fields
            continue
        if not isinstance(fields.get("nodes"), dict):
            raise GraphError(
                f"{path}: the nested graph {name} has no nodes.",
                remedy="write the file again with nir.write.",
                code="malformed-file",
            )
        inner_nodes, inner_edges = _flatten(path, f"{name}.", fields)
        ends = {}
        for kind in ("Input", "Output"):
            found = [inner for inner, inner_fields in inner_nodes.items() if inner_fields["type"] == kind]
            if len(found) != 1:
                raise GraphError(
                    f"{path}: the nested graph {name} has {len(found)} {kind} nodes; exactly one is supported.",
                    remedy="export the network as one flat graph.",
                    code="nested-graph",
                )
            ends[kind] = found[0]
        edges = [(ends["Output"] if a == name else a, ends["Input"] if b == name else b) for a, b in edges]
        edges += inner_edges
        nodes.update(inner_nodes)
        for end in ends.values():
            before = [a for a, b in edges if b == end]
            after = [b for a, b in edges if a == end]
            edges = [edge for edge in edges if end not in edge] + [(a, b) for a in before for b in after]
            del nodes[end]
    return nodes, edges
