"""How examples are shown: varied a little, as a new scanner would show them, and in new surroundings.

Shape suffixes: B batch · H, W rows, columns · C channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medloop_model.network import BiTMedViT
from medloop_model.training.images import Bounds, augment
from medloop_model.training.memory import Memory
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.restyle import AcquisitionChange, is_faithful
from medloop_model.training.transplant import transplant

_COMPARED = 128  # images of each domain that tell how a scanner has changed


@dataclass(frozen=True)
class Restyling:
    """Old examples of one domain, and how the new scanner would show them."""

    examples: Memory
    change: AcquisitionChange


@torch.no_grad()
def restyling(old: Memory, new: Memory, base: BiTMedViT, generator: torch.Generator) -> Restyling | None:
    """How new images differ from those that came last before them; None if not as scanners differ.

    Args:
        old: from before the change; its last domain is the one that the base model knows best.
        new: since, with the base's answers.
        base: answers restyled images as it answers new ones, if they are faithful.
        generator: chooses what is compared.
    """
    latest = old.latest_domain()
    in_both = torch.tensor(sorted({*latest.labels.tolist()} & {*new.labels.tolist()}))
    if not len(in_both):
        return None
    shared_old, shared_new = (memory.at(torch.isin(memory.labels, in_both)) for memory in (latest, new))
    before, since = (memory.draw(_COMPARED, generator) for memory in (shared_old, shared_new))
    change = AcquisitionChange.between(before.pixels, since.pixels)
    shown_BN = base(change.applied(before.pixels, generator))
    # Each new image counts once: a dozen of them drawn again and again are not a hundred.
    faithful = is_faithful(shown_BN, before.labels, shared_new.answers, shared_new.labels)
    return Restyling(latest, change) if faithful else None


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
