"""The two quantisers of BitNet b1.58.

Forward they round; backward they are the identity, so that a gradient reaches the latent weight
(straight-through estimator: Bengio et al., arXiv 1308.3432). Where autograd doesn't see them, as inside
`ternary_linear`, they are plain functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-5
INT8_LIMIT = 127


def absmean_ternary(weight_OI: Tensor, a_row: bool = False) -> Tensor:
    """W → γ · clamp(round(W / γ), −1, 1) with γ = mean |W| over the tensor (arXiv 2402.17764, eq. 1–3).

    Args:
        weight_OI: latent weights, float, any shape.
        a_row: γ is the mean over each row instead, for weights that no gain per output follows.

    Returns:
        Values in {−γ, 0, γ}, same shape and dtype; the gradient passes unchanged.
    """
    ternary_OI: Tensor = _AbsmeanTernary.apply(weight_OI, a_row)
    return ternary_OI


def absmax_int8_(x_BTI: Tensor) -> Tensor:
    """x → round(x · s) / s with s = 127 / max |x| of each token (arXiv 2402.17764, §2), in place.

    Args:
        x_BTI: activations, float, out of autograd's sight; the last axis is one token.

    Returns:
        The same tensor, with at most 255 different values a token.
    """
    # aminmax and vector_norm's inf take seven times as long.
    largest_BT1 = x_BTI.abs().amax(dim=-1, keepdim=True)
    scale = INT8_LIMIT / largest_BT1.clamp_(min=SMALLEST_SCALE)
    # No clamp: |x · s| passes 127 by rounding alone, and then rounds back to 127.
    return x_BTI.mul_(scale).round_().div_(scale)


def ternary_codes(weight_OI: Tensor, a_row: bool = False) -> tuple[Tensor, Tensor]:
    """The codes in {−1, 0, 1} (as float) and γ, one number or (O, 1), of `absmean_ternary`."""
    mean = weight_OI.abs().mean(dim=1, keepdim=True) if a_row else weight_OI.abs().mean()
    scale = mean.clamp(min=SMALLEST_SCALE)
    return (weight_OI / scale).round().clamp(-1, 1), scale


def flipped_codes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Share of ternary codes that differ between two sets of latent weights of the same names."""
    changed = total = 0
    for name, weight in before.items():
        changed += int(torch.count_nonzero(ternary_codes(weight)[0] != ternary_codes(after[name])[0]))
        total += weight.numel()
    return changed / max(total, 1)


class _AbsmeanTernary(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, weight_OI: Tensor, a_row: bool) -> Tensor:
        codes, scale = ternary_codes(weight_OI, a_row)
        return codes.mul_(scale)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
