"""What each module of torch and of spiking libraries means as a node; those without a meaning are refused by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from neurodeploy.graph.nodes import (
    Add,
    Array,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    Node,
    Pair,
    Relu,
    Shape,
    SumPool2d,
)
from neurodeploy.graph.padding import named_padding
from neurodeploy.graph.torch_neurons import cell_of, is_neuron
from neurodeploy.graph.torch_parameters import array, is_from, refused
from neurodeploy.graph.torch_peers import Cell
from neurodeploy.graph.torch_spike_times import is_spike_time_layer

#: Modules that compute nothing at inference.
IDENTITY = (
    torch.nn.Identity,
    torch.nn.Dropout,
    torch.nn.Dropout1d,
    torch.nn.Dropout2d,
    torch.nn.AlphaDropout,
    torch.nn.FeatureAlphaDropout,
)

_ACTIVATION = "train with ReLU, which nd.convert turns into neurons"
MAX_POOL = (
    "use AvgPool2d and fine-tune: spikes can be summed, not compared (nd.load of the network's .onnx with "
    'max_pool="average", then nd.fine_tune, does both)'
)
_WINNER = "remove it: the network's answer is the output with the most spikes"
_REMEDIES = {
    "ReLU6": _ACTIVATION,
    "LeakyReLU": _ACTIVATION,
    "PReLU": _ACTIVATION,
    "ELU": _ACTIVATION,
    "GELU": _ACTIVATION,
    "SiLU": _ACTIVATION,
    "Sigmoid": _ACTIVATION,
    "Tanh": _ACTIVATION,
    "NeuromorphicReLU": "use ReLU, which nd.convert turns into neurons",
    "Softmax": _WINNER,
    "LogSoftmax": _WINNER,
    "MaxPool2d": MAX_POOL,
    "VotingLayer": "remove it: votes are the spikes of the output, counted",
    "SpikingMaxPooling2dLayer": "use SumPool2d or AvgPool2d and fine-tune: spikes can be summed, not compared",
    "LayerNorm": "use BatchNorm2d, which folds into the weights",
    "GroupNorm": "use BatchNorm2d, which folds into the weights",
    "InstanceNorm2d": "use BatchNorm2d, which folds into the weights",
    "RNN": "recurrent layers are not supported; use spiking layers, which have memory",
    "LSTM": "recurrent layers are not supported; use spiking layers, which have memory",
    "GRU": "recurrent layers are not supported; use spiking layers, which have memory",
    "IAFRecurrent": "recurrent connections are not supported; use IAF",
    "LIFRecurrent": "recurrent connections are not supported; use LIF",
    "ALIFRecurrent": "recurrent connections are not supported; use LIF",
    "RecurrentSequential": "recurrent connections are not supported; use SequentialState",
    "ElementWiseRecurrentContainer": "recurrent connections are not supported; use the module in it",
    "LinearRecurrentContainer": "recurrent connections are not supported; use the module in it",
    "ALIF": "adapting thresholds are not supported; use LIF",
    "CubaLIFRecurrent": "recurrent connections are not supported; use CubaLIF",
    "SRMAlpha": "a synapse with a rise time is not supported; use CubaLIF",
    "SynapseFilter": "use nd.nn.SynapseFilter",
    "ConvTranspose2d": "use Conv2d",
    "Conv1d": "use Conv2d with a kernel of height 1",
}

_SUPPORTED = (
    "Conv2d, Linear, BatchNorm2d, AvgPool2d, AdaptiveAvgPool2d, SumPool2d, Flatten, ReLU, Dropout, Identity, Merge, "
    "and layers of integrate-and-fire neurons of neurodeploy, sinabs, snnTorch, SpikingJelly and Norse"
)

_LIBRARIES = ("torch", "sinabs", "neurodeploy", "spikingjelly", "norse")

#: SpikingJelly's layers that are torch's with a time axis.
_JELLY = "spikingjelly.activation_based.layer"


def is_leaf(name: str, module: torch.nn.Module) -> bool:
    """Whether the module is one node (or the identity); a container's submodules are looked at instead.

    Raises:
        GraphError: the module is known to have no node.
    """
    if is_neuron(module) or is_merge(module) or is_identity(module) or is_spike_time_layer(module):
        return True
    for kind in (*_PLAIN, *_NORMS):
        if isinstance(module, kind):
            same = type(module).__name__ == kind.__name__ and is_from(module, _JELLY, kind.__name__)
            if type(module).forward is not kind.forward and not same:
                raise refused(name, module, f"use {kind.__name__} itself: a forward of its own can mean anything")
            return True
    if _is_own_sum_pool(module):
        return True
    library = type(module).__module__.split(".")[0]
    known = library in _LIBRARIES and type(module).__name__ in _REMEDIES
    empty = not any(True for _ in module.children())
    computes = library == "torch" and empty and not isinstance(module, _CONTAINERS)
    if known or computes or is_from(module, "sinabs.layers", "StatefulLayer"):
        raise refused(name, module, _remedy(module))
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
            return Linear(array(module.weight), _maybe(module.bias))
        case torch.nn.AvgPool2d():
            return _avg_pool(name, module)
        case torch.nn.LPPool2d():
            if module.norm_type != 1:
                raise refused(name, module, "use SumPool2d", f"norm_type {module.norm_type}")
            return SumPool2d(_pair(module.kernel_size), _pair(module.stride or module.kernel_size))
        case torch.nn.AdaptiveAvgPool2d():
            return _adaptive_pool(name, module, shape)
        case torch.nn.Flatten():
            return Flatten()
        case torch.nn.ReLU():
            return Relu()
    if isinstance(module, _NORMS):
        return _batch_norm(name, module)
    if _is_own_sum_pool(module):
        pool: Any = module
        return SumPool2d(_pair(pool.kernel_size), _pair(pool.stride))
    if is_merge(module):
        return Add()
    return cell_of(name, module, shape).nodes[-1]


def nodes_of(name: str, module: torch.nn.Module, shape: Shape) -> Cell | Node:
    """As ``node_of``; the nodes of a layer of neurons together, with what was assumed."""
    return cell_of(name, module, shape) if is_neuron(module) else node_of(name, module, shape)


def is_identity(module: torch.nn.Module) -> bool:
    """Whether it computes nothing at inference."""
    return isinstance(module, IDENTITY) or is_from(module, _JELLY, "Dropout", "Dropout2d")


def is_merge(module: torch.nn.Module) -> bool:
    """Whether it adds two inputs."""
    return is_from(module, "neurodeploy.nn", "Merge") or is_from(module, "sinabs.layers", "Merge")


#: Modules of torch whose forward is looked at, with submodules or without.
_CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Unflatten)
_NORMS = (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)
_PLAIN = (
    torch.nn.Conv2d,
    torch.nn.Linear,
    torch.nn.AvgPool2d,
    torch.nn.AdaptiveAvgPool2d,
    torch.nn.LPPool2d,
    torch.nn.Flatten,
    torch.nn.ReLU,
)


def _is_own_sum_pool(module: torch.nn.Module) -> bool:
    return is_from(module, "neurodeploy.nn", "SumPool2d")


def _remedy(module: torch.nn.Module) -> str:
    for kind in type(module).__mro__:
        if kind.__name__ in _REMEDIES:
            return _REMEDIES[kind.__name__]
    return f"the supported modules are: {_SUPPORTED}"


def _maybe(value: torch.Tensor | None) -> Array | None:
    return None if value is None else array(value)


def _pair(value: int | Sequence[int]) -> Pair:
    y, x = (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
    return y, x


def _conv2d(name: str, module: torch.nn.Conv2d) -> Node:
    if module.padding_mode != "zeros" and module.padding != (0, 0):
        raise refused(name, module, "use padding_mode='zeros'", f"padding_mode {module.padding_mode!r}")
    stride, dilation = _pair(module.stride), _pair(module.dilation)
    if isinstance(module.padding, str):
        padding = named_padding(name, module.padding, module.kernel_size, stride, dilation)
    else:
        padding = _pair(module.padding)
    return Conv2d(array(module.weight), _maybe(module.bias), stride, padding, dilation, module.groups)


def _avg_pool(name: str, module: torch.nn.AvgPool2d) -> Node:
    kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
    if padding != (0, 0) and not module.count_include_pad:
        raise refused(name, module, "use count_include_pad=True", "count_include_pad=False")
    divisor = module.divisor_override
    if divisor == 1:
        return SumPool2d(kernel, stride, padding)
    if divisor not in (None, kernel[0] * kernel[1]):
        raise refused(name, module, "leave divisor_override out", f"divisor_override {divisor}")
    return AvgPool2d(kernel, stride, padding)


def _batch_norm(name: str, module: torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) -> Node:
    if module.running_mean is None or module.running_var is None:
        raise refused(name, module, "train with track_running_stats=True", "track_running_stats=False")
    channels = module.num_features
    return BatchNorm2d(
        array(module.running_mean),
        array(module.running_var),
        np.ones(channels, np.float32) if module.weight is None else array(module.weight),
        np.zeros(channels, np.float32) if module.bias is None else array(module.bias),
        float(module.eps),
    )


def _adaptive_pool(name: str, module: torch.nn.AdaptiveAvgPool2d, shape: Shape) -> Node:
    """The windows are of one size where the output divides the input."""
    wanted: Any = module.output_size
    wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
    sizes = [(size, size if out is None else int(out)) for size, out in zip(shape[-2:], wanted, strict=True)]
    if any(size % out for size, out in sizes):
        option = f"output_size {module.output_size} on maps of {shape[-2:]}"
        raise refused(name, module, "use AvgPool2d with a kernel and a stride", option)
    kernel = _pair([size // out for size, out in sizes])
    return AvgPool2d(kernel, kernel)
