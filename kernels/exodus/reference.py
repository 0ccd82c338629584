"""EXODUS as two plain loops over time: the definition that ``cpu.cpp`` equals. README.md derives the backward loop.

``reset_path=False`` leaves out what a spike does to the loss through the reset of its own neuron: that is SLAYER.
"""

from dataclasses import replace
from math import inf, pi
from typing import NamedTuple

import torch

from neurodeploy.kernel import STATE_ROWS, Gradients, Neuron, Parameters
from neurodeploy.surrogate import Arctan, Box, Heaviside, PeriodicExponential, Sigmoid, SingleExponential, Surrogate


def forward(
    x: torch.Tensor, parameters: Parameters, state: torch.Tensor, neuron: Neuron, *, reset_path: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (spikes [B, T, N], v [B, T, N] before the reset, final state); x is [B, T, N].

    The state is [B, N], or [S, B, N] where neurons have more than a potential: rows as in ``kernel.STATE_ROWS``.
    """
    trace = _run(x, parameters, state, neuron, reset_path)
    return trace.spikes, trace.v, trace.final_state


class _Trace(NamedTuple):
    """A run, with what the backward loop reads besides v: all [B, T, N] but the final state."""

    spikes: torch.Tensor
    v: torch.Tensor
    drive: torch.Tensor  # input current before the synapse
    b: torch.Tensor  # trace of spikes before the step
    final_state: torch.Tensor


def _run(x: torch.Tensor, parameters: Parameters, state: torch.Tensor, neuron: Neuron, reset_path: bool) -> _Trace:
    zero = torch.zeros_like(x[:, :0].sum(1))
    rows = dict(zip(parameters.state_rows, state.unbind() if state.dim() == 3 else [state], strict=True))
    after, i, b, i_rec = (rows.get(name, zero) for name in STATE_ROWS)
    kept = [torch.zeros_like(x) for _ in range(4)]
    for t in range(x.shape[1]):
        drive = x[:, t] + i_rec
        if parameters.syn_decay is not None:
            drive = i + drive
            i = parameters.syn_decay * drive
        now = parameters if parameters.adapt_scale is None else _raised(parameters, b, neuron)
        current = drive if parameters.syn_decay is None else i
        v = _clip(parameters.decay * after + parameters.input_gain * current, neuron, "before_threshold")
        s = fire(v, now, neuron)
        resetting = neuron if reset_path else replace(neuron, soft_spikes=False)
        counted = fire(v, now, resetting)
        after = _clip(_reset(v, counted, now, resetting), neuron, "after_reset")
        for array, value in zip(kept, (s, v, drive, b), strict=True):
            array[:, t] = value
        if parameters.adapt_decay is not None:
            b = parameters.adapt_decay * b + (1 - parameters.adapt_decay) * counted
        if parameters.weight is not None:
            i_rec = zero if parameters.bias is None else parameters.bias + zero
            for j in range(s.shape[1]):  # in this order: every backend rounds alike
                i_rec = i_rec + s[:, j : j + 1] * parameters.weight[:, j]
    final = {"v_mem": after, "i_syn": i, "b": b, "i_rec": i_rec}
    stacked = torch.stack([final[name] for name in parameters.state_rows])
    spikes, v, drives, traces = kept
    return _Trace(spikes, v, drives, traces, stacked if len(stacked) > 1 else stacked[0])


def _raised(parameters: Parameters, b: torch.Tensor, neuron: Neuron) -> Parameters:
    """The parameters with the threshold of this step. Soft spikes keep the unit, which has no gradient."""
    assert parameters.adapt_scale is not None
    raise_by = parameters.adapt_scale * b
    unit = parameters.unit if neuron.soft_spikes else parameters.unit + raise_by
    return parameters._replace(threshold=parameters.threshold + raise_by, unit=unit)


def backward(
    grad_spikes: torch.Tensor,
    grad_v: torch.Tensor | None,
    grad_state: torch.Tensor,
    x: torch.Tensor,
    v: torch.Tensor,
    parameters: Parameters,
    state: torch.Tensor,
    neuron: Neuron,
    *,
    reset_path: bool = True,
) -> Gradients:
    """Return the gradients, given those of spikes [B, T, N], v [B, T, N] (None: zero) and final state."""
    decay, _, input_gain, _, syn_decay, adapt_decay, adapt_scale, weight, bias = parameters
    trace = _run(x, parameters, state, neuron, reset_path)
    grad_x = torch.empty_like(x)
    first = state[0] if state.dim() == 3 else state
    zero = torch.zeros_like(first)
    sums = {name: zero.clone() for name in Gradients._fields[2:8]}  # per sample
    grad_weight = torch.zeros(x.shape[2], x.shape[2], dtype=x.dtype)
    grad_bias = torch.zeros(x.shape[2], dtype=x.dtype)
    # Adjoints of the state after step t: potential, synaptic current, trace of spikes, lateral current.
    rows = dict(zip(parameters.state_rows, grad_state.unbind() if grad_state.dim() == 3 else [grad_state], strict=True))
    p, p_i, p_b, p_rec = (rows.get(name, zero) for name in STATE_ROWS)
    current = zero  # adjoint of decay * state + input_gain * current at step t + 1
    resetting = neuron if reset_path else replace(neuron, soft_spikes=False)
    before_limit, after_limit = _limit(neuron, "before_threshold"), _limit(neuron, "after_reset")
    for t in reversed(range(x.shape[1])):
        u = v[:, t]
        now = parameters if adapt_scale is None else _raised(parameters, trace.b[:, t], neuron)
        threshold = now.threshold
        s = fire(u, now, resetting)
        slope = surrogate_gradient(neuron.surrogate, u - threshold, now.unit)
        after = _reset(u, s, now, resetting)
        free = torch.where(after > after_limit, p, 0.0)
        q, through, spike_path = grad_spikes[:, t], free, torch.zeros_like(free)
        if weight is not None:
            q = q + p_rec @ weight
            grad_weight += p_rec.T @ trace.spikes[:, t]
            grad_bias += p_rec.sum(0)
        if adapt_decay is not None and reset_path:
            q = q + (1 - adapt_decay) * p_b
        if neuron.reset == "subtract":
            q = q - threshold * free if reset_path else q
            spike_path = -s * free
        elif neuron.reset == "zero":
            q = q - u * free if reset_path else q
            through = _silent(s, resetting) * free
        adjoint = slope * q + through
        if grad_v is not None:
            adjoint = adjoint + grad_v[:, t]
        masked = torch.where(u > before_limit, adjoint, 0.0)
        level = 0.0 if neuron.detach_threshold and adapt_scale is not None else 1.0
        grad_threshold = spike_path - level * slope * q
        sums["decay"] += current * _clip(after, neuron, "after_reset")
        sums["threshold"] += grad_threshold
        current, p = masked, decay * masked
        grad_current = input_gain * masked
        drive = trace.drive[:, t]
        if syn_decay is None:
            sums["input_gain"] += masked * drive
            grad_x[:, t] = grad_current
        else:
            sums["input_gain"] += masked * (syn_decay * drive)
            sums["syn_decay"] += (p_i + grad_current) * drive
            p_i = syn_decay * (p_i + grad_current)
            grad_x[:, t] = p_i
        if adapt_decay is not None and adapt_scale is not None:
            b = trace.b[:, t]
            sums["adapt_decay"] += p_b * (b - s)
            sums["adapt_scale"] += grad_threshold * b
            p_b = adapt_decay * p_b + adapt_scale * grad_threshold
        p_rec = grad_x[:, t]
    sums["decay"] += current * first
    totals = {name: sums[name] for name in sums if getattr(parameters, name) is not None}
    per_parameter = {
        name: total.sum().reshape(1) if len(getattr(parameters, name)) == 1 else total.sum(0)
        for name, total in totals.items()
    }
    final = {"v_mem": p, "i_syn": p_i, "b": p_b, "i_rec": p_rec}
    grad_initial = torch.stack([final[name] for name in parameters.state_rows])
    return Gradients(
        grad_x,
        grad_initial if len(grad_initial) > 1 else grad_initial[0],
        **per_parameter,
        weight=None if weight is None else grad_weight,
        bias=None if bias is None else grad_bias,
    )


def fire(v: torch.Tensor, parameters: Parameters, neuron: Neuron) -> torch.Tensor:
    """Return the spike counts at potentials v [..., N]: whole numbers, or soft ones."""
    if neuron.soft_spikes:
        return surrogate_primitive(neuron.surrogate, v - parameters.threshold, parameters.unit)
    if neuron.max_spikes == 1:
        return (v >= parameters.threshold).to(v.dtype)
    count = torch.where(v > 0, torch.trunc(v / parameters.threshold), 0.0)
    return count.clamp(max=neuron.max_spikes) if neuron.max_spikes else count


def surrogate_gradient(surrogate: Surrogate, d: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return ds/dv at distances d above the threshold; formulas in ``neurodeploy/surrogate.py``."""
    match surrogate:
        case SingleExponential(w, c):
            return c / (w * unit) * torch.exp(-d.abs() / (w * unit))
        case PeriodicExponential(w, c):
            phase = d / unit + 0.5
            wave = unit * (2 * (phase - phase.floor()) - 1)
            return c * torch.exp(-torch.where(d < 0, d, wave).abs() / w)
        case Box(w, c):
            return torch.where(d.abs() <= w * unit / 2, c / (w * unit), 0.0)
        case Sigmoid(w, c):
            f = torch.sigmoid(d / (w * unit))
            return c / (w * unit) * f * (1 - f)
        case Arctan(w, c):
            return c / (2 * w * unit) / (1 + (pi * d / (2 * w * unit)) ** 2)
        case Heaviside(window):
            return torch.where(d >= -window, 1 / unit, 0.0)


def surrogate_primitive(surrogate: Surrogate, d: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return the function of d whose derivative is the surrogate."""
    match surrogate:
        case SingleExponential(w, c):
            e = torch.exp(-d.abs() / (w * unit))
            return c * torch.where(d < 0, e, 2 - e)
        case PeriodicExponential(w, c):
            k = torch.floor(d / unit + 0.5)
            rest = d - k * unit
            half = rest.sign() * w / 2 * (1 - torch.exp(-2 * rest.abs() / w))
            above = w + k * w * (1 - torch.exp(-unit / w)) + half
            return c * torch.where(d < 0, w * torch.exp(d.clamp(max=0) / w), above)
        case Box(w, c):
            return c * (d / (w * unit) + 0.5).clamp(0, 1)
        case Sigmoid(w, c):
            return c * torch.sigmoid(d / (w * unit))
        case Arctan(w, c):
            return c * (torch.atan(pi * d / (2 * w * unit)) / pi + 0.5)
        case Heaviside(window):
            return (d + window).clamp(min=0) / unit


def _limit(neuron: Neuron, position: str) -> float:
    return neuron.v_min if neuron.v_min is not None and neuron.v_min_position == position else -inf


def _clip(v: torch.Tensor, neuron: Neuron, position: str) -> torch.Tensor:
    limit = _limit(neuron, position)
    return torch.where(v < limit, limit, v)


def _silent(s: torch.Tensor, neuron: Neuron) -> torch.Tensor:
    """What a hard reset leaves of the potential: 1 without a spike, else 0; soft spikes leave 1 - s."""
    return 1 - s if neuron.soft_spikes else 1 - s.clamp(max=1)


def _reset(v: torch.Tensor, s: torch.Tensor, parameters: Parameters, neuron: Neuron) -> torch.Tensor:
    if neuron.reset == "subtract":
        return v - parameters.threshold * s
    if neuron.reset == "zero":
        return v * _silent(s, neuron)
    return v
