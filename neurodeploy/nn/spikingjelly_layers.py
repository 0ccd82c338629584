"""Our layers in the place of SpikingJelly's neurons: same equations, and its tools still reach their state.

Read against SpikingJelly 2.0.0 (``activation_based/neuron``, ``_ops/lif/reference.py``, ``surrogate.py``). Importing
this module needs spikingjelly.
"""

from typing import Any, NoReturn

import torch
from spikingjelly.activation_based import base, neuron, surrogate

from neurodeploy import surrogate as surrogates
from neurodeploy.errors import KernelError
from neurodeploy.nn.layer import TimeLayer
from neurodeploy.nn.spiking import NoLeak, SpikingLayer

_KNOWN = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode)


class _Node(SpikingLayer, base.MultiStepModule):  # type: ignore[misc]
    """Takes (T, B, ...) and carries its potential from call to call; ``reset_net`` and ``set_step_mode`` find it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("threshold", self.threshold, persistent=False)  # checkpoints have none of SpikingJelly's
        self.step_mode = "m"

    def reset(self) -> None:  # type: ignore[override]
        """Forget the carried potential, as ``functional.reset_net`` asks for. What a spike does is ``neuron.reset``."""
        self.reset_states()


class AcceleratedIFNode(NoLeak, _Node):
    """In the place of ``IFNode``."""


class AcceleratedLIFNode(_Node):
    """In the place of ``LIFNode`` or ``ParametricLIFNode``: decay ``1 - 1/tau``, input gain ``1/tau`` or 1."""

    def __init__(self, tau: float | torch.nn.Parameter, decay_input: bool, **options: Any) -> None:
        super().__init__(**options)
        self.decay_input = decay_input
        if isinstance(tau, torch.nn.Parameter):
            self.w = tau
        else:
            self.tau = tau

    @property
    def inverse_tau(self) -> torch.Tensor:
        """``1 / tau``; ``sigmoid(w)`` where it is learnt."""
        if hasattr(self, "w"):
            return self.w.sigmoid()
        return torch.tensor(1 / self.tau, dtype=self.threshold.dtype, device=self.threshold.device)

    @property
    def decay(self) -> torch.Tensor:
        """``1 - 1 / tau``; differentiable."""
        return 1 - self.inverse_tau

    @property
    def input_gain(self) -> torch.Tensor:
        """``1 / tau`` with ``decay_input``, else 1; differentiable."""
        return self.inverse_tau if self.decay_input else torch.ones_like(self.threshold)


def replacement(name: str, module: torch.nn.Module) -> TimeLayer | None:
    """Return our layer for a layer of SpikingJelly's neurons, None for a module that is not one.

    Raises:
        KernelError: neurons that ours cannot replace; ``name`` is their place in the network.
    """
    if isinstance(module, TimeLayer) or not isinstance(module, neuron.BaseNode | neuron.SimpleBaseNode):
        return None
    if type(module) not in _KNOWN:
        _refuse(name, "type", type(module).__name__, ", ".join(known.__name__ for known in _KNOWN))
    layer: Any = module
    if layer.step_mode != "m":
        _refuse(name, "step_mode", repr(layer.step_mode), "'m': functional.set_step_mode(net, 'm')")
    if layer.v_reset:
        _refuse(name, "v_reset", layer.v_reset, "None (soft reset) and 0.0")
    if layer.store_v_seq:
        _refuse(name, "store_v_seq", True, "False")
    if layer._neuron_precision is not None:
        _refuse(name, "precision", layer._neuron_precision, "the type of the input")
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        _refuse(name, "hooks", "registered", "none: register them after accelerate()")
    options: dict[str, Any] = {
        "threshold": torch.tensor(layer.v_threshold, dtype=torch.float64),  # rounded to the type of the input
        "reset": "subtract" if layer.v_reset is None else "zero",
        "spikes": "single",
        "surrogate": _surrogate(name, layer.surrogate_function, layer.v_threshold),
        "algorithm": "slayer" if layer.detach_reset else "exodus",
        "layout": "TB",
        "stateful": True,
    }
    new: _Node
    if isinstance(layer, neuron.IFNode):
        new = AcceleratedIFNode(**options)
    else:
        tau = layer.w if isinstance(layer, neuron.ParametricLIFNode) else layer.tau
        new = AcceleratedLIFNode(tau, layer.decay_input, **options)
    if isinstance(layer.v, torch.Tensor):
        new.v_mem = layer.v.detach().clone()
        new.threshold = new.threshold.to(layer.v.device)
    new.train(layer.training)
    return new


def _surrogate(name: str, function: Any, threshold: float) -> surrogates.Surrogate:
    """Theirs are as wide as ``alpha`` says in volts, ours in units of the threshold."""
    if not function.spiking:
        _refuse(name, "surrogate_function", "not in spiking mode", "set_spiking_mode(True)")
    match function:
        case surrogate.Sigmoid():
            return surrogates.Sigmoid(1 / (float(function.alpha) * threshold))
        case surrogate.ATan():
            return surrogates.Arctan(1 / (float(function.alpha) * threshold))
        case surrogate.PiecewiseExp():
            return surrogates.SingleExponential(1 / (float(function.alpha) * threshold), 0.5)
    _refuse(name, "surrogate_function", function, "Sigmoid, ATan and PiecewiseExp")


def _refuse(name: str, field: str, value: object, accepted: str) -> NoReturn:
    raise KernelError(
        f"{name}: {field} is {value}; accelerate() knows {accepted}.",
        remedy="leave this network to SpikingJelly, or build the layer with neurodeploy.nn.",
        code=f"accelerate-{field.replace('_', '-')}",
    )
