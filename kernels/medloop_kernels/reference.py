"""The arithmetic in numpy: obviously right, never fast. Every other back end is compared with this file.

M tokens, K inputs, N outputs. One linear layer of the network is two operations:

    quantize         float32 (M, K)                    → int8 codes (M, K), float32 step (M,)
    ternary_linear   codes, step, packed weights (N, K) → float32 (M, N)

The int8 codes between them are exact, so the int32 sums are compared bit for bit.

Training has no codes: what is rounded stays float, and a gradient passes the rounding as if there were none
(straight-through estimator: Bengio et al., arXiv 1308.3432).

    fake_quantize           float32 (M, K)           → float32 (M, K), 1 / RMS (M,)
    fake_quantize_backward  gradient (M, K), x, …    → gradients of x (M, K) and of the norm's weight (K,)
    ternarize               latent weights (N, K)    → ternary (N, K), the same times a gain an output
    ternarize_backward      gradient (N, K), …       → gradients of the latent weights and of the gain (N,)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.errors import NonFiniteInput
from medloop_kernels.layout import unpack

RMS_EPSILON = 1e-5
SMALLEST_ABSMAX = 1e-5
LARGEST_CODE = 127


def absmean_ternary(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], np.float32]:
    """Quantize a weight matrix to {-1, 0, 1}: s = mean|W|, codes = clamp(round(W / s), -1, 1).

    Ma et al., The Era of 1-bit LLMs (arXiv 2402.17764), equations 1 to 3. Rounding is half to even.

    Args:
        weights: float32 (N, K).

    Returns:
        int8 codes (N, K) and the scale s that multiplies them back.
    """
    scale = np.float32(max(np.abs(weights).mean(dtype=np.float64), SMALLEST_ABSMAX)) if weights.size else 1
    codes = np.clip(np.rint(weights / np.float32(scale)), -1, 1).astype(np.int8)
    return codes, np.float32(scale)


def rms_norm(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root-mean-square norm: x / sqrt(mean(x²) + 1e-5) · weight.

    Zhang and Sennrich, Root Mean Square Layer Normalization (arXiv 1910.07467), equation 4.
    The mean is taken in double precision, so that its value does not depend on the order of summation.

    Args:
        x: float32 (M, K).
        weight: float32 (K,).
    """
    normed: NDArray[np.float32] = x * inverse_rms(x)[:, None] * weight
    return normed


def inverse_rms(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / sqrt(mean(x²) + 1e-5) of every row: float32 (M,) of float32 (M, K)."""
    mean_square = np.square(x, dtype=np.float64).mean(axis=1) if x.size else np.zeros(len(x))
    inverse: NDArray[np.float32] = (1.0 / np.sqrt(mean_square + RMS_EPSILON)).astype(np.float32)
    return inverse


def absmax_int8(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize every row to int8: codes = round(x · 127 / max|x|), half to even; x ≈ codes · step.

    The -128 that int8 also has is never used, which keeps the range symmetric.

    Args:
        x: float32 (M, K).

    Returns:
        int8 codes (M, K) and float32 step (M,) = max|x| / 127.

    Raises:
        NonFiniteInput: a value is NaN or infinite.
    """
    if not np.isfinite(x).all():
        raise NonFiniteInput("an activation is NaN or infinite: the weights of this layer are damaged.")
    largest = np.maximum(np.abs(x).max(axis=1, initial=0.0), np.float32(SMALLEST_ABSMAX)).astype(np.float32)
    codes = np.rint(x * (np.float32(LARGEST_CODE) / largest)[:, None])
    codes = np.clip(codes, -LARGEST_CODE, LARGEST_CODE).astype(np.int8)
    return codes, largest / np.float32(LARGEST_CODE)


def quantize(
    x: NDArray[np.float32], norm_weight: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The input side of a BitLinear: `rms_norm`, then `absmax_int8`."""
    return absmax_int8(rms_norm(x, norm_weight))


def ternary_matmul(codes: NDArray[np.int8], packed: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Exact products: sums[m, n] = Σ_k codes[m, k] · weights[n, k].

    |sum| <= 128 · K, so int32 is exact for any K below 2^24.

    Args:
        codes: int8 (M, K).
        packed: uint8 (N, packed_width(K)).
    """
    weights = unpack(packed, codes.shape[1])
    return codes.astype(np.int32) @ weights.astype(np.int32).T


def ternary_linear(
    codes: NDArray[np.int8],
    step: NDArray[np.float32],
    packed: NDArray[np.uint8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    gelu: bool = False,
) -> NDArray[np.float32]:
    """The output side of a BitLinear: y[m, n] = sums[m, n] · step[m] · scale[n] + bias[n], GELU if asked.

    Args:
        codes: int8 (M, K) from `quantize`.
        step: float32 (M,) from `quantize`.
        packed: uint8 (N, packed_width(K)).
        scale: float32 (N,), the absmean scale times the gain of each output.
        bias: float32 (N,).
        gelu: apply the exact GELU to the result.
    """
    sums = ternary_matmul(codes, packed).astype(np.float32)
    y = sums * step[:, None] * scale + bias
    return exact_gelu(y) if gelu else y


def exact_gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian error linear unit x · Φ(x) = x/2 · (1 + erf(x / √2)).

    Hendrycks and Gimpel, Gaussian Error Linear Units (arXiv 1606.08415), section 2.
    """
    scaled = x.astype(np.float64) / math.sqrt(2.0)
    erf = np.array([math.erf(value) for value in scaled.flat], dtype=np.float64).reshape(x.shape)
    return (x * 0.5 * (1.0 + erf)).astype(np.float32)


def fake_quantize(
    x: NDArray[np.float32], norm_weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`quantize` and back: rounded = codes · step, and 1 / RMS of every row, which its gradient needs.

    A row with a NaN or an infinity comes out as NaN: a training step sees it in its loss.

    Args:
        x: float32 (M, K).
        norm_weight: float32 (K,).

    Returns:
        float32 (M, K) and float32 (M,).
    """
    finite = np.all(np.isfinite(x), axis=1, keepdims=True)
    codes, step = quantize(np.where(finite, x, np.float32(0)), norm_weight)
    steps = np.where(finite, step[:, None], np.float32(np.nan)).astype(np.float32)
    return codes.astype(np.float32) * steps, inverse_rms(x)


def fake_quantize_backward(
    gradient: NDArray[np.float32],
    x: NDArray[np.float32],
    inverse: NDArray[np.float32],
    norm_weight: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gradients of `fake_quantize`, the rounding's taken for 1.

    With u = x / RMS, a row's ∂x = (g · w − u · mean(g · w · u)) / RMS, and ∂w = Σ_rows g · u.

    Args:
        gradient: float32 (M, K), of the rounded values.
        x: float32 (M, K).
        inverse: float32 (M,), as `fake_quantize` returned it.
        norm_weight: float32 (K,).

    Returns:
        float32 (M, K) of x and float32 (K,) of the norm's weight.
    """
    unit = x * inverse[:, None].astype(np.float64)
    product = gradient * unit
    along = (product @ norm_weight / max(x.shape[1], 1))[:, None]
    x_gradient = (gradient * norm_weight - unit * along) * inverse[:, None]
    return x_gradient.astype(np.float32), product.sum(axis=0).astype(np.float32)


def ternarize(
    weight: NDArray[np.float32], gain: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`absmean_ternary` and back: ternary = codes · s, and that times each output's gain.

    Args:
        weight: latent, float32 (N, K).
        gain: float32 (N,).

    Returns:
        float32 (N, K) twice.
    """
    codes, scale = absmean_ternary(weight)
    ternary = codes * scale
    gained: NDArray[np.float32] = ternary * gain[:, None]
    return ternary, gained


def ternarize_backward(
    gradient: NDArray[np.float32], ternary: NDArray[np.float32], gain: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gradients of `ternarize` from that of the gained weights, the rounding's taken for 1.

    Args:
        gradient: float32 (N, K).
        ternary: float32 (N, K), as `ternarize` returned it.
        gain: float32 (N,).

    Returns:
        float32 (N, K) of the latent weights and float32 (N,) of the gain.
    """
    gain_gradient = (gradient.astype(np.float64) * ternary).sum(axis=1).astype(np.float32)
    return gradient * gain[:, None], gain_gradient
