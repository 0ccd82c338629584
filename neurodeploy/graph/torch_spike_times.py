"""Layers of spike times as nodes: a linear map and neurons in continuous time."""

from typing import Any

import numpy as np
import torch

from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import Array, Conv2d, CubaLIF, Linear, Node, Shape
from neurodeploy.graph.torch_parameters import is_from, refused

#: The neurons of a layer are a node of their own, called like the layer with this behind it.
NEURON = ".neuron"

_OWN = "neurodeploy.nn"


def is_spike_time_layer(module: torch.nn.Module) -> bool:
    """Whether it takes and gives spike times."""
    return is_from(module, _OWN, "SpikeTimeLayer")


def spike_time_nodes(name: str, module: Any, shape: Shape, time_unit_s: float) -> tuple[Node, CubaLIF]:
    """The weights and the neurons of a layer for which ``is_spike_time_layer``.

    Args:
        name: of the layer, for the error message.
        module: the layer.
        shape: of its input, without slots.
        time_unit_s: seconds per unit of the module's times.

    Raises:
        GraphError: it is a layer of the user's own.
    """
    weights: Node
    weight = module.weight.detach().cpu().numpy().copy()
    if is_from(module, _OWN, "SpikeTimeConv2d"):
        stride, padding = int(module.stride), int(module.padding)
        weights = Conv2d(weight, None, (stride, stride), (padding, padding))
    elif is_from(module, _OWN, "SpikeTimeLinear"):
        weights = Linear(weight)
    else:
        raise refused(name, module, "use nd.nn.SpikeTimeLinear or SpikeTimeConv2d")
    produced = weights.output_shape(name, [shape])
    neuron = module.neuron

    def constant(value: float | torch.Tensor, factor: float = 1.0) -> Array:
        """One number, or one per neuron (of a convolution: per channel, at every position)."""
        numbers = np.asarray(torch.as_tensor(value, dtype=torch.float64).cpu().numpy()) * factor
        if numbers.size == 1:
            return np.array(numbers.reshape(-1)[0])
        return np.ascontiguousarray(np.broadcast_to(numbers.reshape(-1, *[1] * (len(produced) - 1)), produced))

    fields: dict[str, Any] = {"reset": neuron.reset}
    if neuron.reset == "value":
        fields |= {"v_reset": constant(neuron.v_reset), "t_ref": constant(neuron.t_ref, time_unit_s)}
    else:
        fields["drop"] = constant(neuron.threshold if neuron.drop is None else neuron.drop)
    t_max = float(module.t_max)
    return weights, CubaLIF(
        tau_mem=constant(neuron.tau_mem, time_unit_s),
        tau_syn_exc=constant(neuron.tau_syn, time_unit_s),
        tau_syn_inh=constant(neuron.tau_syn, time_unit_s),
        threshold=constant(neuron.threshold),
        input_gain=np.array(1 / time_unit_s),
        max_spikes=int(module.max_spikes),
        t_max=None if t_max == np.inf else t_max * time_unit_s,
        **fields,
    )


def check_time_unit(module: torch.nn.Module, time_unit_s: float | None) -> None:
    """A network of spike times needs the unit of its times, another has none.

    Raises:
        GraphError: it is missing, given in vain, or not above 0 and finite.
    """
    layers = [name or type(part).__name__ for name, part in module.named_modules() if is_spike_time_layer(part)]
    if layers and time_unit_s is None:
        raise GraphError(
            f"{layers[0]}: a layer of spike times, whose unit is not given; a chip has seconds.",
            remedy="give time_unit_s, the seconds that 1 stands for in the module's times: 5e-3 for 5 ms.",
            code="time-unit",
        )
    if time_unit_s is not None and (not layers or not 0 < time_unit_s < np.inf):
        raise GraphError(
            f"time_unit_s is {time_unit_s}, for a module with {len(layers)} layers of spike times.",
            remedy="give seconds above 0 for a network of nd.nn.SpikeTimeLinear or SpikeTimeConv2d, and nothing else.",
            code="time-unit",
        )
