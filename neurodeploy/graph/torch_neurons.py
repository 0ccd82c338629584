"""Layers of neurons as nodes: those of neurodeploy and sinabs here, other libraries' in ``torch_peers``."""

from typing import Any

import numpy as np
import torch

from neurodeploy.graph.nodes import LI, Array, Neuron, Shape
from neurodeploy.graph.torch_parameters import is_from, per_neuron, refused
from neurodeploy.graph.torch_peers import Cell, is_peer, read_peer
from neurodeploy.neuron import Spikes

#: The synaptic filter of a current-based neuron is a node of its own, called like the neuron with this behind it.
SYNAPSE = ".synapse"

_OWN, _SINABS = "neurodeploy.nn", "sinabs.layers"
_SINABS_SPIKING = ("IAF", "IAFSqueeze", "LIF", "LIFSqueeze")
_SINABS_FILTERS = ("ExpLeak", "ExpLeakSqueeze")


def is_neuron(module: torch.nn.Module) -> bool:
    """Whether it is a layer of neurons, or a filter over time, that can be read."""
    if is_from(module, _OWN, "SpikingLayer", "CubaLIF", "LI", "SynapseFilter"):
        return True
    sinabs = is_from(module, _SINABS, "LIF") and type(module).__name__ in (*_SINABS_SPIKING, *_SINABS_FILTERS)
    return sinabs or is_peer(module)


def cell_of(name: str, module: Any, shape: Shape) -> Cell:
    """The nodes of a layer for which ``is_neuron``, in the order of the signal; the last is the layer's output.

    Args:
        name: of the layer, for the error message.
        module: the layer.
        shape: of its neurons.

    Raises:
        GraphError: an option has no equivalent; the message names the layer and the option.
    """
    if is_from(module, _OWN, "LI", "SynapseFilter"):
        return Cell((_own_filter(name, module, shape),))
    if is_from(module, _OWN, "SpikingLayer", "CubaLIF"):
        return _own_neurons(name, module, shape)
    if is_peer(module):
        return read_peer(name, module, shape)
    if type(module).__name__ in _SINABS_FILTERS:
        return Cell((_sinabs_filter(name, module, shape),))
    return _sinabs_neurons(name, module, shape)


def _own_filter(name: str, module: Any, shape: Shape) -> LI:
    decay = per_neuron(name, module, "decay", module.decay, shape)
    if is_from(module, _OWN, "SynapseFilter"):
        return LI(decay=decay, input_gain=decay)
    return LI(decay=decay, input_gain=per_neuron(name, module, "input_gain", module.input_gain, shape))


def _own_neurons(name: str, module: Any, shape: Shape) -> Cell:
    neuron = Neuron(
        threshold=per_neuron(name, module, "threshold", module.threshold, shape),
        v_min=None if module.v_min is None else per_neuron(name, module, "v_min", module.v_min, shape),
        decay=per_neuron(name, module, "decay", module.decay, shape),
        input_gain=per_neuron(name, module, "input_gain", module.input_gain, shape),
        reset=module.neuron.reset,
        spikes=module.spikes,
        v_min_position=module.v_min_position,
    )
    if is_from(module, _OWN, "CubaLIF"):
        return _behind_synapse(per_neuron(name, module, "syn_decay", module.syn_decay, shape), neuron)
    return Cell((neuron,))


def _sinabs_filter(name: str, module: Any, shape: Shape) -> LI:
    if module.min_v_mem is not None:
        raise refused(name, module, "leave min_v_mem out: there are no spikes to reset", "min_v_mem")
    decay = module.alpha_mem_calculated.detach()
    return LI(
        decay=per_neuron(name, module, "tau_mem", decay, shape),
        input_gain=per_neuron(name, module, "tau_mem", 1 - decay if module.norm_input else 1.0, shape),
    )


def _sinabs_neurons(name: str, module: Any, shape: Shape) -> Cell:
    decay = module.alpha_mem_calculated.detach()
    reset = type(module.reset_fn).__name__
    if reset == "MembraneReset" and module.reset_fn.reset_value != 0:
        raise refused(name, module, "reset to 0", f"reset_value {module.reset_fn.reset_value:g}")
    if (
        reset not in ("MembraneReset", "MembraneSubtract")
        or getattr(module.reset_fn, "subtract_value", None) is not None
    ):
        raise refused(name, module, "use MembraneSubtract() or MembraneReset()", f"reset_fn {module.reset_fn}")
    neuron = Neuron(
        threshold=per_neuron(name, module, "spike_threshold", module.spike_threshold, shape),
        v_min=None if module.min_v_mem is None else per_neuron(name, module, "min_v_mem", module.min_v_mem, shape),
        decay=per_neuron(name, module, "tau_mem", decay, shape),
        input_gain=per_neuron(name, module, "tau_mem", 1 - decay if module.norm_input else 1.0, shape),
        reset="zero" if reset == "MembraneReset" else "subtract",
        spikes=_sinabs_spikes(name, module),
    )
    if module.tau_syn is not None:
        return _behind_synapse(per_neuron(name, module, "tau_syn", module.alpha_syn_calculated, shape), neuron)
    return Cell((neuron,))


def _behind_synapse(decay: Array, neuron: Neuron) -> Cell:
    """``i = decay * (i + x)``: the input of a step decays with the current."""
    return Cell((LI(decay=np.array(decay), input_gain=np.array(decay)), neuron))


def _sinabs_spikes(name: str, module: Any) -> Spikes:
    function = module.spike_fn
    kind = getattr(function, "__name__", type(function).__name__)
    if kind == "MultiSpike":
        return "multi"
    if kind == "SingleSpike":
        return "single"
    if kind == "MaxSpike":
        most = function.max_num_spikes_per_bin
        return "multi" if most is None else int(most)
    raise refused(name, module, "use MultiSpike, SingleSpike or MaxSpike", f"spike_fn {kind}")
