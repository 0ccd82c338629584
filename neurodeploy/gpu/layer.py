"""IAF/LIF layers on the GPU: the two operators of ``native_layer.py`` for tensors on a GPU.

Input, spikes and their gradients are float32, float64, bfloat16 or float16; state, parameters and everything computed
are float64 for float64, else float32.
"""

from typing import Any

import torch

from neurodeploy.errors import KernelError
from neurodeploy.gpu import flags, launch
from neurodeploy.gpu.choices import NO_LIMIT, Choices, inverse
from neurodeploy.gpu.layer_kernels import layer_backward, layer_fold, layer_forward, layer_repair
from neurodeploy.gpu.memory import empty
from neurodeploy.gpu.scan import add_up, backward_chunks, forward_chunks, scan, shared, slowest_decay, widest
from neurodeploy.kernel import CHECKPOINT_EVERY, Parameters, check_arguments
from neurodeploy.native_layer import (
    RESETS,
    LayerOptions,
    check_saved,
    gradient_shapes,
    kept_shapes,
    sizes,
    split,
)


def choices(options: LayerOptions, parameters: Parameters, reset_path: bool) -> Choices:
    """What the kernels of this call are compiled for."""
    limit = NO_LIMIT if options.v_min is None else options.v_min
    return Choices(
        reset=RESETS.index(options.reset),
        max_spikes=options.max_spikes,
        v_min_before=limit if options.v_min_position == "before_threshold" else NO_LIMIT,
        v_min_after=limit if options.v_min_position == "after_reset" else NO_LIMIT,
        surrogate=options.surrogate,
        width=options.width,
        scale=options.scale,
        inverse_width=inverse(options.width, parameters.decay.dtype),
        soft=options.soft,
        reset_path=reset_path,
        threshold_level=0.0 if options.detach_threshold and parameters.adapt_decay is not None else 1.0,
    )


def refuse_lateral(parameters: Parameters) -> None:
    """Refuse lateral connections.

    Raises:
        KernelError: the layer has some.
    """
    if parameters.weight is not None:
        raise KernelError(
            "Layers with lateral connections have no GPU kernel: each step of a neuron waits for all others.",
            remedy="keep this layer and its input on the CPU.",
            code="kernel-gpu-lateral",
        )


def forward(reset_path: bool, x: torch.Tensor, state: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    """The forward operator; arguments and results are those of ``native_layer``'s schema."""
    parameters, options = split(arguments)
    check_arguments(x, parameters, state, soft_spikes=options.soft, time_major=options.time_major)
    refuse_lateral(parameters)
    flags.raise_earlier(x.device)
    real = state.dtype
    spikes = empty(x.shape, x.dtype, x)
    kept, drive, adaptation = (empty(shape, real, x) for shape in kept_shapes(x, parameters, options))
    final_state = empty(state.shape, real, x)
    walk = scan(x, options.time_major, widest=widest(real), rows=64 // real.itemsize)
    chunks = forward_chunks(walk)
    split_time = chunks.number > 1
    rows = len(parameters.state_rows)
    if options.memory == "recompute":
        checkpoints = kept
    elif split_time:  # what a repeated chunk is compared with
        batch, steps, neurons = sizes(x, options.time_major)
        checkpoints = empty((batch, -(-steps // CHECKPOINT_EVERY), rows, neurons), real, x)
    else:
        checkpoints = None
    outputs = (
        spikes,
        kept if options.memory == "store" else None,
        drive if drive.numel() else None,
        adaptation if adaptation.numel() else None,
        checkpoints,
    )
    constants = {
        "C": choices(options, parameters, reset_path),
        "SHARED": shared(parameters[:7]),
        "EVERY": CHECKPOINT_EVERY,
        "LIMIT": slowest_decay(real) if split_time else None,
        **walk.constants,
    }

    def run(start: torch.Tensor | None, into: tuple[Any, ...], end: torch.Tensor, count: int, warm_up: int) -> None:
        tail = (end, flags.flags(x.device), *walk.sizes, chunks.steps, warm_up)
        launch.run(
            layer_forward, (*walk.grid, count), (x, start, *parameters[:7], *into, *tail), walk.warps, **constants
        )

    if not split_time:
        run(state, outputs, final_state, 1, 0)
        return spikes, kept, drive, adaptation, final_state
    # Each chunk starts from where a warm-up from zero ends; what was wrong with that is run again, in order.
    assumed, reached = (empty((chunks.number, rows, walk.lanes), real, x) for _ in range(2))
    assumed[0].copy_(state.reshape(rows, walk.lanes))
    run(None, (None,) * 5, assumed[1:], chunks.number - 1, chunks.steps)
    run(assumed, outputs, reached, chunks.number, 0)
    launch.run(
        layer_repair,
        walk.grid,
        (x, assumed, *parameters[:7], *outputs, reached, final_state, *walk.sizes, chunks.steps),
        walk.warps,
        **constants,
    )
    return spikes, kept, drive, adaptation, final_state


def backward(
    reset_path: bool,
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor | None,
    kept: torch.Tensor,
    drive: torch.Tensor,
    adaptation: torch.Tensor,
    spikes: torch.Tensor | None,
    state: torch.Tensor,
    *arguments: Any,
) -> tuple[torch.Tensor, ...]:
    """The backward operator; arguments and results are those of ``native_layer``'s schema."""
    parameters, options = split(arguments)
    check_arguments(grad_spikes, parameters, grad_state, soft_spikes=options.soft, time_major=options.time_major)
    check_saved(grad_spikes, grad_v, grad_state, x, kept, drive, adaptation, spikes, state, parameters, options)
    real = state.dtype
    grad_x = empty(grad_spikes.shape, grad_spikes.dtype, grad_spikes)
    grad_initial = empty(state.shape, real, state)
    recompute = options.memory == "recompute"
    # Potentials, gradients and what else a step needs stay in registers for all steps of a group.
    heavy = len(parameters.state_rows) > 1 or real == torch.float64
    rows = 8 if heavy else 32 if recompute and not options.wants_parameters else 16
    walk = scan(grad_spikes, options.time_major, widest=1 if heavy else 2, rows=rows)
    chunks = backward_chunks(walk)
    sums = empty((6, chunks.number * walk.lanes), torch.float64, state) if options.wants_parameters else None
    constants = {
        "C": choices(options, parameters, reset_path),
        "SHARED": shared(parameters[:7]),
        "EVERY": CHECKPOINT_EVERY,
        **walk.constants,
    }

    def run(end: torch.Tensor, grad_x: torch.Tensor | None, start: torch.Tensor, columns: int) -> None:
        of_parameters = sums if grad_x is not None else None
        kept_x = x if recompute or (of_parameters is not None and not drive.numel()) else None
        launch.run(
            layer_backward,
            (*walk.grid, chunks.number, columns),
            (
                grad_spikes,
                grad_v,
                end,
                None if recompute else kept,
                drive if drive.numel() else None,
                adaptation if adaptation.numel() else None,
                kept if recompute else None,
                kept_x,
                state,
                *parameters[:7],
                grad_x,
                start,
                of_parameters,
                *walk.sizes,
                chunks.steps,
            ),
            walk.warps,
            **constants,
        )

    ends = grad_state
    if chunks.number > 1:
        states = len(parameters.state_rows)
        transfer = empty((1 + states, chunks.number, states, walk.lanes), real, state)
        run(grad_state, None, transfer, 1 + states)
        ends = empty((chunks.number, states, walk.lanes), real, state)
        launch.run(
            layer_fold,
            walk.grid,
            (transfer, grad_state, ends, walk.lanes, chunks.number),
            walk.warps,
            STATES=states,
            BLOCK=walk.constants["BLOCK"],
            WIDE=walk.constants["WIDE"],
        )
    run(ends, grad_x, grad_initial, 1)
    grads = [torch.zeros(shape, dtype=real, device=state.device) for shape in gradient_shapes(parameters, options)]
    if sums is not None:
        learnt = [value for name, value in zip(parameters._fields, parameters, strict=True) if name != "unit"][:6]
        for k, value in enumerate(learnt):
            if value is not None:
                grads[k] = add_up(sums[k], grad_spikes.shape[2], value)
    return grad_x, grad_initial, *grads
