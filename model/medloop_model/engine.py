"""Runs a packed model on numpy and the kernels, without torch: what a device installs.

Shape suffixes: B batch · H, W image rows, columns · C channels · T tokens · P patch pixels (p·p·C)
· D width · K head width · I, O inputs, outputs of a linear · M = B·T · R = T·heads · N classes · L depth

The network is `network.py`, step by step; `packed_layers.py` names the tensors. What differs from torch:
float32 sums run in another order, and a value within a rounding error of two int8 codes may take the other.

An image's result does not depend on the batch it comes in, bit for bit, so that a stream processed again
after a crash gives the same predictions: the kernels work row by row, and every product that BLAS computes
is a stack of one product an image, since BLAS chooses its order of summation by the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from medloop_kernels import Backend, select
from medloop_kernels.reference import LARGEST_CODE
from numpy.typing import NDArray

from medloop_model.checkpoint import ModelPackage
from medloop_model.errors import ShapeError
from medloop_model.packed_layers import (
    Floats,
    FullLinear,
    PackedBlock,
    TernaryLinear,
    read_block,
    read_floats,
)

NORM_EPSILON = 1e-5
BLOCK_STATISTICS = ("mean", "spread", "saturated", "dead")

_SCORES_AT_ONCE = 2**22  # attention scores held at a time, 16 MiB: a batch of 224 px images would need GBs


@dataclass(frozen=True)
class EngineOutput:
    """What one batch gives.

    Args:
        logits: float32 (B, N).
        embedding: float32 (B, D), what the head reads.
        blocks: float32 (B, L, 4) by `BLOCK_STATISTICS`, of each block's activations behind the GELU: mean
            and standard deviation, share of int8 codes at ±127, share of channels that are 0 in all tokens.
    """

    logits: Floats
    embedding: Floats
    blocks: Floats


class Engine:
    """A packed model, ready to run.

    Args:
        package: a package whose `packed` part is loaded.
        backend: kernels to run on; by default what `medloop_kernels.select` chooses.

    Raises:
        UnsupportedArchitecture: a packed tensor is missing, doesn't fit, or is damaged.
        BackendUnavailable: the chosen kernels can't run here.
    """

    def __init__(self, package: ModelPackage, backend: Backend | None = None) -> None:
        self.architecture = architecture = package.architecture
        self.kernels = backend or select()
        tensors, width = package.packed, architecture.width
        patch_pixels = architecture.patch_size**2 * architecture.channels
        self._patch_weight_PD = read_floats(tensors, "patch.weight", (width, patch_pixels)).T
        self._patch_bias_D = read_floats(tensors, "patch.bias", (width,))
        self._position_TD = read_floats(tensors, "position", (architecture.tokens, width))
        self._blocks = [read_block(tensors, index, architecture) for index in range(architecture.depth)]
        self._norm_weight_D = read_floats(tensors, "norm.weight", (width,))
        self._norm_bias_D = read_floats(tensors, "norm.bias", (width,))
        self._head_weight_DN = read_floats(tensors, "head.weight", (len(self.classes), width)).T
        self._head_bias_N = read_floats(tensors, "head.bias", (len(self.classes),))

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each logit, in order."""
        return self.architecture.classes

    def __call__(self, images: NDArray[np.uint8]) -> EngineOutput:
        """Classify a batch.

        Args:
            images: uint8 (B, H, W, C); a grey model also takes (B, H, W).

        Raises:
            ShapeError: the images don't fit the network.
        """
        x_BTD = self._patches(images) @ self._patch_weight_PD + self._patch_bias_D + self._position_TD
        statistics = np.empty((len(images), len(self._blocks), len(BLOCK_STATISTICS)), dtype=np.float32)
        for index, block in enumerate(self._blocks):
            x_BTD += self._linear(block.out, self._attention(self._linear(block.qkv, x_BTD)))
            x_BTD += self._mlp(block, x_BTD, statistics[:, index])
        embedding_BD = self._layer_norm(x_BTD.mean(axis=1))
        logits_BN = (embedding_BD[:, None] @ self._head_weight_DN)[:, 0] + self._head_bias_N
        return EngineOutput(logits_BN, embedding_BD, statistics)

    def _patches(self, images: NDArray[np.uint8]) -> Floats:
        """Float32 (B, T, P) in [-2, 2]; pixels of a patch run row, column, channel."""
        size, channels = self.architecture.image_size, self.architecture.channels
        p = self.architecture.patch_size
        grey = channels == 1 and images.shape[1:] == (size, size)
        if images.dtype != np.uint8 or not (grey or images.shape[1:] == (size, size, channels)):
            raise ShapeError(
                f"this model takes uint8 images (batch, {size}, {size}, {channels}), "
                f"not {images.dtype} {images.shape}; resize or convert them first"
            )
        side = size // p
        pixels = (images.astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(4)
        patches = pixels.reshape(len(images), side, p, side, p, channels).swapaxes(2, 3)
        return patches.reshape(len(images), side * side, p * p * channels)

    def _linear(self, linear: TernaryLinear | FullLinear, x_BTI: Floats) -> Floats:
        if isinstance(linear, FullLinear):
            return linear(x_BTI)
        y_MO = linear(_rows(x_BTI), self.kernels)
        return y_MO.reshape(*x_BTI.shape[:2], y_MO.shape[1])

    def _attention(self, qkv_BTO: Floats) -> Floats:
        """Multi-query attention: with one key head, the queries of all heads are rows of one product."""
        batch, tokens, _ = qkv_BTO.shape
        width, head_width = self.architecture.width, self.architecture.head_width
        rows = tokens * self.architecture.heads
        q_BTD, k_BTK, v_BTK = np.split(qkv_BTO, (width, width + head_width), axis=2)
        mixed_BTD = np.empty((batch, tokens, width), dtype=np.float32)
        images_at_once = max(1, _SCORES_AT_ONCE // (rows * tokens))
        for first in range(0, batch, images_at_once):
            part = slice(first, first + images_at_once)
            q_BRK = q_BTD[part].reshape(-1, rows, head_width)
            score_BRT = q_BRK @ k_BTK[part].swapaxes(1, 2) * np.float32(head_width**-0.5)
            mixed_BRK = _softmax(score_BRT) @ v_BTK[part]
            mixed_BTD[part] = mixed_BRK.reshape(-1, tokens, width)
        return mixed_BTD

    def _mlp(self, block: PackedBlock, x_BTD: Floats, statistics_B4: Floats) -> Floats:
        """fc2(GELU(fc1(x))); measures what goes into fc2 on the way."""
        batch, tokens, width = x_BTD.shape
        hidden_MI = block.fc1(_rows(x_BTD), self.kernels, gelu=True)
        codes_MI, step_M = self.kernels.quantize(hidden_MI, block.fc2.norm)
        _measure(hidden_MI, codes_MI, tokens, statistics_B4)
        return block.fc2.apply(codes_MI, step_M, self.kernels).reshape(batch, tokens, width)

    def _layer_norm(self, x_BD: Floats) -> Floats:
        """(x − mean) / sqrt(variance + 1e-5) · weight + bias (Ba et al., arXiv 1607.06450, eq. 4)."""
        centred_BD = x_BD - x_BD.mean(axis=1, keepdims=True)
        variance_B1 = np.square(centred_BD).mean(axis=1, keepdims=True)
        normed_BD: Floats = centred_BD / np.sqrt(variance_B1 + np.float32(NORM_EPSILON))
        return normed_BD * self._norm_weight_D + self._norm_bias_D


def _rows(x_BTI: Floats) -> Floats:
    """The tokens of a batch below each other, as the kernels take them."""
    batch, tokens, inputs = x_BTI.shape
    return x_BTI.reshape(batch * tokens, inputs)


def _softmax(score_BRT: Floats) -> Floats:
    """Shifted by each row's largest score, so that exp never overflows; works in place."""
    score_BRT -= score_BRT.max(axis=2, keepdims=True)
    np.exp(score_BRT, out=score_BRT)
    score_BRT /= score_BRT.sum(axis=2, keepdims=True)
    return score_BRT


def _measure(hidden_MI: Floats, codes_MI: NDArray[np.int8], tokens: int, statistics_B4: Floats) -> None:
    """Fill in one block's `BLOCK_STATISTICS` for each image."""
    hidden_BTI = hidden_MI.reshape(-1, tokens, hidden_MI.shape[1])
    codes_BTI = codes_MI.reshape(hidden_BTI.shape)
    statistics_B4[:, 0] = hidden_BTI.mean(axis=(1, 2))
    statistics_B4[:, 1] = hidden_BTI.std(axis=(1, 2))
    statistics_B4[:, 2] = (np.abs(codes_BTI) == LARGEST_CODE).mean(axis=(1, 2))
    statistics_B4[:, 3] = (~codes_BTI.any(axis=1)).mean(axis=1)
