"""Training a whole network by spike accumulation forwarding (SAF-E, SAF-F), or by the equivalent OTTT."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from neurodeploy.errors import KernelError
from neurodeploy.kernels.saf import Form, WeightedMap
from neurodeploy.kernels.saf.synapse import WEIGHTED, Weighted
from neurodeploy.nn.saf_stages import common_decay, stages
from neurodeploy.nn.saf_window import Connection, Window
from neurodeploy.nn.spiking import SpikingLayer

Method = Literal["saf_e", "saf_f", "ottt"]
Slope = Literal["clamp", "surrogate"]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Feedback:
    """A connection that brings the spikes of ``source`` to ``target`` one step later.

    Attributes:
        source, target: spiking layers of the network (the same one for a lateral connection).
        module: Linear, Conv1d or Conv2d; its output has the shape of the target's neurons.
    """

    source: SpikingLayer
    target: SpikingLayer
    module: Weighted


class Batch(NamedTuple):
    """Loss of a window (a number), and its output [B, ...]: the mean over steps, for SAF-F the weighted mean."""

    loss: float
    output: torch.Tensor


class SAF(torch.nn.Module):
    """Runs and trains ``net`` on weighted spike accumulations in the place of spikes.

    ``net`` is an ordinary network: a ``Sequential`` of Linear, Conv1d, Conv2d, average or sum pooling, Flatten, and IAF
    or LIF layers that share one decay. It stays the owner of its weights, and *is* the trained spiking network: the
    spikes here are those that ``net`` itself fires, up to rounding. A last layer of weights without neurons is a
    readout. See ``kernels/saf/README.md`` for the mathematics and for what is exact and what is biased.

    Args:
        net: the network; its layers may be folded (``num_timesteps=``) or wrapped in ``OverTime``.
        method: "saf_e" (gradients of every step), "saf_f" (one gradient at the last step; nothing is kept for the
            others), or "ottt" (spikes and traces, as published: the same gradients as "saf_e", for comparison).
        online: update the weights at every step (``train_batch``); "saf_e" and "ottt" only. OTTT_O is "ottt" with
            ``online``, OTTT_A without.
        form: of "saf_e": "closed" where the weights do not change inside a window, "recurrent" where they do; "auto" is
            "recurrent" with ``online``, else "closed". "saf_f" is always closed.
        slope: derivative of "saf_f": "clamp" (spike representation, the exact derivative of the firing rate's limit) or
            the layers' own "surrogate".
        feedback: connections back or sideways, one step delayed. Errors do not travel back over them.
        chunk: time steps run at once; None is all of a window. Memory grows with it; small layers are faster for it,
            large ones are not. Feedback and ``online`` need 1.

    Raises:
        KernelError: a network or a combination of arguments that cannot be run, with the reason.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        method: Method = "saf_e",
        *,
        online: bool = False,
        form: Literal["auto", "closed", "recurrent"] = "auto",
        slope: Slope = "clamp",
        feedback: Sequence[Feedback] = (),
        chunk: int | None = 1,
    ) -> None:
        super().__init__()
        self.net = net
        self.method: Method = method
        self.online = online
        self.slope: Slope = slope
        self.form = _form(method, online, form)
        if slope not in ("clamp", "surrogate"):
            raise KernelError(f"slope is {slope!r}.", remedy="choose 'clamp' or 'surrogate'.", code="saf-slope")
        if chunk != 1 and (online or feedback):
            raise KernelError(
                f"chunk is {chunk}, but {'weights change' if online else 'feedback arrives'} after every step.",
                remedy="leave chunk out, or give 1.",
                code="saf-chunk",
            )
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
            raise KernelError(
                f"chunk is {chunk!r}.",
                remedy="give a whole number of steps above 0, or None for all at once.",
                code="saf-chunk",
            )
        self.chunk = chunk
        self._stages = stages(net)
        self._connections = [self._connection(number, item) for number, item in enumerate(feedback)]
        self.feedback = torch.nn.ModuleList(item.module for item in feedback)
        self.reset_states()

    def reset_states(self) -> None:
        """Start a new window: accumulations and potentials are 0."""
        self._window = Window(self._stages, self._connections, self.form, common_decay(self._stages))
        self._versions: list[int] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run one window, starting from 0.

        Args:
            x: input (B, T, ...): spikes or currents; float32 or float64. No gradient flows into it.

        Returns:
            Of "saf_e" and "ottt" the output of every step (B, T, ...): spikes, or the readout's value. Of "saf_f" the
            weighted mean over the window (B, ...), ``a_T / c_T``.

        Raises:
            KernelError: shapes or dtypes that cannot be run.
        """
        self._check_input(x)
        self.reset_states()
        steps = x.shape[1]
        if self.method != "saf_f":
            return self.advance(x)
        if steps > 1:
            with torch.no_grad():
                for part in torch.split(x[:, :-1], self.chunk or steps, 1):
                    self._window.run(part.transpose(0, 1))
        last = self._window.run(x[:, -1:].transpose(0, 1), clamp=self.slope == "clamp")
        return last.a[0] / self._window.sum

    def advance(self, x: torch.Tensor) -> torch.Tensor:
        """Run the next steps of a window, from where the last call ended; ``reset_states`` starts a new one.

        Args:
            x: input (B, T, ...) of T more steps.

        Returns:
            The output of each step (B, T, ...). Its gradient reaches the weights; none flows back to earlier calls.

        Raises:
            KernelError: "saf_f" (which has no gradient before the last step); weights that were changed inside a window
                of the closed form; shapes or dtypes that cannot be run.
        """
        self._check_input(x)
        if self.method == "saf_f":
            raise KernelError(
                "SAF-F has no output before the last step of its window.",
                remedy="call the network on the whole window, or use method='saf_e'.",
                code="saf-f-advance",
            )
        self._check_weights()
        outputs = []
        for part in torch.split(x.transpose(0, 1), self.chunk or x.shape[1]):
            outputs.append(self._window.per_step(self._window.run(part)))
        return torch.cat(outputs).transpose(0, 1)

    def train_batch(self, x: torch.Tensor, target: torch.Tensor, loss: Loss, optimizer: torch.optim.Optimizer) -> Batch:
        """Train on one window: gradients at every step (or at the last, for "saf_f"), and the updates.

        The loss of a window is the mean of ``loss(output_t, target)`` over its steps, of "saf_f" that of the weighted
        mean. With ``online`` the optimizer steps after every time step, otherwise once at the end. Memory does not grow
        with the number of steps.

        Args:
            x: input (B, T, ...).
            target: what ``loss`` takes as its second argument; the same in every step.
            loss: ``loss(output (B, ...), target)``, a scalar.
            optimizer: holds the parameters of the network (and of its feedback).

        Raises:
            KernelError: as ``forward``.
        """
        self._check_input(x)
        optimizer.zero_grad()
        if self.method == "saf_f":
            output = self(x)
            value: torch.Tensor = loss(output, target)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return Batch(value.item(), output.detach())
        self.reset_states()
        total, outputs, steps = 0.0, [], x.shape[1]
        for part in torch.split(x, self.chunk or steps, 1):
            output = self.advance(part)
            value = torch.stack([loss(step, target) for step in output.unbind(1)]).sum() / steps
            value.backward()  # type: ignore[no-untyped-call]
            total += value.item()
            outputs.append(output.detach().sum(1))
            if self.online:
                optimizer.step()
                optimizer.zero_grad()
        if not self.online:
            optimizer.step()
        return Batch(total, torch.stack(outputs).sum(0) / steps)

    def extra_repr(self) -> str:
        """Show method and form in ``repr``."""
        return f"method={self.method!r}, online={self.online}, form={self.form!r}, chunk={self.chunk}"

    def _check_input(self, x: torch.Tensor) -> None:
        if x.dim() < 3 or x.shape[1] < 1:
            raise KernelError(
                f"The input has shape {tuple(x.shape)}; accumulations take (B, T, ...) with T at least 1.",
                remedy="add the time axis, for example x.unsqueeze(1).expand(-1, T, *x.shape[1:]) for still images.",
                code="layer-shape",
            )
        if x.requires_grad:
            raise KernelError(
                "The input asks for a gradient, which accumulations do not give.",
                remedy="make the layers ahead part of the network, or pass x.detach().",
                code="saf-input-gradient",
            )

    def _check_weights(self) -> None:
        """Refuse the closed form on weights that were changed inside the window."""
        if self.form != "closed":
            return
        versions = [parameter._version for parameter in self.parameters()]
        if self._versions is not None and versions != self._versions:
            raise _closed_with_changing_weights("The weights were changed inside a window of the closed form.")
        self._versions = versions

    def _connection(self, number: int, feedback: Feedback) -> Connection:
        name = f"feedback {number}"
        layers = [stage.neurons for stage in self._stages]
        source, target = (
            [i for i, layer in enumerate(layers) if layer is end] for end in (feedback.source, feedback.target)
        )
        if len(source) != 1 or len(target) != 1:
            raise KernelError(
                f"{name} joins a layer that is not at one place of the network, but at none or several.",
                remedy="give the spiking layers themselves, for example Feedback(net[3], net[1], module).",
                code="saf-feedback",
            )
        if not isinstance(feedback.module, WEIGHTED) or feedback.module.bias is not None:
            raise KernelError(
                f"{name} is a {feedback.module}.",
                remedy="use Linear, Conv1d or Conv2d with bias=False: the target's own weights have one.",
                code="saf-feedback",
            )
        return Connection(source[0], target[0], WeightedMap(feedback.module, name), name)


def _form(method: str, online: bool, form: str) -> Form:
    """The form that a method runs.

    Raises:
        KernelError: a combination that would compute something else.
    """
    if method not in ("saf_e", "saf_f", "ottt"):
        raise KernelError(f"method is {method!r}.", remedy="choose 'saf_e', 'saf_f' or 'ottt'.", code="saf-method")
    if form not in ("auto", "closed", "recurrent"):
        raise KernelError(f"form is {form!r}.", remedy="choose 'auto', 'closed' or 'recurrent'.", code="saf-form")
    if method == "saf_f" and online:
        raise KernelError(
            "SAF-F has one gradient, at the last step of a window: it cannot update the weights at every step.",
            remedy="use method='saf_e' with online=True, or online=False.",
            code="saf-f-online",
        )
    if method == "saf_e" and online and form == "closed":
        raise _closed_with_changing_weights("online=True changes the weights inside a window of the closed form.")
    only = {"saf_f": "closed", "ottt": "lif"}.get(method)
    if only is not None and form not in ("auto", only):
        raise KernelError(
            f"form is {form!r}, but {method!r} has one form only.", remedy="leave form out.", code="saf-form"
        )
    if method == "ottt":
        return "lif"
    return "recurrent" if form == "recurrent" or online else "closed"


def _closed_with_changing_weights(what: str) -> KernelError:
    return KernelError(
        f"{what} It weighs all past inputs of the window with the present weights, where a neuron keeps what the old "
        "ones gave it: neither the spikes nor the gradients would be those of a spiking network.",
        remedy="use form='recurrent', or update once per window, after its last step.",
        code="saf-closed-form-online",
    )
