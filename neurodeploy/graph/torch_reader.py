"""Torch modules into the graph: one run on a sample, watching which module's output goes into which module."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import Add, Compare, Concat, Flatten, Input, Neuron, Node, Output, Relu, Shape
from neurodeploy.graph.torch_modules import MAX_POOL, is_identity, is_leaf, is_merge, nodes_of
from neurodeploy.graph.torch_neurons import SYNAPSE
from neurodeploy.graph.torch_parameters import refused
from neurodeploy.graph.torch_peers import Cell, is_peer, starts_elsewhere
from neurodeploy.graph.torch_spike_times import NEURON, check_time_unit, is_spike_time_layer, spike_time_nodes

_ADD = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_RESHAPE = {"flatten", "ravel", "reshape", "view", "unflatten", "squeeze", "unsqueeze"}
_SAME = {"contiguous", "clone", "detach", "to", "float", "double", "requires_grad_", "data"}
_CONCAT = {"cat", "concat", "concatenate"}
_RELU = {"relu", "relu_"}
_TAKEN_APART = {"unbind", "split", "chunk"}
_STEPS = {"__getitem__", "select", "stack", *_TAKEN_APART, *_CONCAT}
_MAX_POOL = {"max_pool2d", "max_pool2d_with_indices", "_max_pool2d", "boolean_dispatch"}
_ONE_STEP = "give a sample of one time step, (1, B, ...): its loop over time then runs once, and stands for all steps"
_DROPOUT = {"dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout"}


@dataclass(frozen=True)
class _Value:
    """A tensor of the run that is the output of a node. Holding the tensor keeps its ``id`` from being used again."""

    tensor: torch.Tensor
    node: str
    shape: Shape


def trace(
    module: torch.nn.Module,
    sample: torch.Tensor,
    *,
    compare: Compare | None = None,
    time_unit_s: float | None = None,
) -> Graph:
    """Read a torch module into the graph by running a copy of it once, in evaluation mode, on ``sample``.

    Modules may be called in any order, with branches that meet in a ``Merge``, in ``a + b``, or in ``torch.cat`` along
    the channels. Between modules a tensor may be flattened, reshaped between ``(B, T, ...)`` and ``(B * T, ...)``,
    copied, or pass through dropout or a ReLU. Anything else that happens to a tensor outside the supported modules is
    refused. Names of nodes are the qualified names of the modules (``"conv1"``, ``"0"``); a synaptic filter is
    ``"lif.synapse"``. Parameters become float32. States that layers hold or return are not taken over.

    A network that calls its layers once per time step (a loop over time, ``norse.torch.Lift``) is read from a sample of
    one time step: what the loop does in this step is taken to be what it does in all of them. Layers that are not
    called in it, such as recurrent connections that a first step skips, are named in ``notes``.

    A network of SpikeTimeLinear and SpikeTimeConv2d layers, which work in continuous time, is read from a sample of
    spike times, ``(B, N, slots)`` or ``(B, C, H, W, slots)``; ``inf`` everywhere will do. A layer ``"hidden"`` becomes
    its weights and neurons ``"hidden.neuron"``, in seconds. Between them maps may be flattened (``flatten(1, 3)``).

    Args:
        module: a network of Conv2d, Linear, BatchNorm2d, AvgPool2d, AdaptiveAvgPool2d, SumPool2d, Flatten, ReLU,
            Dropout, Identity, Merge; IAF, LIF, CubaLIF and LI layers of neurodeploy; IAF, LIF and ExpLeak of sinabs
            (with ``tau_syn`` and the ``Squeeze`` forms too); Leaky and Synaptic of snnTorch; IFNode, LIFNode and
            ParametricLIFNode of SpikingJelly, in either step mode; IAF, LIF, LIFBox, LI and LIBox of Norse.
        sample: a batch the module takes; the values do not matter. Its last axes are the shape per sample and time
            step: ``(C, H, W)`` of ``(B, T, C, H, W)``, ``(B * T, C, H, W)`` or ``(B, C, H, W)``; ``(N,)`` of
            ``(B, T, N)`` or ``(B, N)``. ``layout="TB"`` works alike.
        time_unit_s: for layers of spike times: the seconds that 1 stands for in their times.
        compare: ``">="`` lets all neurons fire at the threshold, as chips do, where a library's fire only above it
            (snnTorch and Norse); ``">"`` the other way round. None: as the library.

    Raises:
        GraphError: a module or operation has no equivalent; the message names it and the remedy.
    """
    if compare not in (None, ">=", ">"):
        raise GraphError(f"compare is {compare!r}.", remedy="choose '>=' or '>', or leave it out.", code="option")
    check_time_unit(module, time_unit_s)
    if not isinstance(sample, torch.Tensor) or sample.dim() not in (2, 3, 4, 5) or not sample.numel():
        found = f"shape {tuple(sample.shape)}" if isinstance(sample, torch.Tensor) else type(sample).__name__
        raise GraphError(
            f"the sample is {found}; it must be a tensor with 2 to 5 axes.",
            remedy="give (B, T, C, H, W), (B * T, C, H, W), (B, T, N) or (B, N).",
            code="sample",
        )
    try:
        watched = copy.deepcopy(module).eval()
    except (RuntimeError, TypeError, AttributeError) as error:
        for name, part in module.named_modules():
            is_leaf(name, part)  # an unsupported module is the better explanation
        remedy = "call nd.nn.reset_states(module) first, and keep no tensors with gradients in the module."
        if pruned := [name for name, _ in module.named_parameters() if name.endswith("_orig")]:
            layer, _, weight = pruned[0].removesuffix("_orig").rpartition(".")
            remedy = f"make the pruning of {layer} permanent first: torch.nn.utils.prune.remove(layer, {weight!r})."
        raise GraphError(f"the module cannot be copied: {error}.", remedy=remedy, code="copy") from error
    tracer = _Tracer(watched, sample.detach(), compare, time_unit_s)
    try:
        return tracer.run()
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        where = tracer.place()
        raise GraphError(
            f"{where}the module cannot run on a sample of shape {tuple(sample.shape)}: {error}.",
            remedy="give a sample that module(sample) accepts; batch_size and num_timesteps of layers must fit it.",
            code="sample",
        ) from error


class _Tracer(TorchFunctionMode):
    """Follows tensors from node to node; inside a leaf module it looks away.

    Tensors of spike times (``time_unit_s`` given) have an axis of slots behind the shape of their node.
    """

    def __init__(
        self, module: torch.nn.Module, sample: torch.Tensor, compare: Compare | None, time_unit_s: float | None
    ) -> None:
        super().__init__()
        self.module = module
        self.sample = sample
        self.compare = compare
        self.time_unit_s = time_unit_s
        self.slots = int(time_unit_s is not None)
        features = 3 if sample.dim() > 3 else 1
        end = sample.dim() - self.slots
        self.items = prod(sample.shape[: end - features])
        self.names = {id(part): name or type(part).__name__ for name, part in module.named_modules()}
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.notes: dict[str, list[str]] = {}
        self.values: dict[int, _Value] = {}
        self.path: list[torch.nn.Module] = []
        self.entered: set[int] = set()
        self.leaf: torch.nn.Module | None = None
        shape = tuple(sample.shape[end - features : end])
        self._define(self._free("input"), Input(shape), [], sample)

    def run(self) -> Graph:
        hooks = []
        for part in self.module.modules():
            hooks.append(part.register_forward_pre_hook(self._enter, with_kwargs=True))
            hooks.append(part.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with torch.no_grad(), self:
                result = self.module(self.sample)
        finally:
            for hook in hooks:
                hook.remove()
        outputs = {value.node: value for value in self._tracked(result)}
        if len(outputs) != 1:
            raise GraphError(
                f"the module returns {type(result).__name__} with the outputs of {len(outputs)} of its layers; it must "
                "be that of one.",
                remedy="return one tensor, the spikes of the last layer (and states of neurons, which are left out).",
                code="output",
            )
        (value,) = outputs.values()
        for part in self.module.modules():
            if any(True for _ in part.parameters(recurse=False)) and id(part) not in self.entered:
                self._remark("has parameters and was not called in this pass", self._name(part))
        name = self._free("output")
        self.nodes[name] = Output()
        self.edges.append((value.node, name))
        return Graph(
            self.nodes, tuple(self.edges), tuple(f"{text}: {', '.join(of)}." for text, of in self.notes.items())
        )

    def place(self) -> str:
        """Where the run stands, for messages: the innermost named module, or nothing."""
        return f"{self._name(self.path[-1])}: " if self.path else ""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.leaf is None:
            self._operation(func, args, kwargs or {}, result)
        return result

    def _enter(self, part: torch.nn.Module, _args: Any, _kwargs: Any) -> None:
        self.path.append(part)
        self.entered.add(id(part))
        if self.leaf is None and is_leaf(self._name(part), part):
            self.leaf = part

    def _leave(self, part: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if part is self.leaf:
            self.leaf = None
            self._module(part, (args, kwargs), result)
        self.path.pop()

    def _module(self, part: torch.nn.Module, arguments: Any, result: Any) -> None:
        name, inputs = self._name(part), self._tracked(arguments)
        if is_peer(part):
            self._check_states(name, part, arguments)
            result = result[0] if isinstance(result, tuple) else result
        wanted = 2 if is_merge(part) else 1
        if not isinstance(result, torch.Tensor) or len(inputs) != wanted:
            raise GraphError(
                f"{name}: this {type(part).__name__} takes {len(inputs)} tensors of the network and returns "
                f"{type(result).__name__}; it must take {wanted} and return one.",
                remedy="call it on the output of another layer, without extra states or outputs.",
                code="module-call",
            )
        if is_identity(part):
            self._remark("computes nothing at inference and is dropped", name)
            self._same(inputs[0], result)
            return
        if self.time_unit_s is not None and self._spike_times(name, part, inputs[0], result):
            return
        read = nodes_of(name, part, inputs[0].shape)
        if isinstance(read, Flatten):
            self._reshape(name, inputs[0], result)
            return
        if name in self.nodes:
            raise GraphError(
                f"{name}: called more than once in one pass.",
                remedy="run all time steps in one call and give each place in the network a module of its own; where "
                f"the network steps through time itself, {_ONE_STEP}.",
                code="called-twice",
            )
        if isinstance(read, Cell):
            self._cell(name, read, inputs[0], result)
        else:
            self._define(name, read, inputs, result)

    def _cell(self, name: str, cell: Cell, value: _Value, result: torch.Tensor) -> None:
        *before, membrane = cell.nodes
        for text in cell.notes:
            self._remark(text, name)
        if isinstance(membrane, Neuron) and self.compare not in (None, membrane.compare):
            self._remark(f"fires at v {self.compare} threshold, as asked for; its library's {membrane.compare}", name)
            membrane = replace(membrane, compare=self.compare)
        source = value.node
        for node in before:  # the filter has the shape of its neurons, and no tensor of its own
            node.output_shape(name + SYNAPSE, [value.shape])
            self.nodes[name + SYNAPSE] = node
            self.edges.append((source, name + SYNAPSE))
            source = name + SYNAPSE
        self._define(name, membrane, [replace(value, node=source)], result)

    def _spike_times(self, name: str, part: torch.nn.Module, value: _Value, result: torch.Tensor) -> bool:
        """Define the nodes of a layer of spike times; False for the flattening of a map, which is read as elsewhere."""
        if isinstance(part, torch.nn.Flatten):
            return False
        if not is_spike_time_layer(part):
            raise refused(name, part, "between layers of spike times only flattening has a meaning (flatten(1, 3))")
        if name in self.nodes:
            raise refused(name, part, "give each place in the network a module of its own", "calling it again")
        weights, neurons = spike_time_nodes(name, part, value.shape, self.time_unit_s or 0.0)
        self.nodes[name] = weights
        self.edges.append((value.node, name))
        shape = weights.output_shape(name, [value.shape])
        self._define(self._free(name + NEURON), neurons, [replace(value, node=name, shape=shape)], result)
        return True

    def _check_states(self, name: str, part: torch.nn.Module, arguments: Any) -> None:
        """States that a library's layer is called with must be those it starts from by itself."""
        given = [tensor for tensor in _tensors(arguments) if id(tensor) not in self.values]
        if starts_elsewhere(part, given):
            raise GraphError(
                f"{name}: this {type(part).__name__} is called with a state that is not its initial one.",
                remedy="start from the initial state (zeros, or None); a graph starts there.",
                code="initial-state",
            )

    def _operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Something that was done to tensors outside a leaf module."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        inputs = self._tracked((args, kwargs))
        if not inputs or (name != "__setitem__" and not _holds_tensor(result)):
            return
        if name in _TAKEN_APART and len(result) == 1:
            (result,) = result
        if isinstance(result, torch.Tensor):
            values = self.time_unit_s is None
            if values and name in _ADD and len(inputs) == 2 and kwargs.get("alpha", 1) == 1:
                self._define(self._free("add"), Add(), inputs, result)
                return
            if values and name in _RELU:
                self._define(self._free("relu"), Relu(), inputs, result)
                return
            if values and name in _STEPS and self._is_the_step(inputs, result, args[1:]):
                self._same(inputs[0], result)
                return
            if values and name in _STEPS and not result.numel():
                return  # the steps behind the only one
            if name in _CONCAT and self._joins_channels(args, kwargs, inputs, result):
                self._define(self._free("concat"), Concat(), inputs, result)
                return
            if name in _RESHAPE:
                self._reshape(self._free("flatten"), inputs[0], result)
                return
            if name in _SAME and result.is_floating_point() and result.element_size() >= 4:
                self._same(inputs[0], result)
                return
            if name in _DROPOUT and torch.equal(result, inputs[0].tensor):
                self._same(inputs[0], result)
                return
        remedy = "use modules for everything but flattening, adding, ReLU and torch.cat along the channels."
        if self.time_unit_s is not None:
            remedy = (
                "between layers of spike times, only flatten(1, 3) and torch.cat along the channels have a meaning."
            )
        elif name in _MAX_POOL:
            remedy = f"{MAX_POOL}."
        elif name in _STEPS:
            remedy = f"where this is a loop over time, {_ONE_STEP}."
        raise GraphError(
            f"{self.place()}{name} is applied to a tensor of shape {tuple(inputs[0].tensor.shape)} (the output of "
            f"{inputs[0].node}) outside any supported module.",
            remedy=remedy,
            code="operation",
        )

    def _is_the_step(self, inputs: list[_Value], result: torch.Tensor, index: Sequence[Any]) -> bool:
        """Whether one step was taken out of, or put into, an axis of length 1: the same numbers in the same order."""
        parts = index[0] if len(index) == 1 and isinstance(index[0], tuple) else index
        plain = all(part is None or part is ... or isinstance(part, int | slice) for part in parts)
        (value, *others) = inputs
        sizes = [[size for size in tensor.shape if size != 1] for tensor in (value.tensor, result)]
        return not others and plain and sizes[0] == sizes[1] and self._fits(result, value.shape)

    def _joins_channels(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[_Value], result: torch.Tensor
    ) -> bool:
        """Whether ``torch.cat`` joins outputs of nodes, and nothing else, along the first axis of a step's shape."""
        tensors = list(_tensors((args, kwargs)))
        axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
        channels = result.dim() - self.slots - len(inputs[0].shape)
        return len(tensors) == len(inputs) > 1 and axis % result.dim() == channels

    def _reshape(self, name: str, value: _Value, result: torch.Tensor) -> None:
        if self._fits(result, value.shape):
            self._same(value, result)
        elif self._fits(result, (prod(value.shape),)):
            self._define(name, Flatten(), [value], result)
        else:
            raise GraphError(
                f"{self.place()}shape {tuple(value.tensor.shape)} becomes {tuple(result.shape)}; per time step that is "
                f"neither {value.shape} nor flat.",
                remedy="only folding (B, T) and flattening whole maps can be represented.",
                code="reshape",
            )

    def _define(self, name: str, node: Node, inputs: list[_Value], result: torch.Tensor) -> None:
        shape = node.output_shape(name, [value.shape for value in inputs])
        if not self._fits(result, shape):
            raise GraphError(
                f"{name}: produces shape {tuple(result.shape)}; as a {node.kind} on {inputs[0].shape} it would produce "
                f"{shape} for each of {self.items} samples and time steps.",
                remedy="use ceil_mode=False, and let every layer see whole samples.",
                code="shape",
            )
        self.nodes[name] = node
        self.edges += [(value.node, name) for value in inputs]
        if any(value.tensor is result for value in inputs):
            self._forget_views(result)
        self.values[id(result)] = _Value(result, name, shape)

    def _forget_views(self, changed: torch.Tensor) -> None:
        """Other tensors with the numbers of one that was written into are no node's output any more."""
        storage = changed.untyped_storage().data_ptr()
        self.values = {
            key: value for key, value in self.values.items() if value.tensor.untyped_storage().data_ptr() != storage
        }

    def _same(self, value: _Value, result: torch.Tensor) -> None:
        self.values[id(result)] = _Value(result, value.node, value.shape)

    def _fits(self, tensor: torch.Tensor, shape: Shape) -> bool:
        """Whether the last axes are ``shape`` and the others count the samples and time steps."""
        end = tensor.dim() - self.slots
        first = end - len(shape)
        return first >= 0 and tuple(tensor.shape[first:end]) == shape and prod(tensor.shape[:first]) == self.items

    def _tracked(self, arguments: Any) -> list[_Value]:
        return [self.values[id(tensor)] for tensor in _tensors(arguments) if id(tensor) in self.values]

    def _name(self, part: torch.nn.Module) -> str:
        return self.names.get(id(part), type(part).__name__)

    def _free(self, name: str) -> str:
        """``name``, or with a number behind it where a module or node has that name."""
        taken = {*self.nodes, *self.names.values()}
        return next(
            option for option in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if option not in taken
        )

    def _remark(self, text: str, name: str) -> None:
        self.notes.setdefault(text, []).append(name)


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _holds_tensor(value: Any) -> bool:
    return any(True for _ in _tensors(value))
