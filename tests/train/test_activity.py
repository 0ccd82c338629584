"""Synaptic operations are counted as the emulator counts them, and their price is differentiable."""

import numpy as np
import pytest
import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.errors import ConfigError
from neurodeploy.events import make_events
from neurodeploy.train import Activity, parse_config, train
from neurodeploy.train.activity import fan_out_of_convolution
from neurodeploy.train.config import ActivityPenalty, LossConfig
from neurodeploy.train.penalty import activity_penalty
from tests.train.toy import toy_config


def by_hand(module: nn.Conv2d, height: int, width: int) -> torch.Tensor:
    """Fan-out of every position: outputs whose receptive field holds it."""
    ones = nn.Conv2d(1, 1, module.kernel_size, module.stride, module.padding, module.dilation, bias=False)
    nn.init.ones_(ones.weight)
    return torch.tensor(
        [
            [
                float(
                    ones(
                        nn.functional.one_hot(torch.tensor(y * width + x), height * width)
                        .reshape(1, 1, height, width)
                        .float()
                    ).sum()
                )
                for x in range(width)
            ]
            for y in range(height)
        ]
    ) * (module.out_channels // module.groups)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 5, 3),
        nn.Conv2d(2, 5, 3, padding=1),
        nn.Conv2d(2, 4, (5, 2), stride=(2, 3), padding=(2, 0)),
        nn.Conv2d(4, 8, 3, stride=4, groups=2),
        nn.Conv2d(2, 4, 3, dilation=2, padding="same"),
        nn.Conv2d(2, 4, (4, 3), padding="same"),
    ],
    ids=str,
)
def test_fan_out_knows_borders_strides_and_groups(module):
    x = torch.zeros(1, module.in_channels, 9, 8)
    expected = by_hand(module, 9, 8).double()
    assert torch.equal(fan_out_of_convolution(module, x.shape, module(x).shape), expected)


def test_counts_equal_the_emulators():
    """One event per step and time, weights at most the threshold, no v_min: time steps are events then."""
    torch.manual_seed(1)
    T = 60
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False),
        nd.nn.IAF(num_timesteps=T, threshold=0.5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 5, bias=False),
        nd.nn.IAF(num_timesteps=T),
    )
    with torch.no_grad():
        network[0].weight.abs_()
        network[4].weight.mul_(8)
    rng = np.random.default_rng(0)
    x, y, p = (rng.integers(0, n, T) for n in (12, 12, 2))
    raster = torch.zeros(T, 2, 12, 12)
    raster[torch.arange(T), torch.from_numpy(p), torch.from_numpy(y), torch.from_numpy(x)] = 1
    deployment = nd.compile(nd.trace(network, raster), target="speck2f")
    run = deployment.emulate(make_events(np.arange(T) * 1000, x, y, p))
    from neurodeploy.train import OnChip

    on_chip = OnChip(network, raster)
    with Activity(network) as activity, torch.no_grad():
        activity.begin(1)
        on_chip(raster)
    assert run.stats["layers"]["0"]["synops"] == activity.synops["0"].item()
    assert activity.synops["4"].item() == 5 * activity.spikes["1"].item()
    assert activity.spikes["1"].item() == run.counts("0").sum() > 0
    with Activity(network) as activity, torch.no_grad():
        activity.begin(1)
        network(raster)  # in float the pool divides; the events are counted whole
    assert activity.synops["4"].item() == 5 * activity.spikes["1"].item() > 0


def test_spikes_and_operations_are_per_recording(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nd.nn.IAF(num_timesteps=5), nn.Flatten(), nn.Linear(64, 3))
    raster = torch.zeros(10, 1, 6, 6)
    raster[0, 0, 2, 2] = 2.0
    raster[7, 0, 0, 0] = 3.0
    with Activity(network, differentiable=True) as activity:
        activity.begin(2)
        network(raster)
    assert activity.synops["0"].tolist() == [2 * 4 * 9, 3 * 4 * 1]
    assert torch.equal(activity.synops["3"], 3 * activity.spikes["1"])
    assert activity.total_synops.tolist() == (activity.synops["0"] + activity.synops["3"]).tolist()
    assert activity.neuron_steps == {"1": 5 * 64}
    assert not network[0]._forward_hooks


def _activity(rates: list[float]) -> Activity:
    activity = Activity(nn.Sequential())
    activity.begin(len(rates))
    activity.spikes["iaf"] = torch.tensor(rates, dtype=torch.float64, requires_grad=True)
    activity.neuron_steps["iaf"] = 1
    activity.synops["conv"] = activity.spikes["iaf"] * 10
    return activity


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        ({"quantity": "rate", "target": 2.0}, (0.25 + 0.25) / 2),
        ({"quantity": "rate", "limit": 2.0, "weight": 3.0}, 3 * (0.0 + 0.25) / 2),
        ({"quantity": "synops", "limit": 20.0, "layer": "conv"}, 0.125),
        ({"quantity": "synops", "target": 10.0}, (0.0 + 4.0) / 2),
        ({"quantity": "synops_per_second", "target": 1000.0}, (0.0 + 4.0) / 2),
    ],
)
def test_targets_and_limits(penalty, expected):
    activity = _activity([1.0, 3.0])
    config = LossConfig(activity=(ActivityPenalty(**penalty),))
    price = activity_penalty(config, activity, duration_us=10_000)
    assert price.item() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(price, activity.spikes["iaf"])
    assert slope[1] > 0  # the busy recording is made quieter
    assert (slope[0] < 0) == (penalty == {"quantity": "rate", "target": 2.0})


def test_unknown_layers_and_incomplete_penalties(tmp_path):
    config = LossConfig(activity=(ActivityPenalty(quantity="rate", limit=1.0, layer="iaf9"),))
    with pytest.raises(ConfigError, match=r"no layer 'iaf9'.*iaf"):
        activity_penalty(config, _activity([1.0]), duration_us=1)
    good = toy_config(tmp_path).model_dump(mode="json")
    for wrong in ({"quantity": "rate"}, {"quantity": "rate", "limit": 1.0, "target": 1.0}):
        with pytest.raises(ConfigError, match="either target or limit"):
            parse_config(good | {"loss": {"activity": [wrong]}})


def test_a_rate_target_is_reached_and_a_silent_layer_is_named(tmp_path):
    config = toy_config(tmp_path / "data", epochs=3, optimizer={"type": "sgd", "lr": 1e-6})
    layers = [dict(layer) for layer in config.model_dump(mode="json")["network"]["layers"]]
    layers[1]["threshold"] = 50.0
    silent = train(toy_config(tmp_path / "data", epochs=1, network={"layers": layers}), tmp_path / "silent", quiet=True)
    assert silent.metrics[0]["rates"]["iaf1"] == 0
    (first, second) = silent.metrics[0]["warnings"]
    assert first.startswith("iaf1: no neuron fired in any recording. Remedy:")
    assert second.startswith("iaf2: no neuron fired in any recording, because no event reached the layer.")
    target = {"activity": [{"quantity": "rate", "layer": "iaf1", "target": 0.05, "weight": 10.0}]}
    reached = train(toy_config(tmp_path / "data", epochs=6, loss=target), tmp_path / "target", quiet=True)
    free = train(toy_config(tmp_path / "data", epochs=6), tmp_path / "free", quiet=True)
    distance = [abs(run.metrics[-1]["rates"]["iaf1"] - 0.05) for run in (reached, free)]
    assert distance[0] < 0.3 * distance[1]


def test_weights_above_the_threshold_are_named():
    network = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, bias=False), nd.nn.IAF(num_timesteps=2))
    for weight, warned in ((7.9, False), (8.1, True)):  # a pool of 2 x 2 divides by 4
        nn.init.constant_(network[1].weight, weight)
        with Activity(network) as activity, torch.no_grad():
            activity.begin(1)
            network(torch.ones(2, 1, 6, 6))
            guards = activity.weight_guards()
        assert [(guard.layer, guard.code) for guard in guards] == [("1", "weight-above-threshold")] * warned


@pytest.mark.parametrize("kind", ["cuba", "matrix", "module"])
def test_every_kind_of_neuron_is_counted(kind):
    make = {
        "cuba": lambda: nd.nn.CubaLIF(5.0, 3.0, norm_input=False, threshold=0.2),
        "matrix": lambda: _recurrent(nn.Linear(4, 4)),
        "module": lambda: _recurrent(nn.Sequential(nn.Linear(4, 4), nn.Tanh())),
    }
    network = nn.Sequential(nd.nn.SRMAlpha(2.0, threshold=0.3), nn.Linear(3, 4), make[kind](), nn.Linear(4, 2))
    nn.init.constant_(network[1].weight, 0.2)
    x = torch.rand(2, 30, 3)
    plain, fired = network(x), network[:3](x).sum((1, 2)).double()
    with Activity(network) as activity:
        for _ in range(2):  # the second pass begins from nothing
            activity.begin(2)
            assert torch.equal(network(x), plain)
            assert activity.fed_by == {"0": "", "2": "1"}
            assert torch.equal(activity.spikes["2"], fired)
            assert torch.equal(activity.synops["3"], 2 * fired)
        if kind == "matrix":
            assert network[2]._fused([4])  # a hook on the connections would keep the kernel from multiplying with them
    assert fired.min() > 0


def _recurrent(connect: nn.Module) -> nn.Module:
    return nd.nn.LIFRecurrent(5.0, connect, norm_input=False, threshold=0.2)


@pytest.mark.parametrize("kind", ["linear", "module", "convolution"])
def test_lateral_operations(kind):
    connect = {
        "linear": nn.Linear(4, 4),
        "module": nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)),
        "convolution": nn.Conv2d(4, 4, 3, padding=1),
    }[kind]
    neurons = _recurrent(connect)
    x = torch.rand(2, 12, 4, 5, 5) if kind == "convolution" else torch.rand(2, 12, 4)
    with Activity(nn.Sequential(neurons)) as activity:
        activity.begin(2)
        spikes = neurons(x)
    fired = spikes.flatten(1).sum(1).double()
    assert fired.min() > 0
    assert torch.equal(activity.spikes["0"], fired)
    if kind == "convolution":
        fan_out = fan_out_of_convolution(connect, torch.Size((4, 5, 5)), torch.Size((4, 5, 5)))
        assert torch.equal(activity.synops["0.rec_connect"], (spikes.sum((1, 2)).double() * fan_out).sum((1, 2)))
    else:
        name, targets = ("0.rec_connect", 4) if kind == "linear" else ("0.rec_connect.0", 6)
        assert torch.equal(activity.synops[name], fired * targets)
    assert activity.fed_by == {"0": ""}
