"""Layers whose input and output are spike times, with exact gradients (``kernels/spike_time/README.md``)."""

from math import inf, sqrt
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from neurodeploy.errors import KernelError
from neurodeploy.kernels import spike_time
from neurodeploy.kernels.spike_time import Output, SpikeOverflowError, SpikeTimeNeuron


class _Revive(torch.autograd.Function):
    """Spike times as they are, and a gradient that raises the weights of neurons in proportion to their silence."""

    @staticmethod
    def forward(
        ctx: Any, times: torch.Tensor, weight: torch.Tensor, silent: torch.Tensor, amount: float
    ) -> torch.Tensor:
        """Return the times; ``silent`` [N] shares, weight [N, ...]."""
        ctx.save_for_backward(silent, weight)
        ctx.amount = amount
        return times.view_as(times)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Pass the gradient on, and lower that of a neuron's weights by its share of the amount."""
        silent, weight = ctx.saved_tensors
        bump = (-ctx.amount * silent.to(weight.dtype)).reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
        return grads[0], bump, None, None


class SpikeTimeLayer(torch.nn.Module):
    """What layers of spike times have in common: neurons, limits, and what the last call found.

    Attributes:
        neuron, max_spikes, t_max, grazing_limit, revive: see :class:`SpikeTimeLinear`.
        silent: neurons without a spike in the last call, summed over the batch.
        grazing: spikes of the last call whose gradient was limited.
    """

    weight: torch.nn.Parameter

    def __init__(
        self, neuron: SpikeTimeNeuron, *, max_spikes: int, t_max: float, grazing_limit: float, revive: float
    ) -> None:
        super().__init__()
        if not (isinstance(revive, int | float) and revive >= 0):
            raise KernelError(f"revive is {revive!r}.", remedy="give 0 (off) or more.", code="spike-time-revive")
        self.neuron = neuron
        self.max_spikes, self.t_max = max_spikes, t_max
        self.grazing_limit, self.revive = grazing_limit, float(revive)
        self.silent = self.grazing = 0

    def reset_parameters(self, mean: float = 2.0, std: float = 1.0) -> None:
        """Draw the weights anew.

        If all inputs fired once and together, potentials would peak at normally distributed multiples of the threshold:
        ``mean`` and ``std`` are those of the multiple (without resets).
        """
        threshold = torch.as_tensor(self.neuron.threshold, dtype=torch.float64)
        inputs = self.weight[0].numel()
        unit = (threshold.cpu() / self.neuron.peak_response()).to(self.weight)
        unit = unit.reshape(-1, *[1] * (self.weight.dim() - 1))
        with torch.no_grad():
            self.weight.normal_(mean / inputs, std / sqrt(inputs)).mul_(unit)

    def fire(
        self,
        times: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        neuron: SpikeTimeNeuron | None = None,
        observed: torch.Tensor | None = None,
        grazing_limit: float | None = None,
    ) -> Output:
        """Run the neurons on times [B, inputs, slots], also with other values than the layer's own.

        Args:
            times: input spikes.
            weight: in place of the layer's, of its shape.
            neuron: in place of the layer's.
            observed: spikes of the layer [B, N, slots] that a chip fired; see ``kernels.spike_time.observe``.
            grazing_limit: in place of the layer's.
        """
        table = (self.weight if weight is None else weight).flatten(1).t()
        neuron = self.neuron if neuron is None else neuron
        grazing = self.grazing_limit if grazing_limit is None else grazing_limit
        if observed is None:
            found = spike_time.apply(
                times, table, neuron, max_spikes=self.max_spikes, t_max=self.t_max, grazing=grazing
            )
        else:
            found = spike_time.observe(times, table, observed, neuron, t_max=self.t_max, grazing=grazing)
        self.silent, self.grazing = int((found.counts == 0).sum()), int(found.grazing.sum())
        if self.revive and self.weight.requires_grad:
            silent = (found.counts == 0).double().mean(0)
            revived = _Revive.apply(found.times, self.weight, silent, self.revive)  # type: ignore[no-untyped-call]
            return found._replace(times=revived)
        return found

    def extra_repr(self) -> str:
        """Show shapes and limits in ``repr``."""
        return f"{tuple(self.weight.shape)}, reset={self.neuron.reset!r}, max_spikes={self.max_spikes}"


class SpikeTimeLinear(SpikeTimeLayer):
    """Fully connected layer of current-based LIF neurons, from spike times to spike times, from rest and without bias.

    Takes times (B, in_features, slots) in any order, inf where there is no spike, and returns (B, out_features,
    max_spikes), ascending and padded with inf; float32 or float64. Gradients by weights and times are exact as long as
    no spike appears or disappears (Bacho and Chu 2022). Nothing but the weights learns.

    Args:
        in_features, out_features: numbers of inputs and neurons.
        neuron: constants of the neurons.
        max_spikes: slots per neuron.
        t_max: end of the run in the unit of the times; input after it is left out. ``inf``: until all are at rest.
        grazing_limit: smallest relative slope at which gradients are taken as they are, see
            ``kernels.spike_time.GRAZING``.
        revive: off at 0. Otherwise the gradient of every weight of a neuron is lowered by this times the share of
            samples in which the neuron is silent, so that optimisers raise it; the exact gradient is 0 there.

    Raises:
        KernelError: an argument that cannot be run. A call raises it for tensors that do not fit, and
            :class:`SpikeOverflowError` where a neuron has more than ``max_spikes`` spikes.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        neuron: SpikeTimeNeuron,
        *,
        max_spikes: int = 16,
        t_max: float = inf,
        grazing_limit: float = spike_time.GRAZING,
        revive: float = 0.0,
    ) -> None:
        super().__init__(neuron, max_spikes=max_spikes, t_max=t_max, grazing_limit=grazing_limit, revive=revive)
        self.weight = torch.nn.Parameter(torch.empty(out_features, in_features))
        neuron.rows(out_features)  # refuses constants of another length
        self.reset_parameters()

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """Run the layer on times (B, in_features, slots)."""
        return self.fire(times).times


class SpikeTimeConv2d(SpikeTimeLayer):
    """Convolution from spike times to spike times: :class:`SpikeTimeLinear` at every position, with shared weights.

    Takes (B, C, H, W, slots), returns (B, out_channels, H', W', max_spikes). Every position gets a copy of the times in
    its window. Constants of the neurons are numbers or one per output channel.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, padding: of both spatial axes; nothing fires in the padding.
        neuron, max_spikes, t_max, grazing_limit, revive: as in :class:`SpikeTimeLinear`; positions count as
            samples.

    Raises:
        KernelError: as :class:`SpikeTimeLinear`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        neuron: SpikeTimeNeuron,
        *,
        stride: int = 1,
        padding: int = 0,
        max_spikes: int = 16,
        t_max: float = inf,
        grazing_limit: float = spike_time.GRAZING,
        revive: float = 0.0,
    ) -> None:
        super().__init__(neuron, max_spikes=max_spikes, t_max=t_max, grazing_limit=grazing_limit, revive=revive)
        self.stride, self.padding = stride, padding
        self.weight = torch.nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        neuron.rows(out_channels)
        self.reset_parameters()

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """Run the layer on times (B, C, H, W, slots)."""
        channels, size = self.weight.shape[1], self.weight.shape[2]
        fits = times.dim() == 5 and times.shape[1] == channels
        if not fits or min(times.shape[2:4]) + 2 * self.padding < size:
            raise KernelError(
                f"The input has shape {tuple(times.shape)}; the layer has {channels} input channels and windows of "
                f"{size} x {size}.",
                remedy="give spike times (B, C, H, W, slots) of at least one window.",
                code="spike-time-shape",
            )
        batch, _, height, width, slots = times.shape
        rows, columns = ((n + 2 * self.padding - size) // self.stride + 1 for n in (height, width))
        planes = times.permute(0, 1, 4, 2, 3).reshape(batch, channels * slots, height, width)
        padded = torch.nn.functional.pad(planes, [self.padding] * 4, value=inf)
        windows = torch.nn.functional.unfold(padded, size, stride=self.stride)  # [B, C * slots * window, positions]
        windows = windows.reshape(batch, channels, slots, size * size, rows * columns).permute(0, 4, 1, 3, 2)
        try:
            fired = self.fire(windows.reshape(batch * rows * columns, channels * size * size, slots)).times
        except SpikeOverflowError as error:
            sample, position = divmod(error.sample, rows * columns)
            place = f"row {position // columns}, column {position % columns} of sample {sample}"
            raise SpikeOverflowError(place, sample, error.neuron, error.limit) from error
        return fired.reshape(batch, rows, columns, -1, self.max_spikes).permute(0, 3, 1, 2, 4)
