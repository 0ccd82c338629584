"""The contract of ``targets/``: what a chip's folder provides, and how a folder is found.

A folder is a chip family when it has code: its ``family.py`` holds ``family``, an object with the methods of
``Family``, whose chips compute with integers and events, or of ``AnalogFamily``, whose chips compute with spike times.
A folder with nothing but a ``chip.yaml`` is one chip; its ``family:`` line names the family folder, and its entries are
laid over that family's own ``chip.yaml``. Adding a chip of a known family is adding one such file.

A chip of one's own needs no folder: wherever a chip is named, the path of such a file does as well, and the name is the
one in the file. A program for it can be read where that file, or the copy beside the program, is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError
from neurodeploy.events.array import EventArray
from neurodeploy.graph.graph import Graph
from neurodeploy.mapping.placement import CoreChoice, Split

if TYPE_CHECKING:
    import pydantic

    from neurodeploy.device import Route, Vendor
    from neurodeploy.quantize import QuantizationSpec

#: Where the folders of the chips and families are.
TARGETS = Path(__file__).parent / "targets"

#: The copy of the user's own chip description that is kept beside a program for it.
TARGET_FILE = "target.yaml"

#: One spike of an emulated network: ``layer`` indexes ``Program.layers``; ``t`` is in microseconds.
SPIKE_DTYPE = np.dtype([("layer", "u1"), ("t", "<i8"), ("c", "<u2"), ("y", "<u2"), ("x", "<u2")])

SpikeArray = NDArray[np.void]

#: Updates of neurons that one run of an executor may take unless more is asked for: minutes of work.
DEFAULT_WORK_LIMIT = 10**12


class Program(Protocol):
    """A chip configuration as plain data: deterministic, versioned, loss-free on disk."""

    @property
    def target(self) -> str:
        """Name of the chip, e.g. ``"speck2f"``."""
        ...

    @property
    def family(self) -> str:
        """Name of the chip's family, e.g. ``"dynapcnn"``."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in network order; the names of the source graph's weight nodes."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what the cores hold, in network order: layers, or parts of a layer that needs several cores."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the events the program takes: ``p < C``, ``y < H``, ``x < W``."""
        ...

    def layer_shape(self, layer: str) -> tuple[int, int, int]:
        """``(C, H, W)`` of a layer's neurons, before any pooling on the way to the next layer."""
        ...

    def configuration(self, part: str) -> Any:
        """What is configured for one of ``parts``, as the family describes it: ``core``, ``output_shape`` and more."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The program as JSON-ready data, without header and hash."""
        ...


@dataclass(frozen=True)
class Probe:
    """Potentials of a few neurons of one layer, over a run.

    Attributes:
        t_us: int64 ``[steps]``: the time of each host event, or tick of the chip's clock.
        neurons: ``(c, y, x)`` of each.
        v: int16 ``[steps, neurons]``: the potential after all that the event or tick caused.
    """

    t_us: NDArray[np.int64]
    neurons: tuple[tuple[int, int, int], ...]
    v: NDArray[np.int16]


@dataclass(frozen=True)
class Execution:
    """What one run of a program produced.

    Attributes:
        spikes: array of ``SPIKE_DTYPE``: host event by host event, and for one event layer by layer; empty unless
            recorded.
        counts: layer name -> spikes per neuron, uint32 ``(C, H, W)``.
        counters: layer name -> counter name -> value: ``events`` taken in, ``synops`` (state updates, zero weights
            included), ``spikes``, ``dropped`` (events outside the input map), ``saturated`` (updates that hit the int16
            range), ``lost`` (events lost on purpose, to study imperfect chips). Of a layer on several cores their sum:
            an event that goes to two of them counts twice.
        probes: layer name -> potentials of the neurons that were asked for.
    """

    spikes: SpikeArray
    counts: Mapping[str, NDArray[np.uint32]]
    counters: Mapping[str, Mapping[str, int]]
    probes: Mapping[str, Probe] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A number and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class PublishedLatency:
    """What is published about the time an event needs: ``pads_us`` into and out of the chip, ``core_us`` per core."""

    pads_us: float
    core_us: float
    source: str


@dataclass(frozen=True)
class Performance:
    """Published figures of a chip, for models and warnings; never for errors.

    Attributes:
        synops_per_second: for each core, by its number.
        resting_power_mw: power of the idle chip in milliwatts, or None.
        latency: or None.
    """

    synops_per_second: tuple[Published, ...]
    resting_power_mw: Published | None
    latency: PublishedLatency | None


@dataclass(frozen=True)
class CoreWork:
    """The events that one core took in.

    Attributes:
        part: the layer, or part of one, that the core holds.
        core: its number.
        t_us: int64 ``[events]``: the time of the host event, or tick, that caused each.
        synops: int64 ``[events]``: SynOps of each.
        sources: the entries of the same list that send to it.
        takes_input: whether the host's events enter here.
        is_output: whether the answer is read here.
    """

    part: str
    core: int
    t_us: NDArray[np.int64]
    synops: NDArray[np.int64]
    sources: tuple[int, ...]
    takes_input: bool
    is_output: bool


class Executor(Protocol):
    """Executes one program; keeps the neurons' state between calls, so that a recording can be streamed in pieces."""

    def run(
        self,
        events: EventArray,
        *,
        record: Sequence[str] | None = None,
        until_us: int | None = None,
        probe: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
    ) -> Execution:
        """Feed events; ``record`` names the layers whose spikes are kept (None: all).

        What happens on a clock goes on up to ``until_us`` microseconds (None: the last event's time). ``probe`` maps
        layers to the neurons ``(c, y, x)`` whose potentials are kept.

        Raises:
            EventError: malformed, unsorted or outside the program's input.
            EmulationError: time runs backwards, ``record`` or ``probe`` names what does not exist, or the run does more
                work than it may.
        """
        ...

    def reset(self) -> None:
        """Set every neuron back to its initial state."""
        ...


@dataclass(frozen=True)
class Rule:
    """One rule of a chip, as the support table shows it.

    Attributes:
        code: stable identifier, e.g. ``"kernel-size"``.
        text: the rule in one sentence, with the chip's numbers.
        severity: ``"error"``: a network that breaks it is refused; ``"note"``: it runs, with a stated difference.
    """

    code: str
    text: str
    severity: Literal["error", "note"]


@dataclass(frozen=True)
class Finding:
    """A rule that a network breaks.

    Attributes:
        layer: the layer or node; empty for the whole network.
        rule: the rule.
        value: what the network has.
        limit: what the chip allows.
        remedy: what the user can do.
    """

    layer: str
    rule: Rule
    value: str
    limit: str
    remedy: str

    @property
    def message(self) -> str:
        """Layer, rule, value and limit in words."""
        place = f"{self.layer}: " if self.layer else ""
        limit = f" (limit: {self.limit})" if self.limit else ""
        # The value may be the message of an error that a pass raised, which ends with a full stop.
        return f"{place}{self.rule.text} Found: {self.value.removesuffix('.')}{limit}."

    def to_dict(self) -> dict[str, str]:
        """JSON-ready data."""
        return {
            "layer": self.layer,
            "code": self.rule.code,
            "severity": self.rule.severity,
            "rule": self.rule.text,
            "value": self.value,
            "limit": self.limit,
            "remedy": self.remedy,
        }


class Mapped(Protocol):
    """A network whose layers have their places on a chip."""

    @property
    def layers(self) -> Mapping[str, Any]:
        """Layer or part -> where it is (at least ``core``, ``input_shape``, ``output_shape``), in network order."""
        ...

    @property
    def notes(self) -> Sequence[Finding]:
        """What runs differently on the chip than in the network, in words."""
        ...

    def report(self) -> dict[str, Any]:
        """JSON-ready data for ``mapping.json``.

        Per layer its core, what it needs, and which cores would hold it; per input the layers that take its events.
        """
        ...


class Family(Protocol):
    """What the code of a chip family provides; ``chip`` is what ``chip_model`` made of the chip's description."""

    @property
    def analog(self) -> Literal[False]:
        """Which contract this is."""
        ...

    @property
    def chip_model(self) -> "type[pydantic.BaseModel]":
        """Checks a ``chip.yaml``."""
        ...

    def rules(self, chip: Any) -> Sequence[Rule]:
        """Every rule of the chip, in the order of the support table."""
        ...

    def quantization_spec(self, chip: Any) -> "QuantizationSpec":
        """The integer widths of the chip."""
        ...

    def settings(self, data: Mapping[str, Any] | None) -> Any:
        """What the user sets on the chip beyond the network, from plain data; None for nothing.

        Raises:
            ConfigError: there is no such setting, or not with this value.
        """
        ...

    def check(self, graph: Graph, chip: Any, settings: Any = None, allow_recurrence: bool = False) -> list[Finding]:
        """All rules that ``graph`` (float, before any pass, or quantized) breaks, notes included.

        Without ``allow_recurrence``, a loop breaks a rule.

        Raises:
            ConfigError: ``settings`` do not fit the network.
        """
        ...

    def map(
        self,
        graph: Graph,
        chip: Any,
        layer2core_map: CoreChoice = "auto",
        split: Split = "auto",
        settings: Any = None,
    ) -> Mapped:
        """Place a quantized graph on the chip; ``settings`` is what the method of that name made.

        ``split="auto"`` spreads a layer over several cores where there is no placement otherwise; ``"never"`` does not.

        Raises:
            ConstraintError: layers break rules of the chip; the message lists all of them.
            ConfigError: ``layer2core_map`` is not valid.
            MappingError: there is no placement; the message says why.
        """
        ...

    def lower(self, mapped: Any, monitor_layers: Sequence[str] | None = None) -> Program:
        """The chip's configuration. ``monitor_layers``: whose spikes the host sees (None: the output layers).

        Raises:
            ConfigError: ``monitor_layers`` names a layer that does not exist.
        """
        ...

    def read_program(self, data: Mapping[str, Any], chip: Any) -> Program:
        """The program that ``Program.to_dict`` described.

        Raises:
            ProgramError: a field is missing, unknown, of the wrong type or shape, out of range or inconsistent.
        """
        ...

    def executor(
        self,
        program: Any,
        *,
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
        work_limit: int = DEFAULT_WORK_LIMIT,
    ) -> Executor:
        """An executor of ``program``; ``switches`` settle what the chip's documents leave open.

        A run that takes more than ``work_limit`` updates of neurons is refused.

        Raises:
            ConfigError: a switch or its value is unknown.
            EmulationError: the program needs ``slow_clock_hz``, in hertz, or cannot be executed.
        """
        ...

    def delivery_orders(self, count: int, seed: int) -> Mapping[str, Mapping[str, Any]]:
        """``count`` legal orders of event delivery besides the default one: name -> switches."""
        ...

    def imperfections(self, initial_state: bool, lost_events: float, seed: int) -> Mapping[str, Any]:
        """Switches for a chip that starts at random potentials, or loses events with a probability."""
        ...

    def performance(self, chip: Any) -> Performance:
        """Published figures of the chip."""
        ...

    def work(
        self, program: Any, events: EventArray, spikes: SpikeArray, switches: Mapping[str, Any] | None = None
    ) -> Sequence[CoreWork]:
        """What ``events``, and the ``spikes`` of all layers they caused, made every core do, in network order.

        Raises:
            EmulationError: ``switches`` make events disappear without a trace.
        """
        ...

    def routes(self, program: Any) -> "Sequence[Route]":
        """Where each layer is and where its spikes go, in network order."""
        ...

    def vendor(self, chip: Any) -> "Vendor":
        """The vendor's library for the chip, loaded now.

        Raises:
            DeviceError: it is not installed, or what is installed is not it.
        """
        ...


class AnalogProgram(Protocol):
    """The configuration of an analog chip as plain data: deterministic, versioned, loss-free on disk."""

    @property
    def target(self) -> str:
        """Name of the chip, e.g. ``"bss2"``."""
        ...

    @property
    def family(self) -> str:
        """Name of the chip's family."""
        ...

    @property
    def inputs(self) -> int:
        """Channels of the host's spikes."""
        ...

    @property
    def layers(self) -> Sequence[Any]:
        """The layers in network order; each has at least ``name``, ``source``, ``neurons`` and ``max_spikes``."""
        ...

    @property
    def t_max(self) -> float:
        """Length of a run in seconds of the network; ``inf``: until all neurons are at rest."""
        ...

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The digital words of the chip, by its own names."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The program as JSON-ready data, without header and hash."""
        ...


@dataclass(frozen=True, eq=False)
class AnalogCompiled:
    """A network on an analog chip.

    Attributes:
        program: the configuration, and what it computes on a chip without mismatch.
        report: JSON-ready: every parameter as requested and as realised, the error of the weights, the placement.
        notes: what runs differently on the chip than in the network, in words.
    """

    program: AnalogProgram
    report: Mapping[str, Any]
    notes: Sequence[Finding]


class AnalogFamily(Protocol):
    """What the code of a family of analog chips provides; ``chip`` is what ``chip_model`` made of its description."""

    @property
    def analog(self) -> Literal[True]:
        """Which contract this is."""
        ...

    @property
    def chip_model(self) -> "type[pydantic.BaseModel]":
        """Checks a ``chip.yaml``."""
        ...

    def rules(self, chip: Any) -> Sequence[Rule]:
        """Every rule of the chip, in the order of the support table."""
        ...

    def settings(self, data: Mapping[str, Any] | None) -> Any:
        """What the user decides beyond the network, from plain data; None for nothing.

        Raises:
            ConfigError: there is no such setting, or not with this value.
        """
        ...

    def check(self, graph: Graph, chip: Any, settings: Any = None) -> list[Finding]:
        """All rules that ``graph`` breaks, notes included."""
        ...

    def compile(self, graph: Graph, chip: Any, settings: Any = None) -> AnalogCompiled:
        """Quantize, map and lower: on analog chips the levels of the weights depend on who shares a core.

        Raises:
            ConstraintError: the network breaks rules of the chip; the message lists all of them.
            QuantizeError: a parameter is outside the range of its converter, or too far from what was asked for.
            MappingError: there is no place for a layer; the message says why.
        """
        ...

    def read_program(self, data: Mapping[str, Any], chip: Any) -> AnalogProgram:
        """The program that ``AnalogProgram.to_dict`` described.

        Raises:
            ProgramError: a field is missing, unknown, of the wrong type or shape, out of range or inconsistent.
        """
        ...

    def files(self, program: Any, graph: Graph, chip: Any, folder: Path, settings: Any = None) -> list[Path]:
        """Write what the vendor's tools take, as far as it is known, into ``folder``; empty where nothing is.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        ...


@dataclass(frozen=True)
class Target:
    """A chip: its name, its description (of the family's ``chip_model``) and the code of its family.

    ``file`` is the path of the user's own ``chip.yaml``, and None for the chips in ``targets/``.
    """

    name: str
    chip: Any
    code: Family | AnalogFamily
    family_name: str
    file: Path | None = None

    @property
    def devices(self) -> Sequence[Any]:
        """The kits with this chip that deploy can run; analog chips are run from files."""
        return () if self.code.analog else tuple(self.chip.devices)

    @property
    def family(self) -> Family:
        """The code, of a chip that computes with integers and events.

        Raises:
            ConfigError: it is an analog chip.
        """
        if self.code.analog:
            raise ConfigError(
                f"{self.name} is an analog chip: it has no integers and no cores of layers.",
                remedy="use nd.compile, nd.open and emulate; on the command line check, compile, emulate and targets.",
                code="analog-target",
            )
        return self.code

    @property
    def analog_family(self) -> AnalogFamily:
        """The code, of a chip that computes with spike times.

        Raises:
            ConfigError: it is a chip of integers.
        """
        if not self.code.analog:
            raise ConfigError(
                f"{self.name} is no analog chip.",
                remedy="use neurodeploy.deployment for it; 'neurodeploy targets' lists the chips with their families.",
                code="digital-target",
            )
        return self.code


def target_names(folder: Path = TARGETS) -> list[str]:
    """Names of all chips, sorted: the folders whose ``chip.yaml`` is not marked ``abstract``."""
    return sorted(path.parent.name for path in folder.glob("*/chip.yaml") if not _is_abstract(path))


def load_target(name: str | Path, folder: Path = TARGETS) -> Target:
    """The chip called ``name``, or the one that the file ``name`` (``.yaml`` or ``.yml``) describes.

    Raises:
        ConfigError: there is no such chip, or its description is not valid; the message names file and field.
    """
    if str(name).endswith((".yaml", ".yml")):
        return _own_chip(Path(name))
    path = next((path for path in folder.glob("*/chip.yaml") if path.parent.name == name), None)
    if path is None or _is_abstract(path):
        raise ConfigError(
            f"there is no target {str(name)!r}.",
            remedy=f"choose one of: {', '.join(target_names(folder))}; or give the path of a chip.yaml.",
            code="unknown-target",
        )
    target = _load(path)
    if target.name != name:
        raise ConfigError(
            f"{path}: name: the chip is called {target.name!r}, its folder {name!r}.",
            remedy="give both the same name.",
            code="chip-yaml",
        )
    return target


def target_of_program(name: str, folder: str | Path) -> Target:
    """The chip called ``name`` of a program in ``folder``: one of ``targets/``, or the one in ``TARGET_FILE`` there.

    Raises:
        ConfigError: neither is a chip of this name.
    """
    path = Path(folder) / TARGET_FILE
    if name in target_names() or not path.is_file():
        return load_target(name)
    target = _own_chip(path)
    if target.name != name:
        raise ConfigError(
            f"there is no target {name!r}, and {path} describes {target.name!r}.",
            remedy="put the file that the program was compiled with beside it.",
            code="unknown-target",
        )
    return target


def _own_chip(path: Path) -> Target:
    target = _load(path)
    if target.name in target_names():
        # A program file holds only the name: it must not be mistaken for one of the known chip.
        raise ConfigError(
            f"{path}: name: there is another chip called {target.name!r}.",
            remedy="give this one a name of its own.",
            code="chip-yaml",
        )
    return replace(target, file=path)


def _load(path: Path) -> Target:
    import pydantic

    data = _read_yaml(path)
    family_name = data.get("family")
    if not isinstance(family_name, str) or not family_name.isidentifier():
        raise ConfigError(
            f"{path}: family: {family_name!r} names no chip family.",
            remedy="write the name of the folder whose code serves the chip, e.g. family: dynapcnn.",
            code="chip-yaml",
        )
    try:
        family: Family | AnalogFamily = import_module(f"neurodeploy.targets.{family_name}.family").family
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            f"{path}: family: {family_name!r} names no chip family ({error}).",
            remedy="write the name of the folder whose code serves the chip, e.g. family: dynapcnn.",
            code="chip-yaml",
        ) from None
    shared = TARGETS / family_name / "chip.yaml"
    merged = _overlay(_read_yaml(shared), data) if shared.exists() else dict(data)
    merged.pop("abstract", None)
    try:
        chip: Any = family.chip_model.model_validate(merged)
    except pydantic.ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or '(top level)'}: {problem['msg']}" for problem in error.errors()
        ]
        raise ConfigError(
            f"{path} is not valid: {'; '.join(problems)}.",
            remedy=f"correct these fields; {shared} shows them all.",
            code="chip-yaml",
        ) from None
    return Target(str(merged.get("name", path.parent.name)), chip, family, family_name)


def _is_abstract(path: Path) -> bool:
    try:
        return bool(_read_yaml(path).get("abstract", False))
    except ConfigError:
        # A damaged file is listed, so that loading it says what is wrong; it must not hide the other chips.
        return False


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        # libyaml's loader, where PyYAML has it, reads the same ten times faster.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.", remedy="correct the file or restore it.", code="chip-yaml"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} holds no fields.", remedy="write the chip's fields as name: value lines.", code="chip-yaml"
        )
    return data


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, field by field; anything but a group of fields is replaced as a whole.

    A source is never inherited: it is of the value below, not of the one that replaces it.
    """
    merged = {key: value for key, value in below.items() if key != "source"}
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
