"""Chip-in-the-forward training: forward with the integers that ship, backward as in float."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, BatchNorm2d, Conv2d, Linear, Neuron
from neurodeploy.graph.torch_modules import IDENTITY, node_of
from neurodeploy.graph.torch_reader import trace
from neurodeploy.graph.torch_writer import sums_are_exact
from neurodeploy.nn import LIF, SpikingLayer, reset_states
from neurodeploy.quantize import PASSES, Calibration, QuantizationSpec, Quantized, load_calibration, quantize
from neurodeploy.surrogate import rescaled
from neurodeploy.target import Target, load_target

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


class OnChip(torch.nn.Module):
    """A network whose forward pass is that of its integers on a chip, in time steps.

    Each call quantizes the network's current weights, biases and thresholds exactly as ``nd.compile`` does and runs the
    network on the integers: the spikes equal those of the time-stepped integer network (``to_torch(quantized.graph)``),
    bit for bit. The backward pass takes rounding for the identity (straight-through) and each layer's scale for a
    constant; spikes have their surrogate derivative at the integer potentials, in units of the integer threshold.

    The parameters are those of ``network``: train ``network.parameters()`` with any optimizer, then
    ``nd.compile(nd.trace(network, sample), target=target, ...)`` gives the integers of the last forward pass.

    Approximated in time steps: a chip neuron compares after every event and fires at most once per event; here all
    events of a step are added before the comparison. Weights at or below the threshold keep the difference small.
    Dropout is off, and every call starts from silent neurons.

    Args:
        network: what ``nd.trace`` reads, with spiking layers of neurodeploy (``nd.accelerate`` makes them of sinabs').
        sample: a batch the network takes, for tracing; the values do not matter.
        target: name of the chip, path of a ``chip.yaml``, a loaded chip; or integer widths alone, which checks no rules
            of a chip.
        v_min, calibration: lower bound of the potentials, clipped weight ranges and moved thresholds, as for
            ``nd.compile``.

    Attributes:
        network: the network, in float.
        quantized: the integers of the last forward pass.

    Raises:
        GraphError: the network cannot be traced, or holds something that has no integers while training.
        QuantizeError: a layer cannot be expressed in integers; calls raise it too, when training leads there.
        ConstraintError, MappingError, ConfigError: the network does not fit the chip.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        sample: torch.Tensor,
        *,
        target: str | Path | Target | QuantizationSpec = "speck2f",
        v_min: str | float | None = None,
        calibration: Calibration | str | Path | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._v_min = v_min
        self._calibration = load_calibration(calibration) if isinstance(calibration, str | Path) else calibration
        self._graph = trace(network, sample)
        self._layers = {name: part for name, part in network.named_modules() if name in self._graph.nodes}
        _check(self._graph, network, self._layers)
        self._factors = _folded_factors(self._graph)
        if isinstance(target, str | Path):
            target = load_target(target)
        self._spec = target.family.quantization_spec(target.chip) if isinstance(target, Target) else target
        self.quantized = self.quantize()
        if isinstance(target, Target):
            target.family.map(self.quantized.graph, target.chip)

    def quantize(self) -> Quantized:
        """The integers of the network as it is now.

        Raises:
            QuantizeError: a layer cannot be expressed in integers.
        """
        nodes = {
            name: node_of(name, self._layers[name], self._graph.shapes[self._graph.predecessors(name)[0]])
            for name, node in self._graph.nodes.items()
            if isinstance(node, Conv2d | Linear | Neuron)
        }
        return quantize(self._graph.with_nodes(nodes), self._spec, v_min=self._v_min, calibration=self._calibration)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes of the network on integers; shapes are those of the network.

        Args:
            x: events per step, whole numbers.

        Raises:
            GraphError: x holds fractions, or sums that are not exact in float64.
            QuantizeError: the weights of a layer cannot be expressed in integers any more.
        """
        if not torch.equal(x, x.round()):
            raise GraphError(
                "the raster holds fractions; a chip counts events.",
                remedy="give numbers of events per step.",
                code="raster-values",
            )
        self.quantized = self.quantize()
        for dtype in (torch.float32, torch.float64):
            try:
                with self._integers(dtype) as tensors:
                    # Half-precision or Winograd shortcuts round; on the CPU only NNPACK takes them for float32.
                    with torch.backends.nnpack.flags(enabled=False):
                        spikes: torch.Tensor = torch.func.functional_call(
                            self.network, tensors, x.to(dtype), tie_weights=False
                        )
                    return spikes.to(x.dtype)
            except _InexactError:
                continue
        raise GraphError(
            "the sums in this network are too large to be exact in float64.",
            remedy="use fewer events per step.",
            code="raster-values",
        )

    @contextmanager
    def _integers(self, dtype: torch.dtype) -> Iterator[dict[str, torch.Tensor]]:
        """The integers that take the place of parameters; inside, the modules are set to compute with them."""
        graph = self.quantized.graph
        tensors: dict[str, torch.Tensor] = {}
        with ExitStack() as undo:
            for part in self.network.modules():
                if isinstance(part, torch.nn.AvgPool2d):
                    undo.enter_context(_changed(part, divisor_override=1))
                elif isinstance(part, IDENTITY):
                    undo.enter_context(_changed(part, training=False))
            for name, outcome in self.quantized.layers.items():
                layer, neurons = self._layers[name], self._layers[outcome.neuron]
                conv, neuron = graph.nodes[name], graph.nodes[outcome.neuron]
                if not isinstance(conv, Conv2d) or not isinstance(neuron, Neuron) or neuron.v_min is None:
                    raise TypeError(f"{name} and {outcome.neuron} are not the nodes that were quantized")
                for field, values in (("weight", conv.weight), ("bias", conv.bias)):
                    if values is not None:
                        parameter = getattr(layer, field)
                        scale = outcome.scale * self._factors[name, field]
                        tensors[f"{name}.{field}"] = _straight_through(parameter, values, scale, dtype)
                threshold = neurons.threshold
                tensors[f"{outcome.neuron}.threshold"] = _straight_through(
                    threshold,
                    np.broadcast_to(neuron.threshold, threshold.shape),
                    outcome.scale * outcome.threshold_factor,
                    dtype,
                )
                undo.enter_context(
                    _changed(
                        neurons,
                        neuron=replace(
                            neurons.neuron,
                            v_min=float(neuron.v_min),
                            surrogate=rescaled(neurons.neuron.surrogate, outcome.scale),
                        ),
                        **({"norm_input": False} if isinstance(neurons, LIF) else {}),
                    )
                )
                handle = layer.register_forward_pre_hook(self._exactness_check(name))
                undo.callback(handle.remove)
            reset_states(self.network)
            undo.callback(reset_states, self.network)
            yield tensors

    def _exactness_check(self, name: str) -> Any:
        def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            # At most all rows of the folded batch are steps of one recording.
            if not sums_are_exact(self.quantized.graph, name, inputs[0].detach(), inputs[0].shape[0]):
                raise _InexactError

        return hook


class _InexactError(Exception):
    """Sums that this float type might round."""


class _StraightThrough(torch.autograd.Function):
    """Integers forward; backward the gradient of ``scale * parameter``."""

    @staticmethod
    def forward(ctx: "FunctionCtx", parameter: torch.Tensor, integers: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale, ctx.dtype = scale, parameter.dtype  # type: ignore[attr-defined]
        return integers

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (grads[0] * ctx.scale).to(ctx.dtype), None, None


def _straight_through(parameter: torch.Tensor, integers: Any, scale: float, dtype: torch.dtype) -> torch.Tensor:
    values = torch.from_numpy(np.array(integers, np.float64)).to(parameter.device, dtype).reshape(parameter.shape)
    tensor: torch.Tensor = _StraightThrough.apply(parameter, values, scale)  # type: ignore[no-untyped-call]
    return tensor


@contextmanager
def _changed(module: torch.nn.Module, **values: Any) -> Iterator[None]:
    """Attributes of a module set to other values inside."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def _folded_factors(graph: Graph) -> dict[tuple[str, str], float]:
    """What the passes before rounding multiply weights and biases by: (layer, "weight" or "bias") -> factor.

    Average pools and input gains are constants; they are read off a network of ones.
    """
    ones = {
        name: replace(
            node,
            weight=np.ones_like(node.weight),
            bias=None if node.bias is None else np.ones_like(node.bias),
        )
        for name, node in graph.nodes.items()
        if isinstance(node, Conv2d | Linear)
    }
    graph = graph.with_nodes(ones)
    for step in PASSES:
        graph = step(graph)
    factors: dict[tuple[str, str], float] = {}
    for name in ones:
        node = graph.nodes[name]
        for field in ("weight", "bias"):
            values = getattr(node, field)
            if values is not None:
                factors[name, field] = float(values.flat[0])
    return factors


def _check(graph: Graph, network: torch.nn.Module, layers: dict[str, torch.nn.Module]) -> None:
    """Refuse what can be compiled but not trained on its integers."""
    for name, node in graph.nodes.items():
        if isinstance(node, BatchNorm2d):
            raise GraphError(
                f"{name}: a BatchNorm has no integers while its statistics change.",
                remedy="fold it into the layer before it: torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm).",
                code="on-chip-batch-norm",
            )
        if isinstance(node, Neuron):
            if isinstance(graph.nodes[graph.predecessors(name)[0]], Add):
                raise GraphError(
                    f"{name}: layers that are added in front of neurons become one layer of the chip; their integers "
                    "are not trained.",
                    remedy="give each branch neurons of its own and add their spikes.",
                    code="on-chip-layer",
                )
            layer = layers[name]
            if not isinstance(layer, SpikingLayer):
                raise GraphError(
                    f"{name}: a {type(layer).__name__} cannot compute with integers.",
                    remedy="call nd.accelerate(network) first.",
                    code="on-chip-layer",
                )
            if isinstance(layer, LIF) and layer.norm_input and layer.tau_mem.requires_grad:
                raise GraphError(
                    f"{name}: a learnt time constant with norm_input would change the weights it is folded into.",
                    remedy="use norm_input=False, or do not learn the time constant.",
                    code="on-chip-layer",
                )
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.LPPool2d | torch.nn.AdaptiveAvgPool2d):
            raise GraphError(
                f"{name}: {type(part).__name__} rounds.",
                remedy="use nd.nn.SumPool2d, which adds.",
                code="on-chip-layer",
            )
