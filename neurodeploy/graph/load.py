"""One verb for every kind of network file."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph


def load(path: str | Path, **options: Any) -> Graph:
    """Read a network file into the graph.

    Args:
        path: ``.nir`` (options: see ``read_nir``), or ``.onnx``: a graph that ``save_graph`` wrote, or a trained
            feed-forward network of another tool (options: see ``read_onnx_network``).
        options: passed to the reader.

    Raises:
        GraphError: the file is missing, of an unknown kind, or cannot be read exactly.
    """
    path = Path(path)
    if path.suffix not in (".nir", ".onnx"):
        missing = "" if path.exists() else "no such file, and "
        raise GraphError(
            f"{path}: {missing}files of kind {path.suffix!r} are not networks.",
            remedy="give a .nir or .onnx file; for a torch module use nd.trace(module, sample).",
            code="suffix",
        )
    if path.suffix == ".nir":
        from neurodeploy.graph.nir_reader import read_nir

        reader: Callable[..., Graph] = read_nir
    else:
        from neurodeploy.graph.onnx_load import load_onnx

        reader = load_onnx
    known = [name for name in inspect.signature(reader).parameters if name != "path"]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise GraphError(
            f"{path}: unknown options: {', '.join(unknown)}.",
            remedy=f"the options of a {path.suffix} file are: {', '.join(known) or 'none'}.",
            code="option",
        )
    return reader(path, **options)
