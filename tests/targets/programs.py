"""Programs and events for the emulator's tests."""

from dataclasses import replace

import numpy as np

from neurodeploy.events.array import EventArray, make_events
from neurodeploy.targets.dynapcnn.dvs import DvsLayer
from neurodeploy.targets.dynapcnn.program import CoreProgram, Destination, DynapcnnProgram, Entry, InputPort
from neurodeploy.targets.dynapcnn.switches import Switches


def core(
    weights: np.ndarray | list[float],
    input_shape: tuple[int, int, int],
    *,
    number: int = 0,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    high: int = 127,
    low: int = -127,
    hard: bool = False,
    biases: list[int] | np.ndarray | None = None,
    initial: np.ndarray | None = None,
    destinations: tuple[Destination, ...] = (),
) -> CoreProgram:
    """A core from its weights ``[F, C, k, k]``; the output shape follows."""
    weights = np.asarray(weights, np.int8)
    F, k = weights.shape[0], weights.shape[2]
    out = tuple((n - k + 2 * p) // s + 1 for n, p, s in zip(input_shape[1:], padding, stride, strict=True))
    return CoreProgram(
        layer=f"layer{number}",
        core=number,
        input_shape=input_shape,
        output_shape=(F, *out),
        kernel_size=k,
        stride=stride,
        padding=padding,
        weights=weights,
        biases=np.zeros(F, np.int16) if biases is None else np.asarray(biases, np.int16),
        threshold_high=high,
        threshold_low=low,
        return_to_zero=hard,
        leak_enable=biases is not None,
        monitor_enable=True,
        destinations=destinations,
        neurons_initial_value=initial,
    )


def program(*cores: CoreProgram, entry: int | None = None) -> DynapcnnProgram:
    return DynapcnnProgram("test", cores, cores[0].core if entry is None else entry)


def random_events(rng: np.random.Generator, shape: tuple[int, int, int], n: int, span_us: int = 3000) -> EventArray:
    C, H, W = shape
    # Few distinct places, so that potentials move far and thresholds are crossed.
    top = H if rng.random() < 0.5 else max(1, H // 2)
    y, x = rng.integers(0, top, n), rng.integers(0, W, n)
    return make_events(np.sort(rng.integers(0, span_us, n)), x, y, rng.integers(0, min(C, 256), n))


def random_switches(rng: np.random.Generator) -> Switches:
    def pick(*choices: object) -> object:
        return choices[rng.integers(len(choices))]

    return Switches(
        emission_order=pick("kernel", "kernel", "y_x_f", "f_y_x", "random"),
        interleaving=pick("layers", "layers", "fifo", "depth_first", "random"),
        zero_weight_touches=pick(False, True),
        overflow=pick("saturate", "wrap"),
        tick_fires=pick(True, False),
        tick_order=pick("before_events", "after_events"),
        destination_order=pick("first_to_last", "last_to_first"),
        outside_events=pick("drop", "compute"),
        decimator_phase=pick("last", "first"),
        on_feature=pick(1, 0),
        initial_state=pick("program", "program", "random"),
        lost_events=pick(0.0, 0.0, 0.0, 0.1),
        seed=int(rng.integers(0, 2**63)),
    )


def _random_core(rng: np.random.Generator, number: int, input_shape: tuple[int, int, int]) -> CoreProgram:
    C, H, W = input_shape
    k = int(rng.integers(1, min(5, H, W) + 1)) if rng.random() < 0.8 or H != W else H
    stride = tuple(int(rng.choice([1, 1, 2, 4])) for _ in range(2))
    padding = tuple(int(rng.integers(0, 4)) for _ in range(2))
    F = int(rng.choice([1, 1, 2, 2, 3, 5, 8, 11, 33], p=[0.14] * 6 + [0.06, 0.06, 0.04]))
    weights = np.clip(rng.normal(10, 50, (F, C, k, k)).round(), -128, 127)
    weights[rng.random(weights.shape) < 0.2] = 0
    kind = rng.integers(4)
    high = int((rng.integers(128, 400), rng.integers(1, 100), rng.integers(32600, 32768), rng.integers(100, 300))[kind])
    low = int(rng.choice([-32768, -32700, -high, -1, -200, 0]))
    low = max(low, -32768)
    built = core(
        weights,
        input_shape,
        number=number,
        stride=stride,
        padding=padding,
        high=high,
        low=low,
        hard=bool(rng.random() < 0.3),
        biases=rng.integers(-40, 30, F) if rng.random() < 0.3 else None,
    )
    if rng.random() < 0.4:
        # Near the ends of the range, so that saturation and stored remainders happen.
        top = 32767 if rng.random() < 0.5 else min(32767, high + 50)
        initial = rng.integers(max(low, top - 300), top + 1, built.output_shape)
        if rng.random() < 0.5:
            initial = rng.integers(low, min(low + 200, 32767) + 1, built.output_shape)
        built = replace(built, neurons_initial_value=initial.astype(np.int16))
    return built


def random_program(rng: np.random.Generator) -> DynapcnnProgram:
    """One to four cores; each later core is fed by one or two earlier ones, with pooling, shifts and remainders."""
    count = int(rng.integers(1, 5))
    shape = (int(rng.integers(1, 4)), int(rng.integers(3, 12)), int(rng.integers(3, 12)))
    numbers = [int(n) for n in rng.permutation(9)[:count]]
    cores = [_random_core(rng, numbers[0], shape)]
    for number in numbers[1:]:
        open_cores = [i for i, built in enumerate(cores) if len(built.destinations) < 2]
        if not open_cores:
            break
        # Mostly the newest core, so that chains, branches and joins all come up.
        chosen = [open_cores[-1]] + [i for i in open_cores if rng.random() < 0.4]
        pooling = [int(rng.choice([1, 1, 2, 4])) for _ in chosen]
        shifts = [0] + [int(rng.choice([0, cores[i].output_shape[0]])) for i in chosen[1:]]
        sizes = [
            (cores[i].output_shape[0] + s, max(1, cores[i].output_shape[1] // p), max(1, cores[i].output_shape[2] // p))
            for i, p, s in zip(chosen, pooling, shifts, strict=True)
        ]
        # Sometimes smaller than what arrives: events outside.
        input_shape = (
            max(1, max(size[0] for size in sizes) - int(rng.integers(0, 2))),
            max(size[1] for size in sizes),
            max(size[2] for size in sizes),
        )
        used = []
        for i, p, s in zip(chosen, pooling, shifts, strict=True):
            if len(cores[i].destinations) < 2:
                cores[i] = replace(cores[i], destinations=(*cores[i].destinations, Destination(number, p, s)))
                used.append(i)
        cores.append(_random_core(rng, number, input_shape))
    return program(*cores)


def _random_port(rng: np.random.Generator, name: str, entries: list[Entry], fed: list[CoreProgram]) -> InputPort:
    """An input with the map of the cores it feeds, through the pre-processing or not."""
    _, H, W = fed[0].input_shape
    room = min(core.input_shape[0] - entry.feature_shift for core, entry in zip(fed, entries, strict=True))
    c = int(rng.integers(1, room + 1))
    if rng.random() < 0.4 or len(entries) > 2:
        return InputPort(name, (c, H, W), tuple(entries))
    merge = room < 2 or bool(rng.integers(2))
    size = (W, H) if (swap := bool(rng.integers(2))) else (H, W)
    pooling = tuple(int(p) for p in rng.choice([1, 2, 4], 2))
    origin = tuple(int(o) for o in rng.integers(0, 3, 2))
    rest = [int(r) for r in rng.integers(0, 4, 2)]
    shape = [(o + n + r) * p for o, n, r, p in zip(origin, size, rest, pooling, strict=True)]
    dvs = DvsLayer(
        pooling=pooling,  # type: ignore[arg-type]
        origin=origin,  # type: ignore[arg-type]
        cut=tuple(o + n - 1 for o, n in zip(origin, size, strict=True)),  # type: ignore[arg-type]
        on_channel=bool(rng.random() < 0.8),
        off_channel=bool(rng.random() < 0.8),
        merge=merge,
        mirror=(bool(rng.integers(2)), bool(rng.integers(2))),
        mirror_diagonal=swap,
    )
    return InputPort(name, (2, shape[0], shape[1]), tuple(entries), dvs)


def with_random_inputs(rng: np.random.Generator, built: DynapcnnProgram) -> DynapcnnProgram:
    """The program with a second core at the beginning, one to three inputs, and decimators."""
    cores = list(built.cores)
    number = next(n for n in range(9) if all(core.core != n for core in cores))
    cores.append(_random_core(rng, number, cores[0].input_shape))
    by_number = {core.core: core for core in cores}
    ports = []
    for place in range(int(rng.integers(1, 4))):
        first = cores[0] if place == 0 else cores[rng.integers(len(cores))]
        same = [core for core in cores if core.input_shape[1:] == first.input_shape[1:]]
        fed = [first, *(same[i] for i in rng.integers(0, len(same), int(rng.integers(0, 2))))]
        through_dvs = any(port.dvs for port in ports)
        entries = [Entry(core.core, int(rng.integers(0, core.input_shape[0]))) for core in fed]
        port = _random_port(rng, f"input{place}", entries, fed)
        if port.dvs is not None and through_dvs:
            port = InputPort(port.name, (1, *by_number[first.core].input_shape[1:]), port.entries)
        ports.append(port)
    for i, core in enumerate(cores):
        if rng.random() < 0.4:
            cores[i] = replace(core, output_decimator_interval=int(rng.choice([0, 0, 1, 1, 2])))
    return replace(built, cores=tuple(cores), ports=tuple(ports))


def random_input(rng: np.random.Generator, built: DynapcnnProgram, n: int) -> EventArray:
    """Events for every input of the program, sorted by time."""
    parts, first = [], 0
    for port in built.inputs:
        part = random_events(rng, port.shape, n)
        part["p"] += first
        parts.append(part)
        first += port.shape[0]
    events = np.concatenate(parts)
    return events[np.argsort(events["t"], kind="stable")]


def random_probe(rng: np.random.Generator, built: DynapcnnProgram) -> dict[str, list[tuple[int, int, int]]]:
    """Mostly nothing; else up to three neurons of some layers."""
    if rng.random() < 0.7:
        return {}
    return {
        layer: [tuple(int(rng.integers(size)) for size in built.layer_shape(layer)) for _ in range(rng.integers(0, 4))]
        for layer in built.layers
        if rng.random() < 0.6
    }
