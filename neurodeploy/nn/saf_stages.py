"""A network as the stages that spike accumulation runs: fixed maps, weights, fixed maps, neurons."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Parameters
from neurodeploy.kernels.saf import WeightedMap, refuse_neuron
from neurodeploy.kernels.saf.synapse import WEIGHTED
from neurodeploy.nn.over_time import OverTime
from neurodeploy.nn.pooling import SumPool2d
from neurodeploy.nn.spiking import IAF, LIF, SpikingLayer

FIXED = (torch.nn.AvgPool1d, torch.nn.AvgPool2d, torch.nn.Flatten, torch.nn.Identity, torch.nn.ZeroPad2d, SumPool2d)
"""Linear maps without weights: they act on accumulations as on spikes."""

_REMEDIES = {
    "MaxPool2d": "use AvgPool2d: a maximum of accumulations is not the accumulation of maxima",
    "BatchNorm1d": "leave it out, or put a parametrization such as weight normalisation on the weights",
    "BatchNorm2d": "leave it out, or put a parametrization such as weight normalisation on the weights",
    "Dropout": "leave it out: its mask would have to stay the same over a window",
    "Dropout2d": "leave it out: its mask would have to stay the same over a window",
    "ReLU": "replace it by nd.nn.LIF(..., spikes='single')",
}

FixedMap = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Stage:
    """Fixed maps, at most one weighted map, fixed maps, and neurons (None at the end of a network: a readout)."""

    before: list[FixedMap] = field(default_factory=list)
    weighted: WeightedMap | None = None
    after: list[FixedMap] = field(default_factory=list)
    neurons: SpikingLayer | None = None


def stages(net: torch.nn.Module) -> list[Stage]:
    """Read a ``Sequential`` (nested ones too) of linear maps and spiking layers.

    Raises:
        KernelError: a module or a neuron that cannot be run on accumulations; its name is in the message.
    """
    found = [Stage()]
    for name, module in _flat(net, ""):
        stage = found[-1]
        if isinstance(module, IAF | LIF):
            _refuse_layer(name, module)
            stage.neurons = module
            found.append(Stage())
        elif isinstance(module, WEIGHTED):
            if stage.weighted is not None:
                raise KernelError(
                    f"{name} follows another layer of weights without neurons between.",
                    remedy="merge the two into one layer, or put an nd.nn.LIF between them.",
                    code="saf-weights",
                )
            stage.weighted = WeightedMap(module, name)
        elif isinstance(module, FIXED):
            (stage.before if stage.weighted is None else stage.after).append(_fixed(name, module))
        else:
            kind = type(module).__name__
            raise KernelError(
                f"{name} is a {kind}, which does not act on accumulations as on spikes.",
                remedy=_REMEDIES.get(kind, "use Linear, Conv1d, Conv2d, average or sum pooling, Flatten, IAF and LIF")
                + ".",
                code="saf-module",
            )
    if not (found[-1].weighted or found[-1].before):
        found.pop()
    if not any(stage.neurons for stage in found):
        raise KernelError(
            "The network has no spiking layer.", remedy="add nd.nn.LIF(..., spikes='single').", code="saf-module"
        )
    return found


def common_decay(found: list[Stage]) -> torch.Tensor:
    """Return the decay, shape [1], that all neurons share.

    Raises:
        KernelError: the layers, or the neurons of one, differ in their decay.
    """
    decays = torch.cat([stage.neurons.decay.detach().reshape(-1) for stage in found if stage.neurons is not None])
    if not bool((decays == decays[0]).all()):
        raise KernelError(
            f"The neurons decay by {decays.min().item():.9g} to {decays.max().item():.9g} per step; a layer's "
            "accumulation carries its own decay, and the next layer's potential needs the same.",
            remedy="give all spiking layers one tau_mem (or use IAF throughout), or train with algorithm='exodus'.",
            code="saf-decay",
        )
    return decays[:1]


def neuron_parameters(layer: SpikingLayer, decay: torch.Tensor, features: torch.Size, like: torch.Tensor) -> Parameters:
    """Return the constants of a layer for neurons of shape ``features``.

    Raises:
        KernelError: a threshold or gain that does not broadcast to the neurons.
    """

    def flat(name: str, value: torch.Tensor) -> torch.Tensor:
        value = value.detach().to(like)
        if value.numel() == 1:
            return value.reshape(1)
        try:
            return value.expand(features).reshape(-1)
        except RuntimeError:
            raise KernelError(
                f"{type(layer).__name__} has a {name} of shape {tuple(value.shape)}, its neurons have shape "
                f"{tuple(features)}.",
                remedy="give one value, or a shape that broadcasts, for example (C, 1, 1) for one value per channel.",
                code="layer-parameter-shape",
            ) from None

    threshold = flat("threshold", layer.threshold)
    return Parameters(decay.to(like), threshold, flat("input_gain", layer.input_gain), threshold)


def _flat(module: torch.nn.Module, prefix: str) -> list[tuple[str, torch.nn.Module]]:
    if isinstance(module, torch.nn.Sequential):
        places = zip(module._modules, module, strict=True)  # named_children leaves out a layer's second place
        return [pair for name, child in places for pair in _flat(child, f"{prefix}{name}.")]
    if isinstance(module, OverTime):
        return _flat(module.module, prefix)
    return [(prefix.rstrip(".") or type(module).__name__, module)]


def apply_fixed(maps: list[FixedMap], x: torch.Tensor) -> torch.Tensor:
    """Run fixed maps on every step of x [T, B, ...]."""
    for run in maps:
        y = run(x.flatten(0, 1))
        x = y.reshape(*x.shape[:2], *y.shape[1:])
    return x


def _fixed(name: str, module: torch.nn.Module) -> FixedMap:
    """The map of a module on folded tensors [T * B, ...]."""
    if isinstance(module, torch.nn.Flatten):
        if module.start_dim not in (1, 2) or module.end_dim != -1:
            raise KernelError(
                f"{name} flattens axes {module.start_dim} to {module.end_dim}.",
                remedy="use Flatten() for folded (B*T, ...), Flatten(2) for (B, T, ...): all of one sample and step.",
                code="saf-module",
            )
        return partial(torch.flatten, start_dim=1)
    if isinstance(module, torch.nn.AvgPool2d):
        size, stride = (
            value if isinstance(value, tuple) else (value, value) for value in (module.kernel_size, module.stride)
        )
        if (
            size == stride
            and module.padding in (0, (0, 0))
            and not module.ceil_mode
            and module.divisor_override is None
        ):
            # torch's average keeps its input for the backward pass, which a sum has no need of
            return partial(_average, SumPool2d(size), size[0] * size[1])
    return module


def _average(summed: SumPool2d, count: int, x: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = summed(x)
    return total / count


def _refuse_layer(name: str, layer: SpikingLayer) -> None:
    refuse_neuron(layer.neuron, name)
    if any(parameter.requires_grad for parameter in layer.parameters()):
        raise KernelError(
            f"{name} learns its threshold or time constant; thresholds and decays of accumulations are constants.",
            remedy="leave out learn_threshold and learn_tau, or train it with algorithm='exodus'.",
            code="saf-learnt",
        )
    if layer.record_v:
        raise KernelError(
            f"{name} has record_v=True; potentials are not kept here.",
            remedy="use record_v=False, and record potentials by running the network itself.",
            code="saf-record-v",
        )
