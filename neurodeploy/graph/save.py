"""One verb for every kind of network file, and the network as an object of nir."""

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from neurodeploy.errors import GraphError
from neurodeploy.graph.fidelity import Fidelity
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.integration import Scheme


def save(graph: Graph, path: str | Path, **options: Any) -> tuple[Fidelity, ...]:
    """Write a graph to a file, all or nothing; ``load`` reads an equal graph from it.

    Args:
        graph: float or integer.
        path: ``.nir`` (options: see ``save_nir``) or ``.onnx`` (options: see ``save_graph``).
        options: passed to the writer.

    Returns:
        What became of each node; empty for ``.onnx``, which says everything.

    Raises:
        GraphError: an unknown option, or the graph cannot be written in this format.
    """
    path = Path(path)
    writer: Callable[..., tuple[Fidelity, ...] | None]
    if path.suffix == ".nir":
        from neurodeploy.graph.nir_writer import save_nir

        writer = save_nir
    else:
        from neurodeploy.graph.file import save_graph

        writer = save_graph
    known = [name for name in inspect.signature(writer).parameters if name not in ("graph", "path")]
    if unknown := [name for name in options if name not in known]:
        raise GraphError(
            f"{path}: unknown options: {', '.join(unknown)}.",
            remedy=f"the options of a {path.suffix} file are: {', '.join(known) or 'none'}.",
            code="option",
        )
    return writer(graph, path, **options) or ()


def to_nir(
    graph: Graph, *, dt_us: float | None = None, scheme: Scheme = "euler", tau_unit: Literal["s", "ms"] = "s"
) -> Any:
    """The graph as a ``nir.NIRGraph`` with metadata, as ``save_nir`` stores it (arguments and errors: see there)."""
    import nir

    from neurodeploy.graph.nir_writer import save_nir

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.nir"
        save_nir(graph, path, dt_us=dt_us, scheme=scheme, tau_unit=tau_unit)
        # nir checks shapes with its own inference, which takes a kernel's height for its width.
        return nir.read(path, type_check=False)
