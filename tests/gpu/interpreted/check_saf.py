"""The kernels of spike accumulation under Triton's interpreter, against the processor's and the definition.

Run by tests/gpu/test_interpreter.py, in a process whose environment says TRITON_INTERPRET=1.
"""

from collections.abc import Iterator

import pytest
import torch

from neurodeploy.errors import KernelError
from neurodeploy.gpu import flags
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels import saf
from neurodeploy.kernels.saf import gpu
from neurodeploy.surrogate import KINDS
from tests.gpu.saf_cases import check_against_cpu

FORMS: tuple[saf.Form, ...] = ("closed", "recurrent", "lif")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    flags.flags(torch.device("cpu")).zero_()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("spikes", "dtype"), [("single", torch.float32), ("multi", torch.float64), (2, torch.float32)])
def test_bits_of_the_cpu(form: saf.Form, spikes: object, dtype: torch.dtype) -> None:
    neuron = Neuron(spikes=spikes)  # type: ignore[arg-type]
    for per_neuron in (False, True):
        check_against_cpu(form, neuron, dtype, (19, 3, 9), per_neuron=per_neuron, device="cpu")


@pytest.mark.parametrize("surrogate", KINDS, ids=lambda kind: kind.__name__)
def test_surrogates(surrogate: type) -> None:
    neuron = Neuron(spikes="single", surrogate=surrogate(0.7))
    check_against_cpu("closed", neuron, torch.float32, (1, 3, 50), per_neuron=True, device="cpu")


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (1, 1, 1), (1, 2, 130), (33, 1, 5)])
def test_shapes(shape: tuple[int, int, int]) -> None:
    for form in FORMS:
        check_against_cpu(form, Neuron(), torch.float32, shape, per_neuron=False, device="cpu")


@pytest.mark.parametrize("form", FORMS)
def test_equals_the_reference(form: saf.Form) -> None:
    z = torch.randn(12, 2, 5, dtype=torch.float64) + 1
    one = torch.ones(1, dtype=torch.float64)
    values = Parameters(0.9 * one, 0.8 * one, 0.7 * one, 0.8 * one)
    state = saf.silent(z, form)
    expected = saf.reference.forward(z, *state, values, Neuron(), form)
    a, spikes, kept, potential = gpu.forward(z, *state, *values[:3], form, 0, True)
    assert torch.equal(a, expected.a)
    assert torch.equal(kept, expected.u)
    assert form != "lif" or torch.equal(spikes, expected.spikes)
    assert form == "closed" or torch.equal(potential, expected.potential)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_threshold_that_is_not_above_0_is_said_in_the_next_call() -> None:
    z = torch.ones(2, 1, 3)
    one = torch.ones(1)
    state = saf.silent(z, "closed")
    gpu.forward(z, *state, 0.9 * one, torch.tensor([1.0, 0.0, 1.0]), one, "closed", 0, False)
    with pytest.raises(KernelError) as raised:
        gpu.forward(z, *state, 0.9 * one, one, one, "closed", 0, False)
    assert raised.value.code == "kernel-threshold"
    gpu.forward(z, *state, 0.9 * one, one, one, "closed", 0, False)
