"""Pass that turns a sum of layers in front of neurons into one layer, which is what a core can hold."""

from dataclasses import replace

import numpy as np

from neurodeploy.errors import QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Array, Concat, Conv2d, Feedback, Neuron, Node, SumPool2d


def merge_sums(graph: Graph) -> Graph:
    """Turn each Add of convolutions in front of neurons into one convolution of their concatenated inputs.

    ``W_a * a + W_b * b = [W_a | W_b] * (a, b)``, exactly: recurrent connections are the case in which ``b`` are spikes
    that come back. Kernels of different size are laid over each other so that their centres meet, with zeros around;
    biases add up. What is added without weights gets those of the identity. The layer keeps the name of the first
    convolution that is not behind a Feedback.

    Raises:
        QuantizeError: the convolutions have inputs of different size, strides, dilations or groups, so that no single
            one is equal.
    """
    for name, node in graph.nodes.items():
        after = graph.successors(name)
        if isinstance(node, Add) and len(after) == 1 and isinstance(graph.nodes[after[0]], Neuron):
            terms, sums = _terms(graph, name)
            if any(isinstance(graph.nodes[term], Conv2d) for term in terms):
                return merge_sums(_merged(graph, after[0], terms, sums))
    return graph


def _terms(graph: Graph, name: str) -> tuple[list[str], list[str]]:
    """What an Add adds up, sums of sums written out; and the names of the Adds."""
    terms: list[str] = []
    sums = [name]
    for before in graph.predecessors(name):
        if isinstance(graph.nodes[before], Add) and graph.successors(before) == (name,):
            inner, more = _terms(graph, before)
            terms += inner
            sums += more
        else:
            terms.append(before)
    return terms, sums


def _merged(graph: Graph, neuron: str, terms: list[str], sums: list[str]) -> Graph:
    convolutions = [term for term in terms if isinstance(graph.nodes[term], Conv2d)]
    forward = [name for name in convolutions if not _is_fed_back(graph, name)]
    main = (forward or convolutions)[0]
    terms.remove(main)
    terms.insert(0, main)
    own = {name for name in convolutions if len(graph.successors(name)) == 1}
    if len(own) < len(convolutions) or len(set(convolutions)) < len(convolutions):
        several = next(name for name in convolutions if name not in own or convolutions.count(name) > 1)
        raise _refused(neuron, f"{several} feeds something else too", f"give {neuron} a layer of its own.")
    inputs = [graph.predecessors(term)[0] if term in own else term for term in terms]
    parts = [_convolution(graph, term) for term in terms]
    _check_alike(graph, neuron, terms, inputs, parts)
    weight, padding = _laid_over(parts)
    out = graph.shapes[main][1:]
    given = graph.shapes[inputs[0]][1:]
    for size, k, p, s, wanted in zip(given, weight.shape[2:], padding, parts[0].stride, out, strict=True):
        if (size + 2 * p - k) // s + 1 != wanted:
            raise _refused(neuron, "their windows do not lie over each other", "use kernels with centred padding.")
    biases = [part.bias for part in parts if part.bias is not None]
    bias = np.asarray(np.sum(biases, 0, dtype=np.float64), np.float32) if biases else None
    joined = f"{main}.inputs"
    while joined in graph.nodes:
        joined += "."
    gone = {*own, *sums} - {main}
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if name == main:
            nodes[joined] = Concat()
            nodes[main] = replace(parts[0], weight=weight, bias=bias, padding=padding)
        elif name not in gone:
            nodes[name] = node
    edges = [(a, b) for a, b in graph.edges if a not in gone | own and b not in gone | own]
    edges += [*((source, joined) for source in inputs), (joined, main), (main, neuron)]
    note = f"{', '.join(terms[1:])} merged into {main}, which takes {' and '.join(inputs)} as one input."
    return Graph(nodes, tuple(edges), (*graph.notes, note), graph.fidelity)


def _is_fed_back(graph: Graph, name: str) -> bool:
    """Whether all that a layer takes comes from a Feedback."""
    before = [graph.nodes[other] for other in graph.predecessors(name)]
    return all(
        isinstance(node, Feedback)
        or (isinstance(node, SumPool2d | Add | Concat) and _is_fed_back(graph, graph.predecessors(name)[place]))
        for place, node in enumerate(before)
    )


def _convolution(graph: Graph, term: str) -> Conv2d:
    node = graph.nodes[term]
    if isinstance(node, Conv2d):
        return node
    return Conv2d(np.eye(graph.shapes[term][0], dtype=np.float32)[:, :, None, None])


def _check_alike(graph: Graph, neuron: str, terms: list[str], inputs: list[str], parts: list[Conv2d]) -> None:
    sizes = {graph.shapes[source][1:] for source in inputs}
    if len(sizes) > 1:
        named = ", ".join(f"{source} {graph.shapes[source]}" for source in inputs)
        raise _refused(
            neuron,
            f"they take maps of different size ({named}), and a core has one input map",
            f"put a layer of neurons between, so that {inputs[0]} has the size of the other input.",
        )
    for field in ("stride", "dilation", "groups"):
        values = [getattr(part, field) for part in parts]
        if any(value != values[0] for value in values):
            named = ", ".join(f"{term} {value}" for term, value in zip(terms, values, strict=True))
            raise _refused(neuron, f"they differ in their {field} ({named})", f"use one {field}.")
    if parts[0].groups != 1 or parts[0].dilation != (1, 1):
        what = f"they have {parts[0].groups} groups and the dilation {parts[0].dilation}"
        raise _refused(neuron, what, "write the weights out as one group, with zeros, and dilation 1.")


def _laid_over(parts: list[Conv2d]) -> tuple[Array, tuple[int, int]]:
    """The weights side by side ``[out, sum of in, ky, kx]``, and the padding with which each means what it did."""
    top, left = (max(part.padding[axis] for part in parts) for axis in (0, 1))
    starts = [(top - part.padding[0], left - part.padding[1]) for part in parts]
    ky, kx = (
        max(start[axis] + part.weight.shape[2 + axis] for start, part in zip(starts, parts, strict=True))
        for axis in (0, 1)
    )
    laid = []
    for (y, x), part in zip(starts, parts, strict=True):
        f, c, h, w = part.weight.shape
        whole = np.zeros((f, c, ky, kx), part.weight.dtype)
        whole[:, :, y : y + h, x : x + w] = part.weight
        laid.append(whole)
    return np.concatenate(laid, 1), (top, left)


def _refused(neuron: str, why: str, remedy: str) -> QuantizeError:
    return QuantizeError(
        f"{neuron}: the layers that are added in front of it cannot be one: {why}.", remedy=remedy, code="merge"
    )
