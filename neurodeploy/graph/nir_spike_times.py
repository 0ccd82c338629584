"""Neurons in continuous time as NIR's CubaLIF, in both directions.

NIR: ``tau_mem dv/dt = v_leak - v + r I``, ``tau_syn dI/dt = -I + w_in S``. A spike of weight w adds
``w_in w / tau_syn`` to I, so with ``w_in = tau_syn`` and ``r = input_gain tau_mem`` the potential follows the graph's
equations. That ``w_in`` also serves readers that leave it out and add the weight to the current (hxtorch).

NIR names no unit of time. Files hold seconds, or milliseconds for readers that take them as such (hxtorch, jaxsnn).
"""

from typing import Any, Literal

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph.nir_file import Fields
from neurodeploy.graph.nir_layers import Choices
from neurodeploy.graph.nir_stored import StoredNode
from neurodeploy.graph.nodes import Array, CubaLIF, Shape

TauUnit = Literal["s", "ms"]

#: Seconds of a unit.
SECONDS: dict[str, float] = {"s": 1.0, "ms": 1e-3}


def read_continuous(stored: StoredNode, choices: Choices) -> CubaLIF:
    """A stored CubaLIF as neurons in continuous time.

    Raises:
        GraphError: a field is missing or malformed, or the reset is none.
    """
    unit = SECONDS[choices.tau_unit or "s"]
    tau_mem, tau_syn = stored.precise("tau_mem") * unit, stored.precise("tau_syn") * unit
    r, w_in, rest = stored.precise("r"), stored.precise("w_in"), stored.precise("v_leak")
    if (tau_mem <= 0).any() or (tau_syn <= 0).any():
        raise stored.error("tau_mem and tau_syn must be positive.", "check the exported time constants.", "tau")
    threshold = stored.precise("v_threshold") - rest
    fields: dict[str, Any] = {"max_spikes": choices.max_spikes, "t_max": choices.t_max}
    hard = stored.has("v_reset") if choices.reset is None else choices.reset == "zero"
    if choices.reset == "none":
        raise stored.error("a neuron in continuous time without a reset fires for ever.", "use 'zero'.", "reset")
    if hard:
        v_reset = np.asarray(stored.precise("v_reset") - rest) if stored.has("v_reset") else np.array(0.0)
        fields |= {"reset": "value", "v_reset": v_reset}
    else:
        fields |= {"reset": "subtract", "drop": np.asarray(threshold)}
        if choices.reset is None:
            stored.remark("assumed", "reset 'subtract' because the file states no v_reset (sinabs' convention)")
    if choices.tau_unit is None:
        stored.remark("assumed", "time constants in seconds: NIR names no unit (give tau_unit='ms' for milliseconds)")
    if rest.any():
        stored.remark("exact", "potentials are relative to v_leak")
    text = f"at most {choices.max_spikes} spikes per run, which ends when all are at rest"
    stored.remark("assumed", text if choices.t_max is None else f"{text} or after {choices.t_max:g} s")
    return CubaLIF(
        tau_mem=np.asarray(tau_mem),
        tau_syn_exc=np.asarray(tau_syn),
        tau_syn_inh=np.asarray(tau_syn),
        threshold=np.asarray(threshold),
        input_gain=np.asarray(r * w_in * unit / (tau_mem * tau_syn)),
        **fields,
    )


def write_continuous(node: CubaLIF, shape: Shape, tau_unit: TauUnit) -> Fields:
    """The fields of a layer in continuous time, as NIR stores it: one time constant for both receptors."""

    def full(value: Array) -> Array:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value, np.float64), shape))

    unit = SECONDS[tau_unit]
    tau_syn = full(node.tau_syn_exc / unit)
    fields: Fields = {
        "tau_syn": tau_syn,
        "w_in": tau_syn,
        "tau_mem": full(node.tau_mem / unit),
        "r": full(node.input_gain * node.tau_mem),
        "v_leak": full(np.zeros(())),
        "v_threshold": full(node.threshold),
    }
    if node.v_reset is not None:
        fields["v_reset"] = full(node.v_reset)
    return {"type": "CubaLIF", **fields}


def check_unit(tau_unit: object) -> None:
    """Refuse what is no unit.

    Raises:
        GraphError: it is neither "s" nor "ms".
    """
    if tau_unit not in SECONDS:
        raise GraphError(f"tau_unit is {tau_unit!r}.", remedy=f"the choices are: {', '.join(SECONDS)}.", code="option")
