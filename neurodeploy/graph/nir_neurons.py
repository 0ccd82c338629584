"""The NIR nodes with a state, in both directions: I, IF, LI, LIF, CubaLI, CubaLIF.

A current-based neuron is two nodes of the graph: its synaptic filter (an LI named ``<name>.synapse``) and its membrane.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph.integration import Scheme, continuous_parameters, step_factors
from neurodeploy.graph.nir_file import Fields
from neurodeploy.graph.nir_layers import Choices, read_compare
from neurodeploy.graph.nir_stored import StoredNode
from neurodeploy.graph.nodes import LI, Array, Membrane, Neuron, Shape
from neurodeploy.neuron import Spikes

SYNAPSE = ".synapse"

#: How remarks end that no metadata changes.
GIVEN = "as given by the caller"

NEURON_KINDS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")

#: Kinds whose equations need a time step.
LEAKY_KINDS = ("LI", "LIF", "CubaLI", "CubaLIF")


@dataclass(frozen=True)
class Cell:
    """A stored neuron as nodes of the graph."""

    membrane: LI | Neuron
    synapse: LI | None = None


def read_cell(stored: StoredNode, choices: Choices) -> Cell | None:
    """The nodes of a stored neuron; None for another kind.

    Raises:
        GraphError: a field is missing or malformed, or a time step is needed and not given.
    """
    match stored.kind:
        case "I":
            return Cell(LI(input_gain=stored.per_neuron("r")))
        case "IF":
            return Cell(Neuron(**_spiking(stored, choices), input_gain=stored.per_neuron("r")))
        case "LI":
            return Cell(LI(**_leaky(stored, "tau", "r", choices), v_leak=_v_leak(stored)))
        case "LIF":
            return Cell(
                Neuron(**_spiking(stored, choices), **_leaky(stored, "tau", "r", choices), v_leak=_v_leak(stored))
            )
        case "CubaLI" | "CubaLIF":
            synapse = LI(**_leaky(stored, "tau_syn", "w_in", choices))
            membrane = {**_leaky(stored, "tau_mem", "r", choices), "v_leak": _v_leak(stored)}
            stored.remark(
                "approximated",
                "the synapse is advanced before the membrane: the current of a step acts in the same step",
                choices.dt_us,
                "us earlier than in continuous time",
            )
            if stored.kind == "CubaLI":
                return Cell(LI(**membrane), synapse)
            return Cell(Neuron(**_spiking(stored, choices), **membrane), synapse)
    return None


def _spiking(stored: StoredNode, choices: Choices) -> dict[str, Any]:
    fields = {"threshold": stored.per_neuron("v_threshold"), "compare": read_compare(stored, choices)}
    return {**fields, "spikes": _spikes(stored, choices), **_reset(stored, choices)}


def _spikes(stored: StoredNode, choices: Choices) -> Spikes:
    if choices.spikes is not None:
        stored.remark("assumed", f"spikes {choices.spikes!r} {GIVEN}")
        return choices.spikes
    if stored.kind == "IF":
        stored.remark("assumed", "a step fires as many spikes as its input is worth (NIR's equations know no steps)")
        return "multi"
    return "single"


def _reset(stored: StoredNode, choices: Choices) -> dict[str, Any]:
    v_reset = stored.per_neuron("v_reset") if stored.has("v_reset") else None
    if choices.reset is not None:
        stored.remark("assumed", f"reset {choices.reset!r} {GIVEN}")
        return {"reset": choices.reset}
    if v_reset is None:
        stored.remark("assumed", "reset 'subtract' because the file states no v_reset (sinabs' convention)")
        return {"reset": "subtract"}
    if v_reset.any():
        return {"reset": "value", "v_reset": v_reset}
    stored.remark("exact", "reset 'zero' because the file states v_reset = 0; give reset='subtract' if it was soft")
    return {"reset": "zero"}


def _v_leak(stored: StoredNode) -> Array | None:
    value = stored.per_neuron("v_leak")
    return value if value.any() else None


def _leaky(stored: StoredNode, tau_key: str, r_key: str, choices: Choices) -> dict[str, Any]:
    """``decay``, ``input_gain`` and where they come from, of one leaky equation."""
    tau, r = stored.precise(tau_key), stored.precise(r_key)
    if choices.scheme is None or choices.dt_us is None:
        raise stored.error(
            f"a {stored.kind} is defined in continuous time; the time step and the discretisation decide what it "
            "computes.",
            "give dt_us and scheme (one of euler, zoh, exp_delta), or train with IF neurons.",
            "lif-needs-dt",
        )
    if (tau <= 0).any():
        raise stored.error(f"{tau_key} must be positive.", "check the exported time constants.", "tau")
    ratio = float((choices.dt_us * 1e-6 / tau).max())
    if choices.scheme == "euler" and ratio > 1 + 1e-6:
        raise stored.error(f"dt is longer than {tau_key}: Euler's decay is negative.", "give a smaller dt_us.", "tau")
    decay, gain = step_factors(choices.scheme, choices.dt_us, tau, r)
    text = f"{stored.kind} discretised with scheme {choices.scheme!r} and dt {choices.dt_us:g} us"
    stored.remark("approximated", text, *scheme_bound(choices.scheme, ratio, choices.dt_us))
    return {
        "decay": _joined(decay),
        "input_gain": _joined(gain),
        "scheme": choices.scheme,
        "dt_us": choices.dt_us,
        "tau": tau,
        "r": r,
    }


def scheme_bound(scheme: Scheme, ratio: float, dt_us: float) -> tuple[float, str]:
    """How far a scheme is from continuous time, and in what, for ``ratio`` = dt / tau (see ``README.md``)."""
    if scheme == "euler":
        return (np.expm1(-ratio) + ratio) / ratio, "of the largest |v_leak + r x - v|, in the potential at a step's end"
    if scheme == "exp_delta":
        return ratio / -np.expm1(-ratio) - 1, "of the potential that a current constant over its steps gives"
    return dt_us, "us of a spike's time"


def _joined(value: Array) -> Array:
    rounded = value.astype(np.float32)
    first = rounded.reshape(-1)[0]
    return np.array(first) if (rounded == first).all() else rounded


def write_cell(name: str, cell: Cell, shape: Shape, choices: Choices) -> Fields:
    """The fields of a neuron layer, as NIR stores it.

    Args:
        name: of the membrane node, for the error message.
        cell: the nodes.
        shape: of the layer.
        choices: ``dt_us`` and ``scheme`` for neurons that are defined in steps.

    Raises:
        GraphError: a neuron that is defined in steps and leaks, and no time step; a decay that no tau gives.
    """

    def full(value: Array | None) -> Array:
        return np.ascontiguousarray(np.broadcast_to(np.zeros((), np.float32) if value is None else value, shape))

    membrane, synapse = cell.membrane, cell.synapse
    spiking: Fields = {}
    if isinstance(membrane, Neuron):
        spiking["v_threshold"] = full(membrane.threshold)
        if membrane.reset in ("zero", "value"):
            v_reset = full(membrane.v_reset)
            spiking["v_reset"] = v_reset if membrane.v_reset is not None else v_reset.astype(membrane.threshold.dtype)
    kind = "LIF" if spiking else "LI"
    if membrane.scheme is None and np.all(membrane.decay == 1) and synapse is None:
        return {"type": kind.replace("L", ""), "r": full(membrane.input_gain), **spiking}
    tau, r = _continuous(name, membrane, choices)
    fields = {"v_leak": full(membrane.v_leak), **spiking}
    if synapse is None:
        return {"type": kind, "tau": full(tau), "r": full(r), **fields}
    tau_syn, w_in = _continuous(name + SYNAPSE, synapse, choices)
    times = {"tau_syn": full(tau_syn), "w_in": full(w_in), "tau_mem": full(tau), "r": full(r)}
    return {"type": f"Cuba{kind}", **times, **fields}


def _continuous(name: str, node: Membrane, choices: Choices) -> tuple[Array, Array]:
    if node.tau is not None and node.r is not None:
        return node.tau, node.r
    if choices.dt_us is None or choices.scheme is None:
        raise GraphError(
            f"{name}: its leak is defined in time steps, NIR's in seconds.",
            remedy="give dt_us, the length of a time step in microseconds.",
            code="needs-dt",
        )
    lowest = 0 if choices.scheme == "euler" else np.nextafter(0, 1)
    if np.any(node.decay < lowest) or np.any(node.decay >= 1):
        raise GraphError(
            f"{name}: the decay lies between {np.min(node.decay):g} and {np.max(node.decay):g}; a time constant gives "
            "0 < decay < 1 (0 too with scheme 'euler').",
            remedy="use one kind of neuron per layer: all integrate-and-fire (decay 1), or all leaky.",
            code="decay",
        )
    return continuous_parameters(choices.scheme, choices.dt_us, node.decay, node.input_gain)
