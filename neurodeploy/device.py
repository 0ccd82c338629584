"""The contract of dev kits: what a chip family's adapter to its vendor's library provides."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError
from neurodeploy.events.array import EventArray
from neurodeploy.target import SpikeArray

#: One power reading: microseconds after the start of the monitor, index into ``ChipRun.rails``, milliwatts.
POWER_DTYPE = np.dtype([("t_us", "<i8"), ("rail", "u1"), ("power_mw", "<f8")])


@dataclass(frozen=True)
class DeviceName:
    """A kit as users name it: ``speck2fdevkit:0`` is the first board of its kind."""

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> "DeviceName":
        """Read ``name:index``; without an index it is 0.

        Raises:
            ConfigError: it is not of that form.
        """
        kind, separator, index = text.partition(":")
        if not kind or (separator and not (index.isascii() and index.isdigit())):
            raise ConfigError(
                f"{text!r} names no device; a device is name:index.",
                remedy="write e.g. speck2fdevkit:0; neurodeploy devices lists the kits.",
                code="device-name",
            )
        return cls(kind.lower(), int(index or 0))

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class Route:
    """What is configured for one layer, in words, for the plan of a deployment.

    Attributes:
        layer, core: the layer and the core that holds it.
        destinations: where its spikes go.
        monitored: whether the host sees its spikes.
        takes_input: whether it takes the host's events.
    """

    layer: str
    core: int
    destinations: tuple[str, ...]
    monitored: bool
    takes_input: bool


@dataclass(frozen=True, eq=False)
class VendorFiles:
    """A program in the vendor's own formats, written and accepted by the vendor's library.

    Attributes:
        configuration: the vendor's JSON text.
        flash: the image for booting without a host, or None where the library cannot make one.
    """

    configuration: str
    flash: bytes | None


@dataclass(frozen=True, eq=False)
class ChipRun:
    """What a kit sent back for one recording.

    Attributes:
        spikes: ``SPIKE_DTYPE``, in order of time; ``layer`` indexes ``Program.layers``; times as the kit stamps them,
            the transfer included.
        other_events: events that are no spike of a layer, by kind.
        power: ``POWER_DTYPE``; empty where the kit measures none.
        rails: names of the power rails.
    """

    spikes: SpikeArray
    other_events: dict[str, int] = field(default_factory=dict)
    power: NDArray[np.void] = field(default_factory=lambda: np.empty(0, POWER_DTYPE))
    rails: tuple[str, ...] = ()


class Kit(Protocol):
    """One open kit."""

    def run(
        self,
        program: Any,
        events: EventArray,
        *,
        until_us: int | None = None,
        slow_clock_hz: float | None = None,
        power_hz: float | None = None,
    ) -> ChipRun:
        """Apply the program, which sets every neuron to its initial state, then stream one recording in real time.

        Raises:
            ProgramError: the vendor's library refuses the program, or holds another one afterwards.
            EventError: the recording's times do not fit the kit's.
            DeviceError: the kit does not answer as it should.
        """
        ...


class Vendor(Protocol):
    """A vendor's library, loaded."""

    @property
    def version(self) -> str:
        """Name and version of the library."""
        ...

    def kits(self) -> Sequence[DeviceName]:
        """The kits of this chip that are connected, those in use by others included."""
        ...

    def files(self, program: Any) -> VendorFiles:
        """The program as the vendor's library writes it, after that library has validated it.

        Raises:
            ProgramError: the library refuses the program.
        """
        ...

    def open(self, device: DeviceName) -> AbstractContextManager[Kit]:
        """Open a kit; it is closed with the context.

        Raises:
            DeviceError: there is no such kit.
        """
        ...
