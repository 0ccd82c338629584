"""An ANN graph as a torch module: what it answers, what its units do, and training it on."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from neurodeploy.conversion.images import Images
from neurodeploy.errors import ConvertError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Node,
    Output,
    Relu,
    SumPool2d,
)

_BATCH = 100

#: Called with (steps done, steps in all).
Progress = Callable[[int, int], None]


class AnnModule(torch.nn.Module):
    """Runs an ANN graph on images ``[B, C, H, W]``; weights and biases are parameters.

    Args:
        graph: nodes that ``neurodeploy.graph.onnx_network`` makes, or ``nd.trace`` of a torch module with ReLU.
        input_scale: factor on images in 0..1 before the first layer.

    Raises:
        ConvertError: the graph has other nodes, or several outputs.
    """

    def __init__(self, graph: Graph, input_scale: float = 1.0) -> None:
        super().__init__()
        self.graph = graph
        self.input_scale = input_scale
        self._keys = {name: f"node{position}" for position, name in enumerate(graph.nodes)}
        outputs = [name for name, node in graph.nodes.items() if isinstance(node, Output)]
        if len(outputs) != 1:
            raise ConvertError(
                f"the network has {len(outputs)} outputs: {', '.join(outputs)}.",
                remedy="use a network with one output.",
                code="several-outputs",
            )
        (self.output,) = graph.predecessors(outputs[0])
        for name, node in graph.nodes.items():
            if isinstance(node, Conv2d | Linear):
                for field in ("weight", "bias"):
                    value = getattr(node, field)
                    if value is not None:
                        parameter = torch.nn.Parameter(torch.from_numpy(np.array(value, np.float32)))
                        self.register_parameter(f"{self._keys[name]}_{field}", parameter)
            elif not isinstance(
                node, Input | Output | Relu | AvgPool2d | SumPool2d | BatchNorm2d | Flatten | Add | Concat
            ):
                raise ConvertError(
                    f"{name}: a {node.kind} does not belong in an ANN.",
                    remedy="convert networks of convolutions, linear layers, ReLU and average pooling; "
                    "a spiking network needs no conversion.",
                    code="not-an-ann",
                )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Name -> value of every node, ``[B, ...]``."""
        values: dict[str, torch.Tensor] = {}
        for name, node in self.graph.nodes.items():
            inputs = [values[source] for source in self.graph.predecessors(name)]
            values[name] = images * self.input_scale if isinstance(node, Input) else self._compute(name, node, inputs)
        return values

    def _compute(self, name: str, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        x = inputs[0]
        match node:
            case Conv2d():
                weight, bias = self._own(name, "weight"), self._own(name, "bias")
                return F.conv2d(x, self._required(weight), bias, node.stride, node.padding, node.dilation, node.groups)
            case Linear():
                return F.linear(x, self._required(self._own(name, "weight")), self._own(name, "bias"))
            case Relu():
                return F.relu(x)
            case BatchNorm2d():
                mean, variance, scale, shift = map(torch.tensor, (node.mean, node.variance, node.scale, node.shift))
                return F.batch_norm(x, mean, variance, scale, shift, eps=node.epsilon)
            case AvgPool2d():
                return F.avg_pool2d(x, node.kernel, node.stride, node.padding)
            case SumPool2d():
                return F.avg_pool2d(x, node.kernel, node.stride, node.padding, divisor_override=1)
            case Flatten():
                return x.flatten(1)
            case Add():
                return torch.stack(inputs).sum(0)
            case Concat():
                return torch.cat(inputs, 1)
            case _:
                return x

    def _own(self, name: str, field: str) -> torch.Tensor | None:
        value: torch.Tensor | None = getattr(self, f"{self._keys[name]}_{field}", None)
        return value

    @staticmethod
    def _required(value: torch.Tensor | None) -> torch.Tensor:
        if value is None:
            raise TypeError("a layer without a weight")
        return value

    def trained(self) -> Graph:
        """The graph with the module's weights and biases."""
        changed: dict[str, Node] = {}
        for name, node in self.graph.nodes.items():
            if isinstance(node, Conv2d | Linear):
                weight, bias = self._own(name, "weight"), self._own(name, "bias")
                changed[name] = replace(
                    node,
                    weight=self._required(weight).detach().numpy().copy(),
                    bias=None if bias is None else bias.detach().numpy().copy(),
                )
        return self.graph.with_nodes(changed)


def answers(graph: Graph, images: Images, *, input_scale: float = 1.0) -> NDArray[np.int64]:
    """Class with the largest output per image, int64 ``[images]``."""
    module = AnnModule(graph, input_scale)
    with torch.inference_mode():
        return np.concatenate(
            [
                module(torch.from_numpy(images.images[i : i + _BATCH]))[module.output].flatten(1).argmax(1).numpy()
                for i in range(0, len(images), _BATCH)
            ]
        )


def activations(
    graph: Graph, images: Images, names: Sequence[str], *, input_scale: float = 1.0
) -> dict[str, NDArray[np.float32]]:
    """Values of some nodes on all images: name -> float32 ``[images, ...]``."""
    module = AnnModule(graph, input_scale)
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    with torch.inference_mode():
        for i in range(0, len(images), _BATCH):
            values = module(torch.from_numpy(images.images[i : i + _BATCH]))
            for name in names:
                parts[name].append(values[name].numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}


def fine_tune(
    graph: Graph,
    images: Images,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    batch: int = 32,
    input_scale: float = 1.0,
    bias: bool = True,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Graph:
    """Train an ANN on, after a change such as average pooling instead of max pooling (cross-entropy, Adam, cosine).

    Args:
        graph: the ANN; BatchNorm2d nodes keep their statistics.
        images: labelled training images.
        epochs, learning_rate, batch: the usual; the learning rate falls to 0 as half a cosine.
        input_scale: factor on images in 0..1 before the first layer: 255 for a network trained on bytes.
        bias: False removes every bias first: the chip adds biases on a clock of its own, not with every event.
        seed: of the order of the images; the result is a function of it (on one machine and number of threads).

    Raises:
        ConvertError: the graph is no ANN, or an option is out of range.
    """
    if epochs < 1 or batch < 1 or not learning_rate > 0:
        raise ConvertError(
            f"epochs {epochs}, batch {batch}, learning_rate {learning_rate}.",
            remedy="give at least 1 epoch, batches of at least 1 and a positive learning rate.",
            code="fine-tune",
        )
    if not bias:
        graph = graph.with_nodes(
            {
                name: replace(node, bias=None)
                for name, node in graph.nodes.items()
                if isinstance(node, Conv2d | Linear) and node.bias is not None
            },
            notes=["all biases removed before training on."],
        )
    module = AnnModule(graph, input_scale)
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    total = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    labels = torch.from_numpy(images.labels)
    done = 0
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(images))
        for first in range(0, len(images), batch):
            chosen = order[first : first + batch]
            output = module(torch.from_numpy(images.images[chosen]))
            loss = F.cross_entropy(output[module.output].flatten(1), labels[torch.from_numpy(chosen)])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress(done := done + 1, total)
    note = f"trained on for {epochs} epoch{'s' if epochs > 1 else ''} on {len(images)} images of {images.source}."
    return module.trained().with_nodes({}, notes=[note])
