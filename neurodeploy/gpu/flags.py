"""Checks of values on the GPU that nobody waits for.

Whether a learnt threshold is above 0 is known on the device only; asking would stop the queue of work at every call,
and is forbidden while a CUDA graph is captured. Kernels therefore write a flag into memory of the host (page-locked,
which the device can write to), and the next call reads it there: an error is raised one call late, or by ``check``.
"""

import torch

from neurodeploy.errors import KernelError

_MEANINGS = (
    (
        "A threshold was not above 0",
        "keep a learnt threshold positive: clamp it after each optimizer step, or lower its learning rate.",
        "kernel-threshold",
    ),
    (
        "An adapt_scale was below 0; a threshold adapts upwards",
        "give values of at least 0, and clamp a learnt one after each optimizer step.",
        "kernel-threshold",
    ),
    (
        "A state's b, a trace of spikes, was below 0 or no number",
        "start from zeros, or from the state that a call returned.",
        "kernel-state",
    ),
    (
        "A neuron fired more than 255 times in one step; packed spikes have 255 at most",
        "raise the threshold, or take the layer's own output, which is not packed.",
        "kernel-packed-spikes",
    ),
)

_flags: dict[torch.device, torch.Tensor] = {}


def flags(device: torch.device) -> torch.Tensor:
    """The device's flags, int32 in page-locked memory of the host: one for each meaning, 0 or 1."""
    if device not in _flags:
        _flags[device] = torch.zeros(len(_MEANINGS), dtype=torch.int32, device="cpu", pin_memory=device.type == "cuda")
    return _flags[device]


def raise_earlier(device: torch.device) -> None:
    """Raise what an earlier call on this device found, as far as it has run. Does not wait.

    Raises:
        KernelError: a flag is up; it is taken down.
    """
    found = flags(device).tolist()
    for k, (what, remedy, code) in enumerate(_MEANINGS):
        if found[k]:
            flags(device).zero_()
            raise KernelError(f"{what} in an earlier call on {device}.", remedy=remedy, code=code)


def check() -> None:
    """Wait for all GPUs in use, and raise what their calls found.

    Raises:
        KernelError: a value was not allowed.
    """
    for device in list(_flags):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        raise_earlier(device)
