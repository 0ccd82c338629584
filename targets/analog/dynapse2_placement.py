"""Which core each neuron of a network goes to, on chips whose cores share all parameters of their neurons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConstraintError, MappingError
from neurodeploy.targets.analog.parameters import LayerParameters

#: What the neurons of a core have in common, beside the currents of their weights.
SHARED = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold", "t_ref")


@dataclass(frozen=True)
class Piece:
    """Neurons of one layer that are alike: the layer, their numbers in it, and their :data:`SHARED` values."""

    layer: str
    neurons: NDArray[np.int64]
    values: tuple[float, ...]


def place(layers: Mapping[str, LayerParameters], *, cores: int, neurons_per_core: int) -> list[list[Piece]]:
    """The pieces of each core in use; at most ``cores`` cores.

    Neurons with equal parameters are put together, never with others. While there are cores left, pieces have one of
    their own, because neurons of one core also share the four currents of their weights; then pieces with equal
    parameters share cores, the largest first.

    Raises:
        ConstraintError: neurons differ so much that they need more cores; nothing is averaged.
        MappingError: there are more neurons than places.
    """
    pieces = [
        Piece(name, chunk, values)
        for name, parameters in layers.items()
        for values, neurons in _groups(parameters)
        for chunk in np.split(neurons, range(neurons_per_core, len(neurons), neurons_per_core))
    ]
    if len(pieces) <= cores:
        return [[piece] for piece in pieces]
    shared: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece.neurons)):
        room = neurons_per_core - len(piece.neurons)
        for core in shared:
            if core[0].values == piece.values and sum(len(other.neurons) for other in core) <= room:
                core.append(piece)
                break
        else:
            shared.append([piece])
    if len(shared) > cores:
        _refuse(layers, len(shared), cores, neurons_per_core)
    order = {id(piece): number for number, piece in enumerate(pieces)}
    for core in shared:
        core.sort(key=lambda piece: order[id(piece)])
    return sorted(shared, key=lambda core: order[id(core[0])])


def _groups(parameters: LayerParameters) -> list[tuple[tuple[float, ...], NDArray[np.int64]]]:
    """Values and neurons of each group of equal neurons, in the order of their first neurons."""
    rows = np.stack([getattr(parameters, name) for name in SHARED], axis=1)
    values, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return [
        (tuple(values[number].tolist()), np.flatnonzero(group.ravel() == number).astype(np.int64))
        for number in np.argsort(first)
    ]


def _refuse(layers: Mapping[str, LayerParameters], need: int, cores: int, neurons_per_core: int) -> None:
    counts = {name: len(_groups(parameters)) for name, parameters in layers.items()}
    worst = max(counts, key=lambda name: counts[name])
    if counts[worst] > 1:
        rows = {name: np.unique(getattr(layers[worst], name)) for name in SHARED}
        differing = ", ".join(
            f"{name} ({len(row)} values, {row[0]:g} to {row[-1]:g})" for name, row in rows.items() if len(row) > 1
        )
        raise ConstraintError(
            f"{worst}: neurons differ in {differing}, so that the network needs {need} cores whose neurons are alike; "
            f"there are {cores}.",
            remedy="give the neurons of a layer the same constants (one number each, not one per neuron).",
            code="shared-parameters",
        )
    total = sum(parameters.neurons for parameters in layers.values())
    raise MappingError(
        f"the network needs {need} cores of {neurons_per_core} neurons; there are {cores}.",
        remedy="use fewer neurons, or give all layers the same parameters, so that they can share cores.",
        code="cores",
        layers=tuple(layers),
        need=f"{total} neurons on {need} cores",
        limit=f"{cores} cores of {neurons_per_core} neurons",
    )


def core_numbers(cores: Sequence[Sequence[Piece]], layer: str, neurons: int) -> NDArray[np.int64]:
    """int64 ``[neurons, 2]``: the number of the core in ``cores`` and the place in it of every neuron of a layer."""
    found = np.full((neurons, 2), -1, np.int64)
    for number, core in enumerate(cores):
        start = 0
        for piece in core:
            if piece.layer == layer:
                found[piece.neurons] = np.stack(
                    [np.full(len(piece.neurons), number), start + np.arange(len(piece.neurons))], axis=1
                )
            start += len(piece.neurons)
    return found
