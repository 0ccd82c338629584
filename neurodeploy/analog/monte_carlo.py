"""Many virtual chips with one program on the same patterns: how many of them do what the network did."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurodeploy.analog.deployment import AnalogDeployment, AnalogRun, open_analog
from neurodeploy.analog.yield_report import Yield
from neurodeploy.errors import ConfigError
from neurodeploy.events.spike_times import SpikeTimes, load_spike_times
from neurodeploy.executor import Executor, InProcess
from neurodeploy.targets.analog.calibration import Mode, calibrate
from neurodeploy.targets.analog.virtual_chip import LayerDeviations, VirtualChip

Decode = Literal["first", "count"]
"""The answer is the output that fires first, or that fires most (``AnalogRun.answers``)."""

CAUSES: dict[str, tuple[str, ...]] = {
    "time constants": ("tau_mem", "tau_syn_exc", "tau_syn_inh"),
    "thresholds and resets": ("threshold", "threshold_shift", "reset_shift"),
    "weights and gains": ("weight", "gain_exc", "gain_inh"),
    "refractory times": ("t_ref",),
    "trial noise": (),
}
"""Groups of deviations; the noise of single trials is on in the last one alone."""


@dataclass(frozen=True)
class Conditions:
    """How chips are run.

    Attributes:
        calibration: as ``calibrate``; None: the chips are taken as they are.
        noise: whether there is the noise of single trials that the chip's description states.
        decode: see ``Decode``.
        seed: of that noise, and of the noise of calibration.
        temperature_c: of the chips; None: that of the description.
    """

    calibration: Mode | None = None
    noise: bool = True
    decode: Decode = "first"
    seed: int = 0
    temperature_c: float | None = None


@dataclass(frozen=True)
class _Work:
    """One chip, as it is sent to where it is emulated."""

    run: str
    data: str
    samples: int | None
    serial: int | None  # None: a chip without deviations
    conditions: Conditions
    cause: str | None


def chip_yield(
    run: str | Path,
    data: str | Path,
    *,
    chips: int = 100,
    first_serial: int = 0,
    samples: int | None = None,
    conditions: Conditions | None = None,
    study: int = 0,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Yield:
    """Run a compiled network on virtual chips.

    A chip's answers are a function of its serial number, the program and the conditions, wherever it is emulated.

    Args:
        run: folder of a deployment for an analog chip.
        data: labelled patterns, .npz (``load_spike_times``).
        chips: how many.
        first_serial: serial number of the first; the others follow.
        samples: use only the first so many patterns.
        conditions: how they are run.
        study: for so many of the chips, run them with each of ``CAUSES`` alone as well.
        executor: where the chips are emulated; every worker reads ``run`` and ``data`` itself.
        progress: called with chips done and in all.

    Raises:
        ConfigError: a number outside its range, labels that the network has no output for, or no such run folder.
        EventError: the patterns cannot be read, or do not fit the network's inputs.
        ProgramError: the deployment is damaged.
    """
    conditions = conditions or Conditions()
    if chips < 1 or not 0 <= study <= chips:
        raise ConfigError(
            f"{chips} chips, {study} of them for the causes.",
            remedy="give at least one chip, and no more for the causes than there are.",
            code="yield-chips",
        )
    deployment, patterns = _loaded(str(run), str(data), samples)
    base = _Work(str(run), str(data), samples, None, conditions, None)
    serials = range(first_serial, first_serial + chips)
    works = [replace(base, conditions=replace(conditions, noise=False)), *(replace(base, serial=s) for s in serials)]
    works += [replace(base, serial=s, cause=cause) for cause in CAUSES for s in serials[:study]]
    found = []
    for result in (executor or InProcess()).map(_accuracy, works):
        found.append(result)
        progress(len(found), len(works))
    accuracies, silent = np.array(found).T
    by_cause = accuracies[1 + chips :].reshape(len(CAUSES), study)
    return Yield(
        target=deployment.program.target,
        nominal=float(accuracies[0]),
        serials=np.array(serials, np.int64),
        accuracies=accuracies[1 : 1 + chips],
        silent=silent[1 : 1 + chips],
        patterns=len(patterns),
        settings=asdict(conditions) | {"first_serial": first_serial, "data_sha256": patterns.digest()},
        causes=dict(zip(CAUSES, by_cause, strict=True)) if study else {},
        assumptions=[f"{name}: {why}" for name, why in deployment.chip.assumptions().items()],
    )


@lru_cache(maxsize=1)
def _loaded(run: str, data: str, samples: int | None) -> tuple[AnalogDeployment, SpikeTimes]:
    deployment, patterns = open_analog(run), load_spike_times(data)[:samples]
    outputs = deployment.program.layers[-1].neurons
    if not len(patterns) or patterns.n_classes > outputs:
        raise ConfigError(
            f"{data}: {len(patterns)} patterns of {patterns.n_classes} classes, the network has {outputs} outputs.",
            remedy="give the patterns that the network was trained for.",
            code="yield-labels",
        )
    return deployment, patterns


def _accuracy(work: _Work) -> tuple[float, float]:
    """Accuracy of one chip, and the share of patterns without an answer."""
    deployment, patterns = _loaded(work.run, work.data, work.samples)
    program, conditions = deployment.program, work.conditions
    layers: Sequence[Any] = [layer.nominal for layer in program.layers]
    if work.serial is not None:
        chip = VirtualChip(deployment.chip, work.serial, temperature_c=conditions.temperature_c)
        trims = calibrate(chip, program, conditions.calibration, conditions.seed) if conditions.calibration else None
        deviations = chip.deviations(program, trims)
        if work.cause is not None:
            deviations = tuple(only(one, CAUSES[work.cause]) for one in deviations)
        layers = [one.apply(layer) for one, layer in zip(deviations, layers, strict=True)]
    noisy = conditions.noise and work.cause in (None, "trial noise")
    times = deployment.emulate_layers(
        patterns.times,
        layers,
        noise=deployment.trial_noise() if noisy else None,
        seed=conditions.seed,
    )
    found = AnalogRun({program.layers[-1].name: times[-1]}).answers(conditions.decode)
    return float(np.mean(found == patterns.labels)), float(np.mean(found < 0))


def only(deviations: LayerDeviations, names: Sequence[str]) -> LayerDeviations:
    """The deviations called ``names``, and nothing else."""
    neutral = {
        part.name: np.full_like(getattr(deviations, part.name), 0.0 if part.name.endswith("_shift") else 1.0)
        for part in fields(deviations)
        if part.name not in names
    }
    return replace(deviations, **neutral)
