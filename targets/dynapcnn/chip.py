"""The description of one chip of the family: every number of ``chip.yaml``, checked, with its source."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from neurodeploy.mapping.placement import Core

T = TypeVar("T")
Positive = Annotated[int, Field(gt=0, strict=True)]
Text = Annotated[str, Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(_Frozen, Generic[T]):
    """A number and where it is from."""

    value: T
    source: Text

    def __str__(self) -> str:
        """The value; several values separated by commas."""
        return ", ".join(map(str, self.value)) if isinstance(self.value, tuple) else str(self.value)


class Memory(_Frozen):
    """Words of one core's memories: kernel (8 bit), neuron (16 bit), bias (16 bit)."""

    kernel: Positive
    neuron: Positive
    bias: Annotated[int, Field(ge=0, strict=True)]


class Cores(_Frozen):
    """The cores in the order of their numbers."""

    memories: Annotated[tuple[Memory, ...], Field(min_length=1, max_length=256)]
    source: Text


class Limits(_Frozen):
    """What one core can do. Sizes are for one side of a map.

    The bounds are those of the program file and the emulator: an invented chip has them too.
    """

    input_size: Fact[Annotated[Positive, Field(le=128)]]
    neuron_size: Fact[Annotated[Positive, Field(le=128)]]
    features: Fact[Annotated[Positive, Field(le=1024)]]
    kernel_size: Fact[Annotated[Positive, Field(le=128)]]
    strides: Fact[tuple[Annotated[Positive, Field(le=16)], ...]]
    padding: Fact[Annotated[int, Field(ge=0, le=127, strict=True)]]
    poolings: Fact[tuple[Literal[1, 2, 4], ...]]
    destinations: Fact[Annotated[Positive, Field(le=2)]]
    weight_bits: Fact[Annotated[Positive, Field(ge=2, le=8)]]
    bias_bits: Fact[Annotated[Positive, Field(ge=2, le=16)]]
    state_bits: Fact[Annotated[Positive, Field(ge=2, le=16)]]
    lowest_threshold: Fact[Positive]
    highest_v_min: Fact[Annotated[int, Field(lt=0, strict=True)]]


class Quantization(_Frozen):
    """Widths the quantizer scales to."""

    weight_bits: Fact[Positive]
    bias_bits: Fact[Positive]
    state_bits: Fact[Positive]


class Routing(_Frozen):
    """Destination numbers that are not cores."""

    readout: Fact[Positive]
    dvs: Fact[Positive]


class Readout(_Frozen):
    """The readout block: how many classes it has, and where it looks for them in the features of the last core."""

    classes: Fact[Positive]
    feature_step: Fact[Positive]


class Throughput(_Frozen):
    """Synaptic operations per second that one core can sustain; published anchors, for warnings only.

    ``first_cores`` are the numbers of the fast ones, which busy layers should be on.
    """

    first_cores: Fact[tuple[Annotated[int, Field(ge=0, strict=True)], ...]]
    synops_per_second_first_cores: Fact[float]
    synops_per_second_other_cores: Fact[float]


class Latency(_Frozen):
    """Published times of one event, in microseconds."""

    one_core_us: Fact[float]
    nine_cores_us: Fact[float]


class Energy(_Frozen):
    """Published power figures."""

    resting_power_mw: Fact[float]


class Device(_Frozen):
    """A board with this chip: ``name`` as sinabs spells it, ``board`` as samna does."""

    name: Text
    board: Text
    source: Text


class Erratum(_Frozen):
    """Where the silicon differs from its description."""

    code: Text
    text: Text
    source: Text


class Chip(_Frozen):
    """One chip; ``family`` is the folder in ``targets/`` whose code serves it.

    ``samna_module`` is None and ``devices`` is empty for a chip that nobody makes.
    """

    name: Text
    title: Text
    family: Text
    samna_module: Text | None = None
    devices: tuple[Device, ...] = ()
    cores: Cores
    limits: Limits
    quantization: Quantization
    routing: Routing
    readout: Readout
    sensor: Fact[bool]
    throughput: Throughput
    latency: Latency
    energy: Energy
    errata: tuple[Erratum, ...]

    @field_validator("limits")
    @classmethod
    def _unpooled_and_unstrided_are_allowed(cls, limits: Limits) -> Limits:
        if 1 not in limits.strides.value or 1 not in limits.poolings.value:
            raise ValueError("strides and poolings must allow 1")
        return limits

    def synops_per_second(self, core: int) -> Fact[float]:
        """Published throughput of one core. What is published for the first core is not assumed of core 1."""
        throughput = self.throughput
        return throughput.synops_per_second_other_cores if core else throughput.synops_per_second_first_cores

    def placement_cores(self) -> list[Core]:
        """The cores as ``neurodeploy.mapping.placement`` takes them."""
        return [Core(number, memory.model_dump()) for number, memory in enumerate(self.cores.memories)]
