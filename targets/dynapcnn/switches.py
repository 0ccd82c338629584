"""The open questions of the chip's event processing, each a named switch; and its imperfections, all off by default.

Public documents leave these points open; letters a to k name them the way ``README.md`` in this folder does. The
defaults are the emulator's reference behaviour. Running a network under both settings shows what the answer is worth.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from neurodeploy.errors import ConfigError

EmissionOrder = Literal["kernel", "y_x_f", "f_y_x", "random"]
Interleaving = Literal["layers", "fifo", "depth_first", "random"]
Overflow = Literal["saturate", "wrap"]
TickOrder = Literal["before_events", "after_events"]
DestinationOrder = Literal["first_to_last", "last_to_first"]
OutsideEvents = Literal["drop", "compute"]
DecimatorPhase = Literal["last", "first"]
Polarity = Literal[0, 1]
EventFilterModel = Literal["refuse", "pass_all"]
InitialState = Literal["program", "random"]


@dataclass(frozen=True)
class Switches:
    """One field per open question, with its letter; then the imperfections.

    Attributes:
        emission_order: (a) order in which the spikes caused by one event, or one tick, leave a core. ``"kernel"``:
            kernel row, kernel column, then feature ascending, so neuron rows and columns descend; ``"y_x_f"``: neuron
            row, column, feature ascending; ``"f_y_x"``: feature, row, column ascending; ``"random"``: drawn anew for
            each event. The core's own state does not depend on it.
        interleaving: (b) order of the work of different cores for one host event. ``"layers"``: core by core in program
            order, each empties its queue; ``"fifo"``: breadth first, one queue for the whole chip; ``"depth_first"``:
            each spike's consequences before the next spike; ``"random"``: each event travels for a random time, but
            never overtakes another on the same connection. Only joins can tell them apart. Programs with recurrent
            connections have no order core by core: for them ``"fifo"`` is the default.
        zero_weight_touches: (c) whether a zero weight touches its neuron, which may then fire a stored remainder.
        overflow: (d) what happens to a potential outside int16: ``"saturate"`` or ``"wrap"``.
        tick_fires: (e) whether a slow-clock tick whose bias lifts, or leaves, a potential at the threshold fires the
            neuron (at most one spike a tick).
        tick_order: (f) a tick at the same microsecond as events comes before or after them.
        destination_order: (g) which of a spike's two copies leaves first.
        outside_events: (h) events whose ``y`` or ``x`` lies outside the receiving core's declared input map: ``"drop"``
            counts and drops them; ``"compute"`` lets the address arithmetic reach edge neurons through the padding. A
            feature without weights is always dropped.
        decimator_phase: (i) which spike of each n an output decimator lets pass, the last or the first.
        on_feature: (j) the feature that the sensor's pre-processing gives to ON events; OFF events get the other one.
        event_filter: (k) how the pre-processing's event filter decides is not documented: ``"refuse"`` programs that
            use it, or let every event pass (``"pass_all"``).
        initial_state: ``"random"``: every potential starts at a random whole number from
            ``max(threshold_low, -threshold_high)`` to ``threshold_high - 1`` instead of the program's.
        lost_events: probability with which an event that reaches a core, the host's included, is lost.
        seed: of everything random, 0 to 2**63 - 1. The same seed gives the same run, in any number of pieces.

    Raises:
        ConfigError: a value that the switch does not have.
    """

    emission_order: EmissionOrder = "kernel"
    interleaving: Interleaving = "layers"
    zero_weight_touches: bool = False
    overflow: Overflow = "saturate"
    tick_fires: bool = True
    tick_order: TickOrder = "before_events"
    destination_order: DestinationOrder = "first_to_last"
    outside_events: OutsideEvents = "drop"
    decimator_phase: DecimatorPhase = "last"
    on_feature: Polarity = 1
    event_filter: EventFilterModel = "refuse"
    initial_state: InitialState = "program"
    lost_events: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.lost_events, float | int) and math.isfinite(self.lost_events)) or not (
            0 <= self.lost_events <= 1
        ):
            raise ConfigError(
                f"switch lost_events is {self.lost_events!r}; it is a probability, 0 to 1.",
                remedy="give e.g. 0.01 for one event in a hundred.",
                code="switch-value",
            )
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ConfigError(
                f"switch seed is {self.seed!r}; it is a whole number from 0 to 2**63 - 1.",
                remedy="give a small number.",
                code="switch-value",
            )
        for name, kind in get_type_hints(type(self)).items():
            if kind in (float, int):
                continue
            choices = get_args(kind) or (False, True)
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(
                    f"switch {name} is {value!r}; it has {', '.join(map(repr, choices))}.",
                    remedy="use one of these values.",
                    code="switch-value",
                )
