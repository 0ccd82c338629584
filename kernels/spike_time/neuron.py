"""The neuron of event-based backpropagation: current-based LIF in continuous time."""

from dataclasses import dataclass
from typing import Literal

import torch

from neurodeploy.errors import KernelError

Reset = Literal["subtract", "value"]
"""At a spike the potential loses ``drop``, or it is set to ``v_reset`` and held there for ``t_ref``."""


@dataclass(frozen=True, slots=True)
class SpikeTimeNeuron:
    """Constants of ``du/dt = -u / tau_mem + i``, ``di/dt = -i / tau_syn``, with ``i += w`` at an input spike.

    Each is one number for all neurons or a tensor [N], on any device; all are taken as constants. Times are in any one
    unit, the one of the spike times (seconds, say). A synapse's weight is then a potential per time: its response peaks
    at ``weight * peak_response()``.

    Attributes:
        tau_mem, tau_syn: time constants, > 0 and finite.
        threshold: > 0. A spike is fired when the potential reaches it from below.
        reset: "subtract" (soft) or "value" (hard).
        drop: what a spike subtracts with "subtract", > 0; None: the threshold.
        v_reset: potential after a spike with "value", < threshold.
        t_ref: time for which the potential is then held, >= 0, while the current flows on. ``inf``: one spike at most.

    Raises:
        KernelError: a constant outside its range, or one that the chosen reset does not have.
    """

    tau_mem: float | torch.Tensor
    tau_syn: float | torch.Tensor
    threshold: float | torch.Tensor = 1.0
    reset: Reset = "subtract"
    drop: float | torch.Tensor | None = None
    v_reset: float | torch.Tensor = 0.0
    t_ref: float | torch.Tensor = 0.0

    def __post_init__(self) -> None:
        if self.reset not in ("subtract", "value"):
            raise KernelError(
                f"reset is {self.reset!r}.", remedy="choose 'subtract' or 'value'.", code="spike-time-reset"
            )
        shapes = {tuple(_tensor(value).shape) for value in self._values()} - {(), (1,)}
        if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
            raise KernelError(
                f"The constants of the neurons have shapes {sorted(shapes)}.",
                remedy="give each as one number, or as a tensor with one value per neuron.",
                code="spike-time-constants",
            )
        for value in self._values():
            if isinstance(value, torch.Tensor) and value.requires_grad:
                raise KernelError(
                    "A neuron's constant requires a gradient; only weights and spike times have one.",
                    remedy="pass it detached.",
                    code="spike-time-constants",
                )
        mem, syn, threshold, after, t_ref = self.rows(1 if not shapes else next(iter(shapes))[0]).unbind()
        for name, row in (("tau_mem", mem), ("tau_syn", syn), ("threshold", threshold)):
            _require(name, row, (row > 0) & row.isfinite(), "above 0 and finite")
        if self.reset == "subtract":
            _require("drop", after, (after > 0) & after.isfinite(), "above 0 and finite")
            for name, value in (("v_reset", self.v_reset), ("t_ref", self.t_ref)):
                row = _tensor(value)
                _require(name, row, row == 0, "0 with reset='subtract' (choose reset='value')")
        else:
            if self.drop is not None:
                raise KernelError(
                    "drop is given with reset='value', which sets the potential.",
                    remedy="leave drop out, or choose reset='subtract'.",
                    code="spike-time-constants",
                )
            _require("v_reset", after, (after < threshold) & after.isfinite(), "below the threshold and finite")
            _require("t_ref", t_ref, t_ref >= 0, "at least 0")

    def _values(self) -> tuple[float | torch.Tensor, ...]:
        drop = () if self.drop is None else (self.drop,)
        return (self.tau_mem, self.tau_syn, self.threshold, self.v_reset, self.t_ref, *drop)

    def rows(self, neurons: int) -> torch.Tensor:
        """Return [5, neurons] float64, or [5, 1] where all are numbers: tau_mem, tau_syn, threshold, after, t_ref.

        ``after`` is ``drop`` or ``v_reset``, as the reset needs it.

        Raises:
            KernelError: a tensor has another length.
        """
        after = self.v_reset if self.reset == "value" else self.threshold if self.drop is None else self.drop
        values = [_tensor(value) for value in (self.tau_mem, self.tau_syn, self.threshold, after, self.t_ref)]
        columns = max(value.numel() for value in values)
        if columns not in (1, neurons) or any(value.numel() not in (1, columns) for value in values):
            raise KernelError(
                f"The constants are for {columns} neurons; the layer has {neurons}.",
                remedy="give each as one number, or as a tensor with one value per neuron.",
                code="spike-time-constants",
            )
        return torch.stack([value.reshape(-1).expand(columns) for value in values])

    def peak_response(self) -> torch.Tensor:
        """Peak of the potential after one input spike of weight 1: float64, one value or [N]."""
        mem, syn = _tensor(self.tau_mem), _tensor(self.tau_syn)
        difference = (mem - syn) / (mem * syn)  # without cancellation
        ratio = torch.log1p((mem - syn) / syn)
        time = torch.where(difference == 0, mem, ratio / torch.where(difference == 0, 1.0, difference))
        return mem * torch.exp(-time / syn)  # at the peak u = tau_mem * i


def _tensor(value: float | torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()


def _require(name: str, row: torch.Tensor, fits: torch.Tensor, rule: str) -> None:
    if not bool(fits.all()):
        worst = row.expand(fits.shape)[~fits].reshape(-1)[0]
        raise KernelError(
            f"{name} is {float(worst)}; it must be {rule}.",
            remedy="change it, in the time unit and potential of the layer.",
            code="spike-time-constants",
        )
