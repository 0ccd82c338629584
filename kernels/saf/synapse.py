"""Weights on accumulations: linear and convolution layers in the closed and the recurrent form, and as OTTT runs them.

Tensors are time-major, [T, B, ...]. A bias acts in every step, so what it adds to an accumulated potential is
``bias * c_t`` with ``c_t = 1 + decay * c_{t-1}``, and its gradient carries that factor in every form.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from neurodeploy.errors import KernelError

Weighted = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
WEIGHTED = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)


def weight_sums(before: float, decay: float, steps: int) -> list[float]:
    """Return c_t of the next ``steps`` steps, given that of the step before (0 at the start of a window)."""
    sums = []
    for _ in range(steps):
        before = 1.0 + decay * before
        sums.append(before)
    return sums


def accumulate_input(x: torch.Tensor, before: torch.Tensor | None, decay: float) -> torch.Tensor:
    """Return a_t = decay * a_{t-1} + x_t [T, B, ...] for x [T, B, ...] of any strides; ``before`` is a_{-1}, None 0."""
    a = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for t in range(x.shape[0]):
        if before is None:
            a[t] = x[t]
        else:
            torch.add(x[t], before, alpha=decay, out=a[t])
        before = a[t]
    return a


def news(a: torch.Tensor, before: torch.Tensor, decay: float) -> torch.Tensor:
    """Return a_t - decay * a_{t-1} [T, B, ...], a constant: what came in step t; ``before`` [B, ...] is a_{-1}."""
    with torch.no_grad():
        previous = before[None] if len(a) == 1 else torch.cat([before[None], a[:-1]])
        return torch.sub(a, previous, alpha=decay)


def replaced(path: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return ``value``, with its gradient going to ``path``, of the same shape."""
    output: torch.Tensor = _Replace.apply(path, value)  # type: ignore[no-untyped-call]
    return output


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, path: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return ``value``."""
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient to ``path``."""
        return grads[0], None


class WeightedMap:
    """The weights of a ``Linear``, ``Conv1d`` or ``Conv2d`` on accumulations; the module keeps and names them.

    Raises:
        KernelError: a padding that is not zeros on both sides alike.
    """

    def __init__(self, module: Weighted, name: str) -> None:
        self.module = module
        if isinstance(module, torch.nn.Linear):
            return
        around: list[int] = []
        for axis, (size, dilation) in enumerate(zip(module.kernel_size, module.dilation, strict=True)):
            if not isinstance(module.padding, str):
                around.append(module.padding[axis])
            elif module.padding == "valid":
                around.append(0)
            else:
                around.append(dilation * (size - 1) // 2)
                if dilation * (size - 1) % 2:
                    raise KernelError(
                        f"{name} pads one side of its input more than the other (padding='same', even kernel).",
                        remedy="use an odd kernel, or pad ahead of it with torch.nn.ZeroPad2d.",
                        code="saf-padding",
                    )
        if module.padding_mode != "zeros":
            raise KernelError(
                f"{name} has padding_mode={module.padding_mode!r}.",
                remedy="use padding_mode='zeros'.",
                code="saf-padding",
            )
        self.geometry = (module.stride, around, module.dilation, False, [0] * len(around), module.groups)

    def closed(self, a: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """Return W a_t + bias * c_t for a [T, B, ...] and c [T]."""
        weight, bias = self.module.weight, self.module.bias
        if bias is None or len(sums) == 1:
            return self.run(a, weight, None if bias is None else bias * sums)
        z = self.run(a, weight, None)
        return z + sums.reshape(-1, *(1,) * (z.dim() - 1)) * bias.reshape(self._bias_shape)

    def recurrent(self, a: torch.Tensor, before: torch.Tensor, decay: float, sums: torch.Tensor) -> torch.Tensor:
        """Return W (a_t - decay * a_{t-1}) + bias, with the gradients of the closed form; ``before`` is a_{-1}."""
        z: torch.Tensor = _Recurrent.apply(  # type: ignore[no-untyped-call]
            a, before, self.module.weight, self.module.bias, self, decay, sums
        )
        return z

    def spikes(self, s: torch.Tensor) -> torch.Tensor:
        """Return W s_t + bias, a constant."""
        with torch.no_grad():
            return self.run(s, self.module.weight, self.module.bias)

    @property
    def _bias_shape(self) -> tuple[int, ...]:
        """The shape in which a bias is added to one sample of one step."""
        return (-1,) if isinstance(self.module, torch.nn.Linear) else (-1, *(1,) * len(self.module.kernel_size))

    def run(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the module's map of x [T, B, ...] with this weight and bias."""
        folded = x.flatten(0, 1)
        if isinstance(self.module, torch.nn.Linear):
            z: torch.Tensor = F.linear(folded, weight, bias)
        else:
            z = torch.ops.aten.convolution(folded, weight, bias, *self.geometry)
        return z.reshape(*x.shape[:2], *z.shape[1:])

    def transposed(
        self, grad: torch.Tensor, a: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of a and of the weights that are wanted, given that of W a."""
        if isinstance(self.module, torch.nn.Linear):
            grad_a = grad @ weight if wanted[0] else None
            grad_weight = grad.flatten(0, -2).t() @ a.flatten(0, -2) if wanted[1] else None
            return grad_a, grad_weight
        grad_folded, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.flatten(0, 1), a.flatten(0, 1), weight, None, *self.geometry, [*wanted, False]
        )
        return grad_folded.reshape(a.shape) if wanted[0] else None, grad_weight

    def bias_gradient(self, grad: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """Return the sum of c_t * grad_t over steps, samples and places, for grad [T, B, ...]."""
        places = (
            (1, *range(2, grad.dim() - 1)) if isinstance(self.module, torch.nn.Linear) else (1, *range(3, grad.dim()))
        )
        return (sums[:, None] * grad.sum(places)).sum(0)


class _Recurrent(torch.autograd.Function):
    """Forward on what is new in each step, backward as if the whole accumulation had been weighted."""

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        before: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        weighted: WeightedMap,
        decay: float,
        sums: torch.Tensor,
    ) -> torch.Tensor:
        """Return W (a_t - decay * a_{t-1}) + bias."""
        ctx.save_for_backward(a, weight, sums)
        ctx.weighted = weighted
        return weighted.run(news(a, before, decay), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the accumulation, the weights, and the bias."""
        a, weight, sums = ctx.saved_tensors
        wants_a, _, wants_weight, wants_bias = ctx.needs_input_grad[:4]
        grad_a, grad_weight = ctx.weighted.transposed(grads[0], a, weight, (wants_a, wants_weight))
        grad_bias = ctx.weighted.bias_gradient(grads[0], sums) if wants_bias else None
        return grad_a, None, grad_weight, grad_bias, None, None, None
