"""What NIR has no field for, in the metadata of its nodes and of the graph.

A node's entry is a JSON text under ``neurodeploy`` and arrays under ``neurodeploy_<field>``. It completes the node; it
never changes what the fields of NIR say: a reader takes it only if writing the completed node again gives the stored
fields. The graph's entry states nodes and edges that NIR leaves out (additions, concatenations, where a loop takes its
step of delay) with a fingerprint of the nodes and edges it belongs to.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from neurodeploy.files import canonical_json
from neurodeploy.graph.nir_file import Fields
from neurodeploy.graph.nodes import Node

_ENTRY = "neurodeploy"
_ARRAY = "neurodeploy_"
VERSION = 1


def pack(entry: dict[str, Any], arrays: dict[str, Any]) -> Fields:
    """An entry as NIR metadata."""
    content = canonical_json({**entry, "version": VERSION})
    return {_ENTRY: content, **{_ARRAY + key: np.asarray(value) for key, value in arrays.items()}}


def unpack(metadata: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The entry and its arrays; None where there is none of this version."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_ENTRY), str):
        return None
    try:
        entry = json.loads(metadata[_ENTRY])
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.pop("version", None) != VERSION:
        return None
    arrays = {key.removeprefix(_ARRAY): np.asarray(value) for key, value in metadata.items() if key.startswith(_ARRAY)}
    return entry, arrays


def fingerprint(nodes: dict[str, Fields], edges: Iterable[tuple[str, str]]) -> str:
    """Of names, kinds and edges, whatever their order."""
    content = [sorted((name, str(fields["type"])) for name, fields in nodes.items()), sorted(set(edges))]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A field of a node that is not an array, as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


#: Types that arrays may have beside float32.
DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float64")


def restored(node: Node, changes: dict[str, Any]) -> dict[str, Any]:
    """Fields for ``dataclasses.replace``: lists are tuples.

    Raises:
        ValueError: no field of the node, an array where there is none in the node's dataclass or the other way round,
            or an array of something else than finite numbers (a refractory time may be endless).
    """
    known = node.__dataclass_fields__
    fields: dict[str, Any] = {}
    for key, value in changes.items():
        is_array = isinstance(value, np.ndarray)
        if key not in known or (value is not None and is_array != ("ndarray" in str(known[key].type))):
            raise ValueError(key)
        if is_array and (value.dtype.kind not in "fiub" or not _allowed(key, value)):
            raise ValueError(key)
        fields[key] = tuple(value) if isinstance(value, list) else value
    return fields


def _allowed(key: str, value: Any) -> bool:
    return bool((np.isfinite(value) | ((value == np.inf) & (key == "t_ref"))).all())
