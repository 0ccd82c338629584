"""``neurodeploy compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.output import say, table
from neurodeploy.cli.recordings import one_recording
from neurodeploy.cli.verb import Options, verb
from neurodeploy.deployment import GRAPH_FILE, open_deployment
from neurodeploy.errors import CheckFailed, ConfigError
from neurodeploy.graph.difference import Change, GraphDifference, difference
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.recorded_file import read_recorded
from neurodeploy.validation.run_difference import FieldChange, run_difference


class CompareOptions(Options):
    """Options of ``neurodeploy compare``."""

    a: Path = Field(description="a network (.onnx, .nir) or a run folder.")
    b: Path = Field(
        description="what to compare it with: the same; or events_hw.npz, the chip's spikes from 'neurodeploy deploy'."
    )
    ignore_names: bool = Field(False, description="networks whose layers only have other names are equal.")
    reset: Literal["subtract", "zero", "none"] | None = Field(
        None, description="what a spike does to the potential, where a .nir file leaves it open."
    )
    dt_us: float | None = Field(None, gt=0, description="time step in microseconds, for .nir files that need one.")
    scheme: Literal["euler", "zoh", "exp_delta"] | None = Field(
        None, description="how neurons that leak become steps, for .nir files; see graph/README.md."
    )
    events: Path | None = Field(None, description="the recording that the chip was given; only for events_hw.npz.")
    index: int | None = Field(None, ge=0, description="which recording of a data set.")
    slow_clock_hz: float | None = Field(None, gt=0, description="rate of the slow clock, for networks with biases.")
    min_equal: float | None = Field(
        None, ge=0, le=1, description="fail (exit code 1) below this share of neurons with equal counts in any layer."
    )


@verb(CompareOptions, arguments=2)
def command(options: CompareOptions) -> dict[str, Any]:
    """Say in words what differs between two networks or two run folders, or between a chip's spikes and the emulator's.

    Networks: layers, connections, weights, thresholds. Run folders: these, and integers, cores, fields of the program,
    accuracy. Exit code 0 if they are equal, 1 if not.

    With events_hw.npz as B, the spikes that the chip recorded are compared with those of A's emulator, neuron by
    neuron, in every monitored layer; exit code 1 only with --min-equal.
    """
    if options.b.suffix == ".npz":
        return _chip(options)
    if options.a.is_dir() and options.b.is_dir():
        return _runs(options)
    found = difference(_network(options.a, options), _network(options.b, options))
    result = {"kind": "networks", **found.to_dict()}
    _say_changes(f"{options.b}, compared with {options.a}", found.changes)
    return _outcome(options, found.equal, [found], result)


def _network(path: Path, options: CompareOptions) -> Graph:
    """A network file; of a run folder the float network."""
    given = {key: getattr(options, key) for key in ("reset", "dt_us", "scheme")}
    path = path / GRAPH_FILE if path.is_dir() else path
    suits = path.suffix == ".nir"
    return load(path, **{key: value for key, value in given.items() if suits and value is not None})


def _runs(options: CompareOptions) -> dict[str, Any]:
    found = run_difference(options.a, options.b)
    for title, changes in (
        ("network", found.graph.changes),
        ("network in integers", () if found.integers is None else found.integers.changes),
        ("files", found.files),
        ("cores", found.cores),
        ("program", found.program),
        ("accuracy", found.accuracy),
    ):
        if changes:
            _say_changes(f"{title}: {options.b}, compared with {options.a}", changes)
    graphs = [found.graph] if found.integers is None else [found.graph, found.integers]
    fields_equal = not (found.files or found.cores or found.program or found.accuracy)
    result = {"kind": "runs", **found.to_dict()}
    return _outcome(options, fields_equal and all(graph.equal for graph in graphs), graphs, result, fields_equal)


def _outcome(
    options: CompareOptions,
    equal: bool,
    graphs: Sequence[GraphDifference],
    result: dict[str, Any],
    fields_equal: bool = True,
) -> dict[str, Any]:
    same = equal or (options.ignore_names and fields_equal and all(graph.equal_up_to_names for graph in graphs))
    if not same:
        only_names = fields_equal and all(graph.equal_up_to_names for graph in graphs)
        raise CheckFailed(
            f"{options.a} and {options.b} differ" + (" in the names of layers only." if only_names else "."),
            remedy="--ignore-names lets other names pass." if only_names else "see the list of differences.",
            code="differs",
            result=result,
        )
    say(f"{options.a} and {options.b} are equal" + ("." if equal else " up to the names of layers."))
    return result


def _say_changes(title: str, changes: Sequence[Change] | Sequence[FieldChange]) -> None:
    rows = [(change.layer if isinstance(change, Change) else change.name, change.text) for change in changes]
    if rows:
        table(title, ("where", "what"), rows)


def _chip(options: CompareOptions) -> dict[str, Any]:
    """The recorded spikes of a chip against the emulator's."""
    if options.events is None:
        raise ConfigError(
            f"{options.b} holds spikes of a chip; to compare them, the recording that the chip was given is needed.",
            remedy="give --events RECORDING.",
            code="events-needed",
        )
    deployment = open_deployment(options.a)
    events, _, until_us = one_recording(options.events, options.index, deployment.program.input_shape)
    comparison = nd.compare_with_chip(
        deployment, read_recorded(options.b), events, slow_clock_hz=options.slow_clock_hz, until_us=until_us
    )
    table(
        f"{options.b}: {len(events)} events",
        ("layer", "chip spikes", "emulated", "sum abs diff", "largest", "at (c, y, x)", "neurons equal"),
        [
            (
                row.layer,
                row.chip_spikes,
                row.emulated_spikes,
                row.sum_abs_difference,
                row.max_abs_difference,
                row.worst or "none",
                f"{100 * row.equal_share:.2f} %",
            )
            for row in comparison.layers.values()
        ],
    )
    result = comparison.to_dict()
    if options.min_equal is not None and comparison.equal_share < options.min_equal:
        raise CheckFailed(
            f"{100 * comparison.equal_share:.2f} % of a layer's neurons fired as often as in the emulator; "
            f"--min-equal asks for {100 * options.min_equal:.2f} %.",
            remedy="see the table for the layer and the neuron; a silent or shifted layer is an error.",
            code="min-equal",
            result=result,
        )
    say("spike times are not compared: the kit's include the transfer")
    return result
