"""How the user's events enter the cores: through the sensor's pre-processing, where there is one, then by feature."""

from dataclasses import dataclass

import numpy as np

from neurodeploy.events.array import EventArray
from neurodeploy.targets.dynapcnn.dvs import pass_events
from neurodeploy.targets.dynapcnn.program import DynapcnnProgram
from neurodeploy.targets.dynapcnn.switches import Switches


@dataclass(frozen=True)
class Way:
    """Events of ``features`` features from ``first_feature`` on enter ``core`` as those from ``feature_shift`` on."""

    core: int
    first_feature: int
    features: int
    feature_shift: int


def entries(program: DynapcnnProgram, switches: Switches) -> list[Way]:
    """The ways of pre-processed events into the cores; an event that has several takes them in this order."""
    ways = []
    first = 0
    for port in program.inputs:
        ends = list(port.entries)
        if port.dvs is not None and switches.destination_order == "last_to_first":
            ends.reverse()
        ways += [Way(end.core, first, port.shape[0], end.feature_shift) for end in ends]
        first += port.shape[0]
    return ways


def preprocessed(program: DynapcnnProgram, events: EventArray, switches: Switches) -> EventArray:
    """The events that enter the cores; the features of every input stay in its own range."""
    first = 0
    for port in program.inputs:
        if port.dvs is not None:
            own = np.flatnonzero((events["p"] >= first) & (events["p"] < first + port.shape[0]))
            mine = events[own]
            mine["p"] -= first
            found, passed = pass_events(port.dvs, mine, switches)
            found["p"] += first
            events = events.copy()
            events[own[passed]] = found
            events = np.delete(events, own[~passed])
        first += port.shape[0]
    return events
