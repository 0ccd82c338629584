"""From the declarative network of a configuration (or a user's factory) to a torch module."""

import importlib
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neurodeploy import nn
from neurodeploy.errors import ConfigError
from neurodeploy.train.config import (
    AlifLayer,
    ConvLayer,
    CubaLifLayer,
    DropoutLayer,
    IafLayer,
    LifLayer,
    LiLayer,
    LinearLayer,
    SpikingLayer,
    SumPoolLayer,
    SurrogateConfig,
    TrainConfig,
)

_SURROGATES: dict[str, type[nn.SingleExponential | nn.PeriodicExponential | nn.Box | nn.Sigmoid | nn.Arctan]] = {
    "single_exponential": nn.SingleExponential,
    "periodic_exponential": nn.PeriodicExponential,
    "box": nn.Box,
    "sigmoid": nn.Sigmoid,
    "arctan": nn.Arctan,
}

_NEURONS: dict[type[SpikingLayer], tuple[Callable[..., torch.nn.Module], Callable[..., torch.nn.Module]]] = {
    IafLayer: (nn.IAF, nn.IAFRecurrent),
    LifLayer: (nn.LIF, nn.LIFRecurrent),
    CubaLifLayer: (nn.CubaLIF, nn.CubaLIFRecurrent),
    AlifLayer: (nn.ALIF, nn.ALIFRecurrent),
}
"""Alone, and with lateral connections."""


def build_network(
    config: TrainConfig, *, input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int
) -> torch.nn.Module:
    """Build the network of a configuration, with fresh weights from torch's global generator.

    Args:
        config: the training configuration.
        input_shape: ``(C, H, W)`` of one time step.
        n_time_steps: T; the module takes the folded batch ``[B * T, C, H, W]`` and returns spikes (or the last
            layer's potentials) ``[B * T, outputs]``.
        n_classes: outputs that are needed at least.

    Raises:
        ConfigError: layers that do not fit each other, fewer outputs than classes, or a factory that cannot be called.
    """
    if config.network.factory is not None:
        return _call_factory(config, input_shape, n_time_steps, n_classes)
    modules: OrderedDict[str, torch.nn.Module] = OrderedDict()
    shape: tuple[int, ...] = input_shape
    numbers: Counter[str] = Counter()
    for i, layer in enumerate(config.network.layers):
        numbers[layer.type] += 1
        name = layer.name or f"{layer.type}{numbers[layer.type]}"
        reserved = hasattr(torch.nn.Sequential(), name) or name.startswith("flatten_")
        if name in modules or "." in name or reserved:
            raise _misfit(
                i, f"the name {name!r} is taken, reserved or contains a dot", "give every layer its own plain name"
            )
        match layer:
            case ConvLayer():
                modules[name], shape = _conv(i, layer, shape)
            case LinearLayer():
                if len(shape) == 3:
                    modules[f"flatten_{name}"] = torch.nn.Flatten()
                    shape = (shape[0] * shape[1] * shape[2],)
                modules[name] = torch.nn.Linear(shape[0], layer.features, bias=layer.bias)
                shape = (layer.features,)
            case SumPoolLayer():
                if len(shape) != 3 or shape[1] % layer.kernel or shape[2] % layer.kernel:
                    raise _misfit(
                        i,
                        f"pooling by {layer.kernel} does not divide the map {shape}",
                        "choose padding and kernel of the convolution before it so that the map divides",
                    )
                modules[name] = nn.SumPool2d(layer.kernel)
                shape = (shape[0], shape[1] // layer.kernel, shape[2] // layer.kernel)
            case DropoutLayer():
                modules[name] = torch.nn.Dropout(layer.p)
            case LiLayer():
                if layer is not config.network.layers[-1]:
                    raise _misfit(i, "li gives potentials to the layer after it", "end with it, or use lif")
                tau_mem = layer.tau_us / config.data.dt_us
                modules[name] = nn.LI(tau_mem, norm_input=layer.norm_input, num_timesteps=n_time_steps)
            case IafLayer() | LifLayer() | CubaLifLayer() | AlifLayer():
                modules[name] = _neurons(i, config, layer, shape, n_time_steps)
    last = config.network.layers[-1]
    if not isinstance(last, SpikingLayer | LiLayer):
        raise _misfit(
            len(config.network.layers) - 1,
            f"the last layer is {last.type}",
            "end with iaf or lif (or cuba_lif, alif, li): the class is read from output spikes or potentials",
        )
    if len(shape) == 3:
        modules["flatten_output"] = torch.nn.Flatten()
        shape = (shape[0] * shape[1] * shape[2],)
    if shape[0] < n_classes:
        raise ConfigError(
            f"network.layers: {shape[0]} outputs for {n_classes} classes.",
            remedy=f"give the last weight layer {n_classes} features (and reduce its map to 1x1).",
            code="network-outputs",
        )
    return torch.nn.Sequential(modules)


def _conv(i: int, layer: ConvLayer, shape: tuple[int, ...]) -> tuple[torch.nn.Module, tuple[int, ...]]:
    if len(shape) != 3:
        raise _misfit(i, "a convolution after a linear layer", "convolutions come first")
    sides = tuple((side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in shape[1:])
    if min(sides) < 1:
        raise _misfit(i, f"a kernel of {layer.kernel} on a map of {shape[1]}x{shape[2]}", "use a smaller kernel")
    module = torch.nn.Conv2d(
        shape[0], layer.features, layer.kernel, stride=layer.stride, padding=layer.padding, bias=layer.bias
    )
    return module, (layer.features, *sides)


def _neurons(
    i: int, config: TrainConfig, layer: SpikingLayer, shape: tuple[int, ...], n_time_steps: int
) -> torch.nn.Module:
    options: dict[str, Any] = {
        "threshold": layer.threshold,
        "v_min": layer.v_min,
        "spikes": layer.spikes,
        "reset": layer.reset,
        "surrogate": _surrogate(config.surrogate),
        "num_timesteps": n_time_steps,
        "algorithm": config.algorithm,
    }
    dt_us = config.data.dt_us
    if not isinstance(layer, IafLayer):
        options |= {"tau_mem": layer.tau_us / dt_us, "norm_input": layer.norm_input}
    if isinstance(layer, CubaLifLayer):
        options["tau_syn"] = layer.tau_syn_us / dt_us
    if isinstance(layer, AlifLayer):
        options |= {"tau_adapt": layer.tau_adapt_us / dt_us, "adapt_scale": layer.adapt_scale}
    plain, recurrent = _NEURONS[type(layer)]
    if not layer.recurrent:
        return plain(**options)
    if len(shape) != 1:
        raise _misfit(i, f"recurrent neurons on a map of {shape}", "put a linear layer before them")
    return recurrent(rec_connect=torch.nn.Linear(shape[0], shape[0], bias=False), **options)


def _surrogate(config: SurrogateConfig) -> nn.Surrogate:
    return _SURROGATES[config.type](grad_width=config.grad_width, grad_scale=config.grad_scale)


def _call_factory(
    config: TrainConfig, input_shape: tuple[int, int, int], n_time_steps: int, n_classes: int
) -> torch.nn.Module:
    target = str(config.network.factory)
    module_name, function_name = target.split(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # the user's module usually lies in the folder the command runs in
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        network = function(
            input_shape=input_shape, n_time_steps=n_time_steps, n_classes=n_classes, **config.network.arguments
        )
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"network.factory {target}: cannot be called ({error}).",
            remedy="write function(input_shape, n_time_steps, n_classes, **arguments) in an importable module.",
            code="network-factory",
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(
            f"network.factory {target}: returned {type(network).__name__}.",
            remedy="return a torch.nn.Module.",
            code="network-factory",
        )
    return network


def _misfit(index: int, what: str, remedy: str) -> ConfigError:
    return ConfigError(f"network.layers.{index}: {what}.", remedy=f"{remedy}.", code="network-layers")
