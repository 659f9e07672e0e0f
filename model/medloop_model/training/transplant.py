"""Old cells in new surroundings: what a few labelled slides of another laboratory can't show themselves.

Copy-paste augmentation (Ghiasi et al., Simple Copy-Paste, CVPR 2021, arXiv 2012.07177) for slides that show
one cell in the middle: the old laboratory's cells keep their true labels and get the new one's surroundings,
magnification and stain.

Shape suffixes: B batch · H, W rows, columns · C channels
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

RADIUS = 0.72
"""Of the disc that holds a cell, in half sides of the old image."""
EDGE = 0.08
"""Width over which the disc fades, in half sides."""
SMALLEST, LARGEST = 0.6, 0.9
"""Bounds of a cell's new size, in old ones."""
SMALLEST_SPREAD = 1e-3


def transplant(cells_BHWC: Tensor, surroundings_BHWC: Tensor, generator: torch.Generator) -> Tensor:
    """Each cell, smaller, in the middle of a random other image and in the stain of what was there.

    The stain follows Reinhard et al., Color Transfer between Images (2001), here in RGB and within the disc:
    each channel takes the mean and spread that the other image has there.

    Args:
        cells_BHWC: float32 in [0, 1], square; their labels stay true.
        surroundings_BHWC: float32 in [0, 1] of the same size; may be empty only if the cells are.
        generator: chooses surroundings and size of each cell.

    Returns:
        Like `cells_BHWC`.
    """
    count = len(cells_BHWC)
    if not count:
        return cells_BHWC
    chosen_B = torch.randint(len(surroundings_BHWC), (count,), generator=generator)
    around_BHWC = surroundings_BHWC[chosen_B]
    size_B = SMALLEST + (LARGEST - SMALLEST) * torch.rand(count, generator=generator)
    smaller_BHWC = _shrunk(cells_BHWC, size_B)
    disc_BHW1 = _disc(RADIUS * size_B, cells_BHWC.shape[1])
    mean, spread = _stain(smaller_BHWC, disc_BHW1)
    new_mean, new_spread = _stain(around_BHWC, disc_BHW1)
    stained_BHWC = (smaller_BHWC - mean) / spread.clamp(min=SMALLEST_SPREAD) * new_spread + new_mean
    return torch.lerp(around_BHWC, stained_BHWC.clamp(0, 1), disc_BHW1)


def _shrunk(pixels_BHWC: Tensor, size_B: Tensor) -> Tensor:
    """Images at a share of their size; their border goes on around them."""
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2)
    rows = torch.zeros(len(size_B), 2, 3)
    rows[:, 0, 0] = rows[:, 1, 1] = 1 / size_B
    grid = functional.affine_grid(rows, list(pixels_BCHW.shape), align_corners=False)
    smaller_BCHW = functional.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False)
    return smaller_BCHW.permute(0, 2, 3, 1)


def _disc(radius_B: Tensor, side: int) -> Tensor:
    """1 inside a centred disc, 0 outside, softly; (B, side, side, 1)."""
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    distance_HW = torch.hypot(place[:, None], place[None])
    return ((radius_B[:, None, None] - distance_HW) / EDGE + 0.5).clamp(0, 1)[..., None]


def _stain(pixels_BHWC: Tensor, disc_BHW1: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel within the disc, both (B, 1, 1, C)."""
    area = disc_BHW1.sum(dim=(1, 2), keepdim=True)
    mean = (pixels_BHWC * disc_BHW1).sum(dim=(1, 2), keepdim=True) / area
    variance = ((pixels_BHWC - mean) ** 2 * disc_BHW1).sum(dim=(1, 2), keepdim=True) / area
    return mean, variance.sqrt()
