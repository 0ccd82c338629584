"""What needs a GPU: ``pytest tests/gpu -m gpu``. The contract of kernels/ on the device, and what only a device has."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch

import neurodeploy as nd
from neurodeploy import kernel, packed_layer
from neurodeploy.errors import KernelError
from neurodeploy.kernel import Kernel, Neuron, Parameters
from tests.kernels.test_contract import (  # noqa: F401  (pytest collects the tests here, with the fixtures of this file)
    NEURONS,
    algorithm,
    case,
    output_gradients,
    relative,
    test_backward_refuses_what_does_not_belong_to_the_forward_pass,
    test_chunks_equal_one_pass,
    test_compiles_as_one_graph,
    test_empty_axes,
    test_equals_reference,
    test_gradcheck_of_more_than_a_potential,
    test_gradcheck_with_soft_spikes,
    test_more_than_a_potential_equals_reference,
    test_odd_shapes,
    test_opcheck,
    test_recompute_has_the_bits_of_store,
    test_recorded_potential_equals_reference,
    test_second_derivatives_are_refused,
    test_strided_gradients_are_taken,
    test_surrogates_equal_reference,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
MEMORIES: tuple[kernel.Memory, ...] = ("store", "recompute")
STATE_ROWS = {"plain": (), "synapse": ("synapse",), "adaptation": ("adaptation",), "both": ("synapse", "adaptation")}


@pytest.fixture(autouse=True)
def on_the_device() -> Iterator[None]:
    """Every tensor that a test makes is on the GPU; memory that nobody wrote to is NaN."""
    torch.set_default_device("cuda")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_device(None)
    torch.cuda.empty_cache()


@pytest.fixture(params=STATE_ROWS)
def extras(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return STATE_ROWS[request.param]


@pytest.fixture(params=["plain", "both"])
def few_extras(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return STATE_ROWS[request.param]


def on_processor(values: Parameters) -> Parameters:
    return Parameters(*(None if value is None else value.cpu() for value in values))


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: f"{n.reset}-{n.spikes}-{n.v_min}-{n.v_min_position}")
def test_processor_and_gpu_have_the_same_bits(algorithm: Kernel, neuron: Neuron) -> None:  # noqa: F811
    """A million neuron-steps: spikes, potentials, state, and the gradients of input and initial state."""
    for memory, (shape, extras) in product(
        MEMORIES, (((64, 31, 521), ()), ((16, 100, 640), ("synapse", "adaptation")))
    ):
        x, values, state = case(*shape, dtype=torch.float32, extras=extras)
        g, h, last = output_gradients(x, state)
        spikes, final, saved = algorithm.forward(x, values, state, neuron, memory=memory)
        grads = algorithm.backward(g, h, last, saved)
        there = [tensor.cpu() for tensor in (x, state, g, h, last)]
        expected, expected_final, kept = algorithm.forward(
            there[0], on_processor(values), there[1], neuron, memory=memory
        )
        expected_grads = algorithm.backward(*there[2:], kept)
        assert torch.equal(spikes.cpu(), expected)
        assert torch.equal(final.cpu(), expected_final)
        assert torch.equal(saved.kept.cpu(), kept.kept)
        if shape[1] < 64:  # longer ones are split over time: the gradient's scan rounds otherwise
            assert torch.equal(grads.x.cpu(), expected_grads.x)
            assert torch.equal(grads.state.cpu(), expected_grads.state)
        assert relative(grads.x.cpu(), expected_grads.x) <= 1e-4


@pytest.mark.parametrize("decay", [0.9, 0.99, 1.0])
def test_long_recordings_of_few_neurons(algorithm: Kernel, decay: float) -> None:  # noqa: F811
    x, values, state = case(1, 6001, 200, torch.float32)
    values = values._replace(decay=torch.full((200,), decay))
    for memory in MEMORIES:
        spikes, final, _ = algorithm.forward(x, values, state, Neuron(), memory=memory)
        expected, expected_final, _ = algorithm.forward(
            x.cpu(), on_processor(values), state.cpu(), Neuron(), memory=memory
        )
        assert torch.equal(spikes.cpu(), expected)
        assert torch.equal(final.cpu(), expected_final)


@pytest.mark.parametrize("shape", [(3, 70, 4099), (1, 5000, 100), (700, 8, 800)])
def test_runs_have_the_same_bits(algorithm: Kernel, shape: tuple[int, int, int]) -> None:  # noqa: F811
    x, values, state = case(*shape, dtype=torch.float32, extras=("synapse",))
    g, h, last = output_gradients(x, state)
    results = []
    for _ in range(5):
        spikes, final, saved = algorithm.forward(x, values, state, Neuron(), memory="recompute")
        gradients = algorithm.backward(g, h, last, saved)
        results.append([tensor for tensor in (spikes, final, *gradients) if tensor is not None])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", kernel.HALF, ids=str)
@pytest.mark.parametrize("memory", MEMORIES)
def test_half_precision_rounds_input_and_output_alone(
    algorithm: Kernel,  # noqa: F811
    dtype: torch.dtype,
    memory: kernel.Memory,
) -> None:
    x, values, state = case(3, 40, 130, torch.float32)
    x = x.to(dtype)
    g, _, last = output_gradients(x, state)
    spikes, final, saved = algorithm.forward(x, values, state, Neuron(), memory=memory)
    expected, expected_final, kept = algorithm.forward(x.float(), values, state, Neuron(), memory=memory)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), expected)
    assert torch.equal(final, expected_final)
    grads, wide = algorithm.backward(g, None, last, saved), algorithm.backward(g.float(), None, last, kept)
    assert torch.equal(grads.x, wide.x.to(dtype))
    assert torch.equal(grads.state, wide.state)


def test_more_than_two_to_the_31_elements(algorithm: Kernel) -> None:  # noqa: F811
    torch.use_deterministic_algorithms(False)  # filling takes long
    neurons, steps = 2**26 + 3, 33
    if torch.cuda.mem_get_info()[0] < 6 * 2 * neurons * steps:
        pytest.skip("needs 27 GB of GPU memory")
    x = torch.randn(1, steps, neurons, dtype=torch.bfloat16)
    one = torch.ones(1)
    values, state = Parameters(one * 0.9, one, one, one), torch.zeros(1, neurons)
    spikes, final, saved = algorithm.forward(x, values, state, Neuron(), memory="recompute")
    grads = algorithm.backward(x, None, state, saved)
    for part in (slice(0, 1000), slice(2**25, 2**25 + 77), slice(neurons - 1000, neurons)):
        few, start = x[:, :, part].contiguous(), state[:, part].contiguous()
        expected, expected_final, kept = algorithm.forward(few, values, start, Neuron(), memory="recompute")
        assert torch.equal(spikes[:, :, part], expected)
        assert torch.equal(final[:, part], expected_final)
        assert torch.equal(grads.x[:, :, part], algorithm.backward(few, None, start, kept).x)


def test_no_room_is_told_in_words(algorithm: Kernel) -> None:  # noqa: F811
    x, values, state = case(4, 100, 100_000, torch.float32)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    try:
        with pytest.raises(KernelError, match="MiB are free") as caught:
            algorithm.forward(x, values, state, Neuron())
        assert caught.value.code == "kernel-gpu-memory"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_values_that_are_not_allowed_are_told_later(algorithm: Kernel) -> None:  # noqa: F811
    from neurodeploy.gpu import flags

    x, values, state = case(1, 5, 7, torch.float32)
    algorithm.forward(x, values._replace(threshold=-values.threshold), state, Neuron())
    with pytest.raises(KernelError, match="earlier call") as caught:
        flags.check()
    assert caught.value.code == "kernel-threshold"
    algorithm.forward(x, values, state, Neuron())
    flags.check()


def network(memory: kernel.Memory = "store") -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(20, 32),
        nd.nn.LIF(10.0, memory=memory, learn_tau=True),
        torch.nn.Linear(32, 32),
        nd.nn.CubaLIF(10.0, 5.0, memory=memory),
        torch.nn.Linear(32, 32),
        nd.nn.ALIF(10.0, 20.0, memory=memory),
        torch.nn.Linear(32, 5),
        nd.nn.LI(10.0, learn_tau=True),
    ).cuda()


@pytest.mark.parametrize("memory", MEMORIES)
def test_networks_compile_to_one_graph(memory: kernel.Memory) -> None:
    net, x = network(memory), torch.randn(4, 30, 20)
    expected = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    compiled = torch.compile(net, fullgraph=True)
    got = torch.autograd.grad(compiled(x).square().sum(), list(net.parameters()))
    for g, e in zip(got, expected, strict=True):
        assert relative(g, e) <= 1e-4


def test_training_steps_in_a_cuda_graph() -> None:
    """A step that waited for the device could not be captured; replayed on new input it gives what the step gives."""
    torch.use_deterministic_algorithms(False)
    net, x = network(), torch.randn(4, 30, 20)
    parameters = list(net.parameters())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # compile kernels, and let libraries take their workspaces
            torch.autograd.grad(net(x).square().sum(), parameters)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.autograd.grad(net(x).square().sum(), parameters)
    x.copy_(torch.randn(4, 30, 20))
    graph.replay()
    for g, e in zip(captured, torch.autograd.grad(net(x).square().sum(), parameters), strict=True):
        assert torch.equal(g, e)


def test_autocast_runs_neurons_in_half_precision() -> None:
    net, x = network("recompute"), torch.randn(4, 30, 20)
    with torch.autocast("cuda", torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("layer", [nd.nn.LI(9.0), nd.nn.SynapseFilter(4.0), nd.nn.SRMAlpha(5.0), nd.nn.IAF()], ids=repr)
def test_layers_equal_those_of_the_processor(layer: torch.nn.Module) -> None:
    for shape in ((3, 41, 7), (2, 20, 3, 5, 5)):
        x = torch.randn(shape)
        assert torch.equal(layer.cuda()(x).cpu(), layer.cpu()(x.cpu()))


@pytest.mark.parametrize("spikes", ["single", "multi"])
def test_packed_spikes_equal_the_processors(spikes: str) -> None:
    neuron = Neuron(spikes=spikes)  # type: ignore[arg-type]
    x, values, state = case(3, 71, 513, torch.float32)
    bias = torch.rand(513)
    got = packed_layer.run(x, bias, values, state, neuron)
    expected = packed_layer.run(x.cpu(), bias.cpu(), on_processor(values), state.cpu(), neuron)
    assert all(torch.equal(g.cpu(), e) for g, e in zip(got, expected, strict=True))


def test_lateral_connections_are_refused(algorithm: Kernel) -> None:  # noqa: F811
    x, values, state = case(extras=("lateral",))
    with pytest.raises(KernelError, match="CPU") as caught:
        algorithm.apply(x, values, state, Neuron())
    assert caught.value.code == "kernel-gpu-lateral"


def test_tensors_of_two_devices_are_refused(algorithm: Kernel) -> None:  # noqa: F811
    x, values, state = case()
    with pytest.raises(KernelError, match="Remedy: ") as caught:
        algorithm.apply(x, values, state.cpu(), Neuron())
    assert caught.value.code == "kernel-dtype"
