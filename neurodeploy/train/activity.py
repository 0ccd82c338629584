"""How much a network spikes and computes while it runs: spikes and synaptic operations, per layer and recording."""

from collections.abc import Callable
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
import torch

from neurodeploy.nn import NeuronLayer, SpikingLayer, SRMAlpha, SumPool2d
from neurodeploy.nn.recurrent import Lateral
from neurodeploy.quantize.guards import Guard, guard_weight

_NEURONS = (NeuronLayer, SRMAlpha)
_WEIGHTS = (torch.nn.Conv2d, torch.nn.Linear)
_PASSING = (SumPool2d, torch.nn.Flatten, torch.nn.Dropout, torch.nn.Dropout2d, torch.nn.Identity)


class Activity:
    """Count spikes per spiking layer and synaptic operations per weight layer during forward passes.

    A synaptic operation (SynOp) is one incoming event times one target neuron, as the emulator counts them: a neuron at
    the border of a map is not counted for kernel positions outside it, a weight of 0 is counted. Weight layers are
    ``Conv2d`` and ``Linear``; what enters them are events, or events divided by the windows of ``AvgPool2d`` modules on
    the way, which are multiplied back. The lateral connections of a recurrent layer are a weight layer of their own
    (``<layer>.rec_connect``), into which the layer's spikes go. What runs several times in one pass adds up.

    Use as a context manager around forward passes; ``begin(recordings)`` before each of them.

    Args:
        network: the network; its modules are watched with hooks.
        differentiable: whether the counts carry gradients with respect to spikes.

    Attributes (of the last pass; B recordings; exact below 2^24 spikes or events per recording and layer):
        spikes: spiking layer -> float64 ``[B]``, spikes per recording.
        neuron_steps: spiking layer -> neurons times time steps of one recording.
        synops: weight layer -> float64 ``[B]``, synaptic operations per recording.
        fed_by: spiking layer -> the weight layer that ran last before it.
        event_sizes: weight layer, lateral ones aside -> what one event is when it enters the layer; 1 without average
            pools before it.
    """

    def __init__(self, network: torch.nn.Module, *, differentiable: bool = False) -> None:
        self._network = network
        self._differentiable = differentiable
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._recordings = 1
        self._fan_out: dict[tuple[str, torch.Size], torch.Tensor] = {}
        # Outputs of average pools and of what passes them on: id -> (the tensor, kept so that its id stays its own, and
        # the factor that makes events of it).
        self._averaged: dict[int, tuple[torch.Tensor, int]] = {}
        self._last_weights = ""
        self.spikes: dict[str, torch.Tensor] = {}
        self.neuron_steps: dict[str, int] = {}
        self.synops: dict[str, torch.Tensor] = {}
        self.fed_by: dict[str, str] = {}
        self.event_sizes: dict[str, float] = {}

    def __enter__(self) -> "Activity":
        connections = [module.rec_connect for module in self._network.modules() if isinstance(module, Lateral)]
        # No hooks on matrices: the kernel multiplies with them, but not with those that have hooks.
        matrices = {module for module in connections if isinstance(module, torch.nn.Linear)}
        lateral = {module for connection in connections for module in connection.modules()}
        for name, module in self._network.named_modules():
            if isinstance(module, _NEURONS):
                self._handles.append(module.register_forward_hook(self._after_neurons(name)))
            elif isinstance(module, _WEIGHTS) and module not in matrices:
                self._handles.append(module.register_forward_hook(self._after_weights(name, module in lateral)))
            elif isinstance(module, (torch.nn.AvgPool2d, *_PASSING)):
                self._handles.append(module.register_forward_hook(self._after_pool))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._averaged.clear()

    def begin(self, recordings: int) -> None:
        """Start counting a forward pass over so many recordings, batch axis first."""
        self._recordings = recordings
        self._averaged.clear()
        self._last_weights = ""
        for counts in (self.spikes, self.neuron_steps, self.synops, self.fed_by, self.event_sizes):
            counts.clear()

    @property
    def total_synops(self) -> torch.Tensor:
        """Synaptic operations of all layers per recording, float64 ``[B]``."""
        layers = list(self.synops.values())
        return sum(layers[1:], layers[0]) if layers else torch.zeros(self._recordings, dtype=torch.float64)

    def weight_guards(self) -> list[Guard]:
        """Warnings about weights that are too large for the thresholds behind them, in the last pass's network."""
        modules = dict(self._network.named_modules())
        guards = []
        for neurons, weights in self.fed_by.items():
            layer, after = modules.get(weights), modules[neurons]
            if isinstance(layer, _WEIGHTS) and isinstance(after, SpikingLayer):
                gain = float(after.input_gain.detach().max()) * self.event_sizes[weights]
                largest = float(layer.weight.detach().max()) * gain
                guards += guard_weight(weights, largest, float(after.threshold.detach().min()))
        return guards

    def _after_neurons(self, name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], Any], None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            spikes: torch.Tensor = output[0] if isinstance(output, tuple) else output  # with return_state
            if not self._differentiable:
                spikes = spikes.detach()
            fired = spikes.reshape(self._recordings, -1).sum(1).double()
            _add(self.spikes, name, fired)
            self.neuron_steps[name] = self.neuron_steps.get(name, 0) + spikes.numel() // self._recordings
            self.fed_by[name] = self._last_weights
            if isinstance(module, Lateral) and isinstance(module.rec_connect, torch.nn.Linear):
                _add(self.synops, f"{name}.rec_connect".lstrip("."), fired * module.rec_connect.out_features)

        return hook

    def _after_weights(
        self, name: str, lateral: bool
    ) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            events = inputs[0] if self._differentiable else inputs[0].detach()
            if isinstance(module, torch.nn.Conv2d):
                key = (name, events.shape[-2:])
                if key not in self._fan_out:
                    self._fan_out[key] = fan_out_of_convolution(module, events.shape, output.shape).to(events.device)
                per_position = events.reshape(self._recordings, -1, *events.shape[-2:]).sum(1).double()
                operations = (per_position * self._fan_out[key]).sum((1, 2))
            else:
                operations = events.reshape(self._recordings, -1).sum(1).double() * output.shape[-1]
            factor = self._averaged.get(id(inputs[0]), (None, 1))[1]
            _add(self.synops, name, operations * factor)
            if not lateral:
                self.event_sizes[name] = 1 / factor
                self._last_weights = name

        return hook

    def _after_pool(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        factor = self._averaged.get(id(inputs[0]), (None, 1))[1]
        if isinstance(module, torch.nn.AvgPool2d):
            kernel = module.kernel_size
            area = kernel**2 if isinstance(kernel, int) else prod(kernel)
            factor *= module.divisor_override or area
        if factor != 1:
            self._averaged[id(output)] = (output, factor)


def _add(sums: dict[str, torch.Tensor], name: str, amount: torch.Tensor) -> None:
    sums[name] = sums[name] + amount if name in sums else amount


def fan_out_of_convolution(module: torch.nn.Conv2d, inputs: torch.Size, outputs: torch.Size) -> torch.Tensor:
    """Neurons that one event reaches, per position of the input map.

    Args:
        module: the convolution.
        inputs, outputs: shapes of its input and output, ``(..., C, H, W)``.

    Returns:
        float64 ``[H, W]``.
    """
    per_axis = []
    for axis in (0, 1):
        kernel, stride, dilation = module.kernel_size[axis], module.stride[axis], module.dilation[axis]
        if isinstance(module.padding, str):  # "same" puts the odd row or column at the end
            padding = dilation * (kernel - 1) // 2 if module.padding == "same" else 0
        else:
            padding = module.padding[axis]
        size = inputs[axis - 2]
        reached = np.arange(outputs[axis - 2])[:, None] * stride - padding + np.arange(kernel) * dilation
        inside = reached[(reached >= 0) & (reached < size)]
        per_axis.append(torch.from_numpy(np.bincount(inside, minlength=size)).double())
    return torch.outer(*per_axis) * (module.out_channels // module.groups)
