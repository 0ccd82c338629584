"""``.onnx`` files: our own graphs, and trained networks of other tools."""

from pathlib import Path

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.onnx_file import is_own, read_model
from neurodeploy.graph.onnx_network import MaxPool, read_onnx_network
from neurodeploy.graph.onnx_reader import from_onnx


def load_onnx(path: str | Path, *, max_pool: MaxPool = "refuse") -> Graph:
    """Read a graph that ``save_graph`` wrote, or a network of another tool as ``read_onnx_network`` does.

    Raises:
        GraphError: the file is missing, damaged or too large, or holds what the graph cannot.
    """
    path = Path(path)
    model, data = read_model(path)
    if not is_own(model):
        return read_onnx_network(path, model, max_pool=max_pool)
    if max_pool != "refuse":
        raise GraphError(f"{path}: a graph of neurodeploy has no MaxPool.", remedy="leave max_pool out.", code="option")
    return from_onnx(path, model, data)
