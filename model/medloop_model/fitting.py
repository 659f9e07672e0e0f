"""Whether images fit a network, and if not, what to do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medloop_model.architecture import Architecture
from medloop_model.errors import ShapeError


def fitting_images(images: NDArray[np.uint8], architecture: Architecture) -> NDArray[np.uint8]:
    """Images as a network takes them, without gaps; copied only where there are some.

    Args:
        images: uint8 (B, H, W, C); a grey network also takes (B, H, W). Of any memory order.
        architecture: what they have to fit.

    Returns:
        uint8 (B, H, W, C).

    Raises:
        ShapeError: another shape or type than the network takes.
    """
    side, channels = architecture.image_size, architecture.channels
    grey = channels == 1 and images.shape[1:] == (side, side)
    if images.dtype != np.uint8 or not (grey or images.shape[1:] == (side, side, channels)):
        raise ShapeError(
            f"this model takes uint8 images (batch, {side}, {side}, {channels}), "
            f"not {images.dtype} {images.shape}; resize or convert them first"
        )
    return np.ascontiguousarray(images).reshape(len(images), side, side, channels)
