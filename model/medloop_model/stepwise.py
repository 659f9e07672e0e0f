"""The network layer by layer, in numpy and the kernels' single operations: readable, and the measure of the
compiled one.

Shape suffixes: B batch · H, W image rows, columns · C channels · T tokens · P patch pixels (p·p·C)
· D width · K head width · I, O inputs, outputs of a linear · M = B·T · R = T·heads · N classes · L depth

The network is `network.py`, step by step; `packed_layers.py` names the tensors. What differs from torch:
float32 sums run in another order, and a value within a rounding error of two int8 codes may take the other.
The kernels work row by row, and every product that BLAS computes is a stack of one product an image, since
BLAS chooses its order of summation by the number of rows: an image's result does not depend on its batch.
"""

from __future__ import annotations

import numpy as np
from medloop_kernels import Backend, NetworkOutput
from medloop_kernels.reference import LARGEST_CODE
from numpy.typing import NDArray

from medloop_model.architecture import Architecture
from medloop_model.packed_layers import Floats, FullLinear, PackedBlock, PackedNetwork, TernaryLinear

NORM_EPSILON = 1e-5

_STATISTICS = 4  # of a block
_SCORES_AT_ONCE = 2**22  # attention scores held at a time, 16 MiB: a batch of 224 px images would need GBs


def run_stepwise(network: PackedNetwork, images_BHWC: NDArray[np.uint8], kernels: Backend) -> NetworkOutput:
    """Classify a batch of images that fit the network."""
    architecture = network.architecture
    pixels_BTP = _patches(images_BHWC, architecture)
    x_BTD = pixels_BTP @ network.patch_weight.T + network.patch_bias + network.position
    statistics = np.empty((len(images_BHWC), len(network.blocks), _STATISTICS), dtype=np.float32)
    for index, block in enumerate(network.blocks):
        qkv_BTO = _linear(block.qkv, x_BTD, kernels)
        x_BTD += _linear(block.out, _attention(qkv_BTO, architecture), kernels)
        x_BTD += _mlp(block, x_BTD, statistics[:, index], kernels)
    embedding_BD = _layer_norm(x_BTD.mean(axis=1), network)
    logits_BN = (embedding_BD[:, None] @ network.head_weight.T)[:, 0] + network.head_bias
    return NetworkOutput(logits_BN, embedding_BD, statistics)


def _patches(images_BHWC: NDArray[np.uint8], architecture: Architecture) -> Floats:
    """Float32 (B, T, P) in [-2, 2]; pixels of a patch run row, column, channel."""
    p, channels = architecture.patch_size, architecture.channels
    side = architecture.image_size // p
    pixels = (images_BHWC.astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(4)
    patches = pixels.reshape(len(images_BHWC), side, p, side, p, channels).swapaxes(2, 3)
    return patches.reshape(len(images_BHWC), side * side, p * p * channels)


def _linear(linear: TernaryLinear | FullLinear, x_BTI: Floats, kernels: Backend) -> Floats:
    if isinstance(linear, FullLinear):
        return linear(x_BTI)
    y_MO = linear(_rows(x_BTI), kernels)
    return y_MO.reshape(*x_BTI.shape[:2], y_MO.shape[1])


def _attention(qkv_BTO: Floats, architecture: Architecture) -> Floats:
    """Multi-query attention: with one key head, the queries of all heads are rows of one product."""
    batch, tokens, _ = qkv_BTO.shape
    width, head_width = architecture.width, architecture.head_width
    rows = tokens * architecture.heads
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


def _mlp(block: PackedBlock, x_BTD: Floats, statistics_B4: Floats, kernels: Backend) -> Floats:
    """fc2(GELU(fc1(x))); measures what goes into fc2 on the way."""
    batch, tokens, width = x_BTD.shape
    hidden_MI = block.fc1(_rows(x_BTD), kernels, gelu=True)
    codes_MI, step_M = kernels.quantize(hidden_MI, block.fc2.norm)
    _measure(hidden_MI, codes_MI, tokens, statistics_B4)
    return block.fc2.apply(codes_MI, step_M, kernels).reshape(batch, tokens, width)


def _layer_norm(x_BD: Floats, network: PackedNetwork) -> Floats:
    """(x − mean) / sqrt(variance + 1e-5) · weight + bias (Ba et al., arXiv 1607.06450, eq. 4)."""
    centred_BD = x_BD - x_BD.mean(axis=1, keepdims=True)
    variance_B1 = np.square(centred_BD).mean(axis=1, keepdims=True)
    normed_BD: Floats = centred_BD / np.sqrt(variance_B1 + np.float32(NORM_EPSILON))
    return normed_BD * network.norm_weight + network.norm_bias


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
