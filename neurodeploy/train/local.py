"""Training block by block and segment by segment (``kernels/local``) inside the training loop."""

from collections.abc import Mapping

import torch

from neurodeploy.errors import ConfigError, TrainError
from neurodeploy.kernels.local import LocalTraining
from neurodeploy.nn import reset_states
from neurodeploy.train.checkpoint import tensors_under
from neurodeploy.train.config import LocalConfig, TrainConfig
from neurodeploy.train.data import TrainData, batch_indices, epoch_order, load_batch
from neurodeploy.train.device import device_of
from neurodeploy.train.optimizer import (
    build_optimizer,
    check_finite,
    learning_rate,
    limit_weights,
    optimizer_tensors,
    restore_optimizer,
)
from neurodeploy.train.progress import TrainProgress


class LocalLearner:
    """What learns instead of the whole network: its blocks, each with a classifier and an optimizer of its own.

    The loss is the loop's, with the spikes of a segment counted as if the whole recording had their rate.

    Raises:
        ConfigError: fewer outputs than classes, or a batch in several parts.
        TrainError: a network that cannot be cut.
    """

    def __init__(self, config: TrainConfig, cuts: LocalConfig, network: torch.nn.Module, data: TrainData) -> None:
        if (config.shards or 1) > 1:
            raise ConfigError(
                f"local: blocks learn after every segment, which {config.shards} parts of a batch cannot share.",
                remedy="train with one process and without shards, or without local.",
                code="local-shards",
            )
        self._config = config
        self._network = network
        self._data = data
        gain = config.loss.gain * data.n_time_steps
        self._local = LocalTraining(
            network,
            torch.zeros(data.n_time_steps, *data.train.sensor_size, device=device_of(network)),
            truncation=cuts.truncation,
            block=cuts.block,
            head=lambda mean: gain * mean,
            optimizer=lambda parameters: build_optimizer(torch.nn.ParameterList(parameters), config.optimizer),
        )
        if self._local.n_classes < data.n_classes:
            raise ConfigError(
                f"The network has {self._local.n_classes} outputs, the recordings {data.n_classes} classes.",
                remedy="give the last layer one output for each class.",
                code="network-outputs",
            )
        for module, optimizer in self._learners():
            self._add_limits(module[0], module[1], optimizer)

    def train_epoch(self, epoch: int, progress: TrainProgress) -> dict[str, float]:
        """One epoch; return the means of loss (of the last block) and accuracy while learning."""
        config, data = self._config, self._data
        self._network.train()
        self._local.heads.train()
        batches = batch_indices(epoch_order(len(data.train), config.seed, epoch), config.batch_size)
        progress.begin_epoch(epoch + 1, len(batches))
        loss, correct = 0.0, 0
        for i, chosen in enumerate(batches):
            lr = learning_rate(config.optimizer, epoch * len(batches) + i, config.epochs * len(batches))
            for _, optimizer in self._learners():
                optimizer.param_groups[0]["lr"] = lr
            reset_states(self._network)
            x, labels = load_batch(data, data.train, chosen, device_of(self._network))
            result = self._local.step(x, labels)
            if not bool(torch.isfinite(result.losses).all()):
                raise TrainError(
                    f"the losses of the blocks are {result.losses.tolist()} in epoch {epoch + 1}, batch {i + 1}.",
                    remedy="lower optimizer.lr, or set optimizer.clip_grad_norm.",
                    code="train-diverged",
                )
            loss += float(result.losses[-1]) * labels.numel()
            correct += int((result.output.argmax(1) == labels).sum())
            progress.batch()
        check_finite(self._network, epoch)
        return {"loss": loss / len(data.train), "accuracy": correct / len(data.train)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Classifiers and optimizers as named tensors (the network's own are the loop's)."""
        tensors = {f"heads.{name}": tensor for name, tensor in self._local.heads.state_dict().items()}
        for j, (module, optimizer) in enumerate(self._learners()):
            tensors |= {f"{j}.{name}": tensor for name, tensor in optimizer_tensors(module, optimizer).items()}
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what ``tensors`` took out."""
        self._local.heads.load_state_dict(tensors_under("heads.", tensors))
        for j, (module, optimizer) in enumerate(self._learners()):
            restore_optimizer(module, optimizer, tensors_under(f"{j}.", tensors))

    def _learners(self) -> list[tuple[torch.nn.ModuleList, torch.optim.Optimizer]]:
        """Each block that learns with its classifier, and their optimizer."""
        local = self._local
        return [
            (torch.nn.ModuleList([block, head]), optimizer)
            for block, head, optimizer in zip(local.blocks, local.heads, local.optimizers, strict=True)
            if optimizer is not None
        ]

    def _add_limits(self, block: torch.nn.Module, head: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Bound gradients before and weights after each of the block's updates, as the loop does for the network."""
        norm, limit = self._config.optimizer.clip_grad_norm, self._config.max_weight

        def before(*_: object) -> None:
            if norm is not None:
                torch.nn.utils.clip_grad_norm_([*block.parameters(), *head.parameters()], norm)

        def after(*_: object) -> None:
            if limit is not None:
                limit_weights(block, limit)

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
