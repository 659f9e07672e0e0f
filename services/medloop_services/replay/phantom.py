"""Phantoms: drawn radiographs of lungs, ribs and opacities. They stand in for patients and pass for none.

A chest is drawn as an exposure in [0, 1] (bright is dense) on a grid whose x and y run from −1 to 1; a
scanner turns the exposure into grey levels. A finding's contrast overlaps with what normal chests show, so
the classes can't be told apart perfectly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from medloop_services.replay.split import Pixels, Split, name_studies

SIZE = 28
"""Pixels a side."""

CLASS_NAMES = ("normal", "opacity", "nodule")

COUNTS: Mapping[str, tuple[int, int, int]] = {
    "train": (1000, 1000, 600),
    "val": (200, 200, 120),
    "test": (300, 300, 180),
}
"""Images of each class in a split."""

Exposure = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a machine turns an exposure x into grey levels: blur, then gain·x^tone + offset, then noise.

    Attributes:
        gain: contrast.
        offset: grey level of an empty exposure, in shares of white.
        tone: exponent of the tone curve.
        blur: standard deviation of the point spread in pixels.
        noise: standard deviation of the noise in shares of white.
    """

    gain: float
    offset: float
    tone: float
    blur: float
    noise: float

    def expose(self, exposure: Exposure, generator: np.random.Generator) -> Pixels:
        """Return (N, H, W) uint8 grey levels of (N, H, W) exposures in [0, 1]."""
        soft = gaussian_filter(exposure, (0, self.blur, self.blur))
        grey = self.gain * np.power(soft, self.tone) + self.offset
        noisy = grey + self.noise * generator.standard_normal(grey.shape, dtype=np.float32)
        pixels: Pixels = np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
        return pixels


SCANNERS = (
    Scanner(gain=1.0, offset=0.0, tone=1.0, blur=0.45, noise=0.02),
    Scanner(gain=0.62, offset=0.22, tone=1.5, blur=0.6, noise=0.04),
)
"""By site: the ward's scanner, and another hospital's."""


def draw_splits(class_count: int, *, sites: int = 1, seed: int = 0) -> tuple[Split, Split, Split]:
    """Draw training, validation and test images; an image depends on its class and number, not on the others.

    Args:
        class_count: 2 (normal, opacity) or 3 (and nodule).
        sites: 1, or 2 where every second image of a class comes from another hospital's scanner.
        seed: of everything drawn.
    """
    train, validation, test = (_draw_split(name, class_count, sites, seed) for name in COUNTS)
    return train, validation, test


def _draw_split(name: str, class_count: int, sites: int, seed: int) -> Split:
    split_number = list(COUNTS).index(name)
    counts = COUNTS[name][:class_count]
    order = np.random.default_rng((seed, sites, split_number)).permutation(
        np.repeat(np.arange(class_count, dtype=np.int64), counts)
    )
    images = np.empty((len(order), SIZE, SIZE), np.uint8)
    where_from = np.zeros(len(order), np.int64)
    for label, count in enumerate(counts):
        generator = np.random.default_rng((seed, sites, split_number, label))
        exposure = draw_exposures(label, count, generator)
        places = np.flatnonzero(order == label)
        where_from[places] = np.arange(count) % sites
        for site in range(sites):
            mine = where_from[places] == site
            images[places[mine]] = SCANNERS[site].expose(exposure[mine], generator)
    return Split(images, order, name_studies(name, len(order)), where_from if sites > 1 else None)


def draw_exposures(label: int, count: int, generator: np.random.Generator) -> Exposure:
    """Draw chests of one class: (count, SIZE, SIZE) float32 in [0, 1]."""
    chest = _Chest.draw(count, generator)
    exposure = chest.exposure()
    if CLASS_NAMES[label] == "opacity":
        exposure = exposure + chest.lung_shadows(generator, contrast=(0.20, 0.46), size=(0.16, 0.34), most=3)
    elif CLASS_NAMES[label] == "nodule":
        exposure = exposure + chest.lung_shadows(generator, contrast=(0.55, 0.80), size=(0.07, 0.10), most=1)
    # Vessels and overlapping tissue: what makes a normal chest look like a faint opacity.
    exposure = exposure + chest.lung_shadows(generator, contrast=(0.0, 0.14), size=(0.10, 0.24), most=3)
    return np.clip(exposure, 0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Chest:
    """Shapes of N chests; every array is (N, 1, 1) and grids broadcast to (N, SIZE, SIZE)."""

    x: Exposure
    y: Exposure
    lung_width: Exposure
    lung_height: Exposure
    spacing: Exposure
    air: Exposure
    rib_count: Exposure
    rib_phase: Exposure
    rib_contrast: Exposure

    @classmethod
    def draw(cls, count: int, generator: np.random.Generator) -> _Chest:
        def between(low: float, high: float) -> Exposure:
            return generator.uniform(low, high, (count, 1, 1)).astype(np.float32)

        axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
        scale = between(0.92, 1.10)
        turn = between(-0.06, 0.06)
        right, down = axis[None, None, :], axis[None, :, None]
        return cls(
            x=(right + turn * down + between(-0.08, 0.08)) * scale,
            y=(down - turn * right + between(-0.08, 0.08)) * scale,
            lung_width=between(0.26, 0.34),
            lung_height=between(0.55, 0.72),
            spacing=between(0.40, 0.46),
            air=between(0.34, 0.50),
            rib_count=between(4.5, 6.5),
            rib_phase=between(0, 2 * np.pi),
            rib_contrast=between(0.08, 0.18),
        )

    def lungs(self) -> Exposure:
        """Return how far each pixel lies within a lung, 0 to 1."""
        reach = ((np.abs(self.x) - self.spacing) / self.lung_width) ** 2 + (self.y / self.lung_height) ** 2
        return _soft_step(1 - reach, 0.2)

    def exposure(self) -> Exposure:
        """Return the chest without findings."""
        body = _soft_step(1.15 - (self.x / 1.05) ** 2 - 0.3 * self.y**2, 0.08)
        ribs = np.sin(np.pi * self.rib_count * (self.y + 0.45 * self.x**2) + self.rib_phase) ** 4
        heart = np.exp(-(((self.x - 0.14) / 0.24) ** 2) - ((self.y - 0.30) / 0.34) ** 2)
        tissue = 0.62 + 0.10 * self.y + 0.15 * heart
        chest: Exposure = body * (tissue - self.air * self.lungs() + self.rib_contrast * ribs * self.lungs())
        return chest

    def lung_shadows(
        self,
        generator: np.random.Generator,
        *,
        contrast: tuple[float, float],
        size: tuple[float, float],
        most: int,
    ) -> Exposure:
        """Return 1 to `most` Gaussian shadows within each chest's lungs."""
        count = len(self.spacing)
        shadows = np.zeros((count, SIZE, SIZE), np.float32)
        how_many = generator.integers(1, most + 1, (count, 1, 1))
        for number in range(most):
            side = np.where(generator.random((count, 1, 1)) < 0.5, -1, 1)
            # √u spreads the centres evenly over the lung's ellipse; 0.75 keeps them off its edge.
            radius = 0.75 * np.sqrt(generator.random((count, 1, 1)))
            angle = generator.uniform(0, 2 * np.pi, (count, 1, 1))
            x = side * self.spacing + radius * self.lung_width * np.cos(angle)
            y = radius * self.lung_height * np.sin(angle)
            strength = generator.uniform(*contrast, (count, 1, 1)) * (number < how_many)
            width = generator.uniform(*size, (count, 1, 1))
            shadows += strength * np.exp(-((self.x - x) ** 2 + (self.y - y) ** 2) / (2 * width**2))
        return shadows * (0.2 + 0.8 * self.lungs())


def _soft_step(distance: Exposure, softness: float) -> Exposure:
    step: Exposure = expit(distance / softness).astype(np.float32)
    return step
