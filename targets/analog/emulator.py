"""Runs layers of analog neurons: exact spike times, the noise of a trial, time stamps at the edge of the chip.

README.md derives what is computed, ``specification.py`` says it in Python, ``core.cpp`` does it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EmulationError
from neurodeploy.extension import native as _native
from neurodeploy.targets.analog.parameters import Floats, LayerParameters
from neurodeploy.targets.analog.program import INPUT, AnalogProgram

Integers = NDArray[np.int64]

#: Sites, trials and spike indices are words of the counters of random numbers.
WORDS = 2**32


@dataclass(frozen=True)
class TrialNoise:
    """What differs from one run of a chip to the next.

    Attributes:
        jitter_s: standard deviation of the time of a spike as it is seen from outside the neuron, whose own course goes
            on from the exact time. A neuron's spikes are put in order again; none comes before the neuron's first
            excitation, and those moved behind ``t_max`` are lost.
        threshold_cv: relative standard deviation of each neuron's threshold; one value for the whole of a trial.

    Raises:
        EmulationError: a value is below 0 or not finite.
    """

    jitter_s: float = 0.0
    threshold_cv: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter_s", "threshold_cv"):
            value = getattr(self, name)
            if not (value >= 0 and isfinite(value)):
                raise EmulationError(
                    f"{name} is {value}.", remedy="give a number of at least 0; 0: no noise.", code="trial-noise"
                )


class SpikeOverflowError(EmulationError):
    """A neuron has more spikes than there are slots (code ``analog-overflow``).

    Args:
        layer: the name of its layer, or "".
        sample, neuron: its indices.
        limit: ``max_spikes``.
    """

    def __init__(self, layer: str, sample: int, neuron: int, limit: int) -> None:
        super().__init__(
            f"{_place(layer)}neuron {neuron} fires more than max_spikes={limit} times in sample {sample}.",
            remedy="raise max_spikes, or make it fire less: smaller weights, a higher threshold, a longer t_ref, "
            "a shorter t_max.",
            code="analog-overflow",
        )
        self.layer, self.sample, self.neuron, self.limit = layer, sample, neuron, limit


def run_layer(
    times: Floats,
    layer: LayerParameters,
    *,
    max_spikes: int,
    t_max: float = inf,
    noise: TrialNoise | None = None,
    seed: int = 0,
    trials: Integers | None = None,
    sites: Integers | None = None,
    threads: int = 1,
    name: str = "",
) -> Floats:
    """Run one layer from rest, each sample by itself.

    The result is a function of the arguments alone, byte for byte: not of ``threads``, nor of how samples are put into
    batches, as long as each keeps its number in ``trials``.

    Args:
        times: input spikes, float64 ``[B, inputs, slots]`` in seconds, in any order of slots; ``inf``: no spike. Those
            at one time are taken in the order of inputs.
        layer: weights and constants.
        max_spikes: slots per neuron in the result.
        t_max: end of the run, in seconds; input after it is left out. ``inf``: until all neurons are at rest.
        noise: of the trial; None: none.
        seed: of the noise, 0 to 2^64 - 1.
        trials: int64 ``[B]``, 0 to 2^32 - 1: the number of each sample's run; None: 0, 1, 2, ...
        sites: int64 ``[N]``, 0 to 2^32 - 1: the place of each neuron on the chip; None: 0, 1, 2, ... Noise belongs to
            seed, trial and site.
        threads: at most this many.
        name: of the layer, for messages.

    Returns:
        Spike times, float64 ``[B, N, max_spikes]``, ascending, ``inf`` behind the last spike.

    Raises:
        EmulationError: an argument has another type, shape or range; a threshold is, with its noise, not above
            ``v_reset`` and 0.
        SpikeOverflowError: a neuron has more than ``max_spikes`` spikes; the first one is named.
    """
    noise = noise or TrialNoise()
    batch = check_run(name, times, layer.inputs, max_spikes, t_max, threads)
    _whole("seed", seed, 0, 2**64 - 1)
    trials = _numbers("trials", trials, batch)
    sites = _numbers("sites", sites, layer.neurons)
    out = np.empty((batch, layer.neurons, max_spikes))
    overflow, threshold = _native.analog.run(
        np.ascontiguousarray(times),
        np.ascontiguousarray(layer.weight),
        layer.constants(),
        sites,
        trials,
        seed,
        float(noise.jitter_s),
        float(noise.threshold_cv),
        float(t_max),
        threads,
        out,
    )
    if threshold < batch * layer.neurons:
        sample, neuron = divmod(threshold, layer.neurons)
        raise EmulationError(
            f"{_place(name)}with noise of {noise.threshold_cv:g} of its value, the threshold of neuron {neuron} in "
            f"sample {sample} is not above its reset potential of {layer.v_reset[neuron]:g} and 0.",
            remedy="lower threshold_cv.",
            code="trial-noise",
        )
    if overflow < batch * layer.neurons:
        sample, neuron = divmod(overflow, layer.neurons)
        raise SpikeOverflowError(name, sample, neuron, max_spikes)
    return out


def emulate(
    layers: Sequence[LayerParameters],
    times: Floats,
    *,
    max_spikes: int | Sequence[int],
    t_max: float = inf,
    timestamp_lsb_s: float = 0.0,
    sources: Sequence[int] | None = None,
    noise: TrialNoise | None = None,
    seed: int = 0,
    trials: Integers | None = None,
    sites: Sequence[Integers] | None = None,
    threads: int = 1,
    names: Sequence[str] | None = None,
) -> list[Floats]:
    """Run a feed-forward network.

    Times are rounded to the grid of ``timestamp_lsb_s`` where spikes enter the chip and in what is returned, which is
    what leaves it; from layer to layer they stay on the chip and are not. Rounding is to the nearest point.

    Args:
        layers: in network order.
        times: the host's spikes, float64 ``[B, inputs, slots]`` in seconds, ``inf``: none.
        max_spikes: slots per neuron, one number or one for each layer.
        t_max, noise, seed, trials, threads: as for :func:`run_layer`.
        timestamp_lsb_s: grid of time stamps, in seconds of the network; 0: none.
        sources: for each layer the index of the layer whose spikes it takes, -1 for the host's; None: a chain.
        sites: of each layer's neurons, int64 ``[N]``; None: counted through all layers.
        names: of the layers, for messages.

    Returns:
        The spike times of each layer, float64 ``[B, N, max_spikes]``.

    Raises:
        EmulationError, SpikeOverflowError: as for :func:`run_layer`.
    """
    if not (timestamp_lsb_s >= 0 and isfinite(timestamp_lsb_s)):
        _refuse(f"timestamp_lsb_s is {timestamp_lsb_s}.", "give seconds of at least 0; 0: no grid.")
    slots = [max_spikes] * len(layers) if isinstance(max_spikes, int | np.integer) else list(max_spikes)
    sources = range(-1, len(layers) - 1) if sources is None else sources
    names = [f"layer {n}" for n in range(len(layers))] if names is None else names
    if sites is None:
        first = np.cumsum([0, *(layer.neurons for layer in layers)])
        sites = [np.arange(first[n], first[n + 1]) for n in range(len(layers))]
    if not len(layers) == len(slots) == len(sources) == len(sites) == len(names):
        _refuse(
            f"{len(layers)} layers, but {len(slots)} max_spikes, {len(sources)} sources, {len(sites)} sites and "
            f"{len(names)} names.",
            "give one of each for every layer.",
        )
    entering = stamped(times, timestamp_lsb_s)
    on_chip: list[Floats] = []
    for n, layer in enumerate(layers):
        if not -1 <= sources[n] < n:
            _refuse(f"{names[n]} takes the spikes of layer {sources[n]}.", "put layers behind their sources.")
        on_chip.append(
            run_layer(
                entering if sources[n] < 0 else on_chip[sources[n]],
                layer,
                max_spikes=slots[n],
                t_max=t_max,
                noise=noise,
                seed=seed,
                trials=trials,
                sites=sites[n],
                threads=threads,
                name=names[n],
            )
        )
    return [stamped(spikes, timestamp_lsb_s) for spikes in on_chip]


def emulate_program(
    program: AnalogProgram,
    times: Floats,
    *,
    realised: Sequence[LayerParameters] | None = None,
    noise: TrialNoise | None = None,
    seed: int = 0,
    trials: Integers | None = None,
    threads: int = 1,
) -> list[Floats]:
    """Run a program; see :func:`emulate`.

    Args:
        program: what the chip is told.
        times: float64 ``[B, program.inputs, slots]`` in seconds, ``inf``: no spike.
        realised: what each layer computes on one chip with its mismatch; None: the nominal values.
        noise, seed, trials, threads: as for :func:`run_layer`. The noise of a neuron belongs to the first of its
            circuits, the one that fires.
    """
    names = [layer.name for layer in program.layers]
    index = {INPUT: -1, **{name: n for n, name in enumerate(names)}}
    return emulate(
        [layer.nominal for layer in program.layers] if realised is None else realised,
        times,
        max_spikes=[layer.max_spikes for layer in program.layers],
        t_max=program.t_max,
        timestamp_lsb_s=program.timestamp_lsb_s,
        sources=[index[layer.source] for layer in program.layers],
        noise=noise,
        seed=seed,
        trials=trials,
        sites=[np.ascontiguousarray(layer.neuron_sites[:, 0]) for layer in program.layers],
        threads=threads,
        names=names,
    )


def stamped(times: Floats, timestamp_lsb_s: float) -> Floats:
    """Round times to multiples of ``timestamp_lsb_s``, ties to even; 0: return them as they are."""
    return times if timestamp_lsb_s == 0 else np.rint(times / timestamp_lsb_s) * timestamp_lsb_s


def check_run(name: str, times: Floats, inputs: int, max_spikes: int, t_max: float, threads: int) -> int:
    """Check what every run of a layer is given, and return the number of samples.

    Raises:
        EmulationError: an argument has another type, shape or range.
    """
    place = _place(name)
    if times.dtype != np.float64 or times.ndim != 3 or times.shape[1] != inputs:
        _refuse(
            f"{place}the spike times are {times.dtype} of shape {times.shape}; the layer has {inputs} inputs.",
            f"give float64 [B, {inputs}, slots], inf where there is no spike.",
        )
    bad = ~(times > -inf)
    if bad.any():
        sample, source, slot = (int(index) for index in np.argwhere(bad)[0])
        _refuse(
            f"{place}spike time {times[sample, source, slot]} in sample {sample}, input {source}, slot {slot}.",
            "give finite times, and inf where there is no spike.",
        )
    if times.shape[1] * times.shape[2] >= 2**31:
        _refuse(f"{place}{times.shape[1]} x {times.shape[2]} slots for input spikes.", "give less than 2^31.")
    _whole("max_spikes", max_spikes, 1, WORDS - 1)
    _whole("threads", threads, 1, 2**16)
    if np.isnan(t_max):
        _refuse("t_max is not a number.", "give seconds, or inf.")
    return len(times)


def _whole(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        _refuse(f"{name} is {value}.", f"give a whole number from {least} to {most}.")


def _numbers(name: str, values: Integers | None, count: int) -> Integers:
    if values is None:
        return np.arange(count)
    if values.dtype != np.int64 or values.shape != (count,) or ((values < 0) | (values >= WORDS)).any():
        _refuse(f"{name} are {values.dtype} of shape {values.shape}.", f"give int64 [{count}], 0 to 2^32 - 1 each.")
    return np.ascontiguousarray(values)


def _place(layer: str) -> str:
    return f"{layer}: " if layer else ""


def _refuse(message: str, remedy: str) -> None:
    raise EmulationError(message, remedy=remedy, code="analog-emulation")
