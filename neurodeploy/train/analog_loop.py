"""Training with an analog chip in the loop: spikes are the chip's, gradients the model's at these spikes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from neurodeploy.targets.analog.emulator import TrialNoise, emulate
from neurodeploy.targets.analog.parameters import Floats, LayerParameters
from neurodeploy.targets.analog.virtual_chip import LayerDeviations
from neurodeploy.train.analog import layers_of, nominal_of
from neurodeploy.train.analog_levels import Levels, on_levels

GRAZING = 0.1
"""Least relative slope in the loop: at a chip's spike the model's potential is not quite at its threshold."""


class Chip(Protocol):
    """A chip that is told weights and fires: an emulated one, or a driver of a real one."""

    def run(self, weights: Sequence[Floats], times: Floats) -> list[Floats]:
        """Spikes of every layer.

        Args:
            weights: float64 ``[inputs, N]`` of each layer, as the chip is to be told them.
            times: float64 ``[B, inputs, slots]``, ``inf`` where there is no spike.

        Returns:
            For each layer float64 ``[B, N, slots]``, ascending, ``inf`` behind the last.
        """


class EmulatedChip:
    """The event-driven emulator with one chip's deviations and, from run to run, fresh noise.

    Args:
        layers: of the network, or of the program that is on the chip: constants as the chip is told them; weights do
            not matter.
        deviations: of the chip's circuits: ``Spread.draw(serial)``, ``VirtualChip(...).deviations(program)``.
        max_spikes: slots per neuron, of each layer.
        t_max: end of a run.
        noise: of trials; ``None``: none.
        timestamp_lsb_s: grid of the times that enter and leave the chip.
        seed: of the noise. Trials are counted, so that every run has noise of its own.
    """

    def __init__(
        self,
        layers: Sequence[LayerParameters],
        deviations: Sequence[LayerDeviations],
        *,
        max_spikes: Sequence[int],
        t_max: float,
        noise: TrialNoise | None = None,
        timestamp_lsb_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.layers, self.deviations = tuple(layers), tuple(deviations)
        self.max_spikes, self.t_max = tuple(max_spikes), t_max
        self.noise, self.timestamp_lsb_s, self.seed = noise, timestamp_lsb_s, seed
        self._trials = 0

    @classmethod
    def of_network(
        cls,
        network: torch.nn.Module,
        deviations: Sequence[LayerDeviations],
        *,
        noise: TrialNoise | None = None,
        timestamp_lsb_s: float = 0.0,
        seed: int = 0,
    ) -> "EmulatedChip":
        """A chip that is told the constants of a network's neurons as they are."""
        layers = layers_of(network)
        return cls(
            [nominal_of(layer, layer.weight) for layer in layers],
            deviations,
            max_spikes=[layer.max_spikes for layer in layers],
            t_max=layers[-1].t_max,
            noise=noise,
            timestamp_lsb_s=timestamp_lsb_s,
            seed=seed,
        )

    def run(self, weights: Sequence[Floats], times: Floats) -> list[Floats]:
        """As :class:`Chip`."""
        trials = np.arange(self._trials, self._trials + len(times))
        self._trials += len(times)
        told = [replace(layer, weight=weight) for layer, weight in zip(self.layers, weights, strict=True)]
        return emulate(
            [circuits.apply(layer) for circuits, layer in zip(self.deviations, told, strict=True)],
            times,
            max_spikes=self.max_spikes,
            t_max=self.t_max,
            timestamp_lsb_s=self.timestamp_lsb_s,
            noise=self.noise,
            seed=self.seed,
            trials=trials,
        )


class ChipInTheLoop(torch.nn.Module):
    """A network whose spikes are those of a chip, with the gradient of the network's own neurons at these spikes.

    No constant of the chip's circuits is known or used: the backward pass takes the neurons of the network, made to
    fire when the chip's did (``kernels.spike_time.observe``).

    Args:
        network: a chain of ``SpikeTimeLinear`` with hard resets; its parameters are trained.
        chip: what fires.
        levels: weights that the chip can be told; ``None``: any. They are searched anew in every call.
        grazing_limit: bounds gradients of spikes that the model would hardly fire; see ``kernels.spike_time.GRAZING``.

    Raises:
        TrainError: the network has other layers or resets.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        chip: Chip,
        *,
        levels: Levels | None = None,
        grazing_limit: float = GRAZING,
    ) -> None:
        super().__init__()
        layers_of(network)
        self.network, self.chip, self.levels, self.grazing_limit = network, chip, levels, grazing_limit

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """Spikes of the last layer on the chip, (B, N, slots), for input spikes (B, inputs, slots)."""
        layers = layers_of(self.network)
        weights: list[torch.Tensor] = [layer.weight for layer in layers]
        if self.levels is not None:
            weights = on_levels(weights, self.levels, search=True)
        told = [np.ascontiguousarray(weight.detach().double().numpy().T) for weight in weights]
        fired = self.chip.run(told, times.detach().double().numpy())
        for layer, weight, spikes in zip(layers, weights, fired, strict=True):
            seen = torch.from_numpy(spikes).to(times)
            seen = torch.where(seen <= layer.t_max, seen, torch.inf).sort().values
            times = layer.fire(times, weight=weight, observed=seen, grazing_limit=self.grazing_limit).times
        return times
