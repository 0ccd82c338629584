"""Training kernels on a GPU: builds the package, checks it, then measures it beside peers and a copy on the device.

    python benchmarks/gpu.py               # builds, runs the GPU tests, writes benchmarks/results/gpu.md and .json
    python benchmarks/gpu.py --no-checks   # measures only
    python benchmarks/gpu.py --quick       # tiny shapes; without a GPU, on the CPU: does everything run and agree?

Needs torch with CUDA, triton and a C++ compiler, and fetches nothing; peers that are not installed are named.
Times are medians between device events, in interleaved rounds, with inputs that rotate so that no cache holds them.
Every contender is compared with a loop under autograd before it is timed.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Run = Callable[[], Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        layers: [B, T, N] and type of the input of a layer of neurons.
        kinds: [B, T, N] of the kinds of neurons and algorithms.
        linear: [B, T, N] of Linear + LIF.
        events: batch, inputs and neurons of a layer of spike times.
        copy_mib: of the copy on the device.
        peers_up_to: neuron-steps up to which peers that launch a kernel per step are timed.
        check_up_to: neuron-steps up to which results are compared with the loop, which keeps every step.
        budget_ms: after which a contender has no further turn.
    """

    layers: tuple[tuple[tuple[int, int, int], str], ...]
    kinds: tuple[int, int, int]
    linear: tuple[int, int, int]
    events: tuple[int, int, int]
    copy_mib: int
    peers_up_to: int
    check_up_to: int
    budget_ms: float


FULL = Sizes(
    layers=(
        ((16, 100, 64), "float32"),
        ((16, 250, 256), "float32"),
        ((1, 20000, 128), "float32"),
        ((16, 500, 1280), "float32"),
        ((96, 500, 512), "float32"),
        ((96, 500, 512), "bfloat16"),
        ((16, 500, 16384), "float32"),
        ((16, 500, 16384), "bfloat16"),
        ((64, 32, 65536), "float16"),
    ),
    kinds=(16, 500, 1280),
    linear=(16, 500, 16384),
    events=(64, 784, 800),
    copy_mib=1024,
    peers_up_to=30_000_000,
    check_up_to=30_000_000,
    budget_ms=400.0,
)
QUICK = Sizes(
    layers=(((2, 30, 48), "float32"),),
    kinds=(2, 20, 24),
    linear=(2, 10, 32),
    events=(2, 12, 8),
    copy_mib=4,
    peers_up_to=30_000_000,
    check_up_to=30_000_000,
    budget_ms=50.0,
)
COLD_BYTES = 256 << 20
"""Inputs rotate through at least so many bytes, more than a device's second-level cache holds."""


def build() -> None:
    """Install the package in place where it is not, without fetching anything."""
    if importlib.util.find_spec("neurodeploy") is None:
        options = ["--no-build-isolation", "--no-deps", "--quiet"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, "-e", str(ROOT)], check=True)
        importlib.invalidate_caches()
        sys.path.insert(0, str(ROOT))


def check() -> None:
    """Run the tests that need a GPU; measuring wrong results is worth nothing."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests" / "gpu")]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("the GPU tests failed; nothing was measured")


class Clock:
    """Times of calls on a device, in milliseconds."""

    def __init__(self, device: Any) -> None:
        import torch

        self.device, self.torch = device, torch

    def ms(self, run: Callable[[], Any]) -> float:
        """Time of one call: between two events on a GPU, by the wall elsewhere."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            run()
            return (time.perf_counter() - start) * 1e3
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def medians(self, runs: dict[str, Run], budget_ms: float) -> dict[str, float]:
        """Median of every run, interleaved; a slow one has fewer turns, at least three."""
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()  # pools of memory get their size
        for turn in range(200):
            for name, run in runs.items():
                if turn < 3 or sum(spent[name]) < budget_ms:
                    spent[name].append(self.ms(run))
        return {name: statistics.median(times) for name, times in spent.items()}


def bytes_per_step(memory: str, item: int) -> float:
    """Bytes that forward and backward have to move per neuron and step (kernels/exodus/README.md has the table)."""
    from neurodeploy.kernel import CHECKPOINT_EVERY

    spikes = item  # the next layer's product reads them as numbers
    if memory == "store":  # x, s, v; g, v, dx
        return item + spikes + 4 + item + 4 + item
    return item + spikes + 2 * item + item + 8 / CHECKPOINT_EVERY  # x, s; g, x, dx; states written and read


def neuron_runs(
    layer: Callable[[Any], Any], xs: Sequence[Any], gradients: Sequence[Any], turned: bool
) -> tuple[Run, Run]:
    """A forward and backward pass over the next of the inputs, and the forward pass alone."""
    import torch

    leaves = [(x.transpose(0, 1).contiguous() if turned else x.clone()).requires_grad_() for x in xs]
    weights = [g.transpose(0, 1).contiguous() if turned else g for g in gradients]
    turn, forward_turn = cycle(range(len(leaves))), cycle(range(len(leaves)))

    def both() -> tuple[Any, Any]:
        i = next(turn)
        leaves[i].grad = None
        spikes = layer(leaves[i])
        spikes.backward(weights[i])
        return (
            (spikes.detach(), leaves[i].grad)
            if not turned
            else (spikes.detach().transpose(0, 1), leaves[i].grad.transpose(0, 1))
        )

    def forward() -> Any:
        with torch.no_grad():
            return layer(leaves[next(forward_turn)])

    return both, forward


def graphed(run: Run) -> Run:
    """The same work as one captured CUDA graph, replayed."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay() -> Any:
        graph.replay()
        return results

    return replay


def copy_rate(sizes: Sizes, clock: Clock) -> float:
    """Bytes read and written per second by a copy on the device, in units of 1e9."""
    import torch

    source = torch.zeros(sizes.copy_mib << 20, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    return 2e-6 * source.numel() / clock.medians({"": lambda: target.copy_(source)}, sizes.budget_ms)[""]


def inputs(shape: tuple[int, ...], dtype: Any, device: Any, copies: int) -> tuple[list[Any], list[Any]]:
    """Currents and gradients, different in every copy."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(scale: float, offset: float) -> Any:
        # One draw on the CPU, the same on every machine; the copies are its rows in another order.
        return (torch.randn(shape, generator=generator) * scale + offset).to(device=device, dtype=dtype)

    x, g = draw(0.3, 0.05), draw(1.0, 0.0)
    return [x.roll(i, -1) for i in range(copies)], [g.roll(i, -1) for i in range(copies)]


def compared(result: tuple[Any, Any], expected: tuple[Any, Any]) -> dict[str, float]:
    """Spikes that differ, and the relative distance of the gradients."""
    spikes, grad = (tensor.double() for tensor in result)
    right = expected[1].double()
    return {
        "spikes_differ": float((spikes != expected[0].double()).double().mean()),
        "gradient_l2": float((grad - right).norm() / right.norm()),
    }


def measure_layer(
    shape: tuple[int, int, int], kind: str, sizes: Sizes, clock: Clock, copy_gbs: float
) -> dict[str, Any]:
    """One layer of LIF neurons: ours, the loop, the compiled loop, and the peers there are."""
    import torch
    from peers import COMPILED, PEERS, SINABS, TAU, THRESHOLD, definition

    from neurodeploy import nn

    device, dtype = clock.device, getattr(torch, kind)
    steps = shape[0] * shape[1] * shape[2]
    copies = max(1, min(8, -(-COLD_BYTES // (2 * steps * dtype.itemsize))))
    xs, gradients = inputs(shape, dtype, device, copies)

    def lif(**options: Any) -> Callable[[Any], Any]:
        options = {"surrogate": nn.Arctan(), **options}
        layer = nn.LIF(TAU, norm_input=False, spikes="single", threshold=THRESHOLD, **options).to(device)
        return layer

    contenders: dict[str, tuple[Callable[[], Callable[[Any], Any]], bool, str]] = {
        "neurodeploy exodus, store": (partial(lif, memory="store"), False, "store"),
        "neurodeploy exodus, recompute": (partial(lif, memory="recompute"), False, "recompute"),
    }
    if kind == "float32" and steps <= sizes.peers_up_to:
        for peer in PEERS:
            if peer.layer is None or peer is SINABS or (peer is COMPILED and device.type != "cuda"):
                continue
            contenders[peer.name] = (peer.layer, peer.order == "TB", "")
    rows: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    both: dict[str, Run] = {}
    ahead: dict[str, Run] = {}
    expected = None
    if kind == "float32" and steps <= sizes.check_up_to:
        expected = neuron_runs(definition, xs[:1], gradients[:1], True)[0]()
    for name, (make, turned, memory) in contenders.items():
        try:
            both[name], ahead[name] = neuron_runs(make(), xs, gradients, turned)
            found = both[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # a peer that cannot run here is named with its reason
            if name.startswith("neurodeploy"):
                raise
            both.pop(name, None)
            ahead.pop(name, None)
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            continue
        rows[name] = {"memory": memory}
        if expected is not None:
            rows[name] |= compared(found, expected)
        del found
    if device.type == "cuda":
        name = "neurodeploy exodus, recompute, CUDA graph"
        both[name] = graphed(neuron_runs(lif(memory="recompute"), xs[:1], gradients[:1], False)[0])
        rows[name] = {"memory": "recompute"}
    medians = clock.medians(both, sizes.budget_ms)
    forwards = clock.medians(ahead, sizes.budget_ms / 2)
    best = medians["neurodeploy exodus, recompute"]
    for name, row in rows.items():
        row |= {"median_ms": medians[name], "forward_ms": forwards.get(name), "ratio": medians[name] / best}
        if row["memory"]:
            row["gb_per_s"] = bytes_per_step(row["memory"], dtype.itemsize) * steps / medians[name] / 1e6
            row["of_copy"] = row["gb_per_s"] / copy_gbs
    return {"shape": list(shape), "dtype": kind, "steps": steps, "rows": rows, "missing": missing, "copies": copies}


def measure_kinds(sizes: Sizes, clock: Clock) -> dict[str, Any]:
    """Other neurons and algorithms on one shape, and whether spikes and gradients repeat bit for bit."""
    import torch

    from neurodeploy import nn

    xs, gradients = inputs(sizes.kinds, torch.float32, clock.device, 4)
    leak: dict[str, Any] = {"spikes": "single", "norm_input": False}
    makers: dict[str, Callable[[], torch.nn.Module]] = {
        "IAF": lambda: nn.IAF(),
        "LIF": lambda: nn.LIF(20.0, **leak),
        "LIF, several spikes a step": lambda: nn.LIF(20.0, norm_input=False),
        "LIF, slayer": lambda: nn.LIF(20.0, algorithm="slayer", **leak),
        "CubaLIF": lambda: nn.CubaLIF(20.0, 5.0, **leak),
        "ALIF": lambda: nn.ALIF(20.0, 20.0, adapt_scale=1.8, **leak),
        "LI": lambda: nn.LI(20.0),
    }
    runs = {name: neuron_runs(make().to(clock.device), xs, gradients, False)[0] for name, make in makers.items()}
    repeats = {}
    for name, make in makers.items():
        again = [neuron_runs(make().to(clock.device), xs[:1], gradients[:1], False)[0]() for _ in range(2)]
        repeats[name] = all(bool(torch.equal(a, b)) for a, b in zip(*again, strict=True))
    medians = clock.medians(runs, sizes.budget_ms)
    return {"shape": list(sizes.kinds), "rows": {n: {"median_ms": medians[n], "repeats": repeats[n]} for n in runs}}


def measure_linear(sizes: Sizes, clock: Clock) -> dict[str, Any]:
    """Linear + LIF beside the product alone, forward and backward, in float32 (TF32 products) and bfloat16."""
    import torch

    from neurodeploy import nn

    batch, steps, width = sizes.linear
    rows = {}
    torch.backends.cuda.matmul.allow_tf32 = True
    for kind in ("float32", "bfloat16") if clock.device.type == "cuda" else ("float32",):
        dtype = getattr(torch, kind)
        torch.manual_seed(0)
        linear = torch.nn.Linear(width, width, bias=False).to(device=clock.device, dtype=dtype)
        neurons = nn.LIF(20.0, spikes="single", norm_input=False, memory="recompute").to(clock.device)
        x = (torch.rand(sizes.linear) < 0.1).to(device=clock.device, dtype=dtype).requires_grad_()
        g = torch.randn(sizes.linear).to(device=clock.device, dtype=dtype)

        def run(layer: Callable[[Any], Any], x: Any = x, g: Any = g, linear: Any = linear) -> None:
            x.grad = linear.weight.grad = None
            layer(linear(x)).backward(g)

        medians = clock.medians(
            {"product": partial(run, lambda y: y), "with neurons": partial(run, neurons)}, 4 * sizes.budget_ms
        )
        rows[kind] = {**medians, "ratio": medians["with neurons"] / medians["product"]}
    torch.backends.cuda.matmul.allow_tf32 = False
    return {"shape": [batch, steps, width], "rows": rows}


def measure_events(sizes: Sizes, clock: Clock) -> dict[str, Any]:
    """A layer of spike times, forward and backward, beside the same on the CPU."""
    import torch

    from neurodeploy import nn

    batch, sources, neurons = sizes.events
    neuron = nn.SpikeTimeNeuron(tau_mem=2.0, tau_syn=1.0, reset="value", t_ref=torch.inf)
    rows = {}
    for device in dict.fromkeys((clock.device, torch.device("cpu"))):
        torch.manual_seed(0)
        layer = nn.SpikeTimeLinear(sources, neurons, neuron, max_spikes=1).to(device)
        times = torch.rand(batch, sources, 1).to(device).requires_grad_()

        def run(layer: Any = layer, times: Any = times) -> Any:
            times.grad = layer.weight.grad = None
            found = layer(times)
            found[found.isfinite()].sum().backward()
            return found

        fired = int(run().isfinite().sum())
        local = Clock(device)
        rows[str(device)] = {"median_ms": local.medians({"": run}, sizes.budget_ms)[""], "spikes": fired}
    return {"shape": list(sizes.events), "rows": rows}


def measure_training(clock: Clock, quick: bool) -> dict[str, Any]:
    """The demo network, end to end: seconds of an epoch and its accuracy, on the device and on the CPU."""
    try:
        from neurodeploy.train import load_config, train
        from neurodeploy.train.config import TEMPLATES

        rows = {}
        for device in dict.fromkeys((clock.device.type, "cpu")):
            changes = {"device": device, "epochs": 2} | ({"data.n_train": 50, "data.n_test": 20} if quick else {})
            config = load_config(TEMPLATES / "digits.yaml", changes)
            with tempfile.TemporaryDirectory() as folder:
                result = train(config, Path(folder) / "run", quiet=True)
            rows[device] = {"epoch_s": result.metrics[-1]["seconds"], "test_accuracy": result.test_accuracy}
        return {"rows": rows}
    except ImportError as error:
        return {"rows": {}, "missing": str(error)}


def main() -> None:
    """Build, check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes; on the CPU where there is no GPU")
    parser.add_argument("--no-checks", action="store_true", help="do not run the GPU tests first")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    build()
    import torch
    from gpu_report import number, page
    from machine import machine

    found = torch.cuda.is_available()
    if not found and not options.quick:
        sys.exit("torch finds no GPU here; --quick tries the script on the CPU")
    if found and not options.no_checks:
        check()
    device = torch.device("cuda" if found else "cpu")
    sizes, clock = QUICK if options.quick else FULL, Clock(device)
    copy_gbs = copy_rate(sizes, clock)
    result: dict[str, Any] = {
        "quick": options.quick,
        "device": torch.cuda.get_device_name() if found else "none (CPU)",
        "machine": machine(("torch", "triton", "spikingjelly", "norse", "snntorch")),
        "copy_gb_per_s": copy_gbs,
        "layers": [],
    }
    for shape, kind in sizes.layers:
        print(f"neurons {list(shape)}, {kind}", flush=True)
        result["layers"].append(measure_layer(shape, kind, sizes, clock, copy_gbs))
        for name, row in result["layers"][-1]["rows"].items():
            print(f"  {name}: {row['median_ms']:.3f} ms, of copy {number(row.get('of_copy'), '.0%')}", flush=True)
        if found:
            torch.cuda.empty_cache()
    print("kinds, Linear, spike times, training", flush=True)
    result["kinds"] = measure_kinds(sizes, clock)
    result["linear"] = measure_linear(sizes, clock)
    result["events"] = measure_events(sizes, clock)
    result["training"] = measure_training(clock, options.quick)
    from neurodeploy import files

    options.output.mkdir(parents=True, exist_ok=True)
    files.write_json(options.output / "gpu.json", result)
    files.write_text(options.output / "gpu.md", page(result))
    print(json.dumps({"written": str(options.output / "gpu.md")}))


if __name__ == "__main__":
    main()
