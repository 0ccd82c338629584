"""The accuracy gap between the trained network and the chip, split by cause: runs in which one thing changes at a time.

Why these runs and in this order: ``README.md`` in this folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment, deploy_integers
from neurodeploy.events.dataset import EventDataset
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Neuron, Node
from neurodeploy.quantize.dequantize import dequantize
from neurodeploy.quantize.integers import Quantized
from neurodeploy.validation.runs import Progress, Run, event_driven_run, time_stepped_run

#: Cause of each bar, in the order of the runs -> what changes in it.
BARS: Mapping[str, str] = {
    "weight-rounding": "weights and biases rounded to integers",
    "threshold-rounding": "threshold (calibrated, if it was) and trained v_min rounded to integers",
    "v_min-lifted": "v_min lifted to the lowest number the chip holds; still in time steps",
    "events": "events one by one instead of time steps, without v_min: order in a step, one spike per event",
    "v_min-per-event": "v_min as deployed, applied at every event",
}


@dataclass(frozen=True)
class Bar:
    """What one change did to the answers.

    Attributes:
        cause: a key of ``BARS``.
        correct_before, correct_after: recordings answered with their label before and after the change.
        gained: recordings that became right.
        lost: recordings that became wrong.
        points: change of the accuracy in percentage points.
    """

    cause: str
    correct_before: int
    correct_after: int
    gained: int
    lost: int
    points: float


@dataclass(frozen=True)
class Waterfall:
    """The gap from the float network to the event-driven chip, one bar per change; the bars sum to the gap exactly.

    Attributes:
        labels: int64 ``[recordings]``.
        answers: for the float network and after each change, in the order of ``BARS``: int64 ``[recordings]``.
    """

    labels: NDArray[np.int64]
    answers: Sequence[NDArray[np.int64]]

    @property
    def bars(self) -> list[Bar]:
        """One bar per change, in order."""
        right = [answer == self.labels for answer in self.answers]
        return [
            Bar(
                cause=cause,
                correct_before=int(before.sum()),
                correct_after=int(after.sum()),
                gained=int((after & ~before).sum()),
                lost=int((before & ~after).sum()),
                points=100 * (int(after.sum()) - int(before.sum())) / len(self.labels),
            )
            for cause, before, after in zip(BARS, right[:-1], right[1:], strict=True)
        ]

    @property
    def points(self) -> dict[str, float]:
        """Percentage points by cause; both bars of ``v_min`` in one sum."""
        sums: dict[str, int] = {}
        for bar in self.bars:
            name = "v_min" if bar.cause.startswith("v_min") else bar.cause
            sums[name] = sums.get(name, 0) + bar.correct_after - bar.correct_before
        return {name: 100 * change / len(self.labels) for name, change in sums.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "recordings": len(self.labels),
            "bars": [{**asdict(bar), "description": BARS[bar.cause]} for bar in self.bars],
            "points": self.points,
        }


class GapRuns:
    """The runs of a waterfall that a validation has not made already.

    Args:
        deployment: the compiled network.
        reference: the float network.
        made: run name -> what was executed, for the runs the validation makes: a graph in time steps, or a deployment
            event by event.
    """

    def __init__(self, deployment: Deployment, reference: Graph, made: Mapping[str, Graph | Deployment]) -> None:
        chain: list[Graph | Deployment] = [
            reference,
            dequantize(deployment.quantized, deployment.graph),
            _with_bounds(deployment.quantized, _trained_bounds(deployment)),
            _with_bounds(deployment.quantized, _lowest_bounds(deployment.quantized)),
            _without_v_min(deployment),
            deployment,
        ]
        self._work: dict[str, Graph | Deployment] = dict(made)
        self._names = [self._name(work, index) for index, work in enumerate(chain)]
        self.missing = {name: self._work[name] for name in self._names if name not in made}

    def _name(self, work: Graph | Deployment, index: int) -> str:
        """The name of an equal run, or a new one."""
        for name, other in self._work.items():
            if work is other or (isinstance(work, Graph) and isinstance(other, Graph) and _equal(work, other)):
                return name
        self._work[f"waterfall {index}"] = work
        return f"waterfall {index}"

    def waterfall(
        self,
        made: Mapping[str, Run],
        dataset: EventDataset,
        neurons: Mapping[str, str],
        *,
        dt_us: int,
        threads: int = 1,
        slow_clock_hz: float | None = None,
        progress: Progress = lambda done, total: None,
    ) -> Waterfall:
        """Make the missing runs and split the gap; arguments as for ``validate``."""
        answers = {name: run.predictions for name, run in made.items()}
        total = len(self.missing) * len(dataset)
        for position, (name, work) in enumerate(self.missing.items()):

            def advance(done: int, _: int, before: int = position * len(dataset)) -> None:
                progress(before + done, total)

            if isinstance(work, Graph):
                run = time_stepped_run(work, dataset, neurons, dt_us=dt_us, progress=advance)
            else:
                run = event_driven_run(work, dataset, threads=threads, slow_clock_hz=slow_clock_hz, progress=advance)
            answers[name] = run.predictions
        labels = np.asarray(dataset.labels, np.int64)
        return Waterfall(labels, [answers[name] for name in self._names])


def _equal(a: Graph, b: Graph) -> bool:
    return a.edges == b.edges and dict(a.nodes) == dict(b.nodes)


def _lowest_bounds(quantized: Quantized) -> dict[str, int]:
    return dict.fromkeys(quantized.layers, -(2 ** (quantized.spec.state_bits - 1)))


def _trained_bounds(deployment: Deployment) -> dict[str, int]:
    """Layer -> the trained ``v_min`` in the layer's integers; the lowest number where there is none."""
    bounds = _lowest_bounds(deployment.quantized)
    for name, layer in deployment.quantized.layers.items():
        neuron = deployment.graph.nodes[layer.neuron]
        if isinstance(neuron, Neuron) and neuron.v_min is not None:
            integer = np.rint(np.float32(np.ravel(neuron.v_min)[0]) * np.float32(layer.scale))
            bounds[name] = max(int(integer), bounds[name])
    return bounds


def _with_bounds(quantized: Quantized, bounds: Mapping[str, int]) -> Graph:
    changed: dict[str, Node] = {}
    for name, layer in quantized.layers.items():
        neuron = quantized.graph.nodes[layer.neuron]
        if isinstance(neuron, Neuron):
            kind = neuron.threshold.dtype if neuron.v_min is None else neuron.v_min.dtype
            changed[layer.neuron] = replace(neuron, v_min=np.array(bounds[name], kind))
    return quantized.graph.with_nodes(changed)


def _without_v_min(deployment: Deployment) -> Deployment:
    """The same integers on the same cores with the lowest bounds; the deployment itself where it has them already."""
    quantized = deployment.quantized
    bounds = _lowest_bounds(quantized)
    if all(layer.v_min_integer == bounds[name] for name, layer in quantized.layers.items()):
        return deployment
    layers = {name: replace(layer, v_min=None, v_min_integer=bounds[name]) for name, layer in quantized.layers.items()}
    lifted = Quantized(_with_bounds(quantized, bounds), layers, quantized.spec)
    cores = {name: configured.core for name, configured in deployment.layers.items()}
    options = replace(deployment.options, layer2core_map=cores)
    return deploy_integers(deployment.graph, lifted, deployment.load_target(), options)
