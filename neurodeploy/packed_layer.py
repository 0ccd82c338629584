"""Bias, neurons, packed spikes and spike counts in one pass without gradients: what follows a convolution at inference.

Spikes leave as 1 bit each where a neuron fires at most once per step, else as 1 byte, packed along time: bit ``t % 32``
of word ``t // 32``, or byte ``t % 4`` of word ``t // 4``, so that neurons stay next to each other. In float32 that is
4.1 (5) bytes of memory traffic per neuron and step, where a bias, a layer and a count on their own have 20.
"""

from typing import Any, NamedTuple

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Neuron, Parameters, check_arguments, check_device, gpu_module
from neurodeploy.native_layer import LAYER_OPTIONS, LAYER_PARAMETERS, layer_options, sizes, split

MOST_IN_A_BYTE = 255

_library: Any = torch.library.Library("neurodeploy", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(
    f"packed_forward(Tensor x, Tensor? bias, Tensor state, {LAYER_PARAMETERS}, {LAYER_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor)"
)


class Packed(NamedTuple):
    """Spikes of a layer.

    Attributes:
        words: int32 [B, W, N] ([W, B, N] if time is the first axis), W = T / 32 or T / 4 rounded up.
        counts: int64 [B, N], spikes of each neuron in all steps. Times its fan-out: its synaptic operations.
        state: as the layer's final state.
    """

    words: torch.Tensor
    counts: torch.Tensor
    state: torch.Tensor


def steps_per_word(max_spikes: int) -> int:
    """How many steps of a neuron share a word."""
    return 32 if max_spikes == 1 else 4


def words_shape(x: torch.Tensor, max_spikes: int, time_major: bool) -> tuple[int, int, int]:
    """Shape of the words for input x."""
    batch, steps, neurons = sizes(x, time_major)
    words = -(-steps // steps_per_word(max_spikes))
    return (words, batch, neurons) if time_major else (batch, words, neurons)


def _check(x: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, arguments: tuple[Any, ...]) -> None:
    parameters, options = split(arguments)
    check_arguments(x, parameters, state, soft_spikes=options.soft, time_major=options.time_major)
    if bias is not None and (
        tuple(bias.shape) != (x.shape[2],) or bias.dtype != state.dtype or bias.device != x.device
    ):
        raise KernelError(
            f"The bias is {bias.dtype} of shape {tuple(bias.shape)} on {bias.device}; it has to be {state.dtype} of "
            f"shape ({x.shape[2]},) on {x.device}.",
            remedy="give one value per neuron, in the order of the flattened features.",
            code="kernel-shape",
        )


def _forward_cpu(
    x: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, *arguments: Any
) -> tuple[torch.Tensor, ...]:
    _check(x, bias, state, arguments)
    _, options = split(arguments)
    given = x if bias is None else x + bias
    spikes, *_, final_state = torch.ops.neurodeploy.exodus_forward(given, state, *arguments)
    if options.max_spikes != 1 and bool((spikes > MOST_IN_A_BYTE).any()):
        raise KernelError(
            f"A neuron fires {int(spikes.max())} times in one step; packed spikes have {MOST_IN_A_BYTE} at most.",
            remedy="raise the threshold, or take the layer's own output, which is not packed.",
            code="kernel-packed-spikes",
        )
    time = 0 if options.time_major else 1
    return _pack(spikes, options.max_spikes, time), spikes.sum(time).long(), final_state


def _pack(spikes: torch.Tensor, max_spikes: int, time: int) -> torch.Tensor:
    per_word = steps_per_word(max_spikes)
    missing = -spikes.shape[time] % per_word
    rows = torch.nn.functional.pad(spikes.transpose(time, 0).long(), (0, 0, 0, 0, 0, missing))
    places = torch.arange(per_word).reshape(1, -1, 1, 1) * (32 // per_word)
    whole = (rows.reshape(-1, per_word, *rows.shape[1:]) << places).sum(1)
    return whole.to(torch.int32).transpose(time, 0).contiguous()


def _forward_gpu(
    x: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, *arguments: Any
) -> tuple[torch.Tensor, ...]:
    _check(x, bias, state, arguments)
    outputs: tuple[torch.Tensor, ...] = gpu_module("neurodeploy.gpu.packed").forward(x, bias, state, *arguments)
    return outputs


def _forward_fake(
    x: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, *arguments: Any
) -> tuple[torch.Tensor, ...]:
    _, options = split(arguments)
    batch, _, neurons = sizes(x, options.time_major)
    return (
        x.new_empty(words_shape(x, options.max_spikes, options.time_major), dtype=torch.int32),
        x.new_empty((batch, neurons), dtype=torch.int64),
        state.new_empty(state.shape),
    )


_library.impl("packed_forward", _forward_cpu, "CPU")
_library.impl("packed_forward", _forward_gpu, "CUDA")
torch.library.register_fake("neurodeploy::packed_forward", _forward_fake, lib=_library)


def run(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    parameters: Parameters,
    state: torch.Tensor,
    neuron: Neuron,
    *,
    time_major: bool = False,
) -> Packed:
    """Run T steps of ``x + bias`` without gradients. Spikes are those of ``kernel.apply``, on every device.

    Args:
        x: input [B, T, N] (or [T, B, N]), contiguous; dtypes as layers take them.
        bias: [N] in the dtype of the state, added to every step's input; or None.
        parameters, state, neuron: as for a layer.
        time_major: arrays are [T, B, N].

    Raises:
        KernelError: tensors that a layer cannot run on, or more than 255 spikes in one step (on a GPU told by the next
            call).
    """
    check_device(x)
    chosen = layer_options(neuron, memory="none", time_major=time_major, wants_parameters=False)
    with torch.no_grad():
        return Packed(*torch.ops.neurodeploy.packed_forward(x, bias, state, *parameters, *chosen))


def unpack(
    words: torch.Tensor, steps: int, neuron: Neuron, *, time_major: bool = False, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the spike counts [B, T, N] (or [T, B, N]) of T = ``steps`` steps."""
    time = 0 if time_major else 1
    per_word = steps_per_word(neuron.max_spikes)
    bits = 32 // per_word
    places = torch.arange(per_word, device=words.device).reshape(1, -1, 1, 1) * bits
    rows = (words.transpose(time, 0).unsqueeze(1) >> places) & (2**bits - 1)
    spikes: torch.Tensor = rows.reshape(-1, *rows.shape[2:])[:steps].transpose(time, 0)
    return spikes.to(dtype).contiguous()
