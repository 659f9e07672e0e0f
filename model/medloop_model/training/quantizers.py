"""The two quantisers of BitNet b1.58, each with a straight-through gradient.

Forward they round; backward they are the identity, so that a gradient reaches the latent weight
(straight-through estimator: Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-5
INT8_LIMIT = 127


def absmean_ternary(weight_OI: Tensor) -> Tensor:
    """W → γ · clamp(round(W / γ), −1, 1) with γ = mean |W| over the tensor (arXiv 2402.17764, eq. 1–3).

    Args:
        weight_OI: latent weights, float, any shape.

    Returns:
        Values in {−γ, 0, γ}, same shape and dtype; the gradient passes unchanged.
    """
    codes, scale = ternary_codes(weight_OI.detach())
    return weight_OI + (codes * scale - weight_OI).detach()


def ternary_codes(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """The codes in {−1, 0, 1} (as float) and the scalar scale γ that `absmean_ternary` multiplies."""
    scale = weight_OI.abs().mean().clamp(min=SMALLEST_SCALE)
    return (weight_OI / scale).round().clamp(-1, 1), scale


def absmax_int8(x_BTI: Tensor) -> Tensor:
    """x → round(x · s) / s, clamped to ±127, with s = 127 / max |x| of each token (arXiv 2402.17764, §2).

    Args:
        x_BTI: activations, float; the last axis is one token.

    Returns:
        Same shape and dtype, at most 255 different values a token; the gradient passes unchanged.
    """
    scale = INT8_LIMIT / x_BTI.detach().abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST_SCALE)
    codes = (x_BTI.detach() * scale).round().clamp(-INT8_LIMIT, INT8_LIMIT)
    return x_BTI + (codes / scale - x_BTI).detach()


def flipped_codes(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Share of ternary codes that differ between two sets of latent weights of the same names."""
    changed = total = 0
    for name, weight in before.items():
        changed += int(torch.count_nonzero(ternary_codes(weight)[0] != ternary_codes(after[name])[0]))
        total += weight.numel()
    return changed / max(total, 1)
