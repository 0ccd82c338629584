"""A program as samna's configuration object, set attribute by attribute, and compared again with what it then holds.

Field names and order of writing: samna's public reference and sinabs 3.1.3 (``backend/dynapcnn/chips``). Nothing here
imports samna: the object comes from ``samna_adapter.py``. Not loaded by the vendor tool yet.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from neurodeploy.targets.dynapcnn.program import CoreProgram, DynapcnnProgram, cnn_layer

#: Set on every configured core that has them. Not every chip of the family does, and unknown names raise.
OPTIONAL_CORE_FIELDS: Mapping[str, bool] = {
    "input_congestion_balancer_enable": False,  # on, it would drop events
    "output_decimator_enable": False,
    "leak_internal_slow_clk_enable": False,  # the kit's clock ticks, not one derived from the sensor's events
}
TENSORS = ("weights", "biases", "neurons_initial_value")
SCALARS = ("threshold_high", "threshold_low", "return_to_zero", "leak_enable", "monitor_enable")


def write_configuration(program: DynapcnnProgram, configuration: Any) -> None:
    """Set the fields of a fresh vendor object.

    Unused cores keep their defaults, and so does ``factory_config`` (silicon tuning).

    Raises:
        AttributeError, TypeError: the vendor's object has other fields or types than documented.
    """
    configuration.dvs_layer.pass_sensor_events = False
    for core in program.cores:
        layer, fields = configuration.cnn_layers[core.core], _fields(core)
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


def differences(program: DynapcnnProgram, configuration: Any) -> list[str]:
    """Where a vendor object does not hold the program: one line per field, with both values; empty if it does."""
    return [
        f"{path}: {_short(found)} instead of {_short(wanted)}"
        for path, wanted, found in _pairs(program, configuration)
        if not _equal(wanted, found)
    ]


def _pairs(program: DynapcnnProgram, configuration: Any) -> Iterator[tuple[str, Any, Any]]:
    """``(path, wanted, found)`` of every field that the program decides."""
    yield "dvs_layer.pass_sensor_events", False, configuration.dvs_layer.pass_sensor_events
    for index, end in enumerate(configuration.dvs_layer.destinations):
        yield f"dvs_layer.destinations[{index}].enable", False, end.enable
    by_core = {core.core: core for core in program.cores}
    for number, layer in enumerate(configuration.cnn_layers):
        path = f"cnn_layers[{number}]"
        if number not in by_core:
            yield f"{path}.monitor_enable", False, layer.monitor_enable
            for index, end in enumerate(layer.destinations):
                yield f"{path}.destinations[{index}].enable", False, end.enable
            continue
        fields = _fields(by_core[number])
        yield from _nested(f"{path}.dimensions", fields["dimensions"], layer.dimensions)
        for name in TENSORS:
            yield f"{path}.{name}", fields[name], getattr(layer, name)
        for name in SCALARS:
            yield f"{path}.{name}", fields[name], getattr(layer, name)
        for index, (wanted, end) in enumerate(zip(fields["destinations"], layer.destinations, strict=True)):
            yield from _nested(f"{path}.destinations[{index}]", wanted, end)
        for name, value in OPTIONAL_CORE_FIELDS.items():
            if hasattr(layer, name):
                yield f"{path}.{name}", value, getattr(layer, name)


def _nested(path: str, wanted: Mapping[str, Any], found: Any) -> Iterator[tuple[str, Any, Any]]:
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            yield from _nested(f"{path}.{name}", value, getattr(found, name))
        else:
            yield f"{path}.{name}", value, getattr(found, name)


def _fields(core: CoreProgram) -> dict[str, Any]:
    fields = cnn_layer(core)
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
