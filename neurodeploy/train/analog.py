"""Training a network of spike times for analog chips: their levels of weights, and circuits that differ."""

from collections.abc import Sequence

import numpy as np
import torch

from neurodeploy.errors import TrainError
from neurodeploy.nn import SpikeTimeLinear, SpikeTimeNeuron
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.virtual_chip import LayerDeviations
from neurodeploy.train.analog_levels import Levels, on_levels
from neurodeploy.train.analog_spread import Spread

FIRST_TRAINING_SERIAL = 1 << 32
"""Chips of training have serial numbers from here on: those below are never trained on and can be tested on."""


def layers_of(network: torch.nn.Module) -> list[SpikeTimeLinear]:
    """The layers of a network that is a chain of ``SpikeTimeLinear``, with hard resets.

    Raises:
        TrainError: it has other modules, or neurons that subtract the threshold.
    """
    layers = [module for module in network.modules() if not list(module.children())]
    for module in layers:
        if not isinstance(module, SpikeTimeLinear) or module.neuron.reset != "value":
            raise TrainError(
                f"the network has {module}; for analog chips, chains of SpikeTimeLinear with hard resets are trained.",
                remedy="use SpikeTimeLinear layers, and SpikeTimeNeuron(..., reset='value').",
                code="analog-network",
            )
    return [module for module in layers if isinstance(module, SpikeTimeLinear)]


def nominal_of(layer: SpikeTimeLinear, weight: torch.Tensor) -> LayerParameters:
    """A layer with weights ``[N, inputs]`` as an analog chip is told it."""
    rows = layer.neuron.rows(len(weight)).expand(5, len(weight)).numpy()
    mem, syn, threshold, reset, t_ref = (np.ascontiguousarray(row) for row in rows)
    table = np.ascontiguousarray(weight.detach().double().numpy().T)
    return LayerParameters(table, mem, syn, syn.copy(), threshold, reset, t_ref)


class AnalogTraining(torch.nn.Module):
    """A network whose forward pass is that of an analog chip: its levels of weights, and every batch other circuits.

    In training mode each call draws ``chips`` fresh chips from ``spread`` and runs an equal part of the batch on each;
    spikes and gradients are exact for the weights, time constants and thresholds of that chip. A neuron here has one
    time constant for its synapses: the geometric mean, where a chip's excitatory and inhibitory ones differ (the
    emulator has both). In evaluation mode the call is that of a chip without deviations.

    The parameters are those of ``network``; train them with any optimizer and compile ``network`` itself.

    Args:
        network: a chain of ``SpikeTimeLinear`` with hard resets.
        levels: weights the chip can have; ``None``: any.
        spread: what circuits differ by; ``None``: nothing.
        chips: fresh chips per call.
        refresh: calls after which levels are searched anew in training; in evaluation they always are.
        seed: of the chips: another seed trains on others.

    Attributes:
        scale: factor of all spreads, see :meth:`anneal`.

    Raises:
        TrainError: the network has other layers or resets, or ``chips`` or ``refresh`` is below 1.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        levels: Levels | None = None,
        spread: Spread | None = None,
        chips: int = 1,
        refresh: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if chips < 1 or refresh < 1:
            raise TrainError(
                f"chips is {chips}, refresh {refresh}.", remedy="give whole numbers above 0.", code="analog-training"
            )
        layers_of(network)
        self.network = network
        self.levels, self.spread = levels, spread
        self.chips, self.refresh = chips, refresh
        self.scale = 1.0
        self._next = FIRST_TRAINING_SERIAL + (seed << 40)
        self._calls = 0

    def anneal(self, progress: float, full_at: float = 0.5, full: float = 1.0) -> None:
        """Let spreads grow linearly from 0 to all of it.

        Args:
            progress: share of the training that is done, 0 to 1.
            full_at: the share at which spreads have grown; 0: from the start.
            full: factor that they have then: above 1, a margin for what the spread leaves out, such as trial noise.
        """
        self.scale = full * (1.0 if full_at <= 0 else min(1.0, max(0.0, progress / full_at)))

    def weights(self) -> list[torch.Tensor]:
        """The weights ``[N, inputs]`` of each layer as the chip has them.

        Raises:
            TrainError: a weight is not finite.
        """
        weights: list[torch.Tensor] = [layer.weight for layer in layers_of(self.network)]
        if self.levels is None:
            return weights
        search = not self.training or self._calls % self.refresh == 0
        self._calls += self.training
        return on_levels(weights, self.levels, search)

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """Spikes of the last layer, (B, N, max_spikes), for input spikes (B, inputs, slots)."""
        weights = self.weights()
        if self.spread is None or not self.training or self.scale == 0:
            return self._run(times, weights, None)
        parts = []
        for part in times.tensor_split(self.chips):
            parts.append(self._run(part, weights, self.spread.draw(self._next, self.scale)))
            self._next += 1
        return torch.cat(parts)

    def on_chip(self, times: torch.Tensor, serial: int, scale: float = 1.0) -> torch.Tensor:
        """Spikes of the last layer on the chip of a serial number, without the noise of trials.

        Raises:
            TrainError: there is no spread.
        """
        if self.spread is None:
            raise TrainError("there is no spread: all chips are alike.", remedy="give spread=.", code="analog-spread")
        return self._run(times, self.weights(), self.spread.draw(serial, scale))

    def _run(
        self, times: torch.Tensor, weights: Sequence[torch.Tensor], chip: Sequence[LayerDeviations] | None
    ) -> torch.Tensor:
        for index, (layer, weight) in enumerate(zip(layers_of(self.network), weights, strict=True)):
            neuron = None
            if chip is not None:
                weight, neuron = _on_circuits(chip[index], layer, weight)
            times = layer.fire(times, weight=weight, neuron=neuron).times
        return times


def _on_circuits(
    chip: LayerDeviations, layer: SpikeTimeLinear, weight: torch.Tensor
) -> tuple[torch.Tensor, SpikeTimeNeuron]:
    """Weights and neurons of a layer on a chip; the weights pass their gradient on."""
    found = chip.apply(nominal_of(layer, weight))
    exc, inh = (torch.from_numpy(chip.weight.T * gain[:, None]).to(weight) for gain in (chip.gain_exc, chip.gain_inh))
    neuron = SpikeTimeNeuron(
        tau_mem=torch.from_numpy(found.tau_mem),
        tau_syn=torch.from_numpy(np.sqrt(found.tau_syn_exc * found.tau_syn_inh)),
        threshold=torch.from_numpy(found.threshold),
        reset="value",
        v_reset=torch.from_numpy(found.v_reset),
        t_ref=torch.from_numpy(found.t_ref),
    )
    return weight * torch.where(weight > 0, exc, inh), neuron
