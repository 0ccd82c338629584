"""Optimizers, and a learning rate that is a plain function of the step (so there is no scheduler state to lose)."""

import math
from collections.abc import Mapping

import torch

from neurodeploy.errors import ConfigError, TrainError
from neurodeploy.train.config import OptimizerConfig


def build_optimizer(network: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer over all parameters, in the order of ``named_parameters``.

    Raises:
        ConfigError: the network has none.
    """
    parameters = list(network.parameters())
    if not parameters:
        raise ConfigError(
            "The network has no parameters to train.",
            remedy="give it a conv or linear layer.",
            code="network-parameters",
        )
    match config.type:
        case "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def learning_rate(config: OptimizerConfig, step: int, n_steps: int) -> float:
    """Learning rate of step 0, 1, ..., n_steps - 1: a linear rise, then constant or half a cosine towards 0."""
    rise = config.warmup * n_steps
    if step < rise:
        return config.lr * (step + 1) / (rise + 1)
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (n_steps - rise)))


def optimizer_tensors(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """State of the optimizer as named tensors: ``<parameter>.<field>``."""
    tensors = {}
    for name, parameter in network.named_parameters():
        for field, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{name}.{field}"] = torch.as_tensor(value)
    return tensors


def restore_optimizer(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what ``optimizer_tensors`` took out."""
    for name, parameter in network.named_parameters():
        prefix = f"{name}."
        state = {
            field: value.to(parameter.device) if value.shape == parameter.shape else value  # counters stay on the CPU
            for key, value in tensors.items()
            if key.startswith(prefix) and "." not in (field := key[len(prefix) :])
        }
        if state:
            optimizer.state[parameter] = state


def limit_weights(network: torch.nn.Module, limit: float) -> None:
    """Clip the weights of convolutions and linear layers to ``-limit``..``limit``."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.clamp_(-limit, limit)


def check_finite(network: torch.nn.Module, epoch: int) -> None:
    """Refuse weights that are not numbers: they silence their neurons, so the loss does not show them.

    Raises:
        TrainError: a parameter has a value that is not finite after ``epoch + 1`` epochs.
    """
    for name, tensor in network.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainError(
                f"{name} is not finite after epoch {epoch + 1}.",
                remedy="lower optimizer.lr, or set optimizer.clip_grad_norm.",
                code="train-diverged",
            )
