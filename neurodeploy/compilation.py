"""The verbs compile and open for chips of every kind: what runs integers and events, and what runs spike times."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from neurodeploy.analog.deployment import AnalogDeployment, compile_analog, open_analog
from neurodeploy.compile_options import DEFAULT, CompileOptions
from neurodeploy.deployment import PROGRAM_FILE, Deployment, compile_with, open_deployment
from neurodeploy.errors import ConfigError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.mapping.placement import CoreChoice, Split
from neurodeploy.program_file import program_target
from neurodeploy.quantize.calibration import Calibration, load_calibration
from neurodeploy.quantize.integers import OnStep
from neurodeploy.target import Target, load_target


def compile(
    graph: Graph | str | Path,
    *,
    target: str | Path | Target = "speck2f",
    v_min: str | float | None = None,
    bias_bits: int | None = None,
    calibration: Calibration | str | Path | None = None,
    layer2core_map: CoreChoice = "auto",
    split: Split = "auto",
    monitor_layers: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    allow_recurrence: bool = False,
    on_step: OnStep = lambda name, text: None,
) -> Deployment | AnalogDeployment:
    """Quantize, map and lower a network.

    A graph of neurons in continuous time is for an analog chip, one of time steps for a chip of integers and events.

    Args:
        graph: a graph, or the path of one.
        target: name of the chip (``neurodeploy targets`` lists them), or the path of a ``chip.yaml``.
        v_min: lower bound of the potential. None: the network's own, and none where the network has none;
            ``"-threshold"``; ``"lowest"``: the lowest number of the chip's state word; a number in the network's units.
        bias_bits: range the biases are scaled to. None: that of the chip's description, which is sinabs' 8 bits for
            Speck; its hardware holds 16, with which a large bias does not coarsen the weights.
        calibration: what ``nd.calibrate`` chose, or the path of its ``calibration.json``; None: as trained.
        layer2core_map: ``"auto"`` finds a placement whenever one exists; or core numbers, one per layer in network
            order; or a mapping from layer name, or name of a part such as ``conv2[0:32]``, to core.
        split: ``"auto"`` splits a layer by its output features over several cores where there is no placement
            otherwise, and says so in ``notes``; ``"never"`` refuses the network instead.
        monitor_layers: layers whose spikes the host sees; by default the output layers.
        settings: what else is set on the chip, name -> value; for Speck ``dvs`` (the sensor's pre-processing),
            ``readout``, ``decimators`` and ``synops`` (busy layers go to fast cores), see
            ``targets/dynapcnn/README.md``. For analog chips ``allow_error`` and others, see
            ``targets/analog/README.md``; they take no option but this.
        allow_recurrence: take networks with loops. On an event-driven chip a spike comes back at once instead of one
            time step later, and a loop may deadlock it; ``notes`` say so.
        on_step: called after each step.

    Raises:
        GraphError, QuantizeError, ConstraintError, MappingError, ConfigError: the network does not fit the chip; the
            message names the layer, the rule, value, limit and remedy.
    """
    target = load_target(target) if isinstance(target, str | Path) else target
    if isinstance(graph, str | Path):
        continuous = target.code.analog and Path(graph).suffix == ".nir"
        graph = load(graph, continuous_time=True) if continuous else load(graph)
    if not isinstance(graph, Graph):
        raise ConfigError(
            f"compile takes a graph or the path of one; this is a {type(graph).__name__}.",
            remedy="give nd.trace(module, sample) for a torch module, or nd.load(path).",
            code="not-a-graph",
        )
    if isinstance(calibration, str | Path):
        calibration = load_calibration(calibration)
    options = CompileOptions(
        v_min, bias_bits, calibration, layer2core_map, split, monitor_layers, settings, allow_recurrence
    )
    if not target.code.analog:
        return compile_with(graph, target, options, on_step=on_step)
    refuse_options(options, target)
    return compile_analog(graph, target, settings, on_step=on_step)


def refuse_options(options: CompileOptions, target: Target) -> None:
    """Refuse options that an analog chip has no use for.

    Raises:
        ConfigError: another option than the settings is given.
    """
    given = [
        field.name
        for field in fields(options)
        if field.name != "settings" and getattr(options, field.name) != getattr(DEFAULT, field.name)
    ]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: {target.name} is an analog chip, which has no such option.",
            remedy="leave it out; what else is set on an analog chip are its settings.",
            code="analog-option",
        )


def open(folder: str | Path) -> Deployment | AnalogDeployment:
    """Read a deployment that ``save`` wrote.

    Raises:
        ConfigError: the folder does not exist or holds no program.
        GraphError, ProgramError: another file is missing, or one is damaged, edited, of another version or of another
            network than the rest.
    """
    path = Path(folder) / PROGRAM_FILE
    if path.is_file() and program_target(path).code.analog:
        return open_analog(folder)
    return open_deployment(folder)
