"""RMSNorm with a gradient of its own: the same values as torch's in half the passes over the activations.

Shape suffixes: B batch · T tokens · I inputs of a linear layer
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x_BTI: Tensor, weight_I: Tensor, epsilon: float) -> Tensor:
    """x / √(mean x² + ε) · weight over the last axis (Zhang & Sennrich, arXiv 1910.07467, eq. 4).

    Args:
        x_BTI: activations, float.
        weight_I: one factor a channel.
        epsilon: keeps a token of zeros finite.
    """
    normed_BTI: Tensor = _RmsNorm.apply(x_BTI, weight_I, epsilon)
    return normed_BTI


def inverse_rms(x_BTI: Tensor, epsilon: float) -> Tensor:
    """1 / √(mean x² + ε) over the last axis, which has length 1 then."""
    length_BT1: Tensor = torch.linalg.vector_norm(x_BTI, dim=-1, keepdim=True)
    return length_BT1.square_().div_(x_BTI.shape[-1]).add_(epsilon).rsqrt_()


def rms_norm_backward(
    gradient_BTI: Tensor, x_BTI: Tensor, inverse_BT1: Tensor, weight_I: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight: with u = x / rms, ∂u has lost its part along u.

    The incoming gradient's memory is used.
    """
    unit_BTI = x_BTI * inverse_BT1
    product_BTI = gradient_BTI * unit_BTI
    along_BT1 = (product_BTI @ weight_I).div_(len(weight_I))[..., None]
    x_gradient_BTI = gradient_BTI.mul_(weight_I).addcmul_(unit_BTI, along_BT1, value=-1).mul_(inverse_BT1)
    return x_gradient_BTI, product_BTI.flatten(0, -2).sum(dim=0)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x_BTI: Tensor, weight_I: Tensor, epsilon: float) -> Tensor:
        inverse_BT1 = inverse_rms(x_BTI, epsilon)
        context.save_for_backward(x_BTI, inverse_BT1, weight_I)
        return (x_BTI * inverse_BT1).mul_(weight_I)

    @staticmethod
    def backward(context: Any, gradient_BTI: Tensor) -> tuple[Tensor, Tensor, None]:
        return *rms_norm_backward(gradient_BTI.clone(), *context.saved_tensors), None
