"""The neurons of the SLAYER paper: alpha functions for the response to input and for refractoriness."""

from math import prod
from typing import ClassVar, NamedTuple

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Neuron
from neurodeploy.kernels.slayer import srm
from neurodeploy.neuron import Spikes
from neurodeploy.nn.layer import Layout, TimeLayer, positive, short
from neurodeploy.surrogate import SingleExponential, Surrogate


class SRMState(NamedTuple):
    """State of :class:`SRMAlpha`, each (B, ...): sums of decaying inputs and spikes, and the responses to them."""

    trace: torch.Tensor | None = None
    response: torch.Tensor | None = None
    spike_trace: torch.Tensor | None = None
    refractory: torch.Tensor | None = None


class SRMAlpha(TimeLayer):
    """Spike response neurons, ``u = eps * x + nu * s``, with alpha functions as both kernels.

    ``eps(t) = t / tau_sr * exp(1 - t / tau_sr)``, and ``nu`` is ``-scale_ref * threshold`` times the same function with
    ``tau_ref``; t in time steps (Shrestha and Orchard 2018). Neither is cut off; recursion makes both O(T).

    Args:
        tau_sr: time constant of the response to input in time steps, > 0; a number, or a tensor that broadcasts.
        tau_ref: that of the refractory response.
        scale_ref: size of the refractory response in thresholds.
        threshold: potential at which a spike is fired, > 0.
        spikes: "single", "multi", or the largest number of spikes in one step.
        surrogate: derivative of the spike function; its width and scale are the paper's ``tauRho`` and ``scaleRho``.
        algorithm: "slayer" leaves the refractory path out of the gradient, as the paper does; "exodus" keeps it.
        batch_size, num_timesteps, layout, stateful, record_v: as in :class:`IAF`.

    Nothing of it learns but the weights in front of it. Its state is an :class:`SRMState`.

    Attributes:
        v: potentials u of the last call with ``record_v``, shaped like the input; part of the graph.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    state_rows: ClassVar[tuple[str, ...]] = srm.STATE_ROWS
    state_type: ClassVar[type[SRMState]] = SRMState
    tau_sr: torch.Tensor
    tau_ref: torch.Tensor
    scale_ref: torch.Tensor
    threshold: torch.Tensor

    def __init__(
        self,
        tau_sr: float | torch.Tensor,
        tau_ref: float | torch.Tensor = 1.0,
        *,
        scale_ref: float | torch.Tensor = 2.0,
        threshold: float | torch.Tensor = 1.0,
        spikes: Spikes = "single",
        surrogate: Surrogate | None = None,
        algorithm: str = "slayer",
        batch_size: int | None = None,
        num_timesteps: int | None = None,
        layout: Layout = "BT",
        stateful: bool = False,
        record_v: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, num_timesteps=num_timesteps, layout=layout, stateful=stateful)
        values = {"tau_sr": tau_sr, "tau_ref": tau_ref, "scale_ref": scale_ref, "threshold": threshold}
        for name, value in values.items():
            tensor = positive(name, value)
            if tensor.requires_grad:
                raise KernelError(
                    f"SRMAlpha cannot learn its {name}.",
                    remedy="pass a number or a tensor without gradient; CubaLIF learns its time constants.",
                    code="layer-constant",
                )
            self._own(name, tensor, learn=False)
        if algorithm not in ("slayer", "exodus"):
            raise KernelError(
                f"SRMAlpha has no algorithm {algorithm!r}.",
                remedy="choose 'slayer' (the paper's) or 'exodus' (the refractory path kept).",
                code="unknown-algorithm",
            )
        self.neuron = Neuron(spikes=spikes, surrogate=SingleExponential(1.0) if surrogate is None else surrogate)
        self.algorithm = algorithm
        self.record_v = record_v
        self.v: torch.Tensor | None = None

    def forward(
        self, x: torch.Tensor, initial_state: SRMState | None = None, return_state: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, SRMState]:
        """Run all time steps.

        Args:
            x: input (B, T, ...), (T, B, ...) or folded (B*T, ...), weighted spikes; float32 or float64.
            initial_state: what to start from; differentiable. None: rest, or the carried state.
            return_state: also return the state after the last step; differentiable.

        Returns:
            Spike counts per step, shaped like x; with ``return_state`` the pair (spikes, state).

        Raises:
            KernelError: the shape does not fit the layer, or the scan cannot run on the tensor.
        """
        unfolded = self._unfold(x)
        time_major, batch, features = self._axes(unfolded)
        constants = (
            self._flat(name, getattr(self, name), tuple(features), x)
            for name in ("tau_sr", "tau_ref", "scale_ref", "threshold")
        )
        spikes, u, final_state = srm.apply(
            unfolded.reshape(*unfolded.shape[:2], prod(features)).contiguous(),
            srm.Kernels(*constants),
            self._start(initial_state, batch, features, x),
            self.neuron,
            reset_path=self.algorithm == "exodus",
            time_major=time_major,
            record_u=self.record_v,
        )
        end: SRMState = self._end(final_state, batch, features)
        if u is not None:
            self.v = u.reshape(x.shape)
        return (spikes.reshape(x.shape), end) if return_state else spikes.reshape(x.shape)

    def extra_repr(self) -> str:
        """Show the constants in ``repr``."""
        shown = [f"{name}={short(getattr(self, name))}" for name in ("tau_sr", "tau_ref", "scale_ref", "threshold")]
        return ", ".join([*shown, f"algorithm={self.algorithm!r}"])
