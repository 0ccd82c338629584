"""Integrate-and-fire layers over a kernel."""

from math import prod
from typing import Any, ClassVar

import torch

from neurodeploy import kernel
from neurodeploy.kernel import Memory, Neuron, Output, Parameters
from neurodeploy.neuron import Reset, Spikes, VMinPosition
from neurodeploy.nn.layer import Layout, State, TimeLayer, positive, short
from neurodeploy.surrogate import SingleExponential, Surrogate


class NeuronLayer(TimeLayer):
    """What all layers of spiking neurons share. Use those.

    Input and output are (B, T, ...), or (T, B, ...) with ``layout="TB"``, or with ``batch_size`` or ``num_timesteps``
    the folded (B*T, ...) that ``Conv2d`` and its kind take. All time steps run in one call.

    A call starts from zero unless it is given ``initial_state``, so calls are independent. A ``stateful`` layer starts
    where its last call ended (without gradient through that boundary) until ``reset_states(net)``.

    Attributes (all plain to read, for tracing and export):
        threshold: tensor that broadcasts to the neurons' shape (a Parameter if learnt).
        decay: tensor; factor of the potential per step.
        input_gain: tensor; factor of the input.
        reset, spikes, v_min, v_min_position, surrogate: the choices of ``neurodeploy/neuron.py``.
        v: potentials of the last call with ``record_v``, shaped like the input, before the reset; part of the graph.
        v_mem: potential that a ``stateful`` layer carries, (B, ...), or None.
    """

    threshold: torch.Tensor
    v_mem: torch.Tensor | None

    def __init__(
        self,
        *,
        threshold: float | torch.Tensor = 1.0,
        v_min: float | None = None,
        v_min_position: VMinPosition = "after_reset",
        reset: Reset = "subtract",
        spikes: Spikes = "multi",
        surrogate: Surrogate | None = None,
        learn_threshold: bool = False,
        batch_size: int | None = None,
        num_timesteps: int | None = None,
        layout: Layout = "BT",
        algorithm: str = "exodus",
        memory: Memory = "store",
        stateful: bool = False,
        record_v: bool = False,
    ) -> None:
        TimeLayer.__init__(self, batch_size=batch_size, num_timesteps=num_timesteps, layout=layout, stateful=stateful)
        self.neuron = Neuron(
            reset=reset,
            spikes=spikes,
            v_min=v_min,
            v_min_position=v_min_position,
            surrogate=SingleExponential() if surrogate is None else surrogate,
        )
        self._own("threshold", positive("threshold", threshold), learn_threshold)
        self.algorithm = algorithm
        self.memory: Memory = memory
        self.record_v = record_v
        self.v: torch.Tensor | None = None
        self._kernel = kernel.load(algorithm)

    @property
    def reset(self) -> Reset:
        """What a spike does to the potential."""
        return self.neuron.reset

    @property
    def spikes(self) -> Spikes:
        """How many spikes one step can have."""
        return self.neuron.spikes

    @property
    def v_min(self) -> float | None:
        """Lower limit of the potential, or None."""
        return self.neuron.v_min

    @property
    def v_min_position(self) -> VMinPosition:
        """Where in the step ``v_min`` is applied."""
        return self.neuron.v_min_position

    @property
    def surrogate(self) -> Surrogate:
        """Derivative of the spike function in the backward pass."""
        return self.neuron.surrogate

    @property
    def decay(self) -> torch.Tensor:
        """Factor of the potential per step."""
        raise NotImplementedError

    @property
    def input_gain(self) -> torch.Tensor:
        """Factor of the input."""
        raise NotImplementedError

    def forward(
        self, x: torch.Tensor, initial_state: torch.Tensor | State | None = None, return_state: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Run all time steps.

        Args:
            x: input current (B, T, ...), (T, B, ...) or folded (B*T, ...); float32 or float64.
            initial_state: potential (B, ...) before the first step, or a :class:`State` where neurons carry more;
                differentiable. None: zero, or the carried state.
            return_state: also return the state after the last step, of the same form; differentiable.

        Returns:
            Spike counts per step, shaped like x; with ``return_state`` the pair (spikes, state).

        Raises:
            KernelError: the shape does not fit the layer, the layer is on another device, a learnt threshold is not
                above 0 any more, or the kernel cannot run on the tensor.

        A NaN in the input makes its neuron's potential NaN until the end, and such a neuron never fires; an infinite
        input does the same after its step. Neither raises an error: the spikes of other neurons are not touched.
        """
        unfolded = self._unfold(x)
        time_major, batch, features = self._axes(unfolded)
        output = self._run(unfolded, self._start(initial_state, batch, features, x), features, time_major)
        final_state = self._end(output.state, batch, features)
        if output.v is not None:
            self.v = output.v.reshape(x.shape)
        spikes = output.spikes.reshape(x.shape)
        return (spikes, final_state) if return_state else spikes

    def _run(self, x: torch.Tensor, state: torch.Tensor, features: list[int], time_major: bool) -> Output:
        """Run the kernel on unfolded input of the neurons' shape ``features``."""
        return self._kernel.apply(
            x.reshape(*x.shape[:2], prod(features)).contiguous(),
            self._kernel_parameters(tuple(features), x),
            state,
            self.neuron,
            memory=self.memory,
            time_major=time_major,
            record_v=self.record_v,
        )

    def extra_repr(self) -> str:
        """Show what differs from the defaults, and the threshold, in ``repr``."""
        shown = [f"threshold={short(self.threshold)}"]
        default = Neuron()
        for name in ("reset", "spikes", "v_min", "v_min_position", "surrogate"):
            if getattr(self.neuron, name) != getattr(default, name):
                shown.append(f"{name}={getattr(self.neuron, name)!r}")
        usuals = {"batch_size": None, "num_timesteps": None, "layout": "BT", "algorithm": "exodus", "stateful": False}
        for name, usual in usuals.items():
            if getattr(self, name) != usual:
                shown.append(f"{name}={getattr(self, name)!r}")
        return ", ".join(shown)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_kernel"], state["v"] = None, None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._kernel = kernel.load(self.algorithm)

    def _kernel_parameters(self, features: tuple[int, ...], x: torch.Tensor) -> Parameters:
        """The numbers of each neuron; a layer whose neurons carry more adds theirs."""
        threshold = self._flat("threshold", self.threshold, features, x)
        return Parameters(
            decay=self._flat("decay", self.decay, features, x),
            threshold=threshold,
            input_gain=self._flat("input_gain", self.input_gain, features, x),
            unit=threshold.detach(),
        )


class NoLeak(NeuronLayer):
    """Decay 1, input gain 1."""

    @property
    def decay(self) -> torch.Tensor:
        """1."""
        return torch.ones((), dtype=self.threshold.dtype, device=self.threshold.device)

    @property
    def input_gain(self) -> torch.Tensor:
        """1."""
        return torch.ones((), dtype=self.threshold.dtype, device=self.threshold.device)


class Leak(NeuronLayer):
    """Decay ``exp(-1 / tau_mem)``, input gain ``1 - decay`` with ``norm_input``."""

    _infinite_tau: ClassVar[bool] = False
    tau_mem: torch.Tensor

    def __init__(
        self, tau_mem: float | torch.Tensor, *, norm_input: bool = True, learn_tau: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._own("tau_mem", positive("tau_mem", tau_mem, infinite=self._infinite_tau and not norm_input), learn_tau)
        self.norm_input = norm_input

    @property
    def decay(self) -> torch.Tensor:
        """``exp(-1 / tau_mem)``; differentiable."""
        return torch.exp(-1.0 / self.tau_mem)

    @property
    def input_gain(self) -> torch.Tensor:
        """``1 - decay`` with ``norm_input``, else 1; differentiable."""
        return 1 - self.decay if self.norm_input else torch.ones_like(self.tau_mem)

    def extra_repr(self) -> str:
        """Show the time constant first in ``repr``."""
        return f"tau_mem={short(self.tau_mem)}, norm_input={self.norm_input}, {super().extra_repr()}"


class SpikingLayer(NeuronLayer):
    """Neurons of a potential alone, on their own: IAF and LIF, as graphs and chips have them."""


class IAF(NoLeak, SpikingLayer):
    """Integrate-and-fire neurons without leak: decay 1, input gain 1.

    Args:
        threshold: potential at which a spike is fired, > 0; a number, or a tensor that broadcasts to the neurons.
        v_min: lower limit of the potential; None for none.
        v_min_position: "after_reset" (sinabs) or "before_threshold" (sinabs-exodus); see ``neurodeploy/neuron.py``.
        reset: "subtract" the threshold per spike, set to "zero", or "none".
        spikes: "multi", "single", or the largest number of spikes in one step.
        surrogate: derivative of the spike function; default ``SingleExponential()``.
        learn_threshold: make the threshold a Parameter.
        batch_size, num_timesteps: give either, for folded input (B*T, ...); like sinabs' ``IAFSqueeze``.
        layout: "BT" or "TB", the order of the first two axes.
        algorithm: how gradients are computed: a folder of ``kernels/``.
        memory: "store" every potential, or "recompute" from checkpoints (1/32 of the memory, the same bits).
        stateful: start where the last call ended; see :class:`NeuronLayer`.
        record_v: keep the potentials of the last call in ``v``, differentiable.

    Defaults and names follow sinabs 3.1.3, ``sinabs.layers.IAF``; ``threshold`` is its ``spike_threshold`` and
    ``v_min`` its ``min_v_mem``.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """


class LIF(Leak, SpikingLayer):
    """Leaky integrate-and-fire neurons: decay ``exp(-1 / tau_mem)``.

    Args:
        tau_mem: time constant in time steps, > 0; a number, or a tensor that broadcasts to the neurons.
        norm_input: multiply the input by ``1 - decay``, so that a constant input converges to its own value.
        learn_tau: make ``tau_mem`` a Parameter.
        options: those of :class:`IAF`.

    Defaults and names follow sinabs 3.1.3, ``sinabs.layers.LIF``.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """
