"""The exact GELU on this project's kernels, with its gradient.

Shape suffixes: B batch · T tokens · O outputs of a linear layer
"""

from __future__ import annotations

from typing import Any

from medloop_kernels import select_training
from torch import Tensor, autograd

from medloop_model.training.rows import as_rows, like


def gelu(x_BTO: Tensor) -> Tensor:
    """x · Φ(x) (Hendrycks & Gimpel, arXiv 1606.08415, §2), as serving computes it.

    Args:
        x_BTO: activations, float32.
    """
    y_BTO: Tensor = _Gelu.apply(x_BTO)
    return y_BTO


class _Gelu(autograd.Function):
    @staticmethod
    def forward(context: Any, x_BTO: Tensor) -> Tensor:
        context.save_for_backward(x_BTO)
        return like(x_BTO, select_training().exact_gelu(as_rows(x_BTO)))

    @staticmethod
    def backward(context: Any, gradient_BTO: Tensor) -> Tensor:
        (x_BTO,) = context.saved_tensors
        return like(x_BTO, select_training().exact_gelu_backward(as_rows(gradient_BTO), as_rows(x_BTO)))
