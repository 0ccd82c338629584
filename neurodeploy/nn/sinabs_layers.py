"""Our layers in the place of sinabs' ones: same parameters, and sinabs' tools still recognise them as stateful.

Read against sinabs 3.1.3 (``sinabs/layers/iaf.py``, ``lif.py``, ``activation/``). Importing this module needs sinabs.
"""

import copy
from typing import Any, NoReturn

import torch
from sinabs import activation, layers
from sinabs.layers import StatefulLayer

from neurodeploy import surrogate as surrogates
from neurodeploy.errors import KernelError
from neurodeploy.neuron import Spikes
from neurodeploy.nn.spiking import IAF, LIF, SpikingLayer

_OWN_TYPES = (layers.IAF, layers.LIF, layers.IAFSqueeze, layers.LIFSqueeze)
_SQUEEZED = (layers.IAFSqueeze, layers.LIFSqueeze)


class _Stateful(SpikingLayer, StatefulLayer):  # type: ignore[misc]
    """Makes ``sinabs.reset_states`` and ``Network.reset_states`` reach the layer."""

    __repr__ = torch.nn.Module.__repr__

    def reset_states(self, randomize: bool = False, value_ranges: Any = None) -> None:
        """Forget the carried state; the arguments are sinabs'.

        Raises:
            KernelError: random states are asked for.
        """
        if randomize:
            raise KernelError(
                "An accelerated layer cannot start from a random state.",
                remedy="pass initial_state= to the layer, or call reset_states without randomize.",
                code="accelerate-randomize",
            )
        SpikingLayer.reset_states(self)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the parameters; the carried state has none."""
        torch.nn.Module.zero_grad(self, set_to_none)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Stateful":
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return new


class AcceleratedIAF(IAF, _Stateful):
    """IAF in the place of ``sinabs.layers.IAF`` or ``IAFSqueeze``."""


class AcceleratedLIF(LIF, _Stateful):
    """LIF in the place of ``sinabs.layers.LIF`` or ``LIFSqueeze``."""


def replacement(name: str, module: torch.nn.Module) -> SpikingLayer | None:
    """Return our layer for a sinabs layer, None for a module that is not one.

    Raises:
        KernelError: a stateful sinabs layer that ours cannot replace; ``name`` is its place in the network.
    """
    if isinstance(module, SpikingLayer) or not isinstance(module, StatefulLayer):
        return None
    if type(module) not in _OWN_TYPES:
        _refuse(name, "type", type(module).__name__, "IAF, LIF, IAFSqueeze and LIFSqueeze")
    layer: Any = module
    leaky = isinstance(layer, layers.LIF) and not isinstance(layer, layers.IAF)
    if layer.train_alphas:
        _refuse(name, "train_alphas", True, "False")
    if layer.tau_syn is not None:
        _refuse(name, "tau_syn", layer.tau_syn.tolist(), "None")
    if layer.record_states:
        _refuse(name, "record_states", True, "False")
    if layer.spike_threshold is None or layer.spike_threshold.requires_grad:
        _refuse(name, "spike_threshold", "learnt or None", "a constant")
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        _refuse(name, "hooks", "registered", "none: register them after accelerate()")
    options: dict[str, Any] = {
        "threshold": layer.spike_threshold,
        "v_min": None if layer.min_v_mem is None else _one_number(name, "min_v_mem", layer.min_v_mem),
        "spikes": _spikes(name, layer.spike_fn),
        "surrogate": _surrogate(name, layer.surrogate_grad_fn),
        "stateful": True,
    }
    _check_reset(name, layer.reset_fn)
    if isinstance(layer, _SQUEEZED):
        options["batch_size"] = layer.batch_size if layer.batch_size > 0 else None
        options["num_timesteps"] = layer.num_timesteps if layer.num_timesteps > 0 else None
    if leaky:
        options |= {"tau_mem": layer.tau_mem, "norm_input": layer.norm_input}
    new: SpikingLayer = (AcceleratedLIF if leaky else AcceleratedIAF)(**options)
    if layer.is_state_initialised():
        new.v_mem = layer.v_mem.detach().clone()
    new.train(layer.training)
    return new


def _spikes(name: str, spike_fn: Any) -> Spikes:
    if spike_fn is activation.MultiSpike:
        return "multi"
    if spike_fn is activation.SingleSpike:
        return "single"
    if isinstance(spike_fn, activation.MaxSpike):
        return "multi" if spike_fn.max_num_spikes_per_bin is None else int(spike_fn.max_num_spikes_per_bin)
    _refuse(name, "spike_fn", spike_fn, "MultiSpike, SingleSpike and MaxSpike(k)")


def _check_reset(name: str, reset_fn: Any) -> None:
    if isinstance(reset_fn, activation.MembraneReset):
        _refuse(
            name,
            "reset_fn",
            reset_fn,
            "MembraneSubtract(): sinabs detaches the hard reset from the gradient, and adds reset_value every step",
        )
    if not isinstance(reset_fn, activation.MembraneSubtract) or reset_fn.subtract_value is not None:
        _refuse(name, "reset_fn", reset_fn, "MembraneSubtract()")


def _surrogate(name: str, function: Any) -> surrogates.Surrogate:
    match function:
        case activation.SingleExponential():
            return surrogates.SingleExponential(float(function.grad_width), float(function.grad_scale))
        case activation.PeriodicExponential():
            return surrogates.PeriodicExponential(float(function.grad_width), float(function.grad_scale))
        case activation.Heaviside():
            return surrogates.Heaviside(float(function.window))
    _refuse(name, "surrogate_grad_fn", function, "SingleExponential, PeriodicExponential and Heaviside")


def _one_number(name: str, field: str, value: torch.Tensor) -> float:
    if value.numel() != 1:
        _refuse(name, field, f"a tensor of shape {tuple(value.shape)}", "one number")
    return float(value.item())


def _refuse(name: str, field: str, value: object, accepted: str) -> NoReturn:
    raise KernelError(
        f"{name}: {field} is {value}; accelerate() knows {accepted}.",
        remedy="leave this network to sinabs, or build the layer with neurodeploy.nn.",
        code=f"accelerate-{field.replace('_', '-')}",
    )
