import numpy as np
import pytest

from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Neuron,
    Output,
    SumPool2d,
)
from tests.sinabs_oracle import needs_sinabs

torch = pytest.importorskip("torch")
nn = torch.nn
import neurodeploy.nn as own  # noqa: E402
from neurodeploy.graph.simulate import simulate  # noqa: E402
from neurodeploy.graph.torch_reader import trace  # noqa: E402


def array(tensor):
    return tensor.detach().numpy()


def refusal(module, sample, code):
    with pytest.raises(GraphError) as info:
        trace(module, sample)
    assert info.value.code == code, str(info.value)
    assert info.value.remedy
    return str(info.value)


def test_plain_torch_modules():
    net = nn.Sequential(
        nn.Conv2d(2, 3, (3, 5), stride=(1, 2), padding=(1, 0), bias=False),
        nn.BatchNorm2d(3),
        nn.AvgPool2d(2),
        nn.Dropout2d(0.5),
        nn.AvgPool2d((1, 2), divisor_override=1),
        nn.Sequential(nn.Flatten(), nn.Identity()),
        nn.Linear(12, 4),
    )
    net[1].running_mean.uniform_()
    graph = trace(net, torch.zeros(6, 2, 8, 12))
    assert dict(graph.nodes) == {
        "input": Input((2, 8, 12)),
        "0": Conv2d(array(net[0].weight), stride=(1, 2), padding=(1, 0)),
        "1": BatchNorm2d(
            array(net[1].running_mean), array(net[1].running_var), array(net[1].weight), array(net[1].bias), 1e-5
        ),
        "2": AvgPool2d((2, 2), (2, 2)),
        "4": SumPool2d((1, 2), (1, 2)),
        "5.0": Flatten(),
        "6": Linear(array(net[6].weight), array(net[6].bias)),
        "output": Output(),
    }
    assert graph.notes == ("computes nothing at inference and is dropped: 3, 5.1.",)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5, 2, 8, 8), (2, 8, 8)),
        ((20, 2, 8, 8), (2, 8, 8)),
        ((4, 5, 7), (7,)),
        ((20, 7), (7,)),
    ],
)
def test_the_shape_per_step_is_that_of_the_last_axes(shape, expected):
    class Net(nn.Module):
        def forward(self, x):
            return x.clone()

    assert trace(Net(), torch.zeros(shape)).input_shape() == expected


@needs_sinabs
def test_sinabs_layers():
    import sinabs.layers as sl
    from sinabs.activation import MaxSpike, MembraneReset, SingleSpike

    threshold = torch.rand(3, 1, 1) + 1
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding="same"),
        sl.IAFSqueeze(num_timesteps=5, spike_threshold=torch.tensor(2.0), min_v_mem=-1.5),
        sl.SumPool2d(2),
        sl.LIFSqueeze(
            tau_mem=20.0, batch_size=2, spike_fn=SingleSpike, reset_fn=MembraneReset(), min_v_mem=torch.tensor(-1)
        ),
        sl.IAFSqueeze(batch_size=2, spike_fn=MaxSpike(3), spike_threshold=threshold),
        sl.LIFSqueeze(tau_mem=torch.tensor(7.0), num_timesteps=5, norm_input=False, spike_fn=MaxSpike()),
    )
    net(torch.rand(10, 2, 8, 8))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graph = trace(net, torch.rand(10, 2, 8, 8))
    decay = array(torch.exp(-1 / torch.tensor(20.0)))
    assert list(graph.nodes.values()) == [
        Input((2, 8, 8)),
        Conv2d(array(net[0].weight), array(net[0].bias), padding=(1, 1)),
        Neuron(np.float32(2), np.float32(-1.5)),
        SumPool2d((2, 2), (2, 2)),
        Neuron(
            np.float32(1),
            np.float32(-1),
            decay=decay,
            input_gain=np.float32(1) - decay,
            reset="zero",
            spikes="single",
        ),
        Neuron(np.broadcast_to(array(threshold), (3, 4, 4)), spikes=3),
        Neuron(np.float32(1), decay=array(torch.exp(-1 / torch.tensor(7.0)))),
        Output(),
    ]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@needs_sinabs
def test_time_wrappers_and_branches():
    import sinabs.layers as sl

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = sl.Repeat(nn.Conv2d(2, 4, 3, padding=1))
            self.spike = sl.IAF()
            self.fold, self.unfold = sl.FlattenTime(), sl.UnflattenTime(batch_size=3)
            self.left, self.right, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(256, 2)
            self.spike_left, self.spike_right = sl.IAFSqueeze(batch_size=3), sl.IAFSqueeze(batch_size=3)
            self.merge, self.drop = sl.Merge(), 0.3
            self.readout = sl.IAF()

        def forward(self, x):
            time = x.shape[1]
            x = self.fold(self.spike(self.stem(x)))
            a, b = self.spike_left(self.left(x)), self.spike_right(self.right(x))
            x = nn.functional.dropout(self.merge(a, b), self.drop, self.training) + a
            x = x.reshape(3, time, -1)
            return self.readout(self.unfold(self.last(x.flatten(0, 1))))

    graph = trace(Net(), torch.zeros(3, 4, 2, 8, 8))
    assert [(name, node.kind) for name, node in graph.nodes.items()] == [
        ("input", "Input"),
        ("stem.module", "Conv2d"),
        ("spike", "Neuron"),
        ("left", "Conv2d"),
        ("spike_left", "Neuron"),
        ("right", "Conv2d"),
        ("spike_right", "Neuron"),
        ("merge", "Add"),
        ("add", "Add"),
        ("flatten", "Flatten"),
        ("last", "Linear"),
        ("readout", "Neuron"),
        ("output", "Output"),
    ]
    assert graph.predecessors("merge") == ("spike_left", "spike_right")
    assert graph.predecessors("add") == ("merge", "spike_left")


def test_an_ann_with_branches_that_are_joined():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 5, 3, padding=1)
            self.relu, self.pool, self.last = nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2)), nn.Linear(19, 4)

        def forward(self, x):
            a = self.relu(self.left(x))
            x = self.pool(torch.cat([a, nn.functional.relu(self.right(x))], dim=-3)).flatten(1)
            return self.last(torch.cat((x, a.sum((2, 3)) if self.sums else x[:, :], x), 1))

    net = Net()
    net.sums = True
    assert "sum" in refusal(net, torch.zeros(2, 2, 4, 4), "operation")
    net.sums, net.last = False, nn.Linear(48, 4)
    graph = trace(net, torch.zeros(2, 2, 4, 4))
    joins = {name: graph.predecessors(name) for name, node in graph.nodes.items() if node.kind in ("Concat", "Relu")}
    assert joins == {
        "relu": ("left",),
        "relu_1": ("right",),
        "concat": ("relu", "relu_1"),
        "concat_1": ("flatten", "flatten", "flatten"),
    }
    assert graph.nodes["pool"] == AvgPool2d((4, 2), (4, 2))
    x = torch.rand(3, 2, 4, 4)
    with torch.no_grad():
        expected = net(x)
        assert torch.allclose(torch.from_numpy(simulate(graph, x[:, None].numpy()))[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("library", ["neurodeploy", "sinabs"])
def test_neurons_with_a_current_and_neurons_without_spikes(library):
    if library == "sinabs":
        sl = pytest.importorskip("sinabs.layers")
        current, leak = sl.LIF(tau_mem=7.0, tau_syn=3.0, norm_input=False), sl.ExpLeak(tau_mem=5.0)
        more = [sl.IAF(tau_syn=4.0)]
    else:
        current, leak = own.CubaLIF(7.0, 3.0, norm_input=False), own.LI(5.0)
        more = [own.SynapseFilter(4.0), own.LIF(6.0, reset="zero", spikes="single")]
    net = nn.Sequential(nn.Linear(8, 6), current, *more, leak)
    graph = trace(net, torch.zeros(2, 10, 8))
    names = ["input", "0", "1.synapse", "1", *(["2.synapse", "2", "3"] if library == "sinabs" else ["2", "3", "4"])]
    assert list(graph.nodes) == [*names, "output"]
    x = torch.randint(0, 5, (3, 10, 8)).float()
    with torch.no_grad():
        expected = net(x).numpy()
    assert expected.any()
    # The potentials of the last layer, which sums in another order than sinabs; all spikes before it are equal.
    np.testing.assert_allclose(simulate(graph, x.numpy()), expected, rtol=1e-5, atol=1e-6)


class Rewritten(nn.Module):
    """Writes into a tensor of which there is another view, and uses what ``used`` says."""

    def __init__(self, used):
        super().__init__()
        self.a, self.b, self.used = nn.Linear(8, 8), nn.Linear(8, 4), used

    def forward(self, x):
        written = self.a(x)
        view = written.view(3, 8)
        written = nn.functional.relu(written, inplace=True)
        return self.b({"written": written, "view": view}[self.used])


def test_writing_into_a_tensor_changes_its_views_too():
    graph = trace(Rewritten("written"), torch.ones(3, 8))
    assert graph.predecessors("b") == ("relu",)
    assert "b" in refusal(Rewritten("view"), torch.ones(3, 8), "module-call")


def test_layers_that_a_pass_leaves_out_are_named():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.lateral = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            out = self.first(x[0])
            for step in x[1:]:
                out = self.first(step) + self.lateral(out)
            return out

    graph = trace(Skips(), torch.ones(1, 2, 4))
    assert graph.notes == ("has parameters and was not called in this pass: lateral.",)


def test_a_module_named_like_the_input():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = nn.Linear(3, 3)

        def forward(self, x):
            return self.input(x)

    assert list(trace(Net(), torch.zeros(2, 3)).nodes) == ["input_1", "input", "output"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.GELU(), ("GELU", "nd.convert")),
        (nn.MaxPool2d(2), ("MaxPool2d", "AvgPool2d and fine-tune")),
        (nn.Softmax(1), ("Softmax", "most spikes")),
        (nn.LSTM(8, 8), ("LSTM", "recurrent")),
        (nn.ConvTranspose2d(2, 2, 2), ("ConvTranspose2d", "Conv2d")),
        (nn.PixelShuffle(1), ("PixelShuffle", "the supported modules are")),
    ],
)
def test_unsupported_modules_are_refused_by_name(module, words):
    message = refusal(nn.Sequential(nn.Conv2d(2, 2, 1), module), torch.zeros(2, 2, 8, 8), "unsupported-module")
    assert message.startswith("1: ")
    assert all(word in message for word in words)


@needs_sinabs
def test_unsupported_sinabs_layers_are_refused_by_name():
    import sinabs.layers as sl

    recurrent = sl.IAFRecurrent(rec_connect=nn.Linear(8, 8))
    for module in (sl.ALIF(10.0, 10.0), recurrent, sl.NeuromorphicReLU()):
        message = refusal(nn.Sequential(nn.Linear(8, 8), module), torch.zeros(2, 3, 8), "unsupported-module")
        assert type(module).__name__ in message


@needs_sinabs
def test_options_of_sinabs_layers_without_equivalent_are_refused():
    import sinabs.layers as sl
    from sinabs.activation import MembraneReset, MembraneSubtract

    for options, word in (
        ({"reset_fn": MembraneReset(0.5)}, "reset_value"),
        ({"reset_fn": MembraneSubtract(0.5)}, "reset_fn"),
        ({"reset_fn": lambda spikes, state, threshold: state}, "reset_fn"),
    ):
        assert word in refusal(nn.Sequential(sl.IAF(**options)), torch.zeros(2, 3, 8), "module-option")


@pytest.mark.parametrize(
    ("module", "code", "word"),
    [
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "module-option", "padding_mode"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "module-option", "count_include_pad"),
        (nn.AvgPool2d(2, divisor_override=3), "module-option", "divisor_override"),
        (nn.AvgPool2d(3, ceil_mode=True), "shape", "ceil_mode"),
        (nn.LPPool2d(2, 2), "module-option", "norm_type"),
        (nn.AdaptiveAvgPool2d(3), "module-option", "output_size"),
        (nn.BatchNorm2d(2, track_running_stats=False), "module-option", "track_running_stats"),
        (nn.Linear(8, 4), "shape", "Flatten"),
        (nn.Flatten(2), "reshape", "flat"),
        (nn.Linear(7, 4), "sample", "cannot run"),
    ],
)
def test_options_without_equivalent_are_refused(module, code, word):
    message = refusal(nn.Sequential(module), torch.zeros(2, 2, 8, 8), code)
    assert word in message
    assert message.startswith("0: ")


@pytest.mark.parametrize(
    ("forward", "code", "word"),
    [
        (lambda net, x: torch.tanh(net.a(x)), "operation", "tanh"),
        (lambda net, x: torch.cat([net.a(x), net.b(x)], 1), "operation", "cat"),
        (lambda net, x: torch.cat([net.a(x), torch.ones(2, 3, 8)], 2), "operation", "cat"),
        (lambda net, x: nn.functional.max_pool2d(net.a(x), 2), "operation", "fine-tune"),
        (lambda net, x: net.a(x)[:, [2, 1, 0]], "operation", "__getitem__"),
        (lambda net, x: net.a(x)[:, :1], "operation", "__getitem__"),
        (lambda net, x: torch.stack([net.a(x)], 3), "operation", "stack"),
        (lambda net, x: net.a(x) * 2, "operation", "mul"),
        (lambda net, x: net.a(x) + 1, "operation", "add"),
        (lambda net, x: torch.stack([net.a(x[:, t]) for t in range(3)], 1), "operation", "loop over time"),
        (lambda net, x: net.a(x).transpose(0, 1), "operation", "transpose"),
        (lambda net, x: net.a(x).mean(1), "operation", "mean"),
        (lambda net, x: net.a(net.a(x)), "called-twice", "a"),
        (lambda net, x: nn.functional.linear(x, net.a.weight), "operation", "linear"),
        (lambda net, x: nn.functional.dropout(net.a(x) + net.b(x), 0.9), "operation", "dropout"),
        (lambda net, x: (net.a(x), net.b(x)), "output", "tuple"),
        (lambda net, x: torch.ones(2, 3, 8), "output", "layers"),
        (lambda net, x: net.a(x).reshape(2, 6, 4), "reshape", "(2, 6, 4)"),
        (lambda net, x: net.a(torch.ones(2, 3, 8)), "module-call", "a"),
        (lambda net, x: net.a(x) if not net.b(x).sum() else None, "operation", "sum"),
    ],
)
def test_operations_outside_modules_are_refused(forward, code, word):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return forward(self, x)

    net = Net()
    net.a.bias.data.fill_(1)
    assert word in refusal(net, torch.ones(2, 3, 8), code)


def test_writing_into_a_tensor_is_refused():
    class Net(nn.Module):
        def forward(self, x):
            x = x.clone()
            x[:, 0] = 0
            return x

    assert "__setitem__" in refusal(Net(), torch.ones(2, 3, 8), "operation")


def test_a_subclass_with_a_forward_of_its_own_is_refused():
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    assert "Scaled" in refusal(nn.Sequential(Scaled(2, 2, 1)), torch.zeros(2, 2, 8, 8), "unsupported-module")


@pytest.mark.parametrize("sample", [torch.zeros(3), torch.zeros(0, 2, 8, 8), np.zeros((2, 2, 8, 8)), None])
def test_samples_that_are_none_are_refused(sample):
    refusal(nn.Conv2d(2, 2, 1), sample, "sample")


def test_the_module_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace(net, torch.rand(2, 2, 8, 8))
    assert net.training
    assert net[1].training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net[0]._forward_hooks


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_padding_that_is_no_number_is_refused():
    assert "same" in refusal(nn.Sequential(nn.Conv2d(2, 2, 2, padding="same")), torch.zeros(2, 2, 8, 8), "padding")


@needs_sinabs
def test_unused_parts_do_not_matter():
    import sinabs

    spiking = nn.Sequential(nn.Linear(8, 4), sinabs.layers.IAFSqueeze(batch_size=2))
    net = sinabs.network.Network(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), spiking)
    assert list(trace(net, torch.zeros(6, 8)).nodes) == ["input", "spiking_model.0", "spiking_model.1", "output"]


def test_a_module_that_cannot_be_copied_is_refused():
    net = nn.Sequential(nn.Linear(8, 8))
    net.activation = net(torch.zeros(2, 8))
    assert "reset_states" in refusal(net, torch.zeros(2, 8), "copy")
