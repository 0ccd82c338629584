"""Networks of spike times as ONNX: stored whole, executed by nobody but neurodeploy.

Standard operators work on values per time step; what passes between layers of continuous time are spike times. So every
node is an operator of a domain of its own, which other runtimes refuse by name.
"""

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import CubaLIF, Input, Output
from neurodeploy.graph.onnx_context import Context

DOMAIN, DOMAIN_VERSION = "neurodeploy.spike_times", 1

DOC = (
    "A network of spike times in continuous time, (B, ..., spikes) in seconds. No ONNX runtime executes it. Remedy: "
    'open it with neurodeploy.load, and run it with neurodeploy.compile(graph, target="ideal").emulate(times).'
)


def has_spike_times(graph: Graph) -> bool:
    """Whether spike times pass between the layers of the graph."""
    return any(isinstance(node, CubaLIF) for node in graph.nodes.values())


def write_spike_times(context: Context) -> None:
    """Write every node as the operator of its kind; its arrays are inputs behind those of the network."""
    builder = context.builder
    times = np.dtype(np.float64)
    for name, node in context.graph.nodes.items():
        shape: list[int | str] = ["B", *context.graph.shapes[name], f"{name}.spikes"]
        builder.own(name, node)
        if isinstance(node, Input):
            builder.model_input(builder.name(name), times, shape)
            continue
        arrays = [array for (owner, _), array in context.arrays.items() if owner == name]
        inputs = [*context.graph.predecessors(name), *arrays]
        builder.call(node.kind, inputs, [name], domain=DOMAIN)
        if isinstance(node, Output):
            builder.model_output(name, times, shape)
