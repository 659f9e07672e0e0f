"""AdamW in its own few lines: torch's imports a compiler at its first step, which costs seconds of a core."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

FIRST_DECAY, SECOND_DECAY = 0.9, 0.98
EPSILON = 1e-8


class AdamW:
    """Adam with decoupled weight decay on matrices (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2).

    Args:
        parameters: what is trained, in place; those without a gradient stay.
        weight_decay: share of the rate by which matrices shrink a step; vectors never do.

    `steps` are those taken, `first` and `second` the moments' running means, one tensor a parameter.
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        self.weight_decay = weight_decay
        self.steps = 0
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]

    def zero_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter along its gradient."""
        self.steps += 1
        first_rate = learning_rate / (1 - FIRST_DECAY**self.steps)
        second_root = (1 - SECOND_DECAY**self.steps) ** 0.5
        for parameter, first, second in zip(self.parameters, self.first, self.second, strict=True):
            if parameter.grad is None:
                continue
            first.lerp_(parameter.grad, 1 - FIRST_DECAY)
            second.mul_(SECOND_DECAY).addcmul_(parameter.grad, parameter.grad, value=1 - SECOND_DECAY)
            if self.weight_decay and parameter.ndim > 1:
                parameter.mul_(1 - learning_rate * self.weight_decay)
            parameter.addcdiv_(first, (second.sqrt() / second_root).add_(EPSILON), value=-first_rate)
