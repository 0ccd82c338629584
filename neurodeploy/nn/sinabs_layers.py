"""Our layers in the place of sinabs' ones: same parameters, and sinabs' tools still recognise them as stateful.

Read against sinabs 3.1.3 (``sinabs/layers/iaf.py``, ``lif.py``, ``alif.py``, ``exp_leak.py``, ``activation/``).
Importing this module needs sinabs.
"""

import copy
from collections.abc import Sequence
from math import inf
from typing import Any, NoReturn

import torch
from sinabs import activation, layers
from sinabs.layers import StatefulLayer

from neurodeploy import surrogate as surrogates
from neurodeploy.errors import KernelError
from neurodeploy.neuron import Spikes
from neurodeploy.nn.layer import TimeLayer
from neurodeploy.nn.recurrent import ALIFRecurrent, CubaLIFRecurrent, IAFRecurrent, LIFRecurrent
from neurodeploy.nn.spiking import IAF, LIF
from neurodeploy.nn.synaptic import ALIF, LI, CubaLIF

_SPIKING = (layers.IAF, layers.LIF, layers.IAFSqueeze, layers.LIFSqueeze)
_RECURRENT = (layers.IAFRecurrent, layers.LIFRecurrent)
_ADAPTIVE = (layers.ALIF, layers.ALIFRecurrent)
_FILTERS = (layers.ExpLeak, layers.ExpLeakSqueeze)
_KNOWN = (*_SPIKING, *_RECURRENT, *_ADAPTIVE, *_FILTERS)


class _Stateful(TimeLayer, StatefulLayer):  # type: ignore[misc]
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
        TimeLayer.reset_states(self)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the parameters; the carried state has none."""
        torch.nn.Module.zero_grad(self, set_to_none)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Stateful":
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        state = self.__getstate__()  # type: ignore[no-untyped-call]
        new.__setstate__(copy.deepcopy(state, memo))  # type: ignore[no-untyped-call]
        return new


class _ForgetsSpikes(_Stateful):
    """Carries potentials and currents to the next call, but not what the last spikes send back: as sinabs does."""

    i_rec: torch.Tensor | None

    def _end(self, state: torch.Tensor, batch: int, features: Sequence[int]) -> Any:
        end = super()._end(state, batch, features)
        self.i_rec = None
        return end


class AcceleratedIAF(IAF, _Stateful):
    """IAF in the place of ``sinabs.layers.IAF`` or ``IAFSqueeze``."""


class AcceleratedLIF(LIF, _Stateful):
    """LIF in the place of ``sinabs.layers.LIF`` or ``LIFSqueeze``."""


class AcceleratedCubaLIF(CubaLIF, _Stateful):
    """CubaLIF in the place of ``LIF``, ``IAF`` and their Squeeze forms with ``tau_syn``."""


class AcceleratedALIF(ALIF, _Stateful):
    """ALIF in the place of ``sinabs.layers.ALIF``."""


class AcceleratedLI(LI, _Stateful):
    """LI in the place of ``sinabs.layers.ExpLeak`` or ``ExpLeakSqueeze``."""


class AcceleratedIAFRecurrent(IAFRecurrent, _ForgetsSpikes):
    """IAFRecurrent in the place of ``sinabs.layers.IAFRecurrent``."""


class AcceleratedLIFRecurrent(LIFRecurrent, _ForgetsSpikes):
    """LIFRecurrent in the place of ``sinabs.layers.LIFRecurrent``."""


class AcceleratedCubaLIFRecurrent(CubaLIFRecurrent, _ForgetsSpikes):
    """CubaLIFRecurrent in the place of ``LIFRecurrent`` and ``IAFRecurrent`` with ``tau_syn``."""


class AcceleratedALIFRecurrent(ALIFRecurrent, _ForgetsSpikes):
    """ALIFRecurrent in the place of ``sinabs.layers.ALIFRecurrent``."""


def replacement(name: str, module: torch.nn.Module) -> TimeLayer | None:
    """Return our layer for a sinabs layer, None for a module that is not one.

    Raises:
        KernelError: a stateful sinabs layer that ours cannot replace; ``name`` is its place in the network.
    """
    if isinstance(module, TimeLayer) or not isinstance(module, StatefulLayer):
        return None
    if type(module) not in _KNOWN:
        _refuse(name, "type", type(module).__name__, ", ".join(known.__name__ for known in _KNOWN))
    layer: Any = module
    if layer.train_alphas:
        _refuse(name, "train_alphas", True, "False")
    if layer.record_states:
        _refuse(name, "record_states", True, "False")
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        _refuse(name, "hooks", "registered", "none: register them after accelerate()")
    options: dict[str, Any] = {"stateful": True}
    if hasattr(layer, "num_timesteps"):  # a Squeeze form
        options["batch_size"] = layer.batch_size if layer.batch_size > 0 else None
        options["num_timesteps"] = layer.num_timesteps if layer.num_timesteps > 0 else None
    if isinstance(layer, _FILTERS):
        new = _filter(name, layer, options)
    elif isinstance(layer, _ADAPTIVE):
        new = _adaptive(name, layer, options)
    else:
        new = _spiking(name, layer, options)
    if layer.is_state_initialised():
        for row in new.state_rows:
            if row != "i_rec":
                setattr(new, row, getattr(layer, row).detach().clone())
    new.train(layer.training)
    return new


def _filter(name: str, layer: Any, options: dict[str, Any]) -> TimeLayer:
    if layer.min_v_mem is not None:
        _refuse(name, "min_v_mem", layer.min_v_mem.tolist(), "None for layers without spikes")
    return AcceleratedLI(layer.tau_mem, norm_input=layer.norm_input, **options)


def _adaptive(name: str, layer: Any, options: dict[str, Any]) -> TimeLayer:
    if layer.tau_syn is not None:
        _refuse(name, "tau_syn", layer.tau_syn.tolist(), "None: sinabs' ALIF loses the current from call to call")
    if isinstance(layer.b0, torch.Tensor) and layer.b0.requires_grad:
        _refuse(name, "spike_threshold", "learnt", "a constant")
    if isinstance(layer.adapt_scale, torch.nn.Parameter):
        _refuse(name, "adapt_scale", "learnt", "a constant")
    adaptive = {
        **options,
        **_neuron_options(name, layer, layer.b0),
        "adapt_scale": layer.adapt_scale,
        "norm_input": layer.norm_input,
        "detach_threshold": True,
    }
    if isinstance(layer, layers.ALIFRecurrent):
        return AcceleratedALIFRecurrent(layer.tau_mem, layer.tau_adapt, layer.rec_connect, **adaptive)
    return AcceleratedALIF(layer.tau_mem, layer.tau_adapt, **adaptive)


def _spiking(name: str, layer: Any, options: dict[str, Any]) -> TimeLayer:
    if layer.spike_threshold is None or layer.spike_threshold.requires_grad:
        _refuse(name, "spike_threshold", "learnt or None", "a constant")
    options = {**options, **_neuron_options(name, layer, layer.spike_threshold)}
    leaky = layer.tau_mem is not None
    lateral = isinstance(layer, _RECURRENT)
    if layer.tau_syn is None:
        if leaky:
            options["norm_input"] = layer.norm_input
        if lateral and leaky:
            return AcceleratedLIFRecurrent(layer.tau_mem, layer.rec_connect, **options)
        if lateral:
            return AcceleratedIAFRecurrent(layer.rec_connect, **options)
        return AcceleratedLIF(layer.tau_mem, **options) if leaky else AcceleratedIAF(**options)
    options["norm_input"] = leaky and layer.norm_input
    tau_mem = layer.tau_mem if leaky else inf
    if lateral:
        return AcceleratedCubaLIFRecurrent(tau_mem, layer.tau_syn, layer.rec_connect, **options)
    return AcceleratedCubaLIF(tau_mem, layer.tau_syn, **options)


def _neuron_options(name: str, layer: Any, threshold: Any) -> dict[str, Any]:
    """The options that every layer of spiking neurons has."""
    options = {
        "threshold": threshold,
        "v_min": None if layer.min_v_mem is None else _one_number(name, "min_v_mem", layer.min_v_mem),
        "spikes": _spikes(name, layer.spike_fn),
        "surrogate": _surrogate(name, layer.surrogate_grad_fn),
    }
    _check_reset(name, layer.reset_fn)
    return options


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


def _one_number(name: str, field: str, value: torch.Tensor | float) -> float:
    if not isinstance(value, torch.Tensor):
        return float(value)
    if value.numel() != 1:
        _refuse(name, field, f"a tensor of shape {tuple(value.shape)}", "one number")
    return float(value.item())


def _refuse(name: str, field: str, value: object, accepted: str) -> NoReturn:
    raise KernelError(
        f"{name}: {field} is {value}; accelerate() knows {accepted}.",
        remedy="leave this network to sinabs, or build the layer with neurodeploy.nn.",
        code=f"accelerate-{field.replace('_', '-')}",
    )
