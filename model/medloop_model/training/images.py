"""Images on their way into training: pixels, balanced batches, mild augmentation.

Shape suffixes: B batch · H, W rows, columns · C channels · E exposures: 1 or C
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medloop_model.architecture import Architecture
from medloop_model.errors import ShapeError
from medloop_model.fitting import fitting_images


@dataclass(frozen=True)
class Bounds:
    """How far augmentation goes at strength 1.

    Args:
        turn: radians.
        zoom: share of the size.
        shift: of half the image's side.
        intensity: of full scale, a gain and half as much offset; a channel its own if `stained`.
        mirrored: whether left and right may change places.
        stained: whether channels change on their own, as they do where dyes are weighed by hand.
    """

    turn: float
    zoom: float
    shift: float
    intensity: float
    mirrored: bool = False
    stained: bool = False


PATIENT = Bounds(turn=0.175, zoom=0.1, shift=0.1, intensity=0.1)
"""A patient stands a little differently, an exposure differs a little."""
SLIDE = Bounds(turn=math.pi, zoom=0.3, shift=0.1, intensity=0.2, mirrored=True, stained=True)
"""A slide has no upper end, and laboratories differ in magnification and stain."""


def usual_bounds(architecture: Architecture) -> Bounds:
    """What may differ between two labs' or wards' images: colour images are taken for slides."""
    return SLIDE if architecture.channels > 1 else PATIENT


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
    return torch.from_numpy(fitting_images(images, architecture)).float() / 255


def to_images(pixels_BHWC: Tensor) -> NDArray[np.uint8]:
    """Round pixels in [0, 1] to images (B, H, W, C) that an `Engine` takes."""
    images_BHWC: NDArray[np.uint8] = (pixels_BHWC * 255).round().to(torch.uint8).numpy()
    return images_BHWC


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


def augment(
    pixels_BHWC: Tensor, generator: torch.Generator, strength: float = 1.0, bounds: Bounds = PATIENT
) -> Tensor:
    """Each image turned, zoomed, shifted, exposed and perhaps mirrored at random.

    Args:
        pixels_BHWC: float32 in [0, 1].
        generator: the only source of randomness.
        strength: 0 changes nothing but left and right, 1 reaches the bounds.
        bounds: how far each change goes.
    """
    count, channels = len(pixels_BHWC), pixels_BHWC.shape[3]
    exposures = channels if bounds.stained else 1
    draws = (torch.rand(4 + 2 * exposures, count, generator=generator) * 2 - 1) * strength
    turn, zoom = draws[0] * bounds.turn, 1 + draws[1] * bounds.zoom
    shift_x, shift_y = draws[2] * bounds.shift, draws[3] * bounds.shift
    across, along, mirror = zoom * turn.cos(), zoom * turn.sin(), torch.ones(count)
    if bounds.mirrored:
        mirror -= 2 * torch.randint(2, (count,), generator=generator)
    rows = torch.stack([across * mirror, -along, shift_x, along * mirror, across, shift_y], dim=1)
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(pixels_BCHW.shape), align_corners=False)
    moved_BCHW = functional.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False)
    gain_EB, offset_EB = torch.split(draws[4:] * bounds.intensity, exposures)
    exposed_BCHW = moved_BCHW * (1 + gain_EB).T[:, :, None, None] + offset_EB.T[:, :, None, None] / 2
    return exposed_BCHW.clamp(0, 1).permute(0, 2, 3, 1).contiguous()
