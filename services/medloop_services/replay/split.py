"""A split: labelled images, each with a name that stays with it wherever it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Images: (N, H, W) or (N, H, W, 3), one unsigned byte a value."""

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled images.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) int64 class indices.
        studies: (N,) str, what each image is known by in its source: `train/17`.
        sites: (N,) int64 site of each image, where the source tells.
    """

    images: Pixels
    labels: Index
    studies: NDArray[np.str_]
    sites: Index | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: NDArray[Any]) -> Split:
        """Return the images that an index array or a boolean mask chooses."""
        return Split(
            self.images[chosen],
            self.labels[chosen],
            self.studies[chosen],
            None if self.sites is None else self.sites[chosen],
        )

    def at_site(self, site: int) -> Split:
        """Return the images of one site; all of them where the source tells no sites."""
        return self if self.sites is None else self.select(self.sites == site)

    def relabelled(self, labels: Index) -> Split:
        """Return the same images under other labels, (N,) int64."""
        return Split(self.images, labels, self.studies, self.sites)

    def repainted(self, images: Pixels) -> Split:
        """Return the same studies as another scanner would show them."""
        return Split(images, self.labels, self.studies, self.sites)


def name_studies(split: str, count: int) -> NDArray[np.str_]:
    """Return the names of a split's images by their position: `train/0`, `train/1`, …"""
    return np.char.add(f"{split}/", np.arange(count).astype(np.str_))


def join(parts: Sequence[Split]) -> Split:
    """Return the images of several splits of one data set, one part after the other."""
    sites = [part.sites for part in parts if part.sites is not None]
    return Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.studies for part in parts]),
        np.concatenate(sites) if len(sites) == len(parts) else None,
    )
