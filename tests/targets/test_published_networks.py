"""The published MNIST and DVS gesture networks, with their trained weights, compile for a Speck2f."""

import itertools

import numpy as np
import pytest

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import AvgPool2d, Conv2d, Flatten, Input, Linear, Neuron, Node, Output
from neurodeploy.program_file import program_hash, read_program, write_program
from neurodeploy.quantize import quantize
from neurodeploy.target import load_target
from tests.shared_data import SHARED, needs_shared
from tests.targets.networks import GESTURE, GESTURE_INPUT, MNIST, MNIST_INPUT

pytestmark = needs_shared
torch = pytest.importorskip("torch")


def network(file, input_shape, spec):
    """The ReLU network of the file as a spiking one: threshold 1, v_min -1."""
    parameters = torch.load(SHARED / "speck-reference" / file, map_location="cpu", weights_only=True)
    weights = [value.numpy() for name, value in parameters.items() if name.endswith("weight")]
    nodes: dict[str, Node] = {"input": Input(input_shape)}
    flat = False
    for i, (weight, (_, _, stride, padding, pooling)) in enumerate(zip(weights, spec, strict=True)):
        if weight.ndim == 4:
            nodes[f"layer{i}"] = Conv2d(weight, None, (stride, stride), (padding, padding))
        else:
            if not flat:
                nodes["flatten"] = Flatten()
            flat = True
            nodes[f"layer{i}"] = Linear(weight)
        nodes[f"spike{i}"] = Neuron(np.array(1, np.float32), np.array(-1, np.float32))
        if pooling > 1:
            nodes[f"pool{i}"] = AvgPool2d((pooling, pooling), (pooling, pooling))
    nodes["output"] = Output()
    names = list(nodes)
    return Graph(nodes, tuple(itertools.pairwise(names)))


@pytest.mark.parametrize(
    ("file", "input_shape", "spec", "cores"),
    [
        ("mnist_params.pt", MNIST_INPUT, MNIST, {0, 1, 3, 5, 6}),
        ("dvs_gesture_params.pt", GESTURE_INPUT, GESTURE, set(range(9))),
    ],
)
def test_it_compiles(file, input_shape, spec, cores, tmp_path):
    target = load_target("speck2f")
    graph = network(file, input_shape, spec)
    assert [f for f in target.family.check(graph, target.chip) if f.rule.severity == "error"] == []
    quantized = quantize(graph, target.family.quantization_spec(target.chip))
    mapped = target.family.map(quantized.graph, target.chip)
    assert {layer.core for layer in mapped.layers.values()} == cores
    program = target.family.lower(mapped)
    write_program(tmp_path / "program.json", program)
    assert program_hash(read_program(tmp_path / "program.json")) == program_hash(program)
    assert program.layers == tuple(f"layer{i}" for i in range(len(spec)))
    target.family.executor(program)
