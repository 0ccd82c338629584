"""The contract of ``kernels/``: one folder with a ``cpu.cpp`` is one training algorithm for spiking layers.

Arrays are ``[B, T, N]`` and contiguous (``[T, B, N]`` with ``time_major``): B samples, T time steps, N neurons, all
independent. The state is ``[B, N]``, the potential after the last step. ``neuron.py`` defines the step.

A neuron may have more than a potential, each switched on by its :class:`Parameters`: a synaptic current, a threshold
that adapts, lateral connections to the other neurons of the layer. Its state then has one row of ``[B, N]`` for each,
``[S, B, N]`` in the order of :data:`STATE_ROWS`. ``kernels/exodus/README.md`` gives the steps and their gradients. An
algorithm that has potentials only calls :func:`check_plain`, and says so by ``plain = True``.

A folder's package has, at module level, what :class:`Kernel` lists. ``apply`` is the differentiable entry point that
layers call; ``forward`` and ``backward`` are its two halves for callers that carry state and adjoint themselves
(streaming, truncation); ``reference`` is the readable definition that every backend must equal.
``tests/kernels/test_contract.py`` runs for every folder found.
"""

import importlib
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple, Protocol, cast

import torch

from neurodeploy import surrogate as surrogates
from neurodeploy.errors import KernelError
from neurodeploy.extension import native as _native
from neurodeploy.neuron import Reset, Spikes, VMinPosition

Memory = Literal["store", "recompute"]
"""What the forward pass keeps for the backward pass: every potential, or a checkpoint of the state every
``CHECKPOINT_EVERY`` steps from which the potentials are computed again. The results have the same bits."""

CHECKPOINT_EVERY = 32

HALF = (torch.bfloat16, torch.float16)
"""What a GPU's kernels take and give besides float32 and float64; state and parameters are float32 then."""

STATE_ROWS = ("v_mem", "i_syn", "b", "i_rec")
"""What a neuron may carry from step to step: potential, synaptic current, trace of its own spikes (it raises the
threshold), and the current that its layer's last spikes send it in the next step."""

Arguments = tuple[str, int, float | None, str, int, float, float, bool]
"""The fields of a :class:`Neuron` as plain values, in the order in which compiled operators take them."""


@dataclass(frozen=True, slots=True)
class Neuron:
    """The choices of ``neuron.py`` and the surrogate.

    ``soft_spikes`` replaces the spike count by the surrogate's primitive (float64 only): the surrogate gradient is then
    the true gradient and can be checked by finite differences. An algorithm whose gradient leaves out the reset path
    keeps whole spikes in the reset, where they are constants. It is a test mode, not a neuron.

    ``detach_threshold`` is for thresholds that adapt: the gradient takes the amounts that spikes subtract into account,
    but not that the level which they have to reach moves. sinabs trains its ALIF so.

    Raises:
        KernelError: a field has a value that no kernel can run.
    """

    reset: Reset = "subtract"
    spikes: Spikes = "multi"
    v_min: float | None = None
    v_min_position: VMinPosition = "after_reset"
    surrogate: surrogates.Surrogate = field(default_factory=surrogates.SingleExponential)
    soft_spikes: bool = False
    detach_threshold: bool = False

    def __post_init__(self) -> None:
        if self.reset not in ("subtract", "zero", "none"):
            raise KernelError(
                f"reset is {self.reset!r}.", remedy="choose 'subtract', 'zero' or 'none'.", code="neuron-reset"
            )
        if isinstance(self.spikes, bool) or not (
            self.spikes in ("multi", "single") or (isinstance(self.spikes, int) and self.spikes >= 1)
        ):
            raise KernelError(
                f"spikes is {self.spikes!r}.",
                remedy="choose 'multi', 'single' or a whole number of spikes per step, at least 1.",
                code="neuron-spikes",
            )
        if self.v_min is not None and not isfinite(self.v_min):
            raise KernelError(
                f"v_min is {self.v_min}.",
                remedy="give a finite number, or None for no lower limit.",
                code="neuron-v-min",
            )
        if self.v_min_position not in ("after_reset", "before_threshold"):
            raise KernelError(
                f"v_min_position is {self.v_min_position!r}.",
                remedy="choose 'after_reset' or 'before_threshold'.",
                code="neuron-v-min-position",
            )
        if not isinstance(self.surrogate, surrogates.KINDS):
            raise KernelError(
                f"surrogate is a {type(self.surrogate).__name__}.",
                remedy="use one of " + ", ".join(kind.__name__ for kind in surrogates.KINDS) + ".",
                code="neuron-surrogate",
            )

    @property
    def max_spikes(self) -> int:
        """Spikes per step at most; 0 means no limit."""
        return {"multi": 0, "single": 1}[self.spikes] if isinstance(self.spikes, str) else self.spikes

    def arguments(self) -> Arguments:
        """Return the fields as plain values; ``detach_threshold`` is passed apart from them."""
        kind, width, scale = surrogates.code(self.surrogate)
        return (
            self.reset,
            self.max_spikes,
            self.v_min,
            self.v_min_position,
            kind,
            width,
            scale,
            self.soft_spikes,
        )


class Parameters(NamedTuple):
    """Per-neuron numbers, each of shape [N], or [1] for one value shared by all neurons; dtype of the input.

    ``unit`` is the surrogate's voltage unit: the threshold as a constant. Its gradient is by definition nothing.
    ``syn_decay`` gives neurons a synaptic current, ``adapt_decay`` and ``adapt_scale`` (>= 0) together a threshold that
    adapts, ``weight`` [N, N] (row: target, column: source) lateral connections, and ``bias`` [N] a current that comes
    with them.
    """

    decay: torch.Tensor
    threshold: torch.Tensor
    input_gain: torch.Tensor
    unit: torch.Tensor
    syn_decay: torch.Tensor | None = None
    adapt_decay: torch.Tensor | None = None
    adapt_scale: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    @property
    def state_rows(self) -> tuple[str, ...]:
        """Names of the rows that the state of these neurons has, of :data:`STATE_ROWS`."""
        has = (True, self.syn_decay is not None, self.adapt_decay is not None, self.weight is not None)
        return tuple(name for name, present in zip(STATE_ROWS, has, strict=True) if present)

    def state_shape(self, batch: int, neurons: int) -> tuple[int, ...]:
        """Shape of the state: [B, N], or [S, B, N] where a neuron has more than a potential."""
        rows = len(self.state_rows)
        return (batch, neurons) if rows == 1 else (rows, batch, neurons)


class Output(NamedTuple):
    """What a layer's call gives: spikes [B, T, N], potentials v [B, T, N] if recorded, final state.

    v is the potential that is compared with the threshold: before the reset, and after a clip ``before_threshold``.
    """

    spikes: torch.Tensor
    v: torch.Tensor | None
    state: torch.Tensor


class Saved(NamedTuple):
    """What ``backward`` needs of the forward pass. ``kept`` is v or the checkpoints, as ``memory`` says.

    Kept beside v, where there are such: ``drive``, the current before the synapse; ``adaptation``, b before each step;
    ``spikes`` for the gradient of lateral weights.
    """

    x: torch.Tensor | None
    kept: torch.Tensor
    state: torch.Tensor
    parameters: Parameters
    neuron: Neuron
    memory: Memory
    time_major: bool
    drive: torch.Tensor | None = None
    adaptation: torch.Tensor | None = None
    spikes: torch.Tensor | None = None


class Gradients(NamedTuple):
    """Gradients of input [B, T, N], initial state, and parameters (shapes of :class:`Parameters`; None where None)."""

    x: torch.Tensor
    state: torch.Tensor
    decay: torch.Tensor
    threshold: torch.Tensor
    input_gain: torch.Tensor
    syn_decay: torch.Tensor | None = None
    adapt_decay: torch.Tensor | None = None
    adapt_scale: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None


class Reference(Protocol):
    """The readable definition: the same two halves as plain loops over time, with v always returned."""

    def forward(
        self, x: torch.Tensor, parameters: Parameters, state: torch.Tensor, neuron: Neuron
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (spikes [B, T, N], v [B, T, N], final state [B, N])."""

    def backward(
        self,
        grad_spikes: torch.Tensor,
        grad_v: torch.Tensor | None,
        grad_state: torch.Tensor,
        x: torch.Tensor,
        v: torch.Tensor,
        parameters: Parameters,
        state: torch.Tensor,
        neuron: Neuron,
    ) -> Gradients:
        """Return the gradients, given those of spikes, v and final state."""


class Kernel(Protocol):
    """What a package in ``kernels/`` offers."""

    @property
    def reference(self) -> Reference:
        """The readable definition."""

    @property
    def operators(self) -> tuple[str, str]:
        """Names of the forward and backward operators in ``torch.ops.neurodeploy``."""

    def apply(
        self,
        x: torch.Tensor,
        parameters: Parameters,
        state: torch.Tensor,
        neuron: Neuron,
        *,
        memory: Memory = "store",
        time_major: bool = False,
        record_v: bool = False,
    ) -> Output:
        """Run T steps, differentiably."""

    def forward(
        self,
        x: torch.Tensor,
        parameters: Parameters,
        state: torch.Tensor,
        neuron: Neuron,
        *,
        memory: Memory = "store",
        time_major: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, Saved]:
        """Run T steps; return (spikes, final state, what ``backward`` needs)."""

    def backward(
        self,
        grad_spikes: torch.Tensor,
        grad_v: torch.Tensor | None,
        grad_state: torch.Tensor,
        saved: Saved,
    ) -> Gradients:
        """Return the gradients, given those of spikes, v (None: zero) and final state."""


def names() -> list[str]:
    """Names of the neuron algorithms found: the packages in ``kernels/`` that compile one (``cpu.cpp``).

    Their submodule of the compiled module says so. Other packages work over these, or run whole networks.
    """
    folder = Path(__file__).parent / "kernels"
    packages = (path.parent.name for path in folder.glob("*/__init__.py"))
    return sorted(name for name in packages if hasattr(getattr(_native, name, None), "neuron_algorithm"))


def load(name: str) -> Kernel:
    """Import the algorithm ``name``.

    Raises:
        KernelError: there is no such algorithm in ``kernels/``.
    """
    known = names()
    if name not in known:
        raise KernelError(
            f"There is no training algorithm {name!r}.",
            remedy="choose one of " + ", ".join(known) + ".",
            code="unknown-algorithm",
        )
    return cast(Kernel, importlib.import_module(f"neurodeploy.kernels.{name}"))


def check_device(x: torch.Tensor) -> None:
    """Refuse tensors on devices without kernels before an operator is looked up for them.

    Raises:
        KernelError: the tensor is neither on the CPU nor on an NVIDIA GPU.
    """
    if x.device.type not in ("cpu", "cuda"):
        raise KernelError(
            f"The input is on {x.device}; kernels run on the CPU and on NVIDIA GPUs.",
            remedy="move the network and its input to one of them: net.cpu(), x.cpu().",
            code="kernel-device",
        )


def gpu_module(name: str) -> ModuleType:
    """Import the module ``name`` with Triton kernels, of which nothing is imported before a tensor on a GPU needs it.

    Raises:
        KernelError: triton is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
        raise KernelError(
            "The input is on a GPU, whose kernels need triton, which is not installed.",
            remedy="pip install 'neurodeploy-toolchain[gpu]', or move the network and its input to the CPU.",
            code="kernel-triton",
        ) from error


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of state and parameters for input of ``dtype``: bfloat16 and float16 are computed in float32."""
    return torch.float32 if dtype in HALF else dtype


def check_arguments(
    x: torch.Tensor, parameters: Parameters, state: torch.Tensor, *, soft_spikes: bool, time_major: bool
) -> None:
    """Refuse tensors that a kernel cannot run on. Called by the operators, on real tensors.

    Values are looked at on the CPU only; on a GPU the kernels do it (``gpu/flags.py``).

    Raises:
        KernelError: wrong dtype, number of axes, shape or strides, tensors that do not go together, or a threshold
            that is not above 0 (a learnt one may get there).
    """
    on_gpu = x.device.type == "cuda"
    if x.dtype not in (torch.float32, torch.float64, *(HALF if on_gpu else ())):
        raise KernelError(
            f"The input is {x.dtype} on {x.device}; kernels take float32 and float64, on a GPU bfloat16 and float16.",
            remedy="convert it with x.float(), and leave the spiking layers out of autocast.",
            code="kernel-dtype",
        )
    real = state_dtype(x.dtype)
    if soft_spikes and x.dtype != torch.float64:
        raise KernelError(
            f"Soft spikes need float64, the input is {x.dtype}.",
            remedy="convert it with x.double().",
            code="kernel-dtype",
        )
    if x.dim() != 3:
        raise KernelError(
            f"The input has shape {tuple(x.shape)}; kernels take [B, T, N].",
            remedy="flatten the axes after time into one.",
            code="kernel-shape",
        )
    batch = x.shape[1] if time_major else x.shape[0]
    neurons = x.shape[2]
    needed = parameters.state_shape(batch, neurons)
    if state.shape != needed:
        axes = "[B, N]" if len(needed) == 2 else f"[{len(needed)}, B, N]"
        raise KernelError(
            f"The state has shape {tuple(state.shape)}, the input needs {axes} = {needed}.",
            remedy="pass the state that a call with the same batch returned, or call reset_states(net).",
            code="kernel-shape",
        )
    given = [(name, tensor) for name, tensor in zip(Parameters._fields, parameters, strict=True) if tensor is not None]
    for name, tensor in given:
        shapes: tuple[tuple[int, ...], ...] = ((1,), (neurons,))
        if name in ("weight", "bias"):
            shapes = ((neurons, neurons),) if name == "weight" else ((neurons,),)
        if tuple(tensor.shape) not in shapes:
            raise KernelError(
                f"{name} has shape {tuple(tensor.shape)}; kernels take {' or '.join(str(shape) for shape in shapes)}.",
                remedy="give one value, or one for each neuron; lateral weights are [N, N].",
                code="kernel-shape",
            )
    if (parameters.adapt_decay is None) != (parameters.adapt_scale is None) or (
        parameters.weight is None and parameters.bias is not None
    ):
        raise KernelError(
            "adapt_decay comes with adapt_scale, and a bias with lateral weights; one of a pair is missing.",
            remedy="give both or neither.",
            code="kernel-shape",
        )
    for name, tensor in (("state", state), *given):
        if tensor.dtype != real or tensor.device != x.device:
            raise KernelError(
                f"{name} is {tensor.dtype} on {tensor.device}, the input is {x.dtype} on {x.device}.",
                remedy=f"convert it to {real} on {x.device}: all tensors of one call go together.",
                code="kernel-dtype",
            )
    for name, tensor in (("input", x), ("state", state), *given):
        if not tensor.is_contiguous():
            raise KernelError(
                f"{name} of shape {tuple(tensor.shape)} has strides {tensor.stride()}; kernels take contiguous rows.",
                remedy="call .contiguous() on it.",
                code="kernel-strides",
            )
    if on_gpu:
        return
    if not bool((parameters.threshold > 0).all()):  # a NaN is refused too
        raise KernelError(
            f"The smallest threshold is {parameters.threshold.min().item():g}; kernels take thresholds above 0.",
            remedy="keep a learnt threshold positive: clamp it after each optimizer step, or lower its learning rate.",
            code="kernel-threshold",
        )
    if parameters.adapt_scale is not None and not bool((parameters.adapt_scale >= 0).all()):
        raise KernelError(
            f"The smallest adapt_scale is {parameters.adapt_scale.min().item():g}; a threshold adapts upwards.",
            remedy="give values of at least 0, and clamp a learnt one after each optimizer step.",
            code="kernel-threshold",
        )


def check_state(parameters: Parameters, state: torch.Tensor) -> None:
    """Refuse a state in which the trace b of a neuron's spikes is negative: it would lower the threshold.

    Raises:
        KernelError: b is below 0 or NaN.
    """
    if parameters.adapt_decay is not None and not bool((state[parameters.state_rows.index("b")] >= 0).all()):
        raise KernelError(
            "The state's b, a trace of spikes, is below 0 or no number.",
            remedy="start from zeros, or from the state that a call returned.",
            code="kernel-state",
        )


def check_plain(parameters: Parameters, algorithm: str) -> None:
    """Refuse neurons that have more than a potential, for an algorithm that is defined for potentials only.

    Raises:
        KernelError: the parameters switch on a synaptic current, an adapting threshold or lateral connections.
    """
    if len(parameters.state_rows) > 1:
        raise KernelError(
            f"The algorithm {algorithm!r} runs neurons of a potential alone; these also have "
            f"{', '.join(parameters.state_rows[1:])}.",
            remedy="train these layers with algorithm='exodus'.",
            code="kernel-plain",
        )
