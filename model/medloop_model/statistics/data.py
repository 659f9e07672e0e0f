"""Data layer: what the scanner did to an image, whatever it shows.

Shapes: B images, H rows, W columns, C colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601 weights of red, green and blue."""

MEDIAN_OF_ABSOLUTE_NORMAL = 0.6745
"""Median of |N(0, 1)|: turns a median absolute value into a standard deviation."""

JPEG_BLOCK = 8
HISTOGRAM_BINS = 32
MIN_SIDE = 3
"""A Laplacian needs a pixel on either side."""


def data_statistics(images: NDArray[np.uint8]) -> dict[str, FloatArray]:
    """Return each image's data-layer statistics, float32 (B,) each; intensities are on a scale of 0 to 1.

    Args:
        images: uint8 (B, H, W), or (B, H, W, C) with one or three colours; at least 3 × 3 pixels.

    Raises:
        ValueError: another shape.
    """
    colours = _with_colours(images)
    grey_BHW = colours @ LUMINANCE if colours.shape[-1] == 3 else colours[..., 0]
    statistics: dict[str, FloatArray] = {
        **_tone(grey_BHW),
        "noise": _noise(grey_BHW),
        "sharpness": _sharpness(grey_BHW),
        "blockiness": _blockiness(grey_BHW),
        "clipped": np.asarray(((colours <= 0) | (colours >= 1)).mean((1, 2, 3)), np.float32),
        "histogram_entropy": _histogram_entropy(grey_BHW),
    }
    if colours.shape[-1] == 3:
        statistics |= _colour_shares(colours)
    return statistics


def _with_colours(images: NDArray[np.uint8]) -> FloatArray:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or min(images.shape[1:3]) < MIN_SIDE:
        raise ValueError(
            f"images of shape {images.shape} can't be measured: give (B, H, W) or (B, H, W, 1 or 3), "
            f"at least {MIN_SIDE} pixels a side"
        )
    scaled: FloatArray = images.astype(np.float32) / np.float32(255)
    return scaled


def _tone(grey_BHW: FloatArray) -> dict[str, FloatArray]:
    ascending = np.sort(grey_BHW.reshape(len(grey_BHW), -1), axis=1)
    last = ascending.shape[1] - 1
    return {
        "intensity": ascending.mean(1),
        "contrast": ascending.std(1),
        "tone_p05": ascending[:, round(0.05 * last)],
        "tone_p50": ascending[:, round(0.5 * last)],
        "tone_p95": ascending[:, round(0.95 * last)],
    }


def _noise(grey_BHW: FloatArray) -> FloatArray:
    """Noise level: the finest diagonal Haar band's median absolute value (Donoho & Johnstone 1994, §4.2)."""
    height, width = (side - side % 2 for side in grey_BHW.shape[1:])
    even, odd = grey_BHW[:, :height:2, :width], grey_BHW[:, 1:height:2, :width]
    diagonal = (even[:, :, ::2] - even[:, :, 1::2] - odd[:, :, ::2] + odd[:, :, 1::2]) / 2
    magnitude = np.abs(diagonal).reshape(len(grey_BHW), -1)
    level: FloatArray = (np.median(magnitude, axis=1) / MEDIAN_OF_ABSOLUTE_NORMAL).astype(np.float32)
    return level


def _sharpness(grey_BHW: FloatArray) -> FloatArray:
    """Mean magnitude of the four-neighbour Laplacian: falls with blur, rises with noise."""
    above_and_below = grey_BHW[:, :-2, 1:-1] + grey_BHW[:, 2:, 1:-1]
    left_and_right = grey_BHW[:, 1:-1, :-2] + grey_BHW[:, 1:-1, 2:]
    laplacian = above_and_below + left_and_right - 4 * grey_BHW[:, 1:-1, 1:-1]
    sharpness: FloatArray = np.abs(laplacian).mean((1, 2))
    return sharpness


def _blockiness(grey_BHW: FloatArray) -> FloatArray:
    """How much larger the steps across 8 × 8 block borders are than elsewhere: what JPEG leaves behind."""
    across = np.abs(np.diff(grey_BHW, axis=2)).mean(1)
    down = np.abs(np.diff(grey_BHW, axis=1)).mean(2)
    excess = np.zeros(len(grey_BHW), np.float32)
    for steps in (across, down):
        at_border = np.arange(1, steps.shape[1] + 1) % JPEG_BLOCK == 0
        if at_border.any():
            excess += steps[:, at_border].mean(1) - steps[:, ~at_border].mean(1)
    return excess


def _histogram_entropy(grey_BHW: FloatArray) -> FloatArray:
    """Entropy of the grey-level histogram, in nats."""
    flat = grey_BHW.reshape(len(grey_BHW), -1)
    bins = np.minimum((flat * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
    bins += np.arange(len(flat))[:, np.newaxis] * HISTOGRAM_BINS
    counts = np.bincount(bins.ravel(), minlength=len(flat) * HISTOGRAM_BINS).reshape(-1, HISTOGRAM_BINS)
    share = counts / flat.shape[1]
    entropy: FloatArray = np.sum(share * -np.log(np.where(share > 0, share, 1)), axis=1).astype(np.float32)
    return entropy


def _colour_shares(colours_BHWC: FloatArray) -> dict[str, FloatArray]:
    """Red's and blue's part of the light: a stain's or a white balance's signature."""
    mean_BC = colours_BHWC.mean((1, 2))
    total = np.maximum(mean_BC.sum(1), np.finfo(np.float32).tiny)
    return {"red_share": mean_BC[:, 0] / total, "blue_share": mean_BC[:, 2] / total}
