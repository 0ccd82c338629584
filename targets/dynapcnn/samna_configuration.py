"""A program as samna's configuration object, set attribute by attribute, and compared again with what it then holds.

Field names and order of writing: samna's public reference and sinabs 3.1.3 (``backend/dynapcnn/chips``). Nothing here
imports samna: the object comes from ``samna_adapter.py``. Not loaded by the vendor tool yet.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from neurodeploy.targets.dynapcnn.program import CoreProgram, DynapcnnProgram, ReadoutProgram, cnn_layer, dvs_layer

#: Set on every configured core that has them. Not every chip of the family does, and unknown names raise.
OPTIONAL_CORE_FIELDS: Mapping[str, bool] = {
    "input_congestion_balancer_enable": False,  # on, it would drop events
    "output_decimator_enable": False,  # unless the core uses it
    "leak_internal_slow_clk_enable": False,  # the kit's clock ticks, not one derived from the sensor's events
}
TENSORS = ("weights", "biases", "neurons_initial_value")
#: The readout block's number as a destination.
READOUT_LAYER = 12
#: What a readout value holds, in the order of ``output_mode_sel``.
READOUT_OUTPUTS = ("nothing", "threshold", "selected", "maximum")
SCALARS = ("threshold_high", "threshold_low", "return_to_zero", "leak_enable", "monitor_enable")


def write_configuration(program: DynapcnnProgram, configuration: Any) -> None:
    """Set the fields of a fresh vendor object.

    Unused cores keep their defaults, and so does ``factory_config`` (silicon tuning).

    Raises:
        AttributeError, TypeError: the vendor's object has other fields or types than documented.
    """
    for path, value in _sensor(program):
        _set(configuration.dvs_layer, path, value)
    for path, value in _filter(program):
        _set(configuration.dvs_filter, path, value)
    for path, value in _readout(program.readout):
        _set(configuration.readout, path, value)
    for core in program.cores:
        layer, fields = configuration.cnn_layers[core.core], _fields(core, program)
        # The binding takes a dict for a nested structure (sinabs assigns it so).
        layer.dimensions = fields["dimensions"]
        for name in (*TENSORS, *SCALARS):
            setattr(layer, name, fields[name])
        # Elements of destinations are changed in place: an assigned list would not reach the object.
        for end, wanted in zip(layer.destinations, fields["destinations"], strict=True):
            for name, value in wanted.items():
                setattr(end, name, value)
        for name, value in OPTIONAL_CORE_FIELDS.items():
            if hasattr(layer, name):
                setattr(layer, name, value)
        for name, value in _decimator(core).items():
            setattr(layer, name, value)


def differences(program: DynapcnnProgram, configuration: Any) -> list[str]:
    """Where a vendor object does not hold the program: one line per field, with both values; empty if it does."""
    return [
        f"{path}: {_short(found)} instead of {_short(wanted)}"
        for path, wanted, found in _pairs(program, configuration)
        if not _equal(wanted, found)
    ]


def _pairs(program: DynapcnnProgram, configuration: Any) -> Iterator[tuple[str, Any, Any]]:
    """``(path, wanted, found)`` of every field that the program decides."""
    parts = (("dvs_layer", _sensor(program)), ("dvs_filter", _filter(program)), ("readout", _readout(program.readout)))
    for part, fields_of_part in parts:
        for path, value in fields_of_part:
            yield f"{part}.{path}", value, _get(getattr(configuration, part), path)
    by_core = {core.core: core for core in program.cores}
    for number, layer in enumerate(configuration.cnn_layers):
        path = f"cnn_layers[{number}]"
        if number not in by_core:
            yield f"{path}.monitor_enable", False, layer.monitor_enable
            for index, end in enumerate(layer.destinations):
                yield f"{path}.destinations[{index}].enable", False, end.enable
            continue
        fields = _fields(by_core[number], program)
        yield from _nested(f"{path}.dimensions", fields["dimensions"], layer.dimensions)
        for name in TENSORS:
            yield f"{path}.{name}", fields[name], getattr(layer, name)
        for name in SCALARS:
            yield f"{path}.{name}", fields[name], getattr(layer, name)
        for index, (wanted, end) in enumerate(zip(fields["destinations"], layer.destinations, strict=True)):
            yield from _nested(f"{path}.destinations[{index}]", wanted, end)
        wanted = {**OPTIONAL_CORE_FIELDS, **(decimator := _decimator(by_core[number]))}
        for name, value in wanted.items():
            if hasattr(layer, name) or name in decimator:
                yield f"{path}.{name}", value, getattr(layer, name)


def _nested(path: str, wanted: Mapping[str, Any], found: Any) -> Iterator[tuple[str, Any, Any]]:
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            yield from _nested(f"{path}.{name}", value, getattr(found, name))
        else:
            yield f"{path}.{name}", value, getattr(found, name)


def _sensor(program: DynapcnnProgram) -> list[tuple[str, Any]]:
    """``(path, value)`` of every field of ``dvs_layer`` that the program decides."""
    port = next((port for port in program.inputs if port.dvs is not None), None)
    if port is None or port.dvs is None:
        off = [("pass_sensor_events", False)]
        return off + [(f"destinations[{index}].enable", False) for index in range(2)]
    fields = dvs_layer(port.dvs)
    del fields["dvs_filter"]
    if not port.dvs.raw_monitor_enable:
        del fields["raw_monitor_enable"]  # not every chip of the family has it
    found: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            found += [(f"{name}.{axis}", side) for axis, side in value.items()]
        else:
            found.append((name, value))
    for index in range(2):
        used = index < len(port.entries)
        found.append((f"destinations[{index}].enable", used))
        if used:
            found.append((f"destinations[{index}].layer", port.entries[index].core))
    return found


def _filter(program: DynapcnnProgram) -> list[tuple[str, Any]]:
    found = next((port.dvs.event_filter for port in program.inputs if port.dvs is not None), None)
    if found is None:
        return []
    return [
        ("enable", True),
        ("filter_size.x", found.size[1]),
        ("filter_size.y", found.size[0]),
        ("threshold", found.threshold),
        ("hot_pixel_filter_enable", found.mode == "noise_and_hot_pixel"),
        ("low_pass_mode_enable", found.mode == "low_pass"),
    ]


def _readout(readout: ReadoutProgram | None) -> list[tuple[str, Any]]:
    if readout is None:
        return []
    return [
        ("enable", True),
        ("threshold", readout.threshold),
        ("output_mode_sel", READOUT_OUTPUTS.index(readout.output)),
        ("output_neuron_num", readout.output_class),
        ("low_pass_filter_disable", readout.average_ticks == 1),
        ("low_pass_filter32_not16", readout.average_ticks == 32),
        ("monitor_enable", readout.monitor_enable),
    ]


def _decimator(core: CoreProgram) -> dict[str, Any]:
    return {name: value for name, value in cnn_layer(core).items() if name.startswith("output_decimator")}


def _owner(structure: Any, path: str) -> tuple[Any, str]:
    """The structure that holds the last name of a path such as ``destinations[0].layer``."""
    *way, last = path.split(".")
    for step in way:
        name, _, index = step.rstrip("]").partition("[")
        structure = getattr(structure, name)
        structure = structure[int(index)] if index else structure
    return structure, last


def _get(structure: Any, path: str) -> Any:
    owner, name = _owner(structure, path)
    return getattr(owner, name)


def _set(structure: Any, path: str, value: Any) -> None:
    owner, name = _owner(structure, path)
    setattr(owner, name, value)


def _fields(core: CoreProgram, program: DynapcnnProgram) -> dict[str, Any]:
    fields = cnn_layer(core)
    if program.readout is not None and program.readout.core == core.core:
        end = {"enable": True, "layer": READOUT_LAYER, "pooling": 1, "feature_shift": 0}
        fields["destinations"] = [end, fields["destinations"][1]]
    if fields["neurons_initial_value"] is None:
        # The vendor's default has the default's shape, so the zeros are written out.
        F, H, W = core.output_shape
        fields["neurons_initial_value"] = np.zeros((F, W, H), np.int16).tolist()
    return fields


def _equal(wanted: Any, found: Any) -> bool:
    if not isinstance(wanted, list):
        return bool(wanted == found)
    expected, held = np.asarray(wanted), np.asarray(found)
    return expected.shape == held.shape and bool((expected == held).all())


def _short(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    array = np.asarray(value)
    text = np.array2string(array.ravel()[:4], separator=", ")
    return f"{text} ... {list(array.shape)}" if array.size > 4 else f"{text} {list(array.shape)}"
