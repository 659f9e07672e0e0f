"""Small networks with random weights, and what they are to compute, in plain numpy."""

from __future__ import annotations

import numpy as np
from medloop_kernels import BlockWeights, LinearWeights, NetworkMeasures, NetworkWeights, pack, reference

MEASURES = NetworkMeasures(
    image_size=12, channels=1, patch_size=3, width=24, heads=4, key_heads=2, hidden=40, classes=3
)
# Of logits of order 1: sums in another order than numpy's, and the exponential's 2e-7 a score.
ROUNDINGS = 5e-5


def random_network(
    measures: NetworkMeasures, *, full_attention: bool = False, seed: int = 1
) -> NetworkWeights:
    generator = np.random.default_rng(seed)

    def floats(*shape, around=0.0):
        return (around + 0.2 * generator.standard_normal(shape)).astype(np.float32)

    def full(outputs, inputs, norm=True):
        weight_of_norm = floats(inputs, around=1.0) if norm else None
        return LinearWeights(floats(outputs, inputs), inputs, floats(outputs), norm=weight_of_norm)

    def ternary(outputs, inputs):
        codes = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        scale = floats(outputs, around=1.0) / np.float32(inputs**0.5)
        return LinearWeights(pack(codes), inputs, floats(outputs), scale, floats(inputs, around=1.0))

    width, hidden = measures.width, measures.hidden
    attention = full if full_attention else ternary
    qkv = width + 2 * measures.key_heads * width // measures.heads
    side = measures.image_size // measures.patch_size
    return NetworkWeights(
        measures=measures,
        patch=full(width, measures.patch_size**2 * measures.channels, norm=False),
        position=floats(side**2, width),
        blocks=tuple(
            BlockWeights(
                attention(qkv, width), attention(width, width), ternary(hidden, width), ternary(width, hidden)
            )
            for _ in range(2)
        ),
        norm_weight=floats(width, around=1.0),
        norm_bias=floats(width),
        head=full(measures.classes, width, norm=False),
    )


def linear(layer: LinearWeights, x, *, gelu: bool = False):
    if layer.weights.dtype == np.float32:
        return reference.rms_norm(x, layer.norm) @ layer.weights.T + layer.bias
    codes, step = reference.quantize(x, layer.norm)
    return reference.ternary_linear(codes, step, layer.weights, layer.scale, layer.bias, gelu=gelu)


def logits_of(weights: NetworkWeights, image):
    """One image in plain numpy, head by head."""
    m = weights.measures
    side, head_width = m.image_size // m.patch_size, m.width // m.heads
    pixels = ((image / np.float32(255) - np.float32(0.5)) * np.float32(4)).astype(np.float32)
    patches = pixels.reshape(side, m.patch_size, side, m.patch_size, m.channels).swapaxes(1, 2)
    x = patches.reshape(side**2, -1) @ weights.patch.weights.T + weights.patch.bias + weights.position
    for block in weights.blocks:
        qkv = linear(block.qkv, x)
        heads = np.split(qkv, qkv.shape[1] // head_width, axis=1)
        mixed = []
        for head in range(m.heads):
            shared = head * m.key_heads // m.heads
            key, value = heads[m.heads + shared], heads[m.heads + m.key_heads + shared]
            scores = heads[head] @ key.T / np.float32(head_width) ** 0.5
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed.append(shares / shares.sum(axis=1, keepdims=True) @ value)
        x = x + linear(block.out, np.concatenate(mixed, axis=1))
        x = x + linear(block.fc2, linear(block.fc1, x, gelu=True))
    pooled = x.mean(axis=0)
    normed = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5)
    return (normed * weights.norm_weight + weights.norm_bias) @ weights.head.weights.T + weights.head.bias


def random_images(measures: NetworkMeasures, count: int, seed: int = 2):
    shape = (count, measures.image_size, measures.image_size, measures.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
