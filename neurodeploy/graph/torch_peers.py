"""Layers of neurons of snnTorch, SpikingJelly and Norse as nodes; what the graph cannot say is refused by its field.

Read against snnTorch 1.0.0, SpikingJelly 2.0.0 and Norse 1.1.0; how each computes a step is in ``README.md``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from neurodeploy.graph.nodes import LI, Array, Compare, Membrane, Neuron, Shape
from neurodeploy.graph.torch_parameters import is_from, per_neuron, refused


@dataclass(frozen=True)
class Cell:
    """What a layer of neurons is in a graph.

    Attributes:
        nodes: in the order of the signal: the membrane, or a synaptic filter and the membrane.
        notes: what was assumed, in words.
    """

    nodes: tuple[Membrane, ...]
    notes: tuple[str, ...] = ()


#: Where the classes of each library's neurons are, and the names of those from which all of them derive.
_FAMILIES = (
    ("snntorch", "snntorch", ("SpikingNeuron",)),
    ("spikingjelly", "spikingjelly.activation_based.neuron", ("BaseNode", "SimpleBaseNode", "NonSpikingBaseNode")),
    ("norse", "norse.torch.module.snn", ("SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell")),
)

Values = Callable[[str, Any], Array]


def is_peer(module: torch.nn.Module) -> bool:
    """Whether it is a layer of neurons of one of the libraries, readable or not."""
    return any(is_from(module, home, *bases) for _, home, bases in _FAMILIES)


def read_peer(name: str, module: Any, shape: Shape) -> Cell:
    """The nodes of a layer for which ``is_peer``.

    Args:
        name: of the layer, for the error message.
        module: the layer.
        shape: of its neurons.

    Raises:
        GraphError: the kind of neuron, or an option of it, has no equivalent; the message names it.
    """
    library = next(library for library, home, bases in _FAMILIES if is_from(module, home, *bases))
    kind = type(module)
    known = _READERS[library]
    if kind.__name__ not in known or kind.__module__.split(".")[0] != library:
        raise refused(name, module, f"the neurons of {library} that can be read are: {', '.join(known)}")

    def values(field: str, value: Any) -> Array:
        return per_neuron(name, module, field, value, shape)

    return known[kind.__name__](name, module, values)


def starts_elsewhere(module: Any, given: Sequence[torch.Tensor]) -> bool:
    """Whether states handed to a layer of neurons differ from those that it starts from by itself."""
    p = getattr(module, "p", None)  # Norse's neurons start from their leak or reset potential, the others from 0
    start = 0 if p is None else getattr(p, "v_leak", getattr(p, "v_reset", 0))
    starts_at_zero = not bool(torch.as_tensor(start).any())
    return bool(given) and not (starts_at_zero and all(not bool(state.any()) for state in given))


def _leaky(name: str, module: Any, values: Values) -> Cell:
    """snnTorch: ``mem = beta mem + x``, minus the threshold in the step after a spike (``reset_delay``)."""
    neuron, notes = _snntorch_neuron(name, module, values)
    return Cell((neuron,), notes)


def _synaptic(name: str, module: Any, values: Values) -> Cell:
    """snnTorch: ``syn = alpha syn + x``, then as ``Leaky`` with ``syn`` as the input."""
    if module.reset_mechanism == "zero" and module.reset_delay:
        raise refused(
            name,
            module,
            "use reset_delay=False: the delayed reset of this layer drops the current of the step after a spike too",
            "reset_mechanism 'zero' with reset_delay=True",
        )
    neuron, notes = _snntorch_neuron(name, module, values)
    return Cell((LI(decay=values("alpha", module.alpha.clamp(0, 1))), neuron), notes)


def _snntorch_neuron(name: str, module: Any, values: Values) -> tuple[Neuron, tuple[str, ...]]:
    if module.inhibition:
        raise refused(name, module, "use inhibition=False", "inhibition=True")
    if module.state_quant:
        raise refused(name, module, "use state_quant=False; nd.compile rounds to the chip's integers", "state_quant")
    if bool((module.graded_spikes_factor != 1).any()):
        raise refused(
            name,
            module,
            "scale the weights of the layers behind it instead",
            f"graded_spikes_factor {module.graded_spikes_factor.tolist()}",
        )
    decay = values("beta", module.beta.clamp(0, 1))
    notes: tuple[str, ...] = ()
    if module.reset_mechanism == "subtract":
        if not module.reset_delay:
            notes = (
                "reads reset_delay=False as subtracting the threshold once per spike; snnTorch does so while no "
                "potential passes twice the threshold",
            )
        elif (decay != 1).any():
            raise refused(
                name,
                module,
                "use reset_delay=False (or reset_mechanism='zero') and train on: a reset that comes one step late is "
                "not decayed, and no neuron of a graph does that",
                f"reset_delay=True with reset_mechanism 'subtract' and beta {float(decay.min()):g}",
            )
    return Neuron(
        threshold=values("threshold", module.threshold),
        decay=decay,
        reset=module.reset_mechanism,
        spikes="single",
        compare=">",
    ), notes


def _if_node(name: str, module: Any, values: Values) -> Cell:
    """SpikingJelly: ``v = v + x``."""
    return Cell((Neuron(**_jelly_fields(name, module, values)),))


def _lif_node(name: str, module: Any, values: Values) -> Cell:
    """SpikingJelly: ``v = v + (x - (v - v_reset)) / tau``; without ``decay_input``, x is not divided."""
    inverse = module.w.sigmoid() if hasattr(module, "w") else 1 / torch.tensor(module.tau)
    fields = _jelly_fields(name, module, values)
    return Cell(
        (
            Neuron(
                **fields,
                decay=values("tau", 1 - inverse),
                input_gain=values("tau", inverse if module.decay_input else 1.0),
                v_leak=fields["v_reset"],
            ),
        )
    )


def _jelly_fields(name: str, module: Any, values: Values) -> dict[str, Any]:
    if not getattr(module.surrogate_function, "spiking", True):
        raise refused(name, module, "call set_spiking_mode(True)", "a surrogate_function with spiking=False")
    reset = module.v_reset
    elsewhere = None if not reset else values("v_reset", reset)
    return {
        "threshold": values("v_threshold", module.v_threshold),
        "reset": "subtract" if reset is None else "value" if reset else "zero",
        "v_reset": elsewhere,
        "initial_v": elsewhere,
        "spikes": "single",
    }


def _norse_lif(name: str, module: Any, values: Values) -> Cell:
    """Norse: ``i = i + x``, ``v = v + dt/tau_mem (v_leak - v + i)``, then ``i = i - dt/tau_syn i``."""
    if module.p.method == "adjoint":
        raise refused(name, module, "use method='super'", "method 'adjoint'")
    return Cell((_norse_synapse(module, values), _norse_neuron(name, module, values, **_norse_leak(module, values))))


def _norse_lif_box(name: str, module: Any, values: Values) -> Cell:
    """Norse: as ``LIF`` without the current."""
    return Cell((_norse_neuron(name, module, values, **_norse_leak(module, values)),))


def _norse_iaf(name: str, module: Any, values: Values) -> Cell:
    """Norse: ``v = v + x``; starts from ``v_reset``."""
    start = values("v_reset", module.p.v_reset)
    return Cell((_norse_neuron(name, module, values, initial_v=start if start.any() else None),))


def _norse_li(name: str, module: Any, values: Values) -> Cell:
    """Norse: the potential of ``LIF`` without spikes."""
    return Cell((_norse_synapse(module, values), LI(**_norse_leak(module, values))))


def _norse_li_box(name: str, module: Any, values: Values) -> Cell:
    """Norse: the potential of ``LIFBox`` without spikes."""
    return Cell((LI(**_norse_leak(module, values)),))


def _norse_synapse(module: Any, values: Values) -> LI:
    return LI(decay=values("tau_syn_inv", 1 - module.dt * torch.as_tensor(module.p.tau_syn_inv)))


def _norse_leak(module: Any, values: Values) -> dict[str, Any]:
    """A potential that starts from its leak potential."""
    ratio = module.dt * torch.as_tensor(module.p.tau_mem_inv)
    v_leak = values("v_leak", module.p.v_leak)
    rests = v_leak if v_leak.any() else None
    return {
        "decay": values("tau_mem_inv", 1 - ratio),
        "input_gain": values("tau_mem_inv", ratio),
        "v_leak": rests,
        "initial_v": rests,
    }


def _norse_neuron(name: str, module: Any, values: Values, **membrane: Any) -> Neuron:
    method = getattr(module.p, "reset_method", None)
    kind = "reset_value" if method is None else getattr(method, "__name__", str(method))
    if kind not in ("reset_value", "reset_subtract"):
        raise refused(name, module, "use norse's reset_value or reset_subtract", f"reset_method {kind}")
    v_reset = values("v_reset", module.p.v_reset)
    elsewhere = kind == "reset_value" and bool(v_reset.any())
    above: Compare = ">"
    return Neuron(
        threshold=values("v_th", module.p.v_th),
        reset="value" if elsewhere else "zero" if kind == "reset_value" else "subtract",
        v_reset=np.array(v_reset) if elsewhere else None,
        spikes="single",
        compare=above,
        **membrane,
    )


_READERS: Mapping[str, Mapping[str, Callable[[str, Any, Values], Cell]]] = {
    "snntorch": {"Leaky": _leaky, "Synaptic": _synaptic},
    "spikingjelly": {"IFNode": _if_node, "LIFNode": _lif_node, "ParametricLIFNode": _lif_node},
    "norse": {
        "IAF": _norse_iaf,
        "IAFCell": _norse_iaf,
        "LI": _norse_li,
        "LIBoxCell": _norse_li_box,
        "LICell": _norse_li,
        "LIF": _norse_lif,
        "LIFBoxCell": _norse_lif_box,
        "LIFCell": _norse_lif,
    },
}
