"""A sequential network as blocks of S spiking layers, which run one segment of time from a carried state."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from neurodeploy.errors import TrainError


@dataclass(frozen=True)
class TimeAxis:
    """Where batch and time are in the tensors between layers.

    Attributes:
        order: "BT" for (B, T, ...), "TB" for (T, B, ...), "folded" for (B*T, ...).
        steps: T of a folded tensor, if the layers fix it.
        batch: B of a folded tensor, if the layers fix it.
    """

    order: str
    steps: int | None = None
    batch: int | None = None

    def length(self, x: torch.Tensor) -> int:
        """Return the number of time steps of ``x``.

        Raises:
            TrainError: a tensor without a time axis, or a folded one whose rows are no multiple of what the layers fix.
        """
        if x.dim() < 2:
            raise TrainError(
                f"The input has shape {tuple(x.shape)}, without batch, time and features.",
                remedy="pass (B, T, ...), or give the layers num_timesteps= or batch_size= for folded (B*T, ...).",
                code="local-time",
            )
        if self.order != "folded":
            return x.shape[0 if self.order == "TB" else 1]
        known = self.steps or self.batch or 1
        if x.shape[0] == 0 or x.shape[0] % known:
            raise TrainError(
                f"The input has {x.shape[0]} rows of batch x time; the neuron layers have num_timesteps={self.steps}, "
                f"batch_size={self.batch}.",
                remedy="pass whole recordings of the layers' length.",
                code="local-time",
            )
        return self.steps or x.shape[0] // known

    def segment(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return the time steps ``start`` to ``stop`` of ``x``, in the same order of axes."""
        match self.order:
            case "TB":
                return x[start:stop]
            case "BT":
                return x[:, start:stop]
            case _:
                return x.reshape(-1, self.length(x), *x.shape[1:])[:, start:stop].flatten(0, 1)

    def mean(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        """Return the mean over all ``steps`` steps of ``x``: (B, ...)."""
        match self.order:
            case "TB":
                return x.mean(0)
            case "BT":
                return x.mean(1)
            case _:
                return x.reshape(-1, steps, *x.shape[1:]).mean(1)


class Block(torch.nn.Module):
    """Consecutive layers of a network, ``S`` of them spiking; shares their parameters."""

    def __init__(self, layers: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)
        self._carries_state = [is_neuron_layer(layer) for layer in layers]

    @property
    def neurons(self) -> list[torch.nn.Module]:
        """The layers that carry a state."""
        return [layer for layer, carries in zip(self.layers, self._carries_state, strict=True) if carries]

    def forward(self, x: torch.Tensor, states: Sequence[Any], steps: int) -> tuple[torch.Tensor, list[Any]]:
        """Run one segment.

        Args:
            x: the block's input over the segment, in the network's order of axes.
            states: the state of each neuron layer before the segment; None is the layer's own beginning.
            steps: time steps of the segment.

        Returns:
            the output, and the states after the segment, without gradient.
        """
        before, after = iter(states), []
        with _folded_to(self.neurons, steps):
            for layer, carries in zip(self.layers, self._carries_state, strict=True):
                if carries:
                    x, state = layer(x, initial_state=next(before), return_state=True)
                    after.append(_detached(state))
                else:
                    x = layer(x)
        return x, after


def split(net: torch.nn.Module, size: int | None) -> list[Block]:
    """Cut ``net`` behind every ``size``-th spiking layer; what follows the last one belongs to the last block.

    Filters and leaky integrators carry a state too, but end no block.

    Raises:
        TrainError: the network is no plain ``Sequential``, has no neuron layer, hides one inside another module, or
            uses one twice.
    """
    layers = list(_flat(net))
    neurons = [layer for layer in layers if is_neuron_layer(layer)]
    if not neurons:
        raise TrainError(
            "The network has no layers with a state that can be carried from one segment to the next.",
            remedy="use neurodeploy.nn layers; nd.nn.accelerate(net) puts them in place of sinabs' layers.",
            code="local-network",
        )
    if len(set(map(id, neurons))) < len(neurons):
        raise TrainError(
            "A neuron layer stands at two places of the network, which cannot belong to two blocks.",
            remedy="use one layer object for each place.",
            code="local-network",
        )
    spiking = sum(_spikes(layer) for layer in neurons)
    size = max(spiking, 1) if size is None else size
    blocks, current, seen = [], [], 0
    for layer in layers:
        current.append(layer)
        if _spikes(layer):
            seen += 1
            if seen % size == 0 and seen < spiking:
                blocks.append(Block(current))
                current = []
    blocks.append(Block(current))
    return blocks


def time_axis(blocks: Sequence[Block]) -> TimeAxis:
    """Read from the neuron layers where batch and time are.

    Raises:
        TrainError: they do not agree.
    """
    found = set()
    for layer in (layer for block in blocks for layer in block.neurons):
        steps, batch = getattr(layer, "num_timesteps", None), getattr(layer, "batch_size", None)
        order = getattr(layer, "layout", "BT") if steps is None and batch is None else "folded"
        found.add(TimeAxis(order, steps, batch))
    if len(found) > 1:
        raise TrainError(
            "The neuron layers do not agree about batch and time: "
            + ", ".join(sorted(f"{axis.order} num_timesteps={axis.steps} batch_size={axis.batch}" for axis in found))
            + ".",
            remedy="give all of them the same layout, num_timesteps and batch_size.",
            code="local-time",
        )
    return found.pop()


def is_neuron_layer(module: torch.nn.Module) -> bool:
    """Whether the module takes and gives its state: ``forward(x, initial_state=..., return_state=...)``."""
    return {"initial_state", "return_state"} <= inspect.signature(module.forward).parameters.keys()


def _spikes(module: torch.nn.Module) -> bool:
    """Whether the module is a neuron layer with a threshold, not a filter."""
    return is_neuron_layer(module) and hasattr(module, "threshold")


def _flat(net: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the layers in order, nested Sequentials opened."""
    if not isinstance(net, torch.nn.Sequential) or type(net).forward is not torch.nn.Sequential.forward:
        raise TrainError(
            f"The network is a {type(net).__name__}; blocks are cut from a plain torch.nn.Sequential.",
            remedy="write the network as a torch.nn.Sequential (nested ones are opened).",
            code="local-network",
        )
    for place, layer in enumerate(net):  # not named_children, which leaves out a layer's second place
        if isinstance(layer, torch.nn.Sequential):
            yield from _flat(layer)
            continue
        if not is_neuron_layer(layer):
            for inner in layer.modules():
                if is_neuron_layer(inner) or hasattr(inner, "reset_states"):
                    raise TrainError(
                        f"Layer {place}, a {type(layer).__name__}, keeps a state of its own or contains a layer that "
                        "does, which cannot be carried from one segment to the next.",
                        remedy="put neurodeploy.nn layers directly into the Sequential; nd.nn.accelerate(net) puts "
                        "them in place of sinabs' layers.",
                        code="local-network",
                    )
        yield layer


def _detached(state: Any) -> Any:
    """Return the same values without gradient, in tensors, tuples, lists and dictionaries."""
    match state:
        case torch.Tensor():
            return state.detach()
        case None:
            return None
        case dict():
            return {name: _detached(value) for name, value in state.items()}
        case list():
            return [_detached(value) for value in state]
        case tuple():
            values = [_detached(value) for value in state]
            return type(state)(*values) if hasattr(state, "_fields") else tuple(values)
    raise TrainError(
        f"A neuron layer returned a state of type {type(state).__name__}, which cannot be detached.",
        remedy="return tensors, or tuples, lists or dictionaries of them.",
        code="local-state",
    )


@contextmanager
def _folded_to(layers: Sequence[torch.nn.Module], steps: int) -> Iterator[None]:
    """Let layers that fold a fixed number of steps take segments of ``steps``."""
    fixed = [layer for layer in layers if getattr(layer, "num_timesteps", None) is not None]
    before = [layer.num_timesteps for layer in fixed]
    try:
        for layer in fixed:
            layer.num_timesteps = steps  # type: ignore[assignment]
        yield
    finally:
        for layer, usual in zip(fixed, before, strict=True):
            layer.num_timesteps = usual
