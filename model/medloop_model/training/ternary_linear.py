"""A whole ternary linear layer as one step of autograd: norm, rounding, weights and gain.

The same values as its parts one after the other give, in one pass over the activations each way beside the
products, and no gradient of what is frozen.

Shape suffixes: B batch · T tokens · R rows, all tokens of a batch · I, O inputs, outputs of the layer
"""

from __future__ import annotations

from typing import Any

import torch
from medloop_kernels import select_training
from torch import Tensor
from torch.nn import functional

from medloop_model.training.rows import as_rows, like


def ternary_linear(
    x_BTI: Tensor, weight_OI: Tensor, *, norm_I: Tensor, gain_O: Tensor, bias_O: Tensor
) -> Tensor:
    """y = (Q8(RMSNorm(x)) · Q1.58(W)ᵀ) · gain + bias (BitNet b1.58, arXiv 2402.17764; the gain is ours).

    Both roundings have the identity as their gradient (straight-through estimator: Bengio et al., arXiv
    1308.3432).

    Args:
        x_BTI: activations, float32.
        weight_OI: latent weights.
        norm_I: RMSNorm's factors.
        gain_O: one factor an output.
        bias_O: one addend an output.

    Returns:
        (B, T, O).
    """
    y_BTO: Tensor = _TernaryLinear.apply(x_BTI, norm_I, weight_OI, gain_O, bias_O)
    return y_BTO


def fake_quantized(x_BTI: Tensor, norm_I: Tensor) -> tuple[Tensor, Tensor]:
    """Q8(RMSNorm(x)), as float32 (B, T, I), and 1 / RMS of every token (R,), out of autograd's sight."""
    rounded_RI, inverse_R = select_training().fake_quantize(as_rows(x_BTI), norm_I.detach().numpy())
    return like(x_BTI, rounded_RI), torch.from_numpy(inverse_R)


def ternarized(weight_OI: Tensor, gain_O: Tensor) -> tuple[Tensor, Tensor]:
    """Q1.58(W), and the same times each output's gain, both (O, I), out of autograd's sight."""
    ternary_OI, gained_OI = select_training().ternarize(weight_OI.detach().numpy(), gain_O.detach().numpy())
    return torch.from_numpy(ternary_OI), torch.from_numpy(gained_OI)


class _TernaryLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd hands over by place)
        context: Any, x_BTI: Tensor, norm_I: Tensor, weight_OI: Tensor, gain_O: Tensor, bias_O: Tensor
    ) -> Tensor:
        rounded_BTI, inverse_R = fake_quantized(x_BTI, norm_I)
        # The gain is on the weights: outputs are many more.
        ternary_OI, gained_OI = ternarized(weight_OI, gain_O)
        _, _, needs_weight, needs_gain, _ = context.needs_input_grad
        kept = (rounded_BTI, ternary_OI) if needs_weight or needs_gain else (None, None)
        context.save_for_backward(x_BTI, inverse_R, norm_I, gained_OI, gain_O, *kept)
        return functional.linear(rounded_BTI, gained_OI, bias_O)

    @staticmethod
    def backward(context: Any, gradient_BTO: Tensor) -> tuple[Tensor | None, ...]:
        x_BTI, inverse_R, norm_I, gained_OI, gain_O, rounded_BTI, ternary_OI = context.saved_tensors
        _, _, needs_weight, needs_gain, needs_bias = context.needs_input_grad
        gradient_RO = gradient_BTO.flatten(0, -2)
        weight_gradient = gain_gradient = None
        if needs_weight or needs_gain:
            gained_gradient_OI = gradient_RO.T @ rounded_BTI.flatten(0, -2)
            weight_gradient, gain_gradient = map(
                torch.from_numpy,
                select_training().ternarize_backward(
                    gained_gradient_OI.numpy(), ternary_OI.numpy(), gain_O.detach().numpy()
                ),
            )
        bias_gradient = gradient_RO.sum(dim=0) if needs_bias else None
        x_gradient_RI, norm_gradient_I = select_training().fake_quantize_backward(
            (gradient_RO @ gained_OI).numpy(), as_rows(x_BTI), inverse_R.numpy(), norm_I.detach().numpy()
        )
        before = like(x_BTI, x_gradient_RI), torch.from_numpy(norm_gradient_I)
        return *before, weight_gradient, gain_gradient, bias_gradient
