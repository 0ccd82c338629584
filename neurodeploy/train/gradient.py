"""Gradients of the parts of a batch as rows, and their sum in a fixed order."""

import torch


def flat_gradient(network: torch.nn.Module) -> torch.Tensor:
    """The gradients of all parameters that are trained, one after the other ``[P]``; zeros where there is none."""
    parts = [
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).reshape(-1)
        for parameter in network.parameters()
        if parameter.requires_grad
    ]
    return torch.cat(parts)


def set_gradient(network: torch.nn.Module, flat: torch.Tensor) -> None:
    """Put back what ``flat_gradient`` laid out."""
    start = 0
    for parameter in network.parameters():
        if parameter.requires_grad:
            part = flat[start : start + parameter.numel()]
            parameter.grad = part.reshape(parameter.shape).to(parameter.dtype)
            start += parameter.numel()


def sum_in_order(rows: torch.Tensor) -> torch.Tensor:
    """``((row 0 + row 1) + row 2) + ...``: the same bits wherever the rows were computed."""
    result = rows[0].clone()
    for row in rows[1:]:
        result += row
    return result
