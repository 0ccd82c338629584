"""What a program must satisfy before it can be executed. Not the chip's limits: those are ``constraints.py``."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError, ProgramError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.targets.dynapcnn.draws import INITIAL, uniform_integers
from neurodeploy.targets.dynapcnn.program import DECIMATION, CoreProgram, DynapcnnProgram, InputPort
from neurodeploy.targets.dynapcnn.switches import Switches

#: Widths of an event's address inside the chip: features 0..1023, rows and columns 0..127.
MAX_FEATURES, MAX_SIDE = 1024, 128


def _refuse(
    core: CoreProgram, message: str, remedy: str = "compile the network again; this program is not consistent."
) -> None:
    raise ProgramError(f"layer {core.name!r} (core {core.core}): {message}", remedy=remedy, code="program-inconsistent")


def _check_shapes(core: CoreProgram) -> None:
    C, H, W = core.input_shape
    F, Ho, Wo = core.output_shape
    k, (sy, sx), (py, px) = core.kernel_size, core.stride, core.padding
    for name, value, limit in (
        ("input features", C, MAX_FEATURES),
        ("input height", H, MAX_SIDE),
        ("input width", W, MAX_SIDE),
        ("output features", F, MAX_FEATURES),
        ("output height", Ho, MAX_SIDE),
        ("output width", Wo, MAX_SIDE),
    ):
        if not 1 <= value <= limit:
            _refuse(core, f"{name} = {value}; an event address holds 1..{limit}.")
    if not (
        1 <= k <= MAX_SIDE and 1 <= min(sy, sx) <= max(sy, sx) <= 16 and 0 <= min(py, px) <= max(py, px) < MAX_SIDE
    ):
        _refuse(
            core,
            f"kernel {k}, stride {core.stride}, padding {core.padding}; "
            f"kernels are 1..{MAX_SIDE}, strides 1..16, paddings 0..{MAX_SIDE - 1}.",
        )
    expected = (F, (H - k + 2 * py) // sy + 1, (W - k + 2 * px) // sx + 1)
    if tuple(core.output_shape) != expected:
        _refuse(core, f"output_shape is {tuple(core.output_shape)}; kernel, stride and padding give {expected}.")
    for name, array, dtype, shape in (
        ("weights", core.weights, np.int8, (F, C, k, k)),
        ("biases", core.biases, np.int16, (F,)),
        ("neurons_initial_value", core.neurons_initial_value, np.int16, (F, Ho, Wo)),
    ):
        if array is not None and (array.dtype != dtype or array.shape != shape):
            _refuse(core, f"{name} is {array.dtype} {array.shape}; it must be {np.dtype(dtype)} {shape}.")


def _check_thresholds(core: CoreProgram) -> None:
    if not 1 <= core.threshold_high <= 32767:
        _refuse(core, f"threshold_high = {core.threshold_high}; it must be 1..32767.")
    if not -32768 <= core.threshold_low <= 0:
        _refuse(core, f"threshold_low = {core.threshold_low}; it must be -32768..0.")
    initial = core.neurons_initial_value
    if initial is not None and int(initial.min()) < core.threshold_low:
        _refuse(
            core, f"neurons_initial_value reaches {int(initial.min())}, below threshold_low = {core.threshold_low}."
        )


def check_parts(program: DynapcnnProgram) -> None:
    """The cores of one layer follow each other, and their features too, without a gap, on maps of one size.

    Raises:
        ProgramError: they do not.
    """
    previous: CoreProgram | None = None
    seen: set[str] = set()
    for core in program.cores:
        follows = previous is not None and previous.layer == core.layer
        if not follows and core.layer in seen:
            _refuse(core, "the parts of a layer must follow each other.")
        expected = 0
        if follows and previous is not None:
            expected = (previous.first_feature or 0) + previous.features
            size, other = core.output_shape[1:], previous.output_shape[1:]
            if size != other:
                _refuse(core, f"its map is {size}, that of {previous.name} is {other}.")
        between = np.arange(core.output_shape[0]) % core.feature_step != 0
        if core.feature_step > 1 and (between[-1] or core.weights[between].any() or core.biases[between].any()):
            _refuse(core, f"feature_step is {core.feature_step}; features between have weights, or end it.")
        if (core.first_feature or 0) != expected:
            _refuse(core, f"first_feature is {core.first_feature}; the next feature of the layer is {expected}.")
        seen.add(core.layer)
        previous = core


def check_inputs(program: DynapcnnProgram) -> None:
    """Every input leads to configured cores, with events that they can hold.

    Raises:
        ProgramError: it does not.
    """
    shapes = {core.core: core.input_shape for core in program.cores}
    if sum(port.dvs is not None for port in program.inputs) > 1:
        _refuse_input(program.inputs[0], "a chip has one pre-processing layer, and several inputs go through it.")
    if program.input_shape[0] > 256 and len(program.inputs) > 1:
        _refuse_input(program.inputs[0], f"the inputs have {program.input_shape[0]} features; events hold 256.")
    for port in program.inputs:
        if not port.entries:
            _refuse_input(port, "it leads to no core.")
        shape = port.shape
        if port.dvs is not None:
            if port.shape[0] > 2 or len(port.entries) > 2:
                _refuse_input(port, "the pre-processing has two polarities and two destinations.")
            sides = [side // pool for side, pool in zip(port.shape[1:], port.dvs.pooling, strict=True)]
            for side, first, last in zip(sides, port.dvs.origin, port.dvs.cut, strict=True):
                if not 0 <= first <= last < side:
                    _refuse_input(port, f"its region {first}..{last} is not within 0..{side - 1}.")
            shape = port.dvs.output_shape(port.shape[0])
        for entry in port.entries:
            if entry.core not in shapes:
                _refuse_input(port, f"core {entry.core} is not configured (configured: {sorted(shapes)}).")
            c, *size = shapes[entry.core]
            if entry.feature_shift < 0 or shape[0] + entry.feature_shift > c or list(shape[1:]) != size:
                _refuse_input(
                    port,
                    f"its events {shape}, shifted by {entry.feature_shift} features, do not fit core {entry.core}, "
                    f"which takes {shapes[entry.core]}.",
                )
    if program.inputs[0].entries[0].core != program.entry_core:
        _refuse_input(program.inputs[0], f"its first core is not entry_core, {program.entry_core}.")


def _refuse_input(port: InputPort, message: str) -> None:
    raise ProgramError(
        f"input {port.name!r}: {message}",
        remedy="compile the network again; this program is not consistent.",
        code="program-inconsistent",
    )


def check_executable(program: DynapcnnProgram, slow_clock_hz: float | None, switches: Switches) -> None:
    """Refuse what cannot be executed event by event.

    Args:
        program: the configuration.
        slow_clock_hz: ticks of the slow clock per second, or None for no clock.
        switches: answers to the open questions; one refuses programs with an event filter.

    Raises:
        ProgramError: shapes, types, thresholds, initial values or destinations that do not fit together.
        EmulationError: recurrent connections worked off core by core; a biased core without a slow clock; a slow
            clock outside 0..1 MHz.
    """
    rank = {core.core: index for index, core in enumerate(program.cores)}
    if len(rank) != len(program.cores) or len(set(program.parts)) != len(program.parts):
        raise ProgramError(
            f"cores {[core.core for core in program.cores]} and layers {list(program.parts)} must each be unique.",
            remedy="compile the network again; this program is not consistent.",
            code="program-inconsistent",
        )
    if program.entry_core not in rank:
        raise ProgramError(
            f"entry_core is {program.entry_core}; the configured cores are {sorted(rank)}.",
            remedy="set entry_core to the core that takes the host's events.",
            code="program-inconsistent",
        )
    check_parts(program)
    check_inputs(program)
    if switches.event_filter == "refuse" and any(port.dvs and port.dvs.event_filter for port in program.inputs):
        raise EmulationError(
            "the program uses the event filter of the sensor's pre-processing; how it decides is not documented.",
            remedy='compile without a filter, or set the switch event_filter to "pass_all" to emulate without it.',
            code="event-filter",
        )
    for core in program.cores:
        _check_shapes(core)
        _check_thresholds(core)
        interval = core.output_decimator_interval
        if interval is not None and not 0 <= interval < len(DECIMATION):
            _refuse(core, f"output_decimator_interval = {interval}; it must be 0..{len(DECIMATION) - 1}.")
        if len(core.destinations) > 2:
            _refuse(core, f"{len(core.destinations)} destinations; a core has two.")
        for destination in core.destinations:
            if destination.core not in rank:
                _refuse(core, f"destination core {destination.core} is not configured (configured: {sorted(rank)}).")
            if destination.pooling not in (1, 2, 4) or destination.feature_shift < 0:
                _refuse(
                    core,
                    f"pooling {destination.pooling}, feature_shift {destination.feature_shift}: 1, 2, 4 and 0 or more.",
                )
    for core, destination in program.loops:
        if not program.leads_to(destination.core, core.core):
            _refuse(core, f"sends to core {destination.core}, which comes earlier, and no loop leads back.")
        if switches.interleaving == "layers":
            raise EmulationError(
                f"layer {core.name!r} (core {core.core}) sends to core {destination.core}, which comes no later: a "
                "recurrent connection has no order core by core.",
                remedy='set the switch interleaving to "fifo", "depth_first" or "random", or leave it out.',
                code="recurrent",
            )
    leaky = [core.layer for core in program.cores if core.leak_enable]
    if slow_clock_hz is None and leaky:
        raise EmulationError(
            f"layers {', '.join(leaky)} have biases. A bias on this chip is a leak, added on each tick of "
            "the slow clock; no clock was given.",
            remedy="give slow_clock_hz=... (--slow-clock-hz); one tick per training time step, 1e6 / dt_us, reproduces "
            "the trained bias.",
            code="slow-clock",
        )
    if slow_clock_hz is not None and not (math.isfinite(slow_clock_hz) and 0 < slow_clock_hz <= 1e6):
        raise EmulationError(
            f"slow_clock_hz = {slow_clock_hz}; ticks are counted in microseconds: more than 0, at most 1e6.",
            remedy="give the clock's rate in hertz, e.g. 1000.",
            code="slow-clock",
        )


def check_input(
    program: DynapcnnProgram, events: EventArray, now_us: int, until_us: int | None
) -> tuple[EventArray, int]:
    """Check one piece of a stream; return it as ``EVENT_DTYPE`` and the time at which the piece ends.

    Args:
        program: the configuration that takes the events.
        events: structured array with ``t, x, y, p``, sorted.
        now_us: time reached so far.
        until_us: end of the piece, or None for its last event.

    Raises:
        EventError: malformed events, or events outside the entry core's input map.
        EmulationError: time runs backwards.
    """
    events = as_events(events, sensor_size=program.input_shape)
    first = 0
    for port in program.inputs if len(program.inputs) > 1 else ():
        own = events[(events["p"] >= first) & (events["p"] < first + port.shape[0])]
        as_events(own, sensor_size=(256, *port.shape[1:]), source=f"events of input {port.name!r}")
        first += port.shape[0]
    start_us = int(events["t"][0]) if events.size else now_us
    last_us = int(events["t"][-1]) if events.size else now_us
    end_us = last_us if until_us is None else until_us
    if start_us < now_us or end_us < last_us:
        raise EmulationError(
            f"time runs backwards: the stream has reached {now_us} us, this piece spans {start_us}..{last_us} us "
            f"and ends at {end_us} us.",
            remedy="call reset() before a new recording; pieces of one recording follow each other in time.",
            code="time-backwards",
        )
    return events, end_us


def recorded_layers(program: DynapcnnProgram, record: Sequence[str] | None) -> frozenset[str]:
    """The layers whose spikes are kept: those named, or all for None.

    Raises:
        EmulationError: a name the program does not have.
    """
    unknown = [name for name in record or () if name not in program.layers]
    if unknown or isinstance(record, str):
        raise EmulationError(
            f"there is no layer {unknown or record!r} to record or probe; the layers are {', '.join(program.layers)}.",
            remedy="name layers of the program, in a list.",
            code="unknown-layer",
        )
    return frozenset(program.layers if record is None else record)


def probed_neurons(
    program: DynapcnnProgram, probe: Mapping[str, Sequence[tuple[int, int, int]]] | None
) -> dict[str, list[tuple[int, tuple[int, int, int]]]]:
    """Where the named neurons are: layer -> (index of the core in the program, ``(f, y, x)`` in that core) of each.

    Raises:
        EmulationError: a layer or neuron the program does not have.
    """
    places: dict[str, list[tuple[int, tuple[int, int, int]]]] = {}
    recorded_layers(program, list(probe or ()))
    for layer, neurons in (probe or {}).items():
        places[layer] = []
        shape = program.layer_shape(layer)
        for neuron in neurons:
            if len(neuron) != 3 or not all(0 <= value < size for value, size in zip(neuron, shape, strict=True)):
                raise EmulationError(
                    f"cannot probe neuron {tuple(neuron)} of layer {layer!r}, whose (C, H, W) is {shape}.",
                    remedy="name neurons as (c, y, x), counted from 0.",
                    code="unknown-neuron",
                )
            c, y, x = neuron
            for rank, core in enumerate(program.cores):
                first = core.first_feature or 0
                if core.layer == layer and first <= c < first + core.features:
                    places[layer].append((rank, ((c - first) * core.feature_step, y, x)))
    return places


def initial_states(program: DynapcnnProgram, switches: Switches) -> list[NDArray[np.int16]]:
    """The potentials ``[F, H, W]`` at which the neurons of each core start."""
    states = []
    for rank, core in enumerate(program.cores):
        if switches.initial_state == "random":
            low, high = max(core.threshold_low, -core.threshold_high), core.threshold_high - 1
            count = math.prod(core.output_shape)
            numbers = uniform_integers(switches.seed, INITIAL, rank, low, high, count)
            states.append(numbers.astype(np.int16).reshape(core.output_shape))
        elif core.neurons_initial_value is None:
            states.append(np.zeros(core.output_shape, np.int16))
        else:
            states.append(core.neurons_initial_value)
    return states
