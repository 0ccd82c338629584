"""``nd.convert``: an ANN into a spiking network, and a report of how well its spikes follow the ANN."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.conversion.balance import Floats, Per, Units, activation_scales, ann_layers, spiking_graph
from neurodeploy.conversion.images import Coding, EncodedImages, Images
from neurodeploy.conversion.pooling import pool_into_linear
from neurodeploy.errors import ConvertError
from neurodeploy.files import write_json
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.graph.nodes import Output

REPORT_FILE = "convert.json"

Balance = Literal["max", "percentile", "rates"]


@dataclass(frozen=True)
class ConvertedLayer:
    """One layer of the ANN and the neurons it became.

    Attributes:
        layer, neuron: their names.
        scale_min, scale_max: activation that the rate of a full-brightness pixel stands for, over the channels.
        gain: mean factor on the weights beyond balancing (``balance="rates"``).
        activation: mean activation of the ANN.
        rate_expected, rate: mean spikes per neuron and time step: what the activation asks for, and what was simulated.
        error: after each number of time steps of the report, distance of the rates from the expected ones, relative to
            these (L2 over images and neurons).
        silent: share of neurons that never fired on any image.
    """

    layer: str
    neuron: str
    scale_min: float
    scale_max: float
    gain: float
    activation: float
    rate_expected: float
    rate: float
    error: tuple[float, ...]
    silent: float


@dataclass(frozen=True)
class Conversion:
    """A converted network and its report.

    Attributes:
        graph: the spiking network.
        coding: how images become events for it.
        layers: one row per layer, in network order.
        steps: numbers of time steps at which errors and accuracy were taken.
        accuracy_ann: share of the images the ANN answers with their label.
        accuracy: the same for the spiking network in time steps, after each of ``steps``.
        agreement: share of the images it answers like the ANN, after each of ``steps``.
        images, source: how many images, and where they came from.
    """

    graph: Graph
    coding: Coding
    layers: tuple[ConvertedLayer, ...]
    steps: tuple[int, ...]
    accuracy_ann: float
    accuracy: tuple[float, ...]
    agreement: tuple[float, ...]
    images: int
    source: str

    def to_dict(self) -> dict[str, Any]:
        """``convert.json``."""
        values = {name: value for name, value in self.__dict__.items() if name != "graph"}
        return {
            **values,
            "coding": asdict(self.coding),
            "layers": [asdict(layer) for layer in self.layers],
            "notes": list(self.graph.notes),
        }

    def save(self, folder: str | Path) -> None:
        """Write ``convert.json`` into ``folder``."""
        write_json(Path(folder) / REPORT_FILE, self.to_dict())


def convert(
    graph: Graph | str | Path,
    images: Images,
    *,
    coding: Coding | None = None,
    balance: Balance = "percentile",
    percentile: float = 99.9,
    per: Per = "layer",
    input_scale: float = 1.0,
    initial_v: float = 0.0,
) -> Conversion:
    """Turn an ANN into a network of integrate-and-fire neurons whose spike rates follow the ANN's activations.

    Batch normalisation is folded, every ReLU becomes neurons with soft reset and threshold 1, the output layer gets
    neurons too, and the weights are balanced on the images (Diehl et al., IJCNN 2015; Rueckauer et al., Front.
    Neurosci. 2017).

    Args:
        graph: an ANN: ``nd.load("net.onnx")``, ``nd.trace`` of a torch module with ReLU, or a path.
        images: calibration images with labels, none of those the result is judged on.
        coding: how images become events; the biases depend on it.
        balance: "max": the largest activation becomes the rate of a full-brightness pixel; "percentile": the given
            percentile does; "rates": percentile, then each layer's weights are multiplied so that its simulated rate
            is the expected one.
        percentile: in (0, 100].
        per: one scale per "channel" or per "layer".
        input_scale: factor on images in 0..1 before the ANN's first layer: 255 for a network trained on bytes.
        initial_v: potential every neuron starts with, as a share of the threshold, in [0, 1); 0.5 rounds instead of
            cutting off, which helps at low latency.

    Raises:
        ConvertError: the network is not of the kind that can be converted, or an option is out of range; the message
            names the layer and the remedy.
    """
    from neurodeploy.conversion.torch_ann import activations
    from neurodeploy.conversion.torch_simulate import simulate

    graph = load(graph) if isinstance(graph, str | Path) else graph
    coding = coding or Coding()
    if balance not in ("max", "percentile", "rates") or not 0 <= initial_v < 1 or not input_scale > 0:
        raise ConvertError(
            f"balance {balance!r}, initial_v {initial_v}, input_scale {input_scale}.",
            remedy="balance is 'max', 'percentile' or 'rates'; initial_v lies in [0, 1); input_scale is positive.",
            code="convert-option",
        )
    ann, layers = ann_layers(pool_into_linear(graph))
    check_images(graph, images)
    values = activations(ann, images, [units.value for units in layers], input_scale=input_scale)
    scales = activation_scales(ann, layers, values, percentile=100.0 if balance == "max" else percentile, per=per)
    recordings = EncodedImages(images, coding)
    steps = _steps(coding.steps)
    gains: dict[str, Floats] = {}

    def spiking() -> Graph:
        return spiking_graph(
            ann,
            layers,
            scales,
            gains,
            input_scale=input_scale,
            spikes_per_step=coding.spikes_per_step,
            initial_v=initial_v,
        )

    if balance == "rates":
        for units in layers:
            counts = simulate(spiking(), recordings, steps[-1:])[units.neuron][0]
            expected = _positive(values[units.value]) * coding.spikes_per_step * steps[-1]
            gain = float((expected / _channels(scales[units.layer], expected)).sum()) / max(float(counts.sum()), 1.0)
            gains[units.layer] = np.full(1, float(np.clip(gain, 0.5, 2.0)))
    converted = spiking()
    counts_at = simulate(converted, recordings, steps)
    rows = tuple(_row(units, values, scales, gains, counts_at, coding, steps) for units in layers)
    silent = [row.layer for row in rows if row.silent == 1]
    if silent:
        note = (
            f"no neuron of these layers fired on any of {len(images)} images: {', '.join(silent)}; show the images for "
            "longer or at a higher rate, or give images that the network knows."
        )
        converted = converted.with_nodes({}, notes=[note])
    outputs = counts_at[layers[-1].neuron].reshape(len(steps), len(images), -1).argmax(2)
    ann_answers = values[layers[-1].value].reshape(len(images), -1).argmax(1)
    return Conversion(
        graph=converted,
        coding=coding,
        layers=rows,
        steps=steps,
        accuracy_ann=float(np.mean(ann_answers == images.labels)),
        accuracy=tuple(float(np.mean(answer == images.labels)) for answer in outputs),
        agreement=tuple(float(np.mean(answer == ann_answers)) for answer in outputs),
        images=len(images),
        source=images.source,
    )


def check_images(graph: Graph, images: Images) -> None:
    """Refuse images that the network cannot take, or whose labels it has no output for.

    Raises:
        ConvertError: another size, or a label outside the network's classes.
    """
    if images.shape != graph.input_shape():
        raise ConvertError(
            f"the network takes {graph.input_shape()}, the images of {images.source} are {images.shape}.",
            remedy="give images of the network's size, channels first.",
            code="images-shape",
        )
    classes = math.prod(next(graph.shapes[name] for name, node in graph.nodes.items() if isinstance(node, Output)))
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= classes:
        raise ConvertError(
            f"{images.source}: labels are {low}..{high}, the network has {classes} outputs.",
            remedy=f"give labels from 0 to {classes - 1}.",
            code="images-labels",
        )


def _row(
    units: Units,
    values: Mapping[str, NDArray[np.float32]],
    scales: Mapping[str, Floats],
    gains: Mapping[str, Floats],
    counts: Mapping[str, NDArray[np.float32]],
    coding: Coding,
    steps: tuple[int, ...],
) -> ConvertedLayer:
    wanted, scale = _positive(values[units.value]), scales[units.layer]
    spikes = counts[units.neuron]
    per_step = wanted / _channels(scale, wanted) * coding.spikes_per_step
    size = float(np.linalg.norm(per_step)) or 1.0
    return ConvertedLayer(
        layer=units.layer,
        neuron=units.neuron,
        scale_min=float(scale.min()),
        scale_max=float(scale.max()),
        gain=float(gains.get(units.layer, np.ones(1)).mean()),
        activation=float(wanted.mean()),
        rate_expected=float(per_step.mean()),
        rate=float(spikes[-1].mean()) / steps[-1],
        error=tuple(float(np.linalg.norm(spikes[i] / step - per_step)) / size for i, step in enumerate(steps)),
        silent=float(np.mean(spikes[-1].sum(0) == 0)),
    )


def _positive(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What spikes can say of the values: neurons answer a negative output with silence."""
    result: NDArray[np.float32] = np.maximum(values, 0)
    return result


def _channels(scale: Floats, like: NDArray[np.float32]) -> Floats:
    """``scale`` ``[channels]``, to go with values ``[images, channels, ...]``."""
    return scale.reshape(-1, *([1] * (like.ndim - 2)))


def _steps(last: int) -> tuple[int, ...]:
    """About eight numbers of time steps up to the last, growing by factors."""
    return tuple(sorted({max(1, round(last * 2 ** (-k / 1.5))) for k in range(8)}))
