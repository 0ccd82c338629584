"""NIR files into the graph: every node is taken exactly, taken with a note, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nir_file import Fields, read_nir_file
from neurodeploy.graph.nodes import (
    Add,
    Array,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pair,
    Shape,
    SumPool2d,
)
from neurodeploy.graph.padding import named_padding
from neurodeploy.neuron import Reset

#: How a continuous-time LIF becomes one factor per step, with ``decay``, ``input_gain``:
#: ``euler``: ``1 - dt/tau``, ``r dt/tau``; ``zoh``: ``exp(-dt/tau)``, ``r (1 - exp(-dt/tau))``;
#: ``exp_delta``: ``exp(-dt/tau)``, ``r dt/tau`` (the input of a step arrives as one pulse: sinabs, rockpool).
LifScheme = Literal["euler", "zoh", "exp_delta"]

_REFUSED = {
    "CubaLIF": "a current-based neuron has a synaptic filter, which the graph has no node for; train with IF neurons",
    "CubaLI": "a current-based integrator has a synaptic filter and does not spike; end the network with IF neurons",
    "LI": "a leaky integrator does not spike; end the network with IF neurons and count spikes",
    "I": "an integrator does not spike; end the network with IF neurons and count spikes",
    "Threshold": "a threshold without a potential is not a neuron; use IF",
    "Scale": "multiply the scale into the weights of the next layer before exporting",
    "Delay": "delays cannot be represented; train without them",
    "Conv1d": "use Conv2d with a kernel of height 1",
}


def read_nir(
    path: str | Path,
    *,
    reset: Reset | None = None,
    dt_us: float | None = None,
    scheme: LifScheme | None = None,
) -> Graph:
    """Read a NIR file (format of nir >= 1.0.8; files of 0.1 and 0.2 too).

    Node names are the file's. A node with several incoming edges receives their sum, as NIR defines; an explicit Add
    is inserted. What NIR cannot say is decided here and noted: the reset is ``"subtract"`` where the file stores no
    ``v_reset`` (the convention of sinabs) and ``"zero"`` where it stores ``v_reset = 0``; a spike is fired at
    ``v >= threshold`` where NIR's equations say ``>``; there is no lower bound of the potential.

    Args:
        path: the file.
        reset: what a spike does to the potential, for every neuron, whatever the file says.
        dt_us: time step in microseconds; needed by LIF nodes only, whose ``tau`` is in seconds.
        scheme: discretisation of LIF nodes, see ``LifScheme``; needed by LIF nodes only.

    Raises:
        GraphError: the file is missing or malformed, or holds something the graph cannot express exactly.
    """
    path = Path(path)
    for option, value, allowed in (("reset", reset, get_args(Reset)), ("scheme", scheme, get_args(LifScheme))):
        if value is not None and value not in allowed:
            raise GraphError(
                f"{option} is {value!r}; the choices are: {', '.join(allowed)}.",
                remedy=f"choose one of them, or leave {option} out.",
                code="option",
            )
    if dt_us is not None and not dt_us > 0:
        raise GraphError(f"dt_us is {dt_us}; it must be positive.", remedy="give the time step.", code="option")
    reader = _Reader(path, reset, dt_us, scheme)
    try:
        return reader.graph()
    except GraphError as error:
        if error.message.startswith(str(path)):
            raise
        raise GraphError(f"{path}: {error.message}", remedy=error.remedy, code=error.code) from error
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"{path}: a stored value has the wrong form: {error}.",
            remedy="write the file again with nir.write of nir >= 1.0.8.",
            code="malformed-file",
        ) from error


class _Reader:
    """One reading of one file; collects the notes."""

    def __init__(self, path: Path, reset: Reset | None, dt_us: float | None, scheme: LifScheme | None) -> None:
        self.path = path
        self.reset = reset
        self.dt_us = dt_us
        self.scheme = scheme
        self.remarks: dict[str, list[str]] = {}
        self.readers: dict[str, Callable[[str, Fields], Node]] = {
            "Input": self._input,
            "Output": lambda _name, _fields: Output(),
            "Conv2d": self._conv2d,
            "Affine": self._linear,
            "Linear": self._linear,
            "IF": self._if,
            "LIF": self._lif,
            "SumPool2d": lambda name, fields: SumPool2d(*self._window(name, fields)),
            "AvgPool2d": lambda name, fields: AvgPool2d(*self._window(name, fields)),
            "Flatten": self._flatten,
        }

    def graph(self) -> Graph:
        file = read_nir_file(self.path)
        nodes: dict[str, Node] = {}
        for name, fields in file.nodes.items():
            kind = str(fields["type"])
            if kind not in self.readers:
                raise self._error(
                    name,
                    f"NIR nodes of type {kind} are not supported.",
                    _REFUSED.get(kind, f"the supported types are: {', '.join(self.readers)}") + ".",
                    "unsupported-node",
                )
            nodes[name] = self.readers[kind](name, fields)
        nodes, edges = _with_sums(nodes, file.edges)
        graph = Graph(nodes, edges)
        for name, fields in file.nodes.items():
            if fields["type"] == "Output":
                stated = _shape(fields.get("shape"))
                if stated is not None and stated != graph.shapes[name]:
                    self._remark(f"the file states another shape for the output than {graph.shapes[name]}", name)
        return Graph(nodes, edges, tuple(f"{text}: {', '.join(names)}." for text, names in self.remarks.items()))

    def _error(self, name: str, rule: str, remedy: str, code: str) -> GraphError:
        return GraphError(f"{self.path}: node {name}: {rule}", remedy=remedy, code=code)

    def _remark(self, text: str, name: str) -> None:
        self.remarks.setdefault(text, []).append(name)

    def _field(self, name: str, fields: Fields, key: str) -> Any:
        if key not in fields:
            raise self._error(
                name,
                f"the field {key} of its type {fields['type']} is missing.",
                "write the file again with nir.write of nir >= 1.0.8.",
                "malformed-file",
            )
        return fields[key]

    def _array(self, name: str, fields: Fields, key: str, ndim: int | None = None) -> Array:
        """A float32 array of finite numbers."""
        value = np.asarray(self._field(name, fields, key))
        if value.dtype.kind not in "fiub" or (ndim is not None and value.ndim != ndim):
            raise self._error(
                name,
                f"{key} has shape {value.shape} and type {value.dtype}"
                + (f"; it must have {ndim} axes of numbers." if ndim is not None else "; it must hold numbers."),
                "write the file again with nir.write.",
                "malformed-file",
            )
        if not np.isfinite(value).all():
            raise self._error(name, f"{key} holds values that are not finite.", "train again.", "not-finite")
        rounded = value.astype(np.float32)
        if not np.array_equal(rounded.astype(value.dtype), value):
            self._remark("values rounded to float32", f"{name}.{key}")
        return rounded

    def _per_neuron(self, name: str, fields: Fields, key: str) -> Array:
        """Like ``_array``; one value for the layer where all are equal."""
        value = self._array(name, fields, key)
        if value.size == 0:
            raise self._error(name, f"{key} is empty.", "write the file again with nir.write.", "malformed-file")
        first = value.reshape(-1)[0]
        return np.array(first) if (value == first).all() else value

    def _pair(self, name: str, fields: Fields, key: str) -> Pair:
        value = np.asarray(self._field(name, fields, key))
        if value.dtype.kind not in "iu" or value.shape not in ((), (1,), (2,)):
            raise self._error(
                name,
                f"{key} is {fields[key]!r}; it must be one or two whole numbers.",
                "write the file again with nir.write.",
                "malformed-file",
            )
        y, x = np.broadcast_to(value, 2)
        return int(y), int(x)

    def _bias(self, name: str, fields: Fields) -> Array | None:
        bias = self._array(name, fields, "bias", 1)
        if bias.any():
            return bias
        self._remark("an all-zero bias is left out", name)
        return None

    def _input(self, name: str, fields: Fields) -> Node:
        shape = _shape(self._field(name, fields, "shape"))
        if shape is None or len(shape) not in (1, 3) or min(shape) < 1:
            raise self._error(
                name,
                f"the input shape is {fields['shape']!r}; it must be (C, H, W) or (N,), of one sample and time step.",
                "export the network without batch and time axes.",
                "input-shape",
            )
        return Input(shape)

    def _conv2d(self, name: str, fields: Fields) -> Node:
        weight = self._array(name, fields, "weight", 4)
        stride, dilation = self._pair(name, fields, "stride"), self._pair(name, fields, "dilation")
        if isinstance(fields.get("padding"), str):
            padding = named_padding(f"node {name}", fields["padding"], weight.shape[2:], stride, dilation)
        else:
            padding = self._pair(name, fields, "padding")
        groups = int(self._field(name, fields, "groups"))
        return Conv2d(weight, self._bias(name, fields), stride, padding, dilation, groups)

    def _linear(self, name: str, fields: Fields) -> Node:
        weight = self._array(name, fields, "weight", 2)
        return Linear(weight, self._bias(name, fields) if fields["type"] == "Affine" else None)

    def _window(self, name: str, fields: Fields) -> tuple[Pair, Pair, Pair]:
        return (
            self._pair(name, fields, "kernel_size"),
            self._pair(name, fields, "stride"),
            self._pair(name, fields, "padding"),
        )

    def _flatten(self, name: str, fields: Fields) -> Node:
        start, end = int(fields.get("start_dim", 1)), int(fields.get("end_dim", -1))
        if start not in (0, 1) or end not in (-1, 2, 3):
            raise self._error(
                name,
                f"it flattens axes {start} to {end}; only a whole map can be flattened.",
                "flatten with start_dim=0, end_dim=-1.",
                "flatten",
            )
        if start == 1:
            self._remark("start_dim 1 is read as counting a batch axis: the whole map is flattened", name)
        return Flatten()

    def _reset(self, name: str, fields: Fields) -> Reset:
        if "v_reset" in fields:
            v_reset = self._array(name, fields, "v_reset")
            if v_reset.any() and self.reset is None:
                raise self._error(
                    name,
                    "v_reset is not 0; neurons can be reset to 0 or by subtraction.",
                    "shift potentials so that the reset is 0, or pass reset='zero' or reset='subtract'.",
                    "v-reset",
                )
        if self.reset is not None:
            self._remark(f"reset {self.reset!r} as given by the caller", name)
            return self.reset
        if "v_reset" in fields:
            self._remark("reset 'zero' because the file states v_reset = 0; give reset='subtract' if it was soft", name)
            return "zero"
        self._remark("reset 'subtract' because the file states no v_reset (sinabs' convention)", name)
        return "subtract"

    def _if(self, name: str, fields: Fields) -> Node:
        gain = self._per_neuron(name, fields, "r")
        if np.any(gain != 1):
            self._remark("r is taken as a factor on the input of each step", name)
        self._remark("a spike is fired at v >= threshold (NIR's equations say >)", name)
        return Neuron(self._per_neuron(name, fields, "v_threshold"), input_gain=gain, reset=self._reset(name, fields))

    def _lif(self, name: str, fields: Fields) -> Node:
        if self.dt_us is None or self.scheme is None:
            raise self._error(
                name,
                "a LIF is defined in continuous time; the time step and the discretisation decide what it computes.",
                f"give dt_us and scheme (one of {', '.join(get_args(LifScheme))}), or train with IF neurons.",
                "lif-needs-dt",
            )
        if self._array(name, fields, "v_leak").any():
            raise self._error(name, "v_leak is not 0.", "shift potentials so that the leak goes to 0.", "v-leak")
        tau_s = self._per_neuron(name, fields, "tau").astype(np.float64)
        r = self._per_neuron(name, fields, "r").astype(np.float64)
        if (tau_s <= 0).any():
            raise self._error(name, "tau must be positive.", "check the exported time constants.", "tau")
        ratio = self.dt_us * 1e-6 / tau_s
        if self.scheme == "euler" and (ratio > 1).any():
            raise self._error(name, "dt is longer than tau: Euler's decay is negative.", "give a smaller dt_us.", "tau")
        decay = 1 - ratio if self.scheme == "euler" else np.exp(-ratio)
        gain = r * (-np.expm1(-ratio) if self.scheme == "zoh" else ratio)
        self._remark(f"LIF discretised with scheme {self.scheme!r} and dt {self.dt_us:g} us", name)
        self._remark("a spike is fired at v >= threshold (NIR's equations say >)", name)
        return Neuron(
            self._per_neuron(name, fields, "v_threshold"),
            decay=np.asarray(decay, np.float32),
            input_gain=np.asarray(gain, np.float32),
            reset=self._reset(name, fields),
        )


def _shape(value: Any) -> Shape | None:
    """A stored shape: an array, or in some files a dictionary with one array."""
    if isinstance(value, dict):
        value = next(iter(value.values())) if len(value) == 1 else None
    if value is None or np.asarray(value).dtype.kind not in "iu":
        return None
    return tuple(int(size) for size in np.ravel(value))


def _with_sums(nodes: dict[str, Node], edges: tuple[Edge, ...]) -> tuple[dict[str, Node], tuple[Edge, ...]]:
    """An Add before every node with several incoming edges."""
    for name in list(nodes):
        if sum(b == name for _, b in edges) > 1:
            total = f"{name}.sum"
            nodes[total] = Add()
            edges = (*((a, total if b == name else b) for a, b in edges), (total, name))
    return nodes, edges
