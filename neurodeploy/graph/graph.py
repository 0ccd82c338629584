"""The graph: named typed nodes and edges, checked when it is made, never changed afterwards."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import MappingProxyType

from neurodeploy.errors import GraphError
from neurodeploy.graph.fidelity import Fidelity
from neurodeploy.graph.nodes import Feedback, Input, Node, Output, Shape

Edge = tuple[str, str]


@dataclass(frozen=True)
class Graph:
    """A directed graph of nodes; every loop goes through a node that closes it (Feedback).

    Attributes:
        nodes: name -> node, kept in topological order (ties in the order given). A node that closes a loop does not
            wait for its input: it gives what it received in the step before.
        edges: (source, destination) pairs; the order of the edges into one node is the order of its inputs.
        notes: what an importer or pass had to assume or drop, in words; shown by the CLI and in the report.
        fidelity: what an importer made of each node of the file, as data; passes keep it.
        shapes: name -> shape the node produces, inferred.

    Raises:
        GraphError: an edge names no node, there is no Input or Output, a cycle, a node that is not connected, or
            shapes that do not fit.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    fidelity: tuple[Fidelity, ...] = field(default=(), compare=False, repr=False)
    shapes: Mapping[str, Shape] = field(init=False, compare=False, repr=False)
    _before: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)
    _after: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        order = _topological_order(self.nodes, self.edges)
        before: dict[str, list[str]] = {name: [] for name in order}
        after: dict[str, list[str]] = {name: [] for name in order}
        for source, destination in self.edges:
            before[destination].append(source)
            after[source].append(destination)
        object.__setattr__(self, "_before", {name: tuple(names) for name, names in before.items()})
        object.__setattr__(self, "_after", {name: tuple(names) for name, names in after.items()})
        object.__setattr__(self, "nodes", MappingProxyType({name: self.nodes[name] for name in order}))
        object.__setattr__(self, "edges", tuple(self.edges))
        shapes: dict[str, Shape] = {}
        for name, node in self.nodes.items():
            if isinstance(node, Feedback):
                shapes[name] = node.shape
            else:
                shapes[name] = node.output_shape(name, [shapes[source] for source in self.predecessors(name)])
        for name, node in self.nodes.items():
            if isinstance(node, Feedback):
                node.output_shape(name, [shapes[source] for source in self.predecessors(name)])
        object.__setattr__(self, "shapes", MappingProxyType(shapes))
        for kind, side in ((Input, self.predecessors), (Output, self.successors)):
            if not any(isinstance(node, kind) for node in self.nodes.values()):
                raise GraphError(
                    f"the graph has no {kind.kind} node.",
                    remedy=f"add one {kind.kind} node and connect it.",
                    code=f"no-{kind.kind.lower()}",
                )
            for name, node in self.nodes.items():
                if not isinstance(node, kind) and not side(name):
                    raise GraphError(
                        f"{name} ({node.kind}) is not connected to an {kind.kind}.",
                        remedy="connect it or remove it.",
                        code="unconnected",
                    )

    def predecessors(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that feed ``name``, in edge order."""
        return self._before.get(name, ())

    def successors(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that ``name`` feeds, in edge order."""
        return self._after.get(name, ())

    def input_shape(self) -> Shape:
        """Shape of the only Input.

        Raises:
            GraphError: the graph has several Inputs.
        """
        inputs = [name for name, node in self.nodes.items() if isinstance(node, Input)]
        if len(inputs) != 1:
            raise GraphError(
                f"the graph has {len(inputs)} inputs: {', '.join(inputs)}.",
                remedy="use a network with one input.",
                code="several-inputs",
            )
        return self.shapes[inputs[0]]

    def with_nodes(self, changed: Mapping[str, Node], *, notes: Iterable[str] = ()) -> "Graph":
        """The same graph with some nodes replaced (same names, same edges) and notes added."""
        return Graph({**self.nodes, **changed}, self.edges, (*self.notes, *notes), self.fidelity)

    def without(self, name: str, *, notes: Iterable[str] = ()) -> "Graph":
        """The same graph without ``name``: its only predecessor is connected to its successors."""
        (source,) = self.predecessors(name)
        edges = tuple((source if a == name else a, b) for a, b in self.edges if b != name)
        nodes = {key: node for key, node in self.nodes.items() if key != name}
        return Graph(nodes, edges, (*self.notes, *notes), self.fidelity)


#: A pass is a named function; ``compile -v`` prints its ``__name__`` and the first line of its docstring.
Pass = Callable[[Graph], Graph]


def _topological_order(nodes: Mapping[str, Node], edges: Iterable[Edge]) -> list[str]:
    edges = list(edges)
    for source, destination in edges:
        for name in (source, destination):
            if name not in nodes:
                raise GraphError(
                    f"edge {source} -> {destination} names a node that does not exist: {name}.",
                    remedy=f"the nodes are: {', '.join(nodes)}.",
                    code="edge",
                )
    position = {name: number for number, name in enumerate(nodes)}
    waiting = dict.fromkeys(nodes, 0)
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, destination in edges:
        if not isinstance(nodes[destination], Feedback):
            waiting[destination] += 1
            after[source].append(destination)
    ready = [position[name] for name, count in waiting.items() if count == 0]
    names = list(nodes)
    order: list[str] = []
    while ready:
        name = names[heappop(ready)]
        order.append(name)
        del waiting[name]
        for destination in after[name]:
            waiting[destination] -= 1
            if waiting[destination] == 0:
                heappush(ready, position[destination])
    if waiting:
        raise GraphError(
            f"the graph has a cycle through: {', '.join(waiting)}.",
            remedy="put a Feedback node (a delay of one step) into the loop, or remove the edge that closes it.",
            code="cycle",
        )
    return order
