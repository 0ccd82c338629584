"""A program from its data: every field's presence, type, range and shape, then the rules of the chip."""

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ProgramError
from neurodeploy.graph.nodes import Conv2d, Neuron, SumPool2d
from neurodeploy.mapping.placement import Item, shortfalls
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.constraints import broken
from neurodeploy.targets.dynapcnn.dvs import DvsLayer, EventFilter
from neurodeploy.targets.dynapcnn.executable import check_inputs, check_parts
from neurodeploy.targets.dynapcnn.layers import CoreLayer, LayerDestination
from neurodeploy.targets.dynapcnn.memory import needs
from neurodeploy.targets.dynapcnn.program import (
    DECIMATION,
    CoreProgram,
    Destination,
    DynapcnnProgram,
    Entry,
    InputPort,
    MapShape,
    Pair,
    ReadoutProgram,
)

#: The layer that a core holds; the part's first feature, None for a whole layer; and the step of its features.
Place = tuple[str, int | None, int]

CNN_LAYER_FIELDS = (
    "dimensions",
    "weights",
    "biases",
    "neurons_initial_value",
    "threshold_high",
    "threshold_low",
    "return_to_zero",
    "leak_enable",
    "monitor_enable",
    "destinations",
)
DVS_FLAGS = (
    "on_channel",
    "off_channel",
    "merge",
    "mirror_diagonal",
    "pass_sensor_events",
    "monitor_enable",
    "raw_monitor_enable",
)
DVS_FIELDS = ("pooling", "origin", "cut", "mirror", "dvs_filter", *DVS_FLAGS)


def read_program(data: Mapping[str, Any], chip: Chip) -> DynapcnnProgram:
    """The program that ``DynapcnnProgram.to_dict`` described.

    Raises:
        ProgramError: a field is missing, unknown, of the wrong type or shape, out of range, or two fields contradict
            each other; the message names the field.
    """
    fields = _fields(data, "program", ("target", "entry_core", "layers", "cnn_layers"), ("inputs", "readout"))
    if fields["target"] != chip.name:
        _refuse("program.target", f"is {_short(fields['target'])}, not {chip.name!r}")
    count = len(chip.cores.memories)
    names: dict[int, Place] = {}
    for index, entry in enumerate(_list(fields["layers"], "program.layers", range(1, count + 1))):
        path = f"program.layers[{index}]"
        entry = _fields(entry, path, ("name", "core"), ("first_feature", "feature_step"))
        name, first, step = entry["name"], None, 1
        if "first_feature" in entry:
            first = _integer(entry["first_feature"], f"{path}.first_feature", 0, 1023)
        if "feature_step" in entry:
            step = _integer(entry["feature_step"], f"{path}.feature_step", 2, 1023)
        others = [other for other, begin, _ in names.values() if begin is None or first is None]
        if not isinstance(name, str) or not name or name in others:
            _refuse(f"{path}.name", f"is {_short(name)}; it must be a text that no other layer has")
        core = _integer(entry["core"], f"{path}.core", 0, count - 1)
        if core in names:
            _refuse(f"{path}.core", f"is {core}, which holds {names[core][0]!r} already")
        names[core] = name, first, step
    configured = _fields(fields["cnn_layers"], "program.cnn_layers", tuple(map(str, names)))
    cores = tuple(_core(configured[str(core)], f"program.cnn_layers.{core}", core, names) for core in names)
    entry_core = _integer(fields["entry_core"], "program.entry_core", 0, count - 1)
    if entry_core not in names:
        _refuse("program.entry_core", f"is {entry_core}, which holds no layer")
    ports: tuple[InputPort, ...] = ()
    if "inputs" in fields:
        listed = _list(fields["inputs"], "program.inputs", range(1, 257))
        ports = tuple(_port(port, f"program.inputs[{index}]", names) for index, port in enumerate(listed))
    readout = _readout(fields["readout"], "program.readout", names) if "readout" in fields else None
    program = DynapcnnProgram(chip.name, cores, entry_core, ports, readout)
    _check(program, chip)
    return program


def _port(data: Any, path: str, names: Mapping[int, Place]) -> InputPort:
    fields = _fields(data, path, ("name", "shape", "entries"), ("dvs_layer",))
    if not isinstance(fields["name"], str):
        _refuse(f"{path}.name", f"is {_short(fields['name'])}; it must be a text")
    entries = []
    for index, entry in enumerate(_list(fields["entries"], f"{path}.entries", range(1, 257))):
        here = f"{path}.entries[{index}]"
        entry = _fields(entry, here, ("layer", "feature_shift"))
        core = _integer(entry["layer"], f"{here}.layer", 0, 255)
        if core not in names:
            _refuse(f"{here}.layer", f"is {core}, which holds no layer")
        entries.append(Entry(core, _integer(entry["feature_shift"], f"{here}.feature_shift", 0, 1023)))
    dvs = _dvs(fields["dvs_layer"], f"{path}.dvs_layer") if "dvs_layer" in fields else None
    return InputPort(fields["name"], _shape(fields["shape"], f"{path}.shape"), tuple(entries), dvs)


def _dvs(data: Any, path: str) -> DvsLayer:
    fields = _fields(data, path, DVS_FIELDS)
    flags = {name: _boolean(fields[name], f"{path}.{name}") for name in DVS_FLAGS}
    mirror = _fields(fields["mirror"], f"{path}.mirror", ("x", "y"))
    pooling = _pair(fields["pooling"], f"{path}.pooling", 1)
    if not set(pooling) <= {1, 2, 4}:
        _refuse(f"{path}.pooling", f"is {pooling}; it is 1, 2 or 4 in each direction")
    found = fields["dvs_filter"]
    return DvsLayer(
        pooling=pooling,
        origin=_pair(fields["origin"], f"{path}.origin", 0),
        cut=_pair(fields["cut"], f"{path}.cut", 0),
        mirror=(_boolean(mirror["y"], f"{path}.mirror.y"), _boolean(mirror["x"], f"{path}.mirror.x")),
        event_filter=None if found is None else _filter(found, f"{path}.dvs_filter"),
        **flags,
    )


def _filter(data: Any, path: str) -> EventFilter:
    fields = _fields(data, path, ("mode", "filter_size", "threshold"))
    size = _pair(fields["filter_size"], f"{path}.filter_size", 0)
    mode = fields["mode"]
    if mode not in ("noise", "low_pass", "noise_and_hot_pixel"):
        _refuse(f"{path}.mode", f"is {_short(mode)}; it must be noise, low_pass or noise_and_hot_pixel")
    if not (size == (0, 0) if mode == "low_pass" else 1 <= min(size) <= max(size) <= 15):
        _refuse(f"{path}.filter_size", f"is {size}; it must be 1 to 15, and 0 for low_pass")
    return EventFilter(mode, size, _integer(fields["threshold"], f"{path}.threshold", 0, 65535))


def _readout(data: Any, path: str, names: Mapping[int, Place]) -> ReadoutProgram:
    fields = _fields(data, path, tuple(field.name for field in dataclass_fields(ReadoutProgram)))
    core = _integer(fields["core"], f"{path}.core", 0, 255)
    if core not in names:
        _refuse(f"{path}.core", f"is {core}, which holds no layer")
    if fields["average_ticks"] not in (1, 16, 32):
        _refuse(f"{path}.average_ticks", f"is {_short(fields['average_ticks'])}; it must be 1, 16 or 32")
    if fields["output"] not in ("nothing", "threshold", "selected", "maximum"):
        _refuse(f"{path}.output", f"is {_short(fields['output'])}; it must be nothing, threshold, selected or maximum")
    return ReadoutProgram(
        core=core,
        threshold=_integer(fields["threshold"], f"{path}.threshold", 0, 65535),
        average_ticks=_integer(fields["average_ticks"], f"{path}.average_ticks", 1, 32),
        output=fields["output"],
        output_class=_integer(fields["output_class"], f"{path}.output_class", 0, 14),
        monitor_enable=_boolean(fields["monitor_enable"], f"{path}.monitor_enable"),
    )


def _core(data: Any, path: str, number: int, names: Mapping[int, Place]) -> CoreProgram:
    fields = _fields(data, path, CNN_LAYER_FIELDS, ("output_decimator_enable", "output_decimator_interval"))
    interval = None
    if "output_decimator_enable" in fields or "output_decimator_interval" in fields:
        if fields.get("output_decimator_enable") is not True:
            _refuse(f"{path}.output_decimator_enable", "is not true; a decimator that is off is left out")
        interval = _integer(
            fields.get("output_decimator_interval"), f"{path}.output_decimator_interval", 0, len(DECIMATION) - 1
        )
    dimensions = _fields(
        fields["dimensions"],
        f"{path}.dimensions",
        ("input_shape", "output_shape", "padding", "stride", "kernel_size"),
    )
    # Generous bounds keep a damaged file from asking for huge arrays; the chip's own limits are checked afterwards.
    input_shape = _shape(dimensions["input_shape"], f"{path}.dimensions.input_shape")
    output_shape = _shape(dimensions["output_shape"], f"{path}.dimensions.output_shape")
    kernel = _integer(dimensions["kernel_size"], f"{path}.dimensions.kernel_size", 1, 255)
    f, h, w = output_shape
    weights = _tensor(fields["weights"], f"{path}.weights", (f, input_shape[0], kernel, kernel), 8)
    initial = fields["neurons_initial_value"]
    if initial is not None:
        initial = _tensor(initial, f"{path}.neurons_initial_value", (f, w, h), 16).astype(np.int16).transpose(0, 2, 1)
        initial = np.ascontiguousarray(initial)
    return CoreProgram(
        layer=names[number][0],
        core=number,
        input_shape=input_shape,
        output_shape=output_shape,
        kernel_size=kernel,
        stride=_pair(dimensions["stride"], f"{path}.dimensions.stride", 1),
        padding=_pair(dimensions["padding"], f"{path}.dimensions.padding", 0),
        weights=np.ascontiguousarray(weights.astype(np.int8).transpose(0, 1, 3, 2)),
        biases=_tensor(fields["biases"], f"{path}.biases", (f,), 16).astype(np.int16),
        threshold_high=_integer(fields["threshold_high"], f"{path}.threshold_high", -(2**15), 2**15 - 1),
        threshold_low=_integer(fields["threshold_low"], f"{path}.threshold_low", -(2**15), 2**15 - 1),
        return_to_zero=_boolean(fields["return_to_zero"], f"{path}.return_to_zero"),
        leak_enable=_boolean(fields["leak_enable"], f"{path}.leak_enable"),
        monitor_enable=_boolean(fields["monitor_enable"], f"{path}.monitor_enable"),
        destinations=_destinations(fields["destinations"], f"{path}.destinations", names),
        neurons_initial_value=initial,
        first_feature=names[number][1],
        feature_step=names[number][2],
        output_decimator_interval=interval,
    )


def _destinations(data: Any, path: str, names: Mapping[int, Place]) -> tuple[Destination, ...]:
    found: list[Destination] = []
    for index, entry in enumerate(_list(data, path, range(2, 3))):
        here = f"{path}[{index}]"
        entry = _fields(entry, here, ("enable", "layer", "pooling", "feature_shift"))
        core = _integer(entry["layer"], f"{here}.layer", 0, 255)
        pooling = _integer(entry["pooling"], f"{here}.pooling", 1, 255)
        shift = _integer(entry["feature_shift"], f"{here}.feature_shift", 0, 1023)
        if not _boolean(entry["enable"], f"{here}.enable"):
            if (core, pooling, shift) != (0, 1, 0):
                _refuse(here, "is not enabled, but not empty")
        elif len(found) < index:
            _refuse(here, "is enabled, but the one before it is not")
        elif core not in names:
            _refuse(f"{here}.layer", f"is {core}, which holds no layer")
        else:
            found.append(Destination(core, pooling, shift))
    return tuple(found)


def _check(program: DynapcnnProgram, chip: Chip) -> None:
    """What no single field can be wrong about: the order, the shapes between fields, the rules, the memories."""
    if len(set(program.parts)) != len(program.cores):
        _refuse("program.layers", "name one part of a layer twice")
    try:
        check_parts(program)
    except ProgramError as error:
        _refuse("program.layers", f"contradict each other: {error.message.rstrip('.')}")
    try:
        check_inputs(program)
    except ProgramError as error:
        _refuse("program.inputs", f"contradict the cores: {error.message.rstrip('.')}")
    by_core = {core.core: core.name for core in program.cores}
    entered = {entry.core for port in program.inputs for entry in port.entries}
    layers: dict[str, CoreLayer] = {}
    cores = chip.placement_cores()
    for core, end in program.loops:
        if not program.leads_to(end.core, core.core):
            path = f"program.cnn_layers.{core.core}.destinations"
            _refuse(path, "lead back to a layer that does not come later, without a loop; layers are in network order")
    for core in program.cores:
        path = f"program.cnn_layers.{core.core}"
        if core.leak_enable != bool(core.biases.any()):
            _refuse(f"{path}.leak_enable", f"is {core.leak_enable}, and the biases say the opposite")
        layer = _layer(core, by_core, core.core in entered)
        _, h, w = core.input_shape
        for axis, side in ((0, h), (1, w)):
            expected = (side + 2 * core.padding[axis] - core.kernel_size) // core.stride[axis] + 1
            if core.output_shape[1 + axis] != expected:
                name = f"{path}.dimensions.output_shape.size.{'yx'[axis]}"
                _refuse(name, f"is {core.output_shape[1 + axis]}; kernel, stride and padding give {expected}")
        lacking = shortfalls(Item(layer.name, needs(layer)), cores[core.core])
        if lacking:
            _refuse(path, f"does not hold {layer.name!r}: {', '.join(map(str, lacking))}")
        layers[layer.name] = layer
    findings = [finding for layer in layers.values() for finding in broken("layer", layer, chip)]
    for finding in [*findings, *broken("network", layers, chip)]:
        if finding.rule.severity == "error":
            _refuse("program", f"breaks a rule of {chip.name}: {finding.message.rstrip('.')}")


def _layer(core: CoreProgram, by_core: Mapping[int, str], takes_input: bool) -> CoreLayer:
    conv = Conv2d(core.weights, core.biases if core.leak_enable else None, core.stride, core.padding)
    neuron = Neuron(
        np.array(core.threshold_high, np.int16),
        np.array(core.threshold_low, np.int16),
        reset="zero" if core.return_to_zero else "subtract",
        initial_v=core.neurons_initial_value,
    )
    destinations = tuple(
        LayerDestination(
            by_core[end.core], (SumPool2d((end.pooling, end.pooling), (end.pooling, end.pooling)),), end.feature_shift
        )
        for end in core.destinations
    )
    return CoreLayer(
        name=core.name,
        conv=conv,
        neuron=neuron,
        input_shape=core.input_shape,
        output_shape=core.output_shape,
        sources=(),
        takes_input=takes_input,
        destinations=destinations,
        is_output=core.monitor_enable,
    )


def _refuse(path: str, problem: str) -> NoReturn:
    raise ProgramError(
        f"{path} {problem}.", remedy="compile the network again; do not edit the program.", code="program-field"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _fields(data: Any, path: str, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        _refuse(path, f"is {_short(data)}; it must have the fields {', '.join(names)}")
    if missing := [name for name in names if name not in data]:
        _refuse(path, f"lacks {', '.join(missing)}")
    if unknown := [name for name in data if name not in (*names, *optional)]:
        _refuse(path, f"has unknown fields: {_short(', '.join(map(str, unknown)))}")
    return data


def _list(data: Any, path: str, lengths: range) -> list[Any]:
    if not isinstance(data, list) or len(data) not in lengths:
        _refuse(path, f"must be a list of {lengths.start} to {lengths.stop - 1} entries")
    return data


def _integer(value: Any, path: str, lowest: int, highest: int) -> int:
    # bool is an int to Python, not to the chip.
    if type(value) is not int or not lowest <= value <= highest:
        _refuse(path, f"is {_short(value)}; it must be an integer from {lowest} to {highest}")
    return value


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        _refuse(path, f"is {_short(value)}; it must be true or false")
    return value


def _pair(data: Any, path: str, lowest: int) -> Pair:
    fields = _fields(data, path, ("x", "y"))
    return _integer(fields["y"], f"{path}.y", lowest, 255), _integer(fields["x"], f"{path}.x", lowest, 255)


def _shape(data: Any, path: str) -> MapShape:
    fields = _fields(data, path, ("feature_count", "size"))
    return (
        _integer(fields["feature_count"], f"{path}.feature_count", 1, 65535),
        *_pair(fields["size"], f"{path}.size", 1),
    )


def _tensor(data: Any, path: str, shape: tuple[int, ...], bits: int) -> NDArray[np.int64]:
    """Nested lists of integers of exactly this shape and width."""
    flat = [data]
    for length in shape:
        if any(not isinstance(part, list) or len(part) != length for part in flat):
            _refuse(path, f"must have the shape {list(shape)}")
        flat = [value for part in flat for value in part]
    limit = 2 ** (bits - 1)
    for value in flat:
        if type(value) is not int or not -limit <= value < limit:
            _refuse(path, f"holds {_short(value)}; it must hold integers from {-limit} to {limit - 1}")
    return np.array(flat, np.int64).reshape(shape)
