"""Spiking layers whose neurons send their spikes to each other: lateral connections, one step later."""

from math import prod
from typing import Any

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import Output, Parameters
from neurodeploy.nn.spiking import Leak, NeuronLayer, NoLeak
from neurodeploy.nn.synaptic import Adaptive, CurrentBased


class Lateral(NeuronLayer):
    """What recurrent layers share: ``x_t + rec_connect(s_{t-1})`` is the input of the neurons.

    In the first step nothing comes back. The current that the last spikes leave behind is part of the state, so calls
    in chunks equal one call.

    ``torch.nn.Linear`` over one axis of neurons runs inside the kernel: each spike adds a row of weights, so the
    forward pass costs what fires, and the backward pass one product with the matrix per step and sample. Any other
    module is called once per step between single steps of the kernel; its gradients are autograd's.
    """

    i_rec: torch.Tensor | None
    rec_connect: torch.nn.Module

    def _connect(self, rec_connect: torch.nn.Module | torch.Tensor) -> None:
        if isinstance(rec_connect, torch.Tensor):
            if rec_connect.dim() != 2 or rec_connect.shape[0] != rec_connect.shape[1]:
                raise KernelError(
                    f"{type(self).__name__} got lateral weights of shape {tuple(rec_connect.shape)}.",
                    remedy="give [N, N] (row: target, column: source), or a module.",
                    code="layer-lateral",
                )
            neurons = rec_connect.shape[0]
            linear = torch.nn.Linear(neurons, neurons, bias=False, device="meta")
            shared = isinstance(rec_connect, torch.nn.Parameter)
            linear.weight = rec_connect if shared else torch.nn.Parameter(rec_connect.detach().clone())
            rec_connect = linear
        if not isinstance(rec_connect, torch.nn.Module):
            raise KernelError(
                f"{type(self).__name__} got {type(rec_connect).__name__} for rec_connect.",
                remedy="give a module that maps spikes (B, ...) to currents of the same shape, or weights [N, N].",
                code="layer-lateral",
            )
        self.rec_connect = rec_connect

    def _fused(self, features: list[int]) -> bool:
        """Whether the connections are a matrix that the kernel multiplies with."""
        linear = self.rec_connect
        return (
            type(linear) is torch.nn.Linear
            and len(features) == 1
            and not (linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks)
        )

    def _run(self, x: torch.Tensor, state: torch.Tensor, features: list[int], time_major: bool) -> Output:
        if self._fused(features):
            return super()._run(x, state, features, time_major)
        axis = 0 if time_major else 1
        batch = x.shape[1 - axis]
        parameters = self._neuron_parameters(tuple(features), x)
        steps: list[Output] = []
        carried, i_rec = state[:-1], state[-1]
        carried = carried[0] if len(carried) == 1 else carried
        for t in range(x.shape[axis]):
            step_input = x.select(axis, t).reshape(batch, prod(features)) + i_rec
            step = self._kernel.apply(
                step_input.unsqueeze(axis).contiguous(),
                parameters,
                carried.contiguous(),
                self.neuron,
                memory=self.memory,
                time_major=time_major,
                record_v=self.record_v,
            )
            returned = self.rec_connect(step.spikes.reshape(batch, *features))
            if returned.numel() != batch * prod(features):
                raise KernelError(
                    f"{type(self).__name__}: rec_connect gave {tuple(returned.shape)} for spikes of shape "
                    f"{(batch, *features)}.",
                    remedy="return one current for each neuron.",
                    code="layer-lateral",
                )
            carried, i_rec = step.state, returned.reshape(batch, prod(features))
            steps.append(step)
        carried = carried.unsqueeze(0) if carried.dim() == 2 else carried
        final_state = torch.cat([carried, i_rec.unsqueeze(0)])
        if not steps:
            empty = x.reshape(*x.shape[:2], prod(features))
            return Output(empty, empty if self.record_v else None, final_state)
        spikes = torch.cat([step.spikes for step in steps], axis)
        v = torch.cat([step.v for step in steps if step.v is not None], axis) if self.record_v else None
        return Output(spikes, v, final_state)

    def _neuron_parameters(self, features: tuple[int, ...], x: torch.Tensor) -> Parameters:
        """The numbers of the neurons without their connections."""
        return super()._kernel_parameters(features, x)

    def _kernel_parameters(self, features: tuple[int, ...], x: torch.Tensor) -> Parameters:
        linear: Any = self.rec_connect
        self._check_device("rec_connect", linear.weight, x)
        weight = linear.weight.to(x.dtype).contiguous()
        bias = None if linear.bias is None else linear.bias.to(x.dtype)
        return self._neuron_parameters(features, x)._replace(weight=weight, bias=bias)


class IAFRecurrent(Lateral, NoLeak):
    """:class:`IAF` neurons with lateral connections.

    Args:
        rec_connect: a module that maps spikes (B, ...) to currents, or weights [N, N]; see :class:`Lateral`.
        options: those of :class:`IAF`.

    Its state is ``State(v_mem, i_rec)``. Follows sinabs 3.1.3, which forgets ``i_rec`` from call to call.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    state_rows = ("v_mem", "i_rec")

    def __init__(self, rec_connect: torch.nn.Module | torch.Tensor, **options: Any) -> None:
        super().__init__(**options)
        self._connect(rec_connect)


class LIFRecurrent(Lateral, Leak):
    """:class:`LIF` neurons with lateral connections.

    Args:
        tau_mem: time constant in time steps.
        rec_connect: a module that maps spikes (B, ...) to currents, or weights [N, N]; see :class:`Lateral`.
        options: those of :class:`LIF`.

    Its state is ``State(v_mem, i_rec)``. Follows sinabs 3.1.3, which forgets ``i_rec`` from call to call.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    state_rows = ("v_mem", "i_rec")

    def __init__(
        self, tau_mem: float | torch.Tensor, rec_connect: torch.nn.Module | torch.Tensor, **options: Any
    ) -> None:
        super().__init__(tau_mem, **options)
        self._connect(rec_connect)


class CubaLIFRecurrent(Lateral, CurrentBased):
    """:class:`CubaLIF` neurons with lateral connections, whose currents pass the synapse like the input.

    Args:
        tau_mem, tau_syn: time constants in time steps.
        rec_connect: a module that maps spikes (B, ...) to currents, or weights [N, N]; see :class:`Lateral`.
        options: those of :class:`CubaLIF`.

    Its state is ``State(v_mem, i_syn, i_rec)``.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    state_rows = ("v_mem", "i_syn", "i_rec")

    def __init__(
        self,
        tau_mem: float | torch.Tensor,
        tau_syn: float | torch.Tensor,
        rec_connect: torch.nn.Module | torch.Tensor,
        **options: Any,
    ) -> None:
        super().__init__(tau_mem, tau_syn, **options)
        self._connect(rec_connect)


class ALIFRecurrent(Lateral, Adaptive):
    """:class:`ALIF` neurons with lateral connections.

    Args:
        tau_mem, tau_adapt: time constants in time steps.
        rec_connect: a module that maps spikes (B, ...) to currents, or weights [N, N]; see :class:`Lateral`.
        options: those of :class:`ALIF`.

    Its state is ``State(v_mem, b, i_rec)``.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    state_rows = ("v_mem", "b", "i_rec")

    def __init__(
        self,
        tau_mem: float | torch.Tensor,
        tau_adapt: float | torch.Tensor,
        rec_connect: torch.nn.Module | torch.Tensor,
        **options: Any,
    ) -> None:
        super().__init__(tau_mem, tau_adapt, **options)
        self._connect(rec_connect)
