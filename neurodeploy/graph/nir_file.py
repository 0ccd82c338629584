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
from neurodeploy.guarded_read import check_hdf5

#: The fields of one stored node by name: arrays, numbers, strings, or nested dictionaries.
Fields = dict[str, Any]


@dataclass(frozen=True)
class NirFile:
    """A NIR graph as stored, with nested graphs flattened to dotted names (``"block.conv"``).

    Attributes:
        version: the NIR version that wrote it.
        nodes: name -> fields; ``fields["type"]`` is the kind.
        edges: (source, destination) pairs. Both are in natural order (``"2"`` before ``"10"``), whatever the file's.
        metadata: of the graph itself.
    """

    version: str
    nodes: dict[str, Fields]
    edges: tuple[tuple[str, str], ...]
    metadata: Fields


def read_nir_file(path: Path) -> NirFile:
    """Read the stored content of ``path``.

    Raises:
        GraphError: the file is missing, not HDF5, truncated, or does not hold a NIR graph.
    """
    if not path.is_file():
        raise GraphError(f"{path}: no such file.", remedy="check the path.", code="missing-file")
    try:
        content = _stored(path)
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
    metadata = root.get("metadata")
    return NirFile(
        str(content.get("version", "unknown")),
        {name: nodes[name] for name in order},
        tuple(edges),
        metadata if isinstance(metadata, dict) else {},
    )


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders the numbers inside names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _stored(path: Path) -> Any:
    """The file as nested dictionaries. All reading of HDF5 happens here, behind the guard; plain data comes out."""
    import h5py

    check_hdf5(path)
    with h5py.File(path, "r") as file:
        return _content(file)


def _content(group: Any) -> Any:
    """A group's members by name; the guard has seen that they form a small tree of data that lies in this file."""
    import h5py

    members: dict[str, Any] = {}
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.name}/{key} is a link to another place")
        item = group[key]
        value = _content(item) if isinstance(item, h5py.Group) else item[()]
        members[str(key)] = value.decode("utf8") if isinstance(value, bytes) else value
    return members


def _text(value: Any) -> str:
    return value.decode("utf8") if isinstance(value, bytes) else str(value)


def _joined(prefix: str, key: str) -> str:
    """The name of a node of a nested graph; some writers put the graph's name in front themselves."""
    return key if key.startswith(prefix) else prefix + key


def _end(path: Path, prefix: str, names: dict[str, str], stored: Any) -> str:
    """The node that the end of an edge names, with or without the name of the nested graph in front."""
    key = _text(stored)
    if key in names:
        return names[key]
    full = _joined(prefix, key)
    if full in names.values():
        return full
    graph = f"the nested graph {prefix[:-1]}" if prefix else "the graph"
    raise GraphError(
        f"{path}: an edge names {key}, which is no node of {graph}.",
        remedy=f"the nodes are: {', '.join(names)}; write the file again with nir.write.",
        code="edge",
    )


def _add(path: Path, nodes: dict[str, Fields], more: dict[str, Fields]) -> None:
    if twice := sorted(nodes.keys() & more.keys()):
        raise GraphError(
            f"{path}: {twice[0]} is the name of two nodes once nested graphs are dissolved.",
            remedy="rename one of them.",
            code="nested-graph",
        )
    nodes.update(more)


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
    names = {key: _joined(prefix, key) for key in root["nodes"]}
    edges = [(_end(path, prefix, names, a), _end(path, prefix, names, b)) for a, b in stored.reshape(-1, 2)]
    for key, fields in root["nodes"].items():
        name = names[key]
        if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            raise GraphError(
                f"{path}: node {name} has no type.",
                remedy="write the file again with nir.write.",
                code="malformed-file",
            )
        if fields["type"] != "NIRGraph":
            _add(path, nodes, {name: fields})
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
        _add(path, nodes, inner_nodes)
        for end in ends.values():
            before = [a for a, b in edges if b == end]
            after = [b for a, b in edges if a == end]
            edges = [edge for edge in edges if end not in edge] + [(a, b) for a in before for b in after]
            del nodes[end]
    return nodes, edges
