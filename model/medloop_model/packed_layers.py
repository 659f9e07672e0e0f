"""The layers of a packed model, read from a package's `packed/` tensors and checked once.

Packed tensors by name (P patch pixels p·p·C · D width · T tokens · I, O inputs, outputs · N classes):

    patch.weight (D, P), patch.bias (D,)      P runs over a patch's row, column, channel
    position (T, D)                           these two, head.weight and norms: or codes and scale, a scale
                                              a row, where the architecture makes them ternary
    blocks.{i}.{qkv,out,fc1,fc2}.             each linear normalises its own input
        norm (I,), bias (O,)
        codes (O, packed width), scale (O,)   ternary: scale is the absmean scale times the output's gain
        weight (O, I)                         in full precision, instead of codes and scale
    norm.weight (D,), norm.bias (D,)          the LayerNorm before the head
    head.weight (N, D), head.bias (N,)

All are float32 but `codes`, which is uint8 in the format of `medloop_kernels.layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from medloop_kernels import (
    Backend,
    BlockWeights,
    LayoutError,
    LinearWeights,
    NetworkMeasures,
    NetworkWeights,
    rms_norm,
    unpack,
)
from numpy.typing import NDArray

from medloop_model.architecture import Architecture
from medloop_model.checkpoint import Tensors
from medloop_model.errors import UnsupportedArchitecture

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TernaryLinear:
    """A BitLinear with packed weights: y = sums · step · scale + bias on int8 codes of its normalised input.

    Args:
        norm: float32 (I,), RMSNorm weight.
        codes: uint8 (O, packed width).
        scale: float32 (O,).
        bias: float32 (O,).
    """

    norm: Floats
    codes: NDArray[np.uint8]
    scale: Floats
    bias: Floats

    def __call__(self, x_MI: Floats, kernels: Backend, *, gelu: bool = False) -> Floats:
        """float32 (M, O) of float32 (M, I), through the exact GELU if asked."""
        return self.apply(*kernels.quantize(x_MI, self.norm), kernels, gelu=gelu)

    def apply(
        self, codes_MI: NDArray[np.int8], step_M: Floats, kernels: Backend, *, gelu: bool = False
    ) -> Floats:
        """The same on an input that has been quantized with this layer's `norm`."""
        return kernels.ternary_linear(codes_MI, step_M, self.codes, self.scale, self.bias, gelu=gelu)

    def weights(self) -> LinearWeights:
        """As a back end compiles it."""
        return LinearWeights(self.codes, len(self.norm), self.bias, self.scale, self.norm)


@dataclass(frozen=True)
class FullLinear:
    """The same linear in full precision, which some architectures have in their attention.

    Args:
        norm: float32 (I,), RMSNorm weight.
        weight: float32 (O, I).
        bias: float32 (O,).
    """

    norm: Floats
    weight: Floats
    bias: Floats

    def __call__(self, x_BTI: Floats) -> Floats:
        """float32 (B, T, O) of float32 (B, T, I); needs no kernel."""
        normed_MI = rms_norm(x_BTI.reshape(-1, x_BTI.shape[2]), self.norm)
        y_BTO: Floats = normed_MI.reshape(x_BTI.shape) @ self.weight.T + self.bias
        return y_BTO

    def weights(self) -> LinearWeights:
        """As a back end compiles it."""
        return LinearWeights(self.weight, len(self.norm), self.bias, norm=self.norm)


@dataclass(frozen=True)
class PackedBlock:
    """The four linears of a transformer block; those of the MLP are always ternary."""

    qkv: TernaryLinear | FullLinear
    out: TernaryLinear | FullLinear
    fc1: TernaryLinear
    fc2: TernaryLinear

    def weights(self) -> BlockWeights:
        """As a back end compiles it."""
        return BlockWeights(*(linear.weights() for linear in (self.qkv, self.out, self.fc1, self.fc2)))


@dataclass(frozen=True)
class PackedNetwork:
    """A packed model's layers; shapes as in the table above."""

    architecture: Architecture
    patch_weight: Floats
    patch_bias: Floats
    position: Floats
    blocks: tuple[PackedBlock, ...]
    norm_weight: Floats
    norm_bias: Floats
    head_weight: Floats
    head_bias: Floats

    def weights(self) -> NetworkWeights:
        """As a back end compiles them."""
        architecture = self.architecture
        return NetworkWeights(
            measures=NetworkMeasures(
                image_size=architecture.image_size,
                channels=architecture.channels,
                patch_size=architecture.patch_size,
                width=architecture.width,
                heads=architecture.heads,
                key_heads=1,
                hidden=architecture.mlp_ratio * architecture.width,
                classes=len(architecture.classes),
            ),
            patch=LinearWeights(self.patch_weight, self.patch_weight.shape[1], self.patch_bias),
            position=self.position,
            blocks=tuple(block.weights() for block in self.blocks),
            norm_weight=self.norm_weight,
            norm_bias=self.norm_bias,
            head=LinearWeights(self.head_weight, architecture.width, self.head_bias),
        )


def read_network(tensors: Tensors, architecture: Architecture) -> PackedNetwork:
    """All layers of a packed model.

    Raises:
        UnsupportedArchitecture: a tensor is missing, doesn't fit, or is damaged.
    """
    width, classes = architecture.width, len(architecture.classes)
    patch_pixels = architecture.patch_size**2 * architecture.channels
    return PackedNetwork(
        architecture=architecture,
        patch_weight=read_matrix(tensors, "patch.weight", (width, patch_pixels), architecture.ternary_patch),
        patch_bias=read_floats(tensors, "patch.bias", (width,)),
        position=read_matrix(
            tensors, "position", (architecture.tokens, width), architecture.ternary_position
        ),
        blocks=tuple(read_block(tensors, index, architecture) for index in range(architecture.depth)),
        norm_weight=read_vector(tensors, "norm.weight", width, architecture.ternary_norms),
        norm_bias=read_floats(tensors, "norm.bias", (width,)),
        head_weight=read_matrix(tensors, "head.weight", (classes, width), architecture.ternary_head),
        head_bias=read_floats(tensors, "head.bias", (classes,)),
    )


def read_block(tensors: Tensors, index: int, architecture: Architecture) -> PackedBlock:
    """Block `index` of a packed model.

    Raises:
        UnsupportedArchitecture: a tensor is missing, doesn't fit, or is damaged.
    """
    width = architecture.width
    hidden = architecture.mlp_ratio * width
    prefix = f"blocks.{index}"
    norms = architecture.ternary_norms
    read_attention = read_ternary if architecture.ternary_attention else read_full
    return PackedBlock(
        qkv=read_attention(tensors, f"{prefix}.qkv", width, width + 2 * architecture.head_width, norms),
        out=read_attention(tensors, f"{prefix}.out", width, width, norms),
        fc1=read_ternary(tensors, f"{prefix}.fc1", width, hidden, norms),
        fc2=read_ternary(tensors, f"{prefix}.fc2", hidden, width, norms),
    )


def read_ternary(
    tensors: Tensors, prefix: str, inputs: int, outputs: int, ternary_norm: bool = False
) -> TernaryLinear:
    """The ternary linear `prefix`, its codes checked bit by bit.

    Raises:
        UnsupportedArchitecture: a tensor is missing, doesn't fit, or is damaged.
    """
    _read_codes(tensors, prefix, inputs, outputs)
    return TernaryLinear(
        norm=read_vector(tensors, f"{prefix}.norm", inputs, ternary_norm),
        codes=np.ascontiguousarray(tensors[f"{prefix}.codes"]),
        scale=read_floats(tensors, f"{prefix}.scale", (outputs,)),
        bias=read_floats(tensors, f"{prefix}.bias", (outputs,)),
    )


def read_full(
    tensors: Tensors, prefix: str, inputs: int, outputs: int, ternary_norm: bool = False
) -> FullLinear:
    """The full-precision linear `prefix`.

    Raises:
        UnsupportedArchitecture: a tensor is missing or doesn't fit.
    """
    return FullLinear(
        norm=read_vector(tensors, f"{prefix}.norm", inputs, ternary_norm),
        weight=read_floats(tensors, f"{prefix}.weight", (outputs, inputs)),
        bias=read_floats(tensors, f"{prefix}.bias", (outputs,)),
    )


def read_matrix(tensors: Tensors, name: str, shape: tuple[int, int], ternary: bool) -> Floats:
    """Weights that multiply inputs in full precision: float32 as stored, or ternary codes times their scales.

    Raises:
        UnsupportedArchitecture: a tensor is missing, doesn't fit, or is damaged.
    """
    if not ternary:
        return read_floats(tensors, name, shape)
    prefix = name.removesuffix(".weight")
    codes = _read_codes(tensors, prefix, inputs=shape[1], outputs=shape[0])
    weights: Floats = codes * read_floats(tensors, f"{prefix}.scale", shape[:1])[:, None]
    return weights


def read_vector(tensors: Tensors, name: str, length: int, ternary: bool) -> Floats:
    """A norm's factors: float32 as stored, or ternary codes times their one scale.

    Raises:
        UnsupportedArchitecture: a tensor is missing, doesn't fit, or is damaged.
    """
    if not ternary:
        return read_floats(tensors, name, (length,))
    factors: Floats = read_matrix(tensors, name, (1, length), ternary)[0]
    return factors


def _read_codes(tensors: Tensors, prefix: str, inputs: int, outputs: int) -> NDArray[np.int8]:
    try:
        codes = unpack(_tensor(tensors, f"{prefix}.codes"), inputs)
    except LayoutError as error:
        raise UnsupportedArchitecture(f"packed tensor {prefix}.codes can't be used: {error}") from error
    if len(codes) != outputs:
        raise UnsupportedArchitecture(f"packed tensor {prefix}.codes has {len(codes)} rows, not {outputs}")
    return codes


def read_floats(tensors: Tensors, name: str, shape: tuple[int, ...]) -> Floats:
    """One float32 tensor of a known shape.

    Raises:
        UnsupportedArchitecture: it is missing, of another shape or dtype, or holds a NaN or an infinity.
    """
    tensor = _tensor(tensors, name)
    if tensor.shape != shape or tensor.dtype != np.float32:
        raise UnsupportedArchitecture(
            f"packed tensor {name} must be float32 {shape}, not {tensor.dtype} {tensor.shape}"
        )
    if not np.isfinite(tensor).all():
        raise UnsupportedArchitecture(f"packed tensor {name} holds a NaN or an infinity; export it again")
    return np.ascontiguousarray(tensor)


def _tensor(tensors: Tensors, name: str) -> NDArray[Any]:
    if name not in tensors:
        raise UnsupportedArchitecture(f"packed tensor {name} is missing; load the package's packed part")
    return tensors[name]
