"""Speed of the exact analog core beside a time-stepped simulation of the same neurons that is as exact as asked.

Run from the repository's root: ``python benchmarks/analog_emulator.py``. Rewrites
``benchmarks/results/analog_emulator.md`` and ``.json``; ``--quick --output FOLDER`` is a quick look. One thread, both
in turns in one process.

The time-stepped simulation is written for speed: float32, all samples at once, the exact propagator from step to step
(better than exponential Euler), input spikes put into the nearest step and added from lists (not as matrices of zeros),
crossings interpolated in their step. Its step is the
longest of a fine ladder at which 95 % of the first spikes of all neurons of both layers are within the bound of the
exact ones (the others graze the threshold); neurons that fire in one simulation only are counted apart.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import interleaved, machine, seconds

from neurodeploy.files import write_json, write_text
from neurodeploy.targets.analog.emulator import emulate
from neurodeploy.targets.analog.parameters import LayerParameters

RESULTS = Path(__file__).parent / "results"
BOUNDS = (0.01, 0.001)
LADDER = 1.25
MAX_SPIKES = 64
T_MAX = 6.0


@dataclass
class Case:
    """A network with time constants near 1 (synapses) and 2 (membranes), and its input."""

    name: str
    sizes: tuple[int, int, int]
    slots: int
    t_ref: float
    spread: float

    def layers(self, rng: np.random.Generator) -> list[LayerParameters]:
        """Both layers, drawn."""
        found = []
        for inputs, neurons in zip(self.sizes, self.sizes[1:], strict=False):
            row = {
                name: value * np.exp(self.spread * rng.standard_normal(neurons))
                for name, value in (("tau_mem", 2.0), ("tau_syn_exc", 1.0), ("tau_syn_inh", 1.0), ("threshold", 1.0))
            }
            row |= {"v_reset": np.zeros(neurons), "t_ref": np.full(neurons, self.t_ref)}
            found.append(LayerParameters(rng.normal(3.0 / inputs, 3.0 / inputs**0.5, (inputs, neurons)), **row))
        return found


CASES = [
    Case("Yin-Yang, 5-120-3, one spike each, mismatched", (5, 120, 3), 1, inf, 0.2),
    Case("the same, all neurons alike", (5, 120, 3), 1, inf, 0.0),
    Case("16 x 16 images, 256-128-10, one spike each, mismatched", (256, 128, 10), 1, inf, 0.2),
    Case("the same, all neurons alike", (256, 128, 10), 1, inf, 0.0),
    Case("the same, mismatched, any number of spikes, refractory time 0.1", (256, 128, 10), 1, 0.1, 0.2),
]


def transfer(tau_mem: np.ndarray, tau_syn: np.ndarray, dt: float) -> np.ndarray:
    """Potential after dt from a current of 1."""
    beta = 1 / tau_syn - 1 / tau_mem
    return np.exp(-dt / tau_mem) * np.where(beta == 0, dt, -np.expm1(-beta * dt) / np.where(beta == 0, 1.0, beta))


class TimeStepped:
    """One layer for all samples at once."""

    def __init__(self, layer: LayerParameters, samples: int, dt: float) -> None:
        def row(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values.astype(np.float32))

        self.dt = dt
        self.exciting, self.inhibiting = row(layer.weight.clip(min=0)), row((-layer.weight).clip(min=0))
        self.membrane = row(np.exp(-dt / layer.tau_mem))
        self.from_exc, self.from_inh = (
            row(transfer(layer.tau_mem, tau, dt)) for tau in (layer.tau_syn_exc, layer.tau_syn_inh)
        )
        self.exc_decay, self.inh_decay = row(np.exp(-dt / layer.tau_syn_exc)), row(np.exp(-dt / layer.tau_syn_inh))
        self.threshold, self.reset = row(layer.threshold), row(layer.v_reset)
        self.held_steps = torch.from_numpy(np.minimum(np.rint(layer.t_ref / dt), 2**30).astype(np.int32))
        shape = (samples, layer.neurons)
        self.u, self.exc, self.inh, self.before = (torch.zeros(shape) for _ in range(4))
        self.held = torch.zeros(shape, dtype=torch.int32)
        self.holds = bool((self.held_steps > 0).any())

    def arrive(self, samples: torch.Tensor, sources: torch.Tensor) -> None:
        """Raise the currents by the weights of one spike each."""
        self.exc.index_add_(0, samples, self.exciting[sources])
        self.inh.index_add_(0, samples, self.inhibiting[sources])

    def step(self, start: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Advance by dt; the samples, neurons and times of the spikes."""
        self.before.copy_(self.u)
        self.u.mul_(self.membrane).addcmul_(self.exc, self.from_exc).addcmul_(self.inh, self.from_inh, value=-1)
        self.exc.mul_(self.exc_decay)
        self.inh.mul_(self.inh_decay)
        if self.holds:
            free = self.held <= 0
            self.u = torch.where(free, self.u, self.reset)
            self.held -= 1
        fired = self.u >= self.threshold
        samples, neurons = torch.nonzero(fired, as_tuple=True)
        if len(samples) == 0:
            return samples, neurons, torch.empty(0)
        before, after = self.before[samples, neurons], self.u[samples, neurons]
        within = (self.threshold[neurons] - before) / (after - before)
        self.u[samples, neurons] = self.reset[neurons]
        self.held[samples, neurons] = self.held_steps[neurons]
        return samples, neurons, start + self.dt * within


def time_stepped(layers: list[LayerParameters], times: np.ndarray, dt: float) -> list[np.ndarray]:
    """First spike times [B, N] of each layer."""
    steps = int(np.ceil(T_MAX / dt))
    sample, source, _ = np.nonzero(times < T_MAX)
    at = np.rint(times[times < T_MAX] / dt).astype(np.int64)
    order = np.argsort(at, kind="stable")
    ends = np.searchsorted(at[order], np.arange(steps + 1))
    samples, sources = torch.from_numpy(sample[order]), torch.from_numpy(source[order])
    running = [TimeStepped(layer, len(times), dt) for layer in layers]
    first = [torch.full((len(times), layer.neurons), inf) for layer in layers]
    for k in range(steps):
        arriving = (samples[ends[k] : ends[k + 1]], sources[ends[k] : ends[k + 1]])
        for layer, found in zip(running, first, strict=True):
            if len(arriving[0]):
                layer.arrive(*arriving)
            *arriving, when = layer.step(k * dt)  # type: ignore[assignment]
            if len(when):
                found[tuple(arriving)] = torch.minimum(found[tuple(arriving)], when)
    return [found.numpy().astype(np.float64) for found in first]


def compared(exact: list[np.ndarray], found: list[np.ndarray]) -> tuple[float, float]:
    """95th percentile of the differences of first spikes, and the share of neurons that fire in one of both only."""
    ours, theirs = (np.concatenate([first.ravel() for first in side]) for side in (exact, found))
    both = np.isfinite(ours) & np.isfinite(theirs)
    differ = float((np.isfinite(ours) != np.isfinite(theirs)).mean())
    return float(np.quantile(np.abs(ours[both] - theirs[both]), 0.95)), differ


def step_for(
    bound: float, layers: list[LayerParameters], times: np.ndarray, exact: list[np.ndarray], dt: float
) -> float:
    """The longest step of the ladder that is exact enough."""
    while compared(exact, time_stepped(layers, times, dt))[0] > bound:
        dt /= LADDER
    return dt


def measure(case: Case, samples: int, rounds: int, bounds: tuple[float, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    layers = case.layers(rng)
    times = rng.uniform(0.0, 2.0, (samples, case.sizes[0], case.slots))

    def exact() -> list[np.ndarray]:
        return emulate(layers, times, max_spikes=1 if case.t_ref == inf else MAX_SPIKES, t_max=T_MAX)

    spikes = exact()
    first = [layer[..., 0] for layer in spikes]
    few = [layer[: max(8, samples // 4)] for layer in first]
    steps, dt = {}, 0.25
    for bound in bounds:
        dt = steps[bound] = step_for(bound, layers, times[: len(few[0])], few, dt)
    runs = {"exact": lambda: seconds(exact)}
    runs |= {f"{b:g}": lambda dt=dt: seconds(lambda: time_stepped(layers, times, dt)) for b, dt in steps.items()}
    took = {name: statistics.median(found) for name, found in interleaved(runs, rounds, inf, 1).items()}
    rows = []
    for bound, dt in steps.items():
        error, differ = compared(first, time_stepped(layers, times, dt))
        row = {"bound": bound, "steps_per_tau_syn": 1 / dt, "error": error, "fire_in_one_only": differ}
        row |= {"ms_per_sample": 1e3 * took[f"{bound:g}"] / samples, "ratio": took[f"{bound:g}"] / took["exact"]}
        rows.append(row)
    return {
        "case": case.name,
        "samples": samples,
        "spikes_per_neuron": float(np.mean([np.isfinite(layer).sum() / layer[..., 0].size for layer in spikes])),
        "exact_ms_per_sample": 1e3 * took["exact"] / samples,
        "time_stepped": rows,
    }


def page(result: dict[str, Any]) -> str:
    where = result["machine"]
    lines = [
        "# Exact analog core beside a time-stepped simulation, one thread",
        "",
        f"Commit {where['commit']}; {where['cpu']}; python {where['python']}, "
        + ", ".join(f"{package} {found}" for package, found in where["versions"].items())
        + f". Median of {result['rounds']}, in turns in one process; {T_MAX:g} time constants of the synapse each.",
        "",
        "Time-stepped: torch, float32, exact propagator, all samples at once, the longest step at which 95 % of the",
        "first spikes of all neurons are within the bound of the exact ones, in time constants of the synapse (tau_s).",
        "The exact core's error is below 1e-12.",
        "",
        "| network | spikes per neuron | exact, ms per sample | bound | steps per tau_s | error | fire in one only "
        "| time-stepped, ms per sample | times slower |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in result["cases"]:
        start = f"| {case['case']} | {case['spikes_per_neuron']:.2f} | {case['exact_ms_per_sample']:.4f} "
        for row in case["time_stepped"]:
            lines.append(
                f"{start}| {row['bound']:g} | {row['steps_per_tau_syn']:.0f} | {row['error']:.1e} "
                f"| {100 * row['fire_in_one_only']:.2f} % | {row['ms_per_sample']:.3f} | {row['ratio']:.0f} |"
            )
            start = "| | | "
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="one small network, one round, the wider bound")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        cases = [measure(CASES[0], 16, 1, BOUNDS[:1])]
    else:
        cases = [measure(case, options.samples, options.rounds, BOUNDS) for case in CASES]
    result = {
        "machine": machine(("numpy", "torch")),
        "rounds": 1 if options.quick else options.rounds,
        "cases": cases,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "analog_emulator.json", result)
    write_text(options.output / "analog_emulator.md", page(result))
    print(json.dumps(cases, indent=1) if options.quick else page(result))


if __name__ == "__main__":
    with torch.no_grad():
        main()
