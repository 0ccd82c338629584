"""The nodes with a state as torch modules: each runs some time steps and gives the state for the next ones.

``run(x, state)`` takes ``(B, T, *shape)`` and the state that the call before returned (None at the start); any split of
the time axis gives the same values.
"""

from typing import Protocol

import numpy as np
import torch

from neurodeploy import nn
from neurodeploy.graph.nodes import LI, Array, Delay, Membrane, Neuron, Node


class Stateful(Protocol):
    """A module that carries a state from call to call."""

    def run(self, x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs ``(B, T, *shape)`` and the next state."""


def stateful(node: Node) -> torch.nn.Module | None:
    """The module of a node with a state; None for a node without one (a Feedback is run by the loop it closes)."""
    if isinstance(node, Neuron):
        v_min_differs = node.v_min is not None and np.unique(node.v_min).size != 1
        general = node.reset == "value" or node.compare != ">=" or v_min_differs
        return _SteppedNeurons(node) if general else _KernelNeurons(node)
    if isinstance(node, LI):
        return _Integrators(node)
    if isinstance(node, Delay):
        return _Delays(node)
    return None


def tensor(value: Array) -> torch.Tensor:
    """A float32 tensor: exact for the integers of at most 16 bits that graphs hold."""
    return torch.from_numpy(np.array(value, np.float32))


def _drive(module: torch.nn.Module, node: Membrane, x: torch.Tensor) -> torch.Tensor:
    """``input_gain x + (1 - decay) v_leak``."""
    driven = module.get_buffer("_input_gain").to(x) * x
    if node.v_leak is not None:
        driven = driven + (1 - module.get_buffer("_decay").to(x)) * tensor(node.v_leak).to(x)
    return driven


def _start(node: Membrane, x: torch.Tensor) -> torch.Tensor:
    """The potential before the first step, ``(B, *shape)``."""
    initial = torch.zeros(()) if node.initial_v is None else tensor(node.initial_v)
    return initial.to(x).expand(x.shape[0], *x.shape[2:])


class _NodeLayer(torch.nn.Module):
    """What a layer of ours that stands for a node shares: the node's factors, and its start."""

    node: Neuron | LI

    def _hold(self, node: Neuron | LI) -> None:
        self.node = node
        self.register_buffer("_decay", tensor(node.decay), persistent=False)
        self.register_buffer("_input_gain", tensor(node.input_gain), persistent=False)

    @property
    def decay(self) -> torch.Tensor:
        """The node's."""
        return self.get_buffer("_decay")

    @property
    def input_gain(self) -> torch.Tensor:
        """The node's; 1 where the leak potential has been added to the input already."""
        gain = self.get_buffer("_input_gain")
        return gain if self.node.v_leak is None else torch.ones((), dtype=gain.dtype, device=gain.device)

    def run(self, x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Spikes or potentials, and the last potential."""
        if self.node.v_leak is not None:
            x = _drive(self, self.node, x)
        result = self(x, _start(self.node, x) if state is None else state, return_state=True)
        return result[0], result[1]


class _KernelNeurons(_NodeLayer, nn.SpikingLayer):
    """Neurons whose step the training kernels have."""

    def __init__(self, node: Neuron) -> None:
        reset = "zero" if node.reset == "value" else node.reset
        super().__init__(
            threshold=tensor(node.threshold),
            v_min=None if node.v_min is None else float(np.ravel(node.v_min)[0]),
            v_min_position=node.v_min_position,
            reset=reset,
            spikes=node.spikes,
        )
        self._hold(node)


class _SteppedNeurons(torch.nn.Module):
    """Neurons whose step no kernel has: reset to a value, ``>``, a lower bound per neuron."""

    def __init__(self, node: Neuron) -> None:
        super().__init__()
        self.node = node
        self.register_buffer("_decay", tensor(node.decay), persistent=False)
        self.register_buffer("_input_gain", tensor(node.input_gain), persistent=False)

    def run(self, x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Spikes and the last potential."""
        node = self.node
        v = _start(node, x) if state is None else state
        decay, threshold = self.get_buffer("_decay").to(x), tensor(node.threshold).to(x)
        v_min = None if node.v_min is None else tensor(node.v_min).to(x)
        v_reset = None if node.v_reset is None else tensor(node.v_reset).to(x)
        most = {"multi": np.inf, "single": 1.0}.get(node.spikes) if isinstance(node.spikes, str) else node.spikes
        drive = _drive(self, node, x)
        fired = []
        for t in range(x.shape[1]):
            v = decay * v + drive[:, t]
            if v_min is not None and node.v_min_position == "before_threshold":
                v = torch.maximum(v, v_min)
            above = v >= threshold if node.compare == ">=" else v > threshold
            times = torch.trunc(v / threshold) if node.compare == ">=" else torch.ceil(v / threshold) - 1
            spikes = torch.where(above, times.clamp(1, most), 0.0)
            if node.reset == "subtract":
                v = v - threshold * spikes
            elif node.reset != "none":
                v = torch.where(spikes > 0, torch.zeros_like(v) if v_reset is None else v_reset.expand_as(v), v)
            if v_min is not None and node.v_min_position == "after_reset":
                v = torch.maximum(v, v_min)
            fired.append(spikes)
        return torch.stack(fired, 1) if fired else torch.zeros_like(x), v


class _Integrators(_NodeLayer, nn.LI):
    """Leaky integrators: the potential after every step."""

    def __init__(self, node: LI) -> None:
        super().__init__(1.0)
        self._hold(node)


class _Delays(torch.nn.Module):
    """The state is the inputs that are still under way, ``(B, most steps, *shape)``."""

    def __init__(self, node: Delay) -> None:
        super().__init__()
        self.most = int(np.max(node.steps))
        self.register_buffer("_steps", torch.from_numpy(np.array(node.steps, np.int64)), persistent=False)

    def run(self, x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Delayed inputs and what is still under way."""
        under_way = x.new_zeros(x.shape[0], self.most, *x.shape[2:]) if state is None else state
        history = torch.cat([under_way, x], 1)
        steps = self.get_buffer("_steps").to(x.device)
        time = torch.arange(x.shape[1], device=x.device).reshape(1, -1, *[1] * (x.dim() - 2))
        index = (self.most + time - steps).expand(x.shape)
        return history.gather(1, index), history[:, x.shape[1] :]
