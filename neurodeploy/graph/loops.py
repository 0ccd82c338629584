"""Which nodes of a graph can run over all time steps at once, and which have to run step by step together."""

from neurodeploy.graph.graph import Graph


def units(graph: Graph) -> list[list[str]]:
    """The nodes in an order in which they can run; nodes of one loop are together (Tarjan 1972).

    A node alone can run over all time steps once its predecessors have. Nodes of a loop need each other's values of
    the step before; they are in the graph's order, which is that of one step.
    """
    position = {name: number for number, name in enumerate(graph.nodes)}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_nodes: list[str] = []
    is_open: set[str] = set()
    found: list[list[str]] = []
    for start in graph.nodes:
        work = [] if start in index else [(start, 0)]
        while work:
            name, child = work.pop()
            if child == 0:
                index[name] = low[name] = len(index)
                open_nodes.append(name)
                is_open.add(name)
            after = graph.successors(name)
            if child < len(after):
                work.append((name, child + 1))
                if after[child] not in index:
                    work.append((after[child], 0))
                elif after[child] in is_open:
                    low[name] = min(low[name], index[after[child]])
                continue
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[name])
            if low[name] == index[name]:
                unit: list[str] = []
                while not unit or unit[-1] != name:
                    unit.append(open_nodes.pop())
                    is_open.discard(unit[-1])
                found.append(sorted(unit, key=position.__getitem__))
    return found[::-1]
