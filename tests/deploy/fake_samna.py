"""A substitute for the vendor's library, with the attributes its public documentation names and no others.

Stricter than Python: an unknown attribute cannot be set, a wrong type or shape is a TypeError, and the validation
refuses what the real one is known to refuse. Its kit runs the Python specification on what the object holds.
"""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from neurodeploy.events.array import make_events
from neurodeploy.targets.dynapcnn.dvs import DvsLayer
from neurodeploy.targets.dynapcnn.program import CoreProgram, Destination, DynapcnnProgram, Entry, InputPort
from neurodeploy.targets.dynapcnn.specification import Specification


class Int:
    """A field of ``bits`` bits."""

    def __init__(self, bits: int, default: int = 0, signed: bool = False) -> None:
        self.default = default
        self.low, self.high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def check(self, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise TypeError(f"{value!r} is not an integer from {self.low} to {self.high}")
        return value


class Bool:
    def __init__(self, default: bool = False) -> None:
        self.default = default

    def check(self, value: Any) -> bool:
        if type(value) is not bool:
            raise TypeError(f"{value!r} is not a bool")
        return value


class Tensor:
    def __init__(self, bits: int, axes: int) -> None:
        self.item, self.axes = Int(bits, signed=True), axes
        self.default = np.zeros((1,) * axes, int).tolist()

    def check(self, value: Any) -> Any:
        array = np.array(value, object)
        if array.ndim != self.axes:
            raise TypeError(f"a tensor has {self.axes} axes, this one {array.ndim}")
        for item in array.ravel():
            self.item.check(item)
        return array.tolist()  # a copy, as the real binding makes


class Many:
    """A fixed array of structures: it can be read and its elements changed, but not replaced."""

    def __init__(self, kind: type["Struct"], length: int) -> None:
        self.kind, self.length = kind, length


class Struct:
    FIELDS: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        for name, field in self.FIELDS.items():
            if isinstance(field, Many):
                value: Any = tuple(field.kind() for _ in range(field.length))
            else:
                value = field() if isinstance(field, type) else field.default
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.FIELDS:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        field = self.FIELDS[name]
        if isinstance(field, Many):
            raise TypeError(f"{name}: elements are changed in place")
        if isinstance(field, type):
            object.__setattr__(self, name, field.from_dict(value))
        else:
            object.__setattr__(self, name, field.check(value))

    @classmethod
    def from_dict(cls, data: Any) -> "Struct":
        if not isinstance(data, dict):
            raise TypeError(f"{cls.__name__} is not made of {type(data).__name__}")
        made = cls()
        for name, value in data.items():
            setattr(made, name, value)
        return made

    def plain(self) -> dict[str, Any]:
        def of(value: Any) -> Any:
            return value.plain() if isinstance(value, Struct) else value

        return {
            name: [of(v) for v in getattr(self, name)] if isinstance(field, Many) else of(getattr(self, name))
            for name, field in self.FIELDS.items()
        }


def struct(name: str, **fields: Any) -> type[Struct]:
    return type(name, (Struct,), {"FIELDS": fields})


Vec = struct("Vec2", x=Int(8), y=Int(8))
Ones = struct("Vec2", x=Int(8, 1), y=Int(8, 1))
Shape = struct("CnnLayerShape", feature_count=Int(16, 1), size=Ones)
Dimensions = struct(
    "CnnLayerDimensions",
    input_shape=Shape,
    output_shape=Shape,
    padding=Vec,
    stride=Ones,
    kernel_size=Int(8, 1),
)
End = struct("CnnLayerDestination", enable=Bool(), layer=Int(8), pooling=Int(8, 1), feature_shift=Int(16))
Layer = struct(
    "CnnLayerConfig",
    dimensions=Dimensions,
    weights=Tensor(8, 4),
    biases=Tensor(16, 1),
    neurons_initial_value=Tensor(16, 3),
    threshold_high=Int(16, signed=True),
    threshold_low=Int(16, signed=True),
    return_to_zero=Bool(),
    leak_enable=Bool(),
    leak_internal_slow_clk_enable=Bool(),
    destinations=Many(End, 2),
    monitor_enable=Bool(),
    input_congestion_balancer_enable=Bool(),
    output_decimator_enable=Bool(),
    output_decimator_interval=Int(8),
)
SensorEnd = struct("DvsLayerDestination", enable=Bool(), layer=Int(8))
Cut = struct("Vec2", x=Int(8, 127), y=Int(8, 127))
Axes = struct("Mirror", x=Bool(), y=Bool())
Sensor = struct(
    "DvsLayerConfig",
    origin=Vec,
    cut=Cut,
    pooling=Ones,
    on_channel=Bool(True),
    off_channel=Bool(True),
    merge=Bool(),
    mirror=Axes,
    mirror_diagonal=Bool(),
    pass_sensor_events=Bool(True),
    monitor_enable=Bool(),
    raw_monitor_enable=Bool(),
    destinations=Many(SensorEnd, 2),
)
Filter = struct(
    "DvsFilterConfig",
    enable=Bool(),
    filter_size=Vec,
    threshold=Int(16),
    hot_pixel_filter_enable=Bool(),
    low_pass_mode_enable=Bool(),
    internal_slow_clk=Bool(),
)
Readout = struct(
    "ReadoutConfig",
    enable=Bool(),
    threshold=Int(16),
    output_mode_sel=Int(8),
    output_neuron_num=Int(8),
    readout_configuration_sel=Int(8),
    low_pass_filter_disable=Bool(),
    low_pass_filter32_not16=Bool(),
    override_threshold_max=Bool(),
    internal_slow_clk=Bool(),
    monitor_enable=Bool(),
    readout_pin_monitor_enable=Bool(),
)


class SpeckConfiguration(
    struct("Base", cnn_layers=Many(Layer, 9), dvs_layer=Sensor, dvs_filter=Filter, readout=Readout)  # type: ignore[misc]
):
    def to_json(self) -> str:
        return json.dumps({"value0": self.plain()})


class Spike:
    __slots__ = ("feature", "layer", "timestamp", "x", "y")


class DvsEvent:
    __slots__ = ("p", "timestamp", "x", "y")


def validate_configuration(configuration: SpeckConfiguration) -> tuple[bool, str]:
    used = [layer for layer in configuration.cnn_layers if layer.threshold_high != 0]
    for index, layer in enumerate(configuration.cnn_layers):
        if layer not in used:
            if layer.monitor_enable or any(end.enable for end in layer.destinations):
                return False, f"layer {index}: threshold_high is 0"
            continue
        d = layer.dimensions
        fi, fo, k = d.input_shape.feature_count, d.output_shape.feature_count, d.kernel_size
        if np.shape(layer.weights) != (fo, fi, k, k) or np.shape(layer.biases) != (fo,):
            return False, f"layer {index}: weights or biases do not match the dimensions"
        if np.shape(layer.neurons_initial_value) != (fo, d.output_shape.size.x, d.output_shape.size.y):
            return False, f"layer {index}: neurons_initial_value does not match the dimensions"
        for end in layer.destinations:
            if not end.enable or end.layer == 12:
                continue
            into = configuration.cnn_layers[end.layer].dimensions.input_shape
            same = all(getattr(d.output_shape.size, a) // end.pooling == getattr(into.size, a) for a in "xy")
            if not same or fo + end.feature_shift > into.feature_count:
                return False, f"layer {index}: input and target shape do not match"
    sensor = configuration.dvs_layer
    for end in sensor.destinations:
        into = configuration.cnn_layers[end.layer].dimensions.input_shape
        sizes = [getattr(sensor.cut, a) - getattr(sensor.origin, a) + 1 for a in "xy"]
        if end.enable and sizes[:: -1 if sensor.mirror_diagonal else 1] != [into.size.x, into.size.y]:
            return False, "dvs_layer: input and target shape do not match"
    return True, ""


def sensor_of(configuration: SpeckConfiguration) -> DvsLayer:
    held = configuration.dvs_layer.plain()
    pairs = {name: (held[name]["y"], held[name]["x"]) for name in ("pooling", "origin", "cut", "mirror")}
    flags = {name: value for name, value in held.items() if name not in (*pairs, "destinations")}
    return DvsLayer(**pairs, **flags)


def program_of(configuration: SpeckConfiguration, entry: int) -> DynapcnnProgram:
    """What the chip would execute, read from the object alone."""
    cores = []
    for number, layer in enumerate(configuration.cnn_layers):
        if layer.threshold_high == 0:
            continue
        d = layer.dimensions
        sizes = [(s.feature_count, s.size.y, s.size.x) for s in (d.input_shape, d.output_shape)]
        cores.append(
            CoreProgram(
                layer=f"core{number}",
                core=number,
                input_shape=sizes[0],
                output_shape=sizes[1],
                kernel_size=d.kernel_size,
                stride=(d.stride.y, d.stride.x),
                padding=(d.padding.y, d.padding.x),
                weights=np.array(layer.weights, np.int8).swapaxes(2, 3),
                biases=np.array(layer.biases, np.int16),
                threshold_high=layer.threshold_high,
                threshold_low=layer.threshold_low,
                return_to_zero=layer.return_to_zero,
                leak_enable=layer.leak_enable,
                monitor_enable=layer.monitor_enable,
                destinations=tuple(
                    Destination(e.layer, e.pooling, e.feature_shift)
                    for e in layer.destinations
                    if e.enable and e.layer != 12
                ),
                output_decimator_interval=layer.output_decimator_interval if layer.output_decimator_enable else None,
                neurons_initial_value=np.array(layer.neurons_initial_value, np.int16).swapaxes(1, 2),
            )
        )
    after = {core.core: [end.core for end in core.destinations] for core in cores}
    order: list[int] = []
    while len(order) < len(cores):
        order += [n for n in after if n not in order and not any(n in after[m] for m in after if m not in order)][:1]
    return DynapcnnProgram("fake", tuple(sorted(cores, key=lambda core: order.index(core.core))), entry)


class Board:
    """A kit; it counts what is done to it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.configuration = SpeckConfiguration()
        self.out: list[Any] = []
        self.slow_clock_hz: int | None = None
        self.slow_clock_on = False
        self.watch_on = False
        self.damage: Any = lambda configuration: None
        self.foreign: list[Any] = []
        self.never_quiet = False
        self.executor: Specification | None = None
        self.measuring: float | None = None

    def get_model(self) -> Any:
        return SimpleNamespace(
            apply_configuration=self._apply,
            get_configuration=lambda: self.configuration,
            get_sink_node=lambda: ("chip in", self),
            get_source_node=lambda: ("chip out", self),
        )

    def _apply(self, configuration: SpeckConfiguration) -> None:
        ok, message = validate_configuration(configuration)
        if not ok:
            raise RuntimeError(message)
        self.log.append("apply")
        self.configuration = configuration
        self.executor = None
        self.damage(configuration)

    def get_stop_watch(self) -> Any:
        def start() -> None:
            self.watch_on = True

        return SimpleNamespace(set_enable_value=lambda on: None, reset=lambda: self.log.append("reset"), start=start)

    def get_io_module(self) -> Any:
        def rate(hz: int) -> None:
            self.slow_clock_hz = Int(32).check(hz)

        def switch(on: bool) -> None:
            self.slow_clock_on = on
            self.log.append(f"slow clock {'on' if on else 'off'}")

        return SimpleNamespace(set_slow_clk=switch, set_slow_clk_rate=rate)

    def get_power_monitor(self) -> Any:
        def start(hz: float) -> None:
            self.measuring = hz

        return SimpleNamespace(
            get_source_node=lambda: ("power", self),
            start_auto_power_measurement=start,
            stop_auto_power_measurement=lambda: self.log.append("power off"),
        )

    def take(self, messages: list[Any]) -> None:
        assert self.watch_on, "the stop watch does not run: nothing is released"
        sensor = self.configuration.dvs_layer
        entered = [end.layer for end in sensor.destinations if end.enable]
        cores = list(dict.fromkeys(message.layer for message in messages if isinstance(message, Spike)))
        program = program_of(self.configuration, (entered or cores)[0])
        shapes = {core.core: core.input_shape for core in program.cores}
        ports = [InputPort(f"core {core}", shapes[core], (Entry(core),)) for core in cores]
        if entered:
            ends = tuple(map(Entry, entered))
            ports.insert(0, InputPort("sensor", (2, 128, 128), ends, sensor_of(self.configuration)))
        program = replace(program, ports=tuple(ports))
        if self.executor is None:
            self.executor = Specification(program, slow_clock_hz=self.slow_clock_hz if self.slow_clock_on else None)
        first = {port.name: sum(p.shape[0] for p in ports[:place]) for place, port in enumerate(ports)}
        fields = [
            (m.timestamp, m.x, m.y, m.p if isinstance(m, DvsEvent) else m.feature + first[f"core {m.layer}"])
            for m in messages
        ]
        for index, t, c, y, x in self.executor.run(make_events(*zip(*fields, strict=True))).spikes.tolist():
            if program.cores[index].monitor_enable:
                spike = Spike()
                spike.layer, spike.feature, spike.y, spike.x = program.cores[index].core, c, y, x
                spike.timestamp = t + 7  # the transfer
                self.out.append(spike)
        self.out += self.foreign


class Source:
    def __init__(self) -> None:
        self.board: Board | None = None

    def write(self, messages: list[Any]) -> None:
        assert self.board is not None, "the source leads nowhere"
        if messages:
            self.board.take(messages)


class Sink:
    def __init__(self) -> None:
        self.from_node: Any = None

    def get_events(self) -> list[Any]:
        kind, board = self.from_node
        if kind == "power":
            hz, board.measuring = board.measuring, None
            return [SimpleNamespace(channel=c, value=1e-3 * (c + 1)) for _ in range(2) for c in range(5)] if hz else []
        if board.never_quiet and board.watch_on:
            return [DvsEvent()]
        # A few at a time, so that whoever stops at the first piece loses spikes.
        board.out, piece = board.out[50:], board.out[:50]
        return piece


class Graph:
    def __init__(self, running: list["Graph"]) -> None:
        self.running = running

    def sequential(self, nodes: list[Any]) -> None:
        first, last = nodes
        if isinstance(first, Source):
            first.board = last[1]
        else:
            last.from_node = first

    def start(self) -> None:
        self.running.append(self)

    def stop(self) -> None:
        self.running.remove(self)


def fake_samna(*boards: tuple[str, Board]) -> Any:
    """The module, with these kits connected."""
    infos = [
        SimpleNamespace(device_type_name=name, usb_device_address=100 - place, board=board)
        for place, (name, board) in enumerate(boards)
    ]
    open_boards: list[Board] = []
    running: list[Graph] = []

    def open_device(info: Any) -> Board:
        if info.board in open_boards:
            raise RuntimeError("device is already opened")
        open_boards.append(info.board)
        return info.board  # type: ignore[no-any-return]

    speck = SimpleNamespace(
        __name__="samna.speck2f",
        configuration=SimpleNamespace(SpeckConfiguration=SpeckConfiguration),
        event=SimpleNamespace(Spike=Spike, DvsEvent=DvsEvent),
        validate_configuration=validate_configuration,
        configuration_to_flash_binary=lambda configuration: [1, 2, 255],
    )
    return SimpleNamespace(
        __version__="0.0-fake",
        speck2f=speck,
        device=SimpleNamespace(
            get_all_devices=lambda: list(infos), open_device=open_device, close_device=open_boards.remove
        ),
        graph=SimpleNamespace(EventFilterGraph=lambda: Graph(running)),
        running=running,
        BasicSourceNode_speck2f_event_input_event=Source,
        BasicSinkNode_speck2f_event_output_event=Sink,
        BasicSinkNode_unifirm_modules_events_measurement=Sink,
        open_boards=open_boards,
    )
