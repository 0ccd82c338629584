"""One window of time steps through the stages of a network, a run of steps at a time."""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernels.saf import (
    Clamp,
    Form,
    State,
    WeightedMap,
    accumulate,
    accumulate_input,
    news,
    replaced,
    silent,
    weight_sums,
)
from neurodeploy.nn.saf_stages import FixedMap, Stage, apply_fixed, neuron_parameters


class Moving(NamedTuple):
    """What moves from stage to stage, [T, B, ...]: accumulations; in the form "lif" spikes too."""

    a: torch.Tensor
    spikes: torch.Tensor | None


class Synapse:
    """Fixed maps, weights and fixed maps; in the recurrent form it carries its last input."""

    def __init__(self, before: list[FixedMap], weighted: WeightedMap | None, after: list[FixedMap]) -> None:
        self._before, self._weighted, self._after = before, weighted, after
        self._previous: torch.Tensor | None = None

    def __call__(self, moving: Moving, form: Form, decay: float, c: torch.Tensor) -> torch.Tensor:
        """Return z of ``form`` [T, B, ...], with the gradient of the accumulation in each."""
        weighted = self._weighted
        a = apply_fixed(self._before, moving.a)
        if form == "closed":
            z = a if weighted is None else weighted.closed(a, c)
        elif moving.spikes is None:  # the recurrent form
            previous = torch.zeros_like(a[0]) if self._previous is None else self._previous
            self._previous = a[-1].detach()
            z = replaced(a, news(a, previous, decay)) if weighted is None else weighted.recurrent(a, previous, decay, c)
        else:
            spikes = apply_fixed(self._before, moving.spikes)
            z = spikes if weighted is None else weighted.spikes(spikes)
            if torch.is_grad_enabled():
                z = replaced(a if weighted is None else weighted.closed(a, c), z)
        return apply_fixed(self._after, z)


@dataclass(frozen=True)
class Connection:
    """Feedback from the neurons of one stage to those of another, by index."""

    source: int
    target: int
    weighted: WeightedMap
    name: str


class Window:
    """The carried state of a network, and the steps that change it.

    Args:
        stages: the network.
        feedback: its connections back or sideways, which bring what was emitted one step before.
        form: see :data:`neurodeploy.kernels.saf.Form`.
        decay: [1], of all neurons.
    """

    def __init__(self, stages: list[Stage], feedback: list[Connection], form: Form, decay: torch.Tensor) -> None:
        self._stages, self._feedback, self._form, self._decay = stages, feedback, form, decay
        self._decay_on_host = decay.cpu()  # asking a GPU for it in every step would wait for the step before
        self._synapses = [Synapse(stage.before, stage.weighted, stage.after) for stage in stages]
        self._feedback_synapses = [Synapse([], connection.weighted, []) for connection in feedback]
        self._states: list[State | None] = [None] * len(stages)
        self._emitted: dict[int, Moving] = {}
        self._input: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self.sum = 0.0
        """c_t of the last step."""

    def run(self, x: torch.Tensor, clamp: bool = False) -> Moving:
        """Run x [T, B, ...], T at least 1, and return what leaves the last stage; ``clamp``: with the clamp's slope."""
        decay = float(self._decay_on_host.to(x.dtype))
        sums = weight_sums(self.sum, decay, x.shape[0])
        self.sum = sums[-1]
        c = x.new_tensor(sums)
        a = accumulate_input(x, self._input, decay)
        self._input = a[-1]
        moving = Moving(a, x.contiguous() if self._form == "lif" else None)
        emitted = dict(self._emitted)  # before this step changes it
        for index, stage in enumerate(self._stages):
            z = self._synapses[index](moving, self._form, decay, c)
            for connection, synapse in zip(self._feedback, self._feedback_synapses, strict=True):
                if connection.target == index and connection.source in emitted:
                    z = _add(z, synapse(emitted[connection.source], self._form, decay, c), connection.name)
            moving = self._fire(index, stage, z, clamp)
        return moving

    def per_step(self, last: Moving) -> torch.Tensor:
        """Return the output of each step [T, B, ...], spikes or a readout's value, for what ``run`` returned.

        The gradient of an output goes to the accumulation of its step, that of the step before being a constant.
        """
        readout = self._stages[-1].neurons is None
        if readout and self._form != "closed":
            return last.a
        if last.spikes is not None:
            value = last.spikes
        else:
            previous = torch.zeros_like(last.a[0]) if self._output is None else self._output
            self._output = last.a[-1].detach()
            value = news(last.a, previous, float(self._decay_on_host.to(last.a.dtype)))
            value = value if readout else value.round()  # whole spikes, but for the rounding of the accumulations
        return replaced(last.a, value)

    def _fire(self, index: int, stage: Stage, z: torch.Tensor, clamp: bool) -> Moving:
        if stage.neurons is None:
            return Moving(z, None)
        flat = z.flatten(2).contiguous()
        state = self._states[index] or silent(flat, self._form)
        neuron = stage.neurons.neuron
        output = accumulate(
            flat,
            state,
            neuron_parameters(stage.neurons, self._decay, z.shape[2:], z),
            neuron,
            self._form,
            clamp=Clamp(self.sum * (neuron.max_spikes or inf)) if clamp else None,
        )
        self._states[index] = output.state
        spikes = None if output.spikes is None else output.spikes.reshape(z.shape)
        moving = Moving(output.a.reshape(z.shape), spikes)
        if any(connection.source == index for connection in self._feedback):
            self._emitted[index] = Moving(moving.a[-1:].detach(), None if spikes is None else spikes[-1:])
        return moving


def _add(z: torch.Tensor, feedback: torch.Tensor, name: str) -> torch.Tensor:
    if z.shape != feedback.shape:
        raise KernelError(
            f"{name} gives {tuple(feedback.shape[2:])} per sample and step, "
            f"its target has {tuple(z.shape[2:])} neurons.",
            remedy="give the connection the output shape of its target.",
            code="saf-feedback",
        )
    return z + feedback
