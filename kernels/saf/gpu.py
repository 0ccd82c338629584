"""The two operators of spike accumulation on a GPU, with the bits of the CPU (README.md)."""

import torch

from neurodeploy.gpu import flags, launch
from neurodeploy.gpu.choices import NO_LIMIT, Choices, inverse
from neurodeploy.gpu.memory import empty
from neurodeploy.gpu.scan import scan, shared, widest
from neurodeploy.kernels.saf.accumulation import FORMS
from neurodeploy.kernels.saf.gpu_kernels import saf_backward, saf_forward


def _choices(max_spikes: int, surrogate: int, width: float, scale: float, dtype: torch.dtype) -> Choices:
    return Choices(
        reset=0,
        max_spikes=max_spikes,
        v_min_before=NO_LIMIT,
        v_min_after=NO_LIMIT,
        surrogate=surrogate,
        width=width,
        scale=scale,
        inverse_width=inverse(width, dtype),
        soft=False,
        reset_path=False,
        threshold_level=1.0,
    )


def forward(
    z: torch.Tensor,
    potential: torch.Tensor,
    accumulation: torch.Tensor,
    decay: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    form: str,
    max_spikes: int,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (a, spikes, kept, potential); arguments and results are the operator's. Waits for nothing."""
    flags.raise_earlier(z.device)
    a = empty(z.shape, z.dtype, z)
    spikes = empty(z.shape if form == "lif" else (0,), z.dtype, z)
    kept = empty(z.shape if keep else (0,), z.dtype, z)
    carried = form != "closed"
    final = empty(potential.shape, z.dtype, z)
    walk = scan(z, True, widest=widest(z.dtype), rows=16)
    launch.run(
        saf_forward,
        walk.grid,
        (
            z,
            potential if carried else None,
            accumulation,
            decay,
            threshold,
            input_gain,
            a,
            spikes if form == "lif" else None,
            kept if keep else None,
            final if carried else None,
            flags.flags(z.device),
            *walk.sizes,
        ),
        walk.warps,
        FORM=FORMS.index(form),
        C=_choices(max_spikes, 0, 1.0, 1.0, z.dtype),
        SHARED=shared((threshold, input_gain)),
        **walk.constants,
    )
    return a, spikes, kept, final


def backward(
    grad_a: torch.Tensor,
    kept: torch.Tensor,
    threshold: torch.Tensor,
    input_gain: torch.Tensor,
    unit: torch.Tensor,
    surrogate: int,
    width: float,
    scale: float,
) -> torch.Tensor:
    """Return the gradient of z; arguments are the operator's."""
    grad_z = empty(grad_a.shape, grad_a.dtype, grad_a)
    block = launch.block(grad_a.numel(), widest(grad_a.dtype))
    launch.run(
        saf_backward,
        (-(-grad_a.numel() // block.lanes),),
        (grad_a, kept, threshold, input_gain, unit, grad_z, grad_a.numel(), grad_a.shape[2]),
        block.warps,
        C=_choices(1, surrogate, width, scale, grad_a.dtype),
        SHARED=shared((threshold, input_gain, unit)),
        BLOCK=block.lanes,
        WIDE=grad_a.numel() + block.lanes >= 2**31,
    )
    return grad_z
