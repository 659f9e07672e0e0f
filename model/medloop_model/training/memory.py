"""Labelled images kept for rehearsal."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medloop_model.architecture import Architecture
from medloop_model.training.images import draw_balanced, to_labels, to_pixels


class RehearsalMemory:
    """Examples in the order they came; batches are drawn class-balanced.

    Args:
        architecture: what the images have to fit.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        shape = (0, architecture.image_size, architecture.image_size, architecture.channels)
        self.pixels_BHWC = torch.zeros(shape)
        self.labels_B = torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels_B)

    def add(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        """Append examples.

        Raises:
            ShapeError: they don't fit the architecture.
        """
        pixels_BHWC, labels_B = to_pixels(images, self.architecture), to_labels(labels, self.architecture)
        self.pixels_BHWC = torch.cat([self.pixels_BHWC, pixels_BHWC])
        self.labels_B = torch.cat([self.labels_B, labels_B])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pixels and labels of `count` examples, every class present equally likely; of none if empty."""
        places = draw_balanced(self.labels_B, count, generator) if len(self) else slice(0)
        return self.pixels_BHWC[places], self.labels_B[places]

    def merged(self, other: RehearsalMemory, confirmed_N: Tensor) -> RehearsalMemory:
        """Own examples of confirmed classes, and the other's of the classes in doubt.

        So every class keeps its share of a balanced batch, whichever domain it comes from.

        Args:
            other: the new domain's memory.
            confirmed_N: bool by class.
        """
        merged = RehearsalMemory(self.architecture)
        mine_B, others_B = confirmed_N[self.labels_B], ~confirmed_N[other.labels_B]
        merged.pixels_BHWC = torch.cat([self.pixels_BHWC[mine_B], other.pixels_BHWC[others_B]])
        merged.labels_B = torch.cat([self.labels_B[mine_B], other.labels_B[others_B]])
        return merged
