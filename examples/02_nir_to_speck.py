"""A network in a NIR file, as any NIR framework writes it: read it, see what was assumed, check it, compile it.

Run it: python examples/02_nir_to_speck.py
"""

import tempfile
from pathlib import Path

import nir
import numpy as np

import neurodeploy as nd
from neurodeploy.errors import NeurodeployError

rng = np.random.default_rng(0)


def network(stride: int) -> nir.NIRGraph:
    """Convolution and integrate-and-fire neurons, then a linear layer and its neurons."""
    side = (16 - 3) // stride + 1
    convolution = nir.Conv2d(
        (16, 16), rng.normal(0, 0.3, (4, 2, 3, 3)), stride, padding=0, dilation=1, groups=1, bias=np.zeros(4)
    )
    neurons = nir.IF(np.ones((4, side, side)), np.ones((4, side, side)))
    return nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([2, 16, 16])),
            "conv": convolution,
            "neurons": neurons,
            "flatten": nir.Flatten({"input": np.array([4, side, side])}, start_dim=0, end_dim=-1),
            "linear": nir.Linear(rng.normal(0, 0.1, (10, 4 * side * side))),
            "readout": nir.IF(np.ones(10), np.ones(10)),
            "output": nir.Output(np.array([10])),
        },
        edges=[
            ("input", "conv"),
            ("conv", "neurons"),
            ("neurons", "flatten"),
            ("flatten", "linear"),
            ("linear", "readout"),
            ("readout", "output"),
        ],
    )


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "network.nir"
    nir.write(path, network(stride=2))
    graph = nd.load(path, reset="subtract")
    for note in graph.notes:
        print("note:", note)
    deployment = nd.compile(graph, target="speck2f", v_min="-threshold")
    deployment.save(Path(folder) / "build")
    print("cores:", {name: core.core for name, core in nd.open(Path(folder) / "build").layers.items()})

    # What a chip cannot hold is refused with the rule, the value, the limit and a remedy.
    nir.write(path, network(stride=3))
    try:
        nd.compile(path, target="speck2f")
    except NeurodeployError as error:
        print(f"refused [{error.code}]:", error)
