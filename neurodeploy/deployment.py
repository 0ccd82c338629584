"""A compiled network: from a graph to a chip's configuration, on disk and back, and into the emulator."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.compile_options import DEFAULT, OPTIONS_FILE, CompileOptions, load_options
from neurodeploy.emulate.run import Run
from neurodeploy.emulate.stream import execute_stream, whole_times
from neurodeploy.emulate.workload import Workload, WorkloadMeter, check_energies
from neurodeploy.errors import ConfigError, EmulationError, ProgramError
from neurodeploy.events.array import EVENT_DTYPE, EventArray
from neurodeploy.files import read_json, write_json, write_text
from neurodeploy.graph.file import graph_hash, load_graph, save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.program_file import read_program, write_program
from neurodeploy.quantize.integers import GRAPH_FILE as INTEGERS_FILE
from neurodeploy.quantize.integers import REPORT_FILE, OnStep, Quantized, load_quantized, quantize
from neurodeploy.target import (
    DEFAULT_WORK_LIMIT,
    TARGET_FILE,
    Executor,
    Program,
    Target,
    load_target,
    target_of_program,
)

GRAPH_FILE, MAPPING_FILE, PROGRAM_FILE = "graph.onnx", "mapping.json", "program.json"

#: Holds the SHA-256 of every other file of a deployment, so that files of different networks are not read as one.
DEPLOYMENT_FILE = "deployment.json"


@dataclass(frozen=True)
class Deployment:
    """A network compiled for a chip.

    Attributes:
        graph: the network as it was given.
        quantized: the same network in the chip's integers, and what rounding did to every layer.
        mapping: placement as plain data (``mapping.json``).
        program: the chip's configuration.
        own_chip: the chip, when it is none of ``targets/`` but described by a file of the user's own.
        options: what it was compiled with.
    """

    graph: Graph
    quantized: Quantized
    mapping: Mapping[str, Any]
    program: Program
    own_chip: Target | None = None
    options: CompileOptions = DEFAULT

    @property
    def target(self) -> str:
        """Name of the chip."""
        return self.program.target

    @property
    def layers(self) -> dict[str, Any]:
        """Layer name -> configured core, in network order; a layer on several cores is there as its parts."""
        return {name: self.program.configuration(name) for name in self.program.parts}

    @property
    def notes(self) -> tuple[str, ...]:
        """All that was assumed, approximated or dropped on the way, in words."""
        differences = [f"{note['layer']}: {note['rule']} Found: {note['value']}." for note in self.mapping["notes"]]
        return (*self.quantized.notes, *differences)

    def load_target(self) -> Target:
        """The chip."""
        return self.own_chip or load_target(self.program.target)

    def recompile(self, **changes: Any) -> "Deployment":
        """The network compiled again for the same chip, with all options as they were but those given.

        Args:
            changes: fields of ``CompileOptions``, e.g. ``v_min="lowest"``.

        Raises:
            GraphError, QuantizeError, ConstraintError, MappingError, ConfigError: as ``compile``.
        """
        return compile_with(self.graph, self.load_target(), replace(self.options, **changes))

    def executor(
        self,
        *,
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
        work_limit: int = DEFAULT_WORK_LIMIT,
    ) -> Executor:
        """A fresh emulator of the program; it keeps its neurons' state from one ``run`` to the next.

        Args:
            switches: name -> value of what the chip's documents leave open; see the family's README.
            slow_clock_hz: ticks per second of the slow clock that adds the biases; needed when a layer has biases.
            work_limit: updates of neurons that one ``run`` may take; more is refused.
        """
        return self.load_target().family.executor(
            self.program, switches=switches, slow_clock_hz=slow_clock_hz, work_limit=work_limit
        )

    def emulate(
        self,
        events: EventArray | Any,
        *,
        record: Sequence[str] | None = None,
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
        until_us: int | None = None,
        probe: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
    ) -> Run:
        """Run one recording, event by event, from the neurons' initial state.

        Args:
            events: structured array with the fields ``t`` (us), ``x``, ``y``, ``p``, sorted by time.
            record: layers whose spikes are kept; all by default.
            switches, slow_clock_hz: see ``executor``.
            until_us: length of the recording in microseconds, for the slow clock; None ends it at its last event.
            probe: layer -> neurons ``(c, y, x)`` whose potentials ``run.probes`` holds, as after each event and tick.

        Raises:
            EventError: malformed, unsorted or outside the network's input.
            EmulationError: biases without a slow clock, an unknown layer or neuron, ``until_us`` before the last event,
                or more work than the executor's ``work_limit``.
        """
        executor = self.executor(switches=switches, slow_clock_hz=slow_clock_hz)
        return Run(self.program, executor.run(events, record=record, until_us=until_us, probe=probe))

    def emulate_stream(
        self,
        pieces: Iterable[EventArray],
        *,
        record: Sequence[str] | None = (),
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
        until_us: int | None = None,
        probe: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
        work_limit: int = DEFAULT_WORK_LIMIT,
    ) -> Iterator[Run]:
        """Run a recording larger than memory: one result per piece, together those of ``emulate``.

        Args:
            pieces: consecutive event arrays, such as ``neurodeploy.events.iter_events`` yields.
            record: layers whose spikes each result holds; by default none.
            switches, slow_clock_hz, until_us, probe: as for ``emulate``.
            work_limit: as for ``executor``, for each piece.

        Raises:
            EventError, EmulationError: as ``emulate``, when the iteration gets there.
        """
        executor = self.executor(switches=switches, slow_clock_hz=slow_clock_hz, work_limit=work_limit)
        for execution in execute_stream(executor, pieces, record=record, until_us=until_us, probe=probe):
            yield Run(self.program, execution)

    def workload(
        self,
        events: EventArray | Iterable[EventArray],
        *,
        bin_us: int = 1000,
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
        until_us: int | None = None,
        pj_per_synop: float | None = None,
        pj_per_spike: float | None = None,
    ) -> Workload:
        """How busy a recording keeps every core, against published limits; a model of latency and energy.

        Args:
            events: one recording, or its consecutive pieces; the result does not depend on how it is cut.
            bin_us: length of a bin in microseconds.
            switches, slow_clock_hz, until_us: as for ``emulate``.
            pj_per_synop, pj_per_spike: energies in picojoules, where you have them: none are published.

        Raises:
            EventError, EmulationError: as ``emulate``; an impossible bin or energy; lost events.
        """
        check_energies((pj_per_synop, pj_per_spike))
        family = self.load_target().family
        executor = self.executor(switches=switches, slow_clock_hz=slow_clock_hz)
        meter: WorkloadMeter | None = None
        end_us = 0
        performance = family.performance(self.load_target().chip)
        pieces = [events] if isinstance(events, np.ndarray) else events
        for piece in whole_times(pieces):
            start_us, end_us = int(piece["t"][0]), int(piece["t"][-1]) + 1
            meter = meter or WorkloadMeter(performance, bin_us, start_us)
            spikes = executor.run(piece).spikes
            meter.add(family.work(self.program, piece, spikes, switches), spikes.size)
        if until_us is not None:
            meter = meter or WorkloadMeter(performance, bin_us, 0)
            nothing = np.empty(0, EVENT_DTYPE)
            spikes = executor.run(nothing, until_us=until_us).spikes
            meter.add(family.work(self.program, nothing, spikes, switches), spikes.size)
            end_us = max(end_us, until_us)
        if meter is None:
            raise EmulationError(
                "the recording has no event, so it makes no load.",
                remedy="give a recording with events, or until_us for a network with a slow clock.",
                code="empty-stream",
            )
        return meter.result(end_us, pj_per_synop=pj_per_synop, pj_per_spike=pj_per_spike)

    def save(self, folder: str | Path) -> None:
        """Write graph, integers, reports and program into ``folder``; ``neurodeploy.open`` reads them back.

        For a chip of the user's own, its description is written beside them (``target.yaml``), complete.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        folder = Path(folder)
        save_graph(self.graph, folder / GRAPH_FILE)
        provenance = {"target": self.target, "graph_sha256": graph_hash(self.graph)}
        self.quantized.save(folder, annotations=self._cores(), provenance=provenance)
        write_json(folder / MAPPING_FILE, self.mapping)
        write_program(folder / PROGRAM_FILE, self.program)
        self.options.save(folder / OPTIONS_FILE)
        if self.own_chip:
            import yaml

            text = yaml.safe_dump(self.own_chip.chip.model_dump(mode="json"), sort_keys=False, width=120)
            write_text(folder / TARGET_FILE, text)
        write_json(folder / DEPLOYMENT_FILE, self.hashes(folder))

    def hashes(self, folder: Path) -> dict[str, str]:
        """File -> SHA-256: of its bytes; of the graph in it for graphs, whose files carry annotations too."""
        names = [REPORT_FILE, MAPPING_FILE, PROGRAM_FILE, OPTIONS_FILE, *([TARGET_FILE] if self.own_chip else [])]
        return {
            GRAPH_FILE: graph_hash(self.graph),
            INTEGERS_FILE: graph_hash(self.quantized.graph),
            **{name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
        }

    def _cores(self) -> dict[str, dict[str, str]]:
        """Weight node -> what the metadata of its operators says of its place; a split layer has several cores."""
        cores: dict[str, list[str]] = {}
        for layer in self.mapping["layers"]:
            cores.setdefault(layer["part_of"] or layer["name"], []).append(str(layer["core"]))
        return {name: {"neurodeploy.core": ",".join(numbers)} for name, numbers in cores.items()}


def compile_with(
    graph: Graph, target: Target, options: CompileOptions, *, on_step: OnStep = lambda name, text: None
) -> Deployment:
    """``neurodeploy.compile`` for a chip of integers and events, with all its options as one value; errors as there."""
    return deploy_integers(graph, quantize_for(target, graph, options, on_step=on_step), target, options, on_step)


def quantize_for(
    target: Target,
    graph: Graph,
    options: CompileOptions = DEFAULT,
    *,
    weight_bits: int | None = None,
    on_step: OnStep = lambda name, text: None,
) -> Quantized:
    """The first step of ``compile``: the network in the chip's integers, or with fewer bits for weights.

    Options and errors as there.
    """
    spec = target.family.quantization_spec(target.chip)
    if options.bias_bits is not None:
        spec = replace(spec, bias_bits=options.bias_bits)
    if weight_bits is not None:
        spec = replace(spec, weight_bits=weight_bits)
    return quantize(
        graph,
        spec,
        v_min=options.v_min,
        calibration=options.calibration,
        allow_recurrence=options.allow_recurrence,
        on_step=on_step,
    )


def deploy_integers(
    graph: Graph,
    quantized: Quantized,
    target: Target,
    options: CompileOptions,
    on_step: OnStep = lambda name, text: None,
) -> Deployment:
    """The other steps of ``compile``: integers onto cores, and the configuration. Options and errors as there."""
    family = target.family
    mapped = family.map(
        quantized.graph, target.chip, options.layer2core_map, options.split, family.settings(options.settings)
    )
    on_step("map", "check every rule of the chip and place the layers on its cores")
    program = family.lower(mapped, options.monitor_layers)
    on_step("lower", "write the configuration of every core")
    return Deployment(graph, quantized, mapped.report(), program, target if target.file else None, options)


def open_deployment(folder: str | Path) -> Deployment:
    """Read a deployment that ``Deployment.save`` wrote.

    Raises:
        ConfigError: the folder does not exist, or holds no program or one of an analog chip.
        GraphError, ProgramError: another file is missing, or one is damaged, edited, of another version or of another
            network than the rest.
    """
    folder = Path(folder)
    if not (folder / PROGRAM_FILE).is_file():
        raise ConfigError(
            f"{folder} is not a compiled run folder: {PROGRAM_FILE} is missing.",
            remedy=f"run: neurodeploy compile MODEL --out {folder}",
            code="not-compiled",
        )
    program = read_program(folder / PROGRAM_FILE)
    target = target_of_program(program.target, folder)
    deployment = Deployment(
        load_graph(folder / GRAPH_FILE),
        load_quantized(folder),
        read_json(folder / MAPPING_FILE),
        program,
        target if target.file else None,
        load_options(folder / OPTIONS_FILE),
    )
    stated = read_json(folder / DEPLOYMENT_FILE)
    for name, found in deployment.hashes(folder).items():
        if stated.get(name) != found:
            raise ProgramError(
                f"{folder / name}: is not what was written with {PROGRAM_FILE}: its hash is not the one in "
                f"{DEPLOYMENT_FILE}.",
                remedy=f"run: neurodeploy compile MODEL --out {folder}",
                code="mixed-folder",
            )
    return deployment
