"""BiTMedViT in torch: the network that is trained. `engine.py` runs the same arithmetic without torch.

Shape suffixes: B batch · H, W image rows, columns · C channels · T tokens · P patch pixels (p·p·C)
· D width · A attention heads · Q queries of all heads (T·A) · K head width · I, O inputs, outputs of a
linear layer · N classes

Pre-norm blocks where every linear normalises its own input (BitLinear); multi-query attention; exact GELU;
mean over tokens, LayerNorm, linear head. The weights of patch embedding, positions, head and norms are
ternary where the architecture says so.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from medloop_model.architecture import Architecture
from medloop_model.training.quantizers import absmean_ternary
from medloop_model.training.ternary_linear import ternary_linear

NORM_EPSILON = 1e-5
RESIDUAL_GAIN = 0.5  # what a block adds starts small, so that depth doesn't blow up the first steps


class BitLinear(nn.Module):
    """y = (Q8(RMSNorm(x)) · Q1.58(W)ᵀ) · gain + bias (BitNet b1.58, arXiv 2402.17764; the gain is ours).

    Args:
        inputs: I.
        outputs: O.
        quantized: False computes the same in full precision.
        gain: start value of the per-output gain.
        ternary_norm: whether the norm's factors are ternary.
    """

    def __init__(
        self, inputs: int, outputs: int, quantized: bool, gain: float = 1.0, *, ternary_norm: bool = False
    ) -> None:
        super().__init__()
        self.quantized, self.ternary_norm = quantized, ternary_norm
        self.norm = nn.Parameter(torch.ones(inputs))
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.gain = nn.Parameter(torch.full((outputs,), gain))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x_BTI: Tensor) -> Tensor:  # noqa: D102
        norm_I = absmean_ternary(self.norm) if self.ternary_norm else self.norm
        if self.quantized:
            return ternary_linear(x_BTI, self.weight, norm_I=norm_I, gain_O=self.gain, bias_O=self.bias)
        x_BTI = functional.rms_norm(x_BTI, norm_I.shape, norm_I, NORM_EPSILON)
        return functional.linear(x_BTI, self.weight * self.gain[:, None], self.bias)


class Block(nn.Module):
    """x + out(attention(qkv(x))), then x + fc2(GELU(fc1(x)))."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.width, self.heads = architecture.width, architecture.heads
        self.head_width = architecture.head_width
        hidden = architecture.mlp_ratio * self.width
        ternary = architecture.quantized
        ternary_attention = ternary and architecture.ternary_attention
        linear = partial(BitLinear, ternary_norm=ternary and architecture.ternary_norms)
        self.qkv = linear(self.width, self.width + 2 * self.head_width, ternary_attention)
        self.out = linear(self.width, self.width, ternary_attention, RESIDUAL_GAIN)
        self.fc1 = linear(self.width, hidden, ternary)
        self.fc2 = linear(hidden, self.width, ternary, RESIDUAL_GAIN)

    def forward(self, x_BTD: Tensor) -> Tensor:  # noqa: D102
        x_BTD = x_BTD + self.out(self._attention(self.qkv(x_BTD)))
        mlp_BTD: Tensor = self.fc2(functional.gelu(self.fc1(x_BTD)))
        return x_BTD + mlp_BTD

    def _attention(self, qkv_BTO: Tensor) -> Tensor:
        """Multi-query attention (arXiv 1911.02150): every query head reads the one key and value head."""
        batch, tokens, _ = qkv_BTO.shape
        q_BTD, k_BTK, v_BTK = torch.split(qkv_BTO, [self.width, self.head_width, self.head_width], dim=-1)
        # The heads share one key, so they are just more queries: (T, A) as one axis, and no copy a head.
        q_BQK = q_BTD.reshape(batch, tokens * self.heads, self.head_width)
        score_BQT = torch.bmm(q_BQK, k_BTK.transpose(1, 2)).mul_(self.head_width**-0.5)
        mixed_BQK = torch.bmm(score_BQT.softmax(dim=-1), v_BTK)
        return mixed_BQK.view(batch, tokens, self.width)


class BiTMedViT(nn.Module):
    """The whole network; its parameters' names are the `latent/…` names of a package.

    Args:
        architecture: what to build.
        seed: of the initial weights; two networks of one seed are equal.
    """

    def __init__(self, architecture: Architecture, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        patch_pixels = architecture.patch_size**2 * architecture.channels
        self.patch = nn.Linear(patch_pixels, architecture.width)
        self.position = nn.Parameter(torch.empty(architecture.tokens, architecture.width))
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.depth))
        self.norm = nn.LayerNorm(architecture.width)
        self.head = nn.Linear(architecture.width, len(architecture.classes))
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        """Logits (B, N) of pixels in [0, 1]."""
        return self.classify(self.tokens(pixels_BHWC))

    def embed(self, pixels_BHWC: Tensor) -> Tensor:
        """Embedding (B, D): what the head reads."""
        return self._pool(self.tokens(pixels_BHWC))

    def tokens(self, pixels_BHWC: Tensor) -> Tensor:
        """Tokens after the last block (B, T, D)."""
        weight_DP = self._rounded(self.patch.weight, self.architecture.ternary_patch)
        position_TD = self._rounded(self.position, self.architecture.ternary_position)
        x_BTD = functional.linear(self._patches(pixels_BHWC), weight_DP, self.patch.bias) + position_TD
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return x_BTD

    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """Logits (B, N) of tokens after the last block."""
        return self.answer(self._pool(tokens_BTD))

    def answer(self, embedding_BD: Tensor) -> Tensor:
        """Logits (B, N) of embeddings."""
        weight_ND = self._rounded(self.head.weight, self.architecture.ternary_head)
        return functional.linear(embedding_BD, weight_ND, self.head.bias)

    def _pool(self, tokens_BTD: Tensor) -> Tensor:
        norm_D = self._rounded(self.norm.weight[None], self.architecture.ternary_norms)[0]
        return functional.layer_norm(
            tokens_BTD.mean(dim=1), self.norm.normalized_shape, norm_D, self.norm.bias, self.norm.eps
        )

    def _rounded(self, weight_OI: Tensor, ternary: bool) -> Tensor:
        return (
            absmean_ternary(weight_OI, a_row=True) if ternary and self.architecture.quantized else weight_OI
        )

    def _patches(self, pixels_BHWC: Tensor) -> Tensor:
        """Cut into patches (B, T, P); pixels of a patch run row, column, channel."""
        batch, height, width, channels = pixels_BHWC.shape
        p = self.architecture.patch_size
        patches = ((pixels_BHWC - 0.5) * 4).view(batch, height // p, p, width // p, p, channels)
        return patches.transpose(2, 3).reshape(batch, self.architecture.tokens, p * p * channels)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        self.position.normal_(std=0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, BitLinear | nn.Linear):
                spread = module.weight.shape[1] ** -0.5
                module.weight.normal_(std=spread, generator=generator).clamp_(-2 * spread, 2 * spread)
            if isinstance(module, nn.Linear):
                module.bias.zero_()
