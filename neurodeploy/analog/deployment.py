"""A network compiled for an analog chip: from a graph to the chip's words, on disk and back, and into the emulator."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import DEPLOYMENT_FILE, GRAPH_FILE, PROGRAM_FILE
from neurodeploy.errors import ConfigError, ProgramError
from neurodeploy.events.array import EventArray, as_events
from neurodeploy.events.dataset import EventDataset
from neurodeploy.events.spike_times import SpikeTimes
from neurodeploy.files import read_json, write_json, write_text
from neurodeploy.graph.file import graph_hash, load_graph, save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.program_file import read_analog_program, write_program
from neurodeploy.quantize.integers import OnStep
from neurodeploy.target import TARGET_FILE, AnalogFamily, Target, load_target, target_of_program
from neurodeploy.targets.analog.calibration import Calibration, Mode, calibrate
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.emulator import SpikeOverflowError, TrialNoise, emulate_program
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.program import AnalogLayer, AnalogProgram
from neurodeploy.targets.analog.virtual_chip import VirtualChip

Floats = NDArray[np.float64]

REPORT_FILE, OPTIONS_FILE = "quantize.json", "compile.json"

#: Folder for what the vendor's tools take, inside that of a deployment.
FILES_FOLDER = "files"

#: Spikes of one neuron in one run, at most: a circuit has no slots, so that more are taken where one layer needs them.
MOST_SPIKES = 1024


@dataclass(frozen=True, eq=False)
class AnalogRun:
    """Spikes of one emulation.

    Attributes:
        times: layer -> float64 ``[B, N, slots]``, seconds of the network, ascending, ``inf`` behind the last spike.
    """

    times: Mapping[str, Floats]

    @property
    def output(self) -> Floats:
        """The spikes of the last layer."""
        return list(self.times.values())[-1]

    def counts(self, layer: str) -> NDArray[np.int64]:
        """Spikes of each neuron, int64 ``[B, N]``."""
        counts: NDArray[np.int64] = np.isfinite(self.times[layer]).sum(-1)
        return counts

    def answers(self, decode: Literal["first", "count"] = "first") -> NDArray[np.int64]:
        """The output that fires first (or most) for each pattern, int64 ``[B]``; -1 where none fires.

        Of two that are equal, the lower number.

        Raises:
            ConfigError: there is no such way to decode.
        """
        if decode not in ("first", "count"):
            raise ConfigError(f"decode is {decode!r}.", remedy="choose 'first' or 'count'.", code="decode")
        values = -self.output.min(-1, initial=np.inf) if decode == "first" else np.isfinite(self.output).sum(-1)
        silent = ~np.isfinite(self.output).any((1, 2))
        return np.where(silent, -1, values.argmax(1)).astype(np.int64)

    def first_spikes(self, layer: str) -> Floats:
        """Time of each neuron's first spike, ``[B, N]``; ``inf``: none."""
        first: Floats = self.times[layer].min(-1, initial=np.inf)
        return first


@dataclass(frozen=True, eq=False)
class AnalogDeployment:
    """A network compiled for an analog chip.

    Attributes:
        graph: the network as it was given.
        program: the chip's configuration, and what it computes without mismatch.
        report: every parameter as requested and as realised, errors of the weights, placement (``quantize.json``).
        own_chip: the chip, when it is none of ``targets/`` but described by a file of the user's own.
        settings: what it was compiled with.
    """

    graph: Graph
    program: AnalogProgram
    report: Mapping[str, Any]
    own_chip: Target | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def target(self) -> str:
        """Name of the chip."""
        return self.program.target

    @property
    def chip(self) -> AnalogChip:
        """Description of the chip."""
        chip: AnalogChip = self.load_target().chip
        return chip

    @property
    def layers(self) -> dict[str, AnalogLayer]:
        """Layer name -> configured layer, in network order."""
        return {layer.name: layer for layer in self.program.layers}

    @property
    def notes(self) -> tuple[str, ...]:
        """All that was assumed, pruned or runs differently on the chip, in words."""
        places = [f"{note['layer']}: " if note["layer"] else "" for note in self.report["notes"]]
        found = zip(places, self.report["notes"], strict=True)
        return (*self.graph.notes, *(f"{place}{note['rule']} Found: {note['value']}." for place, note in found))

    def load_target(self) -> Target:
        """The chip with the code of its family."""
        return self.own_chip or load_target(self.program.target)

    def recompile(self, **settings: Any) -> "AnalogDeployment":
        """The network compiled again for the same chip, with other values of some settings; errors as ``compile``."""
        return compile_analog(self.graph, self.load_target(), {**(self.settings or {}), **settings})

    def virtual_chip(self, serial: int, *, scale: float = 1.0, temperature_c: float | None = None) -> VirtualChip:
        """The emulated chip of a serial number; arguments and errors as ``VirtualChip``."""
        return VirtualChip(self.chip, serial, scale=scale, temperature_c=temperature_c)

    def calibrate(self, serial: int | VirtualChip, mode: Mode = "residual", seed: int = 0) -> Calibration:
        """Trims of the circuits of one emulated chip; see ``neurodeploy.targets.analog.calibration.calibrate``."""
        return calibrate(
            serial if isinstance(serial, VirtualChip) else self.virtual_chip(serial), self.program, mode, seed
        )

    def trial_noise(self) -> TrialNoise:
        """What differs from run to run, as the chip's description says; jitter in seconds of the network."""
        tau_syn = np.concatenate([layer.nominal.tau_syn_exc for layer in self.program.layers]).mean()
        noise = self.chip.trial_noise
        return TrialNoise(noise.jitter_tau_syn.value * float(tau_syn), noise.threshold_cv.value)

    def emulate(
        self,
        times: Floats | SpikeTimes | EventArray,
        *,
        serial: int | VirtualChip | None = None,
        calibration: Calibration | Mode | None = None,
        noise: TrialNoise | bool = False,
        seed: int = 0,
        trials: NDArray[np.int64] | None = None,
        threads: int = 1,
    ) -> AnalogRun:
        """Run patterns of spikes, each from rest.

        The result is a function of the arguments, byte for byte: of no number of threads, and of no split into batches
        where ``trials`` keep their numbers.

        Args:
            times: float64 ``[B, inputs, slots]`` in seconds of the network, ``inf`` where there is no spike; or
                ``SpikeTimes``; or the events of one recording (microseconds).
            serial: of the emulated chip, or the chip; None: circuits without mismatch.
            calibration: of that chip, or how to calibrate it now; None: as it is.
            noise: of the trials; True: as the chip's description says; False: none.
            seed: of the noise.
            trials: int64 ``[B]``, the number of each pattern's run; 0, 1, ... by default.
            threads: at most this many.

        Raises:
            EmulationError, EventError: the spikes do not fit, or a neuron fires more than ``MOST_SPIKES`` times.
            ConfigError: no such serial number, or a calibration without one.
            ProgramError: the calibration is of another chip or network.
        """
        chip = serial if serial is None or isinstance(serial, VirtualChip) else self.virtual_chip(serial)
        if chip is None and calibration is not None:
            raise ConfigError(
                "a calibration belongs to one chip, and none is given.",
                remedy="give its serial number.",
                code="analog-calibration",
            )
        layers = None
        if chip is not None:
            trims = self.calibrate(chip, calibration) if isinstance(calibration, str) else calibration
            layers = chip.realise(self.program, trims)
        found = self.emulate_layers(
            self.times_of(times),
            layers,
            noise=self.trial_noise() if noise is True else noise or None,
            seed=seed,
            trials=trials,
            threads=threads,
        )
        return AnalogRun({layer.name: spikes for layer, spikes in zip(self.program.layers, found, strict=True)})

    def emulate_layers(
        self,
        times: Floats,
        layers: Sequence[LayerParameters] | None = None,
        *,
        noise: TrialNoise | None = None,
        seed: int = 0,
        trials: NDArray[np.int64] | None = None,
        threads: int = 1,
    ) -> list[Floats]:
        """Run given circuits in the place of the program's, e.g. those that ``VirtualChip.realise`` makes.

        Args:
            times: float64 ``[B, inputs, slots]`` in seconds of the network.
            layers: what each layer computes; None: the nominal values.
            noise, seed, trials, threads: as for ``emulate``.

        Returns:
            The spikes of each layer; more slots than its ``max_spikes`` where a neuron fires more often.

        Raises:
            EmulationError: as ``emulate``.
        """
        program = self.program
        while True:
            try:
                return emulate_program(
                    program, times, realised=layers, noise=noise, seed=seed, trials=trials, threads=threads
                )
            except SpikeOverflowError as error:
                if error.limit >= MOST_SPIKES:
                    raise
                program = replace(
                    program,
                    layers=tuple(
                        replace(layer, max_spikes=min(2 * layer.max_spikes, MOST_SPIKES))
                        if layer.name == error.layer
                        else layer
                        for layer in program.layers
                    ),
                )

    def save(self, folder: str | Path) -> None:
        """Write graph, report and program into ``folder``; ``neurodeploy.open`` reads them back.

        For a chip of the user's own, its description is written beside them (``target.yaml``), complete.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        folder = Path(folder)
        save_graph(self.graph, folder / GRAPH_FILE, provenance={"target": self.target})
        write_json(folder / REPORT_FILE, self.report)
        write_program(folder / PROGRAM_FILE, self.program)
        write_json(
            folder / OPTIONS_FILE,
            {"settings": dict(self.settings or {}), "chip": self.target, "chip_sha256": self.chip.digest},
        )
        if self.own_chip:
            import yaml

            text = yaml.safe_dump(self.own_chip.chip.model_dump(mode="json"), sort_keys=False, width=120)
            write_text(folder / TARGET_FILE, text)
        write_json(folder / DEPLOYMENT_FILE, self.hashes(folder))

    def write_files(self, folder: str | Path) -> list[Path]:
        """Write what the vendor's tools take, as far as it is known, into ``folder``; none for a chip nobody makes.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        target = self.load_target()
        family: AnalogFamily = target.analog_family
        return family.files(self.program, self.graph, target.chip, Path(folder), family.settings(self.settings))

    def hashes(self, folder: Path) -> dict[str, str]:
        """File -> SHA-256: of its bytes; of the graph in it for the graph, whose file carries annotations too."""
        names = [REPORT_FILE, PROGRAM_FILE, OPTIONS_FILE, *([TARGET_FILE] if self.own_chip else [])]
        return {
            GRAPH_FILE: graph_hash(self.graph),
            **{name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
        }

    def times_of(self, times: Floats | SpikeTimes | EventArray) -> Floats:
        """Spikes as float64 ``[B, inputs, slots]``; input ``(p * height + y) * width + x`` of an event.

        Raises:
            EventError: events are malformed, or outside the network's input.
        """
        if isinstance(times, SpikeTimes):
            return times.times
        if times.dtype.names is None:
            return np.asarray(times, np.float64)
        shape = self.graph.input_shape()
        size = (shape[0], shape[1], shape[2]) if len(shape) == 3 else (int(np.prod(shape)), 1, 1)
        recording = EventDataset.from_recordings([as_events(times, sensor_size=size)], [0], sensor_size=size)
        return SpikeTimes.of_recordings(recording).times


def compile_analog(
    graph: Graph,
    target: str | Path | Target,
    settings: Mapping[str, Any] | None = None,
    *,
    on_step: OnStep = lambda name, text: None,
) -> AnalogDeployment:
    """Quantize, map and lower a network in continuous time for an analog chip.

    Args:
        graph: as ``neurodeploy.trace(module, sample, time_unit_s=...)`` makes it.
        target: name of the chip, path of a ``chip.yaml``, or the chip.
        settings: ``allow_error`` and others; see ``targets/analog/README.md``.
        on_step: called after the step; on analog chips there is one.

    Raises:
        ConstraintError, QuantizeError, MappingError, ConfigError: the network does not fit the chip; the message names
            the layer, the rule, value, limit and remedy.
    """
    target = load_target(target) if isinstance(target, str | Path) else target
    family = target.analog_family
    compiled = family.compile(graph, target.chip, family.settings(settings))
    on_step("compile", "check every rule of the chip, choose levels, words and places together")
    program: Any = compiled.program
    report = {**compiled.report, "target": target.name, "notes": [note.to_dict() for note in compiled.notes]}
    return AnalogDeployment(graph, program, report, target if target.file else None, dict(settings or {}))


def open_analog(folder: str | Path) -> AnalogDeployment:
    """Read a deployment that ``AnalogDeployment.save`` wrote.

    Raises:
        ConfigError: the folder does not exist, holds no program, or one for a chip of integers.
        GraphError, ProgramError: another file is missing, or one is damaged, edited, of another version or of another
            network than the rest; or the chip's description is another than when it was compiled.
    """
    folder = Path(folder)
    if not (folder / PROGRAM_FILE).is_file():
        raise ConfigError(
            f"{folder} is not a compiled run folder: {PROGRAM_FILE} is missing.",
            remedy=f"run: neurodeploy compile MODEL --out {folder}",
            code="not-compiled",
        )
    program: Any = read_analog_program(folder / PROGRAM_FILE)
    target = target_of_program(program.target, folder)
    options = read_json(folder / OPTIONS_FILE)
    deployment = AnalogDeployment(
        load_graph(folder / GRAPH_FILE),
        program,
        read_json(folder / REPORT_FILE),
        target if target.file else None,
        options.get("settings"),
    )
    stated = read_json(folder / DEPLOYMENT_FILE)
    again = f"run: neurodeploy compile MODEL --target {program.target} --out {folder}"
    for name, found in deployment.hashes(folder).items():
        if stated.get(name) != found:
            raise ProgramError(
                f"{folder / name}: is not what was written with {PROGRAM_FILE}: its hash is not the one in "
                f"{DEPLOYMENT_FILE}.",
                remedy=again,
                code="mixed-folder",
            )
    if options.get("chip_sha256") != deployment.chip.digest:
        raise ProgramError(
            f"{folder}: was compiled for another description of {program.target} than the one at hand.",
            remedy=again,
            code="chip-changed",
        )
    return deployment
