"""The training configuration: a YAML file, checked field by field before anything runs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from neurodeploy.errors import ConfigError
from neurodeploy.files import canonical_json, write_text

TEMPLATES = Path(__file__).parent / "templates"

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    """Unknown fields are errors: a misspelt setting must not silently do nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DigitsData(_Strict):
    """Real MNIST digits recorded by the simulated event camera (``neurodeploy.events.simulate_digit_events``)."""

    source: Literal["digits"]
    n_train: Count = 4000
    n_test: Count = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    dt_us: Count = 10_000
    duration_us: Count | None = None


class NpzData(_Strict):
    """Two labelled event data sets as .npz (``neurodeploy.events.load_npz``); paths are relative to the YAML file.

    ``sensor_size`` is ``[channels, height, width]``, needed where the files do not say. ``duration_us`` cuts longer
    recordings; by default nothing is cut.
    """

    source: Literal["npz"]
    train: str
    test: str
    sensor_size: tuple[Count, Count, Count] | None = None
    dt_us: Count = 10_000
    duration_us: Count | None = None


class ConvLayer(_Strict):
    """A square 2-D convolution."""

    type: Literal["conv"]
    features: Count
    kernel: Count
    stride: Count = 1
    padding: Annotated[int, Field(ge=0)] = 0
    bias: bool = False
    name: str | None = None


class LinearLayer(_Strict):
    """A fully connected layer; a map is flattened first (channel, row, column)."""

    type: Literal["linear"]
    features: Count
    bias: bool = False
    name: str | None = None


class SumPoolLayer(_Strict):
    """Sum pooling with stride = kernel: what a chip that merges addresses does."""

    type: Literal["sum_pool"]
    kernel: Count
    name: str | None = None


class DropoutLayer(_Strict):
    """Dropout while training."""

    type: Literal["dropout"]
    p: Fraction
    name: str | None = None


class _NeuronLayer(_Strict):
    """What layers of spiking neurons share.

    ``recurrent`` adds lateral connections: weights from every neuron of the layer to every one, a step later, which
    needs a linear layer before it.
    """

    threshold: Positive = 1.0
    v_min: Annotated[float, Field(lt=0)] | None = None
    spikes: Literal["multi", "single"] | Count = "multi"
    reset: Literal["subtract", "zero"] = "subtract"
    recurrent: bool = False
    name: str | None = None


class IafLayer(_NeuronLayer):
    """Integrate-and-fire neurons (``neurodeploy.nn.IAF``)."""

    type: Literal["iaf"]


class _LeakyLayer(_NeuronLayer):
    """Neurons whose potential decays; ``tau_us`` is the membrane's time constant."""

    tau_us: Positive
    norm_input: bool = False


class LifLayer(_LeakyLayer):
    """Leaky integrate-and-fire neurons (``neurodeploy.nn.LIF``)."""

    type: Literal["lif"]


class CubaLifLayer(_LeakyLayer):
    """Neurons with a synaptic current (``neurodeploy.nn.CubaLIF``), whose time constant is ``tau_syn_us``."""

    type: Literal["cuba_lif"]
    tau_syn_us: Positive


class AlifLayer(_LeakyLayer):
    """Neurons whose threshold adapts (``neurodeploy.nn.ALIF``) with the time constant ``tau_adapt_us``."""

    type: Literal["alif"]
    tau_adapt_us: Positive
    adapt_scale: Positive = 1.8
    spikes: Literal["multi", "single"] | Count = "single"


class LiLayer(_Strict):
    """Leaky integrators (``neurodeploy.nn.LI``) as the last layer: the class is read from the summed potentials."""

    type: Literal["li"]
    tau_us: Positive
    norm_input: bool = False
    name: str | None = None


SpikingLayer = IafLayer | LifLayer | CubaLifLayer | AlifLayer

Layer = Annotated[
    ConvLayer | LinearLayer | SumPoolLayer | DropoutLayer | SpikingLayer | LiLayer, Field(discriminator="type")
]


class NetworkConfig(_Strict):
    """Either ``layers``, or a Python ``factory`` written ``module:function``.

    The function is called as ``function(input_shape=(C, H, W), n_time_steps=T, n_classes=n, **arguments)`` and returns
    a ``torch.nn.Module`` that maps ``[B * T, C, H, W]`` to spikes ``[B * T, outputs]``.
    """

    layers: tuple[Layer, ...] = ()
    factory: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    arguments: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _one_of_both(self) -> "NetworkConfig":
        if bool(self.layers) == (self.factory is not None):
            raise ValueError("give either layers or factory")
        if self.arguments and self.factory is None:
            raise ValueError("arguments belong to a factory")
        canonical_json(self.arguments)  # raises for NaN and infinity, which the resolved file could not hold
        return self


class SurrogateConfig(_Strict):
    """Surrogate derivative of the layers in ``network.layers`` (classes of ``neurodeploy.nn``)."""

    type: Literal["single_exponential", "periodic_exponential", "box", "sigmoid", "arctan"] = "periodic_exponential"
    grad_width: Positive = 0.5
    grad_scale: Positive = 1.0


class OptimizerConfig(_Strict):
    """Optimizer and learning rate: linear rise over the first ``warmup`` of all steps, then ``schedule``."""

    type: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    momentum: Fraction = 0.9
    warmup: Fraction = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    clip_grad_norm: Positive | None = None


class ActivityPenalty(_Strict):
    """A price on activity that misses a ``target`` or exceeds a ``limit``, in each recording.

    With the activity ``a`` of a recording it is ``weight * (a / target - 1)^2``, or, for a limit,
    ``weight * max(0, a / limit - 1)^2``.

    ``quantity`` is ``rate``: spikes per neuron and time step of the spiking layer ``layer`` (without one, the mean
    penalty of all); ``synops``: synaptic operations into the weight layer ``layer`` (without one, of the network);
    ``synops_per_second``: the same per second of recording, the unit of a chip's throughput.
    """

    quantity: Literal["rate", "synops", "synops_per_second"]
    layer: str | None = None
    target: Positive | None = None
    limit: Positive | None = None
    weight: Positive = 1.0

    @model_validator(mode="after")
    def _one_of_both(self) -> "ActivityPenalty":
        if (self.target is None) == (self.limit is None):
            raise ValueError("give either target or limit")
        return self


class LossConfig(_Strict):
    """Cross-entropy of ``gain * (output spikes over the recording)``, plus what activity costs.

    ``synops_weight`` is added to the loss for every million synaptic operations per recording; ``activity`` holds
    targets and limits.
    """

    type: Literal["cross_entropy"] = "cross_entropy"
    gain: Positive = 0.5
    synops_weight: NotNegative = 0.0
    activity: tuple[ActivityPenalty, ...] = ()


class QuantizeAware(_Strict):
    """Train on the integers of a chip (``neurodeploy.train.OnChip``) after the first ``from_epoch`` epochs.

    ``target`` is the name of a chip or the path of a chip.yaml, relative to this file.
    """

    target: str
    from_epoch: Annotated[int, Field(ge=0)] = 0


class LocalConfig(_Strict):
    """Learn block by block and segment by segment, in less memory (``kernels/local``).

    ``truncation`` is the number of time steps of a segment, ``block`` the number of spiking layers of a block; without
    one of them that cut is not made. Weights change after every segment.
    """

    truncation: Count | None = None
    block: Count | None = None


class TrainConfig(_Strict):
    """Everything that decides the result of a training run.

    ``max_weight`` limits the size of every weight after each step, in the unit of the thresholds. A weight above the
    threshold makes a chip neuron, which fires at most once per event, lag behind. ``init`` is a run folder or a
    ``model.safetensors`` of the same network whose weights are the first ones, for fine-tuning; relative to this file.
    ``shards`` is into how many parts each batch is split, whose gradients are added in order; the processes that
    torchrun starts share them, so it must be a multiple of their number. Without it there is one part per process. The
    result depends on the shards and not on the processes. ``device`` is ``cpu``, ``cuda`` or a GPU such as ``cuda:1``;
    with ``cuda``, the processes that torchrun starts on one machine take its GPUs in turn.
    """

    data: Annotated[DigitsData | NpzData, Field(discriminator="source")]
    network: NetworkConfig
    surrogate: SurrogateConfig = SurrogateConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    algorithm: str = "exodus"
    quantize_aware: QuantizeAware | None = None
    local: LocalConfig | None = None
    init: str | None = None
    max_weight: Positive | None = None
    shards: Count | None = None
    epochs: Count = 10
    batch_size: Count = 50
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Count = 1
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    checkpoint_every: Count = 1

    @model_validator(mode="after")
    def _local_alone(self) -> "TrainConfig":
        if self.local is not None and (
            self.quantize_aware or self.loss.synops_weight or self.loss.activity or (self.shards or 1) > 1
        ):
            raise ValueError("local cannot be combined with quantize_aware, shards, or a price on activity")
        return self

    @model_validator(mode="after")
    def _chip_on_the_cpu(self) -> "TrainConfig":
        if self.quantize_aware is not None and self.device != "cpu":
            raise ValueError(f"quantize_aware trains on the CPU, and device is {self.device}")
        return self

    @model_validator(mode="after")
    def _reaches_the_chip(self) -> "TrainConfig":
        if self.quantize_aware is not None and self.quantize_aware.from_epoch >= self.epochs:
            raise ValueError(
                f"quantize_aware.from_epoch is {self.quantize_aware.from_epoch}, but there are {self.epochs} epochs"
            )
        return self

    def sha256(self) -> str:
        """Hash of all settings."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read and check a configuration file.

    Args:
        path: YAML file; paths inside it are relative to its folder.
        overrides: dotted field names and values that replace the file's, e.g. ``{"optimizer.lr": 1e-3, "epochs": 3}``.

    Raises:
        ConfigError: no such file, not YAML, or a field that is unknown, missing or out of range (named by its path).
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}).", remedy="check the path.", code="config-missing"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML ({error}).", remedy="correct the file.", code="config-yaml") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: holds {type(content).__name__}, not a mapping of settings.",
            remedy=f"start from {TEMPLATES / 'digits.yaml'}.",
            code="config-yaml",
        )
    for name, value in (overrides or {}).items():
        _override(content, name, value)
    return parse_config(content, source=str(path), folder=path.parent)


def parse_config(
    content: Mapping[str, Any], *, source: str = "configuration", folder: Path | None = None
) -> TrainConfig:
    """Check settings given as plain data; ``folder`` is what relative data paths start from (default: here)."""
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}"
            + ("" if isinstance(item["input"], dict) else f" (found {item['input']!r})")
            for item in error.errors()
        )
        raise ConfigError(
            f"{source}: {problems}.",
            remedy="correct these fields; neurodeploy/train/config.py describes all of them.",
            code="config-field",
        ) from error
    folder = Path.cwd() if folder is None else folder.resolve()
    changes: dict[str, Any] = {}
    if isinstance(config.data, NpzData):
        paths = {name: str(folder / getattr(config.data, name)) for name in ("train", "test")}
        changes["data"] = config.data.model_copy(update=paths)
    if config.init is not None:
        changes["init"] = str(folder / config.init)
    aware = config.quantize_aware
    if aware is not None and aware.target.endswith((".yaml", ".yml")):
        changes["quantize_aware"] = aware.model_copy(update={"target": str(folder / aware.target)})
    return config.model_copy(update=changes)


def save_config(path: str | Path, config: TrainConfig) -> None:
    """Write the resolved configuration as YAML, all or nothing; ``load_config`` reads it back unchanged."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _override(content: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    place = content
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"override {name}: {parent} is not a group of settings.",
                remedy="name the field by its path in the file, e.g. optimizer.lr.",
                code="config-override",
            )
        place = inner
    place[last] = value
