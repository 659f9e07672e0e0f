"""Activation layer: how each transformer block's activations are distributed over an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

MEASURES = ("mean", "spread", "saturated", "dead")
"""What the engine measures of a block, in its order."""


def activation_statistics(blocks: FloatArray) -> dict[str, FloatArray]:
    """Return each image's activation-layer statistics, `block0.mean` and so on, float32 (B,) each.

    Args:
        blocks: float32 (B, depth, 4): mean, spread, saturated share, dead share of each block.
    """
    return {
        f"block{block}.{measure}": blocks[:, block, column]
        for block in range(blocks.shape[1])
        for column, measure in enumerate(MEASURES)
    }
