"""The light augmentation under which a model's answer should not change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def moved_by_one_pixel(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images moved one pixel down and one to the right; the border repeats.

    Args:
        images: uint8 (B, H, W) or (B, H, W, C).
    """
    moved = images.copy()
    moved[:, 1:, 1:] = images[:, :-1, :-1]
    moved[:, 0, 1:] = images[:, 0, :-1]
    moved[:, 1:, 0] = images[:, :-1, 0]
    return moved
