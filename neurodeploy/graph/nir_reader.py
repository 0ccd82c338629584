"""NIR files into the graph: every node is exact, assumed, approximated within a bound, or refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph.fidelity import Fidelity, Remark, as_notes
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.integration import Scheme
from neurodeploy.graph.nir_file import Fields, NirFile, read_nir_file
from neurodeploy.graph.nir_layers import LAYER_KINDS, Choices, read_layer, write_layer
from neurodeploy.graph.nir_loops import with_feedback, with_sums
from neurodeploy.graph.nir_metadata import DTYPES, fingerprint, restored, unpack
from neurodeploy.graph.nir_neurons import GIVEN, LEAKY_KINDS, NEURON_KINDS, SYNAPSE, Cell, read_cell, write_cell
from neurodeploy.graph.nir_spike_times import SECONDS, TauUnit, check_unit, read_continuous, write_continuous
from neurodeploy.graph.nir_stored import StoredNode
from neurodeploy.graph.nir_time import recover_dt_us
from neurodeploy.graph.nodes import LI, Add, BatchNorm2d, Compare, Concat, CubaLIF, Feedback, Neuron, Node
from neurodeploy.neuron import Reset, Spikes

#: Fields of a neuron that follow from the time step: a time step given by the caller replaces them.
_TIMED = ("decay", "input_gain", "scheme", "dt_us", "tau", "r")


def read_nir(
    path: str | Path,
    *,
    reset: Reset | None = None,
    compare: Compare | None = None,
    spikes: Spikes | None = None,
    dt_us: float | None = None,
    scheme: Scheme | None = None,
    continuous_time: bool = False,
    tau_unit: TauUnit | None = None,
    max_spikes: int = 16,
    t_max: float | None = None,
) -> Graph:
    """Read a NIR file (format of nir >= 1.0.8; files of 0.1 and 0.2 too); all node kinds.

    Node names are the file's; nested graphs are dissolved, their names joined by a dot. A node with several incoming
    edges receives their sum, as NIR defines: an explicit Add. A loop takes one time step, directly behind its neuron:
    an explicit Feedback. A current-based neuron is an LI ``<name>.synapse`` and its membrane.

    What NIR does not say is decided here and reported: the reset is ``"subtract"`` where the file stores no ``v_reset``
    (the convention of sinabs) and ``"zero"`` where it stores ``v_reset = 0``; a spike is fired at ``v >= threshold``
    where NIR's equations say ``>``; there is no lower bound of the potential. Metadata written by ``save_nir`` says
    these things and is followed.

    Args:
        path: the file.
        reset: what a spike does to the potential, for every neuron, whatever the file says.
        compare: ``">"`` for NIR's own comparison, for every neuron.
        spikes: how many spikes one step can have, for every neuron; None: ``"multi"`` for IF, which integrates the
            events of a step (sinabs' convention), ``"single"`` for the others, as NIR's equations say.
        dt_us: time step in microseconds, needed where neurons leak or a delay is not 0: NIR is in continuous time.
            None: from the metadata, or recovered where ``r = tau / dt`` holds for two time constants or more.
        scheme: discretisation of neurons that leak, see ``integration.py``; with a recovered time step ``"euler"``,
            because that is the scheme whose gain ``r dt / tau`` is then 1.
        continuous_time: read every CubaLIF as neurons in continuous time (node ``CubaLIF``, for analog chips) instead
            of steps. Those that ``save_nir`` wrote from such a node are read so anyway.
        tau_unit: of the time constants of those; NIR names none. None: as the metadata says, or seconds.
        max_spikes: spikes that one of those neurons can fire in a run.
        t_max: end of a run in seconds, for those; None: when all are at rest.

    Returns:
        The graph. ``graph.fidelity`` says what became of each node of the file; ``graph.notes`` says it in words.

    Raises:
        GraphError: the file is missing or malformed, or holds something the graph cannot express.
    """
    choices = Choices(reset, compare, spikes, scheme, dt_us, continuous_time, tau_unit, max_spikes, t_max)
    return _Reader(Path(path), choices).graph()


def check_nir(
    path: str | Path,
    *,
    reset: Reset | None = None,
    compare: Compare | None = None,
    spikes: Spikes | None = None,
    dt_us: float | None = None,
    scheme: Scheme | None = None,
    continuous_time: bool = False,
    tau_unit: TauUnit | None = None,
    max_spikes: int = 16,
    t_max: float | None = None,
) -> tuple[Fidelity, ...]:
    """What ``read_nir`` would make of each node of the file, refusals included: the first does not end the check.

    Raises:
        GraphError: the file is missing or malformed as a whole, or an option is.
    """
    choices = Choices(reset, compare, spikes, scheme, dt_us, continuous_time, tau_unit, max_spikes, t_max)
    reader = _Reader(Path(path), choices, keep_going=True)
    try:
        return reader.graph().fidelity
    except GraphError as error:
        if not reader.report:
            raise
        whole = () if reader.refused else (Fidelity("", "NIRGraph", (Remark("refused", str(error)),)),)
        return (*reader.report, *whole)


class _Reader:
    """One reading of one file; collects the report."""

    def __init__(self, path: Path, choices: Choices, *, keep_going: bool = False) -> None:
        self.path = path
        self.given = choices
        self.keep_going = keep_going
        self.report: list[Fidelity] = []
        self.refused = False
        for option, value, allowed in (
            ("reset", choices.reset, get_args(Reset)),
            ("compare", choices.compare, get_args(Compare)),
            ("scheme", choices.scheme, get_args(Scheme)),
        ):
            if value is not None and value not in allowed:
                raise GraphError(
                    f"{option} is {value!r}; the choices are: {', '.join(allowed)}.",
                    remedy=f"choose one of them, or leave {option} out.",
                    code="option",
                )
        spikes = choices.spikes
        if spikes is not None and (spikes not in ("multi", "single") and not (isinstance(spikes, int) and spikes > 0)):
            raise GraphError(
                f"spikes is {spikes!r}.", remedy="choose 'multi', 'single' or a whole number.", code="option"
            )
        dt_us = choices.dt_us
        if dt_us is not None and not (dt_us > 0 and np.isfinite(dt_us)):
            raise GraphError(f"dt_us is {dt_us}; it must be positive.", remedy="give the time step.", code="option")
        if choices.tau_unit is not None:
            check_unit(choices.tau_unit)
        if choices.max_spikes < 1 or not (choices.t_max is None or 0 < choices.t_max < np.inf):
            raise GraphError(
                f"max_spikes is {choices.max_spikes}, t_max {choices.t_max}.",
                remedy="give at least 1 spike, and seconds above 0 or None.",
                code="option",
            )

    def graph(self) -> Graph:
        file = read_nir_file(self.path)
        try:
            return self._graph(file)
        except GraphError as error:
            if error.message.startswith(str(self.path)):
                raise
            raise GraphError(f"{self.path}: {error.message}", remedy=error.remedy, code=error.code) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise GraphError(
                f"{self.path}: a stored value has the wrong form: {error}.",
                remedy="write the file again with nir.write of nir >= 1.0.8.",
                code="malformed-file",
            ) from error

    def _graph(self, file: NirFile) -> Graph:
        self.recovered, self.hint = recover_dt_us(file.nodes)
        built: dict[str, Node] = {}
        inner: list[Edge] = []
        first: GraphError | None = None
        for name, fields in file.nodes.items():
            stored = StoredNode(name, fields)
            try:
                nodes = self._nodes(stored)
            except GraphError as error:
                if not self.keep_going:
                    raise
                first = first or error
                self.refused = True
                stored.remark("refused", f"{error.message} {error.remedy}")
                nodes = {}
            self.report.append(Fidelity(name, stored.kind, tuple(stored.remarks)))
            if clash := next((key for key in nodes if key in built or (key != name and key in file.nodes)), None):
                raise GraphError(f"two nodes are called {clash}.", remedy="rename one of them.", code="malformed-file")
            built.update(nodes)
            if len(nodes) == 2:
                inner.append((name + SYNAPSE, name))
        if first is not None:
            raise first
        graph = self._stated(file, built) or self._inferred(file, built, inner)
        for name, node in graph.nodes.items():
            if isinstance(node, Feedback):
                self._add_loop(graph.predecessors(name)[0])
        for name, fields in file.nodes.items():
            shape = StoredNode(name, fields).shape("shape")
            if fields["type"] == "Output" and shape is not None and shape != graph.shapes[name]:
                self._add(name, Remark("exact", f"the file states another output shape than {graph.shapes[name]}"))
        return Graph(graph.nodes, graph.edges, as_notes(self.report), tuple(self.report))

    def _add(self, name: str, remark: Remark) -> None:
        self.report = [
            replace(entry, remarks=(*entry.remarks, remark)) if entry.node == name else entry for entry in self.report
        ]

    def _add_loop(self, source: str) -> None:
        text = "in a loop: its output goes round with one time step of delay, which continuous time does not have"
        self._add(source.removesuffix(".sum"), Remark("approximated", text, 1.0, "time step of delay"))

    def _inferred(self, file: NirFile, built: dict[str, Node], inner: list[Edge]) -> Graph:
        """The graph that the file's own edges say."""
        entries = {name: name + SYNAPSE for _, name in inner}
        edges = [(a, entries.get(b, b)) for a, b in file.edges] + inner
        nodes, edges = with_sums(built, edges)
        nodes, edges = with_feedback(nodes, edges)
        return Graph(nodes, tuple(edges))

    def _stated(self, file: NirFile, built: dict[str, Node]) -> Graph | None:
        """The graph that the metadata states, if it belongs to these nodes and edges."""
        if (unpacked := unpack(file.metadata)) is None:
            return None
        entry, _ = unpacked
        if entry.get("fingerprint") != fingerprint(file.nodes, file.edges):
            self._add(
                next(iter(file.nodes)), Remark("assumed", "the graph was changed since its metadata: that is left out")
            )
            return None
        nodes: dict[str, Node] = {}
        try:
            for name, kind, source, shape in entry["nodes"]:
                if kind in ("Add", "Concat"):
                    nodes[name] = Add() if kind == "Add" else Concat()
                elif kind == "Feedback":
                    nodes[name] = Feedback(tuple(int(size) for size in shape))
                elif built[source].kind == kind:
                    nodes[name] = built[source]
                else:
                    return None
            return Graph(nodes, tuple((str(a), str(b)) for a, b in entry["edges"]))
        except (KeyError, TypeError, ValueError):
            return None

    def _nodes(self, stored: StoredNode) -> dict[str, Node]:
        """The nodes of a stored one by name: one, or a synapse and a membrane."""
        entry, arrays = unpack(stored.fields.get("metadata")) or ({}, {})
        if isinstance(entry.get("dtypes"), dict):
            stored.dtypes = {key: value for key, value in entry["dtypes"].items() if value in DTYPES}
        continuous = stored.kind == CubaLIF.kind and (self.given.continuous_time or entry.get("kind") == CubaLIF.kind)
        choices = self._continuous(stored, entry) if continuous else self._choices(stored, entry)
        cell = None if continuous else read_cell(stored, choices)
        nodes: dict[str, Node] = {}
        if continuous:
            nodes[stored.name] = read_continuous(stored, choices)
        elif cell is not None:
            if cell.synapse is not None:
                nodes[stored.name + SYNAPSE] = cell.synapse
            nodes[stored.name] = cell.membrane
        elif (layer := read_layer(stored, choices)) is not None:
            nodes[stored.name] = layer
        else:
            raise stored.error(
                f"NIR nodes of type {stored.kind} are not supported.",
                f"the supported types are: {', '.join((*LAYER_KINDS, *NEURON_KINDS))}.",
                "unsupported-node",
            )
        return self._completed(stored, nodes, entry, arrays, choices) if entry else nodes

    def _continuous(self, stored: StoredNode, entry: dict[str, Any]) -> Choices:
        """The caller's choices; the unit of time is the metadata's where they leave it open."""
        stated = entry.get("tau_unit")
        if self.given.tau_unit is not None or stated not in SECONDS:
            return self.given
        return replace(self.given, tau_unit=stated)

    def _choices(self, stored: StoredNode, entry: dict[str, Any]) -> Choices:
        """The caller's choices; where they leave the time open, the metadata's or what the parameters imply."""
        given = self.given
        if stored.kind not in (*LEAKY_KINDS, "Delay"):
            return given
        time = entry.get("time")
        if isinstance(time, dict) and given.dt_us is None and given.scheme is None:
            dt_us, scheme = time.get("dt_us"), time.get("scheme")
            if isinstance(dt_us, float | int) and 0 < dt_us < np.inf and scheme in get_args(Scheme):
                return replace(given, dt_us=dt_us, scheme=scheme)
        if given.dt_us is None and self.recovered is not None:
            if stored.kind in LEAKY_KINDS:
                stored.remark("assumed", f"dt {self.recovered:g} us recovered from r = tau / dt")
            return replace(given, dt_us=self.recovered, scheme=given.scheme or "euler")
        if given.dt_us is None and self.hint is not None and stored.kind in LEAKY_KINDS:
            raise stored.error(
                f"a {stored.kind} is defined in continuous time, and the file does not state the time step.",
                f"give dt_us and scheme; if the writer stored r = tau / dt, they are dt_us={self.hint:g} and "
                "scheme='euler'.",
                "lif-needs-dt",
            )
        return given

    def _completed(
        self, stored: StoredNode, nodes: dict[str, Node], entry: dict[str, Any], arrays: dict[str, Any], used: Choices
    ) -> dict[str, Node]:
        """The nodes with what the metadata says beyond NIR, unless the stored fields contradict it."""
        changes: dict[str, Any] = {**arrays, **(entry["fields"] if isinstance(entry.get("fields"), dict) else {})}
        if self.given.reset is not None:
            changes = {key: value for key, value in changes.items() if key not in ("reset", "v_reset")}
        if self.given.compare is not None:
            changes.pop("compare", None)
        if self.given.spikes is not None:
            changes.pop("spikes", None)
        if self.given.dt_us is not None or self.given.scheme is not None:
            changes = {key: value for key, value in changes.items() if key.split(".")[-1] not in _TIMED}
        try:
            if entry.get("kind") == BatchNorm2d.kind:
                completed: dict[str, Node] = {stored.name: BatchNorm2d(**changes)}
            else:
                completed = {}
                for name, node in nodes.items():
                    prefix = "synapse." if name.endswith(SYNAPSE) and name != stored.name else ""
                    own = {
                        key.removeprefix(prefix): value
                        for key, value in changes.items()
                        if (key.startswith("synapse.") if prefix else "." not in key)
                    }
                    completed[name] = replace(node, **restored(node, own))
            said = self.given.reset is not None or _same(stored, self._written(stored, completed, used))
        except (GraphError, TypeError, ValueError, AttributeError):
            said = False
        if not said:
            stored.remark("assumed", "the node was changed since its metadata: that is left out")
            return nodes
        told = sorted({key for key in changes if key.split(".")[-1] not in _TIMED})
        stored.remarks = [
            remark
            for remark in stored.remarks
            if remark.status not in ("assumed", "exact") or remark.text.endswith(GIVEN)
        ]
        if told:
            stored.remark("assumed", f"{', '.join(told)} as the metadata says")
        return completed

    def _written(self, stored: StoredNode, nodes: dict[str, Node], used: Choices) -> Fields | None:
        """What ``save_nir`` would store for these nodes."""
        node = nodes[stored.name]
        if isinstance(node, CubaLIF):
            shape = np.shape(stored.stored("r"))
            node.output_shape(stored.name, [shape])
            return write_continuous(node, shape, used.tau_unit or "s")
        if isinstance(node, LI | Neuron):
            synapse = nodes.get(stored.name + SYNAPSE)
            cell = Cell(node, synapse if isinstance(synapse, LI) else None)
            return write_cell(stored.name, cell, np.shape(stored.stored("r")), used)
        arrays = [np.shape(stored.fields[key]) for key in ("scale", "threshold", "delay") if stored.has(key)]
        maps = {"Conv2d": (1, 1, 1), "Conv1d": (1, 1)}.get(stored.kind, (1,))
        return write_layer(stored.name, node, maps, arrays[0] if arrays else (1,), used.dt_us)


#: Stored fields that follow from the shapes around a node.
_FROM_SHAPES = ("shape", "input_shape", "input_type", "metadata")


def _same(stored: StoredNode, fields: Fields | None) -> bool:
    ours = {key: value for key, value in (fields or {}).items() if key not in _FROM_SHAPES}
    theirs = {key: value for key, value in stored.fields.items() if key not in _FROM_SHAPES}
    if "v_reset" not in ours and not np.any(theirs.get("v_reset", 0)):
        theirs.pop("v_reset", None)  # nir.read fills in 0 where none is stored
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
