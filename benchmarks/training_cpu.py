"""Training on the CPU: neuron layers, Linear + LIF and a conv network, beside the libraries that are installed.

    python benchmarks/training_cpu.py            # minutes; writes benchmarks/results/training_cpu.md, .json and .svg
    python benchmarks/training_cpu.py --quick    # seconds, tiny shapes: does everything run and agree?

Every contender runs the same LIF neuron (one spike per step, soft reset) on the same input, is compared with a loop
under autograd before it is timed, and takes its turns in interleaved rounds, so that other load on the machine falls on
all alike; medians are reported. One and two threads are measured in processes of their own, on as many processors. What
is not installed is named and left out.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from machine import interleaved, machine, peak_mib, seconds, version
from peers import COMPILED, DECAY, PEERS, SINABS, TAU, THRESHOLD, Layer, Pass, Peer, Run, autograd_pass, definition

from neurodeploy import files, nn
from neurodeploy.kernel import Neuron, Parameters
from neurodeploy.kernels.saf import Form, accumulate, silent

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", *dict.fromkeys(peer.package for peer in PEERS if peer.package != "torch"), "lava-dl")
BYTES = {"store": 24.0, "recompute": 20.0}
"""Per neuron and step, float32. Store: x, s, v; g, v, dx. Recompute: x, s; g, x, dx. (Spikes packed to bits would save
4 more in each half; the next layer's product reads floats.)"""
SEGMENT = 50
"""Steps of a local segment."""
LONGEST_PEAK_S = 2.0
"""Slower contenders are not called once more to measure their memory."""
OURS = "neurodeploy exodus"


@dataclass(frozen=True)
class Sizes:
    """What is measured; ``peers`` of a layer's shape: all of them, without sinabs (its backward pass is quadratic in
    T), or the fast ones."""

    layers: tuple[tuple[tuple[int, int, int], str], ...]
    kinds: tuple[int, int, int]
    linear: tuple[int, int, int]
    conv_batch: int
    conv_steps: int
    lengths: tuple[int, ...]
    compile: bool
    rounds: int
    seconds_each: float


FULL = Sizes(
    layers=(((16, 500, 512), "all"), ((16, 500, 4096), "no sinabs"), ((96, 500, 512), "fast")),
    kinds=(16, 500, 512),
    linear=(16, 500, 2048),
    conv_batch=16,
    conv_steps=100,
    lengths=(500, 1000, 2000, 4000),
    compile=True,
    rounds=8,
    seconds_each=2.0,
)
QUICK = Sizes(
    layers=(((2, 30, 48), "all"),),
    kinds=(2, 20, 24),
    linear=(2, 10, 32),
    conv_batch=1,
    conv_steps=4,
    lengths=(50, 100),
    compile=False,
    rounds=1,
    seconds_each=0.5,
)


@dataclass(frozen=True)
class Contender:
    """What is timed: one forward and backward pass, and which definition its results are compared with."""

    name: str
    package: str
    build: Callable[[torch.Tensor, torch.Tensor], Run]
    reference: str
    bytes_per_step: float | None = None
    delayed: bool = False


def lif(**options: Any) -> nn.LIF:
    options = {"surrogate": nn.Arctan(), **options}
    return nn.LIF(TAU, norm_input=False, spikes="single", threshold=THRESHOLD, **options)


def ours(x: torch.Tensor, weights: torch.Tensor, **options: Any) -> Run:
    return autograd_pass(lif(**options), x, weights)


def ours_in_segments(x: torch.Tensor, weights: torch.Tensor) -> Run:
    """Temporally truncated: the backward pass of each segment runs before the next begins."""
    layer = lif(layout="TB")
    pieces = [piece.clone().requires_grad_() for piece in x.transpose(0, 1).contiguous().split(SEGMENT)]
    gradients = weights.transpose(0, 1).contiguous().split(SEGMENT)

    def run() -> Pass:
        outputs, state, forward_s = [], None, 0.0
        start = time.perf_counter()
        for piece, gradient in zip(pieces, gradients, strict=True):
            piece.grad = None
            before = time.perf_counter()
            spikes, state = layer(piece, initial_state=state, return_state=True)
            forward_s += time.perf_counter() - before
            spikes.backward(gradient)
            state = state.detach()
            outputs.append(spikes.detach())
        total_s = time.perf_counter() - start
        spikes, grad = (torch.cat(tensors).transpose(0, 1) for tensors in (outputs, [piece.grad for piece in pieces]))
        return Pass(spikes, grad, total_s, forward_s)

    return run


def ours_saf(x: torch.Tensor, weights: torch.Tensor, form: Form) -> Run:
    """Accumulations in the place of spikes; the spikes are computed from them outside the clock."""
    one = torch.ones(1)
    parameters = Parameters(torch.tensor([DECAY]), one * THRESHOLD, one, one * THRESHOLD)
    neuron = Neuron(spikes="single", surrogate=nn.Arctan())
    if form == "closed":  # its input is the accumulated current
        total, sums = torch.zeros_like(x[:, 0]), []
        for current in x.unbind(1):
            total = DECAY * total + current
            sums.append(total)
        x = torch.stack(sums, 1)

    def layer(z: torch.Tensor) -> torch.Tensor:
        return accumulate(z, silent(z, form), parameters, neuron, form).a

    timed = autograd_pass(layer, x, weights, "TB")

    def run() -> Pass:
        done = timed()
        before = torch.nn.functional.pad(done.spikes, (0, 0, 1, 0))[:, :-1]
        return done._replace(spikes=(done.spikes - DECAY * before).round())

    return run


def layer_contenders(which: str, compile_loop: bool) -> list[Contender]:
    rows = [
        Contender(f"{OURS}, {memory}", "neurodeploy", partial(ours, memory=memory), "arctan", BYTES[memory])
        for memory in ("store", "recompute")
    ]
    rows += [
        Contender(
            f"{OURS}, store, exponential surrogate",
            "neurodeploy",
            partial(ours, surrogate=nn.SingleExponential()),
            "exponential",
            BYTES["store"],
        ),
        Contender("neurodeploy slayer, store", "neurodeploy", partial(ours, algorithm="slayer"), "slayer", 24.0),
        Contender("neurodeploy saf, closed form", "neurodeploy", partial(ours_saf, form="closed"), "saf", 24.0),
        Contender("neurodeploy saf, recurrent form", "neurodeploy", partial(ours_saf, form="recurrent"), "saf", 24.0),
        Contender(f"neurodeploy local, {SEGMENT} steps", "neurodeploy", ours_in_segments, "local", BYTES["store"]),
    ]
    fast = ("SpikingJelly", "jax.lax.scan", "Spyx")
    for peer in PEERS:
        if (
            (peer is COMPILED and not compile_loop)
            or (which == "no sinabs" and peer is SINABS)
            or (which == "fast" and peer.name not in fast)
        ):
            continue
        reference = "arctan" if peer.surrogate == "own" else peer.surrogate
        rows.append(Contender(peer.name, peer.package, peer.run, reference, delayed=peer.delayed))
    return rows


REFERENCES: dict[str, dict[str, Any]] = {
    "arctan": {},
    "exponential": {"exponential": True},
    "slayer": {"detach_reset": True},
    "saf": {"detach_every": 1},
    "local": {"detach_every": SEGMENT},
}


def compare(result: Pass, expected: Pass) -> dict[str, float]:
    spikes, grad = result.spikes.double(), result.grad.double()
    right = expected.grad.double()
    return {
        "spikes_differ": float((spikes != expected.spikes).double().mean()),
        "gradient_l2": float((grad - right).norm() / right.norm()),
        "gradient_cosine": float((grad * right).sum() / (grad.norm() * right.norm())),
    }


def copy_seconds(x: torch.Tensor) -> Callable[[], Any]:
    target = torch.empty_like(x)
    return lambda: seconds(lambda: target.copy_(x))


def times(run: Run) -> tuple[float, float | None]:
    """Seconds of a pass, and of its forward part; its arrays are given back before the next pass."""
    done = run()
    return done.total_s, done.forward_s


def measured(
    contenders: Sequence[Contender],
    runs: dict[str, Run],
    copy: Callable[[], Any],
    sizes: Sizes,
    burst: int,
    rounds: int,
) -> tuple[float, dict[str, dict[str, Any]]]:
    """Time of a copy, and for every contender its times in milliseconds and its peak of memory."""
    timed = {name: partial(times, run) for name, run in runs.items()}
    results = interleaved({"copy": copy, **timed}, rounds, sizes.seconds_each, burst)
    rows: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        if contender.name not in runs:
            continue
        passes = results[contender.name]
        rows[contender.name] = {
            "median_ms": statistics.median(total for total, _ in passes) * 1e3,
            "min_ms": min(total for total, _ in passes) * 1e3,
            "forward_ms": None,
            "backward_ms": None,
            "runs": len(passes),
        }
        if passes[0][1] is not None:
            rows[contender.name] |= {
                "forward_ms": statistics.median(forward for _, forward in passes) * 1e3,
                "backward_ms": statistics.median(total - forward for total, forward in passes) * 1e3,
            }
    for name, run in runs.items():  # after all times: memory given back has to be fetched again
        rows[name]["peak_mib"] = peak_mib(run) if rows[name]["median_ms"] < 1e3 * LONGEST_PEAK_S else None
    return statistics.median(results["copy"]), rows


def built(
    contenders: Sequence[Contender], build: Callable[[Contender], Run]
) -> tuple[dict[str, Run], dict[str, Pass], dict[str, str]]:
    """Runs and first results of the contenders there are; why the others are not."""
    runs: dict[str, Run] = {}
    first: dict[str, Pass] = {}
    missing: dict[str, str] = {}
    for contender in contenders:
        try:
            runs[contender.name] = build(contender)
            first[contender.name] = runs[contender.name]()
        except ImportError as error:
            runs.pop(contender.name, None)
            missing[contender.name] = f"{version(contender.package)}: {error}"
            print(f"  {contender.name} left out ({missing[contender.name]})", flush=True)
    return runs, first, missing


def measure_layers(shape: tuple[int, int, int], which: str, sizes: Sizes) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * 0.3 + 0.05
    weights = torch.randn(shape, generator=generator)
    expected = {
        name: autograd_pass(partial(definition, **options), x, weights, "TB")() for name, options in REFERENCES.items()
    }
    contenders = layer_contenders(which, sizes.compile)
    checks: dict[str, dict[str, float]] = {}

    def build(contender: Contender) -> Run:
        return contender.build(x, weights)

    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for contender in contenders:  # one at a time: results are as large as the input
        run, first, without = built([contender], build)
        missing |= without
        runs |= run
        if contender.name in first and not contender.delayed:
            checks[contender.name] = compare(first[contender.name], expected[contender.reference])
        print(f"  {contender.name}: {checks.get(contender.name, {})}", flush=True)
    spike_rate = float(expected["arctan"].spikes.mean())
    del expected, first
    for run_ in list(runs.values())[:7]:  # the pool of buffers has its size then
        run_()
    rounds = sizes.rounds if x.numel() < 8 << 20 else max(1, sizes.rounds // 2)
    copy_s, rows = measured(contenders, runs, copy_seconds(x), sizes, 3 if sizes.rounds > 1 else 1, rounds)
    copy_rate = 8 * x.numel() / copy_s / 1e9
    fastest = rows[f"{OURS}, store"]["median_ms"]
    for contender in contenders:
        if contender.name not in rows:
            continue
        row = rows[contender.name]
        row["ratio"] = row["median_ms"] / fastest
        row |= checks.get(contender.name, {})
        if contender.bytes_per_step is not None:
            rate = contender.bytes_per_step * x.numel() / row["median_ms"] / 1e6
            row |= {"gb_per_s": rate, "of_copy": rate / copy_rate, "bytes_per_step": contender.bytes_per_step}
    return {
        "shape": list(shape),
        "spike_rate": spike_rate,
        "copy_gb_per_s": copy_rate,
        "copy_ms": copy_s * 1e3,
        "rows": rows,
        "missing": missing,
    }


@dataclass(frozen=True)
class Kind:
    """A kind of neuron: ours and sinabs', and the bytes that have to move per neuron and step."""

    name: str
    ours: Callable[[int], torch.nn.Module]
    sinabs: Callable[[int], torch.nn.Module]
    bytes_per_step: float | None


def kinds() -> list[Kind]:
    def theirs(name: str, **options: Any) -> Callable[[int], torch.nn.Module]:
        def make(neurons: int) -> torch.nn.Module:
            from sinabs import activation, layers

            given = dict(options)
            if "rec_connect" in given:
                given["rec_connect"] = lateral(neurons)
            if name != "ExpLeak":
                given |= {"spike_fn": activation.SingleSpike, "surrogate_grad_fn": activation.SingleExponential()}
            layer: torch.nn.Module = getattr(layers, name)(**given)
            for parameter in ("tau_mem", "tau_syn", "tau_adapt", "b0"):
                if isinstance(getattr(layer, parameter, None), torch.nn.Parameter):
                    getattr(layer, parameter).requires_grad_(False)
            return layer

        return make

    def lateral(neurons: int) -> torch.nn.Linear:
        torch.manual_seed(0)
        return torch.nn.Linear(neurons, neurons)

    plain: dict[str, Any] = {"spikes": "single"}
    leak = {**plain, "norm_input": False}
    return [
        Kind("IAF", lambda _: nn.IAF(**plain), theirs("IAF"), 24.0),
        Kind("LIF", lambda _: nn.LIF(TAU, **leak), theirs("LIF", tau_mem=TAU, norm_input=False), 24.0),
        Kind(
            "CubaLIF",
            lambda _: nn.CubaLIF(TAU, 5.0, **leak),
            theirs("LIF", tau_mem=TAU, tau_syn=5.0, norm_input=False),
            24.0,
        ),
        Kind(
            "ALIF",
            lambda _: nn.ALIF(TAU, TAU, adapt_scale=1.8, detach_threshold=True, **leak),
            theirs("ALIF", tau_mem=TAU, tau_adapt=TAU, adapt_scale=1.8, norm_input=False),
            32.0,
        ),
        Kind("LI", lambda _: nn.LI(TAU), theirs("ExpLeak", tau_mem=TAU, norm_input=False), 16.0),
        Kind(
            "LIFRecurrent",
            lambda neurons: nn.LIFRecurrent(TAU, lateral(neurons), **leak),
            theirs("LIFRecurrent", tau_mem=TAU, rec_connect=None, norm_input=False),
            None,
        ),
    ]


def fresh(layer: torch.nn.Module) -> Layer:
    """The layer from a state of zeros at every call, its own gradients dropped."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        layer.zero_grad()
        layer.reset_states()  # type: ignore[operator]
        spikes: torch.Tensor = layer(x)
        return spikes

    return forward


def measure_kinds(sizes: Sizes) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sizes.kinds, generator=generator) * 0.3 + 0.05
    weights = torch.randn(sizes.kinds, generator=generator)
    neurons = sizes.kinds[2]
    contenders, references = [], {}
    for kind in kinds():
        contenders.append(
            Contender(
                kind.name,
                "neurodeploy",
                lambda x, w, kind=kind: autograd_pass(fresh(kind.ours(neurons)), x, w),
                "",
                kind.bytes_per_step,
            )
        )
        references[kind.name] = f"sinabs {kind.name}"
        contenders.append(
            Contender(
                f"sinabs {kind.name}",
                "sinabs",
                lambda x, w, kind=kind: autograd_pass(fresh(kind.sinabs(neurons)), x, w),
                "",
            )
        )
    runs, first, missing = built(contenders, lambda contender: contender.build(x, weights))
    copy_s, rows = measured(
        contenders, runs, copy_seconds(x), sizes, 3 if sizes.rounds > 1 else 1, max(1, sizes.rounds // 2)
    )
    copy_rate = 8 * x.numel() / copy_s / 1e9
    for contender in contenders:
        row = rows.get(contender.name)
        if row is not None and contender.bytes_per_step is not None:
            rate = contender.bytes_per_step * x.numel() / row["median_ms"] / 1e6
            row |= {"gb_per_s": rate, "of_copy": rate / copy_rate, "bytes_per_step": contender.bytes_per_step}
        other = references.get(contender.name, "")
        if row is not None and other in rows:
            row |= compare(first[contender.name], first[other])
            row["sinabs_ratio"] = rows[other]["median_ms"] / row["median_ms"]
    return {"shape": list(sizes.kinds), "copy_gb_per_s": copy_rate, "rows": rows, "missing": missing}


class Folded(torch.nn.Module):
    """A neuron layer on (steps, ...) folded with the batch, in its own order of axes."""

    def __init__(self, layer: Layer, peer_order: str, steps: int) -> None:
        super().__init__()
        self._layer, self._order, self._steps = layer, peer_order, steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the spikes, folded again."""
        batch = x.shape[0] // self._steps
        shape = (self._steps, batch) if self._order == "TB" else (batch, self._steps)
        return self._layer(x.reshape(*shape, *x.shape[1:])).flatten(0, 1)


def linear_net(neurons: Callable[[], torch.nn.Module], width: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(width, width, bias=False), neurons())


def conv_net(neurons: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The small network of sinabs' N-MNIST tutorial size: 2x34x34, c8 p2 c16 p2 c16 (stride 2), 10 outputs."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 3, padding=1, bias=False),
        neurons(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1, bias=False),
        neurons(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False),
        neurons(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 4 * 4, 10, bias=False),
        neurons(),
    )


def measure_network(
    name: str,
    make: Callable[[Callable[[], torch.nn.Module]], torch.nn.Module],
    x: torch.Tensor,
    gain: float,
    sizes: Sizes,
) -> dict[str, Any]:
    """Forward and backward of a network, beside the same without its neurons; gradients are those of the first weights.

    ``x`` is [B, T, ...]; its own gradient is computed for the network of one layer, which stands for a hidden one.
    """
    batch, steps = x.shape[:2]
    rows_of_x = {"BT": x.flatten(0, 1), "TB": x.transpose(0, 1).flatten(0, 1)}
    torch.manual_seed(0)
    weights = [gain * parameter.detach() for parameter in make(torch.nn.Identity).parameters()]
    hidden = len(weights) == 1

    def build(order: str, layer: Callable[[], torch.nn.Module]) -> Run:
        net = make(layer)
        parameters = list(net.parameters())
        with torch.no_grad():
            for parameter, value in zip(parameters, weights, strict=True):
                parameter.copy_(value)
        leaf = rows_of_x[order].clone().requires_grad_(hidden)
        turned = order == "TB"
        axes = (steps, batch) if turned else (batch, steps)
        with torch.no_grad():
            shape = net(leaf).shape[1:]
        gradient = torch.randn(batch, steps, *shape, generator=torch.Generator().manual_seed(1))
        gradient = (gradient.transpose(0, 1) if turned else gradient).flatten(0, 1)

        def run() -> Pass:
            leaf.grad = None
            net.zero_grad()
            start = time.perf_counter()
            output = net(leaf)
            middle = time.perf_counter()
            output.backward(gradient)
            end = time.perf_counter()
            spikes = output.detach().reshape(*axes, -1)
            assert parameters[0].grad is not None
            return Pass(spikes.transpose(0, 1) if turned else spikes, parameters[0].grad, end - start, middle - start)

        return run

    def plain(**options: Any) -> Callable[[], torch.nn.Module]:
        return lambda: Folded(lif(**options), "BT", steps)

    def of(peer: Peer) -> Callable[[torch.Tensor, torch.Tensor], Run]:
        assert peer.layer is not None
        layer = peer.layer
        return lambda _x, _w: build(peer.order, lambda: Folded(layer(), peer.order, steps))

    exponential = f"{OURS}, exponential surrogate"
    contenders = [
        Contender("no neurons", "torch", lambda _x, _w: build("BT", torch.nn.Identity), ""),
        Contender(OURS, "neurodeploy", lambda _x, _w: build("BT", plain()), "torch loop"),
        Contender(
            f"{OURS}, recompute", "neurodeploy", lambda _x, _w: build("BT", plain(memory="recompute")), "torch loop"
        ),
        Contender("neurodeploy slayer", "neurodeploy", lambda _x, _w: build("BT", plain(algorithm="slayer")), ""),
        Contender(
            exponential,
            "neurodeploy",
            lambda _x, _w: build("BT", plain(surrogate=nn.SingleExponential())),
            "",
        ),
        *(
            Contender(peer.name, peer.package, of(peer), exponential if peer is SINABS else "torch loop")
            for peer in PEERS
            if peer.layer is not None and peer is not COMPILED and not (peer is SINABS and hidden)
        ),
    ]
    runs, first, missing = built(contenders, lambda contender: contender.build(x, x))
    longer = replace(sizes, seconds_each=2 * sizes.seconds_each)  # for the small ratio that neurons add
    _, rows = measured(contenders, runs, copy_seconds(x), longer, 1, max(1, sizes.rounds // 2))
    bare = rows["no neurons"]["median_ms"]
    for contender in contenders:
        if contender.name not in rows:
            continue
        row = rows[contender.name]
        row["ratio_to_no_neurons"] = row["median_ms"] / bare
        if contender.reference:
            row |= compare(first[contender.name], first[contender.reference])
    return {
        "name": name,
        "input": list(x.shape),
        "spike_rate": float(first[OURS].spikes.mean()),
        "rows": rows,
        "missing": missing,
    }


def measure_length(lengths: Sequence[int], sizes: Sizes) -> list[dict[str, Any]]:
    """Milliseconds at each T, medians of interleaved rounds."""
    runs: dict[str, Run] = {}
    for length in lengths:
        x = torch.randn(4, length, 512) * 0.3
        for memory in BYTES:
            runs[f"{memory} {length}"] = ours(x, torch.randn_like(x), memory=memory)
            runs[f"{memory} {length}"]()
    results = interleaved({name: partial(times, run) for name, run in runs.items()}, sizes.rounds, 60.0, 3)
    medians = {name: statistics.median(total for total, _ in passes) * 1e3 for name, passes in results.items()}
    return [{"T": length, **{memory: medians[f"{memory} {length}"] for memory in BYTES}} for length in lengths]


def measure(threads: int, quick: bool) -> dict[str, Any]:
    """All cases on ``threads`` processors; run in a process of its own."""
    sizes = QUICK if quick else FULL
    if hasattr(os, "sched_setaffinity") and not quick:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    layers = sizes.layers if threads == 1 else sizes.layers[:1]
    result: dict[str, Any] = {"threads": threads, "machine": machine(PACKAGES), "load_before": os.getloadavg()[0]}
    result["layers"] = []
    for shape, which in layers:
        print(f"{threads} thread(s), neuron layer {list(shape)}", flush=True)
        result["layers"].append(measure_layers(shape, which, sizes))
    generator = torch.Generator().manual_seed(0)
    width = sizes.linear[2]
    print(f"{threads} thread(s), networks", flush=True)
    spikes = (torch.rand(sizes.linear, generator=generator) < 0.1).float()
    frames = (torch.rand(sizes.conv_batch, sizes.conv_steps, 2, 34, 34, generator=generator) < 0.05).float()
    result["networks"] = [
        measure_network(f"Linear {width} + LIF", lambda neurons: linear_net(neurons, width), spikes, 1.5, sizes),
        measure_network("N-MNIST conv network", conv_net, frames, 3.0, sizes),
    ]
    if threads == 1:
        print("1 thread, kinds of neurons, lengths", flush=True)
        result["kinds"] = measure_kinds(sizes)
        result["lengths"] = measure_length(sizes.lengths, sizes)
    result["load_after"] = os.getloadavg()[0]
    return result


def in_own_process(threads: int, quick: bool) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, threads, quick).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, one round, one thread")
    parser.add_argument("--threads", type=int, nargs="+", help="thread counts (default: 1 2; --quick: 1)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    threads = options.threads or ([1] if options.quick else [1, 2])
    from training_report import page, picture

    result = {"quick": options.quick, "sizes": asdict(QUICK if options.quick else FULL)}
    result["threads"] = [in_own_process(count, options.quick) for count in threads]
    options.output.mkdir(parents=True, exist_ok=True)
    files.write_json(options.output / "training_cpu.json", result)
    drawn = picture(result, options.output / "training_cpu.svg")
    files.write_text(options.output / "training_cpu.md", page(result, drawn))
    print(f"written: {options.output / 'training_cpu.md'}")


if __name__ == "__main__":
    main()
