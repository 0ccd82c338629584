"""The operators of a layer on a GPU: spikes, their times and all adjoints with the bits of the CPU (README.md)."""

from math import inf
from typing import NamedTuple

import torch
import triton

from neurodeploy.errors import KernelError
from neurodeploy.gpu import launch
from neurodeploy.gpu.memory import empty
from neurodeploy.kernels.spike_time.gpu_kernels import backward_kernel, fold_kernel, forward_kernel, steps_kernel
from neurodeploy.kernels.spike_time.operators import SpikeOverflowError, check_saved, check_shapes, check_values

BLOCK = 32
"""Neurons of one program: a lane each, one warp, so that no neuron waits for others to fire but those of its warp."""

LANES = 128
"""Lanes of the programs that go over events or sums."""

PROGRAMS = 2048
"""Programs that keep a large chip busy: the backward pass splits a batch into groups until it has as many."""

REGISTERS, MANY_REGISTERS = 128, 160
"""Of a thread: with one solver, and with several. The compiler would rather spill some than use this many."""

PARTIAL_BYTES = 1 << 28
"""Most memory for the groups' sums of gradients of the weights."""


class _Events(NamedTuple):
    """Input spikes of every sample in the order of arrival.

    Attributes:
        time: [B, slots], ascending, dtype of the input; inf behind the last spike.
        order: [B, slots] int64: the slot of the sample that each comes from.
        source: [B, slots] int32: its input.
        spikes: how many there are, [B] int32.
    """

    time: torch.Tensor
    order: torch.Tensor
    source: torch.Tensor
    spikes: torch.Tensor


def _sorted(times: torch.Tensor, t_max: float) -> _Events:
    flat = times.flatten(1)
    arrives = (flat < torch.inf) & (flat.double() <= t_max)
    time, order = torch.where(arrives, flat, torch.inf).sort(dim=1, stable=True)
    source = (order // max(1, times.shape[2])).int()
    return _Events(time, order, source, arrives.sum(1, dtype=torch.int32))


class _Layer:
    """What both passes have in common: sorted events, constants and propagators, on the device of the times."""

    def __init__(
        self,
        times: torch.Tensor,
        weight: torch.Tensor,
        cells: torch.Tensor,
        max_spikes: int,
        hard: bool,
        t_max: float,
        grazing: float,
    ) -> None:
        self.batch, self.neurons = times.shape[0], weight.shape[1]
        self.blocks = triton.cdiv(self.neurons, BLOCK)
        if self.batch * self.blocks >= 2**31:
            raise KernelError(
                f"{self.batch} samples of {self.neurons} neurons need more programs than a GPU starts at once.",
                remedy="split the batch.",
                code="kernel-shape",
            )
        self.events = _sorted(times, t_max)
        slots = times.shape[1] * times.shape[2]
        self.total = self.batch * slots
        columns = cells.shape[1]
        shared = columns == 1
        numbers = torch.cat([torch.tensor([t_max, grazing], dtype=torch.float64), cells.flatten()])
        constants = numbers.to(times.device)
        steps = empty((3 * self.total if shared else 0,), torch.float64, times)
        time, spikes = self.events.time, self.events.spikes
        if shared:
            launch.run(
                steps_kernel,
                (triton.cdiv(self.total, LANES),),
                (time, spikes, constants, steps, slots, self.total),
                LANES // 32,
                LANES=LANES,
            )
        self.inputs = (time, self.events.source, spikes, steps, weight, constants)
        kept = self.batch * self.neurons * max_spikes
        self.sizes = (slots, self.total, self.neurons, columns, max_spikes, kept)
        self.choices = {"HARD": hard, "SHARED": shared, "BLOCK": BLOCK}


def forward(
    times: torch.Tensor,
    weight: torch.Tensor,
    cells: torch.Tensor,
    hard: bool,
    max_spikes: int,
    t_max: float,
    grazing: float,
    keep: bool,
) -> tuple[torch.Tensor, ...]:
    """The forward operator; arguments and results are those of its schema (``operators.py``), ``cells`` on the CPU.

    Waits for the device once, to see whether the values were allowed and whether spikes overflow.
    """
    check_shapes(times, weight, max_spikes)
    layer = _Layer(times, weight, cells, max_spikes, hard, t_max, grazing)
    out = empty((layer.batch, layer.neurons, max_spikes), times.dtype, times).fill_(inf)
    counts, grazes = (empty(out.shape[:2], torch.int32, times).zero_() for _ in range(2))
    shape = (1 + hard, *out.shape) if keep else (0,)
    interval = empty(shape, torch.int32, times).fill_(-1)
    offset, drive = (empty(shape, torch.float64, times).zero_() for _ in range(2))
    quadratic, lambert = cells[0] == 2 * cells[1], cells[0] == cells[1]
    solvers = bool(quadratic.any()), bool(lambert.any()), not bool((quadratic | lambert).all())
    launch.run(
        forward_kernel,
        (layer.batch * layer.blocks,),
        (*layer.inputs, out, counts, grazes, interval, offset, drive, *layer.sizes),
        1,
        **layer.choices,
        KEEP=keep,
        QUADRATIC=solvers[0],
        LAMBERT=solvers[1],
        NEWTON=solvers[2],
        maxnreg=REGISTERS if sum(solvers) == 1 else MANY_REGISTERS,
    )
    _raise_found(times, weight, counts, max_spikes)
    return out, counts, grazes, interval, offset, drive


def _raise_found(times: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor, max_spikes: int) -> None:
    """Refuse values that are not allowed, and spikes without a slot; all conditions are read at once."""
    allowed = torch.stack([weight.isfinite().all(), (times > -inf).all(), (counts <= max_spikes).all()])
    if not all(allowed.tolist()):
        check_values(times, weight)
        sample, neuron = (int(index) for index in (counts > max_spikes).nonzero()[0])
        raise SpikeOverflowError(f"sample {sample}", sample, neuron, max_spikes)


def backward(
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
    """The backward operator; arguments and results are those of its schema, ``cells`` on the CPU.

    Adjoints have the bits of the CPU's. They are summed over the samples of a group and the neurons of a block, then
    over groups and blocks, always in the same order; how many there are depends on the shape alone.
    """
    check_saved(grad, times, interval, hard)
    layer = _Layer(times, weight, cells, grad.shape[2], hard, t_max, grazing)
    table = weight.numel()
    groups = max(1, min(layer.batch, PROGRAMS // max(1, layer.blocks), PARTIAL_BYTES // max(1, 8 * table)))
    by_group = empty((groups, table), torch.float64, weight).zero_()
    by_block = empty((layer.blocks, layer.total if of_times else 0), torch.float64, weight).zero_()
    launch.run(
        backward_kernel,
        (groups * layer.blocks,),
        (
            *layer.inputs,
            grad,
            counts,
            interval,
            offset,
            drive,
            by_group,
            by_block,
            layer.batch,
            groups,
            table,
            *layer.sizes,
        ),
        1,
        **layer.choices,
        OF_TIMES=of_times,
        maxnreg=REGISTERS,
    )
    grad_weight = _summed(by_group, weight)
    if not of_times:
        return grad_weight, times.new_empty(0)
    by_event = _summed(by_block, times).flatten(1)
    return grad_weight, empty(by_event.shape, times.dtype, times).scatter_(1, layer.events.order, by_event).view_as(
        times
    )


def _summed(parts: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the first axis in its order, in the shape and dtype of ``like``."""
    result = empty(like.shape, like.dtype, like)
    rows, width = parts.shape
    launch.run(fold_kernel, (triton.cdiv(width, LANES),), (parts, result, rows, width), LANES // 32, LANES=LANES)
    return result
