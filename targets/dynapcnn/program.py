"""The configuration of a DynapCNN-family chip as plain data, with the vendor's field names on disk."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ProgramError

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

    family: ClassVar[str] = "dynapcnn"

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
        return self.configuration(layer).output_shape

    def configuration(self, layer: str) -> CoreProgram:
        """The core that holds a layer.

        Raises:
            ProgramError: there is no such layer.
        """
        for core in self.cores:
            if core.layer == layer:
                return core
        raise ProgramError(
            f"there is no layer {layer!r}.", remedy=f"the layers are: {', '.join(self.layers)}.", code="unknown-layer"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data with the field names of samna's configuration object; see ``README.md``."""
        return {
            "target": self.target,
            "entry_core": self.entry_core,
            "layers": [{"name": core.layer, "core": core.core} for core in self.cores],
            "cnn_layers": {str(core.core): cnn_layer(core) for core in self.cores},
        }


def cnn_layer(core: CoreProgram) -> dict[str, Any]:
    """One core as JSON-ready data, with the vendor's names and its order of axes."""
    initial = core.neurons_initial_value
    unused = {"enable": False, "layer": 0, "pooling": 1, "feature_shift": 0}
    return {
        "dimensions": {
            "input_shape": _shape(core.input_shape),
            "output_shape": _shape(core.output_shape),
            "padding": _xy(core.padding),
            "stride": _xy(core.stride),
            "kernel_size": core.kernel_size,
        },
        # The chip's order is [out][in][x][y] and [feature][x][y].
        "weights": core.weights.transpose(0, 1, 3, 2).tolist(),
        "biases": core.biases.tolist(),
        "neurons_initial_value": None if initial is None else initial.transpose(0, 2, 1).tolist(),
        "threshold_high": core.threshold_high,
        "threshold_low": core.threshold_low,
        "return_to_zero": core.return_to_zero,
        "leak_enable": core.leak_enable,
        "monitor_enable": core.monitor_enable,
        "destinations": [
            {"enable": True, "layer": end.core, "pooling": end.pooling, "feature_shift": end.feature_shift}
            for end in core.destinations
        ]
        + [unused] * (2 - len(core.destinations)),
    }


def _xy(pair: Pair) -> dict[str, int]:
    return {"x": pair[1], "y": pair[0]}


def _shape(shape: MapShape) -> dict[str, Any]:
    return {"feature_count": shape[0], "size": _xy(shape[1:])}
