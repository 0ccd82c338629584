"""The compiled accumulation: equal to its reference, whatever the shape, the blocks of time and the threads."""

from collections.abc import Iterator
from itertools import pairwise, product

import pytest
import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels import saf
from neurodeploy.surrogate import KINDS

FORMS: tuple[saf.Form, ...] = ("closed", "recurrent", "lif")


@pytest.fixture(autouse=True)
def one_thread_and_poison() -> Iterator[None]:
    """torch.empty is filled with NaN under deterministic algorithms: reading memory nobody wrote shows up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def case(
    steps: int = 40, batch: int = 3, neurons: int = 9, dtype: torch.dtype = torch.float64, per_neuron: bool = True
) -> tuple[torch.Tensor, saf.State, Parameters]:
    """Inputs of which every form fires in a fair share of the steps, from a state that is not 0."""
    count = neurons if per_neuron else 1

    def draw(low: float, high: float, shape: int | tuple[int, int] = count) -> torch.Tensor:
        return torch.rand(shape, dtype=dtype) * (high - low) + low

    threshold = draw(0.7, 1.3)
    values = Parameters(draw(0.9, 0.9, 1), threshold, draw(0.5, 1.5), threshold.clone())
    z = torch.randn(steps, batch, neurons, dtype=dtype) + 1.0
    return z, saf.State(draw(0.0, 1.0, (batch, neurons)), draw(0.0, 1.0, (batch, neurons))), values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spikes", ["single", "multi", 2])
def test_equals_reference(form: saf.Form, spikes: object) -> None:
    neuron = Neuron(spikes=spikes)  # type: ignore[arg-type]
    for dtype, per_neuron in product((torch.float32, torch.float64), (False, True)):
        z, state, values = case(dtype=dtype, per_neuron=per_neuron)
        expected = saf.reference.forward(z, *state, values, neuron, form)
        assert float(expected.spikes.mean()) > 0
        leaf = z.clone().requires_grad_()
        got = saf.accumulate(leaf, state, values, neuron, form)
        assert torch.equal(got.a, expected.a)
        assert torch.equal(got.state.accumulation, expected.accumulation)
        if form != "closed":
            assert torch.equal(got.state.potential, expected.potential)
        assert (got.spikes is not None) == (form == "lif")
        if got.spikes is not None:
            assert torch.equal(got.spikes, expected.spikes)
        grad_a = torch.randn_like(z)
        (grad,) = torch.autograd.grad(got.a, leaf, grad_a)
        wanted = saf.reference.backward(grad_a, expected.u, values, neuron)
        assert torch.allclose(grad, wanted, rtol=1e-12 if dtype == torch.float64 else 1e-5, atol=0)


@pytest.mark.parametrize("surrogate", KINDS, ids=lambda kind: kind.__name__)
def test_surrogates_equal_reference(surrogate: type) -> None:
    z, state, values = case()
    neuron = Neuron(spikes="single", surrogate=surrogate(0.7))
    leaf = z.clone().requires_grad_()
    (grad,) = torch.autograd.grad(saf.accumulate(leaf, state, values, neuron, "closed").a.sum(), leaf)
    u = saf.reference.forward(z, *state, values, neuron, "closed").u
    torch.testing.assert_close(grad, saf.reference.backward(torch.ones_like(z), u, values, neuron), rtol=1e-12, atol=0)


def test_clamp_equals_reference_and_stops_at_both_ends() -> None:
    z, state, values = case()
    leaf = (4 * z).requires_grad_()
    neuron = Neuron(spikes="single")
    grad_a = torch.randn_like(z)
    a = saf.accumulate(leaf, state, values, neuron, "closed", clamp=saf.Clamp(3.0)).a
    (grad,) = torch.autograd.grad(a, leaf, grad_a)
    U = saf.reference.forward(leaf.detach(), *state, values, neuron, "closed").U
    assert torch.equal(grad, saf.reference.backward_clamp(grad_a, U, values, 3.0))
    assert bool((grad[U < 0] == 0).all())
    assert bool((grad[values.threshold * 3.0 < U] == 0).all())
    assert 0.2 < float((grad != 0).double().mean()) < 0.8


@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_time_equal_one_pass(form: saf.Form) -> None:
    z, state, values = case(dtype=torch.float32)
    whole = saf.accumulate(z, state, values, Neuron(), form)
    pieces = []
    for start, end in pairwise([0, 1, 17, 39, 40]):
        part = saf.accumulate(z[start:end], state, values, Neuron(), form)
        state = part.state
        pieces.append(part.a)
    assert torch.equal(torch.cat(pieces), whole.a)
    assert torch.equal(state.accumulation, whole.state.accumulation)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 4097), (2, 1, 63), (0, 2, 3), (2, 0, 3)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("threads_for_little_work")
def test_odd_shapes_and_any_number_of_threads(form: saf.Form, shape: tuple[int, int, int]) -> None:
    for per_neuron in (False, True):
        z, state, values = case(*shape, dtype=torch.float32, per_neuron=per_neuron)
        expected = saf.reference.forward(z, *state, values, Neuron(), form)
        grads = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = z.clone().requires_grad_()
            output = saf.accumulate(leaf, state, values, Neuron(), form)
            assert torch.equal(output.a, expected.a)
            grads += torch.autograd.grad(output.a.sum(), leaf)
        assert torch.equal(grads[0], grads[1])
        assert torch.equal(grads[0], grads[2])


def test_state_that_is_passed_in_is_not_changed() -> None:
    z, state, values = case()
    before = [tensor.clone() for tensor in state]
    saf.accumulate(z, state, values, Neuron(), "recurrent")
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))


def test_operators_pass_opcheck() -> None:
    z, state, values = case(4, 2, 5, torch.float32)
    constants = (values.decay, values.threshold, values.input_gain)
    for form, keep in (("closed", True), ("recurrent", True), ("lif", False)):
        torch.library.opcheck(torch.ops.neurodeploy.saf_forward, (z, *state, *constants, form, 1, keep))
    constants = (values.threshold, values.input_gain, values.unit)
    torch.library.opcheck(torch.ops.neurodeploy.saf_backward, (z, z.clone(), *constants, 0, 0.5, 1.0))


def test_nothing_is_kept_without_gradients() -> None:
    z, state, values = case()
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.no_grad():
        saf.accumulate(z.requires_grad_(), state, values, Neuron(), "closed")
    assert kept == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"z": lambda z: z.half()}, "kernel-dtype"),
        ({"z": lambda z: z.to("meta")}, "kernel-device"),
        ({"z": lambda z: z[0]}, "kernel-shape"),
        ({"z": lambda z: z.transpose(1, 2).contiguous().transpose(1, 2)}, "kernel-strides"),
        ({"state": lambda s: s._replace(accumulation=s.accumulation[:1])}, "kernel-shape"),
        ({"state": lambda s: s._replace(potential=s.potential[:1]), "form": lambda _: "lif"}, "kernel-shape"),
        ({"state": lambda s: s._replace(accumulation=s.accumulation.float())}, "kernel-dtype"),
        ({"values": lambda p: p._replace(decay=p.decay.expand(9).contiguous())}, "saf-decay"),
        ({"values": lambda p: p._replace(threshold=-p.threshold)}, "kernel-threshold"),
        ({"neuron": lambda _: Neuron(reset="zero")}, "saf-reset"),
        ({"neuron": lambda _: Neuron(v_min=-1.0)}, "saf-v-min"),
        ({"neuron": lambda _: Neuron(soft_spikes=True)}, "saf-soft-spikes"),
        ({"form": lambda _: "open"}, "saf-form"),
    ],
)
def test_refuses_what_it_cannot_run(change: dict[str, object], code: str) -> None:
    z, state, values = case()
    arguments: dict[str, object] = {"z": z, "state": state, "values": values, "neuron": Neuron(), "form": "closed"}
    for name, function in change.items():
        arguments[name] = function(arguments[name])  # type: ignore[operator]
    with pytest.raises(KernelError, match="Remedy: ") as caught:
        saf.accumulate(*arguments.values())  # type: ignore[arg-type]
    assert caught.value.code == code


def test_clamp_is_refused_in_other_forms() -> None:
    z, state, values = case()
    with pytest.raises(KernelError) as caught:
        saf.accumulate(z, state, values, Neuron(), "recurrent", clamp=saf.Clamp(1.0))
    assert caught.value.code == "saf-form"
