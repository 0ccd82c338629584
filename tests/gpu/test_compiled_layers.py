"""What Triton compiled of layers and filters, run without a GPU (``ptx_on_cpu.py``), against the processor's."""

import pytest
import torch

pytest.importorskip("triton")

from neurodeploy.gpu import flags, launch
from neurodeploy.kernel import Neuron
from neurodeploy.surrogate import Arctan, Box, PeriodicExponential, Sigmoid
from tests.gpu.interpreted import check_layer
from tests.gpu.ptx_on_cpu import COMPILER, run_compiled

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def compiled_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run", run_compiled)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    flags.flags(torch.device("cpu")).zero_()


@pytest.mark.parametrize(
    ("neuron", "extras", "memory", "dtype", "steps"),
    [
        (Neuron(surrogate=PeriodicExponential(0.6, 0.3)), (), "store", torch.float32, 7),
        (Neuron(spikes="single", v_min=-0.3, surrogate=Sigmoid(0.3)), (), "recompute", torch.float32, 37),
        (
            Neuron(reset="zero", spikes=3, v_min=-0.3, v_min_position="before_threshold", surrogate=Arctan()),
            ("synapse", "adaptation"),
            "store",
            torch.float64,
            7,
        ),
    ],
    ids=["multi", "single", "everything"],
)
def test_layers(neuron: Neuron, extras: tuple[str, ...], memory: str, dtype: torch.dtype, steps: int) -> None:
    """Spikes, potentials, states, gradients of input and state: the same bits."""
    batch, neurons = 3, 240
    values = check_layer.parameters(neurons, dtype, extras, per_neuron=True)
    x, g, h = (torch.randn(batch, steps, neurons, dtype=dtype) * 0.8 + 0.2 for _ in range(3))
    state, last = (torch.rand(values.state_shape(batch, neurons), dtype=dtype) for _ in range(2))
    check_layer.compare(
        "exodus", x, state, values, g, h, last, check_layer.options(neuron, memory, False, wants_parameters=True)
    )


@pytest.mark.parametrize("decay", [0.9, 1.0])
def test_time_that_is_split(decay: float) -> None:
    """Chunks that were guessed right and wrong, and neurons that never forget."""
    values = check_layer.parameters(7, torch.float32, (), per_neuron=True)
    values = values._replace(decay=torch.full((7,), decay))
    x, state = torch.randn(1, 2500, 7), torch.rand(1, 7)
    chosen = check_layer.options(Neuron(surrogate=Box()), "recompute", False)
    expected = torch.ops.neurodeploy.exodus_forward(x, state, *values, *chosen)
    got = check_layer.exodus.forward(x, state, *values, *chosen)
    check_layer.assert_bits("spikes kept drive adaptation state", got, expected)
    arguments = (torch.randn_like(x), None, state, x, *expected[1:4], None, state, *values, *chosen)
    grad = torch.ops.neurodeploy.exodus_backward(*arguments)[0]
    split = check_layer.exodus.backward(*arguments)[0]
    assert not torch.equal(split, grad)
    assert float((split - grad).abs().max()) <= 1e-5 * float(grad.abs().max())


def test_filters() -> None:
    check_layer.test_filter_equals_the_processors(False, False, torch.float32)
