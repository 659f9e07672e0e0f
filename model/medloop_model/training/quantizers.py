"""The ternary quantiser of BitNet b1.58, for weights outside a `ternary_linear`.

Forward it rounds; backward it is the identity, so that a gradient reaches the latent weight (straight-through
estimator: Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-5


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


def ternary_codes(weight_OI: Tensor, a_row: bool = False) -> tuple[Tensor, Tensor]:
    """The codes in {−1, 0, 1} (as float) and γ, one number or (O, 1), of `absmean_ternary`."""
    mean = weight_OI.abs().mean(dim=1, keepdim=True) if a_row else weight_OI.abs().mean()
    scale = mean.clamp(min=SMALLEST_SCALE)
    return (weight_OI / scale).round().clamp(-1, 1), scale


def flipped_codes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Share of ternary codes, by the weights' names, that differ."""
    changed = sum(int(torch.count_nonzero(codes != after[name])) for name, codes in before.items())
    return changed / max(sum(codes.numel() for codes in before.values()), 1)


class _AbsmeanTernary(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, weight_OI: Tensor, a_row: bool) -> Tensor:
        codes, scale = ternary_codes(weight_OI, a_row)
        return codes.mul_(scale)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
