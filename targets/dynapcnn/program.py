"""The configuration of a DynapCNN-family chip as plain data, with the field names of the vendor's configuration object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]
MapShape = tuple[int, int, int]


@dataclass(frozen=True)
class Destination:
    """Where a core's spikes go: ``(c + feature_shift, y // pooling, x // pooling)`` of core ``core``."""

    core: int
    pooling: int = 1
    feature_shift: int = 0


@dataclass(frozen=True, eq=False)
class CoreProgram:
    """One configured core.

    Attributes:
        layer: name of the layer it holds.
        core: number of the core on the chip.
        input_shape: ``(C, H, W)`` of the events it takes.
        output_shape: ``(F, H, W)`` of its neurons, before pooling.
        kernel_size: side of the square kernel.
        stride, padding: ``(y, x)``.
        weights: int8 ``[F, C, ky, kx]``.
        biases: int16 ``[F]``, added on every tick of the slow clock when ``leak_enable``.
        threshold_high, threshold_low: firing threshold and lower bound of the potential (int16).
        return_to_zero: a spike sets the potential to 0 (True) or subtracts the threshold (False).
        leak_enable: whether the slow clock adds the biases.
        monitor_enable: whether the core's spikes are copied to the host.
        neurons_initial_value: int16 ``[F, H, W]``, or None for all zero.
        destinations: at most two.
    """

    layer: str
    core: int
    input_shape: MapShape
    output_shape: MapShape
    kernel_size: int
    stride: Pair
    padding: Pair
    weights: NDArray[np.int8]
    biases: NDArray[np.int16]
    threshold_high: int
    threshold_low: int
    return_to_zero: bool
    leak_enable: bool
    monitor_enable: bool
    destinations: tuple[Destination, ...]
    neurons_initial_value: NDArray[np.int16] | None = None


@dataclass(frozen=True, eq=False)
class DynapcnnProgram:
    """A whole chip configuration.

    Attributes:
        target: name of the chip.
        cores: the configured cores in network (topological) order.
        entry_core: the core that takes the host's events, with ``p`` as the feature.
    """

    target: str
    cores: tuple[CoreProgram, ...]
    entry_core: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in network order."""
        return tuple(core.layer for core in self.cores)

    @property
    def input_shape(self) -> MapShape:
        """``(C, H, W)`` of the entry core."""
        return next(core.input_shape for core in self.cores if core.core == self.entry_core)

    def layer_shape(self, layer: str) -> MapShape:
        """``(F, H, W)`` of a layer's neurons."""
        return next(core.output_shape for core in self.cores if core.layer == layer)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; see ``README.md`` for the field names."""
        raise NotImplementedError
