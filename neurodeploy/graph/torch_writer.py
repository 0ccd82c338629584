"""The graph as a torch module that runs it step by step: the time-stepped meaning of a float or an integer network."""

import numpy as np
import torch
import torch.nn.functional as F

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.loops import units
from neurodeploy.graph.nodes import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv1d,
    Conv2d,
    CubaLIF,
    Feedback,
    Flatten,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Relu,
    Scale,
    SumPool2d,
    Threshold,
)
from neurodeploy.graph.torch_state import Stateful, stateful, tensor

#: Sums below this are exact. The integers of the types reach four times as far; the margin keeps the quotient of
#: potential and threshold, whose whole part is the number of spikes, from being rounded up to a whole number.
_EXACT = {torch.float32: 2.0**22, torch.float64: 2.0**51}


#: Kinds whose integer arithmetic is proven to be exact.
_INTEGER = (Add, Concat, Conv2d, Flatten, Input, Linear, Neuron, Output, SumPool2d)


def to_torch(graph: Graph, dtype: torch.dtype | None = None) -> "GraphModule":
    """A module that runs ``graph`` on rasters.

    Args:
        graph: float, or integer as ``quantize`` makes it.
        dtype: type to compute in. None: float32 for a float graph; for an integer graph float32 where the sums that
            occur are proven to be exact in it, else float64, so that the results are those of integer arithmetic.

    Raises:
        GraphError: the graph has several inputs or outputs, or integer weights beside nodes or loops whose integer
            arithmetic is not proven exact (``dtype`` given: they run in that type).
    """
    return GraphModule(graph, dtype)


class GraphModule(torch.nn.Module):
    """Runs a graph on rasters; every call starts from the network's initial state. Made by ``to_torch``.

    Attributes:
        graph: the graph.
        integer: whether it holds integers.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype | None) -> None:
        super().__init__()
        outputs = [name for name, node in graph.nodes.items() if isinstance(node, Output)]
        if len(outputs) != 1:
            raise GraphError(
                f"the graph has {len(outputs)} outputs: {', '.join(outputs)}.",
                remedy="use a network with one output.",
                code="several-outputs",
            )
        self.graph = graph
        self.dtype = dtype
        self.input_shape = graph.input_shape()
        self.integer = any(
            isinstance(node, Conv1d | Conv2d | Linear) and node.weight.dtype.kind == "i"
            for node in graph.nodes.values()
        )
        self._units = units(graph)
        for name, node in graph.nodes.items():
            if isinstance(node, CubaLIF):
                raise GraphError(
                    f"{name}: a {node.kind} runs in continuous time, not in time steps.",
                    remedy='run it on the emulator: nd.compile(graph, target="ideal").emulate(times).',
                    code="continuous-time",
                )
        self._keys = {name: f"node{position}" for position, name in enumerate(graph.nodes)}
        for name, node in graph.nodes.items():
            if self.integer and dtype is None and not isinstance(node, _INTEGER):
                raise GraphError(
                    f"{name}: a {node.kind} in an integer network is not proven to be exact.",
                    remedy="give dtype=torch.float64.",
                    code="inexact",
                )
            module = stateful(node)
            if module is not None:
                self.add_module(self._keys[name], module)
                continue
            for field in ("weight", "bias", "mean", "variance", "scale", "shift", "threshold"):
                value = getattr(node, field, None)
                if value is not None:
                    self.register_buffer(f"{self._keys[name]}_{field}", tensor(value), persistent=False)

    @torch.no_grad()
    def forward(self, raster: torch.Tensor) -> torch.Tensor:
        """Run all time steps.

        Args:
            raster: events per step, ``(B, T, *input_shape)``; whole numbers for an integer graph.

        Returns:
            The output, ``(B, T, *output_shape)``.

        Raises:
            GraphError: the raster has another shape, or fractions where the graph is of integers.
        """
        values = self._values(raster)
        return next(values[name] for name, node in self.graph.nodes.items() if isinstance(node, Output))

    @torch.no_grad()
    def record(self, raster: torch.Tensor) -> dict[str, torch.Tensor]:
        """Like ``forward``, but returns the spikes of every neuron node: name -> ``(B, T, *shape)``."""
        values = self._values(raster)
        return {name: values[name] for name, node in self.graph.nodes.items() if isinstance(node, Neuron)}

    def _values(self, raster: torch.Tensor) -> dict[str, torch.Tensor]:
        """The values of neurons and output, in the first type that is exact enough."""
        if raster.dim() != len(self.input_shape) + 2 or tuple(raster.shape[2:]) != self.input_shape:
            raise GraphError(
                f"the raster has shape {tuple(raster.shape)}; the network takes (B, T, "
                f"{', '.join(map(str, self.input_shape))}).",
                remedy="give batch and time axes first, and the sensor size the network was made for.",
                code="raster-shape",
            )
        if self.integer and raster.is_floating_point() and not torch.equal(raster, raster.round()):
            raise GraphError(
                "the raster holds fractions; an integer network counts events.",
                remedy="give numbers of events per step.",
                code="raster-values",
            )
        if self.dtype is not None:
            runs = [self.dtype]
        elif self.integer:
            # Half-precision shortcuts of accelerators would break exactness in float32.
            runs = [torch.float32, torch.float64] if raster.device.type == "cpu" else [torch.float64]
        else:
            runs = [torch.float32]
        for dtype in runs:
            values = self._run(raster.to(dtype), check=self.integer and self.dtype is None)
            if values is not None:
                return values
        raise GraphError(
            "the sums in this network are too large to be exact in float64.",
            remedy="use fewer events per step.",
            code="raster-values",
        )

    def _run(self, raster: torch.Tensor, check: bool) -> dict[str, torch.Tensor] | None:
        """The values of all nodes that are still needed or are neurons; None where integers might not be exact."""
        values: dict[str, torch.Tensor] = {}
        waiting = {name: len(self.graph.successors(name)) for name in self.graph.nodes}
        with torch.backends.nnpack.flags(enabled=not self.integer):  # its convolutions round
            for unit in self._units:
                if len(unit) > 1:
                    values.update(self._run_loop(unit, values, raster))
                else:
                    name = unit[0]
                    node, inputs = self.graph.nodes[name], [values[source] for source in self.graph.predecessors(name)]
                    if (
                        check
                        and isinstance(node, Conv2d | Linear)
                        and not sums_are_exact(self.graph, name, inputs[0], raster.shape[1])
                    ):
                        return None
                    values[name] = raster if isinstance(node, Input) else self._compute(name, node, inputs)
                for source in (source for name in unit for source in self.graph.predecessors(name)):
                    waiting[source] -= 1
                    if waiting[source] == 0 and not isinstance(self.graph.nodes[source], Neuron):
                        del values[source]
        return values

    def _run_loop(
        self, unit: list[str], values: dict[str, torch.Tensor], raster: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The values of the nodes of a loop, step by step; a Feedback gives what it received in the step before."""
        batch, steps = raster.shape[:2]
        states: dict[str, torch.Tensor] = {}
        before = {
            name: raster.new_zeros(batch, 1, *node.shape)
            for name in unit
            if isinstance(node := self.graph.nodes[name], Feedback)
        }
        recorded = {name: raster.new_empty(batch, steps, *self.graph.shapes[name]) for name in unit}
        for t in range(steps):
            now = dict(before)
            for name in unit:
                if name not in before:
                    inputs = [
                        now[source] if source in recorded else values[source][:, t : t + 1]
                        for source in self.graph.predecessors(name)
                    ]
                    now[name] = self._compute(name, self.graph.nodes[name], inputs, states)
                recorded[name][:, t : t + 1] = now[name]
            before = {name: now[self.graph.predecessors(name)[0]] for name in before}
        return recorded

    def _compute(
        self, name: str, node: Node, inputs: list[torch.Tensor], states: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The node's output for the steps of its inputs; ``states`` carries states from call to call."""
        x = inputs[0]
        if self._keys[name] in self._modules:
            module: Stateful = self.get_submodule(self._keys[name])  # type: ignore[assignment]
            output, state = module.run(x, None if states is None else states.get(name))
            if states is not None:
                states[name] = state
            return output
        if isinstance(node, Output):
            return x
        if isinstance(node, Add):
            return torch.stack(inputs).sum(0)
        if isinstance(node, Concat):
            return torch.cat(inputs, 2)
        if isinstance(node, Scale):
            return self._own(name, "scale", x) * x
        if isinstance(node, Threshold):
            threshold = self._own(name, "threshold", x)
            return (x >= threshold if node.compare == ">=" else x > threshold).to(x)
        folded = x.flatten(0, 1)
        match node:
            case Conv2d():
                weight, bias = self._own(name, "weight", x), self._bias(name, x)
                result = F.conv2d(folded, weight, bias, node.stride, node.padding, node.dilation, node.groups)
            case Conv1d():
                weight, bias = self._own(name, "weight", x), self._bias(name, x)
                result = F.conv1d(folded, weight, bias, node.stride, node.padding, node.dilation, node.groups)
            case Linear():
                result = F.linear(folded, self._own(name, "weight", x), self._bias(name, x))
            case BatchNorm2d():
                mean, variance = self._own(name, "mean", x), self._own(name, "variance", x)
                scale, shift = self._own(name, "scale", x), self._own(name, "shift", x)
                result = F.batch_norm(folded, mean, variance, scale, shift, eps=node.epsilon)
            case AvgPool2d():
                result = F.avg_pool2d(folded, node.kernel, node.stride, node.padding)
            case SumPool2d():
                result = F.avg_pool2d(folded, node.kernel, node.stride, node.padding, divisor_override=1)
            case Flatten():
                result = folded.flatten(1)
            case Relu():
                result = folded.relu()
            case _:
                raise GraphError(f"{name}: a {node.kind} cannot be run.", remedy="remove it.", code="unsupported-node")
        return result.reshape(*x.shape[:2], *result.shape[1:])

    def _own(self, name: str, field: str, like: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = getattr(self, f"{self._keys[name]}_{field}")
        return value.to(like)

    def _bias(self, name: str, like: torch.Tensor) -> torch.Tensor | None:
        has_one = getattr(self.graph.nodes[name], "bias", None) is not None
        return self._own(name, "bias", like) if has_one else None


def sums_are_exact(graph: Graph, name: str, x: torch.Tensor, n_time_steps: int) -> bool:
    """Whether no sum of a weight layer, and no potential of its neurons, can leave the exact integers of ``x``'s type.

    Args:
        graph: a network of integers.
        name: a Conv2d or Linear of it.
        x: what enters the layer in all time steps: whole numbers.
        n_time_steps: how many they are.
    """
    node = graph.nodes[name]
    if not isinstance(node, Conv2d | Linear):
        raise TypeError(f"{name} is a {node.kind}")
    reach = np.abs(node.weight.reshape(len(node.weight), -1).astype(np.int64)).sum(1)
    bias = 0 if node.bias is None else np.abs(node.bias.astype(np.int64))
    largest = float(x.abs().amax()) if x.numel() else 0.0
    per_step = float((reach * largest + bias).max())
    reached = 0.0
    for neuron in (graph.nodes[after] for after in graph.successors(name)):
        if isinstance(neuron, Neuron):
            limits = (neuron.threshold, neuron.v_min, neuron.initial_v, neuron.v_reset)
            start = max(float(np.abs(limit.astype(np.float64)).max()) for limit in limits if limit is not None)
            below = neuron.reset == "zero" or (neuron.reset == "subtract" and neuron.spikes == "multi")
            # With a lower bound, and a reset that always ends below the threshold, sums do not add up over time.
            steps = 1 if below and neuron.v_min is not None else n_time_steps
            reached = max(reached, start + per_step * steps)
    return max(reached, per_step) < _EXACT[x.dtype]
