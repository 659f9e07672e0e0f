from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from medloop_model.training.freeze import SHALLOW_EWC
from medloop_model.training.images import PATIENT
from medloop_model.training.memory import Memory
from medloop_model.training.plan import TrainingPlan
from medloop_model.training.showing import Restyling, Showing, Shown, revisiting

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
NOBODY = NEW.at(NEW.labels[:0])


def of_step(
    showing: Showing, old: Memory, generator: torch.Generator, restyled: Restyling | None = None
) -> Shown:
    return showing.of_step(NEW, old, NEW, generator, returned=NOBODY, restyled=restyled)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brightness_of(pixels: torch.Tensor) -> list[float]:
    return [round(image.mean().item(), 1) for image in pixels]


def test_of_one_old_domain_there_is_no_other_to_revisit() -> None:
    assert revisiting(HOME, NOBODY, seeded()) is None
    assert revisiting(HOME.at(torch.tensor([], dtype=torch.int64)), NOBODY, seeded()) is None


def test_examples_of_one_old_domain_are_shown_as_another_ones_scanner_would() -> None:
    both = HOME.joined(BRIGHT)
    seen = set()
    for seed in range(8):
        revisited = revisiting(both, NOBODY, seeded(seed))
        assert revisited is not None
        (domain,) = set(revisited.examples.domains)
        shown = revisited.change.applied(revisited.examples.pixels, seeded())
        assert set(brightness_of(shown)) == {0.7 if domain == "0" else 0.3}
        seen.add(domain)
    assert seen == {"0", "1"}, "either is revisited"


def test_domains_without_a_class_in_common_say_nothing_of_their_scanners() -> None:
    dark, bright = HOME.at(HOME.labels == 0), BRIGHT.at(BRIGHT.labels == 1)
    assert revisiting(dark.joined(bright), NOBODY, seeded()) is None
    shown = of_step(SHOWING, dark.joined(bright), seeded())
    assert torch.equal(shown.pixels, shown.examples.pixels)


def test_a_step_shows_new_examples_then_old_ones_as_they_were_and_revisited() -> None:
    shown = of_step(SHOWING, HOME.joined(BRIGHT), seeded())
    assert shown.examples.ids[: len(NEW)] == NEW.ids
    assert shown.rehearsed == slice(4, 16)
    assert torch.equal(shown.labels, shown.examples.labels)
    assert torch.equal(shown.pixels[:12], shown.examples.pixels[:12]), "four new ones, eight as they were"
    assert torch.equal(shown.remembered, shown.pixels[4:]), "the base model knows every old scanner"
    before, after = (brightness_of(pixels[12:]) for pixels in (shown.examples.pixels, shown.pixels))
    assert len(after) == PLAN.revisited
    assert [{0.3: 0.7, 0.7: 0.3}[each] for each in before] == after


def test_what_only_the_new_scanner_shows_the_base_model_is_not_asked_about() -> None:
    revisited = revisiting(HOME.joined(BRIGHT), NOBODY, seeded())
    assert revisited is not None
    as_new = Restyling(HOME, revisited.change)
    shown = of_step(SHOWING, HOME, seeded(), as_new)
    assert shown.rehearsed == slice(4, 14), "with one old domain all eight are as they were"
    assert torch.equal(shown.remembered, shown.examples.pixels[4:])
    assert torch.equal(shown.pixels[:12], shown.examples.pixels[:12])
    assert not torch.equal(shown.pixels[12:], shown.examples.pixels[12:])


def test_new_examples_of_a_known_scanner_are_shown_as_another_ones_would() -> None:
    back = replace(memory("0", 0.3, count=200, name="new"), domains=("0",) * 200)
    drawn = [revisiting(HOME.joined(BRIGHT), back, seeded(seed)) for seed in range(40)]
    of_home = [each for each in drawn if each and "0" in each.examples.domains]
    assert 10 < len(of_home) < 30, "either domain is as likely to show"
    for each in of_home:
        assert each.examples.ids == HOME.ids + back.ids
        assert set(brightness_of(each.change.applied(back.pixels[:4], seeded()))) == {0.7}


def test_a_domain_lends_as_often_as_it_has_examples() -> None:
    away = memory("2", 0.9, count=6)
    drawn = [revisiting(HOME.joined(BRIGHT).joined(away), NOBODY, seeded(seed)) for seed in range(300)]
    lent = Counter(each.examples.domains[0] for each in drawn if each)
    # Each of the three shows a third of the time: away lends 6 of 30 when home or bright does.
    assert lent["2"] / 300 == pytest.approx(2 / 3 * 6 / 30, abs=0.06)


def test_the_same_draws_show_the_same() -> None:
    augmenting = Showing(replace(PLAN, augmentation=1.0, transplanted=3), PATIENT)
    one, again, other = (of_step(augmenting, HOME.joined(BRIGHT), seeded(seed)) for seed in (0, 0, 1))
    assert len(one.pixels) == len(one.labels) == 4 + 8 + 4 + 3
    assert torch.equal(one.pixels, again.pixels)
    assert not torch.equal(one.pixels, other.pixels)
