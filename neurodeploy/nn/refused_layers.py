"""Neurons of snnTorch and Norse, which the kernels cannot replace: which of their fields differ.

Read against snnTorch 1.0.0 and Norse 1.1.0.
"""

import sys
from typing import Any

import torch

from neurodeploy.errors import KernelError

_BASES = {
    "snntorch": ("snntorch", ("SpikingNeuron",)),
    "norse": ("norse.torch.module.snn", ("SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell")),
}


def refuse(name: str, module: torch.nn.Module) -> None:
    """Raise for a layer of neurons of either library; anything else passes.

    Raises:
        KernelError: the message names the fields that no layer of ours has.
    """
    for library, (home, kinds) in _BASES.items():
        bases = tuple(kind for kind in (getattr(sys.modules.get(home), kind, None) for kind in kinds) if kind)
        if isinstance(module, bases):
            fields = _snntorch_fields(module) if library == "snntorch" else _norse_fields(module)
            raise KernelError(
                f"{name}: this {type(module).__name__} of {library} differs from ours in: {'; '.join(fields)}.",
                remedy=f"train it with {library} (nd.trace reads it), or build the layer with neurodeploy.nn.",
                code="accelerate-fields",
            )


def _snntorch_fields(module: Any) -> list[str]:
    fields = ["the comparison (v > threshold; ours v >= threshold)"]
    if module.reset_mechanism == "subtract" and getattr(module, "reset_delay", True):
        fields.append("reset_delay (the threshold is subtracted one step after the spike)")
    if getattr(module, "inhibition", False):
        fields.append("inhibition")
    if bool((module.graded_spikes_factor != 1).any()):
        fields.append("graded_spikes_factor")
    return [*fields, "stepping (one time step per call; ours take all at once)"]


def _norse_fields(module: Any) -> list[str]:
    fields = ["the comparison (v > threshold; ours v >= threshold)"]
    p = module.p
    if hasattr(p, "method"):
        fields.append(f"method {p.method!r} (a surrogate that ours do not have)")
    for field in ("v_reset", "v_leak"):
        if hasattr(p, field) and bool(torch.as_tensor(getattr(p, field)).any()):
            fields.append(f"{field} (not 0)")
    if hasattr(p, "tau_syn_inv"):
        fields.append("tau_syn_inv (the current of a step does not decay in it)")
    return fields
