"""Arithmetic of one image: what any engine has to do for it."""

from __future__ import annotations

from medloop_model.architecture import Architecture


def multiply_accumulates(architecture: Architecture) -> tuple[float, float]:
    """Of quantised layers, and of layers and attention in float."""
    a, tokens = architecture, architecture.tokens
    attention_layers = tokens * a.width * (2 * a.width + 2 * a.head_width)
    perceptron = tokens * 2 * a.width * a.mlp_ratio * a.width
    scores = 2 * tokens * tokens * a.width
    patches = tokens * a.width * a.patch_size**2 * a.channels
    quantized = a.depth * (perceptron + a.ternary_attention * attention_layers)
    return quantized, a.depth * (scores + (not a.ternary_attention) * attention_layers) + patches
