"""A whole network as one call: what it is made of, and what a back end that compiles it takes and gives.

B images · T tokens (patches) · D width · H hidden width · P pixels of a patch · K, N inputs, outputs of a
linear · C classes · L blocks. A block is x + out(attention(qkv(x))), then x + fc2(GELU(fc1(x))); every linear
of a block normalises its own input. The logits are head(LayerNorm(mean over tokens)).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.errors import ShapeError

Floats = NDArray[np.float32]
STATISTICS = 4


@dataclass(frozen=True)
class NetworkMeasures:
    """Sizes of a network.

    Args:
        image_size: side of the square image, pixels; `patch_size` divides it.
        channels: of the image.
        patch_size: side of a patch, pixels.
        width: D; `heads` divides it.
        heads: query heads; `key_heads` divides them.
        key_heads: key and value heads: 1 is multi-query, `heads` is multi-head attention.
        hidden: H.
        classes: C.
    """

    image_size: int
    channels: int
    patch_size: int
    width: int
    heads: int
    key_heads: int
    hidden: int
    classes: int

    @property
    def tokens(self) -> int:
        """T."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_pixels(self) -> int:
        """P, all channels counted."""
        return self.patch_size**2 * self.channels

    @property
    def head_width(self) -> int:
        """Columns of a query, key or value."""
        return self.width // self.heads

    @property
    def qkv_width(self) -> int:
        """Columns of all queries, keys and values of a token."""
        return self.width + 2 * self.key_heads * self.head_width


@dataclass(frozen=True)
class LinearWeights:
    """One linear; what `weights` is says how it is computed.

    Args:
        weights: uint8 (N, packed_width(K)): ternary, in the format of `layout`. int8 (N, K) from -64 to 63:
            the control that says what ternary weights bring. float32 (N, K): full precision.
        inputs: K.
        bias: float32 (N,).
        scale: float32 (N,), None in full precision.
        norm: float32 (K,), weight of the RMSNorm of its input; None takes the input as it is.
    """

    weights: NDArray[Any]
    inputs: int
    bias: Floats
    scale: Floats | None = None
    norm: Floats | None = None


@dataclass(frozen=True)
class BlockWeights:
    """The four linears of a block; fc2 is never in full precision, since monitoring reads its codes."""

    qkv: LinearWeights
    out: LinearWeights
    fc1: LinearWeights
    fc2: LinearWeights


@dataclass(frozen=True)
class NetworkWeights:
    """Everything learned.

    Args:
        measures: of the network.
        patch: (D, P) in full precision; pixels of a patch run row, column, channel.
        position: float32 (T, D).
        blocks: L of them.
        norm_weight, norm_bias: float32 (D,), of the LayerNorm before the head.
        head: (C, D) in full precision.
    """

    measures: NetworkMeasures
    patch: LinearWeights
    position: Floats
    blocks: tuple[BlockWeights, ...]
    norm_weight: Floats
    norm_bias: Floats
    head: LinearWeights


@dataclass(frozen=True)
class NetworkOutput:
    """What one batch gives.

    Args:
        logits: float32 (B, C).
        embedding: float32 (B, D), what the head reads.
        blocks: float32 (B, L, 4), of each block's activations behind the GELU: mean, standard deviation,
            share of int8 codes at ±127, share of channels whose codes are 0 in all tokens.
    """

    logits: Floats
    embedding: Floats
    blocks: Floats


@dataclass(frozen=True)
class Traffic:
    """Bytes that layers read and wrote: weights as they are stored, activations in and out of a layer."""

    weights: int
    activations: int


class CompiledNetwork(Protocol):
    """A network that a back end has prepared for its machine; one call a batch."""

    def __call__(self, images: NDArray[np.uint8]) -> NetworkOutput:
        """Run uint8 (B, image_size, image_size, channels).

        Raises:
            ShapeError: another dtype, shape or memory order.
            NonFiniteInput: an activation became NaN or infinite.
        """
        ...

    @property
    def traffic(self) -> Traffic:
        """Bytes moved since the network was compiled."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        ...

    @property
    def workspace_bytes(self) -> int:
        """Memory of the activations; the same after every call."""
        ...


def require_images(images: NDArray[np.uint8], measures: NetworkMeasures) -> None:
    """Raise ShapeError unless the images are what the network takes, without gaps."""
    size = measures.image_size
    wanted = (size, size, measures.channels)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8:
        raise ShapeError(f"images must be uint8 (batch, {wanted}), not {images.dtype} {images.shape}.")
    if not images.flags.c_contiguous:
        raise ShapeError("images must be C-contiguous: pass numpy.ascontiguousarray(images).")


def require_weights(weights: NetworkWeights) -> None:
    """Raise ShapeError unless every layer fits the measures and has what its kind needs."""
    m = weights.measures
    if min(astuple(m)) < 1:
        raise ShapeError(f"every measure must be at least 1: {m}.")
    if m.image_size % m.patch_size or m.width % m.heads or m.heads % m.key_heads:
        raise ShapeError(f"patches must divide the image, heads the width, key heads the heads: {m}.")
    _require_floats("position", weights.position, (m.tokens, m.width))
    _require_floats("norm_weight", weights.norm_weight, (m.width,))
    _require_floats("norm_bias", weights.norm_bias, (m.width,))
    for name, linear, shape in (
        ("patch", weights.patch, (m.width, m.patch_pixels)),
        ("head", weights.head, (m.classes, m.width)),
    ):
        _require_linear(name, linear, shape)
        if linear.weights.dtype != np.float32:
            raise ShapeError(f"{name} must be in full precision, not {linear.weights.dtype}.")
    for index, block in enumerate(weights.blocks):
        for name, linear, shape in (
            ("qkv", block.qkv, (m.qkv_width, m.width)),
            ("out", block.out, (m.width, m.width)),
            ("fc1", block.fc1, (m.hidden, m.width)),
            ("fc2", block.fc2, (m.width, m.hidden)),
        ):
            _require_linear(f"block {index}'s {name}", linear, shape)
            if linear.norm is None:
                raise ShapeError(f"block {index}'s {name} needs a norm.")
        if block.fc2.weights.dtype == np.float32:
            raise ShapeError(f"block {index}'s fc2 must be quantized: monitoring reads its codes.")


def _require_linear(name: str, linear: LinearWeights, shape: tuple[int, int]) -> None:
    outputs, inputs = shape
    if (len(linear.weights), linear.inputs) != shape:
        raise ShapeError(
            f"{name} has {len(linear.weights)} outputs and {linear.inputs} inputs, "
            f"not {outputs} and {inputs}."
        )
    _require_floats(f"{name}'s bias", linear.bias, (outputs,))
    if linear.norm is not None:
        _require_floats(f"{name}'s norm", linear.norm, (inputs,))
    if linear.weights.dtype == np.float32:
        _require_floats(name, linear.weights, shape)
    elif linear.scale is None:
        raise ShapeError(f"{name} needs a scale: its weights are quantized.")
    else:
        _require_floats(f"{name}'s scale", linear.scale, (outputs,))


def _require_floats(name: str, floats: Floats, shape: tuple[int, ...]) -> None:
    if floats.dtype != np.float32 or floats.shape != shape:
        raise ShapeError(f"{name} must be float32 {shape}, not {floats.dtype} {floats.shape}.")
