"""One trained network, written in sinabs, snnTorch, SpikingJelly and Norse: one graph and one chip program."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import ConstraintError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Neuron
from neurodeploy.program_file import write_program

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

SHAPE, CLASSES = (2, 10, 10), 4
Neurons = Callable[[], "nn.Module"]


def weights() -> "list[torch.Tensor]":
    """What training would have found; multiples of 1/64, so that all potentials of an IAF neuron are exact."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 2, 3, 3), (6, 4, 3, 3), (CLASSES, 24)]
    return [torch.randint(-16, 33, shape, generator=generator) / 64 for shape in shapes]


def layers(make: Neurons) -> "list[nn.Module]":
    convolutions = [nn.Conv2d(2, 4, 3, bias=False), nn.Conv2d(4, 6, 3, bias=False), nn.Linear(24, CLASSES, bias=False)]
    for layer, weight in zip(convolutions, weights(), strict=True):
        layer.weight.data.copy_(weight)
    conv1, conv2, linear = convolutions
    return [conv1, make(), nn.AvgPool2d(2), conv2, make(), nn.Flatten(), linear, make()]


def sinabs_network(reset: str) -> "tuple[nn.Module, torch.Tensor]":
    sl = pytest.importorskip("sinabs.layers")
    sa = pytest.importorskip("sinabs.activation")
    how = sa.MembraneReset() if reset == "zero" else sa.MembraneSubtract()
    net = nn.Sequential(*layers(lambda: sl.IAFSqueeze(batch_size=1, spike_fn=sa.SingleSpike, reset_fn=how)))
    return net, torch.zeros(5, *SHAPE)


def snntorch_network(reset: str) -> "tuple[nn.Module, torch.Tensor]":
    snn = pytest.importorskip("snntorch")

    class Loop(nn.Module):
        """As in snnTorch's tutorials: the user steps through time and carries the potentials."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(layers(lambda: snn.Leaky(beta=1.0, reset_mechanism=reset)))

        def forward(self, x: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
            states: dict[int, Any] = {
                index: part.reset_mem() for index, part in enumerate(self.parts) if isinstance(part, snn.Leaky)
            }
            spikes, potentials = [], []
            for step in range(x.shape[0]):
                value = x[step]
                for index, part in enumerate(self.parts):
                    if index in states:
                        value, states[index] = part(value, states[index])
                    else:
                        value = part(value)
                spikes.append(value)
                potentials.append(states[index])
            return torch.stack(spikes), torch.stack(potentials)

    return Loop(), torch.zeros(1, 1, *SHAPE)


def spikingjelly_network(reset: str) -> "tuple[nn.Module, torch.Tensor]":
    pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import layer, neuron

    conv1, iaf1, pool, conv2, iaf2, flatten, linear, iaf3 = layers(
        lambda: neuron.IFNode(v_reset=0.0 if reset == "zero" else None, step_mode="m")
    )
    net = nn.Sequential(
        layer.SeqToANNContainer(conv1),
        iaf1,
        layer.SeqToANNContainer(pool, conv2),
        iaf2,
        layer.SeqToANNContainer(flatten, linear),
        iaf3,
    )
    return net, torch.zeros(5, 1, *SHAPE)


def norse_network(reset: str) -> "tuple[nn.Module, torch.Tensor]":
    norse = pytest.importorskip("norse.torch")
    from norse.torch.functional.iaf import IAFParameters

    if reset != "zero":
        pytest.skip("Norse's IAF has no soft reset")
    parts = layers(lambda: norse.IAFCell(IAFParameters(v_reset=torch.tensor(0.0))))
    return norse.SequentialState(*parts), torch.zeros(1, *SHAPE)


LIBRARIES = {
    "snntorch": snntorch_network,
    "spikingjelly": spikingjelly_network,
    "norse": norse_network,
}


def up_to_names(graph: Graph) -> tuple[list[object], list[tuple[int, int]]]:
    place = {name: index for index, name in enumerate(graph.nodes)}
    return list(graph.nodes.values()), [(place[a], place[b]) for a, b in graph.edges]


def with_plain_names(graph: Graph) -> Graph:
    plain = {name: f"{node.kind.lower()}{index}" for index, (name, node) in enumerate(graph.nodes.items())}
    nodes = {plain[name]: node for name, node in graph.nodes.items()}
    return Graph(nodes, tuple((plain[a], plain[b]) for a, b in graph.edges))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_one_graph_and_one_program(library: str, reset: str, tmp_path: Any) -> None:
    net, sample = LIBRARIES[library](reset)
    ours = nd.trace(*sinabs_network(reset))
    theirs = nd.trace(net, sample)
    if library != "spikingjelly":
        # The one difference: they fire above the threshold, and a chip at it. Nothing hides that.
        fields = [node.compare for node in theirs.nodes.values() if isinstance(node, Neuron)]
        assert fields == [">"] * 3
        with pytest.raises(ConstraintError, match='compare ">"'):
            nd.compile(theirs)
        theirs = nd.trace(net, sample, compare=">=")
        assert "fires at v >= threshold" in theirs.notes[0]
    assert up_to_names(theirs) == up_to_names(ours)
    for graph, file in ((ours, "ours.json"), (theirs, "theirs.json")):
        write_program(tmp_path / file, nd.compile(with_plain_names(graph), target="speck2f").program)
    assert (tmp_path / "ours.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_computes_what_its_graph_says(library: str, reset: str) -> None:
    net, sample = LIBRARIES[library](reset)
    steps = 12
    x = (torch.rand(steps, *SHAPE, generator=torch.Generator().manual_seed(5)) < 0.4).float()
    graph = nd.trace(net, sample)
    with torch.no_grad():
        if library == "norse":
            outputs, state = [], None
            for step in x:
                out, state = net(step[None], state)
                outputs.append(out)
            expected = torch.stack(outputs)[:, 0]
        else:
            result = net(x[:, None])
            expected = (result[0] if isinstance(result, tuple) else result)[:, 0]
    assert expected.any()
    assert np.array_equal(nd.simulate(graph, x.numpy()), expected.numpy())


def test_two_networks_that_differ_in_one_weight_do_not_pass_as_equal() -> None:
    graph = nd.trace(*sinabs_network("zero"))
    first = next(name for name, node in graph.nodes.items() if node.kind == "Conv2d")
    weight = graph.nodes[first].weight.copy()  # type: ignore[attr-defined]
    weight[0, 0, 0, 0] += np.float32(1e-6)
    other = graph.with_nodes({first: replace(graph.nodes[first], weight=weight)})  # type: ignore[call-arg]
    assert up_to_names(other) != up_to_names(graph)
