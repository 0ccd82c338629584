"""Replacing the spiking layers of other libraries by ours, in place."""

import importlib
import sys

import torch

from neurodeploy.nn.refused_layers import refuse

#: Library -> our module that has layers in the place of its ones.
_REPLACEMENTS = {
    "sinabs": "neurodeploy.nn.sinabs_layers",
    "spikingjelly.activation_based.neuron": "neurodeploy.nn.spikingjelly_layers",
}


def accelerate(net: torch.nn.Module) -> torch.nn.Module:
    """Swap the layers of neurons of sinabs and SpikingJelly in ``net`` for ours, in place, and return ``net``.

    **sinabs:** IAF and LIF (with ``tau_syn`` too), ExpLeak and their Squeeze forms, ALIF without ``tau_syn``, and the
    Recurrent forms of IAF, LIF and ALIF. The product with lateral weights is added up in another order than torch's.

    **SpikingJelly:** IFNode, LIFNode and ParametricLIFNode with ``step_mode="m"``, with soft reset or to 0, with or
    without ``detach_reset`` and ``decay_input``; surrogates Sigmoid, ATan and PiecewiseExp. The potentials of an IFNode
    are the same numbers; a LIFNode's ``v + (x - v) / tau`` is computed as ``(1 - 1/tau) v + x / tau``, which rounds
    otherwise, so that a potential within rounding of the threshold may fire differently.

    **snnTorch, Norse:** their neurons fire only above the threshold, ours at it: refused, with all fields that differ.

    The spikes are the same and the gradients agree within float32 rounding. Parameters are shared, so an optimizer made
    before keeps working; layers carry their state from call to call as in their library, without gradient through that
    boundary. ``reset_states`` of neurodeploy clears it, and so do that of sinabs (it does not reach recurrent layers,
    its own or ours) and SpikingJelly's ``reset_net``. sinabs applies ``min_v_mem`` as
    ``relu(v - min_v_mem) + min_v_mem``, which rounds twice; ours does not round, so with ``min_v_mem`` in float32 a
    potential within rounding of the threshold may fire differently.

    If ``net`` is itself such a layer, the new layer is returned.

    Raises:
        KernelError: a layer has an option that ours do not have; the message names layer and field. Nothing is
            changed then.
    """
    # Without a library imported there is nothing of it in the network.
    libraries = [importlib.import_module(home) for library, home in _REPLACEMENTS.items() if library in sys.modules]
    new_layers: dict[int, torch.nn.Module] = {}
    for name, module in net.named_modules():
        place = name or type(module).__name__
        refuse(place, module)
        for library in libraries:
            new = library.replacement(place, module)
            if new is not None:
                new_layers[id(module)] = new
    if id(net) in new_layers:
        return new_layers[id(net)]
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and id(child) in new_layers:
                setattr(parent, name, new_layers[id(child)])
    jelly = sys.modules.get("spikingjelly.activation_based.functional")
    if jelly is not None:
        jelly.invalidate_reset_cache(net)  # the list of layers that reset_net reaches, from before the swap
    return net
