"""Acquisition changes by name and severity, after MedMNIST-C (Di Salvo et al., 2024), and a new scanner.

Each corruption is one function of pixels in [0, 1] and of its severity's parameter; the table at the end
names them. Sizes in pixels are meant for 28-pixel images and grow with the image.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve1d, gaussian_filter

from medloop_services.replay.errors import DatasetError
from medloop_services.replay.split import Pixels

SEVERITIES = range(1, 6)

Intensity = NDArray[np.float32]
"""Images in [0, 1]: (N, H, W) or (N, H, W, 3)."""

MIDDLE = 0.35
"""Grey level around which the new scanner's contrast shrinks."""

SHIFT = 0.1
"""By how much the new scanner is brighter."""


def brighter(x: Intensity, shift: float, _: np.random.Generator) -> Intensity:
    """Add a share of white: x + shift."""
    return x + np.float32(shift)


def with_contrast(x: Intensity, factor: float, _: np.random.Generator) -> Intensity:
    """Spread or shrink each image around its own mean m: m + factor·(x − m)."""
    mean: Intensity = x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)
    return mean + np.float32(factor) * (x - mean)


def with_gamma(x: Intensity, exponent: float, _: np.random.Generator) -> Intensity:
    """Bend the tone curve: x^exponent."""
    bent: Intensity = x ** np.float32(exponent)
    return bent


def noisy(x: Intensity, deviation: float, generator: np.random.Generator) -> Intensity:
    """Add Gaussian noise of a standard deviation in shares of white, the same to no two values."""
    noise: Intensity = generator.standard_normal(x.shape, dtype=np.float32)
    return x + np.float32(deviation) * noise


def blurred(x: Intensity, deviation: float, _: np.random.Generator) -> Intensity:
    """Blur with a Gaussian of a standard deviation in pixels of a 28-pixel image."""
    spread = deviation * x.shape[1] / 28
    soft: Intensity = gaussian_filter(x, (0, spread, spread) + (0,) * (x.ndim - 3))
    return soft


def jpeg(x: Intensity, quality: float, _: np.random.Generator) -> Intensity:
    """Compress each image as JPEG of a quality from 1 to 95."""
    compressed = np.stack([_compressed(image, int(quality)) for image in _as_bytes(x)])
    return compressed.astype(np.float32) / np.float32(255)


def speckled(x: Intensity, deviation: float, generator: np.random.Generator) -> Intensity:
    """Multiply by Gaussian noise around 1, as coherent imaging does: brighter places are noisier."""
    noise: Intensity = generator.standard_normal(x.shape, dtype=np.float32)
    return x * (1 + np.float32(deviation) * noise)


def counted(x: Intensity, photons: float, generator: np.random.Generator) -> Intensity:
    """Count photons, so many for white: Poisson noise, as at a lower dose."""
    counts = generator.poisson(np.clip(x, 0, 1) * photons).astype(np.float32)
    return counts / np.float32(photons)


def with_dead_pixels(x: Intensity, share: float, generator: np.random.Generator) -> Intensity:
    """Set a share of the pixels to black or white, every image's own."""
    chance = generator.random(x.shape[:3] + (1,) * (x.ndim - 3), dtype=np.float32)
    black, white = chance < share / 2, chance > 1 - share / 2
    changed: Intensity = np.where(white, np.float32(1), np.where(black, np.float32(0), x))
    return changed


def pixelated(x: Intensity, factor: float, _: np.random.Generator) -> Intensity:
    """Sample each image at so much of its sides, and show it at the old size."""
    small = max(2, round(factor * x.shape[1])), max(2, round(factor * x.shape[2]))
    coarse = np.stack([_resized(_resized(image, small), image.shape[:2]) for image in _as_bytes(x)])
    return coarse.astype(np.float32) / np.float32(255)


def moved(x: Intensity, pixels: float, _: np.random.Generator) -> Intensity:
    """Smear along the rows over so many pixels of a 28-pixel image: a patient who breathes."""
    length = pixels * x.shape[2] / 28
    either_side = int(np.ceil((length - 1) / 2))
    weights = np.ones(2 * either_side + 1)
    weights[[0, -1]] = (length - (2 * either_side - 1)) / 2  # what is left of the length for the outermost
    smeared: Intensity = convolve1d(x, weights / length, axis=2)
    return smeared


def vignetted(x: Intensity, loss: float, _: np.random.Generator) -> Intensity:
    """Darken towards the corners, by so much of the light there."""
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in x.shape[1:3])
    distance = (rows[:, np.newaxis] ** 2 + columns**2) / 2
    kept = (1 - np.float32(loss) * distance).astype(np.float32)
    return x * kept.reshape(1, *x.shape[1:3], *(1,) * (x.ndim - 3))


def banded(x: Intensity, deviation: float, generator: np.random.Generator) -> Intensity:
    """Give every row of the detector a gain of its own, the same in all images."""
    gain = generator.normal(1, deviation, size=(1, x.shape[1])).astype(np.float32)
    return x * gain.reshape(1, -1, *(1,) * (x.ndim - 2))


def collimated(x: Intensity, share: float, _: np.random.Generator) -> Intensity:
    """Cover so much of each side in black, as a collimator set too narrow does."""
    rows, columns = (max(1, round(share * side)) for side in x.shape[1:3])
    covered = np.zeros_like(x)
    covered[:, rows:-rows, columns:-columns] = x[:, rows:-rows, columns:-columns]
    return covered


@dataclass(frozen=True, slots=True)
class ScannerChange:
    """What another scanner does: a tone curve, less contrast, more light, more noise."""

    gamma: float
    contrast: float
    noise: float


def scanned(x: Intensity, change: ScannerChange, generator: np.random.Generator) -> Intensity:
    """Show images as another scanner would: (x^γ − m)·c + m + shift + noise, with m = MIDDLE."""
    toned = with_gamma(x, change.gamma, generator) - np.float32(MIDDLE)
    shrunk = toned * np.float32(change.contrast) + np.float32(MIDDLE + SHIFT)
    return noisy(shrunk, change.noise, generator)


@dataclass(frozen=True, slots=True)
class Corruption:
    """A function and its parameter at severities 1 to 5."""

    apply: Callable[[Intensity, Any, np.random.Generator], Intensity]
    parameters: tuple[Any, Any, Any, Any, Any]


CORRUPTIONS: Mapping[str, Corruption] = {
    "brightness-up": Corruption(brighter, (0.08, 0.16, 0.24, 0.32, 0.40)),
    "brightness-down": Corruption(brighter, (-0.08, -0.16, -0.24, -0.32, -0.40)),
    "contrast-up": Corruption(with_contrast, (1.3, 1.6, 2.0, 2.5, 3.2)),
    "contrast-down": Corruption(with_contrast, (0.80, 0.65, 0.50, 0.35, 0.20)),
    "gamma-up": Corruption(with_gamma, (1.2, 1.4, 1.7, 2.1, 2.6)),
    "gamma-down": Corruption(with_gamma, (0.85, 0.72, 0.60, 0.48, 0.38)),
    "gaussian-noise": Corruption(noisy, (0.03, 0.06, 0.09, 0.13, 0.18)),
    "gaussian-blur": Corruption(blurred, (0.4, 0.7, 1.0, 1.4, 1.9)),
    "jpeg": Corruption(jpeg, (50, 30, 18, 10, 5)),
    "scanner": Corruption(
        scanned,
        (
            ScannerChange(gamma=1.2, contrast=0.80, noise=0.03),
            ScannerChange(gamma=1.4, contrast=0.65, noise=0.05),
            ScannerChange(gamma=1.7, contrast=0.50, noise=0.08),
            ScannerChange(gamma=2.1, contrast=0.40, noise=0.11),
            ScannerChange(gamma=2.6, contrast=0.30, noise=0.14),
        ),
    ),
    "speckle-noise": Corruption(speckled, (0.10, 0.15, 0.25, 0.40, 0.60)),
    "shot-noise": Corruption(counted, (250, 120, 60, 30, 15)),
    "dead-pixels": Corruption(with_dead_pixels, (0.01, 0.02, 0.05, 0.10, 0.20)),
    "pixelate": Corruption(pixelated, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "motion-blur": Corruption(moved, (2, 3, 4, 5, 7)),
    "vignette": Corruption(vignetted, (0.10, 0.20, 0.30, 0.45, 0.60)),
    "banding": Corruption(banded, (0.03, 0.06, 0.10, 0.15, 0.25)),
    "collimation": Corruption(collimated, (0.04, 0.08, 0.12, 0.16, 0.25)),
}


def black(x: Intensity, _parameter: None, _generator: np.random.Generator) -> Intensity:
    """Show nothing: the shutter is closed, or the cable is out."""
    return np.zeros_like(x)


def inverted(x: Intensity, _parameter: None, _generator: np.random.Generator) -> Intensity:
    """Show black as white: 1 − x."""
    turned: Intensity = np.float32(1) - x
    return turned


def frozen(x: Intensity, _parameter: None, _generator: np.random.Generator) -> Intensity:
    """Show the first image again and again."""
    return np.broadcast_to(x[:1], x.shape).copy()


FAULTS: Mapping[str, Corruption] = {
    name: Corruption(fault, (None,) * 5)
    for name, fault in {"black": black, "inverted": inverted, "frozen": frozen}.items()
}
"""What a broken device shows; as bad at every severity, and no drift to learn from."""


def corrupt(images: Pixels, name: str, severity: int, seed: int | tuple[int, ...]) -> Pixels:
    """Return images as they would look after an acquisition change, or from a broken device.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8.
        name: one of CORRUPTIONS or FAULTS.
        severity: 1 to 5.
        seed: of the noise.

    Raises:
        DatasetError: there is no such corruption or severity.
    """
    streamable = {**CORRUPTIONS, **FAULTS}
    if name not in streamable:
        raise DatasetError(f"there is no corruption {name!r}; choose one of {', '.join(streamable)}")
    if severity not in SEVERITIES:
        raise DatasetError(f"severity {severity} is not between 1 and 5")
    corruption = streamable[name]
    changed = corruption.apply(
        images.astype(np.float32) / np.float32(255),
        corruption.parameters[severity - 1],
        np.random.default_rng(seed),
    )
    return _as_bytes(changed)


def _as_bytes(x: Intensity) -> Pixels:
    pixels: Pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return pixels


def _resized(image: Pixels, sides: tuple[int, ...]) -> Pixels:
    rows, columns = sides
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))


def _compressed(image: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
