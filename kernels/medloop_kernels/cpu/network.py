"""A network on the C++ kernels: weights blocked at load, one call a batch, no Python between layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medloop_kernels.cpu import _ternary
from medloop_kernels.errors import LayoutError, NonFiniteInput, ShapeError
from medloop_kernels.layout import unpack
from medloop_kernels.network import (
    STATISTICS,
    LinearWeights,
    NetworkOutput,
    NetworkWeights,
    Traffic,
    require_images,
)


class Network:
    """A compiled network; see `medloop_kernels.network.CompiledNetwork`.

    Calls from several Python threads wait for each other: there is one workspace a thread of the network.

    Args:
        weights: what to compile; copied.
        variant: the instruction set.
        threads: that share a batch's images. One image is always one thread's.

    Raises:
        ShapeError: a layer doesn't fit the measures.
        LayoutError: packed weights are damaged.
    """

    def __init__(self, weights: NetworkWeights, variant: _ternary.Variant, threads: int = 1) -> None:
        measures = weights.measures
        layers = [weights.patch]
        for block in weights.blocks:
            layers += [block.qkv, block.out, block.fc1, block.fc2]
        layers.append(weights.head)
        self.measures = measures
        self._depth = len(weights.blocks)
        try:
            self._native = _ternary.Network(
                variant,
                (
                    measures.image_size,
                    measures.channels,
                    measures.patch_size,
                    measures.width,
                    measures.heads,
                    measures.key_heads,
                    measures.hidden,
                    measures.classes,
                ),
                [layer_of(layer) for layer in layers],
                weights.position,
                weights.norm_weight,
                weights.norm_bias,
                threads,
            )
        except (ValueError, TypeError) as error:
            raise ShapeError(f"the network can't be compiled: {error}") from error

    def __call__(self, images: NDArray[np.uint8]) -> NetworkOutput:
        """Logits, embedding and activity of uint8 images (B, H, W, C).

        Raises:
            ShapeError: another dtype, shape or memory order.
            NonFiniteInput: an activation became NaN or infinite.
        """
        require_images(images, self.measures)
        count = len(images)
        logits = np.empty((count, self.measures.classes), dtype=np.float32)
        embedding = np.empty((count, self.measures.width), dtype=np.float32)
        blocks = np.empty((count, self._depth, STATISTICS), dtype=np.float32)
        if not self._native.run(images, logits, embedding, blocks):
            raise NonFiniteInput("an activation is NaN or infinite: the weights of this network are damaged.")
        return NetworkOutput(logits, embedding, blocks)

    @property
    def traffic(self) -> Traffic:
        """Bytes moved since the network was compiled, counted where layers read and write."""
        return Traffic(*self._native.traffic)

    @property
    def weight_bytes(self) -> int:
        """Memory of the blocked weights."""
        return self._native.weight_bytes

    @property
    def workspace_bytes(self) -> int:
        """Memory of the activations; allocated once, so the same after every call."""
        return self._native.workspace_bytes


def layer_of(linear: LinearWeights) -> _ternary.Layer:
    """A linear, copied and blocked.

    Raises:
        ShapeError: its vectors don't fit its weights.
        LayoutError: its weights are of no known kind, or damaged.
    """
    weights = linear.weights
    if weights.dtype == np.float32:
        return _ternary.Layer.full(weights, linear.norm, linear.bias)
    if linear.scale is None:
        raise ShapeError("quantized weights need a scale.")
    if weights.dtype == np.int8:
        return _ternary.Layer.int8(weights, linear.norm, linear.scale, linear.bias)
    if weights.dtype != np.uint8:
        raise LayoutError(f"weights are uint8 (packed), int8 or float32, not {weights.dtype}.")
    unpack(weights, linear.inputs)  # refuses damaged bytes, and says where
    return _ternary.Layer.ternary(weights, linear.inputs, linear.norm, linear.scale, linear.bias)
