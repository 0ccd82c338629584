"""The one place that imports samna: kits of the family, opened, configured and streamed to.

Written from samna's public reference, sinabs 3.1.3 (``backend/dynapcnn``) and public programs. Not loaded by the vendor
tool yet: tested against a substitute with the same attributes.
"""

import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from neurodeploy.device import POWER_DTYPE, ChipRun, DeviceName, VendorFiles
from neurodeploy.errors import ConfigError, DeviceError, EventError, NeurodeployError, ProgramError
from neurodeploy.events.array import EventArray
from neurodeploy.target import SPIKE_DTYPE
from neurodeploy.targets.dynapcnn.by_layer import spikes_by_layer
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.program import DynapcnnProgram
from neurodeploy.targets.dynapcnn.samna_configuration import differences, write_configuration
from neurodeploy.targets.dynapcnn.samna_package import REMEDY, require_samna

#: The power monitor's rails, in the order of its channels (sinabs' power notebook).
RAILS = ("io", "ram", "logic", "vddd", "vdda")
#: After a configuration is applied, before anything is sent (sinabs).
SETTLE_S = 1.0
#: No spike for this long after the recording's end: the chip is done (sinabs).
QUIET_S = 0.1
#: A chip that still sends this long after the recording's end never stops.
MAX_TAIL_S = 10.0
#: Spike and kit times are 32 bits of microseconds.
MAX_TIME_US = 2**32 - 1


def load_samna() -> Any:
    """The vendor's library.

    Raises:
        DeviceError: it is missing, only its stub is there, or it does not load.
    """
    require_samna()
    try:
        return importlib.import_module("samna")
    except Exception as error:  # a foreign binary package: whatever it raises, the user gets one message
        raise DeviceError(
            f"samna is installed, but does not load: {error}.", remedy=REMEDY, code="samna-import"
        ) from error


class SamnaVendor:
    """A ``Vendor``: samna, for one chip. ``sleep`` waits a number of seconds."""

    def __init__(self, chip: Chip, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._samna = load_samna()
        self._chip = chip
        self._sleep = sleep

    @property
    def version(self) -> str:
        """Name and version."""
        return f"samna {getattr(self._samna, '__version__', 'of unknown version')}"

    @property
    def _module(self) -> Any:
        """``samna.speck2f`` and its like."""
        name = (self._chip.samna_module or "").rpartition(".")[2]
        if not name or not hasattr(self._samna, name):
            raise DeviceError(
                f"{self.version} has no module for the chip {self._chip.name}"
                + (f" ({self._chip.samna_module})." if name else "; it is not a chip of the vendor's."),
                remedy="use a release of samna that serves the chip, or compile for another chip.",
                code="samna-module",
            )
        return getattr(self._samna, name)

    def kits(self) -> list[DeviceName]:
        """The connected kits of this chip."""
        with self._vendor_errors("cannot list the kits"):
            return [name for name, _ in self._found()]

    def files(self, program: DynapcnnProgram) -> VendorFiles:
        """The vendor's JSON, and the image for booting from flash where the library makes one."""
        configuration = self.configuration(program)
        flash = getattr(self._module, "configuration_to_flash_binary", None)
        with self._vendor_errors("cannot write the configuration"):
            return VendorFiles(configuration.to_json(), None if flash is None else bytes(flash(configuration)))

    def configuration(self, program: DynapcnnProgram) -> Any:
        """The vendor's object, holding the program and accepted by the vendor's validation.

        Raises:
            ProgramError: a field is not taken, does not hold what was set, or the validation refuses the whole.
        """
        classes = self._module.configuration
        # Speck's name of the root class, and DYNAP-CNN's.
        kind = getattr(classes, "SpeckConfiguration", None) or classes.DynapcnnConfiguration
        configuration = kind()
        try:
            write_configuration(program, configuration)
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise ProgramError(
                f"{self.version} does not take the program: {error}.",
                remedy="use the release of samna that fits the chip; report this message if it does.",
                code="samna-field",
            ) from error
        _require_equal(program, configuration, f"{self.version} does not hold what was set")
        accepted, message = self._module.validate_configuration(configuration)
        if not accepted:
            raise ProgramError(
                f"{self.version} refuses the program: {message}.",
                remedy="compile the network again; report this message if it stays.",
                code="samna-refused",
            )
        return configuration

    @contextmanager
    def open(self, device: DeviceName) -> Iterator["SamnaKit"]:
        """Open a kit of this chip; it is closed with the context."""
        with self._vendor_errors("cannot list the kits"):
            found = dict(self._found())
        if device not in found:
            boards = ", ".join(f"{known.name} ({known.board})" for known in self._chip.devices)
            seen = ", ".join(map(str, found)) or "none"
            raise DeviceError(
                f"there is no kit {device} for {self._chip.name}. Looked for: {boards}; connected: {seen}.",
                remedy="connect and power the kit, allow access to its USB device (udev rule), and see: "
                "neurodeploy devices.",
                code="kit-missing",
            )
        with self._vendor_errors(f"cannot open {device}"):
            board = self._samna.device.open_device(found[device])
        try:
            with self._vendor_errors(f"failed while it used {device}"), ExitStack() as routes:
                yield SamnaKit(self, board, self._samna, self._module, routes, self._sleep)
        finally:
            self._samna.device.close_device(board)

    @contextmanager
    def _vendor_errors(self, what: str) -> Iterator[None]:
        """One message for whatever the library raises; its own errors are undocumented."""
        try:
            yield
        except NeurodeployError:
            raise
        except Exception as error:
            raise DeviceError(
                f"{self.version} {what}: {type(error).__name__}: {error}.",
                remedy="close what else uses the kit, check the permissions of its USB device, and try again; if it "
                "stays, this release of samna may differ from its documentation: report the message.",
                code="samna-failed",
            ) from error

    def _found(self) -> list[tuple[DeviceName, Any]]:
        """Kits and what samna opens them by. Boards in use by others count, so that an index always means one board."""
        boards = {known.board: known.name for known in self._chip.devices}
        infos = [info for info in self._samna.device.get_all_devices() if info.device_type_name in boards]
        seen: Counter[str] = Counter()
        found = []
        for info in sorted(infos, key=lambda info: (info.device_type_name, info.usb_device_address)):
            kind = boards[info.device_type_name]
            found.append((DeviceName(kind, seen[kind]), info))
            seen[kind] += 1
        return found


class SamnaKit:
    """An open kit; its routes end with ``routes``."""

    def __init__(
        self,
        vendor: SamnaVendor,
        board: Any,
        samna: Any,
        module: Any,
        routes: ExitStack,
        sleep: Callable[[float], None],
    ) -> None:
        self._vendor, self._board, self._samna, self._module, self._sleep = vendor, board, samna, module, sleep
        self._stack = routes
        model = board.get_model()
        self._source = _source_node(samna, module)
        self._sink = getattr(samna, f"BasicSinkNode_{_short_name(module)}_event_output_event")()
        self._route([self._source, model.get_sink_node()])
        self._route([model.get_source_node(), self._sink])

    def run(
        self,
        program: DynapcnnProgram,
        events: EventArray,
        *,
        until_us: int | None = None,
        slow_clock_hz: float | None = None,
        power_hz: float | None = None,
    ) -> ChipRun:
        """Apply ``program`` (which resets the membranes) and stream ``events`` in real time; see ``Kit.run``."""
        end_us = _end(events, until_us)
        _check_rates(slow_clock_hz, power_hz)
        spikes_in = self._messages(events, program)  # made before the clock runs: this takes time
        self._apply(program)
        io = self._board.get_io_module() if slow_clock_hz is not None else None
        watch = self._board.get_stop_watch()
        self._sink.get_events()  # what is left of before
        power = self._start_power(power_hz)
        watch.set_enable_value(True)
        watch.reset()
        watch.start()
        if io is not None:
            io.set_slow_clk_rate(int(slow_clock_hz or 0))
            io.set_slow_clk(True)
        try:
            self._source.write(spikes_in)
            self._sleep(end_us / 1e6)
        finally:
            if io is not None:
                io.set_slow_clk(False)
        received = self._drain()
        readings = self._stop_power(power, power_hz)
        spikes, others = self._received(received, program)
        return ChipRun(spikes, others, readings, RAILS if readings.size else ())

    def _apply(self, program: DynapcnnProgram) -> None:
        model = self._board.get_model()
        model.apply_configuration(self._vendor.configuration(program))
        self._sleep(SETTLE_S)
        _require_equal(program, model.get_configuration(), "the kit does not hold the program that was applied")

    def _messages(self, events: EventArray, program: DynapcnnProgram) -> list[Any]:
        """One event for the pre-processing, or one spike for every core that takes an event of the host."""
        ports = [(port, p) for port in program.inputs for p in range(port.shape[0])]
        messages = []
        for t, x, y, p in events.tolist():
            port, feature = ports[p]
            if port.dvs is not None:
                event = self._module.event.DvsEvent()
                event.p, event.y, event.x, event.timestamp = bool(feature), y, x, t
                messages.append(event)
                continue
            for entry in port.entries:
                spike = self._module.event.Spike()
                spike.layer, spike.feature = entry.core, feature + entry.feature_shift
                spike.y, spike.x, spike.timestamp = y, x, t
                messages.append(spike)
        return messages

    def _drain(self) -> list[Any]:
        """Everything that arrives until nothing new does for ``QUIET_S``."""
        received = list(self._sink.get_events())
        for _ in range(round(MAX_TAIL_S / QUIET_S)):
            self._sleep(QUIET_S)
            new = self._sink.get_events()
            if not new:
                return received
            received += new
        raise DeviceError(
            f"the chip still sends events {MAX_TAIL_S:g} s after the recording's end.",
            remedy="look for layers that fire without input (neurodeploy emulate shows the counts).",
            code="kit-busy-tail",
        )

    def _received(
        self, received: Sequence[Any], program: DynapcnnProgram
    ) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
        index = {core.core: place for place, core in enumerate(program.cores)}
        rows, others = [], Counter[str]()
        for event in received:
            kind = type(event).__name__
            if not isinstance(event, self._module.event.Spike):
                others[kind] += 1
            elif event.layer not in index:
                others[f"{kind} of layer {event.layer}"] += 1
            else:
                rows.append((index[event.layer], event.timestamp, event.feature, event.y, event.x))
        spikes = np.array(rows, SPIKE_DTYPE)
        return spikes_by_layer(program, spikes[np.argsort(spikes["t"], kind="stable")]), dict(others)

    def _start_power(self, rate_hz: float | None) -> tuple[Any, Any] | None:
        if rate_hz is None or not hasattr(self._board, "get_power_monitor"):
            return None
        monitor = self._board.get_power_monitor()
        sink = self._samna.BasicSinkNode_unifirm_modules_events_measurement()
        self._route([monitor.get_source_node(), sink])
        monitor.start_auto_power_measurement(rate_hz)
        return monitor, sink

    def _stop_power(self, power: tuple[Any, Any] | None, rate_hz: float | None) -> np.ndarray[Any, Any]:
        if power is None or rate_hz is None:
            return np.empty(0, POWER_DTYPE)
        monitor, sink = power
        monitor.stop_auto_power_measurement()
        count: Counter[int] = Counter()
        rows = []
        for reading in sink.get_events():
            # Whether readings carry a time of their own is not documented: their number and the rate give it.
            rows.append((round(count[reading.channel] * 1e6 / rate_hz), reading.channel, 1e3 * reading.value))
            count[reading.channel] += 1
        return np.array([row for row in rows if row[1] < len(RAILS)], POWER_DTYPE)

    def _route(self, nodes: list[Any]) -> None:
        graph = self._samna.graph.EventFilterGraph()
        graph.sequential(nodes)
        graph.start()
        # A route that nobody refers to is dropped by samna; the stack holds it until the kit is closed.
        self._stack.callback(graph.stop)


def _short_name(module: Any) -> str:
    return str(module.__name__).rpartition(".")[2]


def _source_node(samna: Any, module: Any) -> Any:
    """The node that takes input events; speck2e repeats its name in the class's."""
    name = _short_name(module)
    for candidate in (f"BasicSourceNode_{name}_event_input_event", f"BasicSourceNode_{name}_event_{name}_input_event"):
        if hasattr(samna, candidate):
            return getattr(samna, candidate)()
    raise DeviceError(f"samna has no source node for {name}.", remedy=REMEDY, code="samna-module")


def _require_equal(program: DynapcnnProgram, configuration: Any, problem: str) -> None:
    lines = differences(program, configuration)
    if lines:
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise ProgramError(
            f"{problem}: {'; '.join(lines[:5])}{more}.",
            remedy="apply it again; if the difference stays, do not trust what the chip answers, and report it.",
            code="read-back",
        )


def _end(events: EventArray, until_us: int | None) -> int:
    last = int(events["t"][-1]) if events.size else 0
    end = last if until_us is None else until_us
    if end < last:
        raise EventError(
            f"the recording goes on to {last} us, beyond its length of {end} us.",
            remedy="give a length that covers it.",
            code="time-range",
        )
    if end > MAX_TIME_US:
        raise EventError(
            f"the recording ends at {end} us; the kit's times are 32 bits of microseconds, {MAX_TIME_US} at most.",
            remedy="subtract the recording's start time, or cut it into pieces.",
            code="time-range",
        )
    return end


def _check_rates(slow_clock_hz: float | None, power_hz: float | None) -> None:
    if slow_clock_hz is not None and (slow_clock_hz != int(slow_clock_hz) or slow_clock_hz < 1):
        raise ConfigError(
            f"slow_clock_hz = {slow_clock_hz}; the kit's slow clock takes whole hertz.",
            remedy="give a whole number; 10 to 10000 is typical (Speck Dev Kit Datasheet V1.0).",
            code="slow-clock",
        )
    if power_hz is not None and not 0 < power_hz <= 100:
        raise ConfigError(
            f"power_hz = {power_hz}; the kit measures at most 100 times a second.",
            remedy="give more than 0 and at most 100.",
            code="power-rate",
        )
