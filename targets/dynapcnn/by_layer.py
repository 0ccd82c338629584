"""From what each core did to what each layer did: a layer may be split by its output features over several cores."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neurodeploy.target import Execution, Probe, SpikeArray
from neurodeploy.targets.dynapcnn.program import DynapcnnProgram


def by_layer(
    program: DynapcnnProgram,
    spikes: SpikeArray,
    counts: Sequence[NDArray[np.uint32]],
    counters: Sequence[Mapping[str, int]],
    probes: Mapping[str, Probe],
) -> Execution:
    """Join the results of the cores that hold one layer.

    Args:
        program: what was executed.
        spikes: array of ``SPIKE_DTYPE``, ``layer`` an index into ``program.cores`` and ``c`` a feature of that core.
        counts: spikes per neuron, one ``[F, H, W]`` per core.
        counters: one mapping per core. They add up: an event that goes to both parts of a layer counts twice.
        probes: by layer already.
    """
    layers = program.layers
    counts = [count[:: core.feature_step] for count, core in zip(counts, program.cores, strict=True)]
    spikes = spikes_by_layer(program, spikes)
    if len(layers) == len(program.cores):
        by_name = dict(zip(layers, counts, strict=True)), dict(zip(layers, counters, strict=True))
        return Execution(spikes, *by_name, probes)
    all_counts: dict[str, NDArray[np.uint32]] = {}
    all_counters: dict[str, dict[str, int]] = {}
    for layer in layers:
        parts = [rank for rank, core in enumerate(program.cores) if core.layer == layer]
        all_counts[layer] = np.concatenate([counts[rank] for rank in parts])
        all_counters[layer] = {key: sum(counters[rank][key] for rank in parts) for key in counters[parts[0]]}
    return Execution(spikes, all_counts, all_counters, probes)


def spikes_by_layer(program: DynapcnnProgram, spikes: SpikeArray) -> SpikeArray:
    """Spikes whose ``layer`` indexes ``program.cores``, as those of ``program.layers`` with the layers' features."""
    if all(core.first_feature is None and core.feature_step == 1 for core in program.cores):
        return spikes
    index = np.array([program.layers.index(core.layer) for core in program.cores], np.uint8)
    first = np.array([core.first_feature or 0 for core in program.cores], np.uint16)
    step = np.array([core.feature_step for core in program.cores], np.uint16)
    joined = spikes.copy()
    joined["layer"], joined["c"] = index[spikes["layer"]], spikes["c"] // step[spikes["layer"]] + first[spikes["layer"]]
    return joined
