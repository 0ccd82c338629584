"""Event-based training beside time steps of stated accuracy, and beside jaxsnn.

    python benchmarks/spike_time.py            # minutes; writes benchmarks/results/spike_time_cpu.md and .json
    python benchmarks/spike_time.py --quick    # seconds, tiny shapes: does everything run and agree?

A 784-800-10 network, one spike per input as MNIST's pixels give them (made up here, no data needed). Its spike times
are exact; those of a simulation in time steps are not, and the step decides by how much. First that error is measured,
then both train at the steps that bring it below 1 % and 0.1 % of the synaptic time constant. jaxsnn, if it can be
imported, trains its own example's network, 5-120-3 neurons of one spike each, on the same spikes and weights.

One thread on one processor; processor time; contenders take turns in interleaved rounds, so that other load falls on
all alike.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import interleaved, machine, peak_mib

from neurodeploy import files, nn

RESULTS = Path(__file__).parent / "results"
TAU_SYN, THRESHOLD = 1.0, 1.0
TAU_MEM = 2 * TAU_SYN
WINDOW, T_MAX = 0.75, 1.5
"""In units of tau_syn: inputs come in the window. (MNIST: 0.1 s and 0.2 s at 0.13 s.)"""
INPUTS, HIDDEN, CLASSES, ACTIVE = 784, 800, 10, 150
TARGET_ERRORS = (0.01, 0.001)
PACKAGES = ("torch", "jax", "jaxsnn")


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    steps: tuple[int, ...]
    samples: int
    batch: int
    yin_yang_batch: int
    rounds: int
    seconds_each: float


FULL = Sizes((25, 50, 100, 200, 400, 800, 1600), 20, 50, 64, 8, 15.0)
QUICK = Sizes((20, 40, 80), 2, 4, 8, 1, 1.0)


def pixels(batch: int) -> torch.Tensor:
    """Spike times [batch, INPUTS, 1]; on average ``ACTIVE`` inputs fire."""
    generator = torch.Generator().manual_seed(0)
    times = WINDOW * torch.rand(batch, INPUTS, 1, generator=generator)
    return torch.where(torch.rand(times.shape, generator=generator) < ACTIVE / INPUTS, times, torch.inf)


def event_network() -> torch.nn.Sequential:
    """About one spike per hidden neuron, a few per output."""
    torch.manual_seed(0)
    neuron = nn.SpikeTimeNeuron(TAU_MEM, TAU_SYN, THRESHOLD)
    net = torch.nn.Sequential(
        nn.SpikeTimeLinear(INPUTS, HIDDEN, neuron, max_spikes=16, t_max=T_MAX),
        nn.SpikeTimeLinear(HIDDEN, CLASSES, neuron, max_spikes=64, t_max=T_MAX),
    )
    net[0].reset_parameters(mean=3.0, std=4.0)
    net[1].reset_parameters(mean=8.0, std=4.0)
    return net


class SteppedNetwork(torch.nn.Module):
    """The same network in ``steps`` steps of ``T_MAX / steps``, float32, with exact exponentials between grid points.

    All that is wrong is that inputs and spikes lie on the grid; inputs are rounded to the nearest point. ``sparse``:
    only the weights of inputs that fire are read, else the first layer is a matrix product over the window's steps.
    """

    def __init__(self, net: torch.nn.Sequential, steps: int, sparse: bool) -> None:
        super().__init__()
        self.steps, self.sparse, self.dt = steps, sparse, T_MAX / steps
        self.weights = torch.nn.ParameterList(layer.weight.detach().clone() for layer in net)
        decay_mem, decay_syn = math.exp(-self.dt / TAU_MEM), math.exp(-self.dt / TAU_SYN)
        response = (decay_mem - decay_syn) / (1 / TAU_SYN - 1 / TAU_MEM)  # of the potential, after one step
        level = THRESHOLD * decay_syn / response  # the layer adds the decayed current itself
        self.neurons = nn.CubaLIF(TAU_MEM / self.dt, TAU_SYN / self.dt, norm_input=False, threshold=level, layout="TB")

    def forward(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return spikes of both layers per step, [T, B, N], from input times [B, INPUTS, 1]."""
        batch = len(times)
        sample, source, _ = (times < torch.inf).nonzero(as_tuple=True)
        step = (times[sample, source, 0] / self.dt).round().long()
        used = int(step.max()) + 1
        if self.sparse:
            ones = torch.ones(len(step))
            where = torch.stack([step * batch + sample, source])
            spikes = torch.sparse_coo_tensor(where, ones, (used * batch, INPUTS)).coalesce()
            currents = torch.sparse.mm(spikes, self.weights[0].t())
        else:
            dense = torch.zeros(used * batch, INPUTS)
            dense[step * batch + sample, source] = 1.0
            currents = dense @ self.weights[0].t()
        currents = torch.nn.functional.pad(currents.reshape(used, batch, HIDDEN), (0, 0, 0, 0, 0, self.steps - used))
        hidden = self.neurons(currents)
        return hidden, self.neurons(hidden @ self.weights[1].t())


def times_of_steps(spikes: torch.Tensor, dt: float, slots: int) -> torch.Tensor:
    """Times [B, N, slots] of spikes [T, B, N]: the middle of the step in which each comes; inf behind the last."""
    counts = spikes.cumsum(0)
    slot_times = []
    for k in range(slots):
        steps = (counts < k + 0.5).sum(0)  # before the step of the k-th spike
        slot_times.append(torch.where(steps < len(spikes), (steps + 0.5) * dt, torch.inf))
    return torch.stack(slot_times, -1)


@torch.no_grad()
def step_error(net: torch.nn.Sequential, times: torch.Tensor, steps: int) -> dict[str, float]:
    """How wrong hidden spikes are in time steps; times in tau_syn."""
    exact = net[0](times)
    stepped = SteppedNetwork(net, steps, sparse=True)
    found = times_of_steps(stepped(times)[0], stepped.dt, exact.shape[-1])
    counts, wanted = ((t < torch.inf).sum(-1) for t in (found, exact))
    same = (counts == wanted)[..., None] & (exact < torch.inf)
    errors = (found - exact)[same].abs()
    return {
        "steps": steps,
        "dt": stepped.dt,
        "other_counts": float((counts != wanted).float().mean()),
        "mean_error": float(errors.mean()),
        "p99_error": float(errors.quantile(0.99)),
    }


def steps_for(net: torch.nn.Sequential, times: torch.Tensor, target: float, start: int) -> dict[str, float]:
    """The fewest steps, to 5 %, with a mean error of at most ``target``; the error falls as their reciprocal."""
    steps = start
    while True:
        row = step_error(net, times, steps)
        if row["mean_error"] <= target:
            return row
        steps = max(math.ceil(steps * min(4.0, row["mean_error"] / target)), math.ceil(1.02 * steps))


def cpu_seconds(run: Callable[[], Any]) -> float:
    """Processor time of one call, of all threads: what other load takes away from the clock is not in it."""
    start = time.process_time()
    run()
    return time.process_time() - start


def loss_of_counts(counts: torch.Tensor) -> torch.Tensor:
    targets = torch.full_like(counts, 3.0)
    targets[:, 0] = 15.0
    return 0.5 * (counts - targets).square().sum() / len(counts)


def training(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """One training step, to be called often; the learning rate is 0, so that every call does the same work."""
    optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def measure_steps(sizes: Sizes) -> dict[str, Any]:
    """Errors by time step, and times of training and inference."""
    net = event_network()
    sample = pixels(sizes.samples)
    with torch.no_grad():
        hidden = net[0](sample)
        output = net[1](hidden)
    spikes = [float((t < torch.inf).sum(-1).float().mean()) for t in (hidden, output)]
    errors = [step_error(net, sample, steps) for steps in sizes.steps]
    found = {target: steps_for(net, sample, target, sizes.steps[0]) for target in TARGET_ERRORS}
    times = pixels(sizes.batch)
    targets = torch.full((sizes.batch, CLASSES), 3.0)
    targets[:, 0] = 15.0
    train = {"events": training(net, lambda: nn.spike_count_loss(net(times), targets))}
    infer: dict[str, Callable[[], Any]] = {"events": lambda: net(times)}
    for target, row in found.items():
        for kind in ("dense", "sparse"):
            model = SteppedNetwork(net, int(row["steps"]), sparse=kind == "sparse")
            name = f"{kind} {target}"
            train[name] = training(model, partial(lambda m: loss_of_counts(m(times)[1].sum(0)), model))
            infer[name] = partial(model, times)
    train_s = interleaved(
        {name: partial(cpu_seconds, run) for name, run in train.items()}, sizes.rounds, sizes.seconds_each, 2
    )
    with torch.no_grad():
        infer_s = interleaved(
            {name: partial(cpu_seconds, run) for name, run in infer.items()}, sizes.rounds, sizes.seconds_each, 2
        )
    rows = {
        name: {
            "train_ms": 1e3 * statistics.median(train_s[name]),
            "train_min_ms": 1e3 * min(train_s[name]),
            "infer_ms": 1e3 * statistics.median(infer_s[name]),
            "runs": len(train_s[name]),
            "peak_mib": peak_mib(train[name]),
        }
        for name in train
    }
    return {
        "spikes": spikes,
        "errors": errors,
        "found": {str(target): row for target, row in found.items()},
        "rows": rows,
        "batch": sizes.batch,
    }


@dataclass(frozen=True)
class YinYang:
    """The network of jaxsnn's example yinyang_analytical: time constants in seconds, weights as drawn there."""

    hidden: int = 120
    outputs: int = 3
    tau_syn: float = 5e-3
    tau_mem: float = 1e-2
    t_late: float = 1e-2
    t_max: float = 2e-2

    def inputs(self, batch: int) -> torch.Tensor:
        """x, y, 1 - x, 1 - y and a spike at the start: times [batch, 5]."""
        points = torch.rand(batch, 2, generator=torch.Generator().manual_seed(0))
        return self.t_late * torch.cat([points, 1 - points, torch.zeros(batch, 1)], 1)

    def weights(self) -> list[torch.Tensor]:
        """[inputs, neurons] of both layers; potentials follow ``tau_mem du/dt = -u + i``."""
        generator = torch.Generator().manual_seed(1)
        hidden = 3.0 + 1.6 * torch.randn(5, self.hidden, generator=generator)
        return [hidden, 0.5 + 0.8 * torch.randn(self.hidden, self.outputs, generator=generator)]

    def targets(self, batch: int) -> torch.Tensor:
        """Times [batch, outputs]: the first output early, the others late."""
        times = torch.full((batch, self.outputs), 1.1 * self.tau_syn)
        times[:, 0] = 0.9 * self.tau_syn
        return times


def our_yin_yang(
    task: YinYang, batch: int
) -> tuple[Callable[[], None], Callable[[], tuple[torch.Tensor, torch.Tensor]]]:
    """A training step, and (first output spikes, gradient of the first weights [inputs, neurons])."""
    neuron = nn.SpikeTimeNeuron(task.tau_mem, task.tau_syn, reset="value", t_ref=math.inf)
    layers = []
    for table in task.weights():
        layer = nn.SpikeTimeLinear(*table.shape, neuron, max_spikes=1, t_max=task.t_max)
        with torch.no_grad():
            layer.weight.copy_(table.t() / task.tau_mem)
        layers.append(layer)
    net = torch.nn.Sequential(*layers)
    times, targets = task.inputs(batch)[..., None], task.targets(batch)

    def loss() -> torch.Tensor:
        first = net(times)[..., 0].clamp(max=2 * task.tau_mem)
        return ((first - targets) / task.tau_mem).square().sum(1).mean()

    def result() -> tuple[torch.Tensor, torch.Tensor]:
        net.zero_grad()
        loss().backward()
        with torch.no_grad():
            return net(times)[..., 0], layers[0].weight.grad.t() / task.tau_mem

    return training(net, loss), result


def their_yin_yang(
    task: YinYang, batch: int, events: tuple[int, int]
) -> tuple[Callable[[], Any], Callable[[], tuple[torch.Tensor, torch.Tensor]]]:
    """The same in jaxsnn; ``events``: input and own spikes that each layer has room for, others are lost."""
    import jax
    import optax
    from jaxsnn.event.encode import spatio_temporal_encode
    from jaxsnn.event.loss import mse_loss
    from jaxsnn.event.modules import LIF, LIFParameters, Linear, Source
    from jaxsnn.event.topology import Topology
    from jaxsnn.event.training import update
    from jaxsnn.event.types import OptState
    from jaxsnn.examples.event.utils import loss_wrapper

    jnp = jax.numpy
    neuron = LIFParameters(v_reset=-1000.0, v_th=1.0, tau_syn=task.tau_syn, tau_mem=task.tau_mem)
    hidden, output = (jnp.asarray(table.numpy()) for table in task.weights())
    builder = Topology(t_max=task.t_max)
    builder.add(
        {
            "inp": Source(5),
            "lif1": LIF(task.hidden, events[0], neuron),
            "lif2": LIF(task.outputs, events[1], neuron),
            "syn1": Linear(pre_weights=hidden),
            "syn2": Linear(pre_weights=output),
        }
    )
    builder.connect([("inp", "syn1"), ("syn1", "lif1"), ("lif1", "syn2"), ("syn2", "lif2")])
    start, apply = builder.done()
    weights = start(jax.random.PRNGKey(0))
    optimizer = optax.adam(0.0)
    encode = jax.vmap(partial(spatio_temporal_encode, t_late=1.0, duplication=1, duplicate_neurons=False))
    data = {"inp": encode(jnp.asarray(task.inputs(batch).numpy()))}, jnp.asarray(task.targets(batch).numpy())
    loss = partial(loss_wrapper, apply, mse_loss, task.tau_mem, "lif2", task.outputs)
    state = OptState(optimizer.init(weights), weights, jax.random.PRNGKey(0))
    step = jax.jit(partial(update, optimizer, loss))

    def result() -> tuple[torch.Tensor, torch.Tensor]:
        (_, (first, _)), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights, data)
        return torch.tensor(jax.device_get(first)), torch.tensor(jax.device_get(grad["syn1"]))

    return lambda: jax.block_until_ready(step(state, data)), result


def measure_jaxsnn(sizes: Sizes) -> dict[str, Any]:
    """Times of one training step, and how far its results are from ours."""
    task, batch = YinYang(), sizes.yin_yang_batch
    ours, our_result = our_yin_yang(task, batch)
    runs: dict[str, Callable[[], Any]] = {"neurodeploy": ours}
    checks: dict[str, dict[str, float]] = {}
    first, grad = our_result()
    # All inputs and spikes there can be; and what the example leaves room for (100 hidden neurons there).
    for events in ((5 + task.hidden, task.hidden + task.outputs), (50, 53)):
        name = f"jaxsnn, room for {events[0]} and {events[1]} events"
        try:
            runs[name], result = their_yin_yang(task, batch, events)
        except ImportError as error:
            return {"missing": str(error)}
        their_first, their_grad = result()
        both = (first < math.inf) & (their_first < task.t_max)
        checks[name] = {
            "answers_differ": float(((first < math.inf) != (their_first < task.t_max)).float().mean()),
            "time_error": float((first - their_first)[both].abs().max()) / task.tau_syn,
            "gradient_l2": float((grad - their_grad).norm() / grad.norm()),
        }
    for run in runs.values():
        run()
    done = interleaved(
        {name: partial(cpu_seconds, run) for name, run in runs.items()}, sizes.rounds, sizes.seconds_each, 3
    )
    return {
        "batch": batch,
        "rows": {name: {"train_ms": 1e3 * statistics.median(s), "runs": len(s)} for name, s in done.items()},
        "checks": checks,
    }


def name_of(row: str) -> str:
    if row == "events":
        return "event-based (exact)"
    kind, target = row.split()
    way = "matrix product of all inputs" if kind == "dense" else "weights of inputs that fire"
    return f"time steps, error {float(target):.1%}, {way}".replace("%", " %")


def report(result: dict[str, Any]) -> str:
    info, steps = result["machine"], result["steps"]
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    found, rows = steps["found"], steps["rows"]
    lines = [
        "# Event-based training on the CPU",
        "",
        "Made by `python benchmarks/spike_time.py`. One thread; processor time, medians of interleaved runs.",
        "",
        f"Commit {info['commit']}; {info['cpu']}, {info['cores']} cores; Python {info['python']}, {versions}. Load "
        "average "
        f"before and after: {result['load'][0]:.1f}, {result['load'][1]:.1f} (1.0: nothing else).",
        "",
        "## What a time step costs in accuracy",
        "",
        f"784-800-10 neurons with soft reset, tau_mem = 2 tau_syn, {ACTIVE} of {INPUTS} inputs fire once in a window "
        "of "
        f"{WINDOW} tau_syn, run for {T_MAX} tau_syn; {steps['spikes'][0]:.1f} spikes per hidden neuron, "
        f"{steps['spikes'][1]:.1f} per output. The simulation in steps uses exact exponentials, so that its only error "
        "is that inputs and spikes lie on the grid; a spike counts as coming in the middle of its step. Errors are of "
        "hidden neurons with the right number of spikes.",
        "",
        "| steps | step / tau_syn | mean error / tau_syn | 99th percentile | neurons with another number of spikes |",
        "|---|---|---|---|---|",
    ]
    for row in [*steps["errors"], *found.values()]:
        lines.append(
            f"| {row['steps']:.0f} | {row['dt']:.4f} | {row['mean_error']:.5f} | {row['p99_error']:.4f} | "
            f"{100 * row['other_counts']:.2f} % |"
        )
    lines += [
        "",
        "Event-based times are exact to rounding: 1e-13 tau_syn against high-precision root finding (tests). The last "
        "rows are the coarsest steps below 1 % and 0.1 %; the next table uses them.",
        "",
        f"## Training at equal accuracy, batch {steps['batch']}",
        "",
        "Forward, backward and Adam. Steps: float32, the compiled `CubaLIF` layers of this package with a surrogate "
        "gradient (benchmarks/training_cpu.py compares them with others); the event-based gradient is exact.",
        "",
        "| | steps | training ms | times event-based | inference ms | times event-based | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    events = rows["events"]
    for name, row in rows.items():
        count = "" if name == "events" else f"{found[name.split()[1]]['steps']:.0f}"
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(
            f"| {name_of(name)} | {count} | {row['train_ms']:.1f} | {row['train_ms'] / events['train_ms']:.1f} | "
            f"{row['infer_ms']:.1f} | {row['infer_ms'] / events['infer_ms']:.1f} | {peak} |"
        )
    return "\n".join([*lines, "", *jaxsnn_report(result["jaxsnn"])]) + "\n"


def jaxsnn_report(result: dict[str, Any]) -> list[str]:
    title = "## Yin-Yang network of jaxsnn's example"
    if "missing" in result:
        return [title, "", f"jaxsnn is not there ({result['missing']})."]
    lines = [
        title,
        "",
        f"5-120-3 neurons, one spike each, batch {result['batch']}, float32: forward, backward and Adam, the same "
        "inputs, "
        "weights and loss. jaxsnn's event-based analytical method, compiled by XLA before the clock starts; a layer "
        "has "
        "room for a fixed number of events, of all neurons together, and loses the rest.",
        "",
        "| | training ms | times neurodeploy | runs | first spike there or not differs | largest difference of first "
        "spikes / tau_syn | relative L2 distance of the gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = result["rows"]["neurodeploy"]["train_ms"]
    for name, row in result["rows"].items():
        check = result["checks"].get(name)
        compared = (
            "| | |"
            if check is None
            else f"{check['answers_differ']:.2%} | {check['time_error']:.1e} | {check['gradient_l2']:.1e} |"
        )
        lines.append(f"| {name} | {row['train_ms']:.2f} | {row['train_ms'] / ours:.1f} | {row['runs']} | {compared}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as there are processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    sizes = QUICK if options.quick else FULL
    before = os.getloadavg()[0]
    result: dict[str, Any] = {"steps": measure_steps(sizes), "jaxsnn": measure_jaxsnn(sizes)}
    result |= {"machine": machine(PACKAGES), "load": (before, os.getloadavg()[0])}
    text = report(result)
    print(text)
    files.write_json(options.output / "spike_time_cpu.json", result)
    files.write_text(options.output / "spike_time_cpu.md", text)


if __name__ == "__main__":
    main()
