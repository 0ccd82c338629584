"""Networks of snnTorch, SpikingJelly and Norse: what is read computes what the library computes, or a field is refused.

Weights, inputs and decays are short binary fractions and there are few steps, so that every potential is exact in
float32 whatever the order of the operations: potentials often equal the threshold, and all spikes must be equal.
"""

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import LI, Neuron

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

B, T, N = 3, 7, 24


def dyadic(*shape: int, seed: int = 0, scale: float = 0.25) -> "torch.Tensor":
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 9, shape, generator=generator).float() * scale


class Stepwise(nn.Module):
    """Linear, a layer of neurons, and the loop over time that users of these libraries write; input (T, B, N)."""

    def __init__(self, neurons: nn.Module, carry: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(N, N, bias=False)
        self.fc.weight.data = torch.eye(N)
        self.neurons = neurons
        self.carry = carry

    def forward(self, x: "torch.Tensor") -> "tuple[torch.Tensor, list[object]]":
        state: tuple[object, ...] = ()
        spikes, states = [], []
        for step in range(x.shape[0]):
            out = self.neurons(self.fc(x[step]), *state)
            out, *state_list = out if isinstance(out, tuple) else (out,)
            state = tuple(state_list) if self.carry else ()
            spikes.append(out)
            states.append(state)
        return torch.stack(spikes), states


def read_and_run(neurons: nn.Module, carry: bool = True) -> "tuple[nd.graph.graph.Graph, np.ndarray, np.ndarray]":
    """The graph, its spikes and the library's, for one recording ``(T, B, N)``."""
    net = Stepwise(neurons, carry).eval()
    graph = nd.trace(net, torch.zeros(1, B, N))
    x = dyadic(T, B, N, seed=1)
    with torch.no_grad():
        expected, _ = net(x)
    found = nd.simulate(graph, x.transpose(0, 1).numpy())
    return graph, found, expected.transpose(0, 1).numpy()


def same(neurons: nn.Module, carry: bool = True) -> "nd.graph.graph.Graph":
    graph, found, expected = read_and_run(neurons, carry)
    assert expected.any()
    assert np.array_equal(found, expected)
    return graph


def refused(neurons: nn.Module, *words: str) -> None:
    with pytest.raises(GraphError) as info:
        nd.trace(Stepwise(neurons), torch.zeros(1, B, N))
    assert info.value.message.startswith("neurons: ")
    assert all(word in info.value.message for word in words), info.value.message
    assert info.value.remedy


class TestSnnTorch:
    @pytest.mark.parametrize(
        "options",
        [
            {"beta": 1.0},
            {"beta": 0.5, "reset_mechanism": "zero"},
            {"beta": 0.75, "reset_mechanism": "zero", "reset_delay": False},
            {"beta": 0.5, "reset_mechanism": "none"},
            {"beta": 1.5, "threshold": 1.5},  # clamped to 1
        ],
        ids=str,
    )
    def test_leaky(self, options: dict[str, object]) -> None:
        snn = pytest.importorskip("snntorch")
        graph = same(snn.Leaky(**options))
        neuron = graph.nodes["neurons"]
        assert isinstance(neuron, Neuron)
        assert (neuron.compare, neuron.spikes) == (">", "single")
        assert graph.notes == ()

    def test_state_inside_the_layer(self) -> None:
        snn = pytest.importorskip("snntorch")
        same(snn.Leaky(beta=0.5, reset_mechanism="zero", init_hidden=True))

    def test_parameters_per_neuron(self) -> None:
        snn = pytest.importorskip("snntorch")
        threshold = 0.75 + torch.arange(N) / 8
        same(snn.Leaky(beta=torch.tensor([0.5, 0.25] * (N // 2)), threshold=threshold, reset_mechanism="zero"))

    @pytest.mark.parametrize("reset", ["none", "zero"])
    def test_synaptic(self, reset: str) -> None:
        snn = pytest.importorskip("snntorch")
        layer = snn.Synaptic(alpha=0.5, beta=0.5, reset_mechanism=reset, reset_delay=reset == "none")
        graph = same(layer)
        assert isinstance(graph.nodes["neurons.synapse"], LI)

    def test_immediate_subtraction_is_the_same_below_twice_the_threshold(self) -> None:
        snn = pytest.importorskip("snntorch")
        net = Stepwise(snn.Leaky(beta=0.5, threshold=2.0, reset_delay=False))
        graph = nd.trace(net, torch.zeros(1, B, N))
        assert "twice the threshold" in graph.notes[0]
        x = dyadic(T, B, N, seed=1).clamp(max=1.75)  # v < 2 + 1.75 in every step
        with torch.no_grad():
            expected = net(x)[0].transpose(0, 1).numpy()
        assert expected.any()
        assert np.array_equal(nd.simulate(graph, x.transpose(0, 1).numpy()), expected)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"beta": 0.5}, ("reset_delay=True", "beta 0.5")),
            ({"beta": 1.0, "inhibition": True}, ("inhibition",)),
            ({"beta": 1.0, "graded_spikes_factor": 2.0}, ("graded_spikes_factor",)),
            ({"beta": 1.0, "state_quant": lambda state: state.round()}, ("state_quant",)),
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
    def test_options_without_equivalent_are_refused(self, options: dict[str, object], words: tuple[str, ...]) -> None:
        snn = pytest.importorskip("snntorch")
        refused(snn.Leaky(**options), *words)

    def test_other_neurons_are_refused(self) -> None:
        snn = pytest.importorskip("snntorch")
        refused(snn.Alpha(alpha=0.9, beta=0.8), "Alpha")
        refused(snn.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="zero"), "reset_mechanism 'zero'")
        refused(type("Own", (snn.Leaky,), {})(beta=1.0), "Own")

    def test_a_state_that_is_not_zero_is_refused(self) -> None:
        snn = pytest.importorskip("snntorch")

        class Primed(Stepwise):
            def forward(self, x: "torch.Tensor") -> "torch.Tensor":
                spikes, _ = self.neurons(self.fc(x[0]), torch.full((B, N), 0.5))
                return spikes

        with pytest.raises(GraphError, match="initial") as info:
            nd.trace(Primed(snn.Leaky(beta=1.0)), torch.zeros(1, B, N))
        assert info.value.code == "initial-state"

    def test_several_steps_and_the_potential_as_output_are_refused(self) -> None:
        snn = pytest.importorskip("snntorch")
        net = Stepwise(snn.Leaky(beta=1.0))
        with pytest.raises(GraphError, match="one time step") as info:
            nd.trace(net, torch.zeros(2, B, N))
        assert info.value.code == "operation"
        with pytest.raises(GraphError, match="0 of its layers"):
            nd.trace(Last(net.neurons), torch.zeros(B, N))


class Last(nn.Module):
    def __init__(self, neurons: nn.Module) -> None:
        super().__init__()
        self.neurons = neurons

    def forward(self, x: "torch.Tensor") -> "torch.Tensor":
        return self.neurons(x)[1]


class TestSpikingJelly:
    @pytest.mark.parametrize("mode", ["s", "m"])
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("IFNode", {"v_reset": None}),
            ("IFNode", {"v_reset": 0.0, "v_threshold": 1.5}),
            ("IFNode", {"v_reset": -0.25}),
            ("LIFNode", {"tau": 2.0, "v_reset": None}),
            ("LIFNode", {"tau": 2.0}),
            ("LIFNode", {"tau": 4.0, "decay_input": False, "v_reset": None}),
            ("LIFNode", {"tau": 2.0, "v_reset": 0.5}),
            ("LIFNode", {"tau": 4.0, "v_reset": -0.5, "decay_input": False}),
            ("ParametricLIFNode", {"init_tau": 2.0, "v_reset": None}),
        ],
        ids=str,
    )
    def test_nodes(self, kind: str, options: dict[str, object], mode: str) -> None:
        jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
        layer = getattr(jelly, kind)(**options, step_mode=mode)
        if mode == "s":
            graph = same(layer)
        else:
            net = nn.Sequential(layer).eval()
            graph = nd.trace(net, torch.zeros(4, B, N))  # several steps at once
            x = dyadic(T, B, N, seed=1)
            with torch.no_grad():
                expected = net(x).transpose(0, 1).numpy()
            assert expected.any()
            assert np.array_equal(nd.simulate(graph, x.transpose(0, 1).numpy()), expected)
        neuron = list(graph.nodes.values())[-2]
        assert isinstance(neuron, Neuron)
        assert (neuron.compare, neuron.spikes) == (">=", "single")

    def test_layers_with_a_time_axis(self) -> None:
        jelly = pytest.importorskip("spikingjelly.activation_based")
        from spikingjelly.activation_based import functional, layer, neuron

        assert jelly
        net = nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)),
            neuron.IFNode(v_reset=None),
            layer.AvgPool2d(2),
            layer.Dropout(0.5),
            layer.Flatten(),
            layer.Linear(27, 4),
            neuron.IFNode(v_reset=None),
        )
        functional.set_step_mode(net, "m")
        graph = nd.trace(net, torch.zeros(5, 2, 2, 8, 8))
        kinds = ["Input", "Conv2d", "BatchNorm2d", "Neuron", "AvgPool2d", "Flatten", "Linear", "Neuron", "Output"]
        assert [node.kind for node in graph.nodes.values()] == kinds

    def test_what_has_no_equivalent_is_refused(self) -> None:
        jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
        from spikingjelly.activation_based import layer, surrogate

        refused(jelly.QIFNode(), "QIFNode")
        soft = surrogate.Sigmoid(spiking=False)
        refused(jelly.IFNode(surrogate_function=soft), "spiking=False")
        with pytest.raises(GraphError, match="AvgPool2d and fine-tune"):
            nd.trace(nn.Sequential(layer.MaxPool2d(2)), torch.zeros(1, 2, 8, 8))


class TestNorse:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("IAFCell", {}),
            ("IAFCell", {"v_reset": -0.25, "v_th": 1.5}),
            ("LIFBoxCell", {"tau_mem_inv": 0.5}),
            ("LIFBoxCell", {"tau_mem_inv": 0.5, "v_leak": -0.5, "v_reset": -0.25}),
            ("LIFBoxCell", {"tau_mem_inv": 0.5, "reset_method": "reset_subtract"}),
            ("LIFCell", {"tau_mem_inv": 0.5, "tau_syn_inv": 0.5}),
            ("LIFCell", {"tau_mem_inv": 0.5, "tau_syn_inv": 0.5, "v_leak": 0.25, "v_reset": 0.5}),
            ("LICell", {"tau_mem_inv": 0.5, "tau_syn_inv": 0.5}),
            ("LIBoxCell", {"tau_mem_inv": 0.5, "v_leak": 0.5}),
        ],
        ids=str,
    )
    def test_cells(self, kind: str, options: dict[str, object]) -> None:
        norse = pytest.importorskip("norse.torch")
        from norse.torch.functional import iaf, reset

        values = {
            name: getattr(reset, value) if isinstance(value, str) else torch.tensor(value)
            for name, value in options.items()
        }
        kinds = {
            "IAFCell": iaf.IAFParameters,
            "LIFBoxCell": norse.LIFBoxParameters,
            "LIFCell": norse.LIFParameters,
            "LICell": norse.LIParameters,
            "LIBoxCell": norse.LIBoxParameters,
        }
        graph = same(getattr(norse, kind)(p=kinds[kind](**values), dt=1.0))
        last = graph.nodes["neurons"]
        assert isinstance(last, LI) if kind.startswith("LI") and "F" not in kind else last.compare == ">"  # type: ignore[attr-defined]
        assert ("neurons.synapse" in graph.nodes) == (kind in ("LIFCell", "LICell"))

    def test_sequential_state_and_layers_over_time(self) -> None:
        norse = pytest.importorskip("norse.torch")
        net = norse.SequentialState(
            norse.Lift(nn.Conv2d(2, 3, 3)), norse.LIF(), nn.Flatten(2), norse.Lift(nn.Linear(108, 4)), norse.LI()
        )
        graph = nd.trace(net, torch.zeros(1, 2, 2, 8, 8))
        kinds = ["Input", "Conv2d", "LI", "Neuron", "Flatten", "Linear", "LI", "LI", "Output"]
        assert [node.kind for node in graph.nodes.values()] == kinds

    def test_other_neurons_are_refused(self) -> None:
        norse = pytest.importorskip("norse.torch")
        refused(norse.LIFAdExCell(), "LIFAdExCell")
        refused(norse.LIFRecurrentCell(N, N), "LIFRecurrentCell")
        refused(norse.RecurrentSequential(nn.Linear(N, N), norse.LIFBoxCell()), "RecurrentSequential")


def test_neurons_may_be_asked_to_fire_at_the_threshold() -> None:
    snn = pytest.importorskip("snntorch")
    net = Stepwise(snn.Leaky(beta=1.0))
    graph = nd.trace(net, torch.zeros(1, B, N), compare=">=")
    assert graph.nodes["neurons"].compare == ">="  # type: ignore[attr-defined]
    assert graph.notes == ("fires at v >= threshold, as asked for; its library's >: neurons.",)
    with pytest.raises(GraphError, match="compare is '<'"):
        nd.trace(net, torch.zeros(1, B, N), compare="<")
