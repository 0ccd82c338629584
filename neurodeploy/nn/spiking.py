"""Integrate-and-fire layers over a kernel."""

from math import inf, prod
from typing import Any, Literal

import torch

from neurodeploy import kernel
from neurodeploy.errors import KernelError
from neurodeploy.kernel import Memory, Neuron, Output, Parameters
from neurodeploy.neuron import Reset, Spikes, VMinPosition
from neurodeploy.surrogate import SingleExponential, Surrogate

Layout = Literal["BT", "TB"]


class SpikingLayer(torch.nn.Module):
    """What IAF and LIF share. Use those.

    Input and output are (B, T, ...), or (T, B, ...) with ``layout="TB"``, or with ``batch_size`` or ``num_timesteps``
    the folded (B*T, ...) that ``Conv2d`` and its kind take. All time steps run in one call.

    A call starts from the potential 0 unless it is given ``initial_state``, so calls are independent. A ``stateful``
    layer starts where its last call ended (without gradient through that boundary) until ``reset_states(net)``.

    Attributes (all plain to read, for tracing and export):
        threshold: tensor that broadcasts to the neurons' shape (a Parameter if learnt).
        decay: tensor; factor of the potential per step.
        input_gain: tensor; factor of the input.
        reset, spikes, v_min, v_min_position, surrogate: the choices of ``neurodeploy/neuron.py``.
        v: potentials of the last call with ``record_v``, shaped like the input, before the reset; part of the graph.
        v_mem: state that a ``stateful`` layer carries, (B, ...), or None.
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
        # Not super(): a layer may also derive from another library's stateful class, with another __init__.
        torch.nn.Module.__init__(self)
        self.neuron = Neuron(
            reset=reset,
            spikes=spikes,
            v_min=v_min,
            v_min_position=v_min_position,
            surrogate=SingleExponential() if surrogate is None else surrogate,
        )
        self._own("threshold", _positive("threshold", threshold), learn_threshold)
        if layout not in ("BT", "TB"):
            raise KernelError(f"layout is {layout!r}.", remedy="choose 'BT' or 'TB'.", code="layer-layout")
        for name, value in (("batch_size", batch_size), ("num_timesteps", num_timesteps)):
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise KernelError(f"{name} is {value!r}.", remedy="give a whole number above 0.", code="layer-fold")
        self.batch_size = batch_size
        self.num_timesteps = num_timesteps
        self.layout = layout
        self.algorithm = algorithm
        self.memory: Memory = memory
        self.stateful = stateful
        self.record_v = record_v
        self.v: torch.Tensor | None = None
        self.register_buffer("v_mem", None, persistent=False)
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
        self, x: torch.Tensor, initial_state: torch.Tensor | None = None, return_state: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Run all time steps.

        Args:
            x: input current (B, T, ...), (T, B, ...) or folded (B*T, ...); float32 or float64.
            initial_state: potential (B, ...) before the first step; differentiable. None: zero, or the carried state.
            return_state: also return the potential (B, ...) after the last step; differentiable.

        Returns:
            Spike counts per step, shaped like x; with ``return_state`` the pair (spikes, state).

        Raises:
            KernelError: the shape does not fit the layer, the layer is on another device, a learnt threshold is not
                above 0 any more, or the kernel cannot run on the tensor.

        A NaN in the input makes its neuron's potential NaN until the end, and such a neuron never fires; an infinite
        input does the same after its step. Neither raises an error: the spikes of other neurons are not touched.
        """
        unfolded = self._unfold(x)
        time_major = self.layout == "TB" and not self._folded
        first, second, *features = unfolded.shape
        batch = second if time_major else first
        neurons = prod(features)
        state = self._initial_state(initial_state, (batch, *features), x)
        output: Output = self._kernel.apply(
            unfolded.reshape(first, second, neurons).contiguous(),
            self._kernel_parameters(tuple(features), x),
            state.reshape(batch, neurons).contiguous(),
            self.neuron,
            memory=self.memory,
            time_major=time_major,
            record_v=self.record_v,
        )
        final_state = output.state.reshape(batch, *features)
        if self.stateful:
            self.v_mem = final_state.detach()
        if output.v is not None:
            self.v = output.v.reshape(x.shape)
        spikes = output.spikes.reshape(x.shape)
        return (spikes, final_state) if return_state else spikes

    def reset_states(self) -> None:
        """Forget the carried state: the next call starts from 0."""
        self.v_mem = None

    def extra_repr(self) -> str:
        """Show what differs from the defaults, and the threshold, in ``repr``."""
        shown = [f"threshold={_short(self.threshold)}"]
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

    @property
    def _folded(self) -> bool:
        return self.batch_size is not None or self.num_timesteps is not None

    def _own(self, name: str, value: torch.Tensor, learn: bool) -> None:
        """Hold ``value`` as a Parameter (an existing one is shared) or a copy of it as a buffer."""
        if isinstance(value, torch.nn.Parameter):
            self.register_parameter(name, value)
        elif learn:
            self.register_parameter(name, torch.nn.Parameter(value.detach().clone()))
        else:
            self.register_buffer(name, value.clone())

    def _unfold(self, x: torch.Tensor) -> torch.Tensor:
        if not self._folded:
            if x.dim() < 2:
                raise KernelError(
                    f"{type(self).__name__} got shape {tuple(x.shape)}, which has no time axis.",
                    remedy="pass (B, T, ...), or give the layer num_timesteps= or batch_size= for folded (B*T, ...).",
                    code="layer-shape",
                )
            return x
        rows = x.shape[0]
        batch, steps = self.batch_size, self.num_timesteps
        known = (batch or 1) * (steps or 1)
        fits = rows == known if batch is not None and steps is not None else rows % known == 0
        if not fits:
            raise KernelError(
                f"{type(self).__name__} has batch_size={batch}, num_timesteps={steps}, "
                f"but its input has {rows} rows of batch x time.",
                remedy="set num_timesteps (or batch_size) of the layer to the input's, or pad the recording.",
                code="layer-fold",
            )
        if batch is None:
            batch = rows // known
        return x.reshape(batch, rows // batch if batch else steps or 0, *x.shape[1:])

    def _initial_state(self, given: torch.Tensor | None, shape: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
        state = self.v_mem if given is None and self.stateful else given
        if state is None:
            return x.new_zeros(shape)
        if state.shape != shape:
            raise KernelError(
                f"{type(self).__name__} has a state of shape {tuple(state.shape)}; the input needs {shape}.",
                remedy="call reset_states(net) before a batch of another size, or pass a state that fits.",
                code="layer-state",
            )
        self._check_device("state", state, x)
        return state.to(x.dtype)

    def _check_device(self, name: str, tensor: torch.Tensor, x: torch.Tensor) -> None:
        if tensor.device != x.device:
            raise KernelError(
                f"{type(self).__name__} has its {name} on {tensor.device}, its input is on {x.device}.",
                remedy="move both to one device: net.to(device), x.to(device).",
                code="layer-device",
            )

    def _kernel_parameters(self, features: tuple[int, ...], x: torch.Tensor) -> Parameters:
        threshold = self._flat("threshold", self.threshold, features, x)
        return Parameters(
            decay=self._flat("decay", self.decay, features, x),
            threshold=threshold,
            input_gain=self._flat("input_gain", self.input_gain, features, x),
            unit=threshold.detach(),
        )

    def _flat(self, name: str, value: torch.Tensor, features: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
        """Return one number, or one per neuron in the order of the flattened features."""
        self._check_device(name, value, x)
        value = value.to(x.dtype)
        if value.numel() == 1:
            return value.reshape(1)
        try:
            return value.expand(features).reshape(-1)
        except RuntimeError:
            raise KernelError(
                f"{type(self).__name__} has a {name} of shape {tuple(value.shape)}, its neurons have shape {features}.",
                remedy="give one value, or a shape that broadcasts, for example (C, 1, 1) for one value per channel.",
                code="layer-parameter-shape",
            ) from None


class IAF(SpikingLayer):
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
        stateful: start where the last call ended; see :class:`SpikingLayer`.
        record_v: keep the potentials of the last call in ``v``, differentiable.

    Defaults and names follow sinabs 3.1.3, ``sinabs.layers.IAF``; ``threshold`` is its ``spike_threshold`` and
    ``v_min`` its ``min_v_mem``.

    Raises:
        KernelError: an argument has a value that cannot be run.
    """

    @property
    def decay(self) -> torch.Tensor:
        """1."""
        return torch.ones((), dtype=self.threshold.dtype, device=self.threshold.device)

    @property
    def input_gain(self) -> torch.Tensor:
        """1."""
        return torch.ones((), dtype=self.threshold.dtype, device=self.threshold.device)


class LIF(SpikingLayer):
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

    tau_mem: torch.Tensor

    def __init__(
        self, tau_mem: float | torch.Tensor, *, norm_input: bool = True, learn_tau: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._own("tau_mem", _positive("tau_mem", tau_mem), learn_tau)
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
        return f"tau_mem={_short(self.tau_mem)}, norm_input={self.norm_input}, {super().extra_repr()}"


def reset_states(net: torch.nn.Module) -> None:
    """Forget the carried state of every spiking layer in ``net``: the next call starts from 0."""
    for module in net.modules():
        if isinstance(module, SpikingLayer):
            module.reset_states()


def _positive(name: str, value: float | torch.Tensor) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
    if not tensor.is_floating_point():
        tensor = tensor.float()
    values = tensor.detach()
    if tensor.numel() == 0 or not bool(((values > 0) & (values < inf)).all()):
        raise KernelError(
            f"{name} has the value {_short(tensor)}.",
            remedy="give finite numbers above 0.",
            code=f"layer-{name.replace('_', '-')}",
        )
    return tensor


def _short(tensor: torch.Tensor) -> str:
    """One number, or the shape of several."""
    return f"{tensor.item():g}" if tensor.numel() == 1 else f"tensor{tuple(tensor.shape)}"
