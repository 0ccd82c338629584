"""One recording on one kit, and the files it leaves."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurodeploy.deploy.lock import locked
from neurodeploy.deploy.plan import Plan, make_plan, target_of
from neurodeploy.deployment import Deployment
from neurodeploy.device import ChipRun, DeviceName, Vendor
from neurodeploy.errors import DeviceError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.files import replacing, write_json, write_text
from neurodeploy.recorded_file import Recorded, events_hash, write_recorded
from neurodeploy.target import load_target

DEVICE_FILE = "device.json"
RECORDED_FILE = "events_hw.npz"
POWER_FILE = "power.csv"
VENDOR_FILE = "configuration.vendor.json"
FLASH_FILE = "flash.bin"
#: What is known of the way to the vendor's library; part of every ``device.json``.
STATUS = (
    "The adapter is written from the vendor's public documentation and tested against a substitute with the same "
    "attributes; this release's programs were not loaded by the vendor tool yet."
)


@dataclass(frozen=True, eq=False)
class Deployed:
    """A deployment that ran.

    Attributes:
        plan: what was to be done.
        run: what the kit sent.
        recorded: the spikes, as ``compare_with_chip`` takes them.
        vendor: name and version of the vendor's library.
    """

    plan: Plan
    run: ChipRun
    recorded: Recorded
    vendor: str

    def to_dict(self) -> dict[str, Any]:
        """The content of ``device.json``."""
        spikes = self.recorded.spikes["layer"]
        counts = {
            name: int((spikes == index).sum())
            for index, name in enumerate(self.recorded.layers)
            if name in self.recorded.monitored
        }
        return {
            "plan": self.plan.to_dict(),
            "vendor": self.vendor,
            "events_sha256": self.recorded.events_sha256,
            "validated_and_read_back": True,
            "spikes": counts,
            "other_events": self.run.other_events,
            "power_readings": len(self.run.power),
            "status": STATUS,
        }


def deploy(
    deployment: Deployment,
    device: str | DeviceName,
    events: EventArray | Any,
    folder: str | Path,
    *,
    until_us: int | None = None,
    slow_clock_hz: float | None = None,
    power_hz: float | None = 100.0,
    flash: bool = False,
) -> Deployed:
    """Apply a program to a kit, stream one recording in real time, and write what came back into ``folder``.

    The vendor's own configuration file is written before the kit is opened, so that it is there without a kit, too.

    Args:
        deployment: the compiled network.
        device: ``name:index``.
        events: the recording; times are from its start.
        folder: where ``device.json``, ``events_hw.npz``, ``power.csv`` and ``configuration.vendor.json`` go.
        until_us: its length; None ends it at the last event.
        slow_clock_hz: rate of the slow clock; needed when a layer has biases.
        power_hz: power readings per second and rail; None for none.
        flash: write ``flash.bin``, too.

    Raises:
        DeviceError: library or kit missing, or the kit in use by another process.
        ProgramError: the vendor's library refuses the program or does not hold it.
        ConfigError, EventError, EmulationError: see ``make_plan``.
    """
    plan = make_plan(deployment, device, events, until_us=until_us, slow_clock_hz=slow_clock_hz)
    events = as_events(events, sensor_size=deployment.program.input_shape)
    folder = Path(folder)
    target = target_of(plan.device, deployment.own_chip)
    vendor = target.family.vendor(target.chip)
    _write_vendor_files(vendor, deployment, folder, flash)
    with locked(plan.device), vendor.open(plan.device) as kit:
        run = kit.run(
            deployment.program, events, until_us=plan.duration_us, slow_clock_hz=slow_clock_hz, power_hz=power_hz
        )
    recorded = Recorded(run.spikes, deployment.program.layers, plan.monitored, plan.program_sha256, events_hash(events))
    deployed = Deployed(plan, run, recorded, vendor.version)
    write_recorded(folder / RECORDED_FILE, recorded)
    write_text(folder / POWER_FILE, power_text(run))
    write_json(folder / DEVICE_FILE, deployed.to_dict())
    return deployed


def connected(targets: Sequence[str]) -> list[tuple[DeviceName, str]]:
    """``(kit, chip)`` of every connected kit of the chips ``targets``.

    Raises:
        DeviceError: the vendor's library is missing.
    """
    found = []
    for name in targets:
        target = load_target(name)
        if target.devices:
            found += [(kit, name) for kit in target.family.vendor(target.chip).kits()]
    return found


def power_text(run: ChipRun) -> str:
    """``power.csv``: one line per reading, nominal time, rail and milliwatts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("t_us", "rail", "power_mw"))
    writer.writerows((t, run.rails[rail], f"{power:.6g}") for t, rail, power in run.power.tolist())
    return text.getvalue()


def _write_vendor_files(vendor: Vendor, deployment: Deployment, folder: Path, flash: bool) -> None:
    files = vendor.files(deployment.program)
    write_text(folder / VENDOR_FILE, files.configuration)
    if not flash:
        return
    if files.flash is None:
        raise DeviceError(
            f"{vendor.version} makes no flash image for this chip.",
            remedy="leave out --flash, or use another release.",
            code="no-flash",
        )
    with replacing(folder / FLASH_FILE) as temporary:
        temporary.write_bytes(files.flash)
