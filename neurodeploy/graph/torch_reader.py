"""Torch modules into the graph: one run on a sample, watching which module's output goes into which module."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from neurodeploy.errors import GraphError
from neurodeploy.graph.graph import Edge, Graph
from neurodeploy.graph.nodes import Add, Flatten, Input, Node, Output, Shape
from neurodeploy.graph.torch_modules import IDENTITY, is_leaf, is_merge, node_of

_ADD = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_RESHAPE = {"flatten", "ravel", "reshape", "view", "unflatten", "squeeze", "unsqueeze"}
_SAME = {"contiguous", "clone", "detach", "to", "float", "double", "requires_grad_", "data"}
_DROPOUT = {"dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout"}


@dataclass(frozen=True)
class _Value:
    """A tensor of the run that is the output of a node. Holding the tensor keeps its ``id`` from being used again."""

    tensor: torch.Tensor
    node: str
    shape: Shape


def trace(module: torch.nn.Module, sample: torch.Tensor) -> Graph:
    """Read a torch module into the graph by running a copy of it once, in evaluation mode, on ``sample``.

    Modules may be called in any order, with branches that meet in a ``Merge`` or in ``a + b``. Between modules a
    tensor may be flattened, reshaped between ``(B, T, ...)`` and ``(B * T, ...)``, copied, or pass through dropout.
    Anything else that happens to a tensor outside the supported modules is refused. Names of nodes are the qualified
    names of the modules (``"conv1"``, ``"0"``). Parameters become float32. States that layers hold are not taken over.

    Args:
        module: a network of Conv2d, Linear, BatchNorm2d, AvgPool2d, SumPool2d, Flatten, Dropout, Identity, Merge, and
            IAF or LIF layers of neurodeploy or sinabs (the ``Squeeze`` forms too).
        sample: a batch the module takes; the values do not matter. Its last axes are the shape per sample and time
            step: ``(C, H, W)`` of ``(B, T, C, H, W)``, ``(B * T, C, H, W)`` or ``(B, C, H, W)``; ``(N,)`` of
            ``(B, T, N)`` or ``(B, N)``. ``layout="TB"`` works alike.

    Raises:
        GraphError: a module or operation has no equivalent; the message names it and the remedy.
    """
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
        raise GraphError(
            f"the module cannot be copied: {error}.",
            remedy="call nd.nn.reset_states(module) first, and keep no tensors with gradients in the module.",
            code="copy",
        ) from error
    tracer = _Tracer(watched, sample.detach())
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
    """Follows tensors from node to node; inside a leaf module it looks away."""

    def __init__(self, module: torch.nn.Module, sample: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.sample = sample
        features = 3 if sample.dim() > 3 else 1
        self.items = prod(sample.shape[:-features])
        self.names = {id(part): name or type(part).__name__ for name, part in module.named_modules()}
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.notes: dict[str, list[str]] = {}
        self.values: dict[int, _Value] = {}
        self.path: list[torch.nn.Module] = []
        self.leaf: torch.nn.Module | None = None
        shape = tuple(sample.shape[-features:])
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
        value = self.values.get(id(result)) if isinstance(result, torch.Tensor) else None
        if value is None:
            raise GraphError(
                f"the module returns {type(result).__name__}, not the output of one of its layers.",
                remedy="return one tensor, the spikes of the last layer.",
                code="output",
            )
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
        if self.leaf is None and is_leaf(self._name(part), part):
            self.leaf = part

    def _leave(self, part: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if part is self.leaf:
            self.leaf = None
            self._module(part, self._tracked((args, kwargs)), result)
        self.path.pop()

    def _module(self, part: torch.nn.Module, inputs: list[_Value], result: Any) -> None:
        name = self._name(part)
        if not isinstance(result, torch.Tensor) or len(inputs) != (2 if is_merge(part) else 1):
            raise GraphError(
                f"{name}: this {type(part).__name__} takes {len(inputs)} tensors of the network and returns "
                f"{type(result).__name__}; it must take {2 if is_merge(part) else 1} and return one.",
                remedy="call it on the output of another layer, without extra states or outputs.",
                code="module-call",
            )
        if isinstance(part, IDENTITY):
            self._remark("computes nothing at inference and is dropped", name)
            self._same(inputs[0], result)
            return
        node = node_of(name, part, inputs[0].shape)
        if isinstance(node, Flatten):
            self._reshape(name, inputs[0], result)
            return
        if name in self.nodes:
            raise GraphError(
                f"{name}: called more than once in one pass.",
                remedy="run all time steps in one call; give each place in the network a module of its own.",
                code="called-twice",
            )
        self._define(name, node, inputs, result)

    def _operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Something that was done to tensors outside a leaf module."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        inputs = self._tracked((args, kwargs))
        if not inputs or (name != "__setitem__" and not _holds_tensor(result)):
            return
        if isinstance(result, torch.Tensor):
            if name in _ADD and len(inputs) == 2 and kwargs.get("alpha", 1) == 1:
                self._define(self._free("add"), Add(), inputs, result)
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
        raise GraphError(
            f"{self.place()}{name} is applied to a tensor of shape {tuple(inputs[0].tensor.shape)} (the output of "
            f"{inputs[0].node}) outside any supported module.",
            remedy="use modules for everything but flattening and adding; run all time steps in one call instead of a "
            "loop over time.",
            code="operation",
        )

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
        self.values[id(result)] = _Value(result, name, shape)

    def _same(self, value: _Value, result: torch.Tensor) -> None:
        self.values[id(result)] = _Value(result, value.node, value.shape)

    def _fits(self, tensor: torch.Tensor, shape: Shape) -> bool:
        """Whether the last axes are ``shape`` and the others count the samples and time steps."""
        first = tensor.dim() - len(shape)
        return first >= 0 and tuple(tensor.shape[first:]) == shape and prod(tensor.shape[:first]) == self.items

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
