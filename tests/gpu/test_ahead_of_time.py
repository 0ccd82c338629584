"""Every Triton kernel compiled for A100 and H100 with the assembler that triton brings: no GPU is needed.

By default each kernel once per architecture, in the variant that training uses most; NEURODEPLOY_ALL_KERNELS=1 adds the
product of neurons, state rows, precisions and memory modes (minutes).
"""

import os
from itertools import product
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from neurodeploy import kernel
from neurodeploy.gpu import flags, launch
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.surrogate import KINDS, SingleExponential, code
from tests.gpu.ahead_of_time import Compiled, build

ARCHITECTURES = (80, 90)
ALL = bool(os.environ.get("NEURODEPLOY_ALL_KERNELS"))
SHAPE = (16, 512, 16384)
"""[B, T, N] of a wide layer: aligned rows, which are read with vector instructions."""


@pytest.fixture(autouse=True)
def nothing_but_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without memory, and no check of the device that they are on."""
    from neurodeploy.gpu import layer

    monkeypatch.setattr(layer, "check_arguments", lambda *a, **k: None)
    monkeypatch.setattr(flags, "flags", lambda device: torch.empty(4, dtype=torch.int32, device="meta"))
    monkeypatch.setattr(flags, "raise_earlier", lambda device: None)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def layer_launches(
    algorithm: str = "exodus",
    neuron: Neuron | None = None,
    extras: str = "",
    dtype: torch.dtype = torch.float32,
    memory: str = "recompute",
    wants_parameters: bool = False,
    shape: tuple[int, int, int] = SHAPE,
) -> list[launch.Launch]:
    """The launches of one forward and one backward pass."""
    from neurodeploy.kernels.exodus import gpu as exodus
    from neurodeploy.kernels.slayer import gpu as slayer

    chosen = neuron or Neuron(spikes="single")
    module: Any = {"exodus": exodus, "slayer": slayer}[algorithm]
    batch, _, neurons = shape
    real = kernel.state_dtype(dtype)
    number = empty(neurons, dtype=real)
    values = Parameters(number, number, number, number)
    if "s" in extras:
        values = values._replace(syn_decay=number)
    if "a" in extras:
        values = values._replace(adapt_decay=number, adapt_scale=number)
    x, state = empty(*shape, dtype=dtype), empty(*values.state_shape(batch, neurons), dtype=real)
    options = (*chosen.arguments(), False, memory, chosen.detach_threshold, wants_parameters)
    with launch.recorded() as launches:
        _, *kept, _ = module.forward(x, state, *values, *options)
        module.backward(x, None, state, x, *kept, None, state, *values, *options)
    return launches


def filter_launches() -> list[launch.Launch]:
    from neurodeploy.gpu import filter as gpu_filter

    x, state, number = empty(*SHAPE), empty(SHAPE[0], SHAPE[2]), empty(SHAPE[2])
    with launch.recorded() as launches:
        gpu_filter.forward(x, state, number, number, False, False)
        gpu_filter.backward(x, state, None, None, state, number, number, False, False)
    return launches


def packed_launches() -> list[launch.Launch]:
    from neurodeploy.gpu import packed
    from neurodeploy.native_layer import layer_options

    x, state, number = empty(*SHAPE), empty(SHAPE[0], SHAPE[2]), empty(SHAPE[2])
    options = layer_options(Neuron(spikes="single"), memory="none", time_major=False, wants_parameters=False)
    with launch.recorded() as launches:
        packed.forward(x, number, state, number, number, number, number, *(None,) * 5, *options)
    return launches


def srm_launches() -> list[launch.Launch]:
    from neurodeploy.kernels.slayer import srm_gpu

    x, state, number = empty(*SHAPE), empty(4, SHAPE[0], SHAPE[2]), empty(SHAPE[2])
    constants = (*(number,) * 5, 1, *code(SingleExponential()), False, False)
    with launch.recorded() as launches:
        srm_gpu.forward(x, state, *constants, True)
        srm_gpu.backward(x, None, state, x, *constants)
    return launches


def check(launches: list[launch.Launch], architecture: int) -> list[Compiled]:
    """Compile; nothing may go through local memory, and no product and sum may become one instruction."""
    compiled = []
    for one in launches:
        result = build(one, architecture)
        name = one.kernel.__name__
        assert result.spilled_bytes == 0, (name, result.registers)
        assert result.count(r"fma\.") == 0, name
        assert result.count(r"mul\.") > 0, name  # the count sees instructions
        assert result.count(r"atom\.|red\.") == 0, name
        compiled.append(result)
    return compiled


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("which", ["layer", "half", "filter", "srm", "packed"])
def test_kernels_compile_to_vector_instructions(which: str, architecture: int) -> None:
    launches = {
        "layer": layer_launches,
        "half": lambda: layer_launches(dtype=torch.bfloat16, memory="store"),
        "filter": filter_launches,
        "srm": srm_launches,
        "packed": packed_launches,
    }[which]()
    for result in check(launches, architecture):
        wide = (
            r"ld\.global(\.\w+)*\.v[24]\.|ld\.global(\.\w+)*\.b32"
            if which == "half"
            else r"ld\.global(\.\w+)*\.v[24]\."
        )
        assert result.count(wide) >= 4  # bfloat16: two in 32 bits
        stores = r"st\.global(\.\w+)*\.(v[24]\.)?b(32|64)"
        assert result.count(stores) >= 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_that_a_neuron_can_have(architecture: int) -> None:
    """Two more state rows, gradients of all parameters, rows of odd length, in float64."""
    everything = Neuron(v_min=-1.0, surrogate=KINDS[1](0.5))
    check(layer_launches("exodus", everything, "sa", torch.float64, "store", True, (3, 37, 131)), architecture)


def test_single_spikes_have_no_fused_product_in_machine_code() -> None:
    """Without a division (which the assembler makes of fused products, correctly rounded) there is none at all."""
    forward = build(layer_launches()[0], 90)
    assert "FFMA" not in forward.machine_code()
    assert "FMUL" in forward.machine_code()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_split_time(architecture: int) -> None:
    """Few neurons and long recordings: warm-up, chunks, repair; affine maps, their joining, chunks."""
    launches = layer_launches(shape=(1, 4096, 512), memory="store")
    names = [one.kernel.__name__ for one in launches]
    assert names == ["layer_forward"] * 2 + ["layer_repair", "layer_backward", "layer_fold", "layer_backward"]
    assert min(one.grid[0] * one.grid[1] for one in launches if len(one.grid) > 1) >= 100  # programs of a warp
    check(launches, architecture)


def test_more_lanes_than_32_bits_number() -> None:
    launches = layer_launches(shape=(2**16, 2, 2**16))
    assert all(one.constants["WIDE"] for one in launches)
    assert launches[0].grid[0] * launches[0].constants["BLOCK"] == 2**32


@pytest.mark.skipif(not ALL, reason="set NEURODEPLOY_ALL_KERNELS=1 to compile every variant")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("extras", ["", "s", "a", "sa"])
def test_every_variant(extras: str, dtype: torch.dtype, architecture: int) -> None:
    neurons = [
        Neuron(reset=reset, spikes=spikes, v_min=v_min, surrogate=KINDS[k % len(KINDS)](0.5))  # type: ignore[arg-type]
        for k, (reset, spikes, v_min) in enumerate(
            product(("subtract", "zero", "none"), ("multi", "single", 3), (None, -1.0))
        )
    ]
    for k, neuron in enumerate(neurons):
        for memory in ("store", "recompute"):
            algorithm = ("exodus", "slayer")[k % 2]
            check(layer_launches(algorithm, neuron, extras, dtype, memory, k % 3 == 0), architecture)
