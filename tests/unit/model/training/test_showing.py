from __future__ import annotations

from dataclasses import replace

import torch
from medloop_model.training.freeze import SHALLOW_EWC
from medloop_model.training.images import PATIENT
from medloop_model.training.memory import Memory
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.showing import Restyling, Showing, restyling, revisiting

PLAN = replace(
    TrainingPlan(SHALLOW_EWC, ("dark", "bright")),
    rehearsal_batch=8,
    revisited=4,
    restyled=2,
    augmentation=0.0,
)
SHOWING = Showing(PLAN, PATIENT)
SIDE = 28


def memory(domain: str, brightness: float, count: int = 24, name: str = "image") -> Memory:
    """Images of one scanner: noise whose mean is its brightness; a class is no shade."""
    draw = torch.Generator().manual_seed(round(1000 * brightness))
    pixels = brightness + 0.1 * torch.randn(count, SIDE, SIDE, 1, generator=draw)
    return Memory(
        ids=tuple(f"{domain}-{name}-{number}" for number in range(count)),
        domains=(domain,) * count,
        images=(pixels.clamp(0, 1) * 255).to(torch.uint8),
        labels=torch.arange(count) % 2,
        answers=torch.zeros(count, 0),
        embeddings=torch.zeros(count, 0),
    )


HOME, BRIGHT = memory("0", 0.3), memory("1", 0.7)
NEW = memory("new", 0.5, count=4)


def answered(examples: Memory) -> Memory:
    return replace(examples, answers=torch.zeros(len(examples), 2))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brightness_of(pixels: torch.Tensor) -> list[float]:
    return [round(image.mean().item(), 1) for image in pixels]


def test_of_one_old_domain_there_is_no_other_to_revisit() -> None:
    assert revisiting(HOME, seeded()) is None
    assert revisiting(HOME.at(torch.tensor([], dtype=torch.int64)), seeded()) is None


def test_examples_of_one_old_domain_are_shown_as_another_ones_scanner_would() -> None:
    both = HOME.joined(BRIGHT)
    seen = set()
    for seed in range(8):
        revisited = revisiting(both, seeded(seed))
        assert revisited is not None
        (domain,) = set(revisited.examples.domains)
        shown = revisited.change.applied(revisited.examples.pixels, seeded())
        assert set(brightness_of(shown)) == {0.7 if domain == "0" else 0.3}
        seen.add(domain)
    assert seen == {"0", "1"}, "either is revisited"


def test_domains_without_a_class_in_common_say_nothing_of_their_scanners() -> None:
    dark, bright = HOME.at(HOME.labels == 0), BRIGHT.at(BRIGHT.labels == 1)
    assert revisiting(dark.joined(bright), seeded()) is None
    shown = SHOWING.of_step(NEW, dark.joined(bright), None, NEW, seeded())
    assert torch.equal(shown.pixels, shown.examples.pixels)


def test_a_small_batch_is_no_larger_for_what_is_revisited() -> None:
    small = Showing(replace(PLAN, rehearsal_batch=2), PATIENT)
    assert len(small.of_step(NEW, HOME.joined(BRIGHT), None, NEW, seeded()).labels) == len(NEW) + 2


def test_a_step_shows_new_examples_then_old_ones_as_they_were_and_revisited() -> None:
    shown = SHOWING.of_step(NEW, HOME.joined(BRIGHT), None, NEW, seeded())
    assert shown.examples.ids[: len(NEW)] == NEW.ids
    assert shown.rehearsed == slice(4, 12)
    assert torch.equal(shown.labels, shown.examples.labels)
    assert torch.equal(shown.pixels[:8], shown.examples.pixels[:8]), "four new ones, four as they were"
    assert torch.equal(shown.remembered, shown.pixels[4:]), "the base model knows every old scanner"
    before, after = (brightness_of(pixels[8:]) for pixels in (shown.examples.pixels, shown.pixels))
    assert sorted({*before, *after}) == [0.3, 0.7]
    assert {*before}.isdisjoint(after)


def test_what_only_the_new_scanner_shows_the_base_model_is_not_asked_about() -> None:
    revisited = revisiting(HOME.joined(BRIGHT), seeded())
    assert revisited is not None
    as_new = Restyling(HOME, revisited.change)
    shown = SHOWING.of_step(NEW, HOME, as_new, NEW, seeded())
    assert shown.rehearsed == slice(4, 14), "with one old domain all eight are as they were"
    assert torch.equal(shown.remembered, shown.examples.pixels[4:])
    assert torch.equal(shown.pixels[:12], shown.examples.pixels[:12])
    assert not torch.equal(shown.pixels[12:], shown.examples.pixels[12:])


def test_images_are_restyled_for_a_new_scanner_and_not_for_one_that_came_back() -> None:
    def alike(pixels_BHWC: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pixels_BHWC), 2)

    old = answered(HOME.joined(BRIGHT))
    assert restyling(old, answered(memory("new", 0.5)), alike, seeded()) is not None
    for brightness in (0.301, 0.701):
        assert restyling(old, answered(memory("new", brightness)), alike, seeded()) is None


def test_the_same_draws_show_the_same() -> None:
    augmenting = Showing(replace(PLAN, augmentation=1.0, transplanted=3), PATIENT)
    one, again, other = (
        augmenting.of_step(NEW, HOME.joined(BRIGHT), None, NEW, seeded(seed)) for seed in (0, 0, 1)
    )
    assert len(one.pixels) == len(one.labels) == 4 + 8 + 3
    assert torch.equal(one.pixels, again.pixels)
    assert not torch.equal(one.pixels, other.pixels)
