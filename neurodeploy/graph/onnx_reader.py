"""An ONNX model of our own back into the graph it was written from."""

import json
from pathlib import Path

import onnx

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.onnx_build import DOMAIN, DOMAIN_VERSION
from neurodeploy.graph.onnx_fields import decode_node
from neurodeploy.graph.onnx_file import arrays, damaged, is_intact
from neurodeploy.graph.onnx_writer import DESCRIPTION


def from_onnx(path: Path, model: onnx.ModelProto, data: bytes) -> Graph:
    """The graph of a model that ``to_onnx`` wrote.

    Args:
        path: of the file, for messages.
        model: its content.
        data: its bytes.

    Raises:
        GraphError: the file is of another version, damaged or edited.
    """
    versions = {opset.version for opset in model.opset_import if opset.domain == DOMAIN}
    if versions != {DOMAIN_VERSION}:
        raise GraphError(
            f"{path}: version {', '.join(map(str, sorted(versions)))} of {DOMAIN}; this version reads "
            f"{DOMAIN_VERSION}.",
            remedy="save the graph again with this version.",
            code="version",
        )
    if not is_intact(data):
        raise damaged(path, "its content does not match its hash")
    stored = arrays(path, model)
    try:
        (text,) = (entry.value for entry in model.metadata_props if entry.key == DESCRIPTION)
        content = json.loads(text)
        nodes = {entry["name"]: decode_node(entry, stored) for entry in content["nodes"]}
        edges, notes = tuple((a, b) for a, b in content["edges"]), tuple(content["notes"])
        words = {*nodes, *notes, *(name for edge in edges for name in edge)}
        if len(nodes) != len(content["nodes"]) or not all(isinstance(word, str) for word in words):
            raise ValueError("a name occurs twice or is no text")
        return Graph(nodes, edges, notes)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise damaged(path, f"its description cannot be read ({error!r})") from error
