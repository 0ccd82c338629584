"""A node's fields as JSON and arrays, and back, checked against the types its class declares."""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph import nodes as kinds
from neurodeploy.graph.nodes import Array, Node

#: Kind -> class, of every node of ``nodes.py``.
KINDS: dict[str, type[Node]] = {
    value.kind: value
    for value in vars(kinds).values()
    if isinstance(value, type) and issubclass(value, Node) and value.kind != Node.kind
}


def encode_node(name: str, node: Node, store: Callable[[str, Array], str]) -> dict[str, Any]:
    """The node as JSON-ready data; arrays with axes go to ``store(field, array)``, which returns where they are.

    Raises:
        GraphError: a field holds what its class does not declare.
    """
    encoded: dict[str, Any] = {}
    hints = typing.get_type_hints(type(node))
    for part in fields(node):
        value = _plain(getattr(node, part.name), hints[part.name])
        if not _fits(value, hints[part.name]):
            raise GraphError(
                f"{name}: {part.name} of a {node.kind} is {value!r}; it cannot be written to a file.",
                remedy="give a value of the type that the node's documentation names; numbers must be finite.",
                code="field",
            )
        if not isinstance(value, np.ndarray):
            encoded[part.name] = value
        elif value.ndim:
            encoded[part.name] = {"tensor": store(part.name, value)}
        else:
            number = value.item()
            encoded[part.name] = {"dtype": value.dtype.name, "value": number if np.isfinite(number) else str(number)}
    return {"name": name, "kind": node.kind, "fields": encoded}


def decode_node(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Node:
    """The inverse of ``encode_node``.

    Raises:
        KeyError, TypeError, ValueError: the data is not what ``encode_node`` makes.
    """
    kind = KINDS[entry["kind"]]
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, stored in entry["fields"].items():
        value = _decode(stored, arrays)
        if not _fits(value, hints[name]):
            raise ValueError(f"{entry['name']}: {name} of a {kind.kind} is {stored!r}")
        values[name] = value
    return kind(**values)


def _decode(stored: Any, arrays: Mapping[str, Array]) -> Any:
    match stored:
        case {"tensor": str(where), **rest} if not rest:
            return arrays[where]
        case {"dtype": str(name), "value": int() | float() | str() as number, **rest} if not rest:
            dtype = np.dtype(name)
            if dtype.kind not in "fiu":
                raise ValueError(f"an array of {name}")
            return np.array(float(number) if isinstance(number, str) else number, dtype)
        case list():
            return tuple(_decode(part, arrays) for part in stored)
        case dict():
            raise ValueError(f"neither an array nor a number: {stored!r}")
    return stored


def _plain(value: Any, hint: Any) -> Any:
    """Numbers of NumPy as arrays where the field holds arrays, else as Python's."""
    if isinstance(value, np.generic):
        return np.asarray(value) if _fits(np.asarray(value), hint) else value.item()
    if isinstance(value, list | tuple):
        return tuple(_plain(part, None) for part in value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(part, arguments[0]) for part in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.dtype.itemsize <= 8
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is not None and isinstance(value, hint)
