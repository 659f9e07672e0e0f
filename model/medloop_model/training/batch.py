"""A mini-batch of labelled images. Each has an id, so that a repeat is told from a second image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medloop_model.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Batch:
    """Labelled images in the order in which their labels came.

    Args:
        images: uint8 (B, H, W) or (B, H, W, C).
        labels: (B,) indices of the plan's classes.
        ids: one an image; where one comes twice, the later label is meant.
        domains: what each image comes from, for a memory that keeps a share of each; none: all from one.

    Raises:
        ShapeError: not as many images, labels, ids and domains.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.integer]
    ids: tuple[str, ...]
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.images), len(self.labels), len(self.ids), len(self.domains) or len(self.ids)}
        if len(counts) > 1:
            raise ShapeError(
                f"a batch has {len(self.images)} images, {len(self.labels)} labels, {len(self.ids)} ids and "
                f"{len(self.domains)} domains; give one of each an image"
            )

    def __len__(self) -> int:
        return len(self.ids)
