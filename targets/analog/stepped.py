"""Neurons whose equations have no closed solution, stepped in time: AdEx, and the full DPI membrane of DYNAP-SE2.

Everything else of the analog cores is exact (``emulator.py``). Steps are at most 1/200 of the shortest time constant,
end at input spikes, and are of 4th order (README.md); halving them shows what error is left.
"""

from dataclasses import dataclass, fields
from math import inf

import numpy as np

from neurodeploy.errors import EmulationError
from neurodeploy.extension import native as _native
from neurodeploy.targets.analog.emulator import SpikeOverflowError, check_run
from neurodeploy.targets.analog.parameters import Floats

STEPS = 200
"""Least number of steps in the shortest time constant."""

RESOLUTION = 20 / STEPS
"""Largest share of the membrane's own, momentary time constant that a step takes: the upswing of a spike is fast."""

STEEPEST = 20.0
"""Largest distance of the threshold of an AdEx neuron from the onset of its spikes, in units of ``delta``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SteppedNeurons:
    """What both models have; each constant is one number or ``[N]``.

    Attributes:
        weight: float64 ``[inputs, N]``: by how much a spike raises the current of the excitatory (> 0) or, by its
            magnitude, of the inhibitory receptor.
        tau_mem, tau_syn_exc, tau_syn_inh: time constants in seconds, > 0.
        threshold: where a spike is fired from below.
        reset: where the membrane is then held for ``t_ref`` seconds; ``inf``: one spike at most.
        start: where it is at time 0.
        constant_input: added to the currents of the receptors.
        tau_adaptation: time constant of the adaptation, > 0.
        jump: by how much a spike raises it.

    Raises:
        EmulationError: a constant is out of its range or has another shape.
    """

    weight: Floats
    tau_mem: float | Floats
    tau_syn_exc: float | Floats
    tau_syn_inh: float | Floats
    threshold: float | Floats
    reset: float | Floats
    t_ref: float | Floats = 0.0
    start: float | Floats
    constant_input: float | Floats = 0.0
    tau_adaptation: float | Floats = 1.0
    jump: float | Floats = 0.0

    def __post_init__(self) -> None:
        if self.weight.dtype != np.float64 or self.weight.ndim != 2 or not np.isfinite(self.weight).all():
            _refuse(f"weight is {self.weight.dtype} of shape {self.weight.shape}.", "give finite float64 [inputs, N].")
        for part in fields(self)[1:]:
            row = np.asarray(getattr(self, part.name), dtype=np.float64)
            if row.shape not in ((), (self.neurons,)) or not (np.isfinite(row) | (part.name == "t_ref")).all():
                _refuse(f"{part.name} is {row}.", f"give a finite number, or {self.neurons} of them.")
        above_0 = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "tau_adaptation")
        for name in above_0:
            self._require(name, 0.0, name, "above 0", above=True)
        self._require("t_ref", 0.0, "t_ref", "at least 0")
        self._require("threshold", self.reset, "reset", "below the threshold", above=True)
        self._require("threshold", self.start, "start", "below the threshold", above=True)

    def _require(self, name: str, least: float | Floats, blamed: str, rule: str, *, above: bool = False) -> None:
        difference = np.asarray(getattr(self, name)) - np.asarray(least)
        if not (difference > 0 if above else difference >= 0).all():
            _refuse(f"{blamed} is {getattr(self, blamed)}; it must be {rule}.", "change it.")

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[0])

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[1])

    def shortest_time(self) -> float:
        """The shortest time constant in seconds."""
        taus = [self.tau_mem, self.tau_syn_exc, self.tau_syn_inh, self.tau_adaptation]
        return float(min(np.min(tau) for tau in taus))

    def constants(self) -> Floats:
        """``[N, constants]``, in the order of the compiled model."""
        rows = [np.broadcast_to(np.float64(getattr(self, part.name)), self.neurons) for part in fields(self)[1:]]
        return np.stack(rows, axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class AdexNeurons(SteppedNeurons):
    """Adaptive exponential neurons (Brette & Gerstner, J. Neurophysiol. 94, 2005); currents as in ``LayerParameters``.

    ``tau_mem du/dt = -u + delta exp((u - onset) / delta) - w + tau_mem (i_exc - i_inh + constant_input)``,
    ``tau_adaptation dw/dt = adaptation u - w``; a spike adds ``jump`` to ``w``. Potentials are relative to the rest.

    Attributes:
        delta: how sharp the upswing of a spike is, >= 0; 0: no exponential, current-based LIF.
        onset: potential at which it begins; ``threshold`` may be 20 ``delta`` above it at most.
        adaptation: of ``w`` to the potential.
    """

    start: float | Floats = 0.0
    delta: float | Floats = 0.0
    onset: float | Floats = 0.0
    adaptation: float | Floats = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("delta", 0.0, "delta", "at least 0")
        steep = np.asarray(self.delta) * STEEPEST < np.asarray(self.threshold) - np.asarray(self.onset)
        if (steep & (np.asarray(self.delta) > 0)).any():
            _refuse(
                f"The threshold is more than {STEEPEST:g} delta above the onset.",
                "lower the threshold; the potential passes the rest in less than 1e-8 of tau_mem.",
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class DpiNeurons(SteppedNeurons):
    """The full membrane of DYNAP-SE2, currents in ampere (Chicca et al., Proc. IEEE 102(9), 2014).

    ``tau_mem (1 + i_gain / I) dI/dt = (i_gain / i_leak)(i_in - i_leak) - I (1 + i_ahp / i_leak) + feedback``, with
    ``feedback = i_0 (I / i_0)^(kappa / (kappa + 1)) (I + i_gain) / i_leak``, ``i_in = i_exc - i_inh + constant_input``,
    and ``I >= i_0``. ``i_ahp`` decays with ``tau_adaptation``; a spike adds ``jump`` to it.

    Attributes:
        i_leak, i_gain: bias currents of time constant and gain, > 0.
        i_0: dark current, > 0, not above ``start`` and ``reset``.
        kappa: slope factor of the transistors in the positive feedback, > 0; 0: no feedback.
    """

    i_leak: float | Floats
    i_gain: float | Floats
    i_0: float | Floats
    kappa: float | Floats = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("i_leak", "i_gain", "i_0"):
            self._require(name, 0.0, name, "above 0", above=True)
        self._require("kappa", 0.0, "kappa", "at least 0")
        self._require("reset", self.i_0, "reset", "at least i_0")
        self._require("start", self.i_0, "start", "at least i_0")


def run_stepped(
    times: Floats,
    layer: AdexNeurons | DpiNeurons,
    *,
    max_spikes: int,
    t_max: float,
    dt: float | None = None,
    threads: int = 1,
    name: str = "",
) -> Floats:
    """Run one layer from time 0; without noise.

    Args:
        times: input spikes, float64 ``[B, inputs, slots]`` in seconds, >= 0; ``inf``: none.
        layer: its neurons.
        max_spikes: slots per neuron in the result.
        t_max: end of the run in seconds, finite.
        dt: longest step in seconds, at most 1/200 of the shortest time constant; None: that.
        threads: at most this many; the result has the same bytes for any.
        name: of the layer, for messages.

    Returns:
        Spike times, float64 ``[B, N, max_spikes]``, ascending, ``inf`` behind the last spike.

    Raises:
        EmulationError: an argument has another type, shape or range.
        SpikeOverflowError: a neuron has more than ``max_spikes`` spikes; the first one is named.
    """
    batch = check_run(name, times, layer.inputs, max_spikes, t_max, threads)
    if not 0 < t_max < inf or (times < 0).any():
        _refuse(
            f"t_max is {t_max}, the first spike at {times.min(initial=inf)}.", "give times >= 0 and an end of the run."
        )
    longest = layer.shortest_time() / STEPS
    dt = longest if dt is None else dt
    if not 0 < dt <= longest * (1 + 1e-12):
        _refuse(
            f"dt is {dt:g} s; the limit is {longest:g} s, 1/{STEPS} of the shortest time constant.",
            "give a shorter one, or None.",
        )
    out = np.empty((batch, layer.neurons, max_spikes))
    run = _native.analog_stepped.adex if isinstance(layer, AdexNeurons) else _native.analog_stepped.dpi
    overflow = run(
        np.ascontiguousarray(times),
        np.ascontiguousarray(layer.weight),
        layer.constants(),
        float(t_max),
        float(dt),
        RESOLUTION * dt / longest,
        threads,
        out,
    )
    if overflow < batch * layer.neurons:
        sample, neuron = divmod(overflow, layer.neurons)
        raise SpikeOverflowError(name, sample, neuron, max_spikes)
    return out


def _refuse(message: str, remedy: str) -> None:
    raise EmulationError(message, remedy=remedy, code="analog-stepped")
