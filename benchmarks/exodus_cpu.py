"""EXODUS forward and backward on one CPU thread, beside sinabs, SpikingJelly and loops written in torch.

    python benchmarks/exodus_cpu.py            # writes benchmarks/results/exodus_cpu.md and .json

All contenders run the same LIF neuron (single spike, soft reset, exact gradient through the reset) on the same input,
each in its own layout, and are checked against ours before they are timed. Rounds are interleaved and medians reported,
so that other load on the machine falls on all alike. A peer that is not installed is named and left out.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neurodeploy import files, nn
from neurodeploy.kernel import Memory

SHAPES = ((16, 500, 512), (16, 500, 4096))
TAU = 20.0
THRESHOLD = 1.0
CHUNK = 10
"""Steps per compiled graph: a whole sequence unrolled takes minutes to compile."""
BURST = 3
"""Calls in a row before the next contender's turn: the first finds caches that another one has filled."""
BYTES_STORE = 24.0
"""Read x, write s and v; read g and v, write dx: float32."""
BYTES_RECOMPUTE = 20.0
"""Read x, write s; read g and x, write dx: float32. (16.1 with spikes packed to bits, which ours are not.)"""

Run = Callable[[], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Contender:
    """What is timed: ``build(x, weights)`` makes a call of one forward and backward pass."""

    name: str
    build: Callable[[torch.Tensor, torch.Tensor], Run]
    surrogate: str
    bytes_per_step: float | None = None


def step_gradient(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, weights: torch.Tensor) -> Run:
    leaf = x.clone().requires_grad_()

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        leaf.grad = None
        spikes = forward(leaf)
        spikes.backward(weights)
        assert leaf.grad is not None
        return spikes, leaf.grad

    return run


def transposed(run: Run) -> Run:
    """A [T, B, N] contender, its results laid out as ours (a view: no cost)."""

    def wrapped() -> tuple[torch.Tensor, torch.Tensor]:
        spikes, grad = run()
        return spikes.transpose(0, 1), grad.transpose(0, 1)

    return wrapped


def ours(memory: Memory, surrogate: nn.Surrogate) -> Callable[[torch.Tensor, torch.Tensor], Run]:
    def build(x: torch.Tensor, weights: torch.Tensor) -> Run:
        layer = nn.LIF(
            TAU,
            norm_input=False,
            spikes="single",
            threshold=THRESHOLD,
            surrogate=surrogate,
            memory=memory,
        )
        return step_gradient(layer, x, weights)

    return build


def sinabs(x: torch.Tensor, weights: torch.Tensor) -> Run:
    from sinabs import activation, layers

    layer = layers.LIF(
        tau_mem=TAU,
        norm_input=False,
        spike_threshold=torch.tensor(THRESHOLD),
        spike_fn=activation.SingleSpike,
        surrogate_grad_fn=activation.SingleExponential(),
    )
    layer.tau_mem.requires_grad_(False)

    def forward(values: torch.Tensor) -> torch.Tensor:
        layer.reset_states()
        spikes: torch.Tensor = layer(values)
        return spikes

    return step_gradient(forward, x, weights)


def spikingjelly(x: torch.Tensor, weights: torch.Tensor) -> Run:
    from spikingjelly.activation_based import functional, neuron, surrogate

    decay = float(torch.exp(torch.tensor(-1.0 / TAU)))
    layer = neuron.LIFNode(
        tau=1.0 / (1.0 - decay),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=None,
        surrogate_function=surrogate.ATan(alpha=2.0),
        step_mode="m",
    )

    def forward(values: torch.Tensor) -> torch.Tensor:
        functional.reset_net(layer)
        spikes: torch.Tensor = layer(values)
        return spikes

    return transposed(step_gradient(forward, x.transpose(0, 1).contiguous(), weights.transpose(0, 1).contiguous()))


class Spike(torch.autograd.Function):
    """[v >= threshold] with the arctan surrogate of width 1/2."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        """Return the spikes."""
        ctx.save_for_backward(v)
        return (v >= THRESHOLD).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        """Return the surrogate gradient."""
        (v,) = ctx.saved_tensors
        return grads[0] / (1 + (torch.pi * (v - THRESHOLD)) ** 2)


def steps(x: torch.Tensor, v: torch.Tensor, decay: float) -> tuple[torch.Tensor, torch.Tensor]:
    spikes = []
    for current in x.unbind(0):
        v = decay * v + current
        s = Spike.apply(v)
        v = v - THRESHOLD * s
        spikes.append(s)
    return torch.stack(spikes), v


def loop(x: torch.Tensor, weights: torch.Tensor) -> Run:
    decay = float(torch.exp(torch.tensor(-1.0 / TAU)))

    def forward(values: torch.Tensor) -> torch.Tensor:
        return steps(values, torch.zeros_like(values[0]), decay)[0]

    return transposed(step_gradient(forward, x.transpose(0, 1).contiguous(), weights.transpose(0, 1).contiguous()))


def compiled_loop(x: torch.Tensor, weights: torch.Tensor) -> Run:
    decay = float(torch.exp(torch.tensor(-1.0 / TAU)))
    torch._dynamo.reset()
    compiled = torch.compile(steps, fullgraph=True, dynamic=False)

    def forward(values: torch.Tensor) -> torch.Tensor:
        v, pieces = torch.zeros_like(values[0]), []
        for chunk in values.split(CHUNK):
            spikes, v = compiled(chunk, v, decay)
            pieces.append(spikes)
        return torch.cat(pieces)

    return transposed(step_gradient(forward, x.transpose(0, 1).contiguous(), weights.transpose(0, 1).contiguous()))


CONTENDERS = (
    Contender("neurodeploy, store", ours("store", nn.Arctan()), "arctan", BYTES_STORE),
    Contender("neurodeploy, recompute", ours("recompute", nn.Arctan()), "arctan", BYTES_RECOMPUTE),
    Contender(
        "neurodeploy, store, exponential surrogate", ours("store", nn.SingleExponential()), "exponential", BYTES_STORE
    ),
    Contender("torch loop, compiled", compiled_loop, "arctan"),
    Contender("torch loop", loop, "arctan"),
    Contender("SpikingJelly", spikingjelly, "arctan"),
    Contender("sinabs", sinabs, "exponential"),
)


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int, seconds_each: float) -> dict[str, list[float]]:
    """Times in seconds: every run ``BURST`` times per round; a slow one leaves after ``seconds_each`` in all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(BURST):
                if sum(times[name]) < seconds_each:
                    times[name].append(timed(run))
    return times


def check(name: str, run: Run, expected: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    spikes, grad = run()
    result = {
        "spike_mismatch_fraction": float((spikes.detach() != expected[0]).double().mean()),
        "gradient_relative_l2": float((grad - expected[1]).norm() / expected[1].norm()),
    }
    # One spike moved by rounding changes the gradient of its neuron, hence not tighter for peers that round otherwise.
    if result["spike_mismatch_fraction"] > 1e-5 or result["gradient_relative_l2"] > 1e-2:
        raise SystemExit(f"{name} does not compute the same neuron: {result}")
    return result


def measure(shape: tuple[int, int, int], rounds: int, seconds_each: float) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * 0.3 + 0.05
    weights = torch.randn(shape, generator=generator)
    expected: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    runs: dict[str, Callable[[], Any]] = {}
    checks: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    for contender in (CONTENDERS[0], CONTENDERS[2], *CONTENDERS):
        try:
            run = contender.build(x, weights)
        except ImportError as error:
            missing[contender.name] = str(error)
            print(f"  {contender.name}: not installed ({error})", flush=True)
            continue
        if contender.surrogate not in expected:
            spikes, grad = run()
            expected[contender.surrogate] = (spikes.detach().clone(), grad.clone())
        if contender.name in runs:
            continue
        checks[contender.name] = check(contender.name, run, expected[contender.surrogate])
        runs[contender.name] = run
        print(f"  {contender.name}: {checks[contender.name]}", flush=True)
    target = torch.empty_like(x)
    runs = {"copy": lambda: target.copy_(x), **runs}
    for run in list(runs.values())[:4]:  # warm the pools of the fast ones
        run()
        run()
    times = interleaved(runs, rounds, seconds_each)
    elements = x.numel()
    medians = {name: statistics.median(values) for name, values in times.items()}
    copy_rate = 8 * elements / medians["copy"] / 1e9
    rows = []
    for contender in CONTENDERS:
        if contender.name not in medians:
            continue
        median = medians[contender.name]
        row: dict[str, Any] = {
            "name": contender.name,
            "median_ms": median * 1e3,
            "min_ms": min(times[contender.name]) * 1e3,
            "runs": len(times[contender.name]),
            "ratio_to_store": median / medians[CONTENDERS[0].name],
            **checks[contender.name],
        }
        if contender.bytes_per_step is not None:
            rate = contender.bytes_per_step * elements / median / 1e9
            row |= {"gb_per_s": rate, "fraction_of_copy": rate / copy_rate}
        rows.append(row)
    return {
        "shape": list(shape),
        "spike_rate": float(expected["arctan"][0].mean()),
        "copy_gb_per_s": copy_rate,
        "copy_ms": medians["copy"] * 1e3,
        "rows": rows,
        "missing": missing,
    }


def measure_length() -> list[dict[str, float]]:
    """time(2T) / time(T) for T = 500..4000, medians of interleaved rounds."""
    runs: dict[str, Callable[[], Any]] = {}
    for length in (500, 1000, 2000, 4000):
        x = torch.randn(4, length, 512) * 0.3
        runs[str(length)] = ours("store", nn.SingleExponential())(x, torch.randn_like(x))
        runs[str(length)]()
    medians = {name: statistics.median(times) for name, times in interleaved(runs, 10, 60.0).items()}
    return [
        {
            "T": int(name),
            "median_ms": value * 1e3,
            "ratio_to_half": value / medians.get(str(int(name) // 2), float("nan")),
        }
        for name, value in medians.items()
    ]


def machine() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        try:
            return subprocess.run(
                ("git", *arguments), cwd=Path(__file__).parent, capture_output=True, text=True, check=False
            ).stdout.strip()
        except OSError:  # no git on this machine
            return ""

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next(
            (line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line), ""
        )
    versions = {}
    for package in ("torch", "sinabs", "spikingjelly"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown")
        + ("+changes" if git("status", "--porcelain", "-uno") else ""),
        "cpu": model,
        "cores": os.cpu_count(),
        "threads_used": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
    }


def report(result: dict[str, Any]) -> str:
    info = result["machine"]
    lines = [
        "# EXODUS on one CPU thread",
        "",
        "LIF, single spike, soft reset, float32, forward + backward of one layer; medians of interleaved runs, made by",
        "`python benchmarks/exodus_cpu.py`. Results were checked equal before timing (last two columns, against ours",
        "with the same surrogate).",
        "",
        f"Commit {info['commit']}; {info['cpu']}, {info['cores']} cores, {info['threads_used']} thread used; "
        f"Python {info['python']}, "
        + ", ".join(f"{name} {version}" for name, version in info["versions"].items())
        + ".",
        f"Load average of the machine before and after: {result['load_before']:.1f}, {result['load_after']:.1f} "
        "(1.0 is this benchmark alone; above that, other work shared the cores and the memory bandwidth).",
        "",
    ]
    for case in result["shapes"]:
        B, T, N = case["shape"]
        lines += [
            f"## [B, T, N] = [{B}, {T}, {N}]",
            "",
            f"{4e-6 * B * T * N:.0f} MB per array; spikes per neuron and step {case['spike_rate']:.3f}; "
            f"copying one array into another takes {case['copy_ms']:.2f} ms = "
            f"{case['copy_gb_per_s']:.1f} GB/s (read + write). "
            f"At that rate the {BYTES_STORE:g} bytes per neuron and step of a stored pass take "
            f"{BYTES_STORE * B * T * N / case['copy_gb_per_s'] / 1e6:.1f} ms.",
            "",
            "| | median ms | min ms | runs | times ours | GB/s | of copy | spikes differ | gradients differ (L2) |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in case["rows"]:
            rate = f"{row['gb_per_s']:.1f} | {row['fraction_of_copy']:.0%}" if "gb_per_s" in row else " | "
            lines.append(
                f"| {row['name']} | {row['median_ms']:.1f} | {row['min_ms']:.1f} | {row['runs']} | "
                f"{row['ratio_to_store']:.1f} | {rate} | {row['spike_mismatch_fraction']:.1g} | "
                f"{row['gradient_relative_l2']:.1g} |"
            )
        lines += [f"| {name} | not installed | | | | | | | |" for name in case["missing"]]
        lines.append("")
    lines += [
        f"GB/s counts the bytes that have to move per neuron and step: {BYTES_STORE:g} for store (x, s, v; g, v, dx), "
        f"{BYTES_RECOMPUTE:g} for recompute (x, s; g, x, dx).",
        f"The compiled loop is `torch.compile` of {CHUNK} steps at a time; compiling is not counted.",
        "",
        "## Time is linear in T",
        "",
        "B = 4, N = 512, store:",
        "",
        "| T | median ms | time(T) / time(T/2) |",
        "|---|---|---|",
    ]
    for row in result["length"]:
        ratio = "" if row["ratio_to_half"] is None else f"{row['ratio_to_half']:.2f}"
        lines.append(f"| {row['T']} | {row['median_ms']:.2f} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds (default 12)")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds for a slow contender (default 20)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "load_before": os.getloadavg()[0], "shapes": []}
    for shape in SHAPES:
        print(shape, flush=True)
        result["shapes"].append(measure(shape, options.rounds, options.seconds))
    result["length"] = [{k: (None if v != v else v) for k, v in row.items()} for row in measure_length()]
    result["load_after"] = os.getloadavg()[0]
    files.write_json(options.output / "exodus_cpu.json", result)
    text = report(result)
    files.write_text(options.output / "exodus_cpu.md", text)
    print(text)


if __name__ == "__main__":
    main()
