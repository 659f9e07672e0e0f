"""How examples are shown: varied a little, and old cells in new surroundings.

Shape suffixes: B batch · H, W rows, columns · C channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medloop_model.training.images import Bounds, augment
from medloop_model.training.memory import Memory
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.transplant import transplant


@dataclass(frozen=True)
class Showing:
    """Draws what a network sees of examples.

    Args:
        plan: strength of the augmentation.
        bounds: its extent.
    """

    plan: TrainingPlan
    bounds: Bounds

    def varied(self, pixels_BHWC: Tensor, generator: torch.Generator) -> Tensor:
        """The same images, each augmented, if the plan augments."""
        if not self.plan.augmentation:
            return pixels_BHWC
        return augment(pixels_BHWC, generator, self.plan.augmentation, self.bounds)

    def transplanted(
        self, old: Memory, new: Memory, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Pixels and labels of `count` old cells, drawn class-balanced, in surroundings of new images."""
        cells = old.draw(count, generator)
        return transplant(cells.pixels, new.pixels, generator), cells.labels
