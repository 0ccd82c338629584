"""Neurons in continuous time: traced from layers of spike times, in NIR and on disk, refused where time has steps."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import nir
import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from hypothesis import given, settings
from hypothesis import strategies as st

import neurodeploy as nd
from neurodeploy.errors import GraphError, QuantizeError
from neurodeploy.graph.file import graph_hash
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, CubaLIF, Flatten, Input, Linear, Output
from neurodeploy.graph.pruning import fan_in_mask
from neurodeploy.quantize import quantize
from neurodeploy.target import load_target

SILENT = torch.full((1, 5, 1), inf)


def number(value):
    return np.array(value, np.float64)


def cuba(**changes):
    constants = {
        "tau_mem": number(0.01),
        "tau_syn_exc": number(0.005),
        "tau_syn_inh": number(0.005),
        "threshold": number(1),
        "input_gain": number(200),
        "max_spikes": 1,
        "t_max": 0.03,
        "v_reset": number(0),
        "t_ref": number(inf),
    }
    return CubaLIF(**{**constants, **changes})


def graph(*neurons, weight=None, size=4):
    """A chain of layers, ``size`` inputs and neurons each."""
    nodes = {"input": Input((size,))}
    for index, neuron in enumerate(neurons):
        values = np.random.default_rng(index).normal(size=(size, size)).astype(np.float32)
        nodes |= {f"layer{index}": Linear(values if weight is None else weight), f"layer{index}.neuron": neuron}
    nodes["output"] = Output()
    return Graph(nodes, tuple(pairwise(nodes)))


def test_layers_become_weights_and_neurons_in_seconds():
    neuron = nd.nn.SpikeTimeNeuron(2.0, 1.0, 1.5, reset="value", v_reset=-0.5, t_ref=inf)
    net = torch.nn.Sequential(
        nd.nn.SpikeTimeLinear(5, 6, neuron, max_spikes=1, t_max=6.0),
        nd.nn.SpikeTimeLinear(6, 3, neuron, max_spikes=1, t_max=6.0),
    )
    found = nd.trace(net, SILENT, time_unit_s=5e-3)
    assert list(found.nodes) == ["input", "0", "0.neuron", "1", "1.neuron", "output"]
    assert np.array_equal(found.nodes["1"].weight, net[1].weight.detach().numpy())
    assert found.nodes["0.neuron"] == cuba(threshold=number(1.5), v_reset=number(-0.5))


def test_soft_reset_without_end_and_constants_per_neuron():
    neuron = nd.nn.SpikeTimeNeuron(torch.tensor([1.0, 2.0, 3.0]), 1.0, drop=0.5)
    layer = nd.nn.SpikeTimeLinear(5, 3, neuron, max_spikes=7).double()
    found = nd.trace(layer, SILENT.double(), time_unit_s=1e-2)
    node = found.nodes["SpikeTimeLinear.neuron"]
    assert (node.reset, node.v_reset, node.t_ref, node.max_spikes, node.t_max) == ("subtract", None, None, 7, None)
    assert np.array_equal(node.tau_mem, [0.01, 0.02, 0.03])
    assert node.drop == 0.5
    assert found.nodes["SpikeTimeLinear"].weight.dtype == np.float64


class Convolutional(torch.nn.Module):
    def __init__(self, flatten):
        super().__init__()
        first = nd.nn.SpikeTimeNeuron(torch.tensor([1.0, 2.0, 3.0]), 1.0)
        self.conv = nd.nn.SpikeTimeConv2d(2, 3, 3, first, stride=2, padding=1)
        self.linear = nd.nn.SpikeTimeLinear(48, 4, nd.nn.SpikeTimeNeuron(2.0, 1.0))
        self.flatten = flatten

    def forward(self, times):
        return self.linear(self.flatten(self.conv(times)))


@pytest.mark.parametrize("flatten", [torch.nn.Flatten(1, 3), lambda times: times.flatten(1, 3)])
def test_convolutions_and_flattening(flatten):
    found = nd.trace(Convolutional(flatten), torch.full((2, 2, 8, 8, 1), inf), time_unit_s=1.0)
    kinds = {type(node) for node in found.nodes.values()}
    assert kinds == {Input, Conv2d, CubaLIF, Flatten, Linear, Output}
    assert found.nodes["conv"].stride == (2, 2)
    assert found.nodes["conv"].padding == (1, 1)
    assert np.array_equal(found.nodes["conv.neuron"].tau_mem[:, 1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("module", "sample", "unit", "message"),
    [
        (nd.nn.SpikeTimeLinear(5, 2, nd.nn.SpikeTimeNeuron(2.0, 1.0)), SILENT, None, "give time_unit_s"),
        (nd.nn.SpikeTimeLinear(5, 2, nd.nn.SpikeTimeNeuron(2.0, 1.0)), SILENT, 0.0, "seconds above 0"),
        (torch.nn.Linear(5, 2), torch.zeros(1, 5), 1.0, "0 layers of spike times"),
        (
            torch.nn.Sequential(nd.nn.SpikeTimeLinear(5, 2, nd.nn.SpikeTimeNeuron(2.0, 1.0)), torch.nn.ReLU()),
            SILENT,
            1.0,
            r"1: a ReLU is not supported.*only flattening",
        ),
    ],
)
def test_what_has_no_unit_or_meaning_is_refused(module, sample, unit, message):
    with pytest.raises(GraphError, match=message):
        nd.trace(module, sample, time_unit_s=unit)


def test_pruned_layers_are_read_once_pruning_is_permanent():
    layer = nd.nn.SpikeTimeLinear(5, 4, nd.nn.SpikeTimeNeuron(2.0, 1.0))
    mask = torch.from_numpy(fan_in_mask(layer.weight.detach().numpy(), 2))
    torch.nn.utils.prune.custom_from_mask(layer, "weight", mask)
    net = torch.nn.Sequential(layer)
    with pytest.raises(
        GraphError, match=r"pruning of 0 permanent first: torch\.nn\.utils\.prune\.remove\(layer, 'weight'\)"
    ):
        nd.trace(net, SILENT, time_unit_s=1.0)
    torch.nn.utils.prune.remove(layer, "weight")
    found = nd.trace(net, SILENT, time_unit_s=1.0).nodes["0"].weight
    assert np.array_equal(found != 0, mask.numpy())


def test_arithmetic_on_spike_times_is_refused():
    class Later(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nd.nn.SpikeTimeLinear(5, 5, nd.nn.SpikeTimeNeuron(2.0, 1.0), max_spikes=1)

        def forward(self, times):
            return self.layer(times) + times

    with pytest.raises(GraphError, match=r"add is applied.*only flatten"):
        nd.trace(Later(), SILENT, time_unit_s=1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v_reset": None, "t_ref": None}, "reset 'value' with v_reset and t_ref"),
        ({"reset": "subtract"}, "reset 'subtract' with v_reset"),
        ({"reset": "subtract", "v_reset": None, "drop": number(1)}, "reset 'subtract' with drop"),
        ({"reset": "none"}, "reset of this CubaLIF is 'none'"),
        ({"tau_mem": number([0.01, 0.01, -1, 0.01])}, "tau_mem of this CubaLIF is -1"),
        ({"tau_syn_inh": number(0)}, "tau_syn_inh of this CubaLIF is 0"),
        ({"tau_mem": number(inf)}, "above 0 and finite"),
        ({"v_reset": number([0, 0, 1, 0])}, "v_reset of this CubaLIF is 1"),
        ({"t_ref": number(-1)}, "t_ref of this CubaLIF is -1"),
        ({"max_spikes": 0}, "max_spikes 0"),
        ({"t_max": 0.0}, "t_max 0"),
        ({"threshold": number([1, 1])}, r"threshold has shape \(2,\)"),
    ],
)
def test_a_wrong_constant_is_named(changes, message):
    with pytest.raises(GraphError, match=message):
        graph(cuba(**changes))


GRAPHS = [
    graph(cuba()),
    graph(cuba(t_max=None, t_ref=None), cuba(tau_mem=number([0.01, 0.02, 0.03, 0.04]), max_spikes=5)),
    graph(cuba(tau_syn_inh=number(0.003), v_reset=number(-0.25))),
    graph(cuba(reset="subtract", v_reset=None, t_ref=None, drop=number(0.5))),
    graph(cuba(t_ref=number([inf, 0.001, 0, 2])), weight=np.eye(4)),
]


@pytest.mark.parametrize("unit", ["s", "ms"])
@pytest.mark.parametrize("network", GRAPHS)
def test_a_file_gives_the_same_graph(network, unit, tmp_path):
    nd.save(network, tmp_path / "net.nir", tau_unit=unit)
    assert nd.load(tmp_path / "net.nir") == network
    nd.save(network, tmp_path / "net.onnx")
    again = nd.load(tmp_path / "net.onnx")
    assert again == network
    assert graph_hash(again) == graph_hash(network)


POSITIVE = st.floats(1e-9, 1e9)


@settings(max_examples=25, deadline=None)
@given(st.lists(POSITIVE, min_size=5, max_size=5), st.sampled_from(["s", "ms"]))
def test_every_constant_survives_nir(tmp_path_factory, values, unit):
    names = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold", "input_gain")
    constants = {name: number(value) for name, value in zip(names, values, strict=True)}
    network = graph(cuba(**constants, v_reset=number(-values[0])))
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    nd.save(network, path, tau_unit=unit)
    assert nd.load(path) == network


def test_nir_says_the_equations(tmp_path):
    """Current after one spike and potential from it are what the graph's equations give, in NIR's words."""
    node = cuba(input_gain=number(123.0))
    for unit, seconds in (("s", 1.0), ("ms", 1e-3)):
        nd.save(graph(node), tmp_path / "net.nir", tau_unit=unit)
        stored = nir.read(tmp_path / "net.nir", type_check=False).nodes["layer0.neuron"]
        jump = stored.w_in / (stored.tau_syn * seconds) * seconds  # of I, by tau_syn dI/dt = -I + w_in S
        drive = stored.r / (stored.tau_mem * seconds) * jump  # of dv/dt in volts per second
        assert np.allclose(drive, 123.0, rtol=1e-14)
        assert np.allclose(stored.tau_mem * seconds, 0.01, rtol=1e-15)
        assert not stored.v_leak.any()


def test_the_writer_says_what_nir_does_not(tmp_path):
    report = nd.save(GRAPHS[2], tmp_path / "net.nir", tau_unit="ms")
    remarks = {str(remark) for entry in report for remark in entry.remarks}
    assert "time constants in ms: NIR names no unit" in remarks
    assert "tau_syn_inh is in the metadata only" in remarks
    assert "t_ref is in the metadata only" in remarks
    with pytest.raises(GraphError, match="the choices are: s, ms"):
        nd.save(GRAPHS[0], tmp_path / "net.nir", tau_unit="us")


def foreign(path, **changes):
    """A file of another tool: no metadata."""
    full = np.full(3, 1.0)
    fields = {"tau_syn": 5 * full, "tau_mem": 10 * full, "r": full, "v_leak": 0.5 * full, "v_threshold": 1.5 * full}
    neuron = nir.CubaLIF(**{**fields, "v_reset": 0.25 * full, "w_in": full, **changes})
    nodes = {"input": nir.Input(np.array([2])), "w": nir.Linear(np.ones((3, 2))), "n": neuron}
    nodes["output"] = nir.Output(np.array([3]))
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(nodes))))
    return path


def test_files_of_other_tools_are_read_in_continuous_time_on_request(tmp_path):
    path = foreign(tmp_path / "net.nir")
    with pytest.raises(GraphError, match="defined in continuous time"):
        nd.load(path)
    found = nd.load(path, continuous_time=True, tau_unit="ms", max_spikes=3, t_max=0.1)
    node = found.nodes["n"]
    assert np.isclose(node.tau_mem, 0.01)
    assert np.isclose(node.tau_syn_inh, 0.005)
    assert (node.threshold, node.v_reset) == (1.0, -0.25)  # relative to the leak potential
    assert np.isclose(node.input_gain, 1e3 / 50)  # r w_in / (tau_mem tau_syn) per millisecond
    assert (node.max_spikes, node.t_max) == (3, 0.1)
    assert any("relative to v_leak" in note for note in found.notes)
    seconds = nd.load(path, continuous_time=True)
    assert seconds.nodes["n"].tau_mem == 10
    assert any("NIR names no unit" in note for note in seconds.notes)


def test_the_caller_decides_the_reset_of_other_tools_files(tmp_path):
    path = foreign(tmp_path / "net.nir")
    soft = nd.load(path, continuous_time=True, reset="subtract").nodes["n"]
    assert (soft.reset, soft.drop) == ("subtract", 1.0)
    with pytest.raises(GraphError, match="without a reset"):
        nd.load(path, continuous_time=True, reset="none")
    with pytest.raises(GraphError, match="tau_mem and tau_syn must be positive"):
        nd.load(foreign(path, tau_mem=np.zeros(3)), continuous_time=True)
    with pytest.raises(GraphError, match="at least 1 spike"):
        nd.load(path, continuous_time=True, max_spikes=0)


def test_changed_fields_win_over_metadata(tmp_path):
    nd.save(GRAPHS[3], tmp_path / "net.nir")
    content = nir.read(tmp_path / "net.nir", type_check=False)
    content.nodes["layer0.neuron"].v_reset[:] = -1
    nir.write(tmp_path / "net.nir", content)
    found = nd.load(tmp_path / "net.nir")
    assert (found.nodes["layer0.neuron"].reset, found.nodes["layer0.neuron"].v_reset) == ("value", -1)
    assert any("changed since its metadata" in note for note in found.notes)


def test_other_runtimes_refuse_the_file_by_name(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    nd.save(GRAPHS[0], tmp_path / "net.onnx")
    with pytest.raises(Exception, match=r"neurodeploy\.spike_times:Linear.* is not a registered function"):
        onnxruntime.InferenceSession(tmp_path / "net.onnx")
    import onnx

    model = onnx.load(tmp_path / "net.onnx")
    assert "Remedy: open it with neurodeploy.load" in model.doc_string
    assert {node.domain for node in model.graph.node} == {"neurodeploy.spike_times"}
    assert list(model.graph.node[-2].input[:1]) == ["layer0"]


def test_time_steps_and_digital_chips_refuse_it():
    with pytest.raises(GraphError, match="runs in continuous time, not in time steps"):
        nd.simulate(GRAPHS[0], np.zeros((3, 4)))
    target = load_target("speck2f")
    with pytest.raises(QuantizeError, match="compile for an analog chip"):
        quantize(GRAPHS[0], target.family.quantization_spec(target.chip))
    (found, *_) = target.family.check(GRAPHS[0], target.chip)
    assert found.rule.severity == "error"
    assert "compile for an analog chip" in found.remedy


def test_differences_are_told():
    other = GRAPHS[0].with_nodes({"layer0.neuron": replace(cuba(), max_spikes=2)})
    assert any("max_spikes" in str(entry) for entry in nd.difference(GRAPHS[0], other).changes)
