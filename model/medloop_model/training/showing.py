"""How examples are shown: varied a little, as another scanner would show them, and in new surroundings.

Shape suffixes: B batch · H, W rows, columns · C channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medloop_model.engine import Engine
from medloop_model.training.images import Bounds, augment, to_images
from medloop_model.training.memory import Memory
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.restyle import AcquisitionChange, is_faithful
from medloop_model.training.transplant import transplant

_COMPARED = 128  # images of each domain that tell how a scanner has changed
_COMPARED_A_STEP = 48  # and of two old ones, where every step compares other pairs
_PAIRS = 2  # of old domains in a step


@dataclass(frozen=True)
class Restyling:
    """Old examples of one domain, and how another scanner would show them."""

    examples: Memory
    change: AcquisitionChange


def restyling(old: Memory, new: Memory, base: Engine, generator: torch.Generator) -> Restyling | None:
    """How new images differ from those that came last before them; None if not as scanners differ.

    Args:
        old: from before the change; its last domain is the one that the base model knows best.
        new: since, with the base's answers.
        base: answers restyled images as it answers new ones, if they are faithful.
        generator: chooses what is compared.
    """
    latest = old.latest_domain()
    shared_old, shared_new = _of_shared_classes(latest, new)
    if not len(shared_old):
        return None
    before, since = (memory.draw(_COMPARED, generator) for memory in (shared_old, shared_new))
    change = AcquisitionChange.between(before.pixels, since.pixels)
    shown_BN = torch.from_numpy(base(to_images(change.applied(before.pixels, generator))).logits)
    # Each new image counts once: a dozen of them drawn again and again are not a hundred.
    faithful = is_faithful(shown_BN, before.labels, shared_new.answers, shared_new.labels)
    return Restyling(latest, change) if faithful else None


def revisiting(old: Memory, returned: Memory, generator: torch.Generator) -> Restyling | None:
    """Examples of a known domain, and how another old one's scanner would show them.

    None without another, or where the two drawn have no class in common. Of many domains each has few
    examples left, and a network that knows these by heart forgets the domain all the same. Those of the
    others, shown as its scanner would, stand in for what was let go. Every old domain is as likely to be the
    one that shows, and every example to lend its domain, the new ones of a known scanner among them: those
    were never trained on before.

    Args:
        old: from before the change.
        returned: since, from a known scanner, under its name; or none.
        generator: draws the two.
    """
    names = sorted({*old.domains})
    if len(names) < 2:
        return None
    there = names[_drawn(len(names), generator)]
    elsewhere = {*names} - {there}
    lent = [domain for domain in (*old.domains, *returned.domains) if domain in elsewhere]
    here = lent[_drawn(len(lent), generator)]
    known = old.of_domain(here).joined(returned.of_domain(here))
    shared = _of_shared_classes(known, old.of_domain(there))
    if not len(shared[0]):
        return None
    before, since = (memory.draw(_COMPARED_A_STEP, generator).pixels for memory in shared)
    return Restyling(known, AcquisitionChange.between(before, since))


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _of_shared_classes(one: Memory, other: Memory) -> tuple[Memory, Memory]:
    """What each has of the classes that both have: other classes would pass for another scanner."""
    in_both = torch.tensor(sorted({*one.labels.tolist()} & {*other.labels.tolist()}), dtype=torch.int64)
    return one.at(torch.isin(one.labels, in_both)), other.at(torch.isin(other.labels, in_both))


@dataclass(frozen=True, eq=False)
class Shown:
    """What one step shows a network: new examples, old ones, then cells in new surroundings.

    Args:
        examples: new and old ones.
        rehearsed: which of them are old.
        pixels: of all and of the cells, float32 (B, H, W, C) in [0, 1].
        labels: likewise, int64 (B,).
        remembered: pixels of the old ones for the base model, which doesn't know the new scanner.
    """

    examples: Memory
    rehearsed: slice
    pixels: Tensor
    labels: Tensor
    remembered: Tensor


@dataclass(frozen=True)
class Showing:
    """Draws what a network sees of examples.

    Args:
        plan: strength of the augmentation.
        bounds: its extent.
    """

    plan: TrainingPlan
    bounds: Bounds

    def of_step(
        self,
        new: Memory,
        old: Memory,
        surroundings: Memory,
        generator: torch.Generator,
        *,
        returned: Memory,
        restyled: Restyling | None,
    ) -> Shown:
        """New examples, and old ones: as they were, revisited, restyled and transplanted.

        Args:
            new: shown whole.
            old: to draw from.
            surroundings: new examples that lend theirs.
            generator: draws everything.
            returned: new examples of a known scanner, to be shown as other old ones would; or none.
            restyled: to draw from what the new scanner would show.
        """
        plan = self.plan
        examples = new.joined(old.draw(plan.rehearsal_batch, generator))
        changed: list[tuple[slice, Restyling]] = []
        for _ in range(_PAIRS if plan.revisited else 0):
            revisited = revisiting(old, returned, generator)
            if revisited:
                place = slice(len(examples), len(examples) + plan.revisited // _PAIRS)
                examples = examples.joined(revisited.examples.draw(plan.revisited // _PAIRS, generator))
                changed.append((place, revisited))
        known = len(examples)
        if restyled:
            examples = examples.joined(restyled.examples.draw(plan.restyled, generator))
        pixels_BHWC, labels_B = examples.pixels, examples.labels
        if plan.transplanted and len(surroundings):
            cells_BHWC, cell_labels_B = self.transplanted(old, surroundings, plan.transplanted, generator)
            pixels_BHWC = torch.cat([pixels_BHWC, cells_BHWC])
            labels_B = torch.cat([labels_B, cell_labels_B])
        pixels_BHWC = self.varied(pixels_BHWC, generator)
        for place, revisited in changed:
            pixels_BHWC = _changed(pixels_BHWC, place, revisited, generator)
        rehearsed = slice(len(new), len(examples))
        remembered_BHWC = pixels_BHWC[rehearsed]
        if restyled:
            pixels_BHWC = _changed(pixels_BHWC, slice(known, len(examples)), restyled, generator)
        return Shown(examples, rehearsed, pixels_BHWC, labels_B, remembered_BHWC)

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


def _changed(pixels_BHWC: Tensor, place: slice, as_in: Restyling, generator: torch.Generator) -> Tensor:
    """A copy in which the images of one place look as another scanner would show them."""
    changed_BHWC = pixels_BHWC.clone()
    changed_BHWC[place] = as_in.change.applied(pixels_BHWC[place], generator)
    return changed_BHWC
