"""Running a module that knows no time on every time step."""

import torch


class OverTime(torch.nn.Module):
    """Apply ``module`` to every time step: (B, T, ...) is folded to (B*T, ...) and unfolded after it.

    Lets ``Conv2d`` and its kind stand between spiking layers on (B, T, C, H, W); either layout works, (T, B, ...) too.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the module's output as (B, T, ...), for x (B, T, ...)."""
        output: torch.Tensor = self.module(x.flatten(0, 1))
        return output.reshape(*x.shape[:2], *output.shape[1:])
