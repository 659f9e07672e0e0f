"""Images on their way into training: pixels, balanced batches, mild augmentation.

Shape suffixes: B batch · H, W rows, columns · C channels
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medloop_model.architecture import Architecture
from medloop_model.errors import ShapeError

MOST_TURN = 0.175  # radians, 10°
MOST_ZOOM = 0.1
MOST_SHIFT = 0.1  # of half the image's side
MOST_INTENSITY = 0.1  # of full scale


def to_pixels(images: NDArray[np.uint8], architecture: Architecture) -> Tensor:
    """Images as the network takes them.

    Args:
        images: uint8, (B, H, W) or (B, H, W, C).
        architecture: what they have to fit.

    Returns:
        float32 (B, H, W, C) in [0, 1].

    Raises:
        ShapeError: another shape or type than the network takes.
    """
    side, channels = architecture.image_size, architecture.channels
    grey = images.ndim == 3 and channels == 1
    if images.dtype != np.uint8 or images.shape[1:] != ((side, side) if grey else (side, side, channels)):
        raise ShapeError(
            f"images are {images.dtype} {images.shape}; the model takes uint8 (n, {side}, {side}, {channels})"
        )
    pixels_BHWC = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    return pixels_BHWC[..., None] if grey else pixels_BHWC


def to_labels(labels: NDArray[np.integer], architecture: Architecture) -> Tensor:
    """Labels as the loss takes them: int64 (B,).

    Raises:
        ShapeError: a label outside the network's classes.
    """
    flat = np.asarray(labels).reshape(-1).astype(np.int64)
    if len(flat) and not 0 <= flat.min() <= flat.max() < len(architecture.classes):
        raise ShapeError(f"labels run from {flat.min()} to {flat.max()}; classes are {architecture.classes}")
    return torch.from_numpy(flat)


def draw_balanced(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices (count,) drawn with replacement so that every class present is equally likely."""
    frequency = torch.bincount(labels).clamp(min=1).double()
    return torch.multinomial(1 / frequency[labels], count, replacement=True, generator=generator)


def augment(pixels_BHWC: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """A turn, zoom and shift as a patient may stand, a gain and offset as an exposure may differ.

    Args:
        pixels_BHWC: float32 in [0, 1].
        generator: the only source of randomness.
        strength: 0 changes nothing, 1 reaches the bounds above.
    """
    draws = (torch.rand(6, len(pixels_BHWC), generator=generator) * 2 - 1) * strength
    turn, zoom = draws[0] * MOST_TURN, 1 + draws[1] * MOST_ZOOM
    shift_x, shift_y = draws[2] * MOST_SHIFT, draws[3] * MOST_SHIFT
    rows = torch.stack(
        [zoom * turn.cos(), -zoom * turn.sin(), shift_x, zoom * turn.sin(), zoom * turn.cos(), shift_y], dim=1
    )
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(pixels_BCHW.shape), align_corners=False)
    moved_BCHW = functional.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False)
    gain, offset = 1 + draws[4] * MOST_INTENSITY, draws[5] * MOST_INTENSITY / 2
    exposed_BCHW = moved_BCHW * gain[:, None, None, None] + offset[:, None, None, None]
    return exposed_BCHW.clamp(0, 1).permute(0, 2, 3, 1).contiguous()
