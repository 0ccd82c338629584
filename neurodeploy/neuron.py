"""The choices that define one neuron step. The same names are used by layers, graph, kernels and emulators.

One step, in this order:

1. ``v = decay * v + input_gain * x``
2. ``v = max(v, v_min)`` where ``v_min_position == "before_threshold"``
3. ``s = spikes(v >= threshold)``
4. ``reset == "subtract"``: ``v -= threshold * s``; ``"zero"``: ``v = 0`` where ``s > 0``; ``"none"``: nothing
5. ``v = max(v, v_min)`` where ``v_min_position == "after_reset"``

``spikes``: ``"multi"`` fires ``trunc(v / threshold)`` spikes in one step, ``"single"`` at most one, an integer k at
most k. The test is always "greater or equal". These are the conventions of sinabs.
"""

from typing import Literal

Reset = Literal["subtract", "zero", "none"]
Spikes = Literal["multi", "single"] | int
VMinPosition = Literal["after_reset", "before_threshold"]
