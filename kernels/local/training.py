"""The schedule: every block learns each segment of time from its own classifier (README.md has the rules)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F

from neurodeploy.errors import TrainError
from neurodeploy.kernels.local.blocks import split, time_axis
from neurodeploy.kernels.local.heads import auxiliary_head

Update = Literal["immediate", "deferred", "accumulate"]
"""When a block's weights change: right after its segment; when all blocks have seen the segment; once, after the last
segment, with the summed gradients."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Optimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class LocalStep(NamedTuple):
    """What one call of ``LocalTraining.step`` saw, without gradient.

    Attributes:
        losses: loss of each block, summed over the segments with their weights; [blocks].
        output: mean over time of the network's output, as it was while the weights changed; (B, ...).
    """

    losses: torch.Tensor
    output: torch.Tensor


class LocalTraining:
    """Train a ``torch.nn.Sequential`` of spiking layers block by block and segment by segment.

    Time is cut into segments of ``truncation`` steps (the last may be shorter), the network into blocks of ``block``
    spiking layers. States are carried over the cuts with their values, gradients are not. Block j's loss on segment k
    is ``loss(head_j(mean over the segment of the block's output), labels)``, weighted with the segment's share of the
    steps. Within a block and a segment the gradient is the neuron kernel's. With neither cut it is ordinary training,
    bit for bit.

    The network is used as it is: its layers' parameters are trained in place, and the classifiers of all blocks but the
    last live here and not in it, so whatever is traced, saved or exported has none of them.

    A call of ``step`` starts where a call of the network would: at 0, or for ``stateful`` layers where the last call
    ended. Batch normalization sees one segment at a time.

    Args:
        net: a plain Sequential (nested ones are opened) of layers without time and layers with a state: modules whose
            ``forward`` takes ``initial_state`` and ``return_state``, as those of ``neurodeploy.nn`` do. Those that also
            have a ``threshold`` are spiking layers; filters and leaky integrators are not.
        sample: an input as the network takes it; used for its shape, dtype and device.
        truncation: K, time steps per segment; None: no cut in time.
        block: S, spiking layers per block (the last block may have fewer); None: no cut in space.
        optimizer: makes a block's optimizer from its parameters (those of its classifier included).
        head: from the mean output of the last block to logits; default: the mean itself. If it is a module, its
            parameters are trained with the last block.
        auxiliary_head: from (shape of a block's output without batch and time, number of classes) to its classifier.
        loss: from logits (B, classes) and labels to a number.
        update: when weights change; see ``Update``.
        pipelined: run block j on segment k beside block j + 1 on segment k - 1, each block in a thread: the same
            weights, bit for bit, in less time on several cores, with the memory of all blocks instead of the largest.

    Attributes:
        blocks: the blocks, in order.
        heads: their classifiers; the last is ``head``.
        n_classes: logits of each classifier.
        optimizers: their optimizers; None for a block that has nothing to train.

    Raises:
        TrainError: an argument that cannot be used, or a network that cannot be cut.

    Guo et al. 2023; the rules in README.md are this project's reading of the method.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        sample: torch.Tensor,
        *,
        optimizer: Optimizer,
        truncation: int | None = None,
        block: int | None = None,
        head: Callable[[torch.Tensor], torch.Tensor] | None = None,
        auxiliary_head: Callable[[tuple[int, ...], int], torch.nn.Module] = auxiliary_head,
        loss: Loss = F.cross_entropy,
        update: Update = "immediate",
        pipelined: bool = False,
    ) -> None:
        _check_count("truncation", truncation)
        _check_count("block", block)
        if update not in ("immediate", "deferred", "accumulate"):
            raise TrainError(
                f"update is {update!r}.",
                remedy="choose 'immediate', 'deferred' or 'accumulate'.",
                code="local-update",
            )
        if pipelined and update == "deferred":
            raise TrainError(
                "Updates deferred until all blocks have seen a segment leave nothing to run beside each other.",
                remedy="use update='immediate', which gives the same weights, or pipelined=False.",
                code="local-update",
            )
        self.net = net
        self.truncation = truncation
        self.update: Update = update
        self.pipelined = pipelined
        self.blocks = split(net, block)
        self._axis = time_axis(self.blocks)
        last = head if isinstance(head, torch.nn.Module) else _Head(head)
        self._loss = loss
        *means, logits = self._outputs(sample, last)
        self.n_classes = logits.shape[-1]
        auxiliary = [auxiliary_head(tuple(mean.shape[1:]), self.n_classes).to(mean) for mean in means[:-1]]
        self.heads = torch.nn.ModuleList([*auxiliary, last])
        self.optimizers = self._build_optimizers(optimizer)

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> LocalStep:
        """Learn from one batch.

        Args:
            x: input of the network, all time steps: (B, T, ...), (T, B, ...) or folded (B*T, ...), as its layers ask.
            labels: what ``loss`` takes beside the logits, e.g. int64 (B,).

        Raises:
            TrainError: ``x`` does not have whole recordings, or ``pipelined`` with layers that draw random numbers.
        """
        steps = self._axis.length(x)
        if steps == 0:
            raise TrainError(
                "The input has no time steps.", remedy="pass recordings of at least one step.", code="local-time"
            )
        length = self.truncation or steps
        segments = [_Segment(start, min(start + length, steps), steps) for start in range(0, steps, length)]
        running = [_Running(states=[None] * len(block.neurons)) for block in self.blocks]
        with torch.enable_grad():
            if self.update == "accumulate":
                self._zero_gradients()
            if self.pipelined:
                self._run_pipelined(x.detach(), labels, segments, running)
            else:
                self._run(x.detach(), labels, segments, running)
            if self.update == "accumulate":
                self._update()
        return LocalStep(torch.stack([one.loss for one in running]), running[-1].mean)

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs to go on: network, classifiers and optimizers."""
        return {
            "net": self.net.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [None if one is None else one.state_dict() for one in self.optimizers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken: the next steps are those the original would have made, bit for bit.

        Raises:
            TrainError: the state is that of another network or another division into blocks.
        """
        try:
            states = state["optimizers"]
            if [one is None for one in states] != [one is None for one in self.optimizers]:
                raise ValueError(f"{len(states)} optimizers for {len(self.optimizers)} blocks")
            self.net.load_state_dict(state["net"])
            self.heads.load_state_dict(state["heads"])
            for optimizer, one in zip(self.optimizers, states, strict=True):
                if optimizer is not None:
                    optimizer.load_state_dict(one)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainError(
                f"The state does not fit this training ({' '.join(str(error).split())}).",
                remedy="build the same network with the same block size, head and optimizers before loading.",
                code="local-state-dict",
            ) from error

    def _run(
        self, x: torch.Tensor, labels: torch.Tensor, segments: "Sequence[_Segment]", running: "Sequence[_Running]"
    ) -> None:
        for segment in segments:
            signal = self._axis.segment(x, segment.start, segment.stop)
            for j in range(len(self.blocks)):
                signal = self._learn(j, signal, labels, segment, running[j])
            if self.update == "deferred":
                self._update()

    def _run_pipelined(
        self, x: torch.Tensor, labels: torch.Tensor, segments: "Sequence[_Segment]", running: "Sequence[_Running]"
    ) -> None:
        """Advance a wavefront: in one turn every block works, block j on the segment j turns back.

        Turns wait for each other, so a block never runs ahead and one segment of boundary spikes is all that waits.
        """
        self._refuse_random_layers()
        count = len(self.blocks)
        signals: dict[int, torch.Tensor] = {}
        # Every thread computes with the caller's number of threads: another number could round otherwise.
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
            for turn in range(len(segments) + count - 1):
                if turn < len(segments):
                    signals[0] = self._axis.segment(x, segments[turn].start, segments[turn].stop)
                work = {
                    j: pool.submit(self._learn, j, signals.pop(j), labels, segments[turn - j], running[j])
                    for j in range(count)
                    if 0 <= turn - j < len(segments)
                }
                signals = {j + 1: future.result() for j, future in work.items()}

    def _learn(
        self, j: int, signal: torch.Tensor, labels: torch.Tensor, segment: "_Segment", running: "_Running"
    ) -> torch.Tensor:
        """Run block j on one segment, backward included; return its output without gradient."""
        output, running.states = self.blocks[j](signal, running.states, segment.steps)
        mean = self._axis.mean(output, segment.steps)
        loss = self._loss(self.heads[j](mean), labels) * segment.share
        optimizer = self.optimizers[j]
        if optimizer is not None:
            if self.update != "accumulate":
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.update == "immediate":
                optimizer.step()
        running.loss = running.loss + loss.detach()
        running.mean = running.mean + mean.detach() * segment.share
        boundary: torch.Tensor = output.detach()
        return boundary

    def _zero_gradients(self) -> None:
        for optimizer in self.optimizers:
            if optimizer is not None:
                optimizer.zero_grad()

    def _update(self) -> None:
        for optimizer in self.optimizers:
            if optimizer is not None:
                optimizer.step()

    def _outputs(self, sample: torch.Tensor, head: torch.nn.Module) -> list[torch.Tensor]:
        """Mean output (B, ...) of each block, and last the logits, for one step of ``sample``."""
        # Copies: statistics, random numbers and carried states of the network stay as they were.
        blocks, head = copy.deepcopy(self.blocks), copy.deepcopy(head).eval()
        outputs = []
        with torch.no_grad():
            self._axis.length(sample)
            signal = self._axis.segment(sample, 0, 1)
            for block in blocks:
                for layer in block.eval().neurons:
                    reset = getattr(layer, "reset_states", None)
                    if callable(reset):
                        reset()
                signal, _ = block(signal, [None] * len(block.neurons), 1)
                outputs.append(self._axis.mean(signal, 1))
            outputs.append(head(outputs[-1]))
        if outputs[-1].dim() != 2:
            raise TrainError(
                f"The last block gives logits of shape {tuple(outputs[-1].shape)}; expected is (B, classes).",
                remedy="flatten the output of the network to one axis, or pass a head that does.",
                code="local-outputs",
            )
        return outputs

    def _build_optimizers(self, build: Optimizer) -> list[torch.optim.Optimizer | None]:
        optimizers: list[torch.optim.Optimizer | None] = []
        taken: set[int] = set()
        for block, head in zip(self.blocks, self.heads, strict=True):
            parameters = [one for one in (*block.parameters(), *head.parameters()) if one.requires_grad]
            if taken & set(map(id, parameters)):
                raise TrainError(
                    "Two blocks share a parameter, which each would update on its own.",
                    remedy="give every block its own parameters, or choose block=None.",
                    code="local-shared",
                )
            taken |= set(map(id, parameters))
            optimizers.append(build(parameters) if parameters else None)
        if not taken:
            raise TrainError(
                "The network has no parameters to train.",
                remedy="give it a conv or linear layer.",
                code="network-parameters",
            )
        return optimizers

    def _refuse_random_layers(self) -> None:
        for name, module in (*self.net.named_modules(), *self.heads.named_modules(prefix="heads")):
            if module.training and isinstance(module, torch.nn.modules.dropout._DropoutNd | torch.nn.RReLU):
                raise TrainError(
                    f"Layer {name} draws from torch's one generator; beside other blocks that happens in an order that "
                    "differs from run to run.",
                    remedy="use pipelined=False with this layer.",
                    code="local-pipeline-random",
                )


class _Head(torch.nn.Module):
    """A function, or nothing, as the last block's classifier."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        super().__init__()
        self._function = function

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return mean if self._function is None else self._function(mean)


@dataclass(frozen=True)
class _Segment:
    """Time steps ``start`` to ``stop`` of ``total``."""

    start: int
    stop: int
    total: int

    @property
    def steps(self) -> int:
        return self.stop - self.start

    @property
    def share(self) -> float:
        return self.steps / self.total


@dataclass
class _Running:
    """A block on its way through the segments: states of its neuron layers, sums of loss and mean output."""

    states: list[Any]
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(()))


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise TrainError(
            f"{name} is {value!r}.",
            remedy="give a whole number of at least 1, or None for no cut.",
            code=f"local-{name}",
        )
