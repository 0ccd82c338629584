"""The sensor's pre-processing (the DVS layer): what happens to an event before it enters a core.

In the order of the Speck Dev Kit Datasheet V1.0: polarity select or merge, sum pooling, region of interest, mirror x,
mirror y, swap of the axes, event filter, up to two destinations. The samna reference and sinabs 3.1.3 name the fields.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neurodeploy.events.array import EventArray
from neurodeploy.targets.dynapcnn.switches import Switches

Pair = tuple[int, int]
MapShape = tuple[int, int, int]


@dataclass(frozen=True)
class EventFilter:
    """The filter behind the pre-processing, which passes only some events; how it decides is not documented in detail.

    Attributes:
        mode: ``"noise"``, ``"low_pass"`` or ``"noise_and_hot_pixel"``.
        size: neighbourhood (y, x) of the noise modes, 1 to 15; (0, 0) for ``"low_pass"``.
        threshold: in ticks of the slow clock.
    """

    mode: str
    size: Pair
    threshold: int


@dataclass(frozen=True)
class DvsLayer:
    """The configured pre-processing. Pairs are (y, x).

    Attributes:
        pooling: 1, 2 or 4 in each direction.
        origin, cut: first and last row and column that are kept, after pooling; both belong to the region.
        on_channel, off_channel: whether events of this polarity pass.
        merge: both polarities become feature 0.
        mirror: whether rows, and columns, are mirrored.
        mirror_diagonal: whether rows and columns are exchanged, after the mirrors.
        pass_sensor_events: whether the sensor is connected; the host's events pass either way.
        monitor_enable: whether the host sees what leaves the pre-processing (spikes of layer 13).
        raw_monitor_enable: whether the host sees what the sensor sends.
        event_filter: None for no filter.
    """

    pooling: Pair = (1, 1)
    origin: Pair = (0, 0)
    cut: Pair = (127, 127)
    on_channel: bool = True
    off_channel: bool = True
    merge: bool = False
    mirror: tuple[bool, bool] = (False, False)
    mirror_diagonal: bool = False
    pass_sensor_events: bool = False
    monitor_enable: bool = False
    raw_monitor_enable: bool = False
    event_filter: EventFilter | None = None

    def output_shape(self, features: int) -> MapShape:
        """``(C, H, W)`` of what leaves, from the number of features that enter."""
        h, w = (last - first + 1 for first, last in zip(self.origin, self.cut, strict=True))
        return (1 if self.merge else features, *((w, h) if self.mirror_diagonal else (h, w)))

    def pooled_further(self, pooling: Pair) -> "DvsLayer | None":
        """The same followed by sum pooling; None where that is no pre-processing.

        Pooling what is left of the region equals pooling more at the sensor and a region in the coarser grid, where
        the region begins at a multiple of the pooling, and, if it is mirrored, ends at one. What is left over at its
        end is dropped, as by the pooling.
        """
        py, px = pooling[::-1] if self.mirror_diagonal else pooling
        first, last = self.origin, tuple(cut + 1 for cut in self.cut)
        for begin, end, pool, mirrored in zip(first, last, (py, px), self.mirror, strict=True):
            if begin % pool or (mirrored and end % pool) or end - begin < pool:
                return None
        return replace(
            self,
            pooling=(self.pooling[0] * py, self.pooling[1] * px),
            origin=(first[0] // py, first[1] // px),
            cut=(
                first[0] // py + (last[0] - first[0]) // py - 1,
                first[1] // px + (last[1] - first[1]) // px - 1,
            ),
        )


def leaves(dvs: DvsLayer, p: int, y: int, x: int, switches: Switches) -> tuple[int, int, int] | None:
    """Where one event leaves the pre-processing as (feature, y, x); None for an event that does not pass.

    This is the specification; ``pass_events`` does the same to many events.
    """
    if not (dvs.on_channel if p == 1 else dvs.off_channel):
        return None
    feature = 0 if dvs.merge else p if switches.on_feature == 1 else 1 - p
    y, x = y // dvs.pooling[0], x // dvs.pooling[1]
    if not (dvs.origin[0] <= y <= dvs.cut[0] and dvs.origin[1] <= x <= dvs.cut[1]):
        return None
    y, x = y - dvs.origin[0], x - dvs.origin[1]
    if dvs.mirror[0]:
        y = dvs.cut[0] - dvs.origin[0] - y
    if dvs.mirror[1]:
        x = dvs.cut[1] - dvs.origin[1] - x
    if dvs.mirror_diagonal:
        y, x = x, y
    return feature, y, x


def pass_events(dvs: DvsLayer, events: EventArray, switches: Switches) -> tuple[EventArray, Any]:
    """What leaves the pre-processing, times kept, and which of ``events`` it was (bool ``[N]``).

    Args:
        dvs: the configuration.
        events: what enters; ``p`` is 1 for ON.
        switches: answers to the open questions.
    """
    on = events["p"] == 1
    y, x = events["y"] // dvs.pooling[0], events["x"] // dvs.pooling[1]
    passed = np.where(on, dvs.on_channel, dvs.off_channel)
    for place, first, last in zip((y, x), dvs.origin, dvs.cut, strict=True):
        passed &= (place >= first) & (place <= last)
    found = events[passed].copy()
    if dvs.merge:
        found["p"] = 0
    elif switches.on_feature == 0:
        found["p"] = 1 - found["p"]
    y, x = y[passed] - dvs.origin[0], x[passed] - dvs.origin[1]
    if dvs.mirror[0]:
        y = dvs.cut[0] - dvs.origin[0] - y
    if dvs.mirror[1]:
        x = dvs.cut[1] - dvs.origin[1] - x
    found["y"], found["x"] = (x, y) if dvs.mirror_diagonal else (y, x)
    return found, passed
