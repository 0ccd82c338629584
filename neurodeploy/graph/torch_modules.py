"""What each torch, sinabs and neurodeploy module means as a node; modules without a meaning are refused by name."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import (
    Add,
    Array,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    Neuron,
    Node,
    Pair,
    Shape,
    SumPool2d,
)
from neurodeploy.graph.padding import named_padding
from neurodeploy.neuron import Spikes

#: Modules that compute nothing at inference.
IDENTITY = (
    torch.nn.Identity,
    torch.nn.Dropout,
    torch.nn.Dropout1d,
    torch.nn.Dropout2d,
    torch.nn.AlphaDropout,
    torch.nn.FeatureAlphaDropout,
)

_RELU = "replace it by nd.nn.IAF(), whose firing rate follows the ReLU of its input"
_WINNER = "remove it: the network's answer is the output with the most spikes"
_REMEDIES = {
    "ReLU": _RELU,
    "ReLU6": _RELU,
    "LeakyReLU": "train with ReLU, then replace it by nd.nn.IAF()",
    "PReLU": "train with ReLU, then replace it by nd.nn.IAF()",
    "ELU": "train with ReLU, then replace it by nd.nn.IAF()",
    "GELU": "train with ReLU, then replace it by nd.nn.IAF()",
    "SiLU": "train with ReLU, then replace it by nd.nn.IAF()",
    "Sigmoid": "train with ReLU, then replace it by nd.nn.IAF()",
    "Tanh": "train with ReLU, then replace it by nd.nn.IAF()",
    "NeuromorphicReLU": _RELU,
    "Softmax": _WINNER,
    "LogSoftmax": _WINNER,
    "MaxPool2d": "use AvgPool2d and fine-tune: spikes can be summed, not compared",
    "SpikingMaxPooling2dLayer": "use SumPool2d or AvgPool2d and fine-tune: spikes can be summed, not compared",
    "AdaptiveAvgPool2d": "use AvgPool2d with the kernel it comes to for this input",
    "LayerNorm": "use BatchNorm2d, which folds into the weights",
    "GroupNorm": "use BatchNorm2d, which folds into the weights",
    "InstanceNorm2d": "use BatchNorm2d, which folds into the weights",
    "RNN": "recurrent layers are not supported; use spiking layers, which have memory",
    "LSTM": "recurrent layers are not supported; use spiking layers, which have memory",
    "GRU": "recurrent layers are not supported; use spiking layers, which have memory",
    "IAFRecurrent": "recurrent connections are not supported; use IAF",
    "LIFRecurrent": "recurrent connections are not supported; use LIF",
    "ALIFRecurrent": "recurrent connections are not supported; use LIF",
    "ALIF": "adapting thresholds are not supported; use LIF",
    "CubaLIFRecurrent": "recurrent connections are not supported; use LIF",
    "CubaLIF": "synaptic currents are not supported; use LIF",
    "SRMAlpha": "synaptic currents are not supported; use LIF",
    "SynapseFilter": "synaptic currents are not supported; leave it out",
    "ExpLeak": "it does not spike; end the network with IAF and count spikes",
    "LI": "it does not spike; end the network with IAF and count spikes",
    "ConvTranspose2d": "use Conv2d",
    "Conv1d": "use Conv2d with a kernel of height 1",
}

_SUPPORTED = (
    "Conv2d, Linear, BatchNorm2d, AvgPool2d, SumPool2d, Flatten, Dropout, Identity, Merge, and the IAF and LIF layers "
    "of neurodeploy and sinabs"
)


def is_leaf(name: str, module: torch.nn.Module) -> bool:
    """Whether the module is one node (or the identity); a container's submodules are looked at instead.

    Raises:
        GraphError: the module is known to have no node.
    """
    if spiking_layer(module) or is_merge(module) or isinstance(module, IDENTITY):
        return True
    for kind in (torch.nn.Conv2d, torch.nn.Linear, torch.nn.AvgPool2d, torch.nn.LPPool2d, torch.nn.Flatten, *_NORMS):
        if isinstance(module, kind):
            if type(module).forward is not kind.forward:
                raise _refused(name, module, f"use {kind.__name__} itself: a forward of its own can mean anything")
            return True
    if _is_own_sum_pool(module):
        return True
    library = type(module).__module__.split(".")[0]
    known = library in ("torch", "sinabs", "neurodeploy") and type(module).__name__ in _REMEDIES
    empty = not any(True for _ in module.children())
    computes = library == "torch" and empty and not isinstance(module, _CONTAINERS)
    if known or computes or _is_sinabs(module, "StatefulLayer"):
        raise _refused(name, module, _remedy(module))
    return False


def node_of(name: str, module: torch.nn.Module, shape: Shape) -> Node:
    """The node of a leaf module that is no identity. ``shape``: what it receives per step, ``(C, H, W)`` or ``(N,)``.

    Raises:
        GraphError: an option of the module has no equivalent; the message names the module and the option.
    """
    match module:
        case torch.nn.Conv2d():
            return _conv2d(name, module)
        case torch.nn.Linear():
            return Linear(_array(module.weight), _maybe(module.bias))
        case torch.nn.AvgPool2d():
            return _avg_pool(name, module)
        case torch.nn.LPPool2d():
            if module.norm_type != 1:
                raise _refused(name, module, "use SumPool2d", f"norm_type {module.norm_type}")
            return SumPool2d(_pair(module.kernel_size), _pair(module.stride or module.kernel_size))
        case torch.nn.Flatten():
            return Flatten()
    if isinstance(module, _NORMS):
        return _batch_norm(name, module)
    if _is_own_sum_pool(module):
        pool: Any = module
        return SumPool2d(_pair(pool.kernel_size), _pair(pool.stride))
    if is_merge(module):
        return Add()
    return _neuron(name, module, shape)


def spiking_layer(module: torch.nn.Module) -> bool:
    """Whether it is a layer of IAF or LIF neurons of neurodeploy or sinabs."""
    return _is_own(module, "SpikingLayer") or (_is_sinabs(module, "LIF") and type(module).__name__ in _SINABS_NEURONS)


def is_merge(module: torch.nn.Module) -> bool:
    """Whether it adds two inputs."""
    return _is_own(module, "Merge") or _is_sinabs(module, "Merge")


#: Modules of torch whose forward is looked at, with submodules or without.
_CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Unflatten)
_NORMS = (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)
_SINABS_NEURONS = ("IAF", "IAFSqueeze", "LIF", "LIFSqueeze")


def _is_from(module: torch.nn.Module, library: str, kind: str) -> bool:
    """isinstance without importing the library: a module of a library exists only once that is imported."""
    found = getattr(sys.modules.get(library), kind, None)
    return found is not None and isinstance(module, found)


def _is_own(module: torch.nn.Module, kind: str) -> bool:
    return _is_from(module, "neurodeploy.nn", kind)


def _is_sinabs(module: torch.nn.Module, kind: str) -> bool:
    return _is_from(module, "sinabs.layers", kind)


def _is_own_sum_pool(module: torch.nn.Module) -> bool:
    return _is_own(module, "SumPool2d")


def _remedy(module: torch.nn.Module) -> str:
    for kind in type(module).__mro__:
        if kind.__name__ in _REMEDIES:
            return _REMEDIES[kind.__name__]
    return f"the supported modules are: {_SUPPORTED}"


def _refused(name: str, module: torch.nn.Module, remedy: str, option: str | None = None) -> GraphError:
    kind = type(module).__name__
    what = f"a {kind} is not supported" if option is None else f"{option} of this {kind} is not supported"
    return GraphError(
        f"{name}: {what}.", remedy=f"{remedy}.", code="unsupported-module" if option is None else "module-option"
    )


def _array(value: torch.Tensor) -> Array:
    return np.array(value.detach().cpu().numpy(), np.float32)


def _maybe(value: torch.Tensor | None) -> Array | None:
    return None if value is None else _array(value)


def _pair(value: int | Sequence[int]) -> Pair:
    y, x = (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
    return y, x


def _conv2d(name: str, module: torch.nn.Conv2d) -> Node:
    if module.padding_mode != "zeros" and module.padding != (0, 0):
        raise _refused(name, module, "use padding_mode='zeros'", f"padding_mode {module.padding_mode!r}")
    stride, dilation = _pair(module.stride), _pair(module.dilation)
    if isinstance(module.padding, str):
        padding = named_padding(name, module.padding, module.kernel_size, stride, dilation)
    else:
        padding = _pair(module.padding)
    return Conv2d(_array(module.weight), _maybe(module.bias), stride, padding, dilation, module.groups)


def _avg_pool(name: str, module: torch.nn.AvgPool2d) -> Node:
    kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
    if padding != (0, 0) and not module.count_include_pad:
        raise _refused(name, module, "use count_include_pad=True", "count_include_pad=False")
    divisor = module.divisor_override
    if divisor == 1:
        return SumPool2d(kernel, stride, padding)
    if divisor not in (None, kernel[0] * kernel[1]):
        raise _refused(name, module, "leave divisor_override out", f"divisor_override {divisor}")
    return AvgPool2d(kernel, stride, padding)


def _batch_norm(name: str, module: torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) -> Node:
    if module.running_mean is None or module.running_var is None:
        raise _refused(name, module, "train with track_running_stats=True", "track_running_stats=False")
    channels = module.num_features
    return BatchNorm2d(
        _array(module.running_mean),
        _array(module.running_var),
        np.ones(channels, np.float32) if module.weight is None else _array(module.weight),
        np.zeros(channels, np.float32) if module.bias is None else _array(module.bias),
        float(module.eps),
    )


def _per_neuron(name: str, module: torch.nn.Module, field: str, value: Any, shape: Shape) -> Array:
    """One value for the layer where all are equal, else one per neuron."""
    array = _array(torch.as_tensor(value))
    if array.size and (array == array.reshape(-1)[0]).all():
        return np.array(array.reshape(-1)[0])
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError:
        raise _refused(
            name, module, f"give a shape that broadcasts to {shape}", f"{field} of shape {array.shape}"
        ) from None


def _neuron(name: str, module: Any, shape: Shape) -> Node:
    if _is_own(module, "SpikingLayer"):
        return Neuron(
            threshold=_per_neuron(name, module, "threshold", module.threshold, shape),
            v_min=None if module.v_min is None else _per_neuron(name, module, "v_min", module.v_min, shape),
            decay=_per_neuron(name, module, "decay", module.decay, shape),
            input_gain=_per_neuron(name, module, "input_gain", module.input_gain, shape),
            reset=module.reset,
            spikes=module.spikes,
            v_min_position=module.v_min_position,
        )
    if module.tau_syn is not None:
        raise _refused(name, module, "leave tau_syn out", "tau_syn")
    decay = module.alpha_mem_calculated.detach()
    reset = type(module.reset_fn).__name__
    if reset == "MembraneReset" and module.reset_fn.reset_value != 0:
        raise _refused(name, module, "reset to 0", f"reset_value {module.reset_fn.reset_value:g}")
    if (
        reset not in ("MembraneReset", "MembraneSubtract")
        or getattr(module.reset_fn, "subtract_value", None) is not None
    ):
        raise _refused(name, module, "use MembraneSubtract() or MembraneReset()", f"reset_fn {module.reset_fn}")
    return Neuron(
        threshold=_per_neuron(name, module, "spike_threshold", module.spike_threshold, shape),
        v_min=None if module.min_v_mem is None else _per_neuron(name, module, "min_v_mem", module.min_v_mem, shape),
        decay=_per_neuron(name, module, "tau_mem", decay, shape),
        input_gain=_per_neuron(name, module, "tau_mem", 1 - decay if module.norm_input else 1.0, shape),
        reset="zero" if reset == "MembraneReset" else "subtract",
        spikes=_sinabs_spikes(name, module),
    )


def _sinabs_spikes(name: str, module: Any) -> Spikes:
    function = module.spike_fn
    kind = getattr(function, "__name__", type(function).__name__)
    if kind == "MultiSpike":
        return "multi"
    if kind == "SingleSpike":
        return "single"
    if kind == "MaxSpike":
        most = function.max_num_spikes_per_bin
        return "multi" if most is None else int(most)
    raise _refused(name, module, "use MultiSpike, SingleSpike or MaxSpike", f"spike_fn {kind}")
