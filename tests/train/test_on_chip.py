"""Training on the chip's integers: the forward pass is the integer network's, bit for bit; the backward pass learns."""

import json

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import neurodeploy as nd
from neurodeploy.errors import ConfigError, ConstraintError, GraphError, MappingError, QuantizeError
from neurodeploy.graph.torch_writer import to_torch
from neurodeploy.quantize import LayerCalibration, QuantizationSpec
from neurodeploy.surrogate import Arctan, Box, Heaviside, PeriodicExponential, Sigmoid, SingleExponential
from neurodeploy.train import OnChip, load_trained, parse_config, train
from tests.train.toy import toy_config

B, T = 3, 6


class Branches(nn.Module):
    """Two branches of one layer that meet again, with two kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nd.nn.IAF(num_timesteps=T, v_min=-1.0))
        self.left = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1, bias=False), nd.nn.IAF(num_timesteps=T, threshold=0.7))
        self.right = nn.Sequential(nn.Conv2d(4, 3, 1, bias=False), nd.nn.IAF(num_timesteps=T, spikes="single"))
        self.merge = nd.nn.Merge()
        self.last = nn.Sequential(nn.AvgPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 5, bias=False))
        self.out = nd.nn.IAF(num_timesteps=T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x)
        spikes: torch.Tensor = self.out(self.last(self.merge(self.left(stem), self.right(stem))))
        return spikes


def chain(seed: int, **neuron: object) -> nn.Sequential:
    """Every pooling, biases, thresholds of every kind, drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    neuron = {"num_timesteps": T, **neuron}
    first, second = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    side = (8 + 2 - kernel) // stride + 1
    pooled = side // 2
    v_mins = [None, -1.0, -0.3, -20.0]
    return nn.Sequential(
        nn.Conv2d(2, first, kernel, stride=stride, padding=1, bias=bool(rng.integers(2))),
        nd.nn.IAF(threshold=float(rng.uniform(0.3, 1.5)), v_min=v_mins[seed % 4], **neuron),
        nn.AvgPool2d(2) if rng.integers(2) else nd.nn.SumPool2d(2),
        nn.Dropout2d(0.5),
        nn.Conv2d(first, second, pooled, bias=bool(rng.integers(2))),
        nd.nn.IAF(threshold=float(rng.uniform(0.3, 1.5)), learn_threshold=True, **neuron),
        nn.Flatten(),
        nn.Linear(second, 4, bias=False),
        nd.nn.IAF(threshold=float(rng.uniform(0.1, 0.5)), v_min=-0.5, **neuron),
    )


def events(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).poisson(0.4, (B * T, *shape))).float()


def assert_equals_the_integer_network(module: OnChip, x: torch.Tensor) -> None:
    found: dict[str, torch.Tensor] = {}
    names = {layer.neuron for layer in module.quantized.layers.values()}
    handles = [
        part.register_forward_hook(lambda _m, _i, output, name=name: found.__setitem__(name, output.detach()))
        for name, part in module.network.named_modules()
        if name in names
    ]
    output = module(x)
    for handle in handles:
        handle.remove()
    expected = to_torch(module.quantized.graph).record(x.reshape(B, T, *x.shape[1:]))
    assert set(expected) == names == set(found)
    for name, spikes in expected.items():
        assert torch.equal(found[name].float().reshape(spikes.shape), spikes.float()), name
    assert torch.equal(output.reshape(-1), spikes.float().reshape(-1))


@pytest.mark.parametrize("seed", range(24))
def test_forward_equals_the_integers_that_quantize_ships(seed):
    torch.manual_seed(seed)
    choices = {"reset": ["subtract", "zero"][seed % 2], "spikes": ["multi", "single", 2][seed % 3]}
    network = chain(seed, **choices).train()
    x = events(seed, 2, 8, 8)
    v_min = [None, "-threshold", "lowest", -0.7][seed % 4]
    spec = [QuantizationSpec(), QuantizationSpec(4, 4, 16), QuantizationSpec(3, 8, 12)][seed % 3]
    module = OnChip(network, x, target=spec, v_min=v_min)
    assert_equals_the_integer_network(module, x)
    # A few steps later the integers are others, and the equality still holds.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (module(x).sum() - 40).square().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    assert_equals_the_integer_network(module, x)


@pytest.mark.parametrize(
    "options", [{}, {"v_min": "-threshold"}, {"calibration": {"left.0": LayerCalibration(0.7, 1.2)}}]
)
def test_branches_and_the_compiled_integers(options):
    torch.manual_seed(0)
    network = Branches()
    x = events(0, 2, 8, 8)
    module = OnChip(network, x, target="speck2f", **options)
    assert_equals_the_integer_network(module, x)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (module(x).sum() - 20).square().backward()
        optimizer.step()
    output = module(x)
    deployment = nd.compile(nd.trace(network, x), target="speck2f", **options)
    assert deployment.quantized.layers == module.quantized.layers
    for name, node in deployment.quantized.graph.nodes.items():
        for field in ("weight", "bias", "threshold", "v_min"):
            shipped, used = (getattr(n, field, None) for n in (node, module.quantized.graph.nodes[name]))
            assert (shipped is None and used is None) or np.array_equal(shipped, used), (name, field)
    integer = to_torch(deployment.quantized.graph)(x.reshape(B, T, 2, 8, 8))
    assert torch.equal(output.reshape(-1), integer.reshape(-1))


SURROGATES = [
    SingleExponential(0.7, 0.9), PeriodicExponential(0.4, 1.3), Box(0.8), Sigmoid(0.3), Arctan(0.6), Heaviside(0.5),
]  # fmt: skip


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_gradients_are_those_of_float_where_rounding_changes_nothing(surrogate):
    """Weights that are integers over the scale: both networks spike alike, so their gradients must agree too."""
    torch.manual_seed(0)
    network = chain(3, surrogate=surrogate)
    for layer in (network[0], network[4], network[7]):
        with torch.no_grad():
            parts = [layer.weight] + ([] if layer.bias is None else [layer.bias])
            for part in parts:
                part.copy_((part / layer.weight.abs().max() * 127).round() / 128)
            layer.weight.flatten()[0] = 127 / 128  # the scale is 128
    for layer, threshold in ((network[1], 1.0), (network[5], 0.5), (network[8], 0.25)):
        with torch.no_grad():
            layer.threshold.fill_(threshold)
    network[2] = nd.nn.SumPool2d(2)
    network[3] = nn.Identity()
    network[8].neuron = network[1].neuron  # v_min = -20 becomes -2560: exact as well
    x = events(5, 2, 8, 8)
    # Another fold in place of sum pooling changes sums by rounding only: all is dyadic here.
    module = OnChip(network, x)
    assert {layer.scale for layer in module.quantized.layers.values()} == {128.0}
    weights = torch.arange(B * T * 4.0).reshape(B * T, 4).cos()
    gradients = []
    for run in (network, module):
        network.zero_grad()
        output = run(x)
        (output * weights).sum().backward()
        gradients.append([output.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    assert gradients[0][0].sum() > 0
    assert torch.equal(gradients[0][0], gradients[1][0])
    for in_float, on_chip in zip(*gradients, strict=True):
        # Float32 sums of at most 2 * 8 * 8 * 18 terms each rounded in either unit.
        assert torch.allclose(in_float, on_chip, rtol=1e-3, atol=1e-4 * float(in_float.abs().max()))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients[0])


def test_sums_beyond_float32_are_computed_in_float64():
    network = nn.Sequential(nn.Linear(2000, 3, bias=False), nd.nn.IAF(num_timesteps=T, threshold=5.0))
    nn.init.uniform_(network[0].weight, -1, 1)
    x = torch.from_numpy(np.random.default_rng(0).poisson(60, (B * T, 2000))).float()
    seen = []
    network[1].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].dtype))
    module = OnChip(network, x, target=QuantizationSpec())
    seen.clear()
    output = module(x)
    assert seen == [torch.float64]
    assert output.dtype == torch.float32
    assert torch.equal(output.reshape(B, T, 3, 1, 1), to_torch(module.quantized.graph)(x.reshape(B, T, 2000, 1, 1)))


def test_the_network_is_left_as_it_was():
    network = chain(0).train()
    x = events(0, 2, 8, 8)
    before = ({k: v.clone() for k, v in network.state_dict().items()}, repr(network))
    module = OnChip(network, x, target=QuantizationSpec())
    module(x)
    assert repr(network) == before[1]
    assert all(torch.equal(value, before[0][name]) for name, value in network.state_dict().items())
    assert all(part.training for part in network.modules())
    assert not any(part._forward_pre_hooks for part in network.modules())
    with torch.no_grad():
        network[7].weight.fill_(float("nan"))
    with pytest.raises(QuantizeError, match="7: weight holds values that are not finite"):
        module(x)
    assert repr(network) == before[1]


@pytest.mark.parametrize(
    ("layers", "code", "error"),
    [
        ([nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nd.nn.IAF(num_timesteps=T)], "on-chip-batch-norm", GraphError),
        ([nn.Conv2d(2, 3, 3), nd.nn.LIF(9.0, learn_tau=True, num_timesteps=T)], "on-chip-layer", GraphError),
        ([nn.Conv2d(2, 3, 3), nd.nn.IAF(num_timesteps=T), nn.LPPool2d(1, 2)], "on-chip-layer", GraphError),
        ([nn.Conv2d(2, 3, 3, dilation=2), nd.nn.IAF(num_timesteps=T)], "", ConstraintError),
        ([nn.Conv2d(2, 3, 3, padding=1), nd.nn.IAF(num_timesteps=T)], "", None),
    ],
)
def test_what_cannot_ship_is_refused_before_training(layers, code, error):
    network = nn.Sequential(*layers)
    if error is None:
        OnChip(network, events(0, 2, 8, 8), target="speck2f")
        return
    with pytest.raises(error) as caught:
        OnChip(network, events(0, 2, 8, 8), target="speck2f")
    assert not code or caught.value.code == code


def test_more_layers_than_cores_are_refused():
    layers = [kind for _ in range(10) for kind in (nn.Conv2d(2, 2, 1, bias=False), nd.nn.IAF(num_timesteps=T))]
    with pytest.raises(MappingError):
        OnChip(nn.Sequential(*layers), events(0, 2, 8, 8), target="speck2f")


def test_sinabs_layers_need_accelerate():
    sinabs_layers = pytest.importorskip("sinabs.layers")
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), sinabs_layers.IAFSqueeze(batch_size=B))
    with pytest.raises(GraphError, match=r"nd\.accelerate"):
        OnChip(network, events(0, 2, 8, 8))
    network = nd.accelerate(network)
    x = events(0, 2, 8, 8)
    module = OnChip(network, x)
    assert torch.equal(module(x), module(x))  # stateful layers start from silence each time


def test_fractions_are_refused():
    x = events(0, 2, 8, 8)
    module = OnChip(chain(0), x, target=QuantizationSpec())
    with pytest.raises(GraphError, match="fractions"):
        module(x / 2)


def own_chip(folder, weight_bits):
    bits = {"value": weight_bits, "source": "an invented chip"}
    path = folder / f"chip{weight_bits}.yaml"
    description = {"family": "dynapcnn", "name": f"chip{weight_bits}", "title": "Few bits"}
    path.write_text(
        yaml.safe_dump(description | {"limits": {"weight_bits": bits}, "quantization": {"weight_bits": bits}})
    )
    return path


def test_training_on_chip_from_a_later_epoch_and_from_a_trained_run(tmp_path):
    path = own_chip(tmp_path, 3)
    aware = {"target": "../chip3.yaml", "from_epoch": 2}  # relative to the configuration's folder
    config = toy_config(tmp_path / "data", quantize_aware=aware)
    result = train(config, tmp_path / "run", quiet=True)
    assert [record["on_chip"] for record in result.metrics] == [False, False, True, True]
    network, loaded = load_trained(result.run)
    assert loaded == config
    # The test accuracy of the last epoch is that of the integers that compile makes of the trained network.
    sample = torch.zeros(result.data.n_time_steps, *result.data.test.sensor_size)
    deployment = nd.compile(nd.trace(network, sample), target=path)
    validation = nd.validate(
        deployment, result.data.test, dt_us=1000, runs=["time_stepped", "event_driven"], explain=False
    )
    assert validation.accuracy["time_stepped"] == result.test_accuracy
    assert max(abs(layer.weight_min) for layer in deployment.quantized.layers.values()) <= 4

    fine = toy_config(tmp_path / "data", quantize_aware=aware | {"from_epoch": 0}, init="../run", epochs=1)
    settings = fine.model_dump(mode="json")
    assert settings["init"] == str(tmp_path / "data" / "../run")
    tuned = train(fine, tmp_path / "tuned", quiet=True)
    assert tuned.metrics[0]["on_chip"]
    assert tuned.metrics[0]["loss"] < result.metrics[0]["loss"]
    assert json.loads((tuned.run / "run.json").read_text())["init_sha256"]
    other = {"layers": [{"type": "linear", "features": 3}, {"type": "iaf"}]}
    with pytest.raises(nd.errors.TrainError, match="do not fit"):
        train(toy_config(tmp_path / "data", init="../run", network=other), tmp_path / "wrong", quiet=True)


def test_resuming_on_chip_changes_nothing(tmp_path, monkeypatch):
    from neurodeploy.train import loop

    config = toy_config(tmp_path / "data", quantize_aware={"target": "speck2f", "from_epoch": 1}, epochs=3)
    straight = train(config, tmp_path / "straight", quiet=True)
    save = loop._save_checkpoint

    def stop(run, epoch, *rest):
        save(run, epoch, *rest)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", quiet=True)
    monkeypatch.undo()
    resumed = train(config, tmp_path / "stopped", resume=True, quiet=True)
    assert resumed.model.read_bytes() == straight.model.read_bytes()


def test_a_chip_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigError, match="no target 'speck9'"):
        train(toy_config(tmp_path / "data", quantize_aware={"target": "speck9"}), tmp_path / "run", quiet=True)
    content = toy_config(tmp_path / "data").model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"quantize_aware\.from_epoch"):
        parse_config(content | {"quantize_aware": {"target": "speck2f", "from_epoch": -1}})
    with pytest.raises(ConfigError, match="from_epoch is 4, but there are 4 epochs"):
        parse_config(content | {"quantize_aware": {"target": "speck2f", "from_epoch": 4}})
