"""The kernels of layers under Triton's interpreter, against the processor's: bits of everything but parameter sums.

Run by tests/gpu/test_interpreter.py, in a process whose environment says TRITON_INTERPRET=1.
"""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
import torch

from neurodeploy import kernel, native_filter  # noqa: F401  (registers its operators)
from neurodeploy.errors import KernelError
from neurodeploy.gpu import filter as gpu_filter
from neurodeploy.gpu import flags, launch, layer, scan
from neurodeploy.gpu import packed as gpu_packed
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels.exodus import gpu as exodus
from neurodeploy.kernels.slayer import gpu as slayer
from neurodeploy.kernels.slayer import srm, srm_gpu
from neurodeploy.surrogate import Arctan, Box, Heaviside, PeriodicExponential, Sigmoid, code

ALGORITHMS: dict[str, Any] = {"exodus": exodus, "slayer": slayer}
NEURONS = [
    Neuron(),
    Neuron(spikes="single", v_min=-0.3),
    Neuron(reset="zero", spikes=3, v_min=-0.3, v_min_position="before_threshold", surrogate=Box()),
    Neuron(reset="zero", spikes="single", surrogate=Sigmoid(0.3), detach_threshold=True),
    Neuron(reset="none", surrogate=Arctan()),
    Neuron(surrogate=PeriodicExponential(0.6, 0.3), v_min=-0.3, v_min_position="before_threshold"),
    Neuron(spikes=2, surrogate=Heaviside(0.7), detach_threshold=True),
]
EXTRAS = [(), ("synapse",), ("adaptation",), ("synapse", "adaptation")]
OTHERS = cycle([("store", False), ("recompute", True), ("recompute", False), ("store", True), ("recompute", False)])
CASES = [
    (("exodus", "slayer")[k % 2], neuron, extras, *next(OTHERS), (torch.float32, torch.float64)[(k // 3) % 2])
    for k, (neuron, extras) in enumerate((n, e) for n in NEURONS for e in EXTRAS)
    if k % 2 == 0 or extras == ()
]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    flags.flags(torch.device("cpu")).zero_()


def parameters(neurons: int, dtype: torch.dtype, extras: tuple[str, ...], per_neuron: bool) -> Parameters:
    def draw(low: float, high: float) -> torch.Tensor:
        return torch.rand(neurons if per_neuron else 1, dtype=dtype) * (high - low) + low

    values = Parameters(draw(0.8, 1.0), draw(0.7, 1.3), draw(0.5, 1.5), draw(0.7, 1.3))
    if "synapse" in extras:
        values = values._replace(syn_decay=draw(0.3, 0.9))
    if "adaptation" in extras:
        values = values._replace(adapt_decay=draw(0.7, 0.95), adapt_scale=draw(0.5, 2.0))
    return values


def options(neuron: Neuron, memory: str, time_major: bool, wants_parameters: bool = True) -> tuple[Any, ...]:
    return (*neuron.arguments(), time_major, memory, neuron.detach_threshold, wants_parameters)


def assert_bits(names: str, got: Any, expected: Any) -> None:
    for name, g, e in zip(names.split(), got, expected, strict=True):
        assert torch.equal(g, e), (name, (g - e).abs().max())


def assert_sums(got: Any, expected: Any) -> None:
    """Sums in float64 of the same few hundred terms of size 1, in another order, and rounded once."""
    for g, e in zip(got, expected, strict=True):
        if e.numel():
            limit = 1e3 * torch.finfo(torch.float64).eps + torch.finfo(e.dtype).eps * float(e.abs().max())
            assert float((g - e).abs().max()) <= limit, (g, e)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1].reset}-{c[1].spikes}-{'+'.join(c[2])}-{c[3]}")
def test_layer_equals_the_processors(case: tuple[str, Neuron, tuple[str, ...], str, bool, torch.dtype]) -> None:
    algorithm, neuron, extras, memory, time_major, dtype = case
    batch, steps, neurons = 2, 37, 5  # more than one checkpoint, no power of two
    values = parameters(neurons, dtype, extras, per_neuron=not time_major)
    shape = (steps, batch, neurons) if time_major else (batch, steps, neurons)
    x, g, h = (torch.randn(shape, dtype=dtype) * 0.8 + 0.2 for _ in range(3))
    state, last = (torch.rand(values.state_shape(batch, neurons), dtype=dtype) for _ in range(2))
    compare(algorithm, x, state, values, g, h, last, options(neuron, memory, time_major))


def compare(
    algorithm: str,
    x: torch.Tensor,
    state: torch.Tensor,
    values: Parameters,
    g: torch.Tensor,
    h: torch.Tensor | None,
    last: torch.Tensor,
    chosen: tuple[Any, ...],
) -> None:
    forward, backward = (
        getattr(torch.ops.neurodeploy, name) for name in (f"{algorithm}_forward", f"{algorithm}_backward")
    )
    expected = forward(x, state, *values, *chosen)
    got = ALGORITHMS[algorithm].forward(x, state, *values, *chosen)
    assert_bits("spikes kept drive adaptation state", got, expected)
    arguments = (g, h, last, x, *expected[1:4], None, state, *values, *chosen)
    expected, got = backward(*arguments), ALGORITHMS[algorithm].backward(*arguments)
    assert_bits("x state", got[:2], expected[:2])
    assert_sums(got[2:], expected[2:])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 1), (1, 17, 67), (2, 8, 64), (2, 0, 3), (0, 4, 3), (2, 4, 0)])
def test_odd_shapes(shape: tuple[int, int, int]) -> None:
    batch, _, neurons = shape
    values = parameters(neurons, torch.float32, (), per_neuron=True)
    x, g = torch.randn(shape) + 0.3, torch.randn(shape)
    state, last = torch.rand(batch, neurons), torch.rand(batch, neurons)
    for memory in ("store", "recompute"):
        compare("exodus", x, state, values, g, None, last, options(Neuron(), memory, False))


def test_without_gradients_of_parameters() -> None:
    values = parameters(5, torch.float32, ("synapse",), per_neuron=False)
    x, state = torch.randn(2, 20, 5), torch.zeros(2, 2, 5)
    for memory in ("store", "recompute"):
        compare("exodus", x, state, values, x, None, state, options(Neuron(), memory, False, wants_parameters=False))


@pytest.mark.parametrize("dtype", kernel.HALF, ids=str)
def test_half_precision_is_that_of_the_input_alone(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as float32 arithmetic on the rounded input, with results rounded at the end."""
    monkeypatch.setattr(layer, "check_arguments", lambda *a, **k: None)  # refuses half precision on the processor
    values = parameters(5, torch.float32, (), per_neuron=True)
    x, g = (torch.randn(2, 21, 5).to(dtype) for _ in range(2))
    state = torch.rand(2, 5)
    memory = "store" if dtype == torch.float16 else "recompute"
    chosen = options(Neuron(), memory, False)
    expected = exodus.forward(x.float(), state, *values, *chosen)
    got = exodus.forward(x, state, *values, *chosen)
    assert got[0].dtype == dtype
    assert_bits("spikes kept drive adaptation state", (got[0].float(), *got[1:]), expected)
    rest = (None, state, *values, *chosen)
    expected_back = exodus.backward(g.float(), None, state, x.float(), *expected[1:4], *rest)
    got_back = exodus.backward(g, None, state, x, *got[1:4], *rest)
    # The interpreter cuts float32 off to bfloat16, which a GPU rounds.
    limit = torch.finfo(dtype).eps * expected_back[0].abs() if dtype == torch.bfloat16 else 0.0
    assert bool(((got_back[0].float() - expected_back[0].to(dtype).float()).abs() <= limit).all())
    assert_bits("state", [got_back[1]], [expected_back[1]])
    assert_sums(got_back[2:], expected_back[2:])


@pytest.mark.parametrize(
    "surrogate", [Neuron().surrogate, PeriodicExponential(0.6, 0.3), Box(), Sigmoid(0.3), Arctan(), Heaviside(0.7)]
)
def test_soft_spikes(surrogate: Any) -> None:
    values = parameters(5, torch.float64, (), per_neuron=True)
    x, g, state = torch.randn(2, 12, 5).double(), torch.randn(2, 12, 5).double(), torch.rand(2, 5).double()
    for algorithm, reset in (("exodus", "subtract"), ("exodus", "zero"), ("slayer", "zero")):
        chosen = options(Neuron(reset=reset, surrogate=surrogate, soft_spikes=True), "store", False)  # type: ignore[arg-type]
        expected = getattr(torch.ops.neurodeploy, f"{algorithm}_forward")(x, state, *values, *chosen)
        got = ALGORITHMS[algorithm].forward(x, state, *values, *chosen)
        assert float((got[0] - expected[0]).abs().max()) <= 1e-13
        arguments = (g, None, state, x, *expected[1:4], None, state, *values, *chosen)
        expected = getattr(torch.ops.neurodeploy, f"{algorithm}_backward")(*arguments)
        got = ALGORITHMS[algorithm].backward(*arguments)
        assert float((got[0] - expected[0]).abs().max()) <= 1e-12 * float(expected[0].abs().max())


@pytest.mark.parametrize(
    ("synapse", "time_major", "dtype"), [(False, False, torch.float32), (True, True, torch.float64)]
)
def test_filter_equals_the_processors(synapse: bool, time_major: bool, dtype: torch.dtype) -> None:
    for shape, per_neuron, learnt in (((3, 21, 5), True, True), ((2, 1, 3), False, True), ((2, 18, 3), False, False)):
        x, g = (torch.randn(shape, dtype=dtype) for _ in range(2))
        x, g = (a.transpose(0, 1).contiguous() if time_major else a for a in (x, g))
        state, last = torch.randn(shape[::2], dtype=dtype), torch.randn(shape[::2], dtype=dtype)
        decay, gain = (torch.rand(shape[2] if per_neuron else 1, dtype=dtype) for _ in range(2))
        chosen = (decay, gain, synapse, time_major)
        expected = torch.ops.neurodeploy.filter_forward(x, state, *chosen)
        assert_bits("y state", gpu_filter.forward(x, state, *chosen), expected)
        kept = (x, expected[0]) if learnt else (None, None)
        got = gpu_filter.backward(g, last, *kept, state, *chosen)
        expected = torch.ops.neurodeploy.filter_backward(g, last, *kept, state, *chosen)
        assert_bits("x state", got[:2], expected[:2])
        assert_sums(got[2:], expected[2:])


@pytest.mark.parametrize(
    ("reset_path", "time_major", "dtype"), [(False, False, torch.float32), (True, True, torch.float64)]
)
def test_spike_response_model_equals_the_processors(reset_path: bool, time_major: bool, dtype: torch.dtype) -> None:
    batch, steps, neurons = 2, 37, 5
    shape = (steps, batch, neurons) if time_major else (batch, steps, neurons)
    x, g, h = (torch.randn(shape, dtype=dtype) for _ in range(3))
    state, last = (torch.rand(4, batch, neurons, dtype=dtype) for _ in range(2))
    values = srm.Kernels(*(torch.rand(neurons, dtype=dtype) + 1.0 for _ in range(4))).scan()
    for spikes, surrogate in ((1, Neuron().surrogate), (0, Sigmoid(0.3))):
        chosen = (*values, spikes, *code(surrogate), reset_path, time_major)
        expected = torch.ops.neurodeploy.srm_forward(x, state, *chosen, True)
        assert_bits("spikes u state", srm_gpu.forward(x, state, *chosen, True), expected)
        arguments = (g, h, last, expected[1], *chosen)
        assert_bits("x state", srm_gpu.backward(*arguments), torch.ops.neurodeploy.srm_backward(*arguments))


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda p, s: (p._replace(threshold=p.threshold * -1), s), "kernel-threshold"),
        (lambda p, s: (p._replace(threshold=p.threshold * torch.nan), s), "kernel-threshold"),
        (lambda p, s: (p._replace(adapt_scale=p.adapt_scale - 9), s), "kernel-threshold"),
        (lambda p, s: (p, s - 9), "kernel-state"),
    ],
)
def test_values_that_are_not_allowed_are_told_by_the_next_call(
    break_it: Callable[[Parameters, torch.Tensor], Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "check_arguments", lambda *a, **k: None)  # looks at values itself on the processor
    good = parameters(5, torch.float32, ("adaptation",), per_neuron=True)
    x, state = torch.randn(2, 3, 5), torch.zeros(2, 2, 5)
    values, start = break_it(good, state)
    chosen = options(Neuron(), "store", False)
    exodus.forward(x, start, *values, *chosen)
    with pytest.raises(KernelError, match="earlier call") as caught:
        exodus.forward(x, state, *good, *chosen)
    assert caught.value.code == code
    exodus.forward(x, state, *good, *chosen)
    flags.check()


@pytest.mark.parametrize("spikes", [1, 0], ids=["bits", "bytes"])
@pytest.mark.parametrize(("shape", "time_major"), [((2, 37, 5), False), ((5, 2, 3), True), ((1, 64, 3), False)])
def test_packed_spikes_equal_the_processors(spikes: int, shape: tuple[int, int, int], time_major: bool) -> None:
    neuron = Neuron(spikes="single" if spikes else "multi")
    batch, neurons = shape[1 if time_major else 0], shape[2]
    values = parameters(neurons, torch.float32, ("synapse",), per_neuron=True)
    x, state = torch.randn(shape) * 2, torch.rand(2, batch, neurons)
    chosen = options(neuron, "none", time_major, wants_parameters=False)
    for bias in (torch.rand(neurons), None):
        expected = torch.ops.neurodeploy.packed_forward(x, bias, state, *values, *chosen)
        got = gpu_packed.forward(x, bias, state, *values, *chosen)
        assert_bits("words counts state", got, expected)


def test_too_many_spikes_for_a_byte_are_told_by_the_next_call() -> None:
    values = parameters(5, torch.float32, (), per_neuron=True)
    x, state = torch.full((1, 3, 5), 400.0), torch.zeros(1, 5)
    chosen = options(Neuron(), "none", False, wants_parameters=False)
    gpu_packed.forward(x, None, state, *values, *chosen)
    with pytest.raises(KernelError, match="255") as caught:
        gpu_packed.forward(x, None, state, *values, *chosen)
    assert caught.value.code == "kernel-packed-spikes"


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FORWARD_CHUNK", 32)
    monkeypatch.setattr(scan, "BACKWARD_CHUNK", 16)


@pytest.mark.parametrize("decays", ["fast", "slow", "mixed", "guessed wrong"])
@pytest.mark.parametrize("extras", [(), ("synapse", "adaptation")], ids=str)
def test_split_time_keeps_every_bit_of_the_forward_pass(
    decays: str, extras: tuple[str, ...], short_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neurons that forget within a warm-up, that do not, both in one program, and those that are only said to."""
    dtype, memory = (torch.float32, "store") if extras else (torch.float64, "recompute")
    values = parameters(5, dtype, extras, per_neuron=True)
    fast = torch.full((5,), 0.3, dtype=dtype)
    slow = torch.tensor([1.0, 0.99, 0.9, 0.3, 0.3], dtype=dtype)
    values = values._replace(decay={"fast": fast, "slow": slow + 0.7 * (slow < 0.5), "mixed": slow}.get(decays, slow))
    if extras:
        values = values._replace(syn_decay=fast, adapt_decay=fast)
    if decays == "guessed wrong":
        monkeypatch.setattr(layer, "slowest_decay", lambda dtype: 1.0)
    x, state = torch.randn(1, 130, 5, dtype=dtype), torch.rand(values.state_shape(1, 5), dtype=dtype)
    chosen = options(Neuron(), memory, False)
    with launch.recorded() as launches:
        exodus.forward(x, state, *values, *chosen)
    assert [one.grid[1] for one in launches if len(one.grid) > 1] == [4, 5]  # split indeed
    expected = torch.ops.neurodeploy.exodus_forward(x, state, *values, *chosen)
    got = exodus.forward(x, state, *values, *chosen)
    assert_bits("spikes kept drive adaptation state", got, expected)


def test_neurons_that_forget_are_not_run_twice(short_chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the repair all is right but the final state, which it writes: the guesses had every bit."""
    monkeypatch.setattr(layer, "layer_repair", Nothing())
    values = parameters(5, torch.float32, (), per_neuron=True)._replace(decay=torch.full((5,), 0.3))
    x, state = torch.randn(1, 130, 5), torch.rand(1, 5)
    chosen = options(Neuron(), "store", False)
    expected = torch.ops.neurodeploy.exodus_forward(x, state, *values, *chosen)
    assert_bits("spikes kept", exodus.forward(x, state, *values, *chosen)[:2], expected[:2])


class Nothing:
    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **constants: None


@pytest.mark.parametrize(
    ("extras", "dtype", "memory"),
    [
        ((), torch.float32, "recompute"),
        (("adaptation",), torch.float64, "store"),
        (("synapse", "adaptation"), torch.float64, "store"),
    ],
    ids=str,
)
def test_split_time_gives_the_gradients_to_rounding(
    extras: tuple[str, ...], dtype: torch.dtype, memory: str, short_chunks: None
) -> None:
    """The scan is linear: chunks joined by their affine maps differ by rounding alone.

    A map of n steps with factors of at most 1 (decay times 1 - threshold * surrogate, for this surrogate) and its use
    round each of n terms a few times: the difference is below 8 n eps of the largest term, n = 97.
    """
    neuron = Neuron(surrogate=Sigmoid(0.5), v_min=-0.3)
    values = parameters(5, dtype, extras, per_neuron=True)
    x, g, h = (torch.randn(1, 97, 5, dtype=dtype) for _ in range(3))
    state, last = (torch.rand(values.state_shape(1, 5), dtype=dtype) for _ in range(2))
    chosen = options(neuron, memory, False)
    kept = torch.ops.neurodeploy.exodus_forward(x, state, *values, *chosen)[1:4]
    arguments = (g, h, last, x, *kept, None, state, *values, *chosen)
    with launch.recorded() as launches:
        exodus.backward(*arguments)
    assert [one.grid[1:] for one in launches] == [(4, 1 + len(values.state_rows)), (), (4, 1)]
    expected, got = torch.ops.neurodeploy.exodus_backward(*arguments), exodus.backward(*arguments)
    for e, o in zip(expected, got, strict=True):
        if e.numel():
            assert float((o - e).abs().max()) <= 8 * 97 * torch.finfo(dtype).eps * float(e.abs().max())
