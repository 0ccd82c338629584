"""Loops of a NIR graph: where they take their step of delay.

In continuous time a loop through a neuron needs no delay; a simulation in steps has one step in every loop. It is put
directly behind the neuron (spikes of the step before go through the recurrent weights, whose bias acts in every
step), which is what snnTorch, Norse and the NIR paper's recurrent networks do.
"""

from collections.abc import Mapping, Sequence

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Edge
from neurodeploy.graph.nodes import Add, Feedback, Input, Membrane, Node, Shape


def with_sums(nodes: dict[str, Node], edges: Sequence[Edge]) -> tuple[dict[str, Node], list[Edge]]:
    """An Add before every node with several incoming edges."""
    counts: dict[str, int] = {}
    for _, destination in edges:
        counts[destination] = counts.get(destination, 0) + 1
    totals = {name: _free(f"{name}.sum", nodes) for name in nodes if counts.get(name, 0) > 1}
    changed = [(a, totals.get(b, b)) for a, b in edges] + [(total, name) for name, total in totals.items()]
    return {**nodes, **{total: Add() for total in totals.values()}}, changed


def with_feedback(nodes: dict[str, Node], edges: Sequence[Edge]) -> tuple[dict[str, Node], list[Edge]]:
    """A Feedback in every loop, behind its neuron.

    Raises:
        GraphError: a loop without a neuron in it, or whose shapes cannot be inferred.
    """
    edges = list(edges)
    behind: dict[str, str] = {}
    while breaks := _breaks(nodes, edges):
        for source in dict.fromkeys(source for source, _ in breaks):
            behind.setdefault(source, _free(f"{source}.feedback", {**nodes, **dict.fromkeys(behind.values())}))
        edges = [(behind[a] if (a, b) in breaks else a, b) for a, b in edges]
    edges += behind.items()
    shapes = _shapes(nodes, [edge for edge in edges if edge[1] not in behind.values()])
    for source, name in behind.items():
        if source not in shapes:
            raise GraphError(
                f"the shape of {source}, in a loop, cannot be inferred.",
                remedy="connect an Input to the loop.",
                code="unconnected",
            )
        nodes = {**nodes, name: Feedback(shapes[source])}
    return nodes, edges


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "_"
    return name


def _breaks(nodes: Mapping[str, Node], edges: Sequence[Edge]) -> set[Edge]:
    """Edges behind neurons that close the loops which one depth-first search finds; each loop is cut once."""
    after: dict[str, list[str]] = {name: [] for name in nodes}
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for source, destination in edges:
        if source in nodes:
            after[source].append(destination)
            before[destination].append(source)
        else:
            before[destination].append(source)  # a Feedback: cut already
    found: set[Edge] = set()
    done: set[str] = set()
    # From the inputs: a loop is then closed by the edge that comes back to where it is entered.
    for start in sorted(nodes, key=lambda name: not isinstance(nodes[name], Input)):
        path: list[str] = []
        place: dict[str, int] = {}
        stack: list[tuple[str, int]] = [] if start in done else [(start, 0)]
        while stack:
            name, child = stack.pop()
            if child == 0:
                place[name] = len(path)
                path.append(name)
            if child == len(after[name]):
                done.add(name)
                del place[name]
                path.pop()
                continue
            stack.append((name, child + 1))
            following = after[name][child]
            if following in place:
                loop = path[place[following] :]
                if not any((a, b) in found for a, b in zip(loop, [*loop[1:], loop[0]], strict=True)):
                    found.add(_cut(nodes, before, loop))
            elif following not in done:
                stack.append((following, 0))
    return found


def _cut(nodes: Mapping[str, Node], before: Mapping[str, Sequence[str]], loop: Sequence[str]) -> Edge:
    """The edge of a loop that takes the step of delay: as far back as nothing else joins, behind the neuron."""
    if not any(isinstance(nodes[name], Membrane) for name in loop):
        raise GraphError(
            f"a loop without a neuron in it: {', '.join(loop)}.",
            remedy="remove the edge that closes it: its values depend on themselves.",
            code="cycle",
        )
    last = len(loop) - 1
    while last > 0 and not isinstance(nodes[loop[last]], Membrane) and len(before[loop[last]]) == 1:
        last -= 1
    return loop[last], loop[(last + 1) % len(loop)]


def _shapes(nodes: Mapping[str, Node], edges: Sequence[Edge]) -> dict[str, Shape]:
    """Shapes as far as they follow without the Feedback nodes."""
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, destination in edges:
        before[destination].append(source)
        after.setdefault(source, []).append(destination)
    shapes: dict[str, Shape] = {}
    waiting = {name: sum(source in nodes for source in sources) for name, sources in before.items()}
    ready = [name for name, count in waiting.items() if count == 0]
    while ready:
        name = ready.pop()
        known = [shapes[source] for source in before[name] if source in shapes]
        if isinstance(nodes[name], Add):
            if known:
                shapes[name] = known[0]
        elif len(known) == len(before[name]):
            shapes[name] = nodes[name].output_shape(name, known)
        for destination in after[name]:
            waiting[destination] -= 1
            if waiting[destination] == 0:
                ready.append(destination)
    return shapes
