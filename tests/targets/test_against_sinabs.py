"""sinabs as oracle over random networks with branches: the same integers, a placement wherever it finds one, and the
same output of the time-stepped network.
"""

import importlib

import numpy as np
import pytest

from neurodeploy.errors import MappingError
from neurodeploy.mapping.placement import Item, fitting
from neurodeploy.quantize import quantize
from neurodeploy.target import load_target
from tests.sinabs_oracle import dynapcnn_network, needs_sinabs, placeholder_for_samna

torch = pytest.importorskip("torch")
pytestmark = needs_sinabs
nn = torch.nn

from neurodeploy.graph.torch_reader import trace  # noqa: E402
from neurodeploy.graph.torch_writer import to_torch  # noqa: E402

SPECK = load_target("speck2f")
STEPS = 4


def sinabs_module(name):
    with placeholder_for_samna():
        return importlib.import_module(f"sinabs.backend.dynapcnn.{name}")


class Branches(nn.Module):
    """A stem, then one to three stages: a layer, two layers whose spikes are added, or a layer and its input added."""

    def __init__(self, rng):
        super().__init__()
        import sinabs.layers as sl

        self.rng, self.kinds = rng, []
        size, c = int(rng.integers(12, 32)), int(rng.integers(1, 3))
        self.shape = (c, size, size)
        size, c = self._layer("stem", c, size, int(rng.choice([4, 8, 32])))
        for i in range(int(rng.integers(1, 4))):
            # sinabs allows no branching and no pooling directly behind a merge.
            merged = bool(self.kinds) and self.kinds[-1] != "plain"
            kind = "plain" if merged else str(rng.choice(["plain", "add", "residual"]))
            self.kinds.append(kind)
            if rng.integers(2) and size >= 8 and kind != "residual" and not merged:
                # sinabs does not take a pooling that two layers share.
                average = rng.integers(2)
                for side in ("left", "right") if kind == "add" else ("left",):
                    self.add_module(f"{side}{i}_pool", nn.AvgPool2d(2) if average else sl.SumPool2d(2))
                size //= 2
            f = c if kind == "residual" else int(rng.choice([2, 8, 48, 160]))
            same = kind != "plain"
            out, _ = self._layer(f"left{i}", c, size, f, same)
            if kind == "add":
                self._layer(f"right{i}", c, size, f, same)
            if same:
                self.add_module(f"merge{i}", sl.Merge())
            size, c = out, f
        self.flatten = nn.Flatten()
        self._weights("last", nn.Linear(c * size * size, int(rng.integers(2, 11)), bias=False))
        self.add_module("last_spike", self._iaf())

    def _iaf(self):
        import sinabs.layers as sl
        from sinabs.activation import MembraneReset, MembraneSubtract

        return sl.IAFSqueeze(
            batch_size=1,
            spike_threshold=torch.tensor(float(self.rng.uniform(0.5, 3))),
            min_v_mem=-float(self.rng.uniform(0.5, 3)),
            reset_fn=MembraneSubtract() if self.rng.integers(2) else MembraneReset(),
        )

    def _weights(self, name, module):
        shape = tuple(module.weight.shape)
        fan_in = np.prod(shape[1:])
        module.weight.data = torch.tensor(self.rng.normal(1 / fan_in, 2 / np.sqrt(fan_in), shape), dtype=torch.float32)
        self.add_module(name, module)

    def _layer(self, name, c, size, f, same=False):
        k = int(self.rng.choice([k for k in ((1, 3) if same else (1, 2, 3, 5)) if k <= size]))
        # A linear layer is a kernel of at most 16.
        padding, stride = (k // 2, 1) if same else (0, 2 if size > 16 else 1)
        self._weights(name, nn.Conv2d(c, f, k, stride, padding, bias=False))
        self.add_module(f"{name}_spike", self._iaf())
        return (size + 2 * padding - k) // stride + 1, f

    def _branch(self, name, x):
        x = getattr(self, f"{name}_pool")(x) if hasattr(self, f"{name}_pool") else x
        return getattr(self, f"{name}_spike")(getattr(self, name)(x))

    def forward(self, x):
        x = self.stem_spike(self.stem(x))
        for i, kind in enumerate(self.kinds):
            left = self._branch(f"left{i}", x)
            if kind == "plain":
                x = left
            else:
                right = x if kind == "residual" else self._branch(f"right{i}", x)
                x = getattr(self, f"merge{i}")(left, right)
        return self.last_spike(self.last(self.flatten(x)))


def compare(seed):
    """Whether the network has branches, whether sinabs places it, and how many spikes came out."""
    rng = np.random.default_rng(seed)
    net = Branches(rng)
    theirs = dynapcnn_network(net, input_shape=net.shape, batch_size=1, discretize=True)
    for layer in net.modules():
        if hasattr(layer, "reset_states"):
            layer.reset_states()
    graph = trace(net, torch.zeros(1, *net.shape))
    quantized = quantize(graph, SPECK.family.quantization_spec(SPECK.chip))
    layers = dict(theirs.dynapcnn_layers.items())
    of_layer = {}
    for name in quantized.layers:
        weight = quantized.graph.nodes[name].weight
        (own,) = (
            index
            for index, layer in layers.items()
            if tuple(layer.conv_layer.weight.shape) == weight.shape
            and np.array_equal(layer.conv_layer.weight.detach().numpy(), weight)
        )
        (after,) = quantized.graph.successors(name)
        neuron = quantized.graph.nodes[after]
        assert int(layers[own].spk_layer.spike_threshold) == int(neuron.threshold)
        assert int(layers[own].spk_layer.min_v_mem) == int(neuron.v_min)
        of_layer[name] = own
    assert sorted(of_layer.values()) == sorted(layers)

    constraints = sinabs_module("chips.dynapcnn").DynapcnnConfigBuilder.get_constraints()
    try:
        sinabs_module("mapping").get_valid_mapping(layers, constraints)
        placed = True
    except ValueError:
        placed = False
    try:
        mapped = SPECK.family.map(quantized.graph, SPECK.chip, split="never")
    except MappingError:
        assert not placed
    else:
        assert placed
        cores = [layer.core for layer in mapped.layers.values()]
        assert len(set(cores)) == len(cores)
        for name, layer in mapped.layers.items():
            assert dict(layer.needs) == layers[of_layer[name]].memory_summary()
            assert layer.core in fitting(Item(name, layer.needs), SPECK.chip.placement_cores())

    raster = torch.from_numpy(rng.poisson(0.3, (STEPS, *net.shape)).astype(np.float32))
    with torch.no_grad():
        theirs_out = theirs(raster)
        ours = to_torch(quantized.graph)(raster[None])
    theirs_out = theirs_out[0] if isinstance(theirs_out, list | tuple) else theirs_out
    assert torch.equal(theirs_out.reshape(STEPS, -1), ours.reshape(STEPS, -1))
    return any(kind != "plain" for kind in net.kinds), placed, int(ours.sum())


def test_random_networks_with_branches_are_those_of_sinabs():
    torch.set_num_threads(1)
    found = [compare(seed) for seed in range(200)]
    assert sum(branches for branches, _, _ in found) >= 100
    placed = sum(placed for _, placed, _ in found)
    assert 40 <= placed <= 190
    assert sum(spikes > 0 for _, _, spikes in found) >= 100
