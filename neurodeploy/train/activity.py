"""How much a network spikes and computes while it runs."""

from collections.abc import Callable
from types import TracebackType

import torch

from neurodeploy.nn import SpikingLayer


class Activity:
    """Count spikes per spiking layer and synaptic operations per weight layer during forward passes.

    A synaptic operation is one incoming event times one target neuron; a convolution has ``features * kh * kw /
    (stride_h * stride_w)`` targets per event on average (borders neglected). The events that enter a weight layer are
    those of the spiking layer (or the input) before it, whatever sum pooling lies between. For sequential networks.

    Use as a context manager; ``begin(x)`` before each forward pass. The sums are tensors, ``synops`` with gradient.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._events = torch.zeros(())
        self.synops = torch.zeros(())
        self.spikes: dict[str, torch.Tensor] = {}
        self.neuron_steps: dict[str, int] = {}

    def __enter__(self) -> "Activity":
        for name, module in self._network.named_modules():
            if isinstance(module, SpikingLayer):
                self._handles.append(module.register_forward_hook(self._after_neurons(name)))
            elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                self._handles.append(module.register_forward_hook(self._after_weights))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def begin(self, x: torch.Tensor) -> None:
        """Start counting a forward pass on the raster ``x``."""
        self._events = x.sum()
        self.synops = torch.zeros(())
        self.spikes.clear()
        self.neuron_steps.clear()

    def _after_neurons(self, name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self._events = output.sum()
            self.spikes[name] = self._events.detach()
            self.neuron_steps[name] = output.numel()

        return hook

    def _after_weights(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            (kernel_h, kernel_w), (stride_h, stride_w) = module.kernel_size, module.stride
            fan_out = module.out_channels * kernel_h * kernel_w / (stride_h * stride_w)
        else:
            fan_out = float(output.shape[-1])
        self.synops = self.synops + self._events * fan_out
