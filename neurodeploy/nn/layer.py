"""What every layer over time has: the order of axes, folding, state, and parameters per neuron."""

from collections.abc import Sequence
from math import inf, prod
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernel import state_dtype

Layout = Literal["BT", "TB"]


class State(NamedTuple):
    """What the neurons of a layer carry from step to step, each (B, ...); None is zero, or not there.

    Layers that carry one of them alone give and take that tensor itself.

    Attributes:
        v_mem: potential.
        i_syn: synaptic current.
        b: trace of the neuron's own spikes, which raises an adapting threshold.
        i_rec: current that the layer's last spikes send it in the next step.
    """

    v_mem: torch.Tensor | None = None
    i_syn: torch.Tensor | None = None
    b: torch.Tensor | None = None
    i_rec: torch.Tensor | None = None


class TimeLayer(torch.nn.Module):
    """A layer that walks the time axis of (B, T, ...), (T, B, ...) or folded (B*T, ...) input, all steps in one call.

    Attributes:
        state_rows: names of what it carries, fields of ``state_type``; each is a buffer, None before the first call,
            that a ``stateful`` layer keeps from call to call.
    """

    state_rows: ClassVar[tuple[str, ...]] = ("v_mem",)
    state_type: ClassVar[type[Any]] = State

    def __init__(
        self,
        *,
        batch_size: int | None = None,
        num_timesteps: int | None = None,
        layout: Layout = "BT",
        stateful: bool = False,
    ) -> None:
        # Not super(): a layer may also derive from another library's stateful class, with another __init__.
        torch.nn.Module.__init__(self)
        if layout not in ("BT", "TB"):
            raise KernelError(f"layout is {layout!r}.", remedy="choose 'BT' or 'TB'.", code="layer-layout")
        for name, value in (("batch_size", batch_size), ("num_timesteps", num_timesteps)):
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise KernelError(f"{name} is {value!r}.", remedy="give a whole number above 0.", code="layer-fold")
        self.batch_size = batch_size
        self.num_timesteps = num_timesteps
        self.layout = layout
        self.stateful = stateful
        for name in self.state_rows:
            self.register_buffer(name, None, persistent=False)

    def reset_states(self) -> None:
        """Forget the carried state: the next call starts from 0."""
        for name in self.state_rows:
            setattr(self, name, None)

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

    def _axes(self, unfolded: torch.Tensor) -> tuple[bool, int, list[int]]:
        """Whether time is the first axis, the batch, and the shape of one sample's neurons."""
        time_major = self.layout == "TB" and not self._folded
        first, second, *features = unfolded.shape
        return time_major, second if time_major else first, features

    def _start(self, given: Any, batch: int, features: Sequence[int], x: torch.Tensor) -> torch.Tensor:
        """The state to start from as one tensor: (B, N), or (S, B, N) where neurons carry more than one thing."""
        if given is None and self.stateful:
            given = self.state_type(**{name: getattr(self, name) for name in self.state_rows})
        elif len(self.state_rows) == 1 and not isinstance(given, self.state_type):
            given = self.state_type(**{self.state_rows[0]: given})
        elif given is None:
            given = self.state_type()
        if not isinstance(given, self.state_type) or any(
            value is not None and name not in self.state_rows for name, value in given._asdict().items()
        ):
            raise KernelError(
                f"{type(self).__name__} got a state it cannot start from; it carries {', '.join(self.state_rows)}.",
                remedy=f"pass the state that a {type(self).__name__} returned, or a {self.state_type.__name__}(...).",
                code="layer-state",
            )
        shape = (batch, *features)
        rows = [self._row(getattr(given, name), shape, x).reshape(batch, prod(features)) for name in self.state_rows]
        return rows[0].contiguous() if len(rows) == 1 else torch.stack(rows)

    def _row(self, value: torch.Tensor | None, shape: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
        if value is None:
            return x.new_zeros(shape, dtype=state_dtype(x.dtype))
        if value.shape != shape:
            raise KernelError(
                f"{type(self).__name__} has a state of shape {tuple(value.shape)}; the input needs {shape}.",
                remedy="call reset_states(net) before a batch of another size, or pass a state that fits.",
                code="layer-state",
            )
        self._check_device("state", value, x)
        return value.to(state_dtype(x.dtype))

    def _end(self, state: torch.Tensor, batch: int, features: Sequence[int]) -> Any:
        """The final state as it is returned; a stateful layer keeps it."""
        rows = [state] if len(self.state_rows) == 1 else list(state.unbind())
        values = {name: row.reshape(batch, *features) for name, row in zip(self.state_rows, rows, strict=True)}
        if self.stateful:
            for name, value in values.items():
                setattr(self, name, value.detach().clone())  # its own: the returned one is the caller's to change
        return values[self.state_rows[0]] if len(values) == 1 else self.state_type(**values)

    def _check_device(self, name: str, tensor: torch.Tensor, x: torch.Tensor) -> None:
        if tensor.device != x.device:
            raise KernelError(
                f"{type(self).__name__} has its {name} on {tensor.device}, its input is on {x.device}.",
                remedy="move both to one device: net.to(device), x.to(device).",
                code="layer-device",
            )

    def _flat(self, name: str, value: torch.Tensor, features: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
        """Return one number, or one per neuron in the order of the flattened features."""
        self._check_device(name, value, x)
        value = value.to(state_dtype(x.dtype))
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


def reset_states(net: torch.nn.Module) -> None:
    """Forget the carried state of every layer over time in ``net``: the next call starts from 0."""
    for module in net.modules():
        if isinstance(module, TimeLayer):
            module.reset_states()


def positive(name: str, value: float | torch.Tensor, *, infinite: bool = False) -> torch.Tensor:
    """Return the value as a floating-point tensor.

    Raises:
        KernelError: not all of it is above 0 and finite (``infinite`` allows infinity).
    """
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
    if not tensor.is_floating_point():
        tensor = tensor.float()
    values = tensor.detach()
    if tensor.numel() == 0 or not bool(((values > 0) & ((values < inf) | infinite)).all()):
        raise KernelError(
            f"{name} has the value {short(tensor)}.",
            remedy="give finite numbers above 0.",
            code=f"layer-{name.replace('_', '-')}",
        )
    return tensor


def short(tensor: torch.Tensor) -> str:
    """One number, or the shape of several."""
    return f"{tensor.item():g}" if tensor.numel() == 1 else f"tensor{tuple(tensor.shape)}"
