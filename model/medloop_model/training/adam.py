"""AdamW in its own few lines: torch's imports a compiler at its first step, which costs seconds of a core."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

import torch
from torch import Tensor

from medloop_model.training.flat import flattened, views

FIRST_DECAY, SECOND_DECAY = 0.9, 0.98
EPSILON = 1e-8
LONGEST_GRADIENT = 1.0


class AdamW:
    """Adam with decoupled weight decay on matrices (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2).

    The parameters become views of one flat tensor, `weights`, which a step moves as one.

    Args:
        parameters: what is trained, in place; one that never has a gradient stays, but for its decay.
        weight_decay: share of the rate by which matrices shrink a step; vectors never do.
        longest: gradients of all parameters together that are longer are shortened to this.

    `steps` are those taken, `first` and `second` the moments' running means, flat as the weights.
    """

    def __init__(
        self, parameters: Iterable[Tensor], weight_decay: float = 0.0, longest: float = LONGEST_GRADIENT
    ) -> None:
        self.parameters = list(parameters)
        self.longest = longest
        self.steps = 0
        self.weights = flattened(self.parameters)
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        for parameter, view in zip(self.parameters, views(self.weights, self.parameters), strict=True):
            parameter.data = view
        self._decay = None
        if weight_decay:
            decays = [torch.full_like(p, weight_decay if p.ndim > 1 else 0.0) for p in self.parameters]
            self._decay = flattened(decays)

    def zero_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> bool:
        """Move every parameter along its gradient; False, and nothing moves, where one is not finite."""
        gradient = flattened(torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters)
        length = float(torch.linalg.vector_norm(gradient))
        if not isfinite(length):
            return False
        if length > self.longest:
            gradient.mul_(self.longest / length)
        self.steps += 1
        first_rate = learning_rate / (1 - FIRST_DECAY**self.steps)
        second_root = (1 - SECOND_DECAY**self.steps) ** 0.5
        self.first.lerp_(gradient, 1 - FIRST_DECAY)
        self.second.mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
        if self._decay is not None:
            self.weights.addcmul_(self.weights, self._decay, value=-learning_rate)
        spread = torch.sqrt(self.second, out=gradient).div_(second_root).add_(EPSILON)
        self.weights.addcdiv_(self.first, spread, value=-first_rate)
        return True
