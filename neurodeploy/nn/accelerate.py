"""Replacing the spiking layers of other libraries by ours, in place."""

import sys

import torch


def accelerate(net: torch.nn.Module) -> torch.nn.Module:
    """Swap the sinabs layers over time of ``net`` for ours, in place, and return ``net``.

    Those are IAF and LIF (with ``tau_syn`` too), ExpLeak and their Squeeze forms, ALIF without ``tau_syn``, and the
    Recurrent forms of IAF, LIF and ALIF. The product with lateral weights is added up in another order than torch's.

    The spikes are the same and the gradients agree within float32 rounding. Parameters are shared, so an optimizer made
    before keeps working; layers carry their state from call to call as in sinabs, without gradient through that
    boundary, and ``reset_states`` of sinabs and of neurodeploy both clear it (that of sinabs does not reach recurrent
    layers, its own or ours). sinabs applies ``min_v_mem`` as ``relu(v - min_v_mem) + min_v_mem``, which rounds twice;
    ours does not round, so with ``min_v_mem`` in float32 a potential within rounding of the threshold may fire
    differently.

    If ``net`` is itself a sinabs layer, the new layer is returned.

    Raises:
        KernelError: a layer has an option that ours do not have; the message names layer and field. Nothing is
            changed then.
    """
    if "sinabs" not in sys.modules:  # without the library imported there is nothing of it in the network
        return net
    from neurodeploy.nn.sinabs_layers import replacement

    replaced: dict[int, torch.nn.Module] = {}
    for name, module in net.named_modules():
        new = replacement(name or type(module).__name__, module)
        if new is not None:
            replaced[id(module)] = new
    if id(net) in replaced:
        return replaced[id(net)]
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and id(child) in replaced:
                setattr(parent, name, replaced[id(child)])
    return net
