"""What a deployment will do, without anything of the vendor's."""

from dataclasses import asdict, dataclass
from typing import Any

from neurodeploy.deployment import Deployment
from neurodeploy.device import DeviceName, Route
from neurodeploy.errors import ConfigError, DeviceError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.program_file import program_hash
from neurodeploy.target import Target, load_target, target_names


@dataclass(frozen=True)
class Plan:
    """A checked deployment.

    Attributes:
        device: the kit it is for.
        target: name of the chip.
        program_sha256: hash of the program.
        routes: layer by layer, where it is and where its spikes go.
        events: number of input events.
        duration_us: length of the recording, which is streamed in real time.
        slow_clock_hz: rate of the slow clock, or None where the program needs none.
    """

    device: DeviceName
    target: str
    program_sha256: str
    routes: tuple[Route, ...]
    events: int
    duration_us: int
    slow_clock_hz: float | None

    @property
    def monitored(self) -> tuple[str, ...]:
        """The layers whose spikes the host will see."""
        return tuple(dict.fromkeys(route.layer for route in self.routes if route.monitored))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**asdict(self), "device": str(self.device), "routes": [asdict(route) for route in self.routes]}


def make_plan(
    deployment: Deployment,
    device: str | DeviceName,
    events: EventArray | Any,
    *,
    until_us: int | None = None,
    slow_clock_hz: float | None = None,
) -> Plan:
    """Check program, device name and recording against each other.

    Raises:
        ConfigError: the name is malformed, or the device has another chip than the program's.
        DeviceError: no chip has a kit of that name.
        EventError, EmulationError, ProgramError: the recording or the program could not run.
    """
    name = device if isinstance(device, DeviceName) else DeviceName.parse(device)
    target = target_of(name, deployment.own_chip)
    program = deployment.program
    if target.name != program.target:
        own = deployment.load_target()
        kinds = [known.name for known in own.devices]
        raise ConfigError(
            f"{name} has a {target.name}; the program is for {program.target}.",
            remedy=f"compile with --target {target.name}"
            + (f", or use one of: {', '.join(kinds)}." if kinds else f"; no kit has a {program.target}."),
            code="device-target",
        )
    events = as_events(events, sensor_size=program.input_shape)
    deployment.executor(slow_clock_hz=slow_clock_hz)  # refuses what cannot run, a missing slow clock above all
    last_us = int(events["t"][-1]) if events.size else 0
    return Plan(
        device=name,
        target=target.name,
        program_sha256=program_hash(program),
        routes=tuple(target.family.routes(program)),
        events=len(events),
        duration_us=last_us if until_us is None else until_us,
        slow_clock_hz=slow_clock_hz,
    )


def target_of(device: DeviceName, own_chip: Target | None = None) -> Target:
    """The chip on a kind of kit; ``own_chip`` is the user's own, whose kits come first.

    Raises:
        DeviceError: no chip has such a kit; the message names those that are known.
    """
    known = []
    targets = [load_target(name) for name in target_names()]
    for target in [own_chip, *targets] if own_chip else targets:
        kinds = [entry.name for entry in target.devices]
        if device.kind in kinds:
            return target
        known += kinds
    raise DeviceError(
        f"there is no kind of kit called {device.kind!r}.",
        remedy=f"the kinds are: {', '.join(known)}.",
        code="device-kind",
    )
