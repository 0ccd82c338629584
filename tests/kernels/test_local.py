"""Temporally truncated local training: what is exact, what is cut, and that neither order nor threads change a bit."""

import threading
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

import neurodeploy as nd
from neurodeploy import nn
from neurodeploy.errors import TrainError
from neurodeploy.kernel import Parameters
from neurodeploy.kernels.local import LocalTraining
from neurodeploy.surrogate import SingleExponential
from tests.autograd_loop import loop

B, T, CLASSES = 4, 24, 5
WIDTHS = (11, 16, 13, 12, CLASSES)
TAU = 9.5  # decay 0.9


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def sgd(lr: float) -> Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def linear_net(algorithm: str = "exodus", **options: Any) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(WIDTHS):
        linear = torch.nn.Linear(before, after)
        torch.nn.init.normal_(linear.weight, 0.03, 0.25)
        options = {"norm_input": False, "surrogate": SingleExponential(0.8), **options}
        layers += [linear, nn.LIF(TAU, algorithm=algorithm, **options)]
    return torch.nn.Sequential(*layers).double()


def conv_net(steps: int, **options: Any) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.IAF(num_timesteps=steps, **options),
        nn.SumPool2d(2),
        torch.nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.IAF(num_timesteps=steps, **options),
        nn.SumPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 4, CLASSES, bias=False),
        nn.LIF(TAU, num_timesteps=steps, **options),
    )


def data(steps: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    x = (torch.rand(B, steps, WIDTHS[0], dtype=torch.float64) < 0.4).double()
    return x, torch.randint(CLASSES, (B,))


def maps(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.poisson(torch.full((B * steps, 2, 8, 8), 0.3)), torch.randint(CLASSES, (B,))


def gradients(local: LocalTraining) -> list[torch.Tensor]:
    parameters = [one for part in (*local.blocks, *local.heads) for one in part.parameters()]
    assert parameters
    assert all(one.grad is not None for one in parameters)
    return [one.grad.clone() for one in parameters if one.grad is not None]


def weights(local: LocalTraining) -> list[torch.Tensor]:
    return [one.detach().clone() for part in (local.net, *local.heads) for one in part.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("algorithm", ["exodus", "slayer"])
@pytest.mark.parametrize("steps", [None, T, 10 * T])
def test_without_cuts_it_is_ordinary_training_bit_for_bit(algorithm: str, steps: int | None) -> None:
    x, labels = data()
    net = linear_net(algorithm)
    output = net(x)
    F.cross_entropy(3.0 * output.mean(1), labels).backward()
    expected = [one.grad.clone() for one in net.parameters() if one.grad is not None]
    local = LocalTraining(net, x, truncation=steps, head=lambda mean: 3.0 * mean, optimizer=sgd(0.0))
    result = local.step(x, labels)
    assert equal(gradients(local), expected)
    assert torch.equal(result.output, output.detach().mean(1))


def test_without_cuts_a_folded_network_learns_as_ever() -> None:
    """Weights after several steps of Adam, in float32, through convolutions and pooling."""
    x, labels = maps(20)
    torch.manual_seed(1)
    net = conv_net(20)
    optimizer = adam(list(net.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x).reshape(B, 20, CLASSES).mean(1), labels).backward()
        optimizer.step()
    torch.manual_seed(1)
    local = LocalTraining(conv_net(20), x, optimizer=adam)
    for _ in range(3):
        local.step(x, labels)
    assert equal(weights(local), [one.detach() for one in net.parameters()])


def detached_loops(
    net: torch.nn.Sequential, heads: torch.nn.ModuleList, x: torch.Tensor, labels: torch.Tensor, length: int, size: int
) -> torch.Tensor:
    """The definition in torch operations alone: the sum of all blocks' losses, with every detach written out."""
    linears, neurons = net[::2], net[1::2]
    states = [torch.zeros(B, width, dtype=x.dtype) for width in WIDTHS[1:]]
    total = torch.zeros((), dtype=x.dtype)
    for segment in x.split(length, 1):
        signal = segment
        for i, (linear, layer) in enumerate(zip(linears, neurons, strict=True)):
            if i % size == 0:
                signal = signal.detach()
            assert isinstance(layer, nn.LIF)
            one = torch.ones(1, dtype=x.dtype)
            values = Parameters(layer.decay.reshape(1), one, one, one)
            signal, _, states[i] = loop(linear(signal), states[i].detach(), values, layer.neuron)
            if i % size == size - 1 or i == len(linears) - 1:
                loss = F.cross_entropy(heads[i // size](signal.mean(1)), labels)
                total = total + loss * segment.shape[1] / x.shape[1]
    return total


@pytest.mark.parametrize(("length", "size"), [*product((24, 8, 7, 4, 1), (1, 2, 3, 4))])
def test_gradients_equal_autograd_with_explicit_detaches(length: int, size: int) -> None:
    """Segments of 7 leave a ragged tail of 3 steps, blocks of 3 a last block of one layer."""
    x, labels = data()
    local = LocalTraining(linear_net(), x, truncation=length, block=size, optimizer=sgd(0.0), update="accumulate")
    assert len(local.blocks) == -(-4 // size)
    result = local.step(x, labels)
    got = gradients(local)
    for one in (*local.net.parameters(), *local.heads.parameters()):
        one.grad = None
    total = detached_loops(local.net, local.heads, x, labels, length, size)  # type: ignore[arg-type]
    total.backward()  # type: ignore[no-untyped-call]
    assert abs(float(result.losses.sum() - total.detach())) <= 1e-12
    for g, e in zip(got, gradients(local), strict=True):
        assert float(e.abs().max()) > 0
        assert float((g - e).abs().max() / e.abs().max()) <= 1e-12


def test_a_block_learns_nothing_from_later_blocks() -> None:
    x, labels = data()
    local = LocalTraining(linear_net(), x, truncation=8, block=1, optimizer=sgd(0.0), update="accumulate")
    local.step(x, labels)
    before = [[one.grad.clone() for one in block.parameters() if one.grad is not None] for block in local.blocks]
    with torch.no_grad():
        for one in local.blocks[2].parameters():
            one.add_(torch.randn_like(one))
    local.step(x, labels)
    after = [[one.grad.clone() for one in block.parameters() if one.grad is not None] for block in local.blocks]
    assert equal(before[0], after[0])
    assert equal(before[1], after[1])
    assert not equal(before[2], after[2])
    assert not equal(before[3], after[3])


def test_states_cross_segments_with_their_values() -> None:
    """Without learning, the segments' outputs are those of one call."""
    x, labels = data()
    net = linear_net()
    with torch.no_grad():
        whole = net(x).mean(1)
    for length in (1, 5, 24):
        result = LocalTraining(net, x, truncation=length, block=1, optimizer=sgd(0.0)).step(x, labels)
        assert torch.allclose(result.output, whole, rtol=1e-14, atol=0)  # another order of adding up
        assert result.losses.shape == (4,)


def trained(steps: int, length: int, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(3)
    x, labels = maps(steps)
    local = LocalTraining(conv_net(steps), x, truncation=length, block=1, optimizer=adam, **options)
    for _ in range(3):
        local.step(x, labels)
    return weights(local)


def test_updates_at_once_and_deferred_give_the_same_weights() -> None:
    assert equal(trained(20, 6, update="immediate"), trained(20, 6, update="deferred"))
    assert not equal(trained(20, 6, update="immediate"), trained(20, 6, update="accumulate"))


@pytest.mark.parametrize("update", ["immediate", "accumulate"])
@pytest.mark.parametrize(("steps", "length"), [(20, 6), (20, 20), (7, 1)])
def test_the_pipeline_gives_the_same_weights(update: str, steps: int, length: int) -> None:
    assert equal(trained(steps, length, update=update), trained(steps, length, update=update, pipelined=True))


def test_the_pipeline_works_on_different_segments_at_once() -> None:
    """Block 0 on segment k + 1 and block 1 on segment k wait for each other inside: one after the other would hang."""
    segments = 4
    meeting = threading.Barrier(2, timeout=60)

    class Meet(torch.nn.Module):
        def __init__(self, alone: int) -> None:
            super().__init__()
            self.alone, self.calls = alone, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and self.calls != self.alone:
                meeting.wait()
            self.calls += self.training
            return x

    first, second = Meet(alone=0), Meet(alone=segments - 1)
    net = torch.nn.Sequential(first, torch.nn.Linear(3, 4), nn.IAF(), second, torch.nn.Linear(4, 2), nn.IAF())
    x = torch.rand(2, segments, 3)
    local = LocalTraining(net, x, truncation=1, block=1, optimizer=adam, pipelined=True)
    local.step(x, torch.zeros(2, dtype=torch.int64))
    assert first.calls == second.calls == segments
    assert not meeting.broken


class Pair(NamedTuple):
    fast: torch.Tensor
    slow: dict[str, torch.Tensor]


class TwoStates(torch.nn.Module):
    """A neuron layer of another kind, with a structured state: two filters, then IAF."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = nn.IAF()

    def forward(self, x: torch.Tensor, initial_state: Pair | None = None, return_state: bool = False) -> Any:
        zero = torch.zeros_like(x[:, 0])
        state = initial_state or Pair(zero, {"trace": zero})
        fast, slow, out = state.fast, state.slow["trace"], []
        for current in x.unbind(1):
            fast = 0.5 * fast + current
            slow = 0.9 * slow + current
            out.append(fast - 0.1 * slow)
        spikes = torch.relu(torch.stack(out, 1))
        return (spikes, Pair(fast, {"trace": slow})) if return_state else spikes


def test_layers_with_a_structured_state() -> None:
    x, labels = data()
    net = torch.nn.Sequential(torch.nn.Linear(WIDTHS[0], 7), TwoStates(), torch.nn.Linear(7, CLASSES)).double()
    net(x)
    with torch.no_grad():
        whole = net(x).mean(1)
    local = LocalTraining(net, x, truncation=5, optimizer=sgd(0.0), update="accumulate")
    assert torch.allclose(local.step(x, labels).output, whole, rtol=1e-12, atol=0)
    assert all(float(g.abs().max()) > 0 for g in gradients(local))


def synaptic_net() -> torch.nn.Sequential:
    options: dict[str, Any] = {"norm_input": False, "threshold": 0.3}
    layers = [
        nn.CubaLIF(10.0, 4.0, **options),
        nn.ALIF(10.0, 20.0, **options),
        nn.LIFRecurrent(10.0, torch.nn.Linear(8, 8), **options),
    ]
    modules: list[torch.nn.Module] = [nn.SynapseFilter(3.0)]
    for width, layer in zip((WIDTHS[0], 8, 8), layers, strict=True):
        modules += [torch.nn.Linear(width, 8), layer]
    return torch.nn.Sequential(*modules, torch.nn.Linear(8, CLASSES), nn.LI(5.0)).double()


@pytest.mark.parametrize("size", [1, None])
def test_every_kind_of_neuron(size: int | None) -> None:
    """Synaptic currents, adapting thresholds, lateral connections and a readout, against detaches written out."""
    x, labels = data()
    net = synaptic_net()
    local = LocalTraining(net, x, truncation=9, block=size, optimizer=sgd(0.0), update="accumulate")
    assert len(local.blocks) == (1 if size is None else 3)  # filter and readout belong to their neighbours
    local.step(x, labels)
    got = gradients(local)
    for one in (*net.parameters(), *local.heads.parameters()):
        one.grad = None
    states: dict[int, Any] = {}
    for segment in x.split(9, 1):
        signal = segment
        for j, block in enumerate(local.blocks):
            signal = signal.detach()
            for layer in block.layers:
                if isinstance(layer, nn.TimeLayer):
                    signal, state = layer(signal, initial_state=states.get(id(layer)), return_state=True)
                    detached = [None if part is None else part.detach() for part in state]
                    states[id(layer)] = type(state)(*detached) if isinstance(state, tuple) else state.detach()
                else:
                    signal = layer(signal)
            loss = F.cross_entropy(local.heads[j](signal.mean(1)), labels) * segment.shape[1] / T
            loss.backward()  # type: ignore[no-untyped-call]
    assert equal(got, gradients(local))
    assert sum(float(g.abs().max()) > 0 for g in got) == len(got)


@pytest.mark.parametrize("order", ["BT", "TB", "folded by batch", "folded by both"])
def test_every_order_of_batch_and_time(order: str) -> None:
    x, labels = data()
    results = []
    for layout in ("BT", order):
        torch.manual_seed(2)
        options: dict[str, Any] = {
            "BT": {},
            "TB": {"layout": "TB"},
            "folded by batch": {"batch_size": B},
            "folded by both": {"batch_size": B, "num_timesteps": T},
        }[layout]
        net = linear_net(**options)
        ordered = {"BT": x, "TB": x.transpose(0, 1)}.get(layout, x.flatten(0, 1))
        local = LocalTraining(net, ordered, truncation=7, block=2, optimizer=adam)
        local.step(ordered, labels)
        results.append(weights(local))
        net(ordered)  # the layers take whole recordings again
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0)  # matrix products of other shapes may add up in another order


def test_stateful_layers_go_on_where_the_last_step_ended() -> None:
    x, labels = data()
    net = linear_net(stateful=True)
    local = LocalTraining(net, x[:2], truncation=6, block=2, optimizer=sgd(0.0))
    got = [local.step(part, labels).output for part in x.split(12, 1)]
    with torch.no_grad():
        nn.reset_states(net)
        expected = [net(part).mean(1) for part in x.split(12, 1)]
    for g, e in zip(got, expected, strict=True):
        assert torch.allclose(g, e, rtol=1e-14, atol=0)


def test_a_resumed_training_ends_with_the_same_bits() -> None:
    x, labels = maps(20)

    def build(seed: int) -> LocalTraining:
        torch.manual_seed(seed)
        return LocalTraining(conv_net(20), x, truncation=6, block=1, optimizer=adam)

    through, first, second = build(1), build(1), build(2)
    for _ in range(4):
        through.step(x, labels)
    for _ in range(2):
        first.step(x, labels)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.step(x, labels)
    assert equal(weights(second), weights(through))
    with pytest.raises(TrainError, match="3 optimizers for 2 blocks") as caught:
        LocalTraining(conv_net(20), x, block=2, optimizer=adam).load_state_dict(first.state_dict())
    assert caught.value.code == "local-state-dict"


def test_auxiliary_heads_are_not_part_of_the_network() -> None:
    x, labels = maps(20)
    torch.manual_seed(1)
    net = conv_net(20)
    names = list(net.state_dict())
    graph = nd.trace(net, x)
    local = LocalTraining(net, x, truncation=5, block=1, optimizer=sgd(0.0))
    local.step(x, labels)
    assert list(local.heads[0].parameters())
    assert list(net.state_dict()) == names
    assert not list(local.heads[2].parameters())
    assert list(nd.trace(net, x).nodes) == list(graph.nodes)


def test_local_training_learns() -> None:
    """Patterns in time that differ in their spatial mean, to a loss far below chance."""
    torch.manual_seed(0)
    rates = torch.rand(CLASSES, 1, WIDTHS[0], dtype=torch.float64)
    labels = torch.arange(40) % CLASSES
    x = (torch.rand(40, 30, WIDTHS[0], dtype=torch.float64) < rates[labels]).double()
    net = linear_net()
    local = LocalTraining(net, x, truncation=10, block=1, head=lambda mean: 10 * mean, optimizer=adam)
    losses = [local.step(x, labels).losses for _ in range(40)]
    assert bool((losses[-1] < 0.5 * losses[0]).all())
    assert float((net(x).mean(1).argmax(1) == labels).double().mean()) > 0.9


def test_shapes_are_read_without_a_trace() -> None:
    """The constructor runs the sample on a copy: statistics, carried states and modes stay."""
    x = torch.rand(4, 6, 3)
    normed = nn.OverTime(torch.nn.BatchNorm1d(3))
    net = torch.nn.Sequential(normed, torch.nn.Linear(3, 4), nn.IAF(stateful=True), torch.nn.Linear(4, 2), nn.IAF())
    net(x[:2])
    carried, mean = net[2].v_mem, normed.module.running_mean.clone()
    generator = torch.get_rng_state()
    LocalTraining(net, x, block=2, optimizer=adam)
    assert torch.equal(torch.get_rng_state(), generator)
    assert net[2].v_mem is carried
    assert torch.equal(normed.module.running_mean, mean)
    assert net.training


def net_and(x: torch.Tensor | None = None, **options: Any) -> Callable[[], object]:
    sample = torch.rand(2, 6, 3)
    layers = [torch.nn.Linear(3, 4), nn.IAF(), torch.nn.Dropout(0.1), torch.nn.Linear(4, 2), nn.IAF()]
    net = options.pop("net", torch.nn.Sequential(*layers))
    options = {"optimizer": adam, **options}

    def build() -> object:
        local = LocalTraining(net, sample, **options)
        return local.step(sample if x is None else x, torch.zeros(2, dtype=torch.int64))

    return build


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neurons = nn.IAF()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.neurons(x)  # type: ignore[no-any-return]


tied = torch.nn.Linear(3, 3)
twice = nn.IAF()


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (net_and(truncation=0), "local-truncation"),
        (net_and(truncation=True), "local-truncation"),
        (net_and(block=-1), "local-block"),
        (net_and(block=1.0), "local-block"),
        (net_and(update="late"), "local-update"),
        (net_and(update="deferred", pipelined=True), "local-update"),
        (net_and(block=1, pipelined=True), "local-pipeline-random"),
        (net_and(net=torch.nn.Linear(3, 2)), "local-network"),
        (net_and(net=torch.nn.Sequential(torch.nn.Linear(3, 2))), "local-network"),
        (net_and(net=torch.nn.Sequential(torch.nn.Linear(3, 2), Residual(), nn.IAF())), "local-network"),
        (net_and(net=torch.nn.Sequential(torch.nn.Linear(3, 3), twice, torch.nn.Linear(3, 3), twice)), "local-network"),
        (net_and(net=torch.nn.Sequential(tied, nn.IAF(), tied, nn.IAF()), block=1), "local-shared"),
        (net_and(net=torch.nn.Sequential(torch.nn.Linear(3, 2), nn.IAF(), nn.IAF(layout="TB"))), "local-time"),
        (net_and(net=torch.nn.Sequential(torch.nn.Linear(3, 2), nn.IAF(num_timesteps=5))), "local-time"),
        (net_and(net=torch.nn.Sequential(nn.IAF())), "network-parameters"),
        (net_and(head=lambda mean: mean[:, None]), "local-outputs"),
        (net_and(x=torch.rand(6)), "local-time"),
        (net_and(x=torch.rand(2, 0, 3)), "local-time"),
    ],
)
def test_what_cannot_be_cut_is_refused(build: Callable[[], object], code: str) -> None:
    with pytest.raises(TrainError) as caught:
        build()
    assert caught.value.code == code


def test_a_state_of_unknown_kind_is_refused() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor, initial_state: object = None, return_state: bool = False) -> Any:
            return x, {1, 2}

    with pytest.raises(TrainError) as caught:
        LocalTraining(torch.nn.Sequential(torch.nn.Linear(3, 2), Odd()), torch.rand(2, 6, 3), optimizer=adam)
    assert caught.value.code == "local-state"


def test_sinabs_layers_are_named_as_such() -> None:
    sinabs = pytest.importorskip("sinabs.layers")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), sinabs.IAF(), nn.IAF())
    with pytest.raises(TrainError, match="accelerate") as caught:
        LocalTraining(net, torch.rand(2, 6, 3), optimizer=adam)
    assert caught.value.code == "local-network"
