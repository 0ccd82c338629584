"""The graph as a NIR file: every node as NIR says it, the rest in metadata, and a report of both."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields as node_fields
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.files import replacing
from neurodeploy.graph.fidelity import Fidelity, Remark
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.integration import Scheme
from neurodeploy.graph.nir_file import Fields
from neurodeploy.graph.nir_layers import Choices, read_layer, write_layer
from neurodeploy.graph.nir_metadata import fingerprint, pack, plain
from neurodeploy.graph.nir_neurons import SYNAPSE, Cell, read_cell, write_cell
from neurodeploy.graph.nir_spike_times import TauUnit, check_unit, read_continuous, write_continuous
from neurodeploy.graph.nir_stored import StoredNode
from neurodeploy.graph.nodes import (
    LI,
    Add,
    BatchNorm2d,
    Concat,
    Conv2d,
    CubaLIF,
    Feedback,
    Membrane,
    Neuron,
    Node,
    Shape,
)

#: The version of NIR whose layout is written.
NIR_VERSION = "1.0.8"

#: Numbers in the matrices that stand for a concatenation, at most.
_LARGEST_CONCAT = 1 << 26


def save_nir(
    graph: Graph,
    path: str | Path,
    *,
    dt_us: float | None = None,
    scheme: Scheme = "euler",
    tau_unit: TauUnit = "s",
) -> tuple[Fidelity, ...]:
    """Write a graph as a NIR file of version 1.0.8, all or nothing.

    ``read_nir`` gives an equal graph again. Other readers see what NIR can say; the rest (soft reset, lower bounds,
    several spikes per step, ``>=``, integer types, time step and scheme) is in metadata and in the report.

    Args:
        graph: float or integer.
        path: ``.nir``.
        dt_us: time step in microseconds; needed for delays, and for neurons that leak and are defined in steps.
        scheme: how such neurons are written as ``tau`` and ``r``; readers that use the same give the same steps.
        tau_unit: of the time constants of neurons in continuous time. NIR names none; hxtorch and jaxsnn read
            milliseconds. The metadata states it.

    Returns:
        What became of each node.

    Raises:
        GraphError: another suffix; a time step is needed; a loop of additions alone, or a neuron that no time constant
            describes.
    """
    path = Path(path)
    if path.suffix != ".nir":
        raise GraphError(f"{path}: NIR files are .nir.", remedy=f"use {path.stem}.nir.", code="suffix")
    if scheme not in get_args(Scheme):
        raise GraphError(
            f"scheme is {scheme!r}.", remedy=f"the choices are: {', '.join(get_args(Scheme))}.", code="option"
        )
    if dt_us is not None and not (dt_us > 0 and np.isfinite(dt_us)):
        raise GraphError(f"dt_us is {dt_us}; it must be positive.", remedy="give the time step.", code="option")
    check_unit(tau_unit)
    writer = _Writer(graph, Choices(dt_us=dt_us, scheme=scheme, tau_unit=tau_unit))
    content = writer.content()
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _store(file, content)
    return tuple(writer.report)


def _store(group: Any, content: Fields) -> None:
    """Nested dictionaries as groups and datasets, as nir.write lays them out."""
    import h5py

    for key, value in content.items():
        if isinstance(value, dict):
            _store(group.create_group(key), value)
        elif isinstance(value, str):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray) and value.ndim and value.size:
            group.create_dataset(key, data=value, compression="gzip")
        elif isinstance(value, list):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        else:
            group.create_dataset(key, data=value)


class _Writer:
    """One writing of one graph; collects the report."""

    def __init__(self, graph: Graph, choices: Choices) -> None:
        self.graph = graph
        self.choices = choices
        self.report: list[Fidelity] = []
        self.nodes: dict[str, Fields] = {}
        self.edges: list[tuple[str, str]] = []
        self.names = _file_names(graph)
        self.sums: dict[str, Counter[str]] = {}
        steps = {node.dt_us for node in graph.nodes.values() if isinstance(node, Membrane) and node.dt_us is not None}
        if choices.dt_us is None and len(steps) == 1:
            self.choices = replace(choices, dt_us=steps.pop())
        self.merged = {name for name in graph.nodes if self._is_synapse(name)}

    def content(self) -> Fields:
        """The whole file."""
        for name, node in self.graph.nodes.items():
            if isinstance(node, Add | Feedback | Concat):
                self._structural(name, node)
            elif name not in self.merged:
                self._stored(name, node)
        for name, node in self.graph.nodes.items():
            if not isinstance(node, Add | Concat | Feedback) and name not in self.merged:
                entry = name + SYNAPSE if name + SYNAPSE in self.merged else name
                self._connect(self.graph.predecessors(entry), self.names[name])
        metadata = pack({"fingerprint": fingerprint(self.nodes, self.edges), **self._structure()}, {})
        graph: Fields = {"type": "NIRGraph", "nodes": self.nodes, "edges": [list(edge) for edge in self.edges]}
        if not self.edges:
            graph["edges"] = np.zeros((0, 2))
        return {"version": NIR_VERSION, "node": {**graph, "metadata": metadata}}

    def _is_synapse(self, name: str) -> bool:
        """Whether an LI is written as the synaptic filter of the one node it feeds."""
        node, after = self.graph.nodes[name], self.graph.successors(name)
        if not isinstance(node, LI) or len(after) != 1 or name != after[0] + SYNAPSE:
            return False
        membrane = self.graph.nodes[after[0]]
        plain_filter = node.v_leak is None and node.initial_v is None and np.all(node.decay < 1)
        return isinstance(membrane, Membrane) and bool(plain_filter and np.all(membrane.decay < 1))

    def _structure(self) -> Fields:
        entries = []
        for name, node in self.graph.nodes.items():
            if isinstance(node, Add | Concat | Feedback):
                shape = list(node.shape) if isinstance(node, Feedback) else None
                entries.append([name, node.kind, None, shape])
            elif name in self.merged:
                entries.append([name, node.kind, self.names[self.graph.successors(name)[0]] + SYNAPSE, None])
            else:
                entries.append([name, node.kind, self.names[name], None])
        return {"nodes": entries, "edges": [list(edge) for edge in self.graph.edges]}

    def _sources(self, name: str) -> Counter[str]:
        """The stored nodes whose sum is the output of ``name``, each with how often it counts."""
        if name not in self.sums:
            node = self.graph.nodes[name]
            if not isinstance(node, Add | Feedback):
                return Counter({self.names[name]: 1})
            self._resolve(name)
        return self.sums[name]

    def _resolve(self, name: str) -> None:
        """Fill in ``sums`` for a node that NIR leaves out, without recursion: chains can be long."""
        stack = [name]
        under_way: set[str] = set()
        while stack:
            current = stack[-1]
            before = self.graph.predecessors(current)
            inner = [other for other in before if isinstance(self.graph.nodes[other], Add | Feedback)]
            missing = [other for other in inner if other not in self.sums]
            if missing and current in under_way:
                raise GraphError(
                    f"{current}: a loop of additions without a neuron or layer in it cannot be said in NIR.",
                    remedy="put the sum over time into an LI node.",
                    code="cycle",
                )
            if missing:
                under_way.add(current)
                stack += missing
                continue
            stack.pop()
            total: Counter[str] = Counter()
            for other in before:
                total.update(self.sums[other] if other in inner else {self.names[other]: 1})
            self.sums[current] = total

    def _connect(self, before: tuple[str, ...], destination: str) -> None:
        """Edges from what ``before`` stands for; a source that counts twice goes through a Scale of 2."""
        total: Counter[str] = Counter()
        for source in before:
            total.update(self._sources(source))
        for source, times in total.items():
            if times == 1:
                self.edges.append((source, destination))
                continue
            wire = self._free(f"{destination}.times{times}")
            shape = self.graph.shapes[before[0]]
            self.nodes[wire] = {"type": "Scale", "scale": np.full(shape, times, np.float32)}
            self.edges += [(source, wire), (wire, destination)]

    def _free(self, name: str) -> str:
        while name in self.nodes or name in self.names.values():
            name += "_"
        return name

    def _structural(self, name: str, node: Node) -> None:
        if isinstance(node, Concat):
            self._concat(name)
            return
        text = (
            "several edges into one node: NIR adds them"
            if isinstance(node, Add)
            else "NIR does not say that a loop takes a time step: the place is in the metadata only"
        )
        self.report.append(Fidelity(name, "edges", (Remark("exact" if isinstance(node, Add) else "assumed", text),)))

    def _concat(self, name: str) -> None:
        """A concatenation as a sum: each input is moved to its channels by a linear map of zeros and ones."""
        shape = self.graph.shapes[name]
        before = self.graph.predecessors(name)
        if shape[0] ** 2 > _LARGEST_CONCAT:
            raise GraphError(
                f"{name}: NIR has no concatenation; as a linear map of {shape[0]} channels it would be too large.",
                remedy="concatenate fewer channels, or write the graph as .onnx.",
                code="concat",
            )
        total = self.names[name]
        self.nodes[total] = {"type": "Scale", "scale": np.ones(shape, np.float32)}
        first = 0
        for number, source in enumerate(before):
            incoming = self.graph.shapes[source]
            part = self._free(f"{total}.{number}")
            self.nodes[part] = _placement(first, incoming, shape)
            self._connect((source,), part)
            self.edges.append((part, total))
            first += incoming[0]
        remark = Remark("exact", "a concatenation is written as a sum of linear maps of zeros and ones")
        self.report.append(Fidelity(name, "Scale", (remark,)))

    def _stored(self, name: str, node: Node) -> None:
        """One node with its metadata."""
        shape = self.graph.shapes[name]
        before = self.graph.predecessors(name)
        incoming = self.graph.shapes[before[0]] if before else ()
        synapse = self.graph.nodes[name + SYNAPSE] if name + SYNAPSE in self.merged else None
        choices = self._time(node)
        if isinstance(node, CubaLIF):
            fields = write_continuous(node, shape, choices.tau_unit or "s")
        elif isinstance(node, LI | Neuron):
            fields = write_cell(name, Cell(node, synapse if isinstance(synapse, LI) else None), shape, choices)
        else:
            written = write_layer(name, node, incoming, shape, choices.dt_us)
            if written is None:
                raise GraphError(f"{name}: a {node.kind} cannot be said in NIR.", remedy="remove it.", code="node")
            fields = written
        entry, arrays, remarks = _unsaid(name, node, synapse, fields, choices)
        metadata = {"metadata": pack(entry, arrays)} if entry or arrays else {}
        self.nodes[self.names[name]] = {**fields, **metadata}
        self.report.append(Fidelity(name, fields["type"], tuple(remarks)))

    def _time(self, node: Node) -> Choices:
        if isinstance(node, Membrane) and node.scheme is not None:
            return replace(self.choices, scheme=node.scheme, dt_us=node.dt_us)
        return self.choices


def _file_names(graph: Graph) -> dict[str, str]:
    """Names that an HDF5 group can have: no slash, not a dot alone, not empty; unique."""
    names: dict[str, str] = {}
    taken: set[str] = set(graph.nodes)
    for name in graph.nodes:
        safe = name.replace("/", ".").replace("\0", "")
        if safe != name or not safe.strip("."):
            safe = safe if safe.strip(".") else f"node{safe}"
            while safe in taken:
                safe += "_"
            taken.add(safe)
        names[name] = safe
    return names


def _placement(first: int, incoming: Shape, shape: Shape) -> Fields:
    """The linear map that moves channels to their place in a concatenation."""
    weight = np.zeros((shape[0], incoming[0]), np.float32)
    weight[first + np.arange(incoming[0]), np.arange(incoming[0])] = 1
    if len(shape) == 1:
        return {"type": "Linear", "weight": weight}
    one_d = len(shape) == 2
    return {
        "type": "Conv1d" if one_d else "Conv2d",
        "input_shape": incoming[1] if one_d else np.array(incoming[1:]),
        "weight": weight.reshape(*weight.shape, *[1] * (len(shape) - 1)),
        "stride": 1 if one_d else np.array((1, 1)),
        "padding": 0 if one_d else np.array((0, 0)),
        "dilation": 1 if one_d else np.array((1, 1)),
        "groups": 1,
        "bias": np.zeros(shape[0], np.float32),
    }


def _unsaid(
    name: str, node: Node, synapse: Node | None, fields: Fields, choices: Choices
) -> tuple[Fields, Fields, list[Remark]]:
    """What reading the fields back would lose: the metadata's entry, its arrays, and the remarks."""
    dtypes = {
        key: value.dtype.name
        for key, value in fields.items()
        if not isinstance(node, CubaLIF)
        and isinstance(value, np.ndarray)
        and value.dtype != np.float32
        and _types(node).get(key) == value.dtype
    }
    stored = StoredNode(name, fields, dtypes)
    continuous = read_continuous(stored, choices) if isinstance(node, CubaLIF) else None
    cell = None if continuous else read_cell(stored, choices)
    read = continuous or (cell.membrane if cell else read_layer(stored, choices))
    pairs: list[tuple[str, Node, Node | None]] = [("", node, read)]
    if synapse is not None and cell is not None:
        pairs.append(("synapse.", synapse, cell.synapse))
    entry: Fields = {"dtypes": dtypes} if dtypes else {}
    plain_fields: Fields = {}
    arrays: Fields = {}
    remarks: list[Remark] = []
    if dtypes and any(kind != "float64" for kind in dtypes.values()):
        types = ", ".join(f"{key} {kind}" for key, kind in dtypes.items())
        remarks.append(Remark("assumed", f"its types ({types}) are kept, but have no meaning in NIR"))
    if isinstance(node, CubaLIF):
        entry |= {"kind": node.kind, "tau_unit": choices.tau_unit}
        if choices.tau_unit != "s":
            remarks.append(Remark("assumed", f"time constants in {choices.tau_unit}: NIR names no unit"))
    if isinstance(node, BatchNorm2d):
        entry["kind"] = node.kind
        half = float(np.finfo(np.float32).eps / 2)
        text = "a normalisation is written as one factor and one bias per channel"
        remarks.append(Remark("approximated", text, half, "of each factor and bias"))
    for prefix, original, read in pairs:
        for part in node_fields(original):
            value = getattr(original, part.name)
            other = getattr(read, part.name, None) if type(read) is type(original) else None
            if type(read) is type(original) and _equal(value, other) and not _by_convention(part.name, value):
                continue
            if isinstance(value, np.ndarray | np.generic):
                arrays[prefix + part.name] = np.asarray(value)
            else:
                plain_fields[prefix + part.name] = plain(value)
            lost = _loss(part.name, value, other) if type(read) is type(original) else None
            if lost is not None:
                remarks.append(Remark("assumed", lost))
    if any(isinstance(part, Membrane) and fields["type"] not in ("I", "IF") for part in (node, synapse)):
        entry["time"] = {"dt_us": choices.dt_us, "scheme": choices.scheme}
        said = "the factors of a step are written as" if isinstance(node, Membrane) and node.tau is None else "the"
        text = f"{said} tau and r of scheme {choices.scheme!r} and dt {choices.dt_us:g} us, which NIR does not say"
        remarks.append(Remark("assumed", text))
    elif fields["type"] == "Delay" and choices.dt_us is not None:
        entry["time"] = {"dt_us": choices.dt_us, "scheme": choices.scheme}
    if plain_fields:
        entry["fields"] = plain_fields
    if arrays and not entry:
        entry = {"fields": {}}
    return entry, arrays, remarks


def _types(node: Node) -> Mapping[str, np.dtype[Any]]:
    """The types of a node's arrays, under the names of NIR's fields."""
    own: dict[str, np.dtype[Any]] = {
        part.name: np.asarray(getattr(node, part.name)).dtype
        for part in node_fields(node)
        if isinstance(getattr(node, part.name), np.ndarray | np.generic)
    }
    if isinstance(node, Membrane):
        own["r"] = own["input_gain"] if node.scheme is None else np.dtype(np.float32)
    if isinstance(node, Neuron):
        own["v_threshold"] = own["threshold"]
        if "v_reset" not in own:
            own["v_reset"] = own["threshold"]
    if isinstance(node, Conv2d) and "bias" not in own:
        own["bias"] = own["weight"]
    return own


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic) or isinstance(b, np.ndarray | np.generic):
        return (
            a is not None
            and b is not None
            and np.asarray(a).dtype == np.asarray(b).dtype
            and np.array_equal(np.asarray(a), np.asarray(b))
        )
    return bool(a == b)


def _by_convention(field: str, value: Any) -> bool:
    """Whether a field says what NIR does not, although our reader would assume it."""
    return (
        (field == "reset" and value in ("subtract", "none"))
        or (field == "compare" and value == ">=")
        or (field == "spikes" and value != "single")
    )


#: Fields whose difference is one of form: another reader computes the same.
_FORM = (
    "bias",
    "decay",
    "input_gain",
    "scheme",
    "dt_us",
    "tau",
    "r",
    "tau_mem",
    "tau_syn_exc",
    "v_leak",
    "threshold",
    "scale",
    "steps",
    "weight",
)


#: Choices that NIR's equations make, although our reader follows other conventions for some files.
_AS_NIR_SAYS = {"reset": ("zero", "value"), "compare": (">",), "spikes": ("single",)}


def _loss(field: str, value: Any, read: Any) -> str | None:
    """The remark for a field that only the metadata says; None where another reader loses nothing."""
    if field in _FORM or (field == "v_reset" and read is not None) or value in _AS_NIR_SAYS.get(field, ()):
        return None
    if isinstance(value, np.ndarray | np.generic):
        return f"{field} is in the metadata only"
    return f"{field} {value!r} is in the metadata only"
