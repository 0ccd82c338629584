"""The description of one analog chip: every number of ``chip.yaml``, checked, with its source.

Units: times are seconds of the chip's own time, currents are amperes, potentials are in the unit that the file names
in the parameter's ``unit``. A number without open evidence has a source that begins with "assumed".
"""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neurodeploy.files import canonical_json

T = TypeVar("T")
Whole = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(gt=0, strict=True)]
Step = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Positive = Annotated[Real, Field(gt=0)]
AtLeastZero = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]

Scope = Literal["neuron", "receptor", "core", "core_pair", "chip"]
"""What has a word of a parameter of its own: each neuron, each of its two receptors, a core, two cores, the chip."""

Law = Literal["proportional", "inverse"]
"""How a value follows the current or voltage that the converter makes: a time constant falls with the current."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(_Frozen, Generic[T]):
    """A number and where it is from."""

    value: T
    source: Text

    @property
    def assumed(self) -> bool:
        """Whether there is no evidence for it: the source begins with "assumed"."""
        return self.source.startswith("assumed")


class Time(_Frozen):
    """``acceleration``: how many times faster than the network's time; ``timestamp_lsb_s``: 0 for no grid."""

    acceleration: Fact[Positive]
    timestamp_lsb_s: Fact[AtLeastZero]


class NeuronModel(_Frozen):
    """What the neuron circuits compute: current-based LIF with a hard reset, currents flow on while it is held."""

    model: Fact[Literal["lif_cuba", "dpi_linear", "dpi_full", "adex"]]
    reset: Fact[Literal["hard"]]


class Fabric(_Frozen):
    """Numbers of circuits and of the words that connect them; ``null`` where there is no limit.

    Attributes:
        chips: of one board; ``chip_positions``: their places ``(x, y)`` in hops from where the host's spikes enter.
        neurons_per_core: circuits.
        fan_in: signed inputs of one circuit; ``synapses``: its synapse circuits, two of which a signed input may take.
        max_merge: circuits that may form one neuron.
        destinations: words of a neuron that say where its spikes go; ``destinations_for_monitor`` of them are taken
            when its core is monitored.
        tag_bits: of the address that synapses compare with spikes; ``hops``: reach of a spike in chips, either way.
    """

    chips: Fact[Count]
    chip_positions: Fact[tuple[tuple[Step, Step], ...]]
    cores: Fact[Count]
    neurons_per_core: Fact[Count | None]
    fan_in: Fact[Count | None]
    synapses: Fact[Count | None]
    max_merge: Fact[Count]
    destinations: Fact[Count | None]
    destinations_for_monitor: Fact[Whole]
    tag_bits: Fact[Count | None]
    hops: Fact[Count | None]

    @model_validator(mode="after")
    def _every_chip_has_a_place(self) -> Self:
        if len(set(self.chip_positions.value)) != self.chips.value:
            raise ValueError(f"chip_positions must be {self.chips.value} different places, one for each chip")
        return self

    @property
    def neurons(self) -> int | None:
        """Circuits of one chip."""
        each = self.neurons_per_core.value
        return None if each is None else each * self.cores.value


class Weights(_Frozen):
    """What a synapse can be told.

    ``sign``: free per synapse, common to a row (a signed input takes a pair of rows), or the choice of a dendrite.
    ``levels``: any number; whole multiples of one level; sums of four currents of a core. ``scale``: what shares them.
    """

    magnitude_bits: Fact[Annotated[Count, Field(le=16)] | None]
    sign: Fact[Literal["free", "row_pair", "dendrite"]]
    levels: Fact[Literal["continuous", "uniform", "four_currents"]]
    scale: Fact[Scope | None]

    @model_validator(mode="after")
    def _bits_where_there_are_levels(self) -> Self:
        if (self.levels.value == "continuous") != (self.magnitude_bits.value is None):
            raise ValueError("magnitude_bits must be null for continuous levels, and a number for others")
        return self


class ExactDac(_Frozen):
    """No converter: any value is possible."""

    kind: Literal["exact"]


class LinearDac(_Frozen):
    """Codes 0 to ``top``; ``at_top`` is the value at the highest one with gear 1.

    Proportional: ``value = at_top * gear * code / top``; inverse: ``value = at_top * top / (gear * code)``.
    ``gears`` are the switches that multiply the current.
    """

    kind: Literal["linear"]
    law: Law
    top: Fact[Count]
    at_top: Fact[Positive]
    gears: Fact[Annotated[tuple[Positive, ...], Field(min_length=1)]]


class CoarseFineDac(_Frozen):
    """A bias current ``I = factor * (floor_a + first_range_a * ratio^coarse * fine / fine_top)``.

    ``currents_a`` replaces the formula by a table of one's own: for each coarse code, the current of each fine code.
    Inverse: ``value = capacity_f * voltage_v / I``, a time; proportional: the value is the current.
    """

    kind: Literal["coarse_fine"]
    law: Law
    coarse_codes: Fact[Count]
    fine_top: Fact[Count]
    first_range_a: Fact[Positive]
    ratio: Fact[Positive]
    floor_a: Fact[Positive]
    factor: Fact[Positive]
    currents_a: Fact[tuple[tuple[Positive, ...], ...]] | None = None
    capacity_f: Fact[Positive] | None = None
    voltage_v: Fact[Positive] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.law == "inverse") != (self.capacity_f is not None) or (self.capacity_f is None) != (
            self.voltage_v is None
        ):
            raise ValueError("capacity_f and voltage_v belong to the law 'inverse', and only to it")
        table = self.currents_a
        if table and {len(row) for row in table.value} != {self.fine_top.value + 1}:
            raise ValueError(f"currents_a must have {self.fine_top.value + 1} currents for each coarse code")
        if table and len(table.value) != self.coarse_codes.value:
            raise ValueError(f"currents_a must have {self.coarse_codes.value} rows, one for each coarse code")
        return self


class CounterDac(_Frozen):
    """A digital counter of 1 to ``2^bits - 1`` periods of a clock of ``clock_hz / 2^(n + 1)``, n below ``dividers``."""

    kind: Literal["counter"]
    bits: Fact[Annotated[Count, Field(le=32)]]
    clock_hz: Fact[Positive]
    dividers: Fact[Annotated[Count, Field(le=32)]]


Dac = Annotated[ExactDac | LinearDac | CoarseFineDac | CounterDac, Field(discriminator="kind")]


class Tail(_Frozen):
    """Outliers: a ``share`` of the circuits has a spread ``factor`` times as large."""

    share: Fact[Share]
    factor: Fact[Annotated[Real, Field(ge=1)]]


class LogNormal(_Frozen):
    """Factors with mean 1 and coefficient of variation ``cv`` (that of the part without tail)."""

    distribution: Literal["lognormal"]
    cv: Fact[AtLeastZero]
    tail: Tail | None = None


class Normal(_Frozen):
    """Sums with mean 0 and standard deviation ``sigma``, in the parameter's unit (that of the part without tail)."""

    distribution: Literal["normal"]
    sigma: Fact[AtLeastZero]
    tail: Tail | None = None


Spread = Annotated[LogNormal | Normal, Field(discriminator="distribution")]


class Trim(_Frozen):
    """What calibration can do.

    ``residual``: the share of the spread that is left. ``noise``: standard deviation of one measurement of the
    parameter, relative to it where the spread is log-normal and in its unit where the spread is normal.
    """

    residual: Fact[Share]
    noise: Fact[AtLeastZero]


class Parameter(_Frozen):
    """A parameter of the circuits: how it is set, by what it differs from circuit to circuit, how it is calibrated.

    Attributes:
        unit: of its values; ``lsb`` is a step of the chip's own converter of potentials, ``1`` a value of the network.
        scope: what shares one word.
        range: what may be asked for; ``null``: whatever the converter has.
        dac: how a value becomes a word.
        spread: ``null``: none. trim: ``null``: it cannot be calibrated.
    """

    unit: Literal["s", "lsb", "V", "A", "1"]
    scope: Scope
    range: Fact[tuple[Real, Real]] | None = None
    dac: Dac
    spread: Spread | None = None
    trim: Trim | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.trim is not None and (
            self.spread is None or self.scope not in ("neuron", "receptor") or not isinstance(self.dac, LinearDac)
        ):
            raise ValueError("trim needs a spread, a word per neuron or receptor, and a linear converter")
        if self.range is not None and not self.range.value[0] < self.range.value[1]:
            raise ValueError("range must rise")
        return self


class Parameters(_Frozen):
    """The parameters; ``null`` where a chip has none. Those of ``LayerParameters`` first.

    ``gain_exc`` and ``gain_inh`` multiply all weights of a receptor; in the unit "1" they are relative.
    """

    tau_mem: Parameter
    tau_syn_exc: Parameter
    tau_syn_inh: Parameter
    t_ref: Parameter
    threshold: Parameter
    leak: Parameter | None
    reset: Parameter | None
    pulse: Parameter | None
    weight_current: Parameter | None
    gain_mem: Parameter | None
    gain_exc: Parameter | None
    gain_inh: Parameter | None

    @model_validator(mode="after")
    def _spreads_keep_the_sign(self) -> Self:
        for name, parameter in self.items():
            if isinstance(parameter.spread, Normal) and name not in ("threshold", "leak", "reset"):
                raise ValueError(f"{name}: the spread must be log-normal: only potentials have a normal one")
            if isinstance(parameter.spread, LogNormal) and name in ("leak", "reset"):
                raise ValueError(f"{name}: the spread must be normal: a potential may have either sign")
        if self.threshold.trim is not None and isinstance(self.threshold.spread, LogNormal):
            raise ValueError("threshold: only a normal spread can be trimmed")
        return self

    def items(self) -> Iterator[tuple[str, Parameter]]:
        """Names and descriptions of the parameters that the chip has."""
        for name in type(self).model_fields:
            parameter = getattr(self, name)
            if parameter is not None:
                yield name, parameter


class OperatingPoint(_Frozen):
    """Potentials for the rest and the (largest) threshold of a layer, in the unit of their parameters."""

    leak: Fact[Real]
    threshold: Fact[Real]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.threshold.value <= self.leak.value:
            raise ValueError("the threshold must be above the leak potential")
        return self


class Synapses(_Frozen):
    """Static spread of the ``weight`` of single synapses; that of the receptors they meet at is the gains'."""

    weight: LogNormal | None


class TrialNoise(_Frozen):
    """What differs from run to run: sd of spike times in units of tau_syn_exc, relative sd of thresholds."""

    jitter_tau_syn: Fact[AtLeastZero]
    threshold_cv: Fact[AtLeastZero]


class Environment(_Frozen):
    """Temperature: all time constants and gains are multiplied by ``1 + tempco * (T - reference)``."""

    temperature_c: Fact[Real]
    reference_c: Fact[Real]
    tau_tempco: Fact[Real]
    gain_tempco: Fact[Real]


class AnalogChip(_Frozen):
    """One analog chip; ``family`` is the folder in ``targets/`` whose code serves it."""

    name: Text
    title: Text
    family: Text
    time: Time
    neuron: NeuronModel
    fabric: Fabric
    weights: Weights
    parameters: Parameters
    operating_point: OperatingPoint
    synapses: Synapses
    trial_noise: TrialNoise
    environment: Environment

    def __reduce__(self) -> tuple[Any, ...]:
        # Classes made from generic ones, like Fact[float], cannot be pickled: a copy is made from plain data.
        return AnalogChip.model_validate, (self.model_dump(),)

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all numbers; sources and title do not count."""
        return _sha256(_without_sources(self.model_dump(mode="json", exclude={"title"})))

    @property
    def silicon(self) -> str:
        """SHA-256 (hexadecimal) of the name and the fabric: what the deviations of the circuits are drawn from.

        Their sizes do not count: the same serial with half the spread has the same circuits fast and slow.
        """
        return _sha256([self.name, _without_sources(self.fabric.model_dump(mode="json"))])

    @property
    def calibratable(self) -> bool:
        """Whether any parameter can be trimmed circuit by circuit."""
        return any(parameter.trim is not None for _, parameter in self.parameters.items())

    def assumptions(self) -> dict[str, str]:
        """Sources of the numbers that have no evidence, by field."""
        return {name: fact.source for name, fact in _facts(self, "") if fact.assumed}

    def sources(self) -> dict[str, str]:
        """Sources of all numbers, by field, e.g. ``"parameters.tau_mem.range"``."""
        return {name: fact.source for name, fact in _facts(self, "")}

    def facts(self) -> dict[str, Fact[Any]]:
        """All numbers with their sources, by field."""
        return dict(_facts(self, ""))

    def with_mismatch(self, cv: float) -> "AnalogChip":
        """The chip with log-normal spreads of ``cv`` on time constants, thresholds and weights, and no other spread.

        This is the uniform mismatch of robustness tables ("20 % mismatch"); nothing of it can be calibrated.
        """
        spread = LogNormal(distribution="lognormal", cv=Fact[float](value=cv, source="asked for by with_mismatch"))
        uniform = ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold")
        changed = {
            name: parameter.model_copy(update={"spread": spread if name in uniform else None, "trim": None})
            for name, parameter in self.parameters.items()
        }
        return self.model_copy(
            update={
                "parameters": self.parameters.model_copy(update=changed),
                "synapses": Synapses(weight=spread),
            }
        )


def _facts(part: BaseModel, place: str) -> Iterator[tuple[str, Fact[Any]]]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Fact):
            yield place + name, value
        elif isinstance(value, BaseModel):
            yield from _facts(value, f"{place}{name}.")


def _without_sources(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    if set(data) == {"value", "source"}:
        return data["value"]
    return {key: _without_sources(value) for key, value in data.items()}


def _sha256(data: Any) -> str:
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()
