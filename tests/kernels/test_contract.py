"""What every folder in kernels/ has to keep, whatever it computes. A new folder is tested without an edit here."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch

from neurodeploy import buffers, kernel
from neurodeploy.errors import KernelError
from neurodeploy.kernel import Gradients, Kernel, Neuron, Parameters
from neurodeploy.surrogate import KINDS, Arctan, Box, Heaviside, PeriodicExponential, Sigmoid, SingleExponential

KERNELS = kernel.names()
MEMORIES: tuple[kernel.Memory, ...] = ("store", "recompute")


@pytest.fixture(params=KERNELS)
def algorithm(request: pytest.FixtureRequest) -> Kernel:
    return kernel.load(request.param)


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


EXTRAS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "synapse": ("synapse",),
    "adaptation": ("adaptation",),
    "lateral": ("lateral",),
    "all": ("synapse", "adaptation", "lateral"),
}
"""What neurons have besides their potential, in the groups that are tested."""


@pytest.fixture(params=EXTRAS)
def extras(request: pytest.FixtureRequest, algorithm: Kernel) -> tuple[str, ...]:
    chosen = EXTRAS[request.param]
    if chosen and getattr(algorithm, "plain", False):
        pytest.skip("neurons of a potential alone")
    return chosen


@pytest.fixture(params=["plain", "all"])
def few_extras(request: pytest.FixtureRequest, algorithm: Kernel) -> tuple[str, ...]:
    """For tests that take long and look at tensors rather than at what is computed."""
    if request.param != "plain" and getattr(algorithm, "plain", False):
        pytest.skip("neurons of a potential alone")
    return EXTRAS[request.param]


def parameters(neurons: int, dtype: torch.dtype, per_neuron: bool, extras: tuple[str, ...] = ()) -> Parameters:
    def draw(low: float, high: float) -> torch.Tensor:
        return torch.rand(neurons if per_neuron else 1, dtype=dtype) * (high - low) + low

    threshold = draw(0.7, 1.3)
    values = Parameters(draw(0.8, 1.0), threshold, draw(0.5, 1.5), threshold.clone())
    if "synapse" in extras:
        values = values._replace(syn_decay=draw(0.3, 0.9))
    if "adaptation" in extras:
        values = values._replace(adapt_decay=draw(0.7, 0.95), adapt_scale=draw(0.5, 2.0))
    if "lateral" in extras:
        weight = torch.randn(neurons, neurons, dtype=dtype) * 0.15 / max(neurons, 1) ** 0.5
        values = values._replace(weight=weight, bias=torch.randn(neurons, dtype=dtype) * 0.1 if per_neuron else None)
    return values


def case(
    batch: int = 3,
    steps: int = 70,
    neurons: int = 9,
    dtype: torch.dtype = torch.float64,
    per_neuron: bool = True,
    extras: tuple[str, ...] = (),
) -> tuple[torch.Tensor, Parameters, torch.Tensor]:
    x = torch.randn(batch, steps, neurons, dtype=dtype) * 0.8 + 0.2
    values = parameters(neurons, dtype, per_neuron, extras)
    state = torch.randn(values.state_shape(batch, neurons), dtype=dtype) * 0.3
    if "adaptation" in extras:
        state[values.state_rows.index("b")].abs_()
    return x, values, state


def output_gradients(x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn_like(x), torch.randn_like(x), torch.randn_like(state)


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over largest value."""
    if expected.numel() == 0:
        return 0.0
    scale = float(expected.abs().max())
    return float((got - expected).abs().max()) / (scale if scale > 0 else 1.0)


def assert_same(got: Gradients, expected: Gradients, tolerance: float) -> None:
    for name, g, e in zip(Gradients._fields, got, expected, strict=True):
        assert (g is None) == (e is None), name
        if g is None or e is None:
            continue
        assert g.shape == e.shape, name
        assert relative(g, e) <= tolerance, (name, relative(g, e))


def present(tensors: Iterable[torch.Tensor | None]) -> list[torch.Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


NEURONS = [
    Neuron(reset=reset, spikes=spikes, v_min=v_min, v_min_position=position)
    for reset, spikes, (v_min, position) in product(
        ("subtract", "zero", "none"),
        ("multi", "single", 3),
        ((None, "after_reset"), (-0.3, "after_reset"), (-0.3, "before_threshold")),
    )
]


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: f"{n.reset}-{n.spikes}-{n.v_min}-{n.v_min_position}")
def test_equals_reference(algorithm: Kernel, neuron: Neuron) -> None:
    compare_with_reference(algorithm, neuron, ())


@pytest.mark.parametrize(
    "neuron",
    [
        Neuron(),
        Neuron(spikes="single", v_min=-0.3, surrogate=Sigmoid(0.4)),
        Neuron(reset="zero", spikes=3, v_min=-0.3, v_min_position="before_threshold", surrogate=Box(0.9)),
        Neuron(reset="zero", v_min=-0.3, surrogate=Arctan(0.7)),
        Neuron(reset="none", spikes="single", surrogate=Heaviside(0.5), detach_threshold=True),
        Neuron(detach_threshold=True, surrogate=PeriodicExponential(0.6, 0.3)),
    ],
    ids=lambda n: f"{n.reset}-{n.spikes}-{n.v_min}-{type(n.surrogate).__name__}-{n.detach_threshold}",
)
def test_more_than_a_potential_equals_reference(algorithm: Kernel, neuron: Neuron, extras: tuple[str, ...]) -> None:
    if extras:
        compare_with_reference(algorithm, neuron, extras)


def compare_with_reference(algorithm: Kernel, neuron: Neuron, extras: tuple[str, ...]) -> None:
    for dtype, per_neuron in product((torch.float64, torch.float32), (False, True)):
        compare_case(algorithm, neuron, case(dtype=dtype, per_neuron=per_neuron, extras=extras))


def compare_case(algorithm: Kernel, neuron: Neuron, inputs: tuple[torch.Tensor, Parameters, torch.Tensor]) -> None:
    """Spikes and final state have the reference's bits; gradients are its to rounding."""
    x, values, state = inputs
    spikes, v, final = algorithm.reference.forward(x, values, state, neuron)
    g, h, last = output_gradients(x, state)
    expected = algorithm.reference.backward(g, h, last, x, v, values, state, neuron)
    for time_major, memory in product((False, True), MEMORIES):
        laid_out, *gradients = (t.transpose(0, 1).contiguous() if time_major else t for t in (x, g, h))
        got, got_final, saved = algorithm.forward(laid_out, values, state, neuron, memory=memory, time_major=time_major)
        assert torch.equal(got.transpose(0, 1) if time_major else got, spikes)
        assert torch.equal(got_final, final)
        grads = algorithm.backward(*gradients, last, saved)
        if time_major:
            grads = grads._replace(x=grads.x.transpose(0, 1))
        assert_same(grads, expected, 1e-12 if x.dtype == torch.float64 else 2e-4)


@pytest.mark.parametrize("surrogate", KINDS, ids=lambda k: k.__name__)
def test_surrogates_equal_reference(algorithm: Kernel, surrogate: type) -> None:
    for dtype in (torch.float64, torch.float32):
        compare_case(algorithm, Neuron(surrogate=surrogate(0.7)), case(dtype=dtype))


def test_recorded_potential_equals_reference(algorithm: Kernel) -> None:
    x, values, state = case(dtype=torch.float32)
    _, v, _ = algorithm.reference.forward(x, values, state, Neuron())
    output = algorithm.apply(x, values, state, Neuron(), record_v=True)
    assert output.v is not None
    assert torch.equal(output.v, v)


@pytest.mark.parametrize("surrogate", [SingleExponential(0.8), PeriodicExponential(0.6), Sigmoid(0.4), Arctan(0.7)])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_gradcheck_with_soft_spikes(algorithm: Kernel, reset: str, surrogate: object) -> None:
    """With soft spikes the surrogate gradient is the true one, so finite differences have to agree, everywhere."""
    gradcheck(algorithm, reset, surrogate, ())


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_gradcheck_of_more_than_a_potential(algorithm: Kernel, reset: str, extras: tuple[str, ...]) -> None:
    if extras:
        gradcheck(algorithm, reset, Sigmoid(0.4), extras)


def gradcheck(algorithm: Kernel, reset: str, surrogate: object, extras: tuple[str, ...]) -> None:
    # test_recompute_has_the_bits_of_store compares the two for soft spikes too.
    for v_min, position, memory in (
        (None, "after_reset", "store"),
        (-0.2, "after_reset", "store"),
        (-0.2, "before_threshold", "store"),
        (-0.2, "after_reset", "recompute"),
    ):
        neuron = Neuron(
            reset=reset,  # type: ignore[arg-type]
            surrogate=surrogate,  # type: ignore[arg-type]
            v_min=v_min,
            v_min_position=position,  # type: ignore[arg-type]
            soft_spikes=True,
        )
        x, values, state = case(2, 5, 3, extras=extras)
        names = [
            name for name, value in zip(values._fields, values, strict=True) if value is not None and name != "unit"
        ]

        def run(
            x: torch.Tensor,
            state: torch.Tensor,
            *learnt: torch.Tensor,
            values: Parameters = values,
            names: list[str] = names,
            neuron: Neuron = neuron,
            memory: kernel.Memory = memory,
        ) -> tuple[torch.Tensor, ...]:
            changed = values._replace(**dict(zip(names, learnt, strict=True)))
            output = algorithm.apply(x, changed, state, neuron, memory=memory, record_v=memory == "store")
            return tuple(present(output))

        inputs = [tensor.requires_grad_() for tensor in (x, state, *(getattr(values, name) for name in names))]
        assert torch.autograd.gradcheck(run, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=False)


def test_opcheck(algorithm: Kernel, few_extras: tuple[str, ...]) -> None:
    forward, backward = (getattr(torch.ops.neurodeploy, name).default for name in algorithm.operators)
    x, values, state = case(2, 40, 5, torch.float32, extras=few_extras)
    for memory, time_major in (
        (("store", False), ("recompute", True)) if few_extras else product(MEMORIES, (False, True))
    ):
        laid_out = x.transpose(0, 1).contiguous() if time_major else x
        options = (*Neuron().arguments(), time_major, memory, False, True)
        torch.library.opcheck(forward, (laid_out, state, *values, *options))
        spikes, *kept, _ = forward(laid_out, state, *values, *options)
        gradient = torch.randn_like(laid_out)
        torch.library.opcheck(backward, (gradient, None, state, laid_out, *kept, spikes, state, *values, *options))


@pytest.mark.parametrize("memory", MEMORIES)
def test_compiles_as_one_graph(algorithm: Kernel, memory: kernel.Memory, few_extras: tuple[str, ...]) -> None:
    x, values, state = case(2, 20, 5, torch.float32, extras=few_extras)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, state, *values[:3], *present(values[4:]))]
    learnt = [name for name, value in zip(values._fields, values, strict=True) if value is not None and name != "unit"]
    neuron = Neuron()

    def step(x: torch.Tensor, state: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        changed = values._replace(**dict(zip(learnt, rest, strict=True)))
        output = algorithm.apply(torch.tanh(x), changed, state, neuron, memory=memory)
        return (output.spikes * 0.5).square().sum() + output.state.sum()

    expected = torch.autograd.grad(step(*leaves), leaves)
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*leaves), leaves)
    for g, e in zip(got, expected, strict=True):
        assert relative(g, e) <= 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 33, 513), (3, 64, 1), (2, 31, 1025), (1, 3, 4097)])
def test_odd_shapes(algorithm: Kernel, shape: tuple[int, int, int], extras: tuple[str, ...]) -> None:
    if "lateral" in extras and shape[2] > 100:
        shape = (shape[0], shape[1], shape[2] // 8 + 1)  # the reference adds up one neuron after the other
    for dtype in (torch.float32, torch.float64):
        compare_case(algorithm, Neuron(), case(*shape, dtype=dtype, extras=extras))


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (2, 5, 0), (0, 0, 0)])
@pytest.mark.parametrize("memory", MEMORIES)
def test_empty_axes(
    algorithm: Kernel, shape: tuple[int, int, int], memory: kernel.Memory, few_extras: tuple[str, ...]
) -> None:
    for per_neuron in (False, True):
        x, values, state = case(*shape, per_neuron=per_neuron, extras=few_extras)
        spikes, final, saved = algorithm.forward(x, values, state, Neuron(), memory=memory)
        assert spikes.shape == x.shape
        if shape[1] == 0:
            assert torch.equal(final, state)
        g, h, last = output_gradients(x, state)
        grads = algorithm.backward(g, h, last, saved)
        assert grads.x.shape == x.shape
        if shape[1] == 0:
            assert torch.equal(grads.state, last)
        for name, grad in list(grads._asdict().items())[2:]:
            value = getattr(values, name)
            if name == "bias" and value is not None and shape[1] == 0:
                continue  # without a step, nothing adds the bias to the current that the next one starts with
            assert (grad is None) if value is None else torch.equal(grad, torch.zeros_like(value))


def test_strided_gradients_are_taken(algorithm: Kernel) -> None:
    """Autograd hands over expanded and transposed gradients; they count like contiguous ones."""
    x, values, state = case()
    x.requires_grad_()
    weights = torch.randn(x.shape[1], x.shape[0], x.shape[2], dtype=x.dtype).transpose(0, 1)
    (strided,) = torch.autograd.grad(algorithm.apply(x, values, state, Neuron()).spikes, x, weights)
    (plain,) = torch.autograd.grad(algorithm.apply(x, values, state, Neuron()).spikes, x, weights.contiguous())
    assert torch.equal(strided, plain)
    (expanded,) = torch.autograd.grad(algorithm.apply(x, values, state, Neuron()).spikes.sum(), x)
    (ones,) = torch.autograd.grad(algorithm.apply(x, values, state, Neuron()).spikes, x, torch.ones_like(x))
    assert torch.equal(expanded, ones)


def test_second_derivatives_are_refused(algorithm: Kernel) -> None:
    x, values, state = case()
    x.requires_grad_()
    spikes = algorithm.apply(x, values, state, Neuron()).spikes
    (grad,) = torch.autograd.grad(spikes.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        grad.sum().backward()


@pytest.mark.parametrize("memory", MEMORIES)
def test_large_outputs_come_poisoned_and_leave_clean(
    algorithm: Kernel, memory: kernel.Memory, few_extras: tuple[str, ...]
) -> None:
    """Large outputs reuse pooled memory: with NaN left in it by the last user, every value has to be written."""
    lateral = "lateral" in few_extras
    x, values, state = case(8 if lateral else 2, 300, 512 if lateral else 2048, torch.float32, extras=few_extras)
    g, h, last = output_gradients(x, state)
    got, expected = [], []
    for results in (expected, got):
        spikes, final, saved = algorithm.forward(x, values, state, Neuron(), memory=memory)
        grads = algorithm.backward(g, h, last, saved)
        tensors = present((spikes, final, saved.kept, saved.drive, saved.adaptation, *grads))
        results += [tensor.clone() for tensor in tensors]
        for tensor in tensors:
            tensor.fill_(torch.nan)
        del spikes, final, saved, grads, tensor, tensors
        assert buffers.free_bytes() >= 2 * 300 * 2048 * 4 * 2
    for first, second in zip(expected, got, strict=True):
        assert not second.isnan().any()
        assert torch.equal(first, second)


@pytest.mark.parametrize("cuts", [[0, 1, 70], [0, 32, 64, 70], [0, 7, 7, 69, 70]], ids=str)
def test_chunks_equal_one_pass(algorithm: Kernel, cuts: list[int], extras: tuple[str, ...]) -> None:
    for neuron, memory in product((Neuron(), replace(NEURONS[-1], reset="zero")), MEMORIES):
        x, values, state = case(extras=extras)
        g, h, last = output_gradients(x, state)
        spikes, final, saved = algorithm.forward(x, values, state, neuron, memory=memory)
        whole = algorithm.backward(g, h, last, saved)

        carried, pieces, kept = state, [], []
        for start, end in pairwise(cuts):
            piece, carried, part = algorithm.forward(
                x[:, start:end].contiguous(), values, carried, neuron, memory=memory
            )
            pieces.append(piece)
            kept.append((start, end, part))
        assert torch.equal(torch.cat(pieces, 1), spikes)
        assert torch.equal(carried, final)

        adjoint, grads_x = last, []
        sums = [torch.zeros_like(value) for value in present((*values[:3], *values[4:]))]
        for start, end, part in reversed(kept):
            grads = algorithm.backward(g[:, start:end].contiguous(), h[:, start:end].contiguous(), adjoint, part)
            adjoint = grads.state
            grads_x.insert(0, grads.x)
            sums = [total + grad for total, grad in zip(sums, present(grads[2:]), strict=True)]
        for got, expected in zip([torch.cat(grads_x, 1), adjoint, *sums], present(whole), strict=True):
            assert relative(got, expected) <= 1e-12


@pytest.mark.parametrize("shape", [(5, 40, 700), (1, 30, 5000)])
@pytest.mark.usefixtures("threads_for_little_work")
def test_threads_do_not_change_a_bit(algorithm: Kernel, shape: tuple[int, int, int], extras: tuple[str, ...]) -> None:
    if "lateral" in extras:
        shape = (11, 20, 203)  # samples that share rows of weights: 8 and 3, 6 and 5, 4, 4 and 3, or each alone
    for memory in MEMORIES:
        x, values, state = case(*shape, dtype=torch.float32, extras=extras)
        g, h, last = output_gradients(x, state)
        results = []
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            spikes, final, saved = algorithm.forward(x, values, state, Neuron(), memory=memory)
            grads = algorithm.backward(g, h, last, saved)
            # Lateral weights are the product of two matrices, which torch rounds by the number of threads.
            results.append(present((spikes, final, *grads[:8])))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_recompute_has_the_bits_of_store(algorithm: Kernel, extras: tuple[str, ...]) -> None:
    for neuron, steps in product(
        (*(NEURONS[::4] if extras else NEURONS), *(replace(one, soft_spikes=True) for one in NEURONS[::9])), (1, 32, 70)
    ):
        dtype = torch.float64 if neuron.soft_spikes else torch.float32
        x, values, state = case(2, steps, 9, dtype, extras=extras)
        g, h, last = output_gradients(x, state)
        results = []
        for memory in MEMORIES:
            spikes, final, saved = algorithm.forward(x, values, state, neuron, memory=memory)
            results.append(present((spikes, final, *algorithm.backward(g, h, last, saved))))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda x, p, s: (x.half(), p, s), "kernel-dtype"),
        (lambda x, p, s: (x.float(), p, s), "kernel-dtype"),
        (lambda x, p, s: (x.to("meta"), p, s), "kernel-device"),
        (lambda x, p, s: (x[0], p, s), "kernel-shape"),
        (lambda x, p, s: (x, p, s[:1]), "kernel-shape"),
        (lambda x, p, s: (x, p._replace(decay=p.decay[:2]), s), "kernel-shape"),
        (lambda x, p, s: (x.transpose(1, 2).contiguous().transpose(1, 2), p, s), "kernel-strides"),
        (lambda x, p, s: (x, p, s.t().contiguous().t()), "kernel-strides"),
    ],
)
def test_refuses_what_it_cannot_run(algorithm: Kernel, break_it: object, code: str) -> None:
    x, values, state = break_it(*case())  # type: ignore[operator]
    with pytest.raises(KernelError, match="Remedy: ") as caught:
        algorithm.apply(x, values, state, Neuron())
    assert caught.value.code == code


@pytest.mark.parametrize("memory", MEMORIES)
def test_backward_refuses_what_does_not_belong_to_the_forward_pass(algorithm: Kernel, memory: kernel.Memory) -> None:
    x, values, state = case()
    _, _, saved = algorithm.forward(x, values, state, Neuron(), memory=memory)
    g, h, last = output_gradients(x, state)
    for arguments in (
        (g, h[:, :-1].contiguous(), last, saved),
        (g, h.float(), last, saved),
        (g[:, :-1].contiguous(), None, last, saved),
        (g, None, last[:1], saved),
        (g, None, last, saved._replace(kept=saved.kept[:, :1].contiguous())),
        (g, None, last, saved._replace(state=state[:, :1].contiguous())),
        (g, None, last, saved._replace(x=x[:1])),
    ):
        with pytest.raises(KernelError, match="Remedy: "):
            algorithm.backward(*arguments)


def test_folders_are_found_and_unknown_names_refused() -> None:
    assert "exodus" in KERNELS
    assert "layer" not in KERNELS  # a submodule of the compiled module without a folder
    with pytest.raises(KernelError, match=r"choose one of .*exodus") as caught:
        kernel.load("no-such-algorithm")
    assert caught.value.code == "unknown-algorithm"
