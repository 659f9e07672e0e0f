"""Which weights a model is pretrained with: what the command line offers, and nothing that needs torch."""

from __future__ import annotations

from enum import StrEnum


class Ternary(StrEnum):
    """Which weights of a model are ternary; each includes those above it."""

    MLP = "mlp"
    """Of the perceptrons: what BiTMedViT publishes."""
    ATTENTION = "attention"
    """Projections of the attention too."""
    ALL = "all"
    """Patch embedding, positions, head and norms too."""
