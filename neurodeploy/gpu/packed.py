"""The operator of ``packed_layer.py`` for tensors on a GPU."""

from typing import Any

import torch

from neurodeploy.gpu import flags, launch
from neurodeploy.gpu.layer import choices, refuse_lateral
from neurodeploy.gpu.memory import empty
from neurodeploy.gpu.packed_kernel import layer_packed
from neurodeploy.gpu.scan import scan, shared, widest
from neurodeploy.native_layer import split
from neurodeploy.packed_layer import steps_per_word, words_shape


def forward(
    x: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, *arguments: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (words, counts, final state); arguments as the operator's."""
    parameters, options = split(arguments)
    refuse_lateral(parameters)
    flags.raise_earlier(x.device)
    shape = words_shape(x, options.max_spikes, options.time_major)
    words = empty(shape, torch.int32, x)
    final_state = empty(state.shape, state.dtype, x)
    counts = empty(state.shape[-2:], torch.int64, x)
    walk = scan(x, options.time_major, widest=widest(state.dtype), rows=64 // state.dtype.itemsize)
    between_samples = shape[2] if options.time_major else shape[1] * shape[2]
    flagged = flags.flags(x.device)
    launch.run(
        layer_packed,
        walk.grid,
        (x, bias, state, *parameters[:7], words, counts, final_state, flagged, *walk.sizes, between_samples),
        walk.warps,
        C=choices(options, parameters, reset_path=True),
        SHARED=shared(parameters[:7]),
        PER_WORD=steps_per_word(options.max_spikes),
        **walk.constants,
    )
    return words, counts, final_state
