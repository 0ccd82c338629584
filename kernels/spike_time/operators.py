"""Spike times of one layer: two opaque operators and the autograd function around them."""

from functools import partial
from math import inf
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from neurodeploy.errors import KernelError
from neurodeploy.extension import native as _native
from neurodeploy.kernel import check_device, gpu_module
from neurodeploy.kernels.spike_time.neuron import SpikeTimeNeuron
from neurodeploy.threads import threads_for

GRAZING = 1e-3
"""A spike grazes the threshold if its slope u' is below this share of ``|i| + threshold / tau_mem`` (u' is their
difference): its time changes by any amount with the weights, so the gradient takes the slope at that limit."""

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    "spike_time_forward(Tensor times, Tensor weight, Tensor cells, bool hard, int max_spikes, float t_max, "
    "float grazing, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "spike_time_observe(Tensor times, Tensor weight, Tensor observed, Tensor cells, bool hard, float t_max, "
    "float grazing) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "spike_time_backward(Tensor grad, Tensor times, Tensor weight, Tensor cells, Tensor counts, Tensor interval, "
    "Tensor offset, Tensor drive, bool hard, float t_max, float grazing, bool of_times) -> (Tensor, Tensor)"
)


class Output(NamedTuple):
    """What a layer fires.

    Attributes:
        times: [B, N, max_spikes], ascending, inf behind the last spike; differentiable.
        counts: spikes of each neuron, [B, N] int32.
        grazing: how many of them graze the threshold, [B, N] int32: their gradient is limited (:data:`GRAZING`).
    """

    times: torch.Tensor
    counts: torch.Tensor
    grazing: torch.Tensor


class SpikeOverflowError(KernelError):
    """A neuron has more spikes than there are slots (code ``spike-time-overflow``).

    Args:
        place: where the neuron is, in words.
        sample, neuron: its indices.
        limit: ``max_spikes``.
    """

    def __init__(self, place: str, sample: int, neuron: int, limit: int) -> None:
        super().__init__(
            f"Neuron {neuron} fires more than max_spikes={limit} times in {place} of the batch.",
            remedy="raise max_spikes, or make it fire less: smaller weights, a higher threshold, a shorter t_max.",
            code="spike-time-overflow",
        )
        self.sample, self.neuron, self.limit = sample, neuron, limit


def _options(times: torch.Tensor, neurons: int, max_spikes: int, hard: bool, t_max: float, grazing: float) -> Any:
    threads = threads_for(times.numel() * neurons)
    return _native.spike_time.Options(*times.shape, neurons, max_spikes, hard, t_max, grazing, threads)


def _forward_cpu(
    times: torch.Tensor,
    weight: torch.Tensor,
    cells: torch.Tensor,
    hard: bool,
    max_spikes: int,
    t_max: float,
    grazing: float,
    keep: bool,
) -> tuple[torch.Tensor, ...]:
    check_shapes(times, weight, max_spikes)
    check_values(times, weight)
    batch, neurons = times.shape[0], weight.shape[1]
    out = times.new_full((batch, neurons, max_spikes), inf)
    counts = torch.empty(batch, neurons, dtype=torch.int32)
    grazes = torch.empty(batch, neurons, dtype=torch.int32)
    kept = (1 + hard, *out.shape) if keep else (0,)
    interval = torch.full(kept, -1, dtype=torch.int32)
    offset, drive = torch.zeros(kept, dtype=torch.float64), torch.zeros(kept, dtype=torch.float64)
    overflow = _native.spike_time.forward(
        times.dtype == torch.float64,
        _options(times, neurons, max_spikes, hard, t_max, grazing),
        cells.data_ptr(),
        cells.shape[1],
        *(tensor.data_ptr() for tensor in (times, weight, out, counts, grazes)),
        *(tensor.data_ptr() if keep else 0 for tensor in (interval, offset, drive)),
    )
    if overflow < batch * neurons:
        raise SpikeOverflowError(f"sample {overflow // neurons}", overflow // neurons, overflow % neurons, max_spikes)
    return out, counts, grazes, interval, offset, drive


def _observe_cpu(
    times: torch.Tensor,
    weight: torch.Tensor,
    observed: torch.Tensor,
    cells: torch.Tensor,
    hard: bool,
    t_max: float,
    grazing: float,
) -> tuple[torch.Tensor, ...]:
    check_shapes(times, weight, observed.shape[-1])
    check_values(times, weight)
    _check_observed(times, weight, observed, t_max)
    counts, grazes, interval, offset, drive = _observe_fake(times, weight, observed, cells, hard)
    interval.fill_(-1)
    offset.zero_()
    drive.zero_()
    _native.spike_time.observe(
        times.dtype == torch.float64,
        _options(times, weight.shape[1], observed.shape[2], hard, t_max, grazing),
        cells.data_ptr(),
        cells.shape[1],
        *(tensor.data_ptr() for tensor in (times, weight, observed, counts, grazes, interval, offset, drive)),
    )
    return counts, grazes, interval, offset, drive


def _observe_from_gpu(
    times: torch.Tensor, weight: torch.Tensor, observed: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, ...]:
    """Observed spikes come from a chip, through the host: they are followed there; the gradient is left to the GPU."""
    found = _observe_cpu(times.cpu(), weight.cpu(), observed.cpu(), *others)
    return tuple(tensor.to(times.device) for tensor in found)


def _observe_fake(
    times: torch.Tensor, weight: torch.Tensor, observed: torch.Tensor, cells: torch.Tensor, hard: bool, *others: Any
) -> tuple[torch.Tensor, ...]:
    counts = observed.new_empty(observed.shape[:2], dtype=torch.int32)
    interval = observed.new_empty((1 + hard, *observed.shape), dtype=torch.int32)
    offset = observed.new_empty(interval.shape, dtype=torch.float64)
    return counts, torch.empty_like(counts), interval, offset, torch.empty_like(offset)


def _check_observed(times: torch.Tensor, weight: torch.Tensor, observed: torch.Tensor, t_max: float) -> None:
    fits = observed.shape[:2] == (times.shape[0], weight.shape[1]) and observed.dim() == 3
    if not fits or observed.dtype != times.dtype or not observed.is_contiguous():
        raise KernelError(
            f"The observed spikes are {observed.dtype} of shape {tuple(observed.shape)} and strides "
            f"{observed.stride()}; the input is {times.dtype} of {times.shape[0]} samples, the layer has "
            f"{weight.shape[1]} neurons.",
            remedy="give contiguous times [B, neurons, slots] of the input's dtype.",
            code="kernel-shape",
        )
    before = torch.nn.functional.pad(observed, [1, 0], value=-inf)[..., :-1]
    bad = ~((observed > -inf) & (observed >= before) & ((observed <= t_max) | (observed == inf)))
    if bool(bad.any()):
        sample, neuron, slot = (int(index) for index in bad.nonzero()[0])
        raise KernelError(
            f"Observed spike time {float(observed[sample, neuron, slot])} in sample {sample}, neuron {neuron}, slot "
            f"{slot}, after {float(before[sample, neuron, slot])}.",
            remedy=f"give ascending times up to t_max = {t_max}, and inf behind the last spike.",
            code="spike-time-observed",
        )


def check_shapes(times: torch.Tensor, weight: torch.Tensor, max_spikes: int) -> None:
    """Refuse tensors that no operator can run on, whatever is in them.

    Raises:
        KernelError: wrong dtype, axes, strides or sizes, or a ``max_spikes`` that is not above 0.
    """
    for name, tensor, axes in (("times", times, 3), ("weight", weight, 2)):
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != times.dtype:
            raise KernelError(
                f"{name} is {tensor.dtype}, the spike times are {times.dtype}.",
                remedy="give both as float32 or both as float64.",
                code="kernel-dtype",
            )
        if tensor.dim() != axes or not tensor.is_contiguous():
            raise KernelError(
                f"{name} has shape {tuple(tensor.shape)} and strides {tensor.stride()}.",
                remedy=f"give a contiguous tensor of {axes} axes.",
                code="kernel-shape",
            )
    if times.shape[1] != weight.shape[0]:
        raise KernelError(
            f"Spike times of {times.shape[1]} inputs, weights of {weight.shape[0]}.",
            remedy="give times [B, inputs, slots] and weights [inputs, neurons].",
            code="kernel-shape",
        )
    if times.shape[1] * times.shape[2] >= 2**31:
        raise KernelError(
            f"One sample has {times.shape[1]} x {times.shape[2]} slots for input spikes; the limit is 2^31 - 1.",
            remedy="split the recording or the layer.",
            code="kernel-shape",
        )
    if isinstance(max_spikes, bool) or max_spikes < 1:
        raise KernelError(
            f"max_spikes is {max_spikes}.", remedy="give a whole number above 0.", code="spike-time-max-spikes"
        )


def check_values(times: torch.Tensor, weight: torch.Tensor) -> None:
    """Refuse weights and times that are not numbers; inf is a time.

    Raises:
        KernelError: the first weight, or else the first time, that is not allowed.
    """
    if weight.numel() and not bool(weight.abs().amax() < inf):  # false for nan too
        source, neuron = (int(index) for index in (~weight.isfinite()).nonzero()[0])
        raise KernelError(
            f"The weight from input {source} to neuron {neuron} is {float(weight[source, neuron])}.",
            remedy="give finite weights; in training, lower the learning rate or clip gradients.",
            code="spike-time-weight",
        )
    if times.numel() and not bool(times.amin() > -inf):
        bad = ~(times > -inf)
        sample, neuron, slot = (int(index) for index in bad.nonzero()[0])
        raise KernelError(
            f"Spike time {float(times[sample, neuron, slot])} in sample {sample}, input {neuron}, slot {slot}.",
            remedy="give finite times, and inf where there is no spike.",
            code="spike-time-input",
        )


def _forward_fake(
    times: torch.Tensor,
    weight: torch.Tensor,
    cells: torch.Tensor,
    hard: bool,
    max_spikes: int,
    t_max: float,
    grazing: float,
    keep: bool,
) -> tuple[torch.Tensor, ...]:
    out = times.new_empty((times.shape[0], weight.shape[1], max_spikes))
    kept = (1 + hard, *out.shape) if keep else (0,)
    counts = out.new_empty(out.shape[:2], dtype=torch.int32)
    interval = out.new_empty(kept, dtype=torch.int32)
    offset = out.new_empty(kept, dtype=torch.float64)
    return out, counts, torch.empty_like(counts), interval, offset, torch.empty_like(offset)


def check_saved(grad: torch.Tensor, times: torch.Tensor, interval: torch.Tensor, hard: bool) -> None:
    """Refuse a gradient that does not belong to what was kept of the spikes.

    Raises:
        KernelError: it has another shape or dtype, or is not contiguous.
    """
    if tuple(interval.shape) != (1 + hard, *grad.shape) or grad.dtype != times.dtype or not grad.is_contiguous():
        raise KernelError(
            f"The gradient is {grad.dtype} of shape {tuple(grad.shape)} and strides {grad.stride()}; what was kept of "
            f"the spikes has shape {tuple(interval.shape)}.",
            remedy="pass what the forward operator returned with keep=True, and gradients shaped like its times.",
            code="kernel-shape",
        )


def _backward_cpu(
    grad: torch.Tensor,
    times: torch.Tensor,
    weight: torch.Tensor,
    cells: torch.Tensor,
    counts: torch.Tensor,
    interval: torch.Tensor,
    offset: torch.Tensor,
    drive: torch.Tensor,
    hard: bool,
    t_max: float,
    grazing: float,
    of_times: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    check_saved(grad, times, interval, hard)
    grad_weight = torch.empty_like(weight)
    grad_times = torch.empty_like(times) if of_times else times.new_empty(0)
    _native.spike_time.backward(
        times.dtype == torch.float64,
        _options(times, weight.shape[1], grad.shape[2], hard, t_max, grazing),
        cells.data_ptr(),
        cells.shape[1],
        *(tensor.data_ptr() for tensor in (grad, times, weight, counts, interval, offset, drive, grad_weight)),
        grad_times.data_ptr() if of_times else 0,
    )
    return grad_weight, grad_times


def _backward_fake(
    grad: torch.Tensor, times: torch.Tensor, weight: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(weight), torch.empty_like(times) if others[-1] else times.new_empty(0)


def _on_gpu(half: str, *arguments: Any) -> tuple[torch.Tensor, ...]:
    outputs: tuple[torch.Tensor, ...] = getattr(gpu_module("neurodeploy.kernels.spike_time.gpu"), half)(*arguments)
    return outputs


_library.impl("spike_time_forward", _forward_cpu, "CPU")
_library.impl("spike_time_observe", _observe_cpu, "CPU")
_library.impl("spike_time_backward", _backward_cpu, "CPU")
_library.impl("spike_time_forward", partial(_on_gpu, "forward"), "CUDA")
_library.impl("spike_time_observe", _observe_from_gpu, "CUDA")
_library.impl("spike_time_backward", partial(_on_gpu, "backward"), "CUDA")
torch.library.register_fake("neurodeploy::spike_time_forward", _forward_fake, lib=_library)
torch.library.register_fake("neurodeploy::spike_time_observe", _observe_fake, lib=_library)
torch.library.register_fake("neurodeploy::spike_time_backward", _backward_fake, lib=_library)


class _SpikeTimes(torch.autograd.Function):
    """Spike times with their exact gradient; the counts have none."""

    @staticmethod
    def forward(
        ctx: Any,
        times: torch.Tensor,
        weight: torch.Tensor,
        cells: torch.Tensor,
        hard: bool,
        max_spikes: int,
        t_max: float,
        grazing: float,
        keep: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Run the forward operator; ``keep`` where there will be a backward pass."""
        out, counts, grazes, *kept = torch.ops.neurodeploy.spike_time_forward(
            times, weight, cells, hard, max_spikes, t_max, grazing, keep
        )
        ctx.save_for_backward(times, weight, cells, counts, *kept)
        ctx.options = (hard, t_max, grazing)
        ctx.mark_non_differentiable(counts, grazes)
        return out, counts, grazes

    @staticmethod
    @once_differentiable  # a second derivative is refused instead of wrong
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator on the gradient of the times."""
        of_times, of_weight = ctx.needs_input_grad[:2]
        grad_weight, grad_times = torch.ops.neurodeploy.spike_time_backward(
            grads[0].contiguous(), *ctx.saved_tensors, *ctx.options, of_times
        )
        return grad_times if of_times else None, grad_weight if of_weight else None, *(None,) * 6


class _ObservedTimes(torch.autograd.Function):
    """Spike times from elsewhere, with the gradient that they have in the model."""

    @staticmethod
    def forward(
        ctx: Any,
        times: torch.Tensor,
        weight: torch.Tensor,
        observed: torch.Tensor,
        cells: torch.Tensor,
        hard: bool,
        t_max: float,
        grazing: float,
    ) -> tuple[torch.Tensor, ...]:
        """Run the observing operator."""
        counts, grazes, *kept = torch.ops.neurodeploy.spike_time_observe(
            times, weight, observed, cells, hard, t_max, grazing
        )
        ctx.save_for_backward(times, weight, cells, counts, *kept)
        ctx.options = (hard, t_max, grazing)
        ctx.mark_non_differentiable(counts, grazes)
        return observed.view_as(observed), counts, grazes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the backward operator, as if the times were the model's own."""
        return _SpikeTimes.backward(ctx, *grads)[:7]


def _check_run(tensors: dict[str, torch.Tensor], t_max: float, grazing: float) -> None:
    times = tensors["times"]
    for name, tensor in tensors.items():
        check_device(tensor)
        if tensor.device != times.device:
            raise KernelError(
                f"{name} is on {tensor.device}, the spike times are on {times.device}.",
                remedy=f"move it with .to({str(times.device)!r}).",
                code="kernel-device",
            )
    if not grazing > 0:
        raise KernelError(f"grazing is {grazing}.", remedy="give a number above 0.", code="spike-time-grazing")
    if t_max != t_max:
        raise KernelError("t_max is not a number.", remedy="give a time, or inf.", code="spike-time-t-max")


def apply(
    times: torch.Tensor,
    weight: torch.Tensor,
    neuron: SpikeTimeNeuron,
    *,
    max_spikes: int,
    t_max: float = inf,
    grazing: float = GRAZING,
) -> Output:
    """Run one feed-forward layer from rest, event by event, differentiably in input times and weights.

    Arithmetic is float64 also where tensors are float32. The result has the same bits for any number of threads.

    Args:
        times: input spikes [B, inputs, slots], float32 or float64, in the neuron's unit of time; any order, inf where
            there is none.
        weight: [inputs, neurons], of the same dtype (the transpose of a ``torch.nn.Linear``'s).
        neuron: its constants.
        max_spikes: slots per neuron in the output.
        t_max: end of the run; input after it is left out. ``inf``: until every neuron is at rest.
        grazing: see :data:`GRAZING`, > 0.

    Raises:
        KernelError: tensors that cannot be run.
        SpikeOverflowError: a neuron has more than ``max_spikes`` spikes; the first one is named.
    """
    _check_run({"times": times, "weight": weight}, t_max, grazing)
    keep = torch.is_grad_enabled() and (times.requires_grad or weight.requires_grad)
    cells = neuron.rows(weight.shape[-1]).contiguous()
    hard = neuron.reset == "value"
    return Output(
        *_SpikeTimes.apply(  # type: ignore[no-untyped-call]
            times.contiguous(), weight.contiguous(), cells, hard, max_spikes, float(t_max), float(grazing), keep
        )
    )


def observe(
    times: torch.Tensor,
    weight: torch.Tensor,
    observed: torch.Tensor,
    neuron: SpikeTimeNeuron,
    *,
    t_max: float = inf,
    grazing: float = GRAZING,
) -> Output:
    """Take a layer's spike times from elsewhere, a chip say, with the gradient that they have in the model.

    The model's neurons are made to fire at the observed times instead of where they reach their thresholds, and
    gradients are those of :func:`apply` along that course: of spikes ``t`` with ``u(t) = threshold``, with the currents
    and resets that the model has then. At the model's own spike times it is the gradient of ``apply``, bit for bit
    (but where rounding put a spike on the time of an input). A spike where the model's potential does not rise counts
    as grazing, so ``grazing`` bounds its gradient. A spike within the refractory time ends it; one that no input
    precedes only resets its neuron.

    Args:
        times, weight, neuron, t_max, grazing: as for :func:`apply`; ``times`` are the observed spikes of the layer
            before, or the input.
        observed: spikes [B, N, slots] of this layer, of the dtype of ``times``, ascending, up to ``t_max``, inf behind
            the last.

    Returns:
        The observed times, differentiable in ``times`` and ``weight``, and counts.

    Raises:
        KernelError: tensors that cannot be run.
    """
    _check_run({"times": times, "weight": weight, "observed": observed}, t_max, grazing)
    cells = neuron.rows(weight.shape[-1]).contiguous()
    return Output(
        *_ObservedTimes.apply(  # type: ignore[no-untyped-call]
            times.contiguous(),
            weight.contiguous(),
            observed.detach().contiguous(),
            cells,
            neuron.reset == "value",
            float(t_max),
            float(grazing),
        )
    )
