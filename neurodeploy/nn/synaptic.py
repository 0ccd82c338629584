"""Neurons with a synaptic current or an adapting threshold, and the filters without spikes."""

from dataclasses import replace
from math import prod
from typing import Any, ClassVar

import torch

from neurodeploy import native_filter
from neurodeploy.kernel import Parameters
from neurodeploy.nn.layer import Layout, TimeLayer, positive, short
from neurodeploy.nn.spiking import Leak, NeuronLayer


class Synapse(NeuronLayer):
    """A synaptic current ``i = syn_decay * (i + x)``, ``syn_decay = exp(-1 / tau_syn)``, in front of the potential."""

    state_rows: ClassVar[tuple[str, ...]] = ("v_mem", "i_syn")
    tau_syn: torch.Tensor
    i_syn: torch.Tensor | None

    @property
    def syn_decay(self) -> torch.Tensor:
        """``exp(-1 / tau_syn)``; differentiable."""
        return torch.exp(-1.0 / self.tau_syn)

    def _kernel_parameters(self, features: tuple[int, ...], x: torch.Tensor) -> Parameters:
        plain = super()._kernel_parameters(features, x)
        return plain._replace(syn_decay=self._flat("syn_decay", self.syn_decay, features, x))


class CurrentBased(Synapse, Leak):
    """What current-based LIF neurons are, alone or with lateral connections."""

    _infinite_tau: ClassVar[bool] = True

    def __init__(
        self,
        tau_mem: float | torch.Tensor,
        tau_syn: float | torch.Tensor,
        *,
        norm_input: bool = True,
        learn_tau: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(tau_mem, norm_input=norm_input, learn_tau=learn_tau, **options)
        self._own("tau_syn", positive("tau_syn", tau_syn), learn_tau)

    def extra_repr(self) -> str:
        """Show the time constants first in ``repr``."""
        return f"tau_syn={short(self.tau_syn)}, {super().extra_repr()}"


class CubaLIF(CurrentBased):
    """Current-based leaky integrate-and-fire neurons: a :class:`LIF` behind an exponential synapse.

    Each step: ``i = exp(-1 / tau_syn) * (i + x)``, then a LIF step with ``i`` as its input.

    Args:
        tau_mem: time constant of the potential in time steps; infinite for no leak, where ``norm_input`` is off.
        tau_syn: time constant of the synaptic current in time steps.
        norm_input: multiply the current by ``1 - decay``.
        learn_tau: make both time constants Parameters.
        options: those of :class:`IAF`.

    Its state is ``State(v_mem, i_syn)``. Names, defaults and order of the step follow sinabs 3.1.3 (``LIF`` with
    ``tau_syn``), where the current decays in the step in which its input arrives.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """


class Adaptive(Leak):
    """What neurons with an adapting threshold are, alone or with lateral connections."""

    state_rows: ClassVar[tuple[str, ...]] = ("v_mem", "b")
    tau_adapt: torch.Tensor
    adapt_scale: torch.Tensor
    b: torch.Tensor | None

    def __init__(
        self,
        tau_mem: float | torch.Tensor,
        tau_adapt: float | torch.Tensor,
        *,
        adapt_scale: float | torch.Tensor = 1.8,
        norm_input: bool = True,
        learn_tau: bool = False,
        learn_adapt_scale: bool = False,
        detach_threshold: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(tau_mem, norm_input=norm_input, learn_tau=learn_tau, **{"spikes": "single", **options})
        self._own("tau_adapt", positive("tau_adapt", tau_adapt), learn_tau)
        self._own("adapt_scale", positive("adapt_scale", adapt_scale), learn_adapt_scale)
        self.neuron = replace(self.neuron, detach_threshold=detach_threshold)

    @property
    def adapt_decay(self) -> torch.Tensor:
        """``exp(-1 / tau_adapt)``; differentiable."""
        return torch.exp(-1.0 / self.tau_adapt)

    def _kernel_parameters(self, features: tuple[int, ...], x: torch.Tensor) -> Parameters:
        return (
            super()
            ._kernel_parameters(features, x)
            ._replace(
                adapt_decay=self._flat("adapt_decay", self.adapt_decay, features, x),
                adapt_scale=self._flat("adapt_scale", self.adapt_scale, features, x),
            )
        )

    def extra_repr(self) -> str:
        """Show what adapts first in ``repr``."""
        detached = ", detach_threshold=True" if self.neuron.detach_threshold else ""
        adapting = f"tau_adapt={short(self.tau_adapt)}, adapt_scale={short(self.adapt_scale)}{detached}"
        return f"{adapting}, {super().extra_repr()}"


class ALIF(Adaptive):
    """Adaptive leaky integrate-and-fire neurons: every spike raises the neuron's own threshold for a while.

    Each step, with ``r = exp(-1 / tau_adapt)``: a LIF step with the threshold ``threshold + adapt_scale * b``, then
    ``b = r * b + (1 - r) * s``. A soft reset takes the raised threshold away. (Bellec et al. 2018, arXiv:1803.09574.)

    Args:
        tau_mem: time constant of the potential in time steps.
        tau_adapt: time constant of the threshold in time steps.
        adapt_scale: how much the threshold follows ``b``, > 0; a number, or a tensor that broadcasts to the neurons.
        norm_input: multiply the input by ``1 - decay``.
        learn_tau: make both time constants Parameters.
        learn_adapt_scale: make ``adapt_scale`` a Parameter.
        detach_threshold: leave out of the gradient that the level which potentials are compared with moves, as sinabs
            does; what a spike subtracts counts in either case.
        options: those of :class:`IAF`; one spike per step unless ``spikes`` says otherwise.

    Its state is ``State(v_mem, b)``. Names, defaults and order follow sinabs 3.1.3 (``ALIF``); the surrogate's unit is
    the raised threshold, as there.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """


class FilterLayer(TimeLayer):
    """What layers without spikes share. Use :class:`LI` and :class:`SynapseFilter`."""

    _kind: native_filter.Kind

    def forward(
        self, x: torch.Tensor, initial_state: torch.Tensor | None = None, return_state: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Run all time steps.

        Args:
            x: input (B, T, ...), (T, B, ...) or folded (B*T, ...); float32 or float64.
            initial_state: output (B, ...) of the step before the first; differentiable. None: zero, or the carried one.
            return_state: also return the output (B, ...) of the last step, to start the next call from.

        Returns:
            Potentials or currents, shaped like x; with ``return_state`` the pair (output, state).

        Raises:
            KernelError: the shape does not fit the layer, or the scan cannot run on the tensor.
        """
        unfolded = self._unfold(x)
        time_major, batch, features = self._axes(unfolded)
        start = self._start(initial_state, batch, features, x)
        decay, input_gain = (
            self._flat(name, value, tuple(features), x)
            for name, value in (("decay", self.decay), ("input_gain", self.input_gain))
        )
        y, final_state = native_filter.apply(
            unfolded.reshape(*unfolded.shape[:2], prod(features)).contiguous(),
            start,
            decay,
            input_gain,
            kind=self._kind,
            time_major=time_major,
        )
        end = self._end(final_state, batch, features)
        return (y.reshape(x.shape), end) if return_state else y.reshape(x.shape)

    @property
    def decay(self) -> torch.Tensor:
        """Factor of the last output."""
        raise NotImplementedError

    @property
    def input_gain(self) -> torch.Tensor:
        """Factor of the input."""
        raise NotImplementedError


class LI(FilterLayer):
    """Leaky integrators, which do not spike: ``v = decay * v + gain * x``; the output is the potential of each step.

    The usual readout of audio and sequence networks; sinabs calls it ``ExpLeak``, Norse ``LI``.

    Args:
        tau_mem: time constant in time steps, > 0; a number, or a tensor that broadcasts to the neurons.
        norm_input: multiply the input by ``1 - decay``, so that a constant input converges to its own value.
        learn_tau: make ``tau_mem`` a Parameter.
        batch_size, num_timesteps, layout, stateful: as in :class:`IAF`.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    _kind: native_filter.Kind = "leak"
    tau_mem: torch.Tensor

    def __init__(
        self,
        tau_mem: float | torch.Tensor,
        *,
        norm_input: bool = False,
        learn_tau: bool = False,
        batch_size: int | None = None,
        num_timesteps: int | None = None,
        layout: Layout = "BT",
        stateful: bool = False,
    ) -> None:
        TimeLayer.__init__(self, batch_size=batch_size, num_timesteps=num_timesteps, layout=layout, stateful=stateful)
        self._own("tau_mem", positive("tau_mem", tau_mem), learn_tau)
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
        """Show the time constant in ``repr``."""
        return f"tau_mem={short(self.tau_mem)}, norm_input={self.norm_input}"


class SynapseFilter(FilterLayer):
    """The exponential synapse of :class:`CubaLIF` alone: ``i = decay * (i + x)``, ``decay = exp(-1 / tau_syn)``.

    A ``LIF`` behind it is a ``CubaLIF``, bit for bit. SpikingJelly's layer of this name computes
    ``i = (1 - 1/tau) i + x``: ``decay`` times its output, with ``tau_syn = -1 / log(1 - 1/tau)``, is this one's.

    Args:
        tau_syn: time constant in time steps, > 0; a number, or a tensor that broadcasts to the neurons.
        learn_tau: make ``tau_syn`` a Parameter.
        batch_size, num_timesteps, layout, stateful: as in :class:`IAF`.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    _kind: native_filter.Kind = "synapse"
    state_rows = ("i_syn",)
    tau_syn: torch.Tensor

    def __init__(
        self,
        tau_syn: float | torch.Tensor,
        *,
        learn_tau: bool = False,
        batch_size: int | None = None,
        num_timesteps: int | None = None,
        layout: Layout = "BT",
        stateful: bool = False,
    ) -> None:
        TimeLayer.__init__(self, batch_size=batch_size, num_timesteps=num_timesteps, layout=layout, stateful=stateful)
        self._own("tau_syn", positive("tau_syn", tau_syn), learn_tau)

    @property
    def decay(self) -> torch.Tensor:
        """``exp(-1 / tau_syn)``; differentiable."""
        return torch.exp(-1.0 / self.tau_syn)

    @property
    def input_gain(self) -> torch.Tensor:
        """1; the input decays with the current."""
        return torch.ones((), dtype=self.tau_syn.dtype, device=self.tau_syn.device)

    def extra_repr(self) -> str:
        """Show the time constant in ``repr``."""
        return f"tau_syn={short(self.tau_syn)}"
