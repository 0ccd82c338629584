"""Accuracy, latency and SynOps of a converted network on the chip: the event-driven run, looked at as time goes on."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from neurodeploy.conversion.images import EncodedImages
from neurodeploy.deployment import Deployment
from neurodeploy.emulate.dataset import map_recordings
from neurodeploy.errors import ConvertError
from neurodeploy.events.array import EventArray
from neurodeploy.target import Execution

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LatencyPoint:
    """The answers after so much of every recording.

    Attributes:
        latency_us: how long the image was shown, microseconds.
        accuracy: share of the images answered with their label (most output spikes so far; on a tie the lowest class).
        synops: SynOps per image so far.
        spikes: spikes per image so far, all layers.
    """

    latency_us: int
    accuracy: float
    synops: float
    spikes: float


@dataclass(frozen=True)
class LatencyCurve:
    """The points, with what they were measured on."""

    points: tuple[LatencyPoint, ...]
    images: int
    source: str
    target: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**self.__dict__, "points": [asdict(point) for point in self.points]}


def latency_curve(
    deployment: Deployment,
    recordings: EncodedImages,
    latencies_us: Sequence[int],
    *,
    threads: int = 1,
    slow_clock_hz: float | None = None,
    progress: Progress = lambda done, total: None,
) -> LatencyCurve:
    """Run every image event by event and read the answer at each latency.

    Args:
        deployment: the compiled network.
        recordings: encoded images.
        latencies_us: when to read, increasing, in microseconds.
        threads: images worked on at the same time; the result does not depend on it.
        slow_clock_hz: ticks per second of the slow clock, for networks with biases.
        progress: called with (images done, images in all).

    Raises:
        ConvertError: latencies not increasing, or longer than an image is shown.
    """
    latencies = [0, *latencies_us]
    if (
        len(latencies) < 2
        or any(b <= a for a, b in pairwise(latencies))
        or latencies[-1] > recordings.coding.duration_us
    ):
        raise ConvertError(
            f"latencies_us {list(latencies_us)}; an image is shown for {recordings.coding.duration_us} us.",
            remedy="give increasing times above 0 that end within the recording.",
            code="latencies",
        )
    program = deployment.program
    n = len(recordings)
    right = np.zeros((len(latencies_us), n), bool)
    synops = np.zeros((len(latencies_us), n), np.int64)
    spikes = np.zeros((len(latencies_us), n), np.int64)
    done = 0

    def make_worker() -> Callable[[EventArray], list[Execution]]:
        executor = deployment.executor(slow_clock_hz=slow_clock_hz)

        def work(events: EventArray) -> list[Execution]:
            executor.reset()
            places = np.searchsorted(events["t"], latencies)
            return [
                executor.run(events[first:stop], record=(), until_us=None if slow_clock_hz is None else end)
                for (first, stop), end in zip(pairwise(places), latencies_us, strict=True)
            ]

        return work

    def observe(index: int, pieces: list[Execution]) -> None:
        nonlocal done
        output = np.zeros(int(np.prod(program.layer_shape(program.layers[-1]))), np.int64)
        for look, ran in enumerate(pieces):
            output += ran.counts[program.layers[-1]].ravel()
            right[look, index] = output.argmax() == recordings.images.labels[index]
            synops[look, index] = sum(counters["synops"] for counters in ran.counters.values())
            spikes[look, index] = sum(int(counts.sum()) for counts in ran.counts.values())
        done += 1
        progress(done, n)

    map_recordings(make_worker, recordings, observe, threads=threads)
    totals = synops.cumsum(0).mean(1), spikes.cumsum(0).mean(1)
    points = tuple(
        LatencyPoint(int(latency), float(right[i].mean()), float(totals[0][i]), float(totals[1][i]))
        for i, latency in enumerate(latencies_us)
    )
    return LatencyCurve(points, n, recordings.images.source, deployment.target)
