"""A float graph into integers: the passes in order, then one scale per layer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.errors import ProgramError, QuantizeError
from neurodeploy.files import read_json, write_json
from neurodeploy.graph.file import load_graph, save_graph
from neurodeploy.graph.graph import Graph, Pass
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Feedback, Input, Linear, Neuron, Node, Output, Relu, SumPool2d
from neurodeploy.quantize.calibration import Calibration, LayerCalibration
from neurodeploy.quantize.folding import fold_average_pool, fold_batch_norm, fold_input_gain
from neurodeploy.quantize.kinds import check_kinds
from neurodeploy.quantize.layer import LayerQuantization, QuantizationSpec, quantize_layer
from neurodeploy.quantize.linear_to_conv import linear_to_conv
from neurodeploy.quantize.merging import merge_sums

#: The passes that ``quantize`` runs before rounding, in order.
PASSES: tuple[Pass, ...] = (fold_batch_norm, linear_to_conv, fold_average_pool, merge_sums, fold_input_gain)

GRAPH_FILE, REPORT_FILE = "quantized.onnx", "quantize.json"

#: Called with each step's name and its description when the step is done.
OnStep = Callable[[str, str], None]


@dataclass(frozen=True)
class Quantized:
    """A network in integers.

    Attributes:
        graph: Input, Conv2d (integer weight ``[out, in, ky, kx]`` and bias ``[out]`` or None), Neuron (integer
            ``threshold`` and ``v_min``, scalars), SumPool2d, Add, Concat, Feedback and Output; all shapes are
            ``(C, H, W)``.
        layers: weight layer -> what rounding did to it, in network order.
        spec: the widths.
    """

    graph: Graph
    layers: Mapping[str, LayerQuantization]
    spec: QuantizationSpec

    @property
    def notes(self) -> tuple[str, ...]:
        """What importers, passes and rounding assumed, changed or lost, in words."""
        return (*self.graph.notes, *(warning for layer in self.layers.values() for warning in layer.warnings))

    def report(self) -> dict[str, Any]:
        """Everything but the arrays as plain data, ready for JSON."""
        return {
            **asdict(self.spec),
            "passes": [step.__name__ for step in PASSES],
            "layers": [layer.to_dict() for layer in self.layers.values()],
            "notes": list(self.notes),
        }

    def save(
        self,
        folder: str | Path,
        *,
        annotations: Mapping[str, Mapping[str, str]] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``quantized.onnx`` and ``quantize.json`` into ``folder``; ``annotations`` as for ``save_graph``.

        The widths, the passes and the scale of each layer are part of the file's provenance.
        """
        origin = {**self._origin(), **(provenance or {})}
        save_graph(self.graph, Path(folder) / GRAPH_FILE, annotations=annotations, provenance=origin)
        write_json(Path(folder) / REPORT_FILE, self.report())

    def save_qdq(self, path: str | Path) -> None:
        """Write the network in the units of the float network, as ``.onnx`` with ``DequantizeLinear`` (QDQ).

        It simulates the quantization in float32 for tools that read that form: the integers of the file divided by
        the scale of their layer.
        """
        layers = self.layers.values()
        scales = {name: float(layer.scale) for layer in layers for name in (layer.layer, layer.neuron)}
        save_graph(self.graph, path, provenance=self._origin(), scales=scales)

    def _origin(self) -> dict[str, Any]:
        return {
            **asdict(self.spec),
            "passes": [step.__name__ for step in PASSES],
            "scales": {name: float(layer.scale) for name, layer in self.layers.items()},
        }


def load_quantized(folder: str | Path) -> Quantized:
    """Read what ``Quantized.save`` wrote.

    Raises:
        GraphError, ProgramError: a file is missing, damaged or not what ``save`` writes.
    """
    path = Path(folder) / REPORT_FILE
    report = read_json(path)
    try:
        layers = [LayerQuantization.from_dict(layer) for layer in report["layers"]]
        spec = QuantizationSpec(**{field.name: int(report[field.name]) for field in fields(QuantizationSpec)})
    except (KeyError, TypeError, ValueError) as error:
        raise ProgramError(
            f"{path}: not a quantization report ({type(error).__name__}: {error}).",
            remedy="quantize or compile the network again.",
            code="quantize-report",
        ) from error
    return Quantized(load_graph(Path(folder) / GRAPH_FILE), {layer.layer: layer for layer in layers}, spec)


def quantize(
    graph: Graph,
    spec: QuantizationSpec | None = None,
    *,
    v_min: str | float | None = None,
    calibration: Calibration | None = None,
    allow_recurrence: bool = False,
    on_step: OnStep = lambda name, text: None,
) -> Quantized:
    """Turn a float network into integers, layer by layer (method: sinabs' ``discretize``; see ``README.md``).

    Args:
        graph: a float network; every Conv2d or Linear has a Neuron of its own behind it.
        spec: integer widths; the default is that of DynapCNN and Speck.
        v_min: lower bound of the potential for every neuron layer. None: the network's own. ``"-threshold"``: minus the
            layer's threshold. ``"lowest"``: the lowest number of the state word. A number: that potential, in the
            units of the network.
        calibration: layer -> what calibration on data chose for it; layers it does not name are as trained.
        allow_recurrence: take networks with loops; on an event-driven chip they mean something else.
        on_step: called with the name and the description of each pass when it is done.

    Raises:
        QuantizeError: the network cannot be expressed in integers; the message names the layer and the remedy.
    """
    spec = QuantizationSpec() if spec is None else spec
    check_kinds(graph, allow_recurrence)
    for name, node in graph.nodes.items():
        if isinstance(node, Conv2d | Linear) and node.weight.dtype.kind != "f":
            raise QuantizeError(
                f"{name}: its weights are {node.weight.dtype} already.",
                remedy="quantize the float network.",
                code="integers",
            )
    graph = with_v_min(graph, v_min)
    for step in PASSES:
        graph = step(graph)
        on_step(step.__name__, (step.__doc__ or "").split("\n", 1)[0])
    changed: dict[str, Node] = {}
    layers: dict[str, LayerQuantization] = {}
    found = _layers(graph)
    calibration = calibration or {}
    if unknown := set(calibration) - {name for name, *_ in found}:
        raise QuantizeError(
            f"the calibration names {', '.join(sorted(unknown))}; the weight layers are "
            f"{', '.join(name for name, *_ in found)}.",
            remedy="calibrate this network, not another.",
            code="calibration",
        )
    for name, layer, neuron_name, neuron in found:
        changed[name], changed[neuron_name], layers[name] = quantize_layer(
            name, layer, neuron_name, neuron, spec, calibration.get(name, LayerCalibration())
        )
    on_step("quantize", "round every layer to integers with one scale")
    return Quantized(graph.with_nodes(changed), layers, spec)


def with_v_min(graph: Graph, v_min: str | float | None) -> Graph:
    """The network with another lower bound of the potential in every neuron layer.

    Args:
        graph: a float network.
        v_min: as for ``quantize``; None changes nothing.

    Raises:
        QuantizeError: ``v_min`` is none of these.
    """
    if v_min is None:
        return graph
    if v_min not in ("-threshold", "lowest"):
        try:
            v_min = float(v_min)
            if not np.isfinite(v_min):
                raise ValueError("not finite")
        except (TypeError, ValueError) as error:
            raise QuantizeError(
                f"v_min is {v_min!r}.",
                remedy="give '-threshold', 'lowest', a negative number, or nothing.",
                code="v-min",
            ) from error
    changed: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Neuron):
            if v_min == "lowest":
                changed[name] = replace(node, v_min=None)
            elif v_min == "-threshold":
                changed[name] = replace(node, v_min=-node.threshold)
            else:
                changed[name] = replace(node, v_min=np.array(v_min, np.float32))
    return graph.with_nodes(changed, notes=[f"v_min of every neuron layer set to {v_min}."])


def _layers(graph: Graph) -> list[tuple[str, Conv2d, str, Neuron]]:
    """The weight layers and their neurons. Every Conv2d feeds one Neuron alone, and nothing else computes."""
    layers: list[tuple[str, Conv2d, str, Neuron]] = []
    for name, node in graph.nodes.items():
        if isinstance(node, Conv2d):
            after = [(other, graph.nodes[other]) for other in graph.successors(name)]
            match after:
                case [(neuron_name, Neuron() as neuron)]:
                    layers.append((name, node, neuron_name, neuron))
                case _:
                    found = ", ".join(f"{other} ({other_node.kind})" for other, other_node in after)
                    remedy = "put nd.nn.IAF directly behind it, before any pooling (the output layer too)."
                    if any(isinstance(other_node, Relu) for _, other_node in after):
                        remedy = "this is an ANN: convert it to spiking neurons first (neurodeploy convert)."
                    raise QuantizeError(
                        f"{name}: a weight layer needs spiking neurons of its own directly behind it; "
                        f"behind it: {found}.",
                        remedy=remedy,
                        code="no-neuron",
                    )
        elif isinstance(node, Neuron):
            (before,) = graph.predecessors(name)
            if not isinstance(graph.nodes[before], Conv2d):
                raise QuantizeError(
                    f"{name}: neurons need a Conv2d or Linear directly before them; before it is {before} "
                    f"({graph.nodes[before].kind}).",
                    remedy="put a Conv2d or Linear before it, and pooling behind it.",
                    code="no-weights",
                )
        elif not isinstance(node, Input | Output | SumPool2d | Add | Concat | Feedback):
            raise QuantizeError(
                f"{name}: a {node.kind} cannot be expressed in integers.", remedy="remove it.", code="unsupported-node"
            )
    if not layers:
        raise QuantizeError(
            "the network has no Conv2d or Linear.", remedy="there is nothing to deploy; add a layer.", code="no-weights"
        )
    return layers
