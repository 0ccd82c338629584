"""A compiled network: from a graph to a chip's configuration, on disk and back, and into the emulator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


from neurodeploy.emulate.run import Run
from neurodeploy.errors import ConfigError, EmulationError, ProgramError
from neurodeploy.events.array import EventArray
from neurodeploy.files import read_json, write_json
from neurodeploy.graph.file import load_graph, save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.mapping.placement import CoreChoice
from neurodeploy.program_file import read_program, write_program
from neurodeploy.quantize.integers import Quantized, quantize
from neurodeploy.quantize.layer import LayerQuantization
from neurodeploy.target import Executor, Program, Target, load_target

GRAPH_FILE, QUANTIZED_FILE, PROGRAM_FILE = "graph.safetensors", "quantized.safetensors", "program.json"
QUANTIZE_REPORT, MAPPING_REPORT = "quantize.json", "mapping.json"

#: Called with each step's name and its description when the step is done.
OnStep = Callable[[str, str], None]


@dataclass(frozen=True)
class Deployment:
    """A network compiled for a chip.

    Attributes:
        graph: the network as it was given.
        integer_graph: the same network in the chip's integers.
        quantization: layer name -> what quantization did to it, in network order.
        mapping: placement as plain data (``mapping.json``).
        program: the chip's configuration.
    """

    graph: Graph
    integer_graph: Graph
    quantization: Mapping[str, LayerQuantization]
    mapping: Mapping[str, Any]
    program: Program

    @property
    def target(self) -> str:
        """Name of the chip."""
        return self.program.target

    @property
    def layers(self) -> dict[str, Any]:
        """Layer name -> configured core, in network order."""
        return {name: self.program.configuration(name) for name in self.program.layers}

    @property
    def notes(self) -> tuple[str, ...]:
        """All that was assumed, approximated or dropped on the way, in words."""
        warnings = [warning for layer in self.quantization.values() for warning in layer.warnings]
        return (*self.integer_graph.notes, *warnings, *self.mapping.get("notes", ()))

    def executor(
        self, *, switches: Mapping[str, Any] | None = None, slow_clock_hz: float | None = None
    ) -> Executor:
        """A fresh emulator of the program; it keeps its neurons' state from one ``run`` to the next.

        Args:
            switches: name -> value of what the chip's documents leave open; see the family's README.
            slow_clock_hz: ticks per second of the slow clock that adds the biases; needed when a layer has biases.
        """
        target = load_target(self.program.target)
        return target.family.executor(self.program, switches=switches, slow_clock_hz=slow_clock_hz)

    def emulate(
        self,
        events: EventArray | Any,
        *,
        record: Sequence[str] | None = None,
        switches: Mapping[str, Any] | None = None,
        slow_clock_hz: float | None = None,
    ) -> Run:
        """Run one recording, event by event, from the neurons' initial state.

        Args:
            events: structured array with the fields ``t`` (us), ``x``, ``y``, ``p``, sorted by time.
            record: layers whose spikes are kept; all by default.
            switches, slow_clock_hz: see ``executor``.

        Raises:
            EventError: malformed, unsorted or outside the network's input.
            EmulationError: the program cannot be executed on this input.
        """
        unknown = sorted(set(record or ()) - set(self.program.layers))
        if unknown:
            raise EmulationError(
                f"record names layers that do not exist: {', '.join(unknown)}.",
                remedy=f"the layers are: {', '.join(self.program.layers)}.",
                code="unknown-layer",
            )
        executor = self.executor(switches=switches, slow_clock_hz=slow_clock_hz)
        return Run(self.program, executor.run(events, record=record))

    def save(self, folder: str | Path) -> None:
        """Write graph, integers, reports and program into ``folder``; ``neurodeploy.open`` reads them back."""
        folder = Path(folder)
        save_graph(self.graph, folder / GRAPH_FILE)
        save_graph(self.integer_graph, folder / QUANTIZED_FILE)
        write_json(folder / QUANTIZE_REPORT, quantization_report(self.quantization, self.integer_graph))
        write_json(folder / MAPPING_REPORT, self.mapping)
        write_program(folder / PROGRAM_FILE, self.program)


def compile(
    graph: Graph | str | Path,
    *,
    target: str | Target = "speck2f",
    v_min: str | float | None = None,
    layer2core_map: CoreChoice = "auto",
    monitor_layers: Sequence[str] | None = None,
    on_step: OnStep = lambda name, text: None,
) -> Deployment:
    """Quantize, map and lower a network.

    Args:
        graph: a graph, or the path of one.
        target: name of the chip (``neurodeploy targets`` lists them).
        v_min: lower bound of the potential. None: the network's own, and none where the network has none;
            ``"-threshold"``; ``"lowest"``: the lowest number of the chip's state word; a number in the network's units.
        layer2core_map: ``"auto"`` finds a placement whenever one exists; or core numbers, one per layer in network
            order; or a mapping from layer name to core.
        monitor_layers: layers whose spikes the host sees; by default the output layers.
        on_step: called after each step.

    Raises:
        GraphError, QuantizeError, ConstraintError, MappingError, ConfigError: the network does not fit the chip; the
            message names the layer, the rule, value, limit and remedy.
    """
    graph = load(graph) if isinstance(graph, str | Path) else graph
    target = load_target(target) if isinstance(target, str) else target
    quantized = quantize_for(graph, target, v_min=v_min, on_step=on_step)
    mapped = target.family.map(quantized.graph, target.chip, layer2core_map)
    on_step("map", "check every rule of the chip and place the layers on its cores")
    program = target.family.lower(mapped, monitor_layers)
    on_step("lower", "write the configuration of every core")
    return Deployment(graph, quantized.graph, quantized.layers, mapped.report(), program)


def quantize_for(
    graph: Graph, target: Target, *, v_min: str | float | None = None, on_step: OnStep = lambda name, text: None
) -> Quantized:
    """Turn a float network into the integers of ``target``; the first half of ``compile``."""
    quantized = quantize(graph, target.family.quantization_spec(target.chip), v_min=v_min, on_step=on_step)
    return quantized


def open(folder: str | Path) -> Deployment:
    """Read a deployment that ``Deployment.save`` wrote.

    Raises:
        ConfigError: the folder or one of its files does not exist.
        GraphError, ProgramError: a file is damaged, edited or of another version.
    """
    folder = Path(folder)
    for name in (GRAPH_FILE, QUANTIZED_FILE, QUANTIZE_REPORT, MAPPING_REPORT, PROGRAM_FILE):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder} is not a compiled run folder: {name} is missing.",
                remedy=f"run: neurodeploy compile MODEL --out {folder}",
                code="not-compiled",
            )
    graph, integer_graph = load_graph(folder / GRAPH_FILE), load_graph(folder / QUANTIZED_FILE)
    quantization = _read_quantization(folder / QUANTIZE_REPORT)
    mapping = read_json(folder / MAPPING_REPORT)
    return Deployment(graph, integer_graph, quantization, mapping, read_program(folder / PROGRAM_FILE))


def quantization_report(layers: Mapping[str, LayerQuantization], graph: Graph) -> dict[str, Any]:
    """``quantize.json``: what rounding did to every layer, and the graph's notes."""
    return {"layers": [layer.to_dict() for layer in layers.values()], "notes": list(graph.notes)}


def _read_quantization(path: Path) -> dict[str, LayerQuantization]:
    try:
        layers = [LayerQuantization.from_dict(layer) for layer in read_json(path)["layers"]]
    except (KeyError, TypeError) as error:
        raise ProgramError(
            f"{path}: not a quantization report: {error}.", remedy="compile the network again.", code="run-folder"
        ) from error
    return {layer.layer: layer for layer in layers}
