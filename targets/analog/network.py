"""A network in continuous time as an analog chip sees it: layers of neurons, each with one matrix of weights."""

from dataclasses import dataclass
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConstraintError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, CubaLIF, Input, Linear, Shape
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import INPUT

Floats = NDArray[np.float64]

#: Weights of one layer, zeros of unrolled convolutions included; 2 GiB of float64.
MOST_WEIGHTS = 2**28


@dataclass(frozen=True, eq=False)
class Wanted:
    """One layer, as the network has it.

    Attributes:
        name: of the weight node.
        source: the layer whose spikes it takes, or ``INPUT``.
        parameters: weights and constants; a weight of 0 is no connection.
        max_spikes: of a neuron in one run.
    """

    name: str
    source: str
    parameters: LayerParameters
    max_spikes: int

    @property
    def fires_once(self) -> bool:
        """Whether its neurons are meant to fire at most once, by an endless refractory time."""
        return bool(np.isinf(self.parameters.t_ref).all())

    @property
    def fan_in(self) -> NDArray[np.int64]:
        """Connections of each neuron, int64 ``[N]``."""
        connected: NDArray[np.int64] = (self.parameters.weight != 0).sum(0, dtype=np.int64)
        return connected


@dataclass(frozen=True, eq=False)
class AnalogNetwork:
    """Layers in network order; ``t_max`` is the length of a run in seconds, or ``inf``."""

    inputs: int
    layers: tuple[Wanted, ...]
    t_max: float


def network_of(graph: Graph) -> AnalogNetwork:
    """The layers of a graph that the rules on graphs allow; convolutions are unrolled.

    Raises:
        ConstraintError: a layer has more than ``MOST_WEIGHTS`` weights.
    """
    layers: list[Wanted] = []
    source, inputs, t_max = INPUT, 0, inf
    weight: tuple[str, Floats] | None = None
    for name, node in graph.nodes.items():
        if isinstance(node, Input):
            inputs = prod(node.shape)
        elif isinstance(node, Linear | Conv2d):
            (before,) = graph.predecessors(name)
            weight = name, _matrix(name, node, graph.shapes[before], graph.shapes[name])
        elif isinstance(node, CubaLIF) and weight is not None:
            layer, matrix = weight
            layers.append(Wanted(layer, source, _parameters(node, matrix, graph.shapes[name]), node.max_spikes))
            source, weight = layer, None
            t_max = inf if node.t_max is None else node.t_max
    return AnalogNetwork(inputs, tuple(layers), t_max)


def _parameters(node: CubaLIF, matrix: Floats, shape: Shape) -> LayerParameters:
    def row(value: NDArray[np.floating] | float) -> Floats:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value, np.float64), shape)).reshape(-1)

    return LayerParameters(
        np.ascontiguousarray(matrix * row(node.input_gain)),
        row(node.tau_mem),
        row(node.tau_syn_exc),
        row(node.tau_syn_inh),
        row(node.threshold),
        row(0.0 if node.v_reset is None else node.v_reset),
        row(0.0 if node.t_ref is None else node.t_ref),
    )


def _matrix(name: str, node: Linear | Conv2d, before: Shape, after: Shape) -> Floats:
    """Weights ``[inputs, N]``; those of a convolution at every position."""
    if prod(before) * prod(after) > MOST_WEIGHTS:
        raise ConstraintError(
            f"{name}: {prod(before)} inputs and {prod(after)} neurons make {prod(before) * prod(after):,} weights; the "
            f"limit is {MOST_WEIGHTS:,}.",
            remedy="use a smaller layer.",
            code="too-many-weights",
        )
    if isinstance(node, Linear):
        return node.weight.T.astype(np.float64)
    return unrolled(node, before, after)


def unrolled(node: Conv2d, before: Shape, after: Shape) -> Floats:
    """The matrix ``[C * H * W, F * H' * W']`` of a convolution from maps ``before`` to maps ``after``."""
    _, height, width = before
    features, rows, columns = after
    per_group_out, per_group_in = features // node.groups, node.weight.shape[1]
    matrix = np.zeros((*before, *after))
    for ky, kx in np.ndindex(*node.weight.shape[2:]):
        y = np.arange(rows) * node.stride[0] + ky * node.dilation[0] - node.padding[0]
        x = np.arange(columns) * node.stride[1] + kx * node.dilation[1] - node.padding[1]
        to_y, to_x = np.flatnonzero((y >= 0) & (y < height)), np.flatnonzero((x >= 0) & (x < width))
        at_y, at_x = np.meshgrid(to_y, to_x, indexing="ij")
        for feature, channel in np.ndindex(features, per_group_in):
            source = feature // per_group_out * per_group_in + channel
            matrix[source, y[at_y], x[at_x], feature, at_y, at_x] += node.weight[feature, channel, ky, kx]
    return matrix.reshape(np.prod(before), -1)
